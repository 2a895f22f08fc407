"""Logarithms of sums of exponentials, with the softmax, which is their gradient, as what is kept.

The library's take more passes over the numbers, and many times as long where exponentials are too
small for float32, as those of most terms of a mixture are.
"""

from typing import Any

import torch
from torch import Tensor


def log_sum_exp(x: Tensor) -> Tensor:
    """log Σ_k exp(x_k) of every row: [n, K] -> [n]."""
    return LogSumExp.apply(x)


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[code], in nats: logits [n, K], codes int64 [n]."""
    return CrossEntropy.apply(logits, codes)


class LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        softmax = x.softmax(1)
        ctx.save_for_backward(softmax)
        return normaliser(x, softmax)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (softmax,) = ctx.saved_tensors
        return gradient[:, None] * softmax


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, codes: Tensor) -> Tensor:
        softmax = logits.softmax(1)
        ctx.save_for_backward(softmax, codes)
        return (normaliser(logits, softmax) - logits.gather(1, codes[:, None]).squeeze(1)).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        softmax, codes = ctx.saved_tensors
        of_each = gradient / len(codes)
        result = of_each * softmax
        return result.scatter_add_(1, codes[:, None], -of_each.expand(len(codes), 1)), None


def normaliser(x: Tensor, softmax: Tensor) -> Tensor:
    """log Σ_k exp(x_k) [n] from the largest entry, whose softmax is never too small for a log."""
    return x.amax(1) - softmax.amax(1).log()
