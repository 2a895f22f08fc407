import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vqdistill.models.doubling import EVEN, ODD, Doubling, Halving

KERNELS = [  # kernel, padding, output padding, input
    (4, 1, 0, (14, 14)),
    (4, 1, 0, (1, 1)),
    (3, 1, (1, 1), (4, 4)),
    (3, 1, (0, 1), (4, 3)),
    (3, (0, 1), 0, (2, 5)),
    (2, 0, 0, (2, 2)),
    (3, 0, 0, (1, 1)),
    ((2, 3), 0, 0, (1, 1)),
    (2, 0, (1, 0), (2, 3)),
    ((2, 4), (0, 1), 0, (3, 2)),
]


def layers(kernel, padding, output_padding, n_in=5, n_out=2):
    torch.manual_seed(0)
    ours = Doubling(n_in, n_out, kernel, 2, padding, output_padding).double()
    plain = nn.ConvTranspose2d(n_in, n_out, kernel, 2, padding, output_padding).double()
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize(("kernel", "padding", "output_padding", "side"), KERNELS)
@pytest.mark.parametrize("n_out", [2, 7, EVEN + 1])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_is_the_transposed_convolution(kernel, padding, output_padding, side, n_out, memory_format):
    """Values and gradients of maps, weights and bias, in float64."""
    ours, plain = layers(kernel, padding, output_padding, n_out=n_out)
    maps = torch.randn(3, 5, *side, dtype=torch.float64).to(memory_format=memory_format)
    maps.requires_grad_()
    got, expected = ours(maps), plain(maps)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad((got * wanted).sum(), (maps, ours.weight, ours.bias)),
        torch.autograd.grad((expected * wanted).sum(), (maps, plain.weight, plain.bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


STRIDED = [  # kernel, padding, input: some leave the last row or column out
    (4, 1, (14, 14)),
    (3, 1, (7, 7)),
    (3, 1, (8, 7)),
    (2, 0, (4, 5)),
    (2, 0, (4, 6)),
    ((2, 3), (0, 1), (6, 4)),
]


@pytest.mark.parametrize(("kernel", "padding", "side"), STRIDED)
@pytest.mark.parametrize("n_in", [1, ODD, EVEN, EVEN + 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_is_the_convolution(kernel, padding, side, n_in, bias, memory_format):
    torch.manual_seed(0)
    ours = Halving(n_in, 6, kernel, 2, padding, bias=bias).double()
    plain = nn.Conv2d(n_in, 6, kernel, 2, padding, bias=bias).double()
    plain.load_state_dict(ours.state_dict())
    maps = torch.randn(3, n_in, *side, dtype=torch.float64).to(memory_format=memory_format)
    maps.requires_grad_()
    got, expected = ours(maps), plain(maps)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad((got * wanted).sum(), (maps, *ours.parameters())),
        torch.autograd.grad((expected * wanted).sum(), (maps, *plain.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_frozen_models_call_the_library():
    """Evaluations don't depend on how a training computes: equal to the last digit."""
    ours, plain = layers(4, 1, 0)
    maps = torch.randn(20, 5, 14, 14, dtype=torch.float64)
    assert torch.equal(ours.requires_grad_(False)(maps), plain(maps))


def test_rounds_as_the_library_does():
    ours, plain = layers(4, 1, 0, n_in=128)
    maps = torch.randn(40, 128, 14, 14)
    exact = plain(maps.double())
    error = (ours.float()(maps) - exact).norm()
    assert 0 < error < 1.5 * (plain.float()(maps) - exact).norm()


def test_multiplies_once():
    """As many products as the taps demand, and those of one more row and column of blocks."""
    ours, _ = layers(4, 1, 0)
    with FlopCounterMode(display=False) as counter:
        ours(torch.randn(3, 5, 14, 14, dtype=torch.float64))
    assert counter.get_total_flops() == 2 * 3 * 15 * 15 * (4 * 5) * (4 * 2)


def test_two_taps_need_one_position():
    ours, _ = layers(2, 0, 0, n_out=8)
    with FlopCounterMode(display=False) as counter:
        ours(torch.randn(3, 5, 2, 2, dtype=torch.float64))
    assert counter.get_total_flops() == 2 * 3 * 2 * 2 * 5 * (4 * 8)


@pytest.mark.parametrize("layer", [Doubling(4, 2, 3, 1, 1), Halving(4, 5, 3, 1, 1)])
def test_other_strides_are_the_library_s(layer):
    maps = torch.randn(2, 4, 8, 8, requires_grad=True)
    expected = super(type(layer), layer).forward(maps)
    assert torch.equal(layer(maps), expected)
