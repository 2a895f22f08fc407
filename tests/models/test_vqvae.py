import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from sklearn.cluster import KMeans

from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.errors import InputError
from vqdistill.files import read_tensors, write_tensors
from vqdistill.models import vqvae
from vqdistill.models.gaussians import gaussians
from vqdistill.models.vqvae import VQVAE, VQVAESettings, kmeans, nearest
from vqdistill.training.gradient import GradientTrainer

SMALL = VQVAESettings(grid=(2, 2), codebook_size=6, channels=(4, 5))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_model(**changes):
    """A model of 8×8 images whose codes are encodings of random images."""
    torch.manual_seed(0)
    model = VQVAE((8, 8), VQVAESettings(**{**SMALL.__dict__, **changes})).eval()
    with torch.no_grad():
        model._move(slice(None), model._vectors(torch.rand(2, 64))[:6])
    return model.train()


def move_away(model, codes):
    with torch.no_grad():
        model._move(codes, model.codebook[codes] + 100.0)


@pytest.mark.parametrize(
    ("grid", "channels", "millions"),
    [((2, 2), (32, 64, 128, 256), 4.15), ((4, 4), (128, 256, 512), 16.0)],
)
def test_published_sizes(grid, channels, millions):
    model = VQVAE((28, 28), VQVAESettings(grid=grid, channels=channels))
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
    model = VQVAE(image_shape, VQVAESettings(grid, 7, channels)).eval()
    x = torch.rand(3, image_shape[0] * image_shape[1])
    codes = model.encode(x)
    assert codes.shape == (3, *grid)
    assert codes.dtype == torch.int64
    means, log_stds = model.decode(codes)
    assert means.shape == log_stds.shape == x.shape
    assert means.dtype == torch.float32


@pytest.mark.parametrize(
    ("image_shape", "changes", "match"),
    [
        ((8, 8), {"grid": (3, 3)}, "grid"),
        ((64, 64), {}, "grid"),
        ((28, 8), {}, "grid"),
        ((8, 8), {"channels": (4,)}, "channels"),
        ((8, 8), {"channels": (0, 4)}, "channels"),
        ((8, 8), {"codebook_size": 0}, "codebook_size"),
        ((8, 8), {"initialisation": "random"}, "initialisation"),
        ((8, 8), {"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_impossible_settings(image_shape, changes, match):
    with pytest.raises(InputError, match=match):
        VQVAE(image_shape, VQVAESettings(**{**SMALL.__dict__, **changes}))


def test_codebook_starts_uniform():
    codebook = VQVAE((8, 8), VQVAESettings((2, 2), 50, (8, 64))).codebook
    assert codebook.abs().max() <= 1 / 50
    assert codebook.std().item() == pytest.approx(1 / 50 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("at_once", [1, 37, 10**6])
def test_nearest_neighbours(monkeypatch, at_once):
    monkeypatch.setattr(vqvae, "DISTANCES_AT_ONCE", at_once)
    vectors = torch.randn(40, 3, generator=seeded(1))
    codebook = torch.randn(9, 3, generator=seeded(2))
    distances = ((vectors[:, None] - codebook[None]).double() ** 2).sum(2)
    assert torch.equal(nearest(vectors, codebook), distances.argmin(1))
    assert nearest(vectors, codebook[:1].repeat(4, 1)).eq(0).all()


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
    encodings = model.encoder(x.view(5, 1, 8, 8))  # [5, 4, C]
    codes = model.encode(x)
    for b in range(5):
        for i in range(2):
            for j in range(2):
                distances = (model.codebook - encodings[b, 2 * i + j]).square().sum(1)
                assert codes[b, i, j] == distances.argmin()
    quantised = model.codebook[codes].flatten(1, 2)
    expected = model.decoder(quantised)[:, 0].flatten(1).sigmoid()
    torch.testing.assert_close(model.decode(codes)[0], expected)


class TextbookResidual(torch.nn.Module):
    """The residual block of feature maps [B, C, H, W] as in the VQ-VAE's appendix."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        block = self.block
        y = F.conv2d(x.relu(), block.convolution.weight, padding=1)
        y = normalised(y, block.norm).relu()
        y = F.conv2d(y, block.pointwise.weight[:, :, None, None])
        return x + normalised(y, block.last_norm)


def normalised(x, norm):
    """Batch norm with the batch's own statistics."""
    return F.batch_norm(x, None, None, norm.weight, norm.bias, True, eps=norm.eps)


@pytest.mark.parametrize(("grid", "channels"), [((2, 2), (4, 6, 5, 7)), ((4, 4), (4, 6, 5))])
def test_network_is_the_textbook_one(grid, channels):
    """Features in the order of images, residual blocks of plain convolutions, in float64."""
    torch.manual_seed(1)
    model = VQVAE((28, 28), VQVAESettings(grid, 6, channels)).double()
    x = torch.rand(9, 784, generator=seeded()).double()
    plain_encoder = torch.nn.Sequential(
        *model.encoder.convolutions, *map(TextbookResidual, model.encoder.blocks)
    )
    plain_decoder = torch.nn.Sequential(
        *map(TextbookResidual, model.decoder.blocks), *model.decoder.convolutions
    )
    vectors = model.encoder(x.view(-1, 1, 28, 28))
    plain = plain_encoder(x.view(-1, 1, 28, 28))
    torch.testing.assert_close(vectors, plain.flatten(2).transpose(1, 2), rtol=1e-11, atol=1e-11)
    maps = model.decoder(vectors)
    torch.testing.assert_close(maps, plain_decoder(plain), rtol=1e-10, atol=1e-10)
    wanted = torch.randn(maps.shape, generator=seeded(), dtype=torch.float64)
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    gradients = torch.autograd.grad((maps * wanted).sum(), parameters)
    expected = torch.autograd.grad((plain_decoder(plain) * wanted).sum(), parameters)
    for gradient, of_plain in zip(gradients, expected, strict=True):
        scale = of_plain.abs().max().item()
        torch.testing.assert_close(gradient, of_plain, rtol=0, atol=1e-9 * max(scale, 1.0))


def test_standard_deviations_are_clamped():
    model = small_model().eval()
    codes = torch.zeros(1, 2, 2, dtype=torch.int64)
    for bias, expected in ((-100.0, MIN_STD), (100.0, MAX_STD)):
        with torch.no_grad():
            model.decoder.convolutions[-1].bias[1] = bias
        stds = model.decode(codes)[1].exp()
        torch.testing.assert_close(stds, torch.full_like(stds, expected))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_loss_is_its_equation(ema_decay):
    model = small_model(ema_decay=ema_decay, commitment=3.0).eval()
    x = torch.rand(6, 64, generator=seeded())
    loss, parts = model.loss(x, seeded())
    codes = model.encode(x)
    means, log_stds = (part.double().numpy() for part in model.decode(codes))
    encodings = model.encoder(x.view(6, 1, 8, 8))
    error = (encodings - model.codebook[codes].flatten(1, 2)).square().mean().item()
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


@pytest.mark.parametrize("size", [3, 300])
def test_of_equally_near_codes_the_first_is_taken(size):
    codebook = torch.ones(size, 4)
    codebook[0] = 5.0
    assert (nearest(torch.zeros(50, 4), codebook) == 1).all()


def test_gradients_pass_straight_through():
    """Encoder: the decoder's input gradient and 2β(v - e)/n; codebook: 2(e - v)/n alone."""
    model = small_model(commitment=3.0).double().eval()
    x = torch.rand(6, 64, generator=seeded()).double()
    encodings = model._vectors(x).detach()
    codes = nearest(encodings, model.codebook)
    quantised = model.codebook[codes].detach().requires_grad_()
    means, log_stds = gaussians(model._maps(quantised))
    nll = -torch.distributions.Normal(means, log_stds.exp()).log_prob(x).sum(1).mean()
    (into_decoder,) = torch.autograd.grad(nll, quantised)
    error = (encodings - quantised.detach()) / encodings.numel()
    expected_codebook = torch.zeros_like(model.codebook).index_add_(0, codes, -2 * error)
    parameters = list(model.encoder.parameters())
    expected_encoder = torch.autograd.grad(
        model._vectors(x), parameters, into_decoder + 2 * 3.0 * error
    )

    model.loss(x, seeded())[0].backward()
    torch.testing.assert_close(model.codebook.grad, expected_codebook)
    for parameter, expected in zip(parameters, expected_encoder, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_moving_averages_of_the_codebook():
    model = small_model(ema_decay=0.75)
    assert "codebook" not in dict(model.named_parameters())
    counts, sums = np.ones(6), model.codebook.numpy().copy()
    before = model.codebook.clone()
    for seed in range(2):
        x = torch.rand(5, 64, generator=seeded(seed))
        vectors = model._vectors(x).detach()
        codes = nearest(vectors, model.codebook).numpy()
        counts = 0.75 * counts + 0.25 * np.bincount(codes, minlength=6)
        added = np.zeros_like(sums)
        np.add.at(added, codes, vectors.numpy())
        sums = 0.75 * sums + 0.25 * added
        model.loss(x, seeded())
        np.testing.assert_allclose(model.codebook.numpy(), sums / counts[:, None], rtol=1e-4)
    assert (model.codebook - before).abs().max() > 0.01
    model.eval()
    after = model.codebook.clone()
    model.loss(torch.rand(5, 64), seeded())
    assert torch.equal(model.codebook, after)


def test_unused_codes_outlive_their_moving_average():
    model = small_model(ema_decay=0.5)
    move_away(model, torch.arange(2, 6))
    for _ in range(50):
        model.loss(torch.rand(4, 64, generator=seeded()), seeded())
    assert model.codebook.isfinite().all()
    assert (model.codebook[2:] > 90).all()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_dead_codes_are_revived(ema_decay):
    model = small_model(revive_dead_codes=True, ema_decay=ema_decay)
    move_away(model, torch.tensor([4, 5]))
    used = set()
    for seed in range(3):
        vectors = model._vectors(torch.rand(5, 64, generator=seeded(seed))).detach()
        used |= set(nearest(vectors, model.codebook).tolist())
        model.loss(torch.rand(5, 64, generator=seeded(seed)), seeded())
    dead = sorted(set(range(6)) - used)
    assert {4, 5} <= set(dead)
    assert used
    before = model.codebook.detach().clone()
    model.after_epoch(seeded())
    for code in range(6):
        if code in used:
            assert torch.equal(model.codebook[code], before[code])
        else:
            assert (vectors - model.codebook[code]).abs().sum(1).min() < 1e-5
    assert len(model.codebook[dead].unique(dim=0)) == len(dead)
    assert model.usage.sum() == 0


def test_kmeans_finds_clusters():
    centres = 10 * torch.randn(5, 3, generator=seeded(3))
    noise = torch.randn(400, 3, generator=seeded(4))
    vectors = centres[torch.arange(400) % 5] + noise
    inertia = [
        (vectors - found[nearest(vectors, found)]).square().sum().item()
        for found in (kmeans(vectors, 5, seeded(seed)) for seed in range(8))
    ]
    best = KMeans(5, n_init=10, random_state=0).fit(vectors.numpy()).inertia_
    assert min(inertia) == pytest.approx(best, rel=1e-3)
    assert torch.equal(kmeans(vectors, 5, seeded(1)), kmeans(vectors, 5, seeded(1)))
    with pytest.raises(InputError, match="codebook_size"):
        kmeans(vectors[:4], 5, seeded())


def test_codebook_is_initialised_by_kmeans():
    x = torch.rand(50, 64, generator=seeded())
    for ema_decay in (0.0, 0.9):
        model = small_model(initialisation="kmeans", ema_decay=ema_decay).eval()
        model.before_training(x, seeded(5))
        expected = kmeans(model._vectors(x).detach(), 6, seeded(5))
        torch.testing.assert_close(model.codebook.detach(), expected)
    untouched = small_model()
    before = untouched.codebook.detach().clone()
    untouched.before_training(x, seeded(5))
    assert torch.equal(untouched.codebook, before)


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
