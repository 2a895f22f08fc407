import math

import pytest
import torch

from vqdistill.circuits.evidence import NEGLIGIBLE
from vqdistill.circuits.screening import RUN, Bounds, among_all, segments


def problem(n, n_weights, spread, so_far, seed=0):
    """Bounds of `n_weights` weight vectors, some weights zero, and scores [11, n]."""
    g = torch.Generator().manual_seed(seed)
    scores = -spread * torch.rand(11, n, generator=g).square()
    log_weights = -30 * torch.rand(n_weights, n, generator=g)
    log_weights[:, 1::7] = -math.inf
    log_weights[-1, 2::5] = -math.inf
    margins = 3 * torch.rand(n, generator=g)
    earlier = torch.full((n_weights, 11), so_far)
    earlier[:, ::3] = -math.inf
    return scores, Bounds(log_weights - margins, log_weights + margins, 1.001, 0.999, earlier)


def one_by_one(scores, bounds, ends):
    """The pairs that can matter, by the definition: [(image, component)], ascending."""
    found = []
    largest = bounds.so_far.clone()
    for part in segments(ends, scores.shape[1]):
        of_part = scores[:, part]
        least = bounds.lowest[:, None, part] + bounds.wide * of_part  # [S, B, n]
        most = bounds.highest[:, None, part] + bounds.narrow * of_part
        largest = torch.maximum(largest, least.amax(2))
        keep = (most > largest[:, :, None] - NEGLIGIBLE).any(0)
        found += [(image, part.start + number) for image, number in keep.nonzero().tolist()]
    return sorted(found)


@pytest.mark.parametrize("n_weights", [1, 2, 3])
@pytest.mark.parametrize(
    ("n", "ends"), [(1, []), (3, [1, 2, 3]), (RUN, []), (5 * RUN, [RUN, 4 * RUN]), (997, [256])]
)
@pytest.mark.parametrize("spread", [10.0, 1e3])
@pytest.mark.parametrize("so_far", [-math.inf, -100.0, 0.0])
def test_finds_what_can_matter_and_nothing_else(n_weights, n, ends, spread, so_far):
    scores, bounds = problem(n, n_weights, spread, so_far)
    images, numbers = among_all(scores, bounds, ends)
    pairs = list(zip(images.tolist(), numbers.tolist(), strict=True))
    assert pairs == one_by_one(scores, bounds, ends)
    if spread > RUN and n > RUN:
        assert 0 < len(pairs) < 0.8 * scores.numel()


def test_components_without_weight_leave_nothing():
    scores, bounds = problem(2 * RUN, 2, 10.0, -math.inf)
    nothing = torch.full_like(bounds.lowest, -math.inf)
    images, _ = among_all(scores, bounds._replace(lowest=nothing, highest=nothing), [])
    assert len(images) == 0
