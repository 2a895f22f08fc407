"""The one interface that every tractable model answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.inputs import (
    Array,
    Layout,
    as_count,
    as_generator,
    as_images,
    as_levels,
    as_mask,
    as_masks,
    check_pixels,
)
from vqdistill.data import bits_per_dimension
from vqdistill.errors import InputError
from vqdistill.files import write_tensors

Generator = torch.Generator
Mask = Array | Literal["finite"]


class Completions(NamedTuple):
    """What is known of images under several masks."""

    log_prob: Tensor  # log p(x_o) [M, B] float64, in nats
    samples: Tensor  # x with a draw from p(x_u | x_o), M times the shape of x
    means: Tensor  # x with E[x_u | x_o]


class Stored(NamedTuple):
    """A circuit as a file holds it: what kind it is, and what it is made again from."""

    kind: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # as JSON


class Circuit(ABC):
    """A probabilistic circuit over D pixels with Gaussian leaves.

    Images are x [B, D] or [B, h, w], NumPy arrays or tensors of floating point. A mask `observed`
    is boolean, [D] or [h, w] for all images, [B, D] or [B, h, w] for each; where it is true the
    pixel belongs to x_o, elsewhere to x_u, and the values of x there are ignored. As 'finite' it is
    true where a pixel of x is a finite number, and missing ones may be NaN. Answers are
    tensors on the model's device: log-likelihoods float64 [B], in nats, and differentiable in x;
    completed images of the shape of x, float64 where x is and else float32. A generator that isn't
    given is a new one, which differs each time. All queries raise InputError for images and masks
    that don't fit, and for observed pixels that are not finite, far outside [0, 1), or raw grey
    levels.

    A kind of circuit answers the methods with an underscore, of images [B, D] and masks [D] or
    [B, D] that are checked; it fills all pixels of a completion, observed ones too.
    """

    n_variables: int
    image_shape: tuple[int, ...] | None = None  # (h, w), where it is known
    levels: int | None = None  # grey levels of the images that it is a model of
    n_classes: int = 1  # that it tells apart; 1 where it knows of none

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Two per Gaussian leaf and fan-in − 1 per sum unit, whatever the weights."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Circuit":
        """This circuit, moved to a device."""

    def log_prob(self, x: Array, observed: Mask | None = None) -> Tensor:
        """log p(x) [B], or with a mask the marginal log p(x_o) [B], in nats."""
        return self._log_prob(*self._asked(x, observed, optional=True))

    def bpd(self, x: Array) -> Tensor:
        """Bits per dimension [B], −log p(x) / (D ln 2) + log₂ of the number of grey levels."""
        self._check_levels("bpd")
        return bits_per_dimension(self.log_prob(x), self.n_variables, self.levels)

    def log_prob_discrete(self, images: Array) -> Tensor:
        """log P(v) [B] of grey levels v, uint8 [B, D] or [B, h, w], in nats; not differentiable.

        Each leaf gives the mass that it has on the bin [v/L, (v + 1)/L) of its pixel, with L grey
        levels; the first bin has all below it too, and the last all above.
        """
        self._check_levels("log_prob_discrete")
        with torch.no_grad():
            return self._log_prob_discrete(self._asked_levels(images))

    def bpd_discrete(self, images: Array) -> Tensor:
        """Bits per dimension [B] of grey levels, −log P(v) / (D ln 2): those that a lossless code
        takes for a pixel, as models of categorical pixels give them."""
        return bits_per_dimension(self.log_prob_discrete(images), self.n_variables, 1)

    def conditional_log_prob(self, x: Array, observed: Mask | None = None) -> Tensor:
        """log p(x_u | x_o) = log p(x) − log p(x_o) [B], in nats."""
        x, observed = self._asked(x, observed)
        check_pixels(x)  # of all pixels, since log p(x) is asked
        return self._conditional_log_prob(x, observed)

    def class_log_prob(self, x: Array, observed: Mask | None = None) -> Tensor:
        """log p(c | x) [B, C], or with a mask log p(c | x_o), in nats; exact.

        With nothing observed that is the model's log p(c). Raises InputError where the model knows
        no classes.
        """
        if self.n_classes < 2:
            raise InputError(
                "class_log_prob: this model knows no classes; 'deep', 'dmrs', 'dmbs', 'random',"
                " 'frequent' and an 'exm' of few latents do, loaded from a run by vqdistill.load"
            )
        return self._class_log_prob(*self._asked(x, observed, optional=True))

    def sample(
        self, n: int, generator: Generator | None = None, leaf_means: bool = False
    ) -> Tensor:
        """n images [n, D] float32 from p(x); with `leaf_means` the means of the sampled leaves."""
        return self._sample(as_count(n), as_generator(generator), leaf_means).float()

    def conditional_sample(
        self,
        x: Array,
        observed: Mask | None = None,
        generator: Generator | None = None,
        leaf_means: bool = False,
    ) -> Tensor:
        """x with its unobserved pixels drawn from p(x_u | x_o).

        With `leaf_means` they are the means of the sampled leaves, which shows shapes without
        pixel noise.
        """
        generator = as_generator(generator)
        return self._completed(self._conditional_sample, x, observed, generator, leaf_means)

    def conditional_mean(self, x: Array, observed: Mask | None = None) -> Tensor:
        """x with its unobserved pixels replaced by E[x_u | x_o]; exact."""
        return self._completed(self._conditional_mean, x, observed)

    def conditional_std(self, x: Array, observed: Mask | None = None) -> Tensor:
        """The standard deviation of each unobserved pixel under p(x_u | x_o), of the shape of x;
        zero for observed pixels; exact."""
        images, mask = self._asked(x, observed)
        with torch.no_grad():
            stds = self._conditional_std(images, mask).to(images.dtype)
            return torch.where(mask, 0.0, stds).view(x.shape)

    def conditional_mode(self, x: Array, observed: Mask | None = None) -> Tensor:
        """x with its unobserved pixels replaced by the max-product state.

        That is the x_u of argmax p(x_u, s | x_o) over x_u and the states s of all sum units. It is
        exact for this joint maximum, and p(x_u | x_o) there is a lower bound of the marginal mode.
        """
        return self._completed(self._conditional_mode, x, observed)

    def marginals(self, x: Array, masks: Array) -> Tensor:
        """log p(x_o) [M, B] under several masks, [M, D] or [M, h, w], in nats."""
        x, masks = self._asked_of_several(x, masks)
        return self._marginals(x, masks) if len(masks) else _no_log_probs(x)

    def completions(
        self,
        x: Array,
        masks: Array,
        generators: Sequence[Generator] | None = None,
        leaf_means: bool = False,
    ) -> Completions:
        """Marginals, conditional samples and conditional means under several masks.

        masks: [M, D] or [M, h, w]; generators: one a mask, for the samples.
        """
        shape, (x, masks) = (
            x.shape if isinstance(x, Array) else (),
            self._asked_of_several(x, masks),
        )
        generators = [None] * len(masks) if generators is None else generators
        if not isinstance(generators, Sequence) or len(generators) != len(masks):
            found = len(generators) if isinstance(generators, Sequence) else repr(generators)
            raise InputError(f"generators: found {found}, expected {len(masks)}, one a mask")
        if not len(masks):
            nothing = x.new_empty(0, *shape)
            return Completions(_no_log_probs(x), nothing, nothing)
        with torch.no_grad():
            found = self._completions(x, masks, [*map(as_generator, generators)], leaf_means)
            samples, means = (
                torch.where(masks[:, None], x, part.to(x.dtype)).view(len(masks), *shape)
                for part in (found.samples, found.means)
            )
        return Completions(found.log_prob, samples, means)

    def save(self, path: str | Path) -> None:
        """Write the model as one safetensors file, which `vqdistill.load` reads."""
        kind, tensors, facts = self._stored()
        facts = {"circuit": kind, "image_shape": self.image_shape, "levels": self.levels, **facts}
        write_tensors(path, tensors, facts)

    # What a kind of circuit answers

    @abstractmethod
    def _log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """log p(x_o) [B]; of all pixels where there is no mask."""

    @abstractmethod
    def _log_prob_discrete(self, images: Tensor) -> Tensor:
        """log P(v) [B] of grey levels v, uint8 [B, D], of which there are `levels`."""

    @abstractmethod
    def _sample(self, n: int, generator: Generator, leaf_means: bool) -> Tensor:
        """[n, D]"""

    @abstractmethod
    def _conditional_sample(
        self, x: Tensor, observed: Tensor, generator: Generator, leaf_means: bool
    ) -> Tensor:
        """[B, D]"""

    @abstractmethod
    def _conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        """[B, D]"""

    @abstractmethod
    def _conditional_std(self, x: Tensor, observed: Tensor) -> Tensor:
        """[B, D]"""

    @abstractmethod
    def _conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        """[B, D]"""

    @abstractmethod
    def _stored(self) -> Stored:
        """What a file holds; InputError where it can't be held."""

    def _class_log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """[B, C]; asked only where there are classes."""
        raise NotImplementedError

    def _conditional_log_prob(self, x: Tensor, observed: Tensor) -> Tensor:
        return self._log_prob(x, None) - self._log_prob(x, observed)

    def _marginals(self, x: Tensor, masks: Tensor) -> Tensor:
        return torch.stack([self._log_prob(x, observed) for observed in masks])

    def _completions(
        self, x: Tensor, masks: Tensor, generators: list[Generator], leaf_means: bool
    ) -> Completions:
        each = list(zip(masks, generators, strict=True))
        return Completions(
            self._marginals(x, masks),
            torch.stack([self._conditional_sample(x, *one, leaf_means) for one in each]),
            torch.stack([self._conditional_mean(x, observed) for observed in masks]),
        )

    # How they are asked

    def _asked(
        self, x: Array, observed: Mask | None, optional: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Images [B, D] and a mask, [D] or [B, D]; None where it is optional and not given."""
        layout = Layout(self.n_variables, self.image_shape)
        x = as_images(x, layout, self.device)
        if observed is not None or not optional:
            observed = as_mask(observed, x, layout, self.device)
        check_pixels(x, observed)
        return x, observed

    def _asked_of_several(self, x: Array, masks: Array) -> tuple[Tensor, Tensor]:
        """Images [B, D] and masks [M, D]."""
        layout = Layout(self.n_variables, self.image_shape)
        x, masks = as_images(x, layout, self.device), as_masks(masks, layout, self.device)
        check_pixels(x, masks.any(0))
        return x, masks

    def _asked_levels(self, images: Array) -> Tensor:
        """Grey levels uint8 [B, D]."""
        layout = Layout(self.n_variables, self.image_shape)
        return as_levels(images, self.levels, layout, self.device)

    def _check_levels(self, query: str) -> None:
        if not self.levels:
            raise InputError(
                f"{query}: the number of grey levels is not known of this model; set its `levels`,"
                " such as model.levels = 256"
            )

    def _completed(self, query: Callable, x: Array, observed: Array | None, *others) -> Tensor:
        """x with its hidden pixels as a query fills them, without gradients."""
        images, mask = self._asked(x, observed)
        with torch.no_grad():
            filled = query(images, mask, *others).to(images.dtype)
            return torch.where(mask, images, filled).view(x.shape)


def _no_log_probs(x: Tensor) -> Tensor:
    """Those of images [B, D] under no mask at all, [0, B]."""
    return x.new_empty(0, len(x), dtype=torch.float64)
