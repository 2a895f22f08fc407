"""Steps of training on a GPU, recorded once and then launched as a whole (CUDA graphs).

A step of a small network is hundreds of kernels of microseconds, and launching each from Python
takes longer than running it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # steps before the recording, in which libraries set themselves up


class GraphedStep:
    """A step that is called again and again with tensors of the same shapes.

    It gives one tensor, changes what it has (parameters, statistics) in place, and draws random
    numbers from `generator` alone. On a GPU it must not wait for the device or copy from the host.
    On a CPU, and for tensors of other shapes, it is simply called.
    """

    def __init__(self, step: Callable[..., Tensor], generator: torch.Generator) -> None:
        self.step, self.generator = step, generator
        self.inputs: list[Tensor] = []  # where the recorded kernels read
        self.result: Tensor | None = None  # where they write
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warmed_up = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not inputs[0].is_cuda:
            return self.step(*inputs)
        self.inputs = self.inputs or [torch.empty_like(tensor) for tensor in inputs]
        if [like(tensor) for tensor in self.inputs] != [like(tensor) for tensor in inputs]:
            return self.step(*inputs)
        for ours, given in zip(self.inputs, inputs, strict=True):
            ours.copy_(given)
        if self.warmed_up < WARM_UP:
            self.warmed_up += 1
            return self._aside()
        if self.graph is None:
            self._record()
        self.graph.replay()
        return self.result.clone()

    def _aside(self) -> Tensor:
        """The step on a stream of its own, as it will be recorded."""
        main, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            result = self.step(*self.inputs)
        main.wait_stream(aside)
        return result.clone()

    def _record(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        with torch.cuda.graph(self.graph):
            self.result = self.step(*self.inputs)


def like(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    """What must be the same of a recorded step's input and of another."""
    return tensor.shape, tensor.dtype
