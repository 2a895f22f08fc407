import pytest
import torch
from helpers import seeded

from vqdistill.baselines import einet
from vqdistill.data import Batches


def structured_images(n, seed=0):
    """Two kinds of 4×4 images, a lit left or a lit right half, with noise."""
    generator = seeded(seed)
    lit = torch.rand(n, 1, generator=generator) < 0.5
    left = torch.arange(16) % 4 < 2
    means = torch.where(lit == left, 0.75, 0.25)
    return (means + 0.1 * torch.randn(n, 16, generator=generator)).clamp(0, 0.999)


def small_model(size=3, seed=0):
    torch.manual_seed(seed)
    return einet.build((4, 4), einet.Settings(size=size, pixels_per_step=2))


def small_trainer(model, seed=0, **settings):
    levels = (structured_images(200) * 256).to(torch.uint8)
    generator = seeded(seed)
    settings = einet.Settings(size=model.size, pixels_per_step=2, **settings)
    batches = Batches(levels, 256, 32)
    return einet.trainer(model, batches, structured_images(100, 1), generator, settings)


def test_expected_counts_are_the_gradients_of_the_log_likelihood():
    model = small_model().double()
    model.leaves.stds.uniform_(0.1, 0.5)
    x = structured_images(6).double()
    counts = einet.zero_counts(model)
    log_prob = model.count(x, counts)
    torch.testing.assert_close(log_prob, model.log_prob(x), atol=1e-9, rtol=0)
    step = 1e-6
    generator = seeded(1)
    for layer, weights, mixing in zip(model.layers, counts.weights, counts.mixing, strict=True):
        mixing = mixing / layer.mixing
        for parameters, gradient in ((layer.weights.flatten(2), weights), (layer.mixing, mixing)):
            direction = torch.randn(parameters.shape, generator=generator, dtype=torch.float64)
            change = []
            for sign in (1, -1):
                parameters.add_(sign * step * direction)
                change.append(model.log_prob(x).sum())
                parameters.sub_(sign * step * direction)
            expected = (change[0] - change[1]) / (2 * step)
            assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-5)


def test_expected_counts_of_a_region_are_the_number_of_images_that_use_it():
    model = small_model().double()
    counts = einet.zero_counts(model)
    model.count(structured_images(50).double(), counts)
    occupancy = counts.leaves.occupancy.sum(1)
    torch.testing.assert_close(occupancy, torch.full((4,), 50.0, dtype=torch.float64))
    root = (counts.weights[-1] * model.layers[-1].weights.flatten(2)).sum()
    assert root.item() == pytest.approx(50, rel=1e-9)
    assert counts.mixing[-1].sum().item() == pytest.approx(50, rel=1e-9)


def test_float32_counts_agree_with_float64():
    model = small_model()
    x = structured_images(64)
    counts, exact = einet.zero_counts(model), einet.zero_counts(model.double())
    model.count(x, exact)
    model.float()
    model.count(x, counts)
    torch.testing.assert_close(
        counts.leaves.occupancy, exact.leaves.occupancy, atol=1e-3, rtol=1e-4
    )
    for a, b in zip(counts.weights, exact.weights, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-3, rtol=1e-3)


def test_one_full_step_recovers_the_moments_of_a_factorised_model():
    model = small_model(1)
    x = structured_images(300)
    counts = einet.zero_counts(model)
    model.count(x, counts)
    einet.update(model, counts, 1.0)
    means = model.leaves.image(model.leaves.means[:, :1].float())[0]
    stds = model.leaves.image(model.leaves.stds[:, :1].float())[0]
    torch.testing.assert_close(means, x.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(stds, x.std(0, correction=0), atol=1e-5, rtol=0)


def test_a_half_step_is_half_way_in_moments_and_weights():
    x = structured_images(80)
    half, full, before = small_model(), small_model(), small_model()
    for model in (half, full, before):  # away from the bounds of σ
        model.leaves.means.mul_(0.2)
        model.leaves.stds.fill_(0.5)
    for model, step_size in ((half, 0.5), (full, 1.0)):
        counts = einet.zero_counts(model)
        model.count(x, counts)
        einet.update(model, counts, step_size)
    for a, b, c in zip(before.layers, half.layers, full.layers, strict=True):
        torch.testing.assert_close(b.weights, (a.weights + c.weights) / 2, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(b.mixing, (a.mixing + c.mixing) / 2, atol=1e-6, rtol=1e-4)
    first = (before.leaves.means + full.leaves.means) / 2
    torch.testing.assert_close(half.leaves.means, first, atol=1e-5, rtol=0)
    second = [m.leaves.means.square() + m.leaves.stds.square() for m in (before, half, full)]
    torch.testing.assert_close(second[1], (second[0] + second[2]) / 2, atol=1e-5, rtol=1e-4)


def test_standard_deviations_stay_in_bounds():
    model = small_model(2)
    counts = einet.zero_counts(model)
    model.count(torch.full((50, 16), 0.5), counts)
    einet.update(model, counts, 1.0)
    torch.testing.assert_close(model.leaves.stds, torch.full_like(model.leaves.stds, 1e-3))


def test_units_that_no_image_uses_stay_as_they_are():
    model = small_model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    einet.update(model, einet.zero_counts(model), 1.0)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-5)


def test_training_finds_the_two_kinds_of_images():
    model = small_model(4)
    trainer = small_trainer(model, em_every=3)
    losses = [trainer.train_epoch(lambda loss: None)["loss"] for _ in range(40)]
    x = structured_images(2000, 5)
    left = torch.arange(16) % 4 < 2
    lit = x[:, :1] > 0.5
    mean = torch.where(lit == left, 0.75, 0.25)
    entropy = -torch.distributions.Normal(mean, 0.1).log_prob(x).sum(1).mean() + torch.log(
        torch.tensor(2.0)
    )
    assert losses[-1] < losses[0] - 5
    assert trainer.validate()["loss"] == pytest.approx(entropy.item(), abs=2.0)
    observed = left.expand(2, 16)
    shown = torch.where(torch.tensor([[True], [False]]) == left, 0.75, 0.25)
    torch.testing.assert_close(model.conditional_mean(shown, observed), shown, atol=0.08, rtol=0)


def test_an_epoch_has_evenly_spread_steps_and_tells_every_batch():
    model = small_model()
    trainer = small_trainer(model, em_every=2)  # 7 batches, 4 steps
    after = [n for n in range(1, 8) if trainer.steps_after(n) > trainer.steps_after(n - 1)]
    assert after == [2, 4, 6, 7]
    losses = []
    result = trainer.train_epoch(losses.append)
    assert len(losses) == 7
    assert all(loss.ndim == 0 for loss in losses)
    assert min(losses).item() <= result["loss"] <= max(losses).item()
    assert small_trainer(model, em_every=1000).steps == 1


def test_validation_is_the_mean_log_likelihood():
    trainer = small_trainer(small_model())
    expected = -trainer.model.log_prob(*trainer.validation).mean().item()
    assert trainer.validate() == {"loss": pytest.approx(expected)}


def test_the_global_seed_decides_the_initial_model():
    states = [small_model(seed=seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["leaves.means"], states[2]["leaves.means"])
