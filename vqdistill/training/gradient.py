"""Training by gradient: any model with a loss, by Adam."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from vqdistill.training.cuda_graph import GraphedStep
from vqdistill.training.loop import Progress


class GradientTrainer:
    """Any model with a `loss`, trained by Adam.

    `batches(generator)` and `validation_batches()` yield what `model.loss` takes, a tensor or a
    tuple of tensors. The generator draws the order, the noise and whatever the loss samples; in
    validation a generator that is seeded alike each time stands in for it.

    On a GPU a training step is recorded and replayed, for which a loss must neither wait for the
    device nor copy from the host; a model whose loss does says `recordable = False`.
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
        means = _Means()
        for batch in map(_as_tuple, self.batches(self.generator)):
            values = self.step(*batch)
            means.add(len(batch[0]), values)
            progress(values[0])
        if hasattr(self.model, "after_epoch"):
            self.model.after_epoch(self.generator)
        return means.named(self.names)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        means, names = _Means(), []
        generator = torch.Generator(device=self.generator.device).manual_seed(0)
        for batch in map(_as_tuple, self.validation_batches()):
            _, names, values = self._loss(batch, generator)
            means.add(len(batch[0]), values)
        return means.named(names)

    def _step(self, *batch: Tensor) -> Tensor:
        """Move the parameters by the gradient of one batch; the loss and its parts [1 + parts]."""
        self.optimiser.zero_grad()
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
        state |= {f"adam/{name}": tensor for name, tensor in self.optimiser.state().items()}
        return state | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        parts = {"model": {}, "adam": {}, "generator": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.optimiser.load_state(parts["adam"])
        self.generator.set_state(tensors["generator"])

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


class Adam:
    """Adam (Kingma and Ba 2015) with L2 weight decay: torch's fused kernel, its state by name.

    torch.optim.Adam would give the same numbers, but its class imports torch's compiler, which
    takes longer than many a training here.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.parameters = dict(model.named_parameters())
        self.means = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = {
            name: p.new_zeros((), dtype=torch.float32) for name, p in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        adam(
            [self.parameters[name] for name in names],
            [self.parameters[name].grad for name in names],
            [self.means[name] for name in names],
            [self.squares[name] for name in names],
            [],
            [self.steps[name] for name in names],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        slots = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {
            f"{slot}/{name}": tensor for slot, of in slots.items() for name, tensor in of.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])


def _as_tuple(batch: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


class _Means:
    """Means over batches of different sizes, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.n, self.sums = 0, 0.0

    def add(self, n: int, values: Tensor) -> None:
        self.n += n
        self.sums = self.sums + n * values

    def named(self, names: list[str]) -> dict[str, float]:
        return dict(zip(names, (self.sums / self.n).tolist(), strict=True))


def in_batches(size: int, *tensors: Tensor) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """Validation batches: tensors of one length, cut alike into tuples of `size` rows."""

    def batches() -> Iterator[tuple[Tensor, ...]]:
        yield from zip(*(tensor.split(size) for tensor in tensors), strict=True)

    return batches
