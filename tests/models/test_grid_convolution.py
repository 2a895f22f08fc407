from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vqdistill.models.grid_convolution import GridConvolution, Pointwise, maps_of, transforms

GRIDS = [(2, 2), (4, 4), (2, 4)]
ROUNDING = {(2, 2): 1.3, (4, 4): 3.0, (2, 4): 2.0}  # of that of the terms one after the other
SIZES = [(1, 1), (3, 5), (64, 33)]


def problem(grid, channels, n, dtype):
    torch.manual_seed(0)
    convolution = GridConvolution(grid, channels).to(dtype)
    maps = torch.randn(n, channels, *grid, dtype=dtype)
    return convolution, maps, maps.flatten(2).permute(2, 0, 1)


def as_maps(features, grid):
    return features.permute(1, 2, 0).unflatten(2, grid)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("channels", "n"), SIZES)
@pytest.mark.parametrize("frozen", [True, False])
def test_is_the_convolution(grid, channels, n, frozen):
    """Values and gradients of features and weights, in float64."""
    convolution, maps, _ = problem(grid, channels, n, torch.float64)
    convolution.requires_grad_(not frozen)
    maps.requires_grad_()
    features = maps.flatten(2).permute(2, 0, 1)
    ours = as_maps(convolution(features), grid)
    plain = F.conv2d(maps, convolution.weight, padding=1)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    wanted = torch.randn_like(plain)
    tensors = (maps,) if frozen else (maps, convolution.weight)
    for gradient, expected in zip(
        torch.autograd.grad((ours * wanted).sum(), tensors),
        torch.autograd.grad((plain * wanted).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


def one_after_the_other(maps, weight):
    """The 3×3 convolution as a sum of its terms one by one, in the type of the maps."""
    (height, width), padded = maps.shape[2:], F.pad(maps, (1, 1, 1, 1))
    total = torch.zeros_like(maps)
    for row, column, channel in product(range(3), range(3), range(maps.shape[1])):
        seen = padded[:, channel, None, row : row + height, column : column + width]
        total += seen * weight[:, channel, row, column, None, None]
    return total


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_rounding_is_that_of_a_sum_over_the_taps(grid):
    """In float32, against the error of adding the terms one after the other.

    Libraries' convolutions add in blocks, which round less, each in its own way.
    """
    convolution, maps, features = problem(grid, 128, 200, torch.float32)
    exact = F.conv2d(maps.double(), convolution.weight.double(), padding=1)
    plain = one_after_the_other(maps, convolution.weight)
    ours = as_maps(convolution(features), grid)
    assert not torch.equal(ours, F.conv2d(maps, convolution.weight, padding=1))
    assert (ours - exact).norm() < ROUNDING[grid] * (plain - exact).norm()


def test_trained_models_sum_over_the_taps():
    """Evaluations don't depend on how a training computes: equal to the last digit."""
    convolution, maps, features = problem((4, 4), 16, 20, torch.float32)
    convolution.requires_grad_(False)
    last = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        as_maps(convolution(features), (4, 4)), F.conv2d(last, convolution.weight, padding=1)
    )


def test_starts_as_a_plain_convolution_does():
    torch.manual_seed(7)
    ours = GridConvolution((4, 4), 6).weight
    torch.manual_seed(7)
    assert torch.equal(ours, torch.nn.Conv2d(6, 6, 3, padding=1, bias=False).weight)


@pytest.mark.parametrize("grid", GRIDS)
def test_number_of_products(grid):
    """Training multiplies 9 matrices on 2×2 and 36 on 4×4, besides the transforms."""
    convolution, _, features = problem(grid, 16, 40, torch.float32)
    with FlopCounterMode(display=False) as counter:
        convolution(features)
    of_side = {2: 3, 4: 6}
    products, positions = of_side[grid[0]] * of_side[grid[1]], grid[0] * grid[1]
    transforms = 2 * products * positions * 40 * 16 + products * 9 * 16 * 16
    assert counter.get_total_flops() == 2 * (products * 40 * 16 * 16 + transforms)


def test_nothing_but_the_weight_is_stored():
    assert list(GridConvolution((2, 2), 3).state_dict()) == ["weight"]


def test_inference_mode_leaves_nothing_behind():
    """What is kept from call to call serves gradients later on."""
    convolution, _, features = problem((2, 4), 5, 3, torch.float32)
    transforms.cache_clear()
    with torch.inference_mode():
        convolution(features)
    convolution(features).sum().backward()
    assert convolution.weight.grad.isfinite().all()


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("frozen", [True, False])
def test_pointwise_is_a_convolution(device, frozen):
    torch.manual_seed(0)
    pointwise = Pointwise(6).double().to(device).requires_grad_(not frozen)
    x = torch.randn(9, 6, dtype=torch.float64, device=device)
    torch.testing.assert_close(pointwise(x), x @ pointwise.weight.T, rtol=1e-12, atol=1e-12)
    assert list(pointwise.state_dict()) == ["weight"]


@pytest.mark.parametrize("n", [1, 2])
def test_maps_have_their_channels_last(n):
    """A single map too, or the libraries would take another convolution for it and round apart."""
    features = torch.randn(8, n, 5)
    maps = maps_of(features, (2, 4))
    assert torch.equal(maps, as_maps(features, (2, 4)))
    assert maps.stride() == (40, 1, 20, 5)
