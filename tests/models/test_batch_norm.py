import pytest
import torch
from torch import nn

from vqdistill.models.batch_norm import LINE, BatchNorm2d


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pair(n_channels, dtype):
    """Our layer and the library's, with the same weights, maps, and a gradient of the outputs."""
    torch.manual_seed(0)
    norms = BatchNorm2d(n_channels).to(dtype), nn.BatchNorm2d(n_channels).to(dtype)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2.0, torch.Generator().manual_seed(1))
    maps = torch.randn(64, n_channels, 14, 14, dtype=dtype)
    maps = (1 + 2 * maps).contiguous(memory_format=torch.channels_last)
    return *norms, maps, torch.randn_like(maps)


def everything(norm, maps, wanted):
    """Values, gradients and statistics."""
    maps = maps.clone().requires_grad_()
    values = norm(maps)
    gradients = torch.autograd.grad((values * wanted).sum(), (maps, norm.weight, norm.bias))
    statistics = norm.running_mean, norm.running_var, norm.num_batches_tracked
    return values, *gradients, *statistics


@pytest.mark.parametrize("n_channels", [1, 8, LINE - 1, LINE])
@pytest.mark.parametrize("tracked", [True, False])
def test_is_batch_norm(threads, n_channels, tracked):
    ours, plain, maps, wanted = pair(n_channels, torch.float64)
    ours.track_running_stats = plain.track_running_stats = tracked
    found, expected = everything(ours, maps, wanted), everything(plain, maps, wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    assert ours.num_batches_tracked == (1 if tracked else 0)
    assert torch.get_num_threads() == threads
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_evaluation_is_the_library_s(threads):
    ours, plain, maps, _ = pair(8, torch.float32)
    assert torch.equal(ours.eval()(maps), plain.eval()(maps))


def test_what_the_library_can_besides(threads):
    """No weights, a cumulative average, and a refusal of single values."""
    maps = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    ours, plain = (
        kind(3, momentum=None, affine=False).double() for kind in (BatchNorm2d, nn.BatchNorm2d)
    )
    assert torch.equal(ours(maps), plain(maps))
    assert torch.equal(ours.running_var, plain.running_var)
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm2d(3)(torch.randn(1, 3, 1, 1, requires_grad=True))
