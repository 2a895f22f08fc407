"""Which convolutions take an image to a grid of codes, and which make an image in a CM's decoder.

Without torch, so that a grid that does not fit is refused before anything is trained.
"""

from typing import NamedTuple

from vqdistill.errors import InputError


class Convolution(NamedTuple):
    kernel: int
    stride: int
    padding: int
    bare: bool = False  # neither batch norm nor ReLU after the encoder's convolution


STACKS = {
    (2, 2): (
        Convolution(4, 2, 1),
        Convolution(4, 2, 1),
        Convolution(3, 2, 1),
        Convolution(2, 2, 0),
    ),
    (4, 4): (Convolution(4, 2, 1), Convolution(4, 2, 1), Convolution(3, 2, 1, bare=True)),
}


def encoder_layers(
    image_shape: tuple[int, int], grid: tuple[int, int]
) -> tuple[tuple[Convolution, ...], list[tuple[int, int]]]:
    """The published stack for a grid, without leading layers for smaller images.

    Returns the layers and the shapes from the image to the grid (one more than the layers).
    Raises InputError if the grid has no stack or can't be reached from the image.
    """
    stack = STACKS.get(tuple(grid), ())
    for start in range(len(stack)):
        shapes = [tuple(image_shape)]
        for kernel, stride, padding, _ in stack[start:]:
            shapes.append(tuple((s + 2 * padding - kernel) // stride + 1 for s in shapes[-1]))
        if shapes[-1] == tuple(grid):
            return stack[start:], shapes
    raise InputError(
        f"grid: {tuple(grid)} can't be reached from images of {tuple(image_shape)} pixels; there "
        f"are encoders for {', '.join(map(str, STACKS))} and images of, say, 28×28 or 8×8 pixels; "
        "choose one of these grids or pad the images"
    )


def check_channels(channels: tuple[int, ...], n_layers: int, grid: tuple[int, int]) -> None:
    """Raises InputError unless there are positive channels for each layer of the encoder."""
    if len(channels) != n_layers or min(channels) < 1:
        raise InputError(
            f"channels: {tuple(channels)} given, but grid {tuple(grid)} needs "
            f"{n_layers} positive number(s) for these images, one for each encoder layer"
        )


def decoder_sides(image_shape: tuple[int, int]) -> list[int]:
    """Sides of the square maps of a CM's decoder, before cropping, until one covers the image.

    A transposed convolution of kernel 3 and stride 2 takes side s to 2s + 1; the last one is
    cropped to the image by its padding: 1 -> 3 -> 7 -> 15 -> 31 (28), 1 -> 3 -> 7 -> 15 (8).
    """
    sides = [1, 3]
    while sides[-1] < max(image_shape):
        sides.append(2 * sides[-1] + 1)
    return sides


def check_cm_channels(image_shape: tuple[int, int], channels: tuple[int, ...]) -> None:
    """Raises InputError unless there are channels for each layer of a CM's decoder, at last 2."""
    n_layers = len(decoder_sides(image_shape)) - 1
    if len(channels) != n_layers or channels[-1] != 2:
        raise InputError(
            f"channels: {tuple(channels)} given, but images of {tuple(image_shape)} "
            f"pixels need {n_layers} numbers, the last of which is 2 (mean and deviation)"
        )
