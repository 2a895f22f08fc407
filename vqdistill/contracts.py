"""What a selection method and a baseline must be, tried on something tiny before any training.

A file that was added is refused by one line that says what it lacks.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vqdistill.baselines import is_circuit, load_baseline
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.mixture import Mixture
from vqdistill.data import Batches
from vqdistill.datasets import Dataset
from vqdistill.distillation import load_method
from vqdistill.distillation.selection import check_selection
from vqdistill.errors import InputError, failures_told
from vqdistill.models.function_prior import FunctionPrior
from vqdistill.settings import Settings

FEW = 8  # images of the batch that a baseline is tried on


@cache
def check_method(name: str) -> None:
    """InputError unless a selection method does what all must do, tried on 81 latents."""
    with _told(f"selection method {name!r}"):
        method = load_method(name)
        nested = getattr(method, "PREFIXES_ARE_MODELS", None)
        if not isinstance(nested, bool):
            raise InputError(f"PREFIXES_ARE_MODELS: found {nested!r}, expected True or False")
        _check_functions(method, select=("prior", "n_components", "generator", "training_codes"))
        large = _tried_selection(method, 7)
        for n in range(1, 7):
            if not torch.equal(large.codes[:n], _tried_selection(method, n).codes) and nested:
                raise InputError(
                    f"PREFIXES_ARE_MODELS: found True, but the first {n} of 7 codes are not those"
                    f" that select gives for {n} with an equal generator; set it to False"
                )


def _tried_selection(method: ModuleType, n: int) -> Any:
    def next_codes(codes: Tensor, classes: Tensor) -> Tensor:
        favoured = (codes.sum(1) + classes)[:, None] + torch.arange(3)
        return -(favoured % 3) / 4

    prior = FunctionPrior(next_codes, 3, (2, 2), 2)
    training_codes = torch.arange(3)[:, None, None].expand(3, 2, 2)
    generator = torch.Generator().manual_seed(0)
    selection = method.select(prior, n, generator, training_codes)
    check_selection(selection, prior, n)
    return selection


def check_baseline(method: str, settings: Settings, images: Dataset) -> None:
    """InputError unless a baseline does what all must do, tried on one batch of random images."""
    with _told(f"baseline {method!r}"), torch.random.fork_rng(devices=[]):
        baseline = load_baseline(method)
        trainer = ("model", "batches", "validation_x", "generator", "settings")
        _check_functions(baseline, build=("image_shape", "settings"), trainer=trainer)
        model = baseline.build(images.shape, settings)
        if not isinstance(model, nn.Module):
            raise InputError(f"build: found {type(model).__name__}, expected a torch.nn.Module")
        generator, n_pixels = torch.Generator().manual_seed(0), math.prod(images.shape)
        shape = (images.n_train, n_pixels)
        grey = torch.randint(images.levels, shape, dtype=torch.uint8, generator=generator)
        batches, x = OneBatch(grey, images.levels, FEW), (grey[:FEW] + 0.5) / images.levels
        trainer = baseline.trainer(model, batches, x, generator, settings)
        _try_trainer(trainer, baseline.build(images.shape, settings))
        _try_circuit(method, baseline, model.eval(), x)


class OneBatch(Batches):
    """Batches of which each pass has the first alone."""

    def __len__(self) -> int:
        return 1

    def __call__(self, generator: torch.Generator) -> Iterator:
        yield next(super().__call__(generator))


def _try_trainer(trainer: Any, fresh: nn.Module) -> None:
    """An epoch, a validation, and the way of the weights into a fresh model."""
    for name in ("train_epoch", "validate", "state", "load_state", "weights"):
        if not callable(getattr(trainer, name, None)):
            raise InputError(f"trainer: found no {name}, expected a training.loop.Trainer")
    for name, given in (("train_epoch", (lambda loss: None,)), ("validate", ())):
        means = getattr(trainer, name)(*given)
        if not isinstance(means, dict) or not isinstance(means.get("loss"), float):
            raise InputError(
                f"trainer.{name}: found {means!r}, expected a dict with a float 'loss'"
            )
    for name in ("state", "weights"):
        tensors = getattr(trainer, name)()
        if not isinstance(tensors, dict) or not all(
            isinstance(t, Tensor) for t in tensors.values()
        ):
            raise InputError(f"trainer.{name}: expected a dict of tensors")
    trainer.load_state(trainer.state())
    fresh.load_state_dict(trainer.weights())


def _try_circuit(method: str, baseline: ModuleType, model: nn.Module, x: Tensor) -> None:
    """The model as a circuit, or what it compiles to, asked about images [n, D]."""
    circuit = model
    if not is_circuit(method):
        _check_functions(baseline, circuit=("model", "n_components", "generator"))
        circuit, smaller = (
            baseline.circuit(model, n, torch.Generator().manual_seed(0)) for n in (3, 2)
        )
        if not isinstance(circuit, Mixture) or circuit.n_components != 3:
            raise InputError("circuit: expected a Mixture of n_components components")
        if not torch.allclose(circuit.means[:2], smaller.means, atol=1e-4):
            raise InputError("circuit: the first 2 of 3 components are not those of 2")
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"build: found {type(circuit).__name__}, expected a circuits.base.Circuit, or a"
            " function circuit(model, n_components, generator) beside it that gives a Mixture"
        )
    observed = torch.arange(x.shape[1]) < x.shape[1] // 2
    if not (circuit.log_prob(x).isfinite() & circuit.log_prob(x, observed).isfinite()).all():
        raise InputError("log_prob: found no finite numbers after one batch")
    circuit.conditional_mean(x, observed)


def _check_functions(module: ModuleType, **functions: tuple[str, ...]) -> None:
    """InputError unless the module has these functions, of these arguments."""
    for name, arguments in functions.items():
        function = getattr(module, name, None)
        wanted = f"{name}({', '.join(arguments)})"
        if not callable(function):
            raise InputError(f"found no {name}, expected a function {wanted}")
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments)
        except TypeError:
            raise InputError(f"found {name}{signature}, expected {wanted}") from None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever goes wrong within as one line."""
    try:
        with failures_told("failed when it was tried"):
            yield
    except InputError as error:
        raise InputError(f"{what}: {error}; see docs/extending.md") from None
