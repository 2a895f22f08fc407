"""The Gaussian components of a mixture: held in memory, or made when they are asked for."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
FIRST_CHUNK = 128  # small, so that the sums of later chunks can be compared with it
COMPONENT_CHUNK = 1024  # its matrices stay below the 32 MB above which glibc asks the system for
# fresh pages at every allocation
GPU_COMPONENT_CHUNK = 8192


class Components(Protocol):
    """A sequence of Gaussian components, stored or made when they are asked for."""

    n_variables: int
    device: torch.device

    def __len__(self) -> int: ...

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Means [n, D] and log standard deviations [n, D], float32, of the components `index`."""
        ...


class StoredComponents:
    """Components whose parameters are held in memory."""

    def __init__(self, means: Tensor, log_stds: Tensor) -> None:
        self.means, self.log_stds = means, log_stds
        self.n_variables = means.shape[1]
        self.device = means.device

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        return self.means[index], self.log_stds[index]


class DecodedComponents:
    """Components that a decoder makes from component numbers, chunk by chunk: p(x|z)."""

    def __init__(
        self,
        decode: Callable[[Tensor], tuple[Tensor, Tensor]],
        n_components: int,
        n_variables: int,
        device: torch.device,
    ) -> None:
        self.decode, self.n_components = decode, n_components
        self.n_variables, self.device = n_variables, device

    def __len__(self) -> int:
        return self.n_components

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=self.device)
        return self.decode(index)


class ReorderedComponents:
    """Other components, or some of them, in the order that their numbers [N] are given in."""

    def __init__(self, components: Components, order: Tensor) -> None:
        self.components, self.order = components, order
        self.n_variables, self.device = components.n_variables, components.device

    def __len__(self) -> int:
        return len(self.order)

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        return self.components.parameters(self.order[index])


class Chunk(NamedTuple):
    """Some consecutive components."""

    start: int
    means: Tensor  # [n, D]
    log_stds: Tensor  # [n, D]

    @property
    def slice(self) -> slice:
        """The component numbers."""
        return slice(self.start, self.start + len(self.means))


def chunks(components: Components, n_components: int) -> Iterator[Chunk]:
    """The first `n_components`, in chunks that double up to `COMPONENT_CHUNK` (GPUs: its own)."""
    on_cpu = components.device.type == "cpu"
    largest = COMPONENT_CHUNK if on_cpu else GPU_COMPONENT_CHUNK
    start, size = 0, min(FIRST_CHUNK, largest)
    while start < n_components:
        stop = min(n_components, start + size)
        yield Chunk(start, *components.parameters(slice(start, stop)))
        start, size = stop, min(2 * size, largest)


def quadratic_terms(log_stds: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """−1 / 2σ², in the type of log σ, which doubles without rounding, or in a longer one."""
    return (-2 * log_stds).to(dtype).exp_().mul_(-0.5)


def peaks(log_stds: Tensor) -> Tensor:
    """−log σ − ½ log 2π, the largest log-likelihood that a Gaussian can have."""
    return -HALF_LOG_TWO_PI - log_stds
