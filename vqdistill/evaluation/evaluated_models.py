"""What is evaluated: the models that are read from one circuit, by size and by mixture weights."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.mixture import (
    Mixture,
    StreamedMixture,
    mixture_parameters,
    uniform_log_weights,
)

# a model's number of components, the name of its weights, and its log p(x), log p(x_o) or log P(v)
# of grey levels v, in nats
Evaluated = tuple[int, str, Tensor]


@dataclass(frozen=True)
class EvaluatedModels:
    """The models of one method that one circuit holds.

    method, grid, codebook_size, size: keys of the tables. For a mixture, `sizes` are the numbers
    n of first components that are models of their own, and `log_weights` holds, by name, the
    weight vectors [N] under which they are read, the one that the method stands for first. Other
    circuits are one model as they are: no sizes, no weights.
    """

    method: str
    circuit: Circuit
    grid: str = "-"
    codebook_size: int = 0
    size: int = 0
    sizes: tuple[int, ...] = ()
    log_weights: dict[str, Tensor] | None = None
    log_prior: Tensor | None = None  # log p(z) [N], not normalised, of a selection of latents

    @property
    def largest(self) -> int:
        """The largest number of components, 0 for a circuit that is no mixture of sizes."""
        return max(self.sizes, default=0)

    @property
    def extent(self) -> tuple[int, int]:
        """What the models of one method are ordered by."""
        return self.largest, self.size

    @property
    def main_weights(self) -> str:
        """The name of the weights that the method stands for."""
        return next(iter(self.log_weights)) if self.log_weights else "learned"

    def keys(self, n_components: int, weights: str) -> dict[str, object]:
        """The keys of one of the models, as columns of the tables."""
        return {
            "method": self.method,
            "grid": self.grid,
            "codebook_size": self.codebook_size,
            "size": self.size,
            "n_components": n_components,
            "weights": weights,
        }

    def n_parameters(self, n_components: int) -> int:
        """Parameters of one of the models, as a walk over the circuit counts them."""
        if self.sizes:
            return mixture_parameters(n_components, self.circuit.n_variables)
        return self.circuit.n_parameters

    def log_probs(self, x: Tensor) -> Iterator[Evaluated]:
        """log p(x) [B] of all models, from one pass."""
        everything = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
        for n_components, weights, log_prob in self.marginals(x, everything):
            yield n_components, weights, log_prob[0]

    def marginals(self, x: Tensor, masks: Tensor) -> Iterator[Evaluated]:
        """The same under several masks [M, D], from one pass: log p(x_o) [M, B]."""
        if not self.sizes:
            yield 0, "learned", self.circuit.marginals(x, masks)
            return
        values = self.circuit.prefix_marginals(x, list(self.sizes), self._stacked(), masks)
        yield from self._named(values.movedim(0, 2))

    def log_probs_discrete(self, images: Tensor) -> Iterator[Evaluated]:
        """log P(v) [B] of grey levels v, uint8 [B, D], of all models, from one pass."""
        if not self.sizes:
            yield 0, "learned", self.circuit.log_prob_discrete(images)
            return
        sizes = list(self.sizes)
        yield from self._named(
            self.circuit.prefix_log_prob_discrete(images, sizes, self._stacked())
        )

    def _stacked(self) -> Tensor:
        """All weight vectors [S, N]."""
        return torch.stack(list(self.log_weights.values()))

    def _named(self, values: Tensor) -> Iterator[Evaluated]:
        """Values [S, sizes, ...] by model."""
        for name, of_weights in zip(self.log_weights, values, strict=True):
            for n, of_model in zip(self.sizes, of_weights, strict=True):
                yield n, name, of_model

    def model(self, n_components: int) -> Circuit:
        """One of the models, under the weights that the method stands for."""
        if not self.sizes or n_components == self.circuit.n_components:
            return self.circuit
        return self.circuit.first(n_components)


def name_of(keys: dict[str, object]) -> str:
    """A model in a line of a log, from its keys."""
    return " ".join(f"{key}={value}" for key, value in keys.items() if value not in ("-", 0))


def distilled_models(
    method: str,
    mixtures: dict[int, Mixture],
    sizes: list[int],
    log_priors: dict[int, Tensor],
    **keys: object,
) -> list[EvaluatedModels]:
    """What a selection method gives: one for all sizes where prefixes are models, else one a size.

    mixtures and log p(z) by number of components: of the largest alone, or of each.
    """
    found = []
    for n, mixture in mixtures.items():
        weights = {"uniform": uniform_log_weights(n, mixture.log_weights.device)}
        weights["prior"] = torch.log_softmax(log_priors[n], 0)
        keys |= {"sizes": tuple(sizes) if len(mixtures) == 1 else (n,), "log_prior": log_priors[n]}
        found.append(EvaluatedModels(method, mixture, log_weights=weights, **keys))
    return found


def exact_models(mixture: StreamedMixture, **keys) -> EvaluatedModels:
    """The exact model: weights p(z) recover Eq. 1, uniform weights are Eq. 2 over all latents."""
    n = mixture.n_components
    uniform = uniform_log_weights(n, mixture.log_weights.device)
    weights = {"prior": mixture.log_weights, "uniform": uniform}
    return EvaluatedModels("exm", mixture, sizes=(n,), log_weights=weights, **keys)
