"""All settings, each with its meaning, its bounds and its default: the paper's.

A model of pydantic for each thing that is trained, and for the experiment that they make up. The
schema for editors and the page of settings are generated from here. Nothing imports torch.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

GRID = r"^[1-9][0-9]*x[1-9][0-9]*$"


def parse_grid(value: Any) -> Any:
    """(H, W) of a grid that is written '2x2'."""
    if not isinstance(value, str):
        return value
    height, _, width = value.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"{value!r} is not a grid; write height x width, such as 4x4")
    return int(height), int(width)


def grid_name(grid: tuple[int, int]) -> str:
    """'2x2' of (2, 2)."""
    return f"{grid[0]}x{grid[1]}"


Grid = Annotated[
    tuple[int, int],
    BeforeValidator(parse_grid),
    PlainSerializer(grid_name),
    WithJsonSchema({"type": "string", "pattern": GRID}),
]
Count = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0, description="Of Adam.")]
WeightDecay = Annotated[float, Field(ge=0, description="Of Adam: L2, as part of the gradient.")]


class Settings(BaseModel):
    """Values that can't be changed; an unknown key or another type is refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Training(Settings):
    """Stopping rule and batch size."""

    batch_size: Count = 128
    """Examples of a step."""
    max_epochs: Count = 100
    """Training ends here at the latest."""
    patience: Count = 15
    """Epochs without a gain before training ends."""
    min_improvement: float = Field(0.001, ge=0)
    """What counts as a gain in validation loss, in its unit."""


class VQVAE(Settings):
    """A VQ-VAE."""

    grid: Grid = (2, 2)
    """Height x width of the grid of codes."""
    codebook_size: int = Field(4096, ge=2)
    """K."""
    channels: tuple[Count, ...] = (32, 64, 128, 256)
    """Of the encoder's convolutions; the last is the width of the latents and of the codebook."""
    commitment: float = Field(10.0, ge=0)
    """Weight β of the commitment loss."""
    initialisation: Literal["uniform", "kmeans"] = "uniform"
    """Of the codebook: U(-1/K, 1/K), or k-means of encoded training images."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Of the codebook's moving averages; 0 trains it by gradient."""
    revive_dead_codes: bool = False
    """Whether codes that an epoch did not use move onto recent encodings."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.00001
    training: Training = Training()


class Prior(Settings):
    """The gated PixelCNN over a VQ-VAE's codes."""

    grid: Grid = (2, 2)
    """That of the VQ-VAE."""
    codebook_size: int = Field(4096, ge=2)
    """That of the VQ-VAE."""
    width: Count = 256
    """Channels of the stacks."""
    layers: Count = 10
    """Gated layers."""
    head: Count = 512
    """Hidden channels of the head."""
    learning_rate: LearningRate = 0.0003
    weight_decay: WeightDecay = 0.00001
    training: Training = Training()


class Classifier(Settings):
    """The judge of completed images."""

    width: Count = 16
    """Channels of the first convolution."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.0
    training: Training = Training(max_epochs=20, patience=4)


class ContinuousMixture(Settings):
    """A continuous mixture."""

    latent_dimension: int = Field(16, ge=1, le=21201)
    """Of z; no more than Sobol points have."""
    channels: tuple[Count, ...] = (128, 64, 32, 2)
    """Of the decoder's transposed convolutions; the last is 2, a mean and a deviation."""
    points: Count = 16384
    """Integration points of a training step."""
    chunk: Count = 1024
    """Points that batch norm sees, and memory holds, at a time."""
    objective: Literal["mixture", "best"] = "mixture"
    """Train on all points, or on the best point of each image."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.00001


class EiNet(Settings):
    """An EiNet."""

    size: Count = 30
    """K, sum units a region and input distributions a leaf region."""
    pixels_per_step: Count = 4
    """Side of the region graph's pieces."""
    em_step_size: float = Field(0.5, gt=0, le=1)
    """η of an M-step."""
    em_every: Count = 50
    """Batches to an M-step, about."""


class GaussianMixture(Settings):
    """A plain mixture of Gaussians."""

    size: Count = 64
    """N, its components."""
