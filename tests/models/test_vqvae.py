import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.stats import norm

from vqdistill import settings
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.files import read_tensors, write_tensors
from vqdistill.models import vqvae
from vqdistill.models.codebook import kmeans
from vqdistill.models.vqvae import VQVAE
from vqdistill.training.gradient import GradientTrainer


def small_model(**changes):
    """A model of 8×8 images whose codes are encodings of random images."""
    torch.manual_seed(0)
    sizes = {"grid": (2, 2), "codebook_size": 6, "channels": (4, 5)}
    model = VQVAE((8, 8), settings.VQVAE(**(sizes | changes))).eval()
    with torch.no_grad():
        model.codebook.move(slice(None), model.encodings(torch.rand(2, 64))[:6])
    return model.train()


@pytest.mark.parametrize(
    ("grid", "channels", "millions"),
    [((2, 2), (32, 64, 128, 256), 4.15), ((4, 4), (128, 256, 512), 16.0)],
)
def test_published_sizes(grid, channels, millions):
    model = VQVAE((28, 28), settings.VQVAE(grid=grid, channels=channels))
    counts = model.parameter_counts()
    assert round(sum(counts.values()) / 1e6, 2 if millions < 10 else 1) == millions
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert counts["codebook"] == 4096 * channels[-1]


@pytest.mark.parametrize(
    ("image_shape", "grid", "n_layers"),
    [
        ((28, 28), (2, 2), 4),
        ((28, 28), (4, 4), 3),
        ((8, 8), (2, 2), 2),
        ((8, 8), (4, 4), 1),
        ((32, 32), (2, 2), 4),
        ((32, 30), (4, 4), 3),
        ((7, 8), (4, 4), 1),
    ],
)
def test_encoder_and_decoder_land_on_their_shapes(image_shape, grid, n_layers):
    channels = (3, 4, 5, 6)[:n_layers]
    sizes = settings.VQVAE(grid=grid, codebook_size=7, channels=channels)
    model = VQVAE(image_shape, sizes).eval()
    x = torch.rand(3, image_shape[0] * image_shape[1])
    codes = model.encode(x)
    assert codes.shape == (3, *grid)
    assert codes.dtype == torch.int64
    means, log_stds = model.decode(codes)
    assert means.shape == log_stds.shape == x.shape
    assert means.dtype == torch.float32


def test_codes_and_pixels_do_not_depend_on_parts(monkeypatch):
    model = small_model().eval()
    x = torch.rand(7, 64, generator=seeded())
    codes, (means, log_stds) = model.encode(x), model.decode(model.encode(x))
    assert len(codes.unique()) > 2
    monkeypatch.setattr(vqvae, "IMAGES_AT_ONCE", 3)
    assert torch.equal(model.encode(x), codes)
    torch.testing.assert_close(model.decode(codes), (means, log_stds))


def test_codes_stand_in_row_major_order():
    """Each code sits where its encoding does, and the decoder reads it from there."""
    model = small_model().eval()
    x = torch.rand(5, 64, generator=seeded())
    encodings = model.encoder(x.view(5, 1, 8, 8))  # [5, C, 2, 2]
    codes = model.encode(x)
    for b in range(5):
        for i in range(2):
            for j in range(2):
                distances = (model.codebook.vectors - encodings[b, :, i, j]).square().sum(1)
                assert codes[b, i, j] == distances.argmin()
    expected = model.decoder(model.codebook(codes).permute(0, 3, 1, 2))[:, 0].flatten(1).sigmoid()
    torch.testing.assert_close(model.decode(codes)[0], expected)


def test_standard_deviations_are_clamped():
    model = small_model().eval()
    codes = torch.zeros(1, 2, 2, dtype=torch.int64)
    for bias, expected in ((-100.0, MIN_STD), (100.0, MAX_STD)):
        with torch.no_grad():
            model.decoder[-1].bias[1] = bias
        stds = model.decode(codes)[1].exp()
        torch.testing.assert_close(stds, torch.full_like(stds, expected))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_loss_is_its_equation(ema_decay):
    model = small_model(ema_decay=ema_decay, commitment=3.0).eval()
    x = torch.rand(6, 64, generator=seeded())
    loss, parts = model.loss(x, seeded())
    codes = model.encode(x)
    means, log_stds = (part.double().numpy() for part in model.decode(codes))
    error = (model.encodings(x) - model.codebook(codes.flatten())).square().mean().item()
    nll = -norm.logpdf(x.numpy(), means, np.exp(log_stds)).sum(1).mean()
    shares = np.bincount(codes.flatten().numpy(), minlength=6) / codes.numel()
    entropy = -sum(share * math.log(share) for share in shares if share > 0)

    assert parts["nll"].item() == pytest.approx(nll, rel=1e-5)
    assert parts["codebook"].item() == pytest.approx(error, rel=1e-5)
    assert parts["commitment"].item() == pytest.approx(error, rel=1e-5)
    assert parts["perplexity"].item() == pytest.approx(math.exp(entropy), rel=1e-5)
    assert entropy > 0.5
    weight = 3.0 if ema_decay else 4.0
    assert loss.item() == pytest.approx(nll + weight * error, rel=1e-5)


def test_gradients_pass_straight_through():
    """Encoder: the decoder's input gradient and 2β(v - e)/n; codebook: 2(e - v)/n alone."""
    model = small_model(commitment=3.0).double().eval()
    x = torch.rand(6, 64, generator=seeded()).double()
    encodings = model.encodings(x).detach()
    codes = model.codebook.nearest(encodings)
    quantised = model.codebook.vectors[codes].detach().requires_grad_()
    means, log_stds = model.gaussians(quantised)
    nll = -torch.distributions.Normal(means, log_stds.exp()).log_prob(x).sum(1).mean()
    (into_decoder,) = torch.autograd.grad(nll, quantised)
    error = (encodings - quantised.detach()) / encodings.numel()
    expected_codebook = torch.zeros_like(model.codebook.vectors).index_add_(0, codes, -2 * error)
    parameters = list(model.encoder.parameters())
    expected_encoder = torch.autograd.grad(
        model.encodings(x), parameters, into_decoder + 2 * 3.0 * error
    )

    model.loss(x, seeded())[0].backward()
    torch.testing.assert_close(model.codebook.vectors.grad, expected_codebook)
    for parameter, expected in zip(parameters, expected_encoder, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_codebook_moves_in_training_only(ema_decay):
    model = small_model(ema_decay=ema_decay, revive_dead_codes=True)
    state = {name: tensor.clone() for name, tensor in model.codebook.state_dict().items()}
    model.eval().loss(torch.rand(5, 64), seeded())
    assert all(torch.equal(model.codebook.state_dict()[name], old) for name, old in state.items())
    model.train().loss(torch.rand(5, 64), seeded())
    assert model.codebook.usage.sum() == 20
    assert torch.equal(model.codebook.vectors, state["vectors"]) == (ema_decay == 0)


def test_codebook_is_initialised_by_kmeans_if_so_set():
    x = torch.rand(50, 64, generator=seeded())
    for ema_decay in (0.0, 0.9):
        model = small_model(initialisation="kmeans", ema_decay=ema_decay).eval()
        model.before_training(x, seeded(5))
        expected = kmeans(model.encodings(x).detach(), 6, seeded(5))
        torch.testing.assert_close(model.codebook.vectors.detach(), expected)
    untouched = small_model()
    before = untouched.codebook.vectors.detach().clone()
    untouched.before_training(x, seeded(5))
    assert torch.equal(untouched.codebook.vectors, before)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_interrupted_training_goes_on_to_the_bit(tmp_path, ema_decay):
    images = torch.rand(40, 64, generator=seeded())

    def trainer():
        model = small_model(revive_dead_codes=True, ema_decay=ema_decay)
        return GradientTrainer(
            model,
            lambda g: images[torch.randperm(40, generator=g)].split(8),
            lambda: [images],
            seeded(9),
            1e-2,
            1e-5,
        )

    undisturbed, first, second = trainer(), trainer(), trainer()
    losses = [undisturbed.train_epoch(lambda loss: None)["loss"] for _ in range(4)]
    for _ in range(2):
        first.train_epoch(lambda loss: None)
    write_tensors(tmp_path / "state.safetensors", first.state(), {})
    second.load_state(read_tensors(tmp_path / "state.safetensors")[0])
    for _ in range(2):
        second.train_epoch(lambda loss: None)
    assert second.validate() == undisturbed.validate()
    for name, tensor in undisturbed.state().items():
        assert torch.equal(second.state()[name], tensor), name
    assert losses[-1] < losses[0]
