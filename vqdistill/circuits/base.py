"""The one interface that every tractable model answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.errors import InputError

# Pixels lie in [0, 1), samples and points of integrals beyond; grey levels of 0 … 255 farther off.
FARTHEST = 16.0


class Completions(NamedTuple):
    """What is known of images under several masks."""

    log_prob: Tensor  # log p(x_o) [M, B] float64, in nats
    samples: Tensor  # x with a draw from p(x_u | x_o) [M, B, D]
    means: Tensor  # x with E[x_u | x_o] [M, B, D]


class Circuit(ABC):
    """A probabilistic circuit over D pixels with Gaussian leaves.

    Images are x [B, D]. A mask `observed` is boolean, [D] for all images or [B, D] for each; where
    it is true the pixel belongs to x_o, elsewhere to x_u, and the values of x there are ignored.
    Log-likelihoods are float64, in nats. All queries raise InputError for images and masks that
    don't fit, and for observed pixels that are not finite or far outside [0, 1).
    """

    n_variables: int

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Two per Gaussian leaf and fan-in − 1 per sum unit, whatever the weights."""

    @abstractmethod
    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """log p(x) [B], or with a mask the marginal log p(x_o) [B], in nats."""

    def conditional_log_prob(self, x: Tensor, observed: Tensor) -> Tensor:
        """log p(x_u | x_o) = log p(x) − log p(x_o) [B], in nats."""
        observed = self.checked(x, observed)
        return self.log_prob(x) - self.log_prob(x, observed)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, leaf_means: bool = False) -> Tensor:
        """n images [n, D] from p(x); with `leaf_means` the means of the sampled leaves."""

    @abstractmethod
    def conditional_sample(
        self, x: Tensor, observed: Tensor, generator: torch.Generator, leaf_means: bool = False
    ) -> Tensor:
        """x with its unobserved pixels drawn from p(x_u | x_o) [B, D].

        With `leaf_means` they are the means of the sampled leaves, which shows shapes without
        pixel noise.
        """

    @abstractmethod
    def conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        """x with its unobserved pixels replaced by E[x_u | x_o] [B, D]; exact."""

    @abstractmethod
    def conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        """x with its unobserved pixels replaced by the max-product state [B, D].

        That is the x_u of argmax p(x_u, s | x_o) over x_u and the states s of all sum units. It is
        exact for this joint maximum, and p(x_u | x_o) there is a lower bound of the marginal mode.
        """

    def marginals(self, x: Tensor, masks: Tensor) -> Tensor:
        """log p(x_o) [M, B] under several masks [M, D], in nats."""
        masks = self.checked_masks(x, masks)
        return torch.stack([self.log_prob(x, observed) for observed in masks])

    def completions(
        self,
        x: Tensor,
        masks: Tensor,
        generators: Sequence[torch.Generator],
        leaf_means: bool = False,
    ) -> Completions:
        """Marginals, conditional samples and conditional means under several masks [M, D].

        generators: one a mask, for the samples.
        """
        masks = self.checked_masks(x, masks)
        each = list(zip(masks, generators, strict=True))
        return Completions(
            self.marginals(x, masks),
            torch.stack([self.conditional_sample(x, *one, leaf_means) for one in each]),
            torch.stack([self.conditional_mean(x, observed) for observed in masks]),
        )

    def checked_masks(self, x: Tensor, masks: Tensor) -> Tensor:
        """Several masks [M, D]; InputError where one doesn't fit the circuit."""
        _check_mask(masks)
        if masks.ndim != 2:
            raise InputError(
                f"masks of shape {tuple(masks.shape)}: expected [M, {self.n_variables}], M of them"
            )
        self.checked(x, masks.any(0))
        return masks.to(x.device)

    def checked(self, x: Tensor, observed: Tensor | None, optional: bool = False) -> Tensor | None:
        """The mask as [D] or [B, D]; InputError where images or mask do not fit the circuit.

        optional: whether there may be none.
        """
        if x.ndim != 2 or x.shape[1] != self.n_variables or not x.is_floating_point():
            raise InputError(
                f"images of shape {tuple(x.shape)} and type {x.dtype}: this model expects"
                f" [B, {self.n_variables}] of floating point"
            )
        if observed is not None or not optional:
            _check_mask(observed)
            if observed.shape not in (x.shape, x.shape[1:]):
                raise InputError(
                    f"mask of shape {tuple(observed.shape)} and type {observed.dtype}: expected"
                    f" bool, [{x.shape[1]}] for all images or {list(x.shape)} for each"
                )
            observed = observed.to(x.device)
        seen = x if observed is None else torch.where(observed, x, 0.0)
        low, high = seen.aminmax() if seen.numel() else torch.zeros(2)
        farthest = torch.where(high > -low, high, low)
        if not farthest.abs() <= FARTHEST:  # NaN is refused
            raise InputError(
                f"images with an observed pixel of {farthest.item():g}: expected numbers in [0, 1),"
                " which are (grey level + noise) / number of levels"
            )
        return observed


def _check_mask(observed: Tensor | None) -> None:
    if observed is None or observed.dtype != torch.bool:
        kind = "none" if observed is None else f"one of type {observed.dtype}"
        raise InputError(f"mask: found {kind}, expected bool, true where a pixel is observed")
