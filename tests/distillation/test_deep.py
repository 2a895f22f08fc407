"""Deep distillation: samples of a teacher, and what is learned from them."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers import TabularPrior, refusal, seeded
from torch.distributions import Normal

from vqdistill.baselines.quad_tree import SEEN_FIRST, begin
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.distillation import code_start, deep
from vqdistill.distillation.selection import log_prob_by_class
from vqdistill.settings import Student, Training

SHAPE = (4, 4)


class Decoder:
    """Four codes on 2×2, each of which lights its quarter of a 4×4 image more or less."""

    image_shape, grid, levels, device = SHAPE, (2, 2), 256, torch.device("cpu")
    codebook = SimpleNamespace(vectors=torch.eye(4))

    def decode(self, codes):
        quarters = (0.2 + 0.2 * codes.float()).repeat_interleave(2, 1).repeat_interleave(2, 2)
        means = quarters.flatten(1)
        return means, torch.full_like(means, 0.04).log()


def own(size=4, levels=0, **others):
    settings = {"method": "deep", "grid": (2, 2), "codebook_size": 4, "training": Training()}
    return Student(
        **settings | {"size": size, "class_levels": levels, "falling_epochs": 4}, **others
    )


def samples_of(prior, n, batch_size=50, seed=0):
    return deep.sampled(Decoder(), prior, n, batch_size, seeded(seed))


def held_out(prior):
    return next(samples_of(prior, 1000, 1000, seed=7)(seeded(1)))


def learner(prior, settings, n=4000):
    torch.manual_seed(0)
    model, samples = QuadTree(SHAPE, settings.size, 3, settings.class_levels), samples_of(prior, n)
    begin(model, samples.some(SEEN_FIRST, seeded()), seeded())
    return deep.trainer(model, samples, held_out(prior), seeded(), settings)


def losses_of(trainer, epochs):
    losses = [trainer.validate()["loss"]]
    for _ in range(epochs):
        trainer.train_epoch(lambda loss: None)
        losses.append(trainer.validate()["loss"])
    return losses


def exact_joint(prior, x):
    """log p(x, c) [n, C] of images, by all latents."""
    codes = prior.every_latent()
    means, log_stds = Decoder().decode(codes)
    pixels = Normal(means.double(), log_stds.double().exp()).log_prob(x.double()[:, None])
    terms = pixels.sum(2)[..., None] + log_prob_by_class(prior, codes)  # [n, K^HW, C]
    return terms.logsumexp(1) - math.log(prior.n_classes)


def test_samples_follow_the_teacher():
    prior = TabularPrior(4, (2, 2), 3)
    codes = prior.every_latent()
    probability = log_prob_by_class(prior, codes).exp()  # [N, C]
    x, classes = next(samples_of(prior, 20_000, 20_000)(seeded()))
    for c in range(3):
        expected = probability[:, c] @ Decoder().decode(codes)[0].double()
        torch.testing.assert_close(x[classes == c].double().mean(0), expected, atol=0.01, rtol=0)
    assert (classes.bincount() / 20_000 - 1 / 3).abs().max() < 0.015


def test_pixels_are_drawn_anew_in_each_pass():
    samples = samples_of(TabularPrior(4, (2, 2), 3), 130)
    noise = seeded()
    one, two = (torch.cat([x for x, _ in samples(noise)]) for _ in range(2))
    assert one.shape == (130, 16)
    assert len(samples) == 3
    codes = [(5 * x[:, [0, 1, 4, 5]].mean(1)).round().long().bincount() for x in (one, two)]
    assert torch.equal(*codes)  # of the first quarter
    assert not torch.isin(one, two).any()


def test_a_student_comes_close_to_its_teachers_exact_density():
    prior = TabularPrior(4, (2, 2), 3)
    x, classes = held_out(prior)
    entropy = -exact_joint(prior, x).gather(1, classes[:, None]).mean().item()
    losses = losses_of(learner(prior, own(8, 1)), 8)
    assert losses[0] - entropy > 3
    assert entropy - 0.1 < losses[-1] < entropy + 0.5


def test_levels_that_know_classes_are_those_that_pay_for_their_parameters():
    """The number of least description length; where every class has the same latents, one."""
    prior = TabularPrior(4, (2, 2), 3)
    alike = TabularPrior(4, (2, 2), 3)
    alike.tables = [table[:1].expand_as(table) for table in alike.tables]

    def tried(prior, size, n):
        learn = partial(learner, prior)  # of as many samples, whatever n
        return deep.tried_class_levels(SHAPE, learn, own(size, samples=n))

    assert tried(alike, 4, 2**24)[0] == 1
    few, many = (tried(prior, 2, n) for n in (20_000, 2**24))
    assert few[1][str(few[0])] == min(few[1].values())
    for levels in (1, 2):
        n_parameters = QuadTree(SHAPE, 2, 3, levels).n_parameters
        lengths = [n_parameters * math.log(n) / (2 * n) for n in (20_000, 2**24)]
        found = few[1][str(levels)] - many[1][str(levels)]
        assert found == pytest.approx(lengths[0] - lengths[1], rel=1e-6)


def test_a_flat_mixture_learns_from_the_same_samples_and_is_behind():
    prior = TabularPrior(4, (2, 2), 3)
    circuit = learner(prior, own(8, 1))
    losses_of(circuit, 6)
    flat = deep.flat_trainer(samples_of(prior, 4000), held_out(prior), seeded(), own(56))
    losses = losses_of(flat, 15)
    assert losses[0] - losses[-1] > 3
    assert flat.model.n_parameters > 0.9 * circuit.model.n_parameters
    x, _ = held_out(prior)
    assert losses[-1] + circuit.model.log_prob(x).mean().item() > 0.5


def test_expected_counts_are_the_gradients_of_the_joint_log_likelihood():
    torch.manual_seed(0)
    model, step = QuadTree((3, 2), 3, 2, 1).double(), 1e-6
    x, classes = torch.rand(5, 6, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    counts = model.zero_counts()

    def joint():
        return model.joint_log_prob(x).gather(1, classes[:, None]).sum().item()

    assert model.count_joint(x, classes, counts).sum().item() == pytest.approx(joint(), abs=1e-9)
    for weights, gradient in zip(model.sum_weights(), counts.weights, strict=True):
        direction = torch.randn(weights.shape, generator=seeded(1), dtype=torch.float64)
        change = []
        for sign in (1, -1):
            weights.add_(sign * step * direction)
            change.append(joint())
            weights.sub_(sign * step * direction)
        expected = (change[0] - change[1]) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


# what the ladder varies


def test_without_pixel_noise_samples_are_means():
    prior = TabularPrior(4, (2, 2), 3)
    samples = deep.sampled(Decoder(), prior, 500, 500, seeded(), pixel_noise=False)
    x, _ = next(samples(seeded(1)))
    greys = 0.2 + 0.2 * torch.arange(4)
    distance = (x[..., None] - greys).abs().amin(-1)
    assert distance.square().mean().sqrt() == pytest.approx(1 / (256 * math.sqrt(12)), rel=0.05)


def test_units_start_as_codes():
    """With a unit for each code, each region's units have the four greys of its quarter."""
    prior = TabularPrior(4, (2, 2), 3)
    samples = samples_of(prior, 3000)
    torch.manual_seed(0)
    model = QuadTree(SHAPE, 4, 3)
    settings = own(4).model_copy(update={"falling_epochs": 1})
    begin(model, samples.some(SEEN_FIRST, seeded()), seeded())
    code_start.begin_with_codes(model, Decoder(), samples, seeded(), settings)
    layer = model.layers[0]  # its sums of units of pixels, whose means these are
    of_pixels = (layer.weights[:, 0] * model.leaves.means[:, None, :, 0]).sum(2)  # [D, K]
    greys = [round(of_pixels[layer.parents == 0, unit].mean().item(), 1) for unit in range(4)]
    assert sorted(greys) == [0.2, 0.4, 0.6, 0.8]


def test_regions_of_a_grid_are_its_cells():
    model = QuadTree((5, 6), 2)
    level, cells = code_start.level_of_grid(model, (3, 3))
    assert level == 0
    assert sorted(cells.tolist()) == [*range(9)]
    parents = model.layers[0].parents
    for leaf, pixel in enumerate(model.leaves.pixels[:, 0].tolist()):
        row, column = divmod(pixel, 6)
        assert cells[parents[leaf]] == row // 2 * 3 + column // 2
    said = refusal(code_start.level_of_grid, model, (4, 4))
    assert said.startswith("start: codes of a grid of 4×4: no level of a quad-tree over images of")
