import pytest
import torch

from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.errors import InputError


def covered(rectangle):
    top, bottom, left, right = rectangle
    return {(row, column) for row in range(top, bottom) for column in range(left, right)}


@pytest.mark.parametrize(
    ("shape", "step", "regions", "partitions"),
    [
        ((28, 28), 4, 784, 3136),  # 7 pieces an axis, the paper's
        ((8, 8), 2, 100, 200),
        ((28, 28), 7, 100, 200),
        ((2, 2), 1, 9, 6),
        ((1, 2), 1, 3, 1),
    ],
)
def test_counts(shape, step, regions, partitions):
    graph = poon_domingos(shape, step)
    assert graph.n_regions == len(set(graph.rectangles)) == regions
    assert graph.n_partitions == partitions


@pytest.mark.parametrize(("shape", "step"), [((4, 4), 1), ((6, 4), 2), ((1, 5), 1)])
def test_every_cut_of_every_region_is_a_partition_once(shape, step):
    graph = poon_domingos(shape, step)
    for layer in graph.layers:
        for offset, (lefts, rights) in enumerate(zip(layer.left, layer.right, strict=True)):
            rectangle = graph.rectangles[layer.start + offset]
            whole = covered(rectangle)
            halves = set()
            for left, right in zip(lefts.tolist(), rights.tolist(), strict=True):
                a, b = covered(graph.rectangles[left]), covered(graph.rectangles[right])
                assert a | b == whole
                assert not a & b
                halves.add((left, right))
            top, bottom, start, end = rectangle
            assert len(halves) == lefts.numel() == (bottom - top - 1) + (end - start - 1)


def test_regions_are_ordered_for_layerwise_evaluation():
    graph = poon_domingos((12, 8), 2)
    start = len(graph.pixels)
    for depth, layer in enumerate(graph.layers, start=1):
        assert layer.start == start
        assert layer.left.shape == layer.right.shape
        assert layer.left.shape[1] == depth
        assert max(layer.left.max(), layer.right.max()) < start
        start += len(layer.left)
    assert start == graph.n_regions
    assert graph.rectangles[-1] == (0, 6, 0, 4)
    assert len(graph.layers[-1].left) == 1


def test_leaves_hold_the_pixels_of_their_pieces():
    graph = poon_domingos((4, 6), 2)
    numbers = torch.arange(24).view(4, 6)
    assert sorted(graph.pixels.flatten().tolist()) == list(range(24))
    for pixels, (top, bottom, left, right) in zip(graph.pixels, graph.rectangles, strict=False):
        piece = numbers[2 * top : 2 * bottom, 2 * left : 2 * right]
        assert (bottom - top, right - left) == (1, 1)
        assert pixels.tolist() == piece.flatten().tolist()


@pytest.mark.parametrize(("shape", "step"), [((28, 28), 5), ((8, 8), 8), ((8, 8), 0), ((4, 6), 4)])
def test_steps_that_do_not_fit_are_refused(shape, step):
    with pytest.raises(InputError, match="pixels_per_step"):
        poon_domingos(shape, step)
