"""Learning of quad-trees: where it starts, its steps, and what it finds."""

import math

import pytest
import torch
from helpers import seeded

from vqdistill.baselines import quad_tree
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.data import Batches


def images(n, seed=0):
    """Grey levels of two kinds of 5×4 images, a lit left or a lit right half, with noise."""
    generator = seeded(seed)
    lit = torch.rand(n, 1, generator=generator) < 0.5
    left = torch.arange(20) % 4 < 2
    grey = torch.where(lit == left, 192.0, 64.0) + 20 * torch.randn(n, 20, generator=generator)
    return grey.clamp(0, 255).to(torch.uint8)


def trained(size, epochs, seed=0, **settings):
    own = quad_tree.Settings(size=size, **settings)
    torch.manual_seed(seed)
    model = quad_tree.build((5, 4), own)
    validation = (images(200, 1) + 0.5) / 256
    trainer = quad_tree.trainer(model, Batches(images(600), 256, 50), validation, seeded(seed), own)
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
