import math

import numpy as np
import pytest
import torch
from helpers import refusal, seeded
from scipy.special import logsumexp
from scipy.stats import kstest, norm

from vqdistill.baselines import continuous_mixture
from vqdistill.baselines.continuous_mixture import Settings, build, circuit, normal_points, trainer
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.models.architectures import decoder_sides


def small_model(**changes):
    torch.manual_seed(0)
    sizes = {"latent_dimension": 3, "channels": (6, 4, 2), "points": 32, "chunk": 8}
    return build((8, 8), Settings(**(sizes | changes)))


def images(n=5):
    return torch.rand(n, 64, generator=seeded(1))


def test_published_decoder():
    model = build((28, 28), Settings())
    assert sum(p.numel() for p in model.parameters()) == 327_552  # published: about 328 k
    assert model.decode(torch.randn(2, 16))[0].shape == (2, 784)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (9, 12), (28, 28), (3, 2), (15, 4)])
def test_every_pixel_depends_on_the_latents(shape):
    n_layers = len(decoder_sides(shape)) - 1
    torch.manual_seed(0)
    model = build(shape, Settings(channels=(*[4] * (n_layers - 1), 2), points=8))
    means, log_stds = model.decode(torch.randn(50, 16))
    assert means.shape == log_stds.shape == (50, shape[0] * shape[1])
    assert (means.std(0) > 1e-6).all()
    assert (log_stds.std(0) > 1e-6).all()


def test_standard_deviations_are_softplus_clamped():
    model = small_model().eval()
    raw = torch.linspace(-200, 200, 64)
    model.decoder = torch.nn.Module()
    model.decoder.forward = lambda z: raw.expand(len(z), 2, 64).view(-1, 2, 8, 8)
    means, log_stds = model.decode(torch.zeros(1, 3))
    torch.testing.assert_close(means[0], raw.sigmoid())
    expected = np.clip(np.logaddexp(0, raw.double().numpy()) + MIN_STD, MIN_STD, MAX_STD)
    np.testing.assert_allclose(log_stds[0].exp().numpy(), expected, rtol=1e-5)


def test_points_are_scrambled_nested_and_stratified():
    points = normal_points(256, 16, seeded(0))
    assert points.dtype == torch.float64
    assert torch.equal(points[:32], normal_points(32, 16, seeded(0)))
    assert not torch.equal(points, normal_points(256, 16, seeded(1)))
    generator = seeded(0)
    normal_points(256, 16, generator)
    assert not torch.equal(points, normal_points(256, 16, generator))
    for n in (1, 2, 64, 256):  # one point in each n-th of the standard normal, along every axis
        strata = np.floor(n * norm.cdf(points[:n].numpy())).astype(int)
        for axis in range(16):
            assert sorted(strata[:, axis]) == list(range(n))


def test_single_points_follow_the_standard_normal():
    first = torch.cat([normal_points(1, 4, seeded(s)) for s in range(300)])
    for axis in range(4):
        assert kstest(first[:, axis].numpy(), "norm").pvalue > 1e-3


def test_losses_are_their_equations():
    """Batch norm sees each chunk alone, and for 'best' then the best points alone."""
    x, latents = images().double(), normal_points(32, 3, seeded())
    for objective in ("mixture", "best"):
        model = small_model(objective=objective).double()
        means, log_stds = (
            np.concatenate([part.detach().numpy() for part in parts])
            for parts in zip(*map(model.decode, latents.split(8)), strict=True)
        )
        terms = norm.logpdf(x.numpy()[:, None], means, np.exp(log_stds)).sum(2) - math.log(32)
        loss, parts = model.loss(x, seeded())
        mixture = -logsumexp(terms, axis=1).mean()
        best = model.decode(latents[torch.from_numpy(terms.argmax(1))])
        means, log_stds = (part.detach().numpy() for part in best)
        of_best = norm.logpdf(x.numpy(), means, np.exp(log_stds)).sum(1) - math.log(32)
        expected = mixture if objective == "mixture" else -of_best.mean()
        assert loss.item() == pytest.approx(expected, rel=1e-10)
        assert parts["nll"].item() == pytest.approx(mixture, rel=1e-10)
        model.eval()
        loss, parts = model.loss(x, seeded())
        assert loss.item() == parts["nll"].item()


def plain_loss(model, x, latents):
    """The loss with all activations stored, no recomputation and no matrix products; batch norm
    keeps no statistics of the best points."""
    parts = [model.decode(chunk) for chunk in latents.to(x).split(model.settings.chunk)]
    means, log_stds = (torch.cat(part) for part in zip(*parts, strict=True))
    gaussian = torch.distributions.Normal(means, log_stds.exp())
    terms = gaussian.log_prob(x[:, None]).sum(2) - math.log(len(latents))
    if model.settings.objective == "best":
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.forward = model.decode  # with other statistics in place of the model's
        best = latents.to(x)[terms.argmax(1)]
        means, log_stds = torch.func.functional_call(model, statistics, (best,))
        best = torch.distributions.Normal(means, log_stds.exp()).log_prob(x).sum(1)
        return math.log(len(latents)) - best.mean()
    return -terms.logsumexp(1).mean()


@pytest.mark.parametrize("objective", ["mixture", "best"])
@pytest.mark.parametrize("chunk", [8, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_recomputed_gradients_are_exact(objective, chunk, dtype, tolerance):
    """Gradients and batch norm's statistics are those of plain automatic differentiation."""
    model = small_model(objective=objective, chunk=chunk).to(dtype)
    plain = small_model(objective=objective, chunk=chunk).to(dtype)
    x = images().to(dtype)
    model.loss(x, seeded())[0].backward()
    plain_loss(plain, x, normal_points(32, 3, seeded())).backward()
    for (name, found), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        scale = expected.grad.norm()
        assert scale > 0
        assert (found.grad - expected.grad).norm() < tolerance * scale, name
    for (name, found), expected in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)
    assert model.decoder[1].num_batches_tracked == max(1, 32 // chunk)


def test_memory_does_not_grow_with_the_points():
    def stored(points):
        sizes = {}
        model = small_model(points=points)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.update({tensor.data_ptr(): tensor.numel()}) or tensor,
            lambda tensor: tensor,
        ):
            model.loss(images(), seeded())
        return sum(sizes.values())

    per_point = (stored(256) - stored(32)) / 224
    assert per_point < 4 * 5  # a few rows of [B = 5, P]; activations would be over 1,000
    assert stored(8) > 1000 * 8


def test_circuit_is_the_model_in_evaluation_mode():
    model = small_model()
    for seed in range(5):  # running statistics of their own
        model.loss(images(), seeded(seed))
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    mixture = circuit(model, 32, seeded(3))
    assert model.training
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, buffers[name])
    model.eval()
    loss, _ = model.loss(images(), seeded(3))
    assert -mixture.log_prob(images()).mean().item() == pytest.approx(loss.item(), rel=1e-5)
    assert mixture.n_parameters == 32 * 2 * 64 + 31


def test_smaller_circuits_are_prefixes():
    model = small_model()
    large, small = circuit(model, 32, seeded(3)), circuit(model, 4, seeded(3))
    parts = large.prefix_log_prob(images(), [4, 32], large.log_weights[None])[0]
    torch.testing.assert_close(parts[0], small.log_prob(images()), rtol=1e-5, atol=1e-5)
    assert (parts[0] - parts[1]).abs().max() > 1e-2


def test_it_trains_and_validates_on_all_images(monkeypatch):
    monkeypatch.setattr(continuous_mixture, "VALIDATION_ENTRIES", 3 * 32)
    model, x = small_model(learning_rate=1e-2), images(7)
    trained = trainer(model, lambda g: [x], x, seeded(), model.settings)
    seen = [len(part) for (part,) in trained.validation_batches()]
    assert seen == [3, 3, 1]
    before = trained.validate()["loss"]
    for _ in range(40):
        trained.train_epoch(lambda loss: None)
    assert trained.validate()["loss"] < before - 1
    assert trained.validate() == trained.validate()


def test_impossible_channels():
    assert "channels" in refusal(small_model, channels=(8, 2))
