"""Batch norm of few channels, quick with several threads.

Each thread of the library's gradient sums into a row of its own, of one number a channel. Rows of
fewer than 16 channels share a line of the cache, which the threads then take from each other: two
threads take eight times as long as one. So there one thread takes that gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn

LINE = 16  # float32 numbers


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d; where channels are few, its gradient is that of one thread."""

    def forward(self, maps: Tensor) -> Tensor:
        shared = self.num_features < LINE and torch.get_num_threads() > 1
        several = maps[:, 0].numel() > 1  # values of a channel
        plain = self.affine and self.momentum is not None and several
        trained = self.training and maps.requires_grad and maps.device.type == "cpu"
        if not (shared and plain and trained):
            return super().forward(maps)
        statistics = (None, None)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            statistics = (self.running_mean, self.running_var)
        return Normalised.apply(maps, self.weight, self.bias, *statistics, self.momentum, self.eps)


class Normalised(torch.autograd.Function):
    """The library's batch norm, whose gradient one thread takes."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        result, mean, inverse_std = torch.native_batch_norm(
            maps, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.eps = eps
        ctx.save_for_backward(maps, weight, mean, inverse_std)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse_std = ctx.saved_tensors
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            gradients = torch.ops.aten.native_batch_norm_backward(
                gradient, maps, weight, None, None, mean, inverse_std, True, ctx.eps, [True] * 3
            )
        finally:
            torch.set_num_threads(threads)
        return *gradients, None, None, None, None
