"""All settings, each with its meaning, its bounds and its default: the paper's.

A model of pydantic for each thing that is trained, for the experiment that they make up, and for
what each job gets. docs/settings.md and the schema for editors are generated from here. Nothing
imports torch.
"""

import difflib
import json
import math
import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Never, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from vqdistill.datasets import DATASETS
from vqdistill.errors import InputError

GRID = r"^[1-9][0-9]*x[1-9][0-9]*$"
NAME = r"^[a-z][a-z0-9_]*$"
LARGEST_SEED = 2**63 - 1
LARGEST_COUNT = 2**31 - 1  # of what is counted in 32 bits


def parse_grid(value: Any) -> Any:
    """(H, W) of a grid that is written '2x2'."""
    if not isinstance(value, str):
        return value
    if not re.match(GRID, value):
        raise ValueError(f"found {value!r}, expected a grid: height x width, such as 4x4")
    height, _, width = value.partition("x")
    return int(height), int(width)


def grid_name(grid: tuple[int, int]) -> str:
    """'2x2' of (2, 2)."""
    return f"{grid[0]}x{grid[1]}"


def _as_set(values: tuple) -> tuple:
    """Values whose order is no matter, in the one order that they are kept in."""
    if len(set(values)) < len(values):
        raise ValueError(f"found {list(values)}, expected each value once")
    return tuple(sorted(values))


def _free_name(name: str) -> str:
    if name in ("reference", "benchmarks"):
        raise ValueError(f"found {name!r}, expected another name: results/{name} is taken")
    return name


Grid = Annotated[
    tuple[int, int],
    BeforeValidator(parse_grid),
    PlainSerializer(grid_name),
    WithJsonSchema({"type": "string", "pattern": GRID}),
]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Width = Annotated[int, Field(ge=1, le=2**14)]  # of a layer
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
CodebookSize = Annotated[int, Field(ge=2, le=2**20)]
Components = Annotated[int, Field(ge=1, le=2**27)]
Channels = Annotated[tuple[Width, ...], Field(min_length=1)]
LearningRate = Annotated[float, Field(gt=0, le=1, description="Of Adam.")]
WeightDecay = Annotated[
    float, Field(ge=0, le=1, description="Of Adam: L2, as part of the gradient.")
]
Unordered = [Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_as_set)]
Several = [Field(min_length=1), *Unordered]
Counts = Annotated[tuple[Components, ...], *Several]


class Settings(BaseModel):
    """Values that can't be changed; an unknown key or another type is refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


# What is trained


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


OwnTraining = Annotated[
    Training, Field(description="What differs from the experiment's `training`.")
]


class VQVAEOfAnyGrid(Settings):
    """VQ-VAEs: what those on all grids share."""

    commitment: float = Field(10.0, ge=0, le=1e6)
    """Weight β of the commitment loss."""
    initialisation: Literal["uniform", "kmeans"] = "uniform"
    """Of the codebook: U(-1/K, 1/K), or k-means of encoded training images."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Of the codebook's moving averages; 0 trains it by gradient."""
    revive_dead_codes: bool = False
    """Whether codes that an epoch did not use move onto recent encodings."""
    tf32: bool = True
    """Whether a GPU that has TF32 trains its convolutions in it; all else is in float32."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.00001
    training: OwnTraining = Training()


class VQVAE(VQVAEOfAnyGrid):
    """A VQ-VAE."""

    grid: Grid = (2, 2)
    """Height x width of the grid of codes."""
    codebook_size: CodebookSize = 4096
    """K."""
    channels: Channels = (32, 64, 128, 256)
    """Of the encoder's convolutions; the last is the width of the latents and of the codebook."""


class PriorOfAnyGrid(Settings):
    """Gated PixelCNNs over the codes of VQ-VAEs: what those on all grids share."""

    layers: int = Field(10, ge=1, le=2**10)
    """Gated layers."""
    head: Width = 512
    """Hidden channels of the head."""
    tf32: bool = True
    """Whether a GPU that has TF32 trains in it; all else is in float32."""
    learning_rate: LearningRate = 0.0003
    weight_decay: WeightDecay = 0.00001
    training: OwnTraining = Training()


class Prior(PriorOfAnyGrid):
    """The gated PixelCNN over a VQ-VAE's codes."""

    grid: Grid = (2, 2)
    """That of the VQ-VAE."""
    codebook_size: CodebookSize = 4096
    """That of the VQ-VAE."""
    width: Width = 256
    """Channels of the stacks."""


class Classifier(Settings):
    """The judge of completed images."""

    width: Width = 16
    """Channels of the first convolution."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.0
    training: OwnTraining = Training(max_epochs=20, patience=4)


class ContinuousMixture(Settings):
    """A continuous mixture."""

    latent_dimension: int = Field(16, ge=1, le=21201)
    """Of z; no more than Sobol points have."""
    channels: Channels = (128, 64, 32, 2)
    """Of the decoder's transposed convolutions; the last is 2, a mean and a deviation."""
    points: Components = 16384
    """Integration points of a training step; a multiple of `chunk` where they are more."""
    chunk: Components = 16384
    """Points that batch norm sees, and memory holds, at a time: 7 GB for 16,384 of them."""
    objective: Literal["mixture", "best"] = "mixture"
    """Train on all points, or on the best point of each image."""
    tf32: bool = True
    """Whether a GPU that has TF32 trains its convolutions in it; all else is in float32."""
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.00001

    @model_validator(mode="after")
    def _chunks_of_one_size(self) -> "ContinuousMixture":
        if self.points > self.chunk and self.points % self.chunk:
            raise ValueError(
                f"points: found {self.points}, expected a multiple of chunk, {self.chunk}, since"
                " batch norm needs chunks of one size; choose powers of two"
            )
        return self


class EiNetOfAnySize(Settings):
    """EiNets: what those of all sizes share."""

    pixels_per_step: Count = 4
    """Side of the region graph's pieces; divides the images' sides."""
    em_step_size: float = Field(0.5, gt=0, le=1)
    """η of an M-step."""
    em_every: Count = 50
    """Batches to an M-step, about."""


class EiNet(EiNetOfAnySize):
    """An EiNet."""

    size: Width = 30
    """K, sum units a region and input distributions a leaf region."""


class QuadTreeOfAnySize(Settings):
    """Quad-trees: what those of all sizes share."""

    first_step: float = Field(0.2, gt=0, le=1)
    """η of the first M-step."""
    last_step: float = Field(0.003, gt=0, le=1)
    """η of the last ones."""
    falling_epochs: Count = 10
    """Epochs in which η falls from the first to the last."""


class QuadTree(QuadTreeOfAnySize):
    """A quad-tree circuit."""

    size: Width = 16
    """K, units a region and Gaussians a pixel."""


class OnImages(QuadTreeOfAnySize):
    """What a student learns from images, after what it learned from samples, or in its place."""

    share: float = Field(1.0, gt=0, le=1)
    """Of the training images, the first ones."""
    first_step: float = Field(0.05, gt=0, le=1)
    """η of the first M-step; a large one forgets the teacher."""
    training: OwnTraining = Training()


class StudentOfAnySize(QuadTreeOfAnySize):
    """Circuits that are learned from samples of a teacher: what those of all sizes share."""

    circuit: Literal["quad_tree", "mixture"] = "quad_tree"
    """A deep circuit that knows classes, or, to compare it with, a flat mixture that doesn't."""
    first_step: float = Field(0.9, gt=0, le=1)
    """η of the first M-step: large, since there are few."""
    last_step: float = Field(0.05, gt=0, le=1)
    """η of the last ones."""
    samples: Annotated[int, Field(ge=0, le=2**24)] = 20000
    """Latents that are drawn and decoded; their pixels are drawn anew in each epoch. 0: none."""
    pixel_noise: bool = True
    """For comparison: false learns from the means of p(x|z), with a grey level's deviation."""
    start: Literal["pixels", "codes"] = "pixels"
    """By k-means of pixels; for comparison, with units that are clusters of the teacher's codes."""
    class_levels: Annotated[int, Field(ge=0, le=16)] | None = None
    """Levels below the root whose units know the class; null tries all on samples."""
    images: OnImages | None = None
    """For comparison: what is learned from images too; null reads no image."""

    @model_validator(mode="after")
    def _learns_from_something(self) -> "StudentOfAnySize":
        if not self.samples and not self.images:
            raise ValueError("samples: found 0 and no `images`, expected one or both to learn from")
        if not self.samples and self.class_levels is None:
            raise ValueError("class_levels: found null, expected a number where samples is 0")
        if not self.samples and self.start == "codes":
            raise ValueError("start: found codes and no samples that have them; set `samples`")
        if self.circuit == "mixture" and (self.images or not self.samples):
            raise ValueError("circuit: found mixture, which learns from samples alone")
        return self


class GaussianMixture(Settings):
    """A plain mixture of Gaussians."""

    size: Components = 64
    """N, its components."""


# The experiment: the keys of config.yaml


class Data(Settings):
    """The images."""

    dataset: Literal[*DATASETS]
    """MNIST, Fashion-MNIST, or scikit-learn's digits, which need no network."""
    root: str | None = None
    """Folder of the dataset; null is $VQDISTILL_DATA, else data/."""
    noise_seed: Seed = 0
    """Of the dequantisation noise of all evaluated images, the same for all models."""
    training_part: Count = 10000
    """Training images, the first ones, that are evaluated as those for test are; by default no
    more than there are."""

    @model_validator(mode="after")
    def _fits_the_dataset(self) -> "Data":
        most = DATASETS[self.dataset].n_train
        if self.training_part > most:
            raise ValueError(
                f"training_part: found {self.training_part}, expected at most {most}, the training"
                f" images of {self.dataset}"
            )
        if self.root is not None and not DATASETS[self.dataset].folder:
            raise ValueError(
                f"root: found {self.root!r}, expected none: {self.dataset} come with scikit-learn;"
                " leave it out"
            )
        return self


class VQVAEs(VQVAEOfAnyGrid):
    """All VQ-VAEs of an experiment."""

    channels: dict[Annotated[str, Field(pattern=GRID)], Channels] = {
        "2x2": (32, 64, 128, 256),
        "4x4": (128, 256, 512),
    }
    """Of the encoder's convolutions, by grid; the last is the width of the latents."""


class Priors(PriorOfAnyGrid):
    """All priors of an experiment."""

    width: Annotated[int, Field(ge=0, le=2**14)] | None = None
    """Channels of the stacks; null or 0 is the width of the latents."""


class Teacher(Settings):
    """VQ-VAEs on one grid, and what is distilled from each."""

    grid: Grid
    """Height x width of the grid of codes."""
    codebook_sizes: Annotated[tuple[CodebookSize, ...], *Several]
    """K of each."""
    methods: Annotated[tuple[str, ...], *Several]
    """exm (all latents), a name in `students` (deep), or files of vqdistill/distillation: dmrs,
    dmbs, random, frequent, …"""


def _once(teachers: tuple[Teacher, ...]) -> tuple[Teacher, ...]:
    """Teachers in the one order that they are kept in."""
    names = [f"{grid_name(t.grid)} with K = {size}" for t in teachers for size in t.codebook_sizes]
    twice = [name for n, name in enumerate(names) if name in names[:n]]
    if twice:
        raise ValueError(f"found {twice[0]} twice, expected it once; merge the methods")
    return tuple(sorted(teachers, key=lambda t: (t.grid, t.codebook_sizes)))


class Students(Settings):
    """Deep circuits that are learned from samples of a teacher, without an image."""

    sizes: Annotated[tuple[Width, ...], *Several] = (4, 8, 16)
    """K of each."""
    settings: StudentOfAnySize = StudentOfAnySize()
    """Of the models."""
    training: OwnTraining = Training()


class ContinuousMixtures(Settings):
    """Continuous mixtures (Correia et al. 2023)."""

    settings: ContinuousMixture = ContinuousMixture()
    """Of the model."""
    training: OwnTraining = Training()


class EiNets(Settings):
    """EiNets (Peharz et al. 2020)."""

    sizes: Annotated[tuple[Width, ...], *Several]
    """K of each."""
    settings: EiNetOfAnySize = EiNetOfAnySize()
    """Of the models."""
    training: OwnTraining = Training()


class QuadTrees(Settings):
    """Quad-tree circuits; not of the paper."""

    sizes: Annotated[tuple[Width, ...], *Several]
    """K of each."""
    settings: QuadTreeOfAnySize = QuadTreeOfAnySize()
    """Of the models."""
    training: OwnTraining = Training()


class GaussianMixtures(Settings):
    """Plain mixtures of Gaussians, fitted by EM; not of the paper."""

    sizes: Counts
    """N of each."""
    settings: Settings = Settings()
    """There are none."""
    training: OwnTraining = Training()


class OtherBaseline(Settings):
    """A file of vqdistill/baselines that was added."""

    sizes: Annotated[tuple[Count, ...], *Several] | None = None
    """One model each, for files whose `Settings` have a `size`."""
    settings: dict[str, Any] = {}
    """Those of the file's `Settings`."""
    training: OwnTraining = Training()


class Baselines(Settings):
    """Tractable models that are learned from the images; null leaves one out."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OtherBaseline | None]

    cm: ContinuousMixtures | None = None
    """A continuous mixture."""
    einet: EiNets | None = None
    """EiNets."""
    quad_tree: QuadTrees | None = None
    """Quad-tree circuits; not of the paper."""
    quad_tree_levels: QuadTrees | None = None
    """The same, learned from grey levels and not from their density."""
    gmm: GaussianMixtures | None = None
    """Plain mixtures of Gaussians; not of the paper."""


class Inpainting(Settings):
    """Completions of test images."""

    n_components: Annotated[tuple[Components, ...], *Unordered] = (64, 1024)
    """N at which mixtures are inpainted, beside their largest; by default those of them that are
    N of the experiment."""
    scored_images: Count = 1000
    """Test images, the first ones, whose completions are scored; by default no more than there
    are."""


class Experiment(Settings):
    """An experiment of vqdistill."""

    experiment: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100),
        AfterValidator(_free_name),
    ]
    """Its name, and that of its folder in results/."""
    seeds: Annotated[tuple[Seed, ...], *Several]
    """Each fixes one independent training of everything."""
    data: Data
    """The images."""
    training: Training = Training()
    """Stopping rule and batch size of all trainings."""
    vqvae: VQVAEs = VQVAEs()
    """The teachers' VQ-VAEs."""
    prior: Priors = Priors()
    """The teachers' priors: gated PixelCNNs."""
    teachers: Annotated[tuple[Teacher, ...], Field(min_length=1), AfterValidator(_once)]
    """Which VQ-VAEs are trained, and what is distilled from each."""
    n_components: Counts
    """N, of distilled models and of compiled continuous mixtures."""
    students: dict[Annotated[str, Field(pattern=NAME)], Students] = {"deep": Students()}
    """Circuits that are learned from a teacher's samples, by the name of the method."""
    baselines: Baselines
    """Tractable models that are learned from the images; null leaves one out."""
    inpainting: Inpainting = Inpainting()
    """Completions of test images."""
    classifier: Classifier = Classifier()
    """The judge of completed images."""


# What jobs get, where it is no model's settings


class Distillation(Settings):
    """Of `distil`: a teacher, and what is selected of its latents."""

    grid: Grid
    codebook_size: CodebookSize
    methods: tuple[str, ...]
    n_components: Counts


class Student(StudentOfAnySize):
    """Of `train_student`: a teacher, and the circuit that is learned from its samples."""

    method: str
    grid: Grid
    codebook_size: CodebookSize
    size: Width
    training: Training


class TeacherEvaluation(Settings):
    """Of `evaluate_teacher`."""

    grid: Grid
    codebook_size: CodebookSize
    n_components: Counts
    inpainting: Inpainting


class BaselineTraining(Settings):
    """Of `train_baseline`: a method, and its own settings as plain values."""

    method: str
    settings: dict[str, Any]
    training: Training


class BaselineEvaluation(Settings):
    """Of `evaluate_baseline`; size 0 is that of methods without one."""

    method: str
    size: Annotated[int, Field(ge=0)]
    n_components: Counts
    inpainting: Inpainting


class Packing(Settings):
    """Of `pack`."""

    everything: bool = False
    """Files of any size, and not small ones alone."""


# Reading


Kind = TypeVar("Kind", bound=Settings)


def parsed(kind: type[Kind], values: Any, where: str, key: str = "") -> Kind:
    """Plain values, as of YAML or JSON, as settings; `key` is that under which they stand.

    Raises InputError, one line that begins with `where`: the key, what was found and expected.
    """
    check_plain(values, where, key)
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        unknown = [e for e in errors if e["type"] == "extra_forbidden"]
        raise InputError(_one_line((unknown or errors)[0], kind, where, key)) from None


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as plain values, which `parsed` reads."""
    return settings.model_dump(mode="json")


def suggestion(name: str, known: Sequence[str]) -> str:
    """A suggestion for a name that is not known."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def check_plain(value: Any, where: str, key: str = "") -> None:
    """InputError at what YAML can hold and no setting may be, at any depth."""
    place = f"{where}: {key}" if key else where
    inside = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        inside = enumerate(value)
    for name, item in inside:
        if isinstance(value, dict) and not isinstance(name, str):
            raise InputError(f"{place}: the key {name!r} is no text; write it in quotes")
        check_plain(item, where, f"{key}.{name}" if key else str(name))
    if not isinstance(value, dict | list | str | int | float | NoneType):
        raise InputError(f"{place}: found {value}, a {type(value).__name__}; write it in quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{place}: found {value}, expected a finite number")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{place}: found {value!r}, expected text without line breaks")


def _one_line(error: dict[str, Any], kind: type[Settings], where: str, key: str) -> str:
    path = [part for part in error["loc"] if part != "[key]"]
    place = ".".join(map(str, [key, *path] if key else path))
    place = f"{where}: {place}: " if place else f"{where}: "
    if error["type"] == "extra_forbidden":
        known = _fields(kind, path[:-1])
        return f"{place}unknown key; {suggestion(path[-1], known) if known else 'leave it out'}"
    if error["type"] == "missing":
        return f"{place}missing; docs/settings.md says what it is"
    if error["type"] == "value_error":
        said = str(error["ctx"]["error"])
        of_one_key = (key or path) and re.match(r"\w+: ", said)  # told by what holds it
        return f"{place[:-2]}.{said}" if of_one_key else f"{place}{said}"
    expected = re.sub(r"^\w+ should (be |have )?", "", error["msg"])
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        expected += f"; {suggestion(error['input'], error['ctx']['expected'].split(chr(39))[1::2])}"
    if error["type"] in ("int_type", "float_type") and (number := _number(error["input"])):
        expected += f"; write {number}, without quotes"
    return f"{place}found {_short(error['input'])}, expected {expected}"


def _number(value: Any) -> str:
    """A text that is a number, such as '1e-3', as YAML writes it; '' of what is none."""
    try:
        number = yaml.safe_dump(float(value) if re.search("[.e]", value) else int(value))
    except (TypeError, ValueError):
        return ""
    return number.split()[0]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields(kind: Any, path: Sequence[str | int]) -> list[str]:
    """The names of the settings that lie at a path."""
    found = [k for k in kinds_at(kind, path) if isinstance(k, type) and issubclass(k, BaseModel)]
    return [name for one in found for name in one.model_fields]


def kinds_at(kind: Any, path: Sequence[str | int]) -> list[Any]:
    """The types that a value at a path below settings may have: str, tuple[…], None, 'uniform'."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and path:
        field = kind.model_fields.get(path[0])
        extra = OtherBaseline | None if kind.model_config["extra"] == "allow" else Never
        return kinds_at(field.annotation if field else extra, path[1:])
    if get_origin(kind) in (tuple, dict) and path:
        return kinds_at(get_args(kind)[get_origin(kind) is dict], path[1:])
    if get_origin(kind) is Annotated:
        return kinds_at(get_args(kind)[0], path)
    if get_origin(kind) in (Union, UnionType, Literal):
        return [found for part in get_args(kind) for found in kinds_at(part, path)]
    return [] if path else [kind]
