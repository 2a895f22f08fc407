import pytest
import torch
import torch.nn.functional as F

from vqdistill.models.softmax import cross_entropy, log_sum_exp


def problem(n=7, K=9, scale=5.0):
    g = torch.Generator().manual_seed(0)
    x = scale * torch.randn(n, K, dtype=torch.float64, generator=g)
    return x.requires_grad_(), torch.randint(K, (n,), generator=g)


def test_values_and_gradients():
    """Those of the library, and those of finite differences."""
    x, codes = problem()
    weights = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, library in (
        ((log_sum_exp(x) * weights).sum(), (x.logsumexp(1) * weights).sum()),
        (3 * cross_entropy(x, codes), 3 * F.cross_entropy(x, codes)),
    ):
        torch.testing.assert_close(ours, library, rtol=1e-14, atol=0)
        found, expected = (torch.autograd.grad(loss, x)[0] for loss in (ours, library))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(log_sum_exp, (x,))
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, codes), (x,))


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30])
def test_exponentials_that_float32_does_not_hold(scale):
    """The code itself may be one whose probability is zero in float32."""
    x, codes = problem(scale=scale)
    short = x.detach().float().requires_grad_()
    for ours, exact in (
        (log_sum_exp(short).mean(), short.double().logsumexp(1).mean()),
        (cross_entropy(short, codes), F.cross_entropy(short.double(), codes)),
    ):
        assert ours.item() == pytest.approx(exact.item(), rel=1e-6)
        assert torch.autograd.grad(ours, short)[0].isfinite().all()
