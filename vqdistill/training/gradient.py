"""Training by gradient: any model with a loss, by Adam."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from vqdistill.training.cuda_graph import GraphedStep
from vqdistill.training.loop import Progress, as_tuple
from vqdistill.training.tf32 import tf32


class GradientTrainer:
    """Any model with a `loss`, trained by Adam.

    `batches(generator)` and `validation_batches()` yield what `model.loss` takes, a tensor or a
    tuple of tensors. The generator draws the order, the noise and whatever the loss samples; in
    validation a generator that is seeded alike each time stands in for it.

    On a GPU a training step is recorded as a CUDA graph, for which a loss must neither wait for the
    device nor copy from the host; a model whose loss does says `recordable = False`. A model whose
    training steps may be in TF32 names those parts of them in `tf32`.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[torch.Generator], Iterable],
        validation_batches: Callable[[], Iterable],
        generator: torch.Generator,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.model, self.generator = model, generator
        self.batches, self.validation_batches = batches, validation_batches
        self.optimiser = Adam(model, learning_rate, weight_decay)
        recordable = getattr(model, "recordable", True)
        self.step = GraphedStep(self._step, generator) if recordable else self._step
        self.names: list[str] = []  # of what a training step gives

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        self.model.train()
        n, sums = 0, 0.0  # of examples; kept on the device until they are asked for
        for batch in map(as_tuple, self.batches(self.generator)):
            values = self.step(*batch)
            n, sums = n + len(batch[0]), sums + len(batch[0]) * values
            progress(values[0])
        if hasattr(self.model, "after_epoch"):
            self.model.after_epoch(self.generator)
        return dict(zip(self.names, (sums / n).tolist(), strict=True))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        n, sums, names = 0, 0.0, []
        generator = torch.Generator(device=self.generator.device).manual_seed(0)
        for batch in map(as_tuple, self.validation_batches()):
            _, names, values = self._loss(batch, generator)
            n, sums = n + len(batch[0]), sums + len(batch[0]) * values
        return dict(zip(names, (sums / n).tolist(), strict=True))

    def _step(self, *batch: Tensor) -> Tensor:
        """Move the parameters by the gradient of one batch; the loss and its parts [1 + parts]."""
        self.model.zero_grad()
        with tf32(getattr(self.model, "tf32", ())):
            loss, self.names, values = self._loss(batch, self.generator)
            loss.backward()
        self.optimiser.step()
        return values

    def _loss(
        self, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, list[str], Tensor]:
        """The loss; the names of it and its parts, and their values, float64 [1 + parts]."""
        loss, parts = self.model.loss(*batch, generator=generator)
        return loss, ["loss", *parts], torch.stack([loss.detach(), *parts.values()]).double()

    def state(self) -> dict[str, Tensor]:
        state = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        return state | self.optimiser.state | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        names = self.model.state_dict()
        self.model.load_state_dict({name: tensors[f"model/{name}"] for name in names})
        for name, tensor in self.optimiser.state.items():
            tensor.copy_(tensors[name])
        self.generator.set_state(tensors["generator"])

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


class Adam:
    """Adam (Kingma and Ba 2015) with L2 weight decay: torch's fused kernel, its state by name.

    torch.optim.Adam would give the same numbers, but its class imports torch's compiler, which
    takes longer than many a training of the quick preset.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.settings = {"lr": learning_rate, "weight_decay": weight_decay, "eps": 1e-8}
        self.state: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            self.state[f"mean/{name}"] = torch.zeros_like(p, requires_grad=False)
            self.state[f"square/{name}"] = torch.zeros_like(p, requires_grad=False)
            self.state[f"step/{name}"] = p.new_zeros((), dtype=torch.float32)

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        moved = {name: p for name, p in self.parameters.items() if p.grad is not None}
        means, squares, steps = (
            [self.state[f"{kind}/{name}"] for name in moved] for kind in ("mean", "square", "step")
        )
        parameters, gradients = [*moved.values()], [p.grad for p in moved.values()]
        rest = {"beta1": 0.9, "beta2": 0.999, "amsgrad": False, "maximize": False, "fused": True}
        adam(parameters, gradients, means, squares, [], steps, **rest, **self.settings)


def in_batches(size: int, *tensors: Tensor) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """Validation batches: tensors of one length, cut alike into tuples of `size` rows."""

    def batches() -> Iterator[tuple[Tensor, ...]]:
        yield from zip(*(tensor.split(size) for tensor in tensors), strict=True)

    return batches
