"""What users ask circuits with: images, masks and generators of many kinds, made alike.

What can't be made so is refused by one InputError that says what was expected.
"""

import math
import operator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqdistill.errors import InputError
from vqdistill.randomness import fresh_generator

Array = Tensor | np.ndarray

# Means of leaves lie in [0, 1] and their deviations are at most 1: here lies what they draw, six
# deviations and more, and what is integrated over.
LOWEST, HIGHEST = -6.0, 7.0
FINITE = "finite"  # stands for the mask of pixels that are not missing
HELPER = "vqdistill.data.prepare(images) makes that of grey levels"
LEVELS_HELPER = "vqdistill.data.to_images(x, model.levels) makes that of images in [0, 1)"


class Layout(NamedTuple):
    """What images of a circuit look like: D pixels [D], or, where it is known, [h, w]."""

    n_variables: int
    image_shape: tuple[int, ...] | None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape, without that of a batch, is one of an image."""
        if self.image_shape is None:
            return math.prod(shape) == self.n_variables and len(shape) > 0
        return tuple(shape) in ((self.n_variables,), tuple(self.image_shape))

    def name(self, *batch: object) -> str:
        """'[B, 64] or [B, 8, 8]' for the batch 'B'."""
        shapes = [(self.n_variables,)] + ([tuple(self.image_shape)] if self.image_shape else [])
        return " or ".join(f"[{', '.join(map(str, (*batch, *shape)))}]" for shape in shapes)


def as_images(x: Any, layout: Layout, device: torch.device) -> Tensor:
    """Images [B, D], float64 where x is and else float32, on a device; differentiable in x."""
    images = _tensor(x)
    if images is None or not images.is_floating_point():
        raise InputError(
            f"images: found {_described(x)}, expected floating point, a NumPy array or a tensor,"
            f" {layout.name('B')}, with pixels in [0, 1); {HELPER}"
        )
    images = _by_layout(images, x, layout)
    return images.to(device, torch.float64 if images.dtype == torch.float64 else torch.float32)


def as_levels(x: Any, n_levels: int, layout: Layout, device: torch.device) -> Tensor:
    """Grey levels uint8 [B, D], all below n_levels, on a device."""
    images = _tensor(x)
    if images is None or images.dtype != torch.uint8:
        raise InputError(
            f"images: found {_described(x)}, expected uint8, a NumPy array or a tensor,"
            f" {layout.name('B')}, of grey levels; {LEVELS_HELPER}"
        )
    images = _by_layout(images, x, layout).to(device)
    brightest = int(images.max()) if images.numel() else 0
    if brightest >= n_levels:
        raise InputError(
            f"images: found grey level {brightest}, expected all below {n_levels}, the levels of"
            " this model"
        )
    return images


def as_mask(observed: Any, x: Tensor, layout: Layout, device: torch.device) -> Tensor:
    """A mask for all images x [B, D], which is [D], or one for each [B, D]; 'finite' is the one
    that is true where a pixel is a finite number."""
    if isinstance(observed, str) and observed == FINITE:
        return x.detach().isfinite()
    mask, n_images = _bool(observed), len(x)
    if layout.fits(mask.shape):
        return mask.reshape(layout.n_variables).to(device)
    if mask.ndim > 1 and len(mask) == n_images and layout.fits(mask.shape[1:]):
        return mask.reshape(n_images, layout.n_variables).to(device)
    raise InputError(
        f"mask: found {_described(observed)}, expected bool, {layout.name()} for all images or"
        f" {layout.name(n_images)} for each"
    )


def as_masks(masks: Any, layout: Layout, device: torch.device) -> Tensor:
    """Several masks [M, D], each for all images."""
    found = _bool(masks)
    if found.ndim < 2 or not layout.fits(found.shape[1:]):
        raise InputError(f"masks: found {_described(masks)}, expected bool, {layout.name('M')}")
    return found.reshape(len(found), layout.n_variables).to(device)


def check_pixels(x: Tensor, observed: Tensor | None = None) -> None:
    """InputError for observed pixels that are no numbers, far from [0, 1), or raw grey levels."""
    seen = (x if observed is None else torch.where(observed, x, 0.0)).detach()
    if not seen.numel():
        return
    low, high = seen.aminmax()
    if not ((low >= LOWEST) & (high <= HIGHEST)):  # NaN is refused
        farthest = torch.where(high - HIGHEST > LOWEST - low, high, low)
        raise InputError(
            f"images with an observed pixel of {farthest.item():g}: expected numbers in [0, 1), and"
            f" none outside [{LOWEST:g}, {HIGHEST:g}]; {HELPER}"
        )
    if high > 1 and (seen == seen.round()).all():
        raise InputError(
            f"images of whole numbers up to {high.item():g}: expected numbers in [0, 1), not grey"
            f" levels; {HELPER}"
        )


def as_generator(generator: Any) -> torch.Generator:
    """The generator, or where it is None a new one, which differs each time."""
    generator = fresh_generator() if generator is None else generator
    if not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator: found {_described(generator)}, expected a torch.Generator, such as"
            " torch.Generator().manual_seed(0), or None"
        )
    return generator


def as_count(n: Any) -> int:
    """How many images are drawn."""
    try:
        count = operator.index(n)
    except TypeError:
        count = -1
    if count < 0 or isinstance(n, bool):
        raise InputError(f"n: found {n!r}, expected a number of images, 0 or more")
    return count


def _by_layout(images: Tensor, x: Any, layout: Layout) -> Tensor:
    """Images [B, D], of what was found as x."""
    if images.ndim < 2 or not layout.fits(images.shape[1:]):
        alone = "; x[None] is a batch of one image" if layout.fits(images.shape) else ""
        raise InputError(
            f"images: found {_described(x)}, this model expects {layout.name('B')}{alone}"
        )
    return images.reshape(len(images), layout.n_variables)


def _bool(mask: Any) -> Tensor:
    found = _tensor(mask)
    if found is None or found.dtype != torch.bool:
        kind = "none" if mask is None else _described(mask)
        raise InputError(
            f"mask: found {kind}, expected bool, a NumPy array or a tensor, true where a pixel is"
            f" observed, or {FINITE!r} where missing pixels are NaN"
        )
    return found


def _tensor(value: Any) -> Tensor | None:
    """A dense tensor, NumPy's numbers copied in the nearest of torch's types; None of all else."""
    if isinstance(value, Tensor):
        return value if value.layout == torch.strided else None
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        return None
    if value.dtype.kind == "f":
        kind = np.float32 if value.dtype.itemsize <= 4 else np.float64
        return torch.from_numpy(value.astype(kind, order="C"))
    whole = value.dtype in (np.bool_, np.uint8)
    return torch.from_numpy(np.array(value, order="C")) if whole else None


def _described(value: Any) -> str:
    if isinstance(value, Array):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    return type(value).__name__
