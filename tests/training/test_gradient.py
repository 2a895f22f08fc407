"""Adam and batches; test_loop.py trains a real model."""

import copy
import math

import pytest
import torch
from torch import nn

from vqdistill.training.gradient import Adam, GradientTrainer, in_batches
from vqdistill.training.tf32 import PARTS


def test_validation_batches_are_cut_alike():
    a, b = torch.arange(7), torch.arange(7) + 10
    parts = list(in_batches(3, a, b)())
    assert [len(part[0]) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([y - x for x, y in parts]), torch.full((7,), 10))


def test_adam_is_the_one_with_l2_decay():
    """One step of Adam with weight decay in the gradient, not of AdamW, by hand."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([2.0]))

        def loss(self, x, generator):
            return 0.0 * (self.w * x).sum(), {}

    model = Slope()
    one = GradientTrainer(
        model, lambda _: [torch.ones(1)], lambda: [], torch.Generator(), 0.125, weight_decay=0.5
    )
    one.train_epoch(lambda _: None)
    # the gradient is 0.5 · 2, whose size Adam's first step divides out; AdamW would give 1.875
    assert model.w.item() == pytest.approx(2.0 - 0.125, abs=1e-5)
    one.train_epoch(lambda _: None)
    m = (0.1 * 0.9 * 1.0 + 0.1 * 0.9375) / (1 - 0.9**2)
    v = (0.001 * 0.999 + 0.001 * 0.9375**2) / (1 - 0.999**2)
    assert model.w.item() == pytest.approx(1.875 - 0.125 * m / math.sqrt(v), abs=1e-5)


def test_adam_takes_the_steps_of_torch():
    """To the bit, with weight decay, and for parameters that have no gradient at times."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    theirs = copy.deepcopy(ours)
    adam = Adam(ours, 1e-2, 1e-1)
    reference = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=1e-1, fused=True)
    for step in range(20):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = None if step % 3 == 0 and one.ndim == 1 else torch.randn_like(one)
            other.grad = None if one.grad is None else one.grad.clone()
        adam.step()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("parts", [(), ("convolutions",), ("convolutions", "products")])
def test_tf32_is_for_training_steps_and_for_what_a_model_names(parts):
    seen = []

    class Watching(nn.Linear):
        tf32 = parts

        def loss(self, x, generator):
            on = {name for name, part in PARTS.items() if part.fp32_precision == "tf32"}
            seen.append((self.training, on))
            return self(x).sum(), {}

    before = {name: part.fp32_precision for name, part in PARTS.items()}
    for part in PARTS.values():
        part.fp32_precision = "ieee"
    try:
        batches = [torch.ones(2, 3)]
        model = Watching(3, 1)
        one = GradientTrainer(model, lambda _: batches, lambda: batches, torch.Generator(), 0.1, 0)
        one.train_epoch(lambda _: None)
        one.validate()
        assert {part.fp32_precision for part in PARTS.values()} == {"ieee"}
    finally:
        for name, part in PARTS.items():
            part.fp32_precision = before[name]
    assert seen == [(True, set(parts)), (False, set())]
