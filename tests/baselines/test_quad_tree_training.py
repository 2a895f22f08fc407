"""Learning of quad-trees: where it starts, its steps, and what it finds."""

import math
from itertools import pairwise

import pytest
import torch
from helpers import seeded

from vqdistill.baselines import quad_tree, quad_tree_levels
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.data import Batches


def images(n, seed=0):
    """Grey levels of two kinds of 5×4 images, a lit left or a lit right half, with noise."""
    generator = seeded(seed)
    lit = torch.rand(n, 1, generator=generator) < 0.5
    left = torch.arange(20) % 4 < 2
    grey = torch.where(lit == left, 192.0, 64.0) + 20 * torch.randn(n, 20, generator=generator)
    return grey.clamp(0, 255).to(torch.uint8)


def trained(size, epochs, seed=0, module=quad_tree, **settings):
    steps = {"first_step": 0.9, "last_step": 0.05}  # large, since there are few
    own = module.Settings(size=size, **steps | settings)
    torch.manual_seed(seed)
    model = module.build((5, 4), own)
    validation = (images(200, 1) + 0.5) / 256
    trainer = module.trainer(model, Batches(images(600), 256, 50), validation, seeded(seed), own)
    losses = [trainer.validate()["loss"]]
    for _ in range(epochs):
        trainer.train_epoch(lambda loss: None)
        losses.append(trainer.validate()["loss"])
    return model, trainer, losses


def test_gaussians_start_on_clusters_of_each_pixel():
    model = QuadTree((1, 2), 2)
    x = torch.tensor([[0.10, 0.9], [0.12, 0.9], [0.80, 0.9], [0.82, 0.9]])
    quad_tree.begin(model, x, seeded())
    means, stds = (
        model.leaves.image(part[..., 0].T[None].permute(2, 1, 0))
        for part in (model.leaves.means, model.leaves.stds)
    )
    torch.testing.assert_close(means[:, 0].sort().values, torch.tensor([0.11, 0.81]))
    torch.testing.assert_close(stds[:, 0], torch.full((2,), 0.01), atol=1e-6, rtol=0)
    assert (means[:, 1] - 0.9).abs().max() < 1e-6
    assert ((stds >= 1e-3) & (stds <= 1)).all()


def test_step_sizes_fall_by_the_same_factor_and_stay():
    settings = quad_tree.Settings(first_step=0.8, last_step=0.1, falling_epochs=3)
    found = [quad_tree.step_size(settings, n) for n in (0, 1, 2, 3, 9)]
    assert found == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.1])


def test_training_finds_that_halves_are_lit_together():
    """log 2 for which half, and 20 Gaussians: no mixture of independent pixels comes close."""
    _, _, losses = trained(4, 8, falling_epochs=8)
    deviation = math.sqrt(20**2 + 1 / 12) / 256
    entropy = math.log(2) + 20 * (0.5 + 0.5 * math.log(2 * math.pi) + math.log(deviation))
    assert losses[-1] == pytest.approx(entropy, abs=0.6)
    assert losses[0] - losses[-1] > 5


def test_a_training_goes_on_to_the_bit():
    _, whole, _ = trained(3, 3)
    _, stopped, _ = trained(3, 1)
    _, goes_on, _ = trained(3, 0, seed=5)
    goes_on.load_state({name: tensor.clone() for name, tensor in stopped.state().items()})
    for _ in range(2):
        goes_on.train_epoch(lambda loss: None)
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, goes_on.weights()[name]), name


def test_weights_and_deviations_stay_in_bounds():
    model, _, _ = trained(8, 4)
    assert ((model.leaves.stds >= 1e-3) & (model.leaves.stds <= 1)).all()
    for weights in model.sum_weights():
        assert weights.min() > 0.9 * quad_tree.MIN_WEIGHT
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_training_on_grey_levels_gives_them_more_mass():
    """Two of 16 grey levels: noise in their bins puts 8 % of a Gaussian out of each."""
    values = torch.where(images(600) > 128, 12, 3).to(torch.uint8)
    found = {}
    for module in (quad_tree, quad_tree_levels):
        torch.manual_seed(0)
        own = module.Settings(size=2, first_step=0.9, last_step=0.05)
        model = module.build((5, 4), own)
        validation = (values[:100] + 0.5) / 16
        trainer = module.trainer(model, Batches(values, 16, 50), validation, seeded(), own)
        for _ in range(6):
            trainer.train_epoch(lambda loss: None)
        model.levels = 16
        found[module] = model.log_prob_discrete(values[:100]).mean().item()
    assert trainer.validate()["loss"] == pytest.approx(-found[quad_tree_levels], rel=1e-6)
    assert found[quad_tree_levels] > -math.log(2) - 0.2
    assert found[quad_tree] < found[quad_tree_levels] - 1


def test_a_whole_m_step_on_grey_levels_never_loses_likelihood():
    own = quad_tree_levels.Settings(size=3, first_step=1.0, last_step=1.0)
    torch.manual_seed(0)
    model = quad_tree_levels.build((5, 4), own).double()
    x = (images(300).double() + 0.5) / 256
    batches = Batches(images(300), 256, 300)
    trainer = quad_tree_levels.trainer(model, batches, x, seeded(), own)
    losses = [trainer.validate()["loss"]]
    for _ in range(10):
        trainer.train_epoch(lambda loss: None)
        losses.append(trainer.validate()["loss"])
    assert all(b <= a + 1e-9 for a, b in pairwise(losses))
    assert losses[0] - losses[-1] > 1
