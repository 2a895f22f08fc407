"""Images as all steps see them: a fixed split, grey levels, and dequantisation.

A pixel of grey level v ∈ {0, …, L − 1} becomes x = (v + u)/L with u ~ U[0, 1). Training draws u
anew each time an image is seen; validation, test and the evaluated part of the training images
have their noise fixed once, the same for every model.
"""

import gzip
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqdistill.datasets import DATA_VARIABLE, DATASETS, files_of, folder_of
from vqdistill.errors import InputError, make_anew
from vqdistill.files import read_arrays
from vqdistill.randomness import derived_seed, fresh_generator

EVALUATED = ("test", "validation", "train")
N_CLASSES = 10
MOST_NOISE = 1 - 2**-16  # v + u is below v + 1 in float32, too, for all v < 256
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class Images:
    """A prepared dataset: raw training images, and the evaluated images with their fixed noise."""

    dataset: str
    checksum: str  # of the prepared arrays
    levels: int
    shape: tuple[int, int]
    train: Tensor  # uint8 [n, D]
    train_labels: Tensor  # int64 [n]
    evaluated: dict[str, Tensor]  # split -> float32 [n, D] in [0, 1)
    labels: dict[str, Tensor]  # split -> int64 [n]


class OfImages(NamedTuple):
    """What is known of a prepared dataset where it isn't read itself."""

    dataset: str
    checksum: str
    levels: int
    shape: tuple[int, int]


def bits_per_dimension(log_likelihood, n_variables: int, levels: int):
    """−log p(x) / (D ln 2) + log₂ L, in bits, of a log-likelihood in nats."""
    return -log_likelihood / (n_variables * np.log(2)) + np.log2(levels)


def prepare_dataset(dataset: str, root: str | None, noise_seed: int, training_part: int) -> dict:
    """The arrays of the prepared file: split, and noise where it is fixed.

    MNIST and Fashion-MNIST: the last 10,000 training images are for validation. The digits of
    scikit-learn, which stand in their writers' order, are permuted once and give 300 images each
    to validation and test. `training_part` training images, the first ones, are evaluated too.
    Raises InputError when the images can't be had or are damaged.
    """
    if dataset == "digits":
        train, test = _digits()
    elif dataset in DATASETS:
        train, test = _published_images(dataset, root)
    else:
        raise InputError(f"data.dataset: {dataset!r} is not known; choose one of {list(DATASETS)}")
    levels, held_out = DATASETS[dataset].levels, DATASETS[dataset].n_held_out
    splits = {
        "train": tuple(part[:-held_out] for part in train),
        "validation": tuple(part[-held_out:] for part in train),
        "test": test,
    }
    for split, (images, labels) in splits.items():
        _check_split(dataset, split, images, labels)
    arrays = {"dataset": np.array(dataset), "levels": np.array(levels)}
    arrays["train_images"] = splits["train"][0]
    for split, (images, labels) in splits.items():
        arrays[f"{split}_labels"] = labels.astype(np.int64)
        if split == "train":
            images = images[:training_part]
        noise = np.random.default_rng(derived_seed(noise_seed, f"noise {split}"))
        arrays[f"{split}_x"] = dequantised(images, noise.random(images.shape), levels)
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(np.ascontiguousarray(arrays[name]).tobytes())
    return arrays | {"checksum": np.array(content.hexdigest()[:16])}


def _check_split(dataset: str, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """InputError unless the images of a split are what is known of the dataset, in ten classes."""
    known, where = DATASETS[dataset], f"data.dataset: {dataset}: {split}"
    shape = (known.n_train if split == "train" else known.n_held_out, *known.shape)
    if images.shape != shape or len(labels) != len(images):
        raise InputError(
            f"{where} images of shape {images.shape} with {len(labels)} labels, expected"
            f" {shape}; correct vqdistill/datasets.py"
        )
    if images.dtype != np.uint8 or images.max() >= known.levels:
        raise InputError(
            f"{where} images of type {images.dtype} up to {images.max()}, expected uint8 below"
            f" {known.levels}, the number of levels; correct vqdistill/datasets.py"
        )
    if not np.array_equal(np.unique(labels), np.arange(N_CLASSES)):
        raise InputError(
            f"{where} labels: found classes {np.unique(labels).tolist()}, expected each of 0 to"
            f" {N_CLASSES - 1}; models here know {N_CLASSES} classes"
        )


def dequantised(images: np.ndarray, noise: np.ndarray, levels: int) -> np.ndarray:
    """(v + u)/L in float32, below (v + 1)/L."""
    return ((images + np.minimum(noise, MOST_NOISE)) / levels).astype(np.float32)


def load(path: str | Path, device: torch.device | str = "cpu") -> Images:
    """The prepared file as tensors on `device`."""

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(arrays[name]).to(device)

    arrays = read_arrays(path)
    for split in EVALUATED:
        if not ((arrays[f"{split}_x"] >= 0) & (arrays[f"{split}_x"] < 1)).all():  # NaN is refused
            raise InputError(
                f"{path}: {split} images with values outside [0, 1) or without one;"
                f" {make_anew(path)}"
            )
    evaluated = {split: tensor(f"{split}_x").flatten(1) for split in EVALUATED}
    labels = {split: tensor(f"{split}_labels")[: len(evaluated[split])] for split in EVALUATED}
    return Images(
        dataset=str(arrays["dataset"]),
        checksum=str(arrays["checksum"]),
        levels=int(arrays["levels"]),
        shape=arrays["train_images"].shape[1:],
        train=tensor("train_images").flatten(1),
        train_labels=tensor("train_labels"),
        evaluated=evaluated,
        labels=labels,
    )


@dataclass(frozen=True)
class CodeBatches:
    """Training codes [n, H, W] with their classes [n] in batches, in a new order at each pass."""

    codes: Tensor
    classes: Tensor
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.codes) // self.batch_size)

    def __call__(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.codes), generator=generator, device=generator.device)
        for index in order.to(self.codes.device).split(self.batch_size):
            yield self.codes[index], self.classes[index]


@dataclass(frozen=True)
class Batches:
    """Training images in batches, in a new order and with new noise at each pass.

    The images [n, D] stay uint8 on their device; `classes` [n], if given, go with them.
    """

    images: Tensor
    levels: int
    batch_size: int
    classes: Tensor | None = None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __call__(self, generator: torch.Generator) -> Iterator:
        """x [B, D] float32, or (x, classes [B]), until all images were seen once."""
        order = torch.randperm(len(self.images), generator=generator, device=generator.device)
        for index in order.to(self.images.device).split(self.batch_size):
            x = with_noise(self.images.index_select(0, index), self.levels, generator)
            yield x if self.classes is None else (x, self.classes[index])

    def some(self, n: int, generator: torch.Generator) -> Tensor:
        """n images x [n, D] at random, each once; all of them where they are fewer."""
        order = torch.randperm(len(self.images), generator=generator, device=generator.device)
        index = order[:n].to(self.images.device)
        return with_noise(self.images.index_select(0, index), self.levels, generator)


def with_noise(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """(v + u)/L float32 of uint8 images, with fresh noise, below (v + 1)/L."""
    noise = torch.rand(images.shape, generator=generator, device=generator.device)
    return noise.to(images.device).clamp_(max=MOST_NOISE).add_(images).div_(levels)


def _digits() -> tuple:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = digits.images.astype(np.uint8)[order]
    labels = digits.target[order]
    n = len(labels) - DATASETS["digits"].n_held_out
    return (images[:n], labels[:n]), (images[n:], labels[n:])


def _published_images(dataset: str, root: str | None) -> tuple:
    """((images, labels) of training, those of test), downloaded where they are missing.

    torchvision downloads archives and verifies them before it unpacks them; the files are verified
    once more before they are read here.
    """
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[dataset]
    folder = folder_of(dataset, root)
    raw = files_of(dataset, folder)
    names = [name.removesuffix(".gz") for name, _ in kind.resources]
    if not all((raw / name).exists() for name in names):
        _download(kind, folder, dataset)
    for name, md5 in kind.resources:
        _verify(raw / name.removesuffix(".gz"), md5, dataset)
    train, test = (
        tuple(_idx(raw / f"{part}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        for part in ("train", "t10k")
    )
    for (images, labels), expected in ((train, (60_000, 28, 28)), (test, (10_000, 28, 28))):
        if images.shape != expected or len(labels) != len(images):
            raise InputError(
                f"{raw}: images of shape {images.shape}; expected {expected}; delete the folder,"
                " and it is downloaded again"
            )
    return train, test


def _download(kind: type, folder: Path, dataset: str) -> None:
    published = kind.__new__(kind)  # its constructor would read files before they are verified
    published.root = str(folder)
    raw = files_of(dataset, folder)
    made = [path for path in (raw, *raw.parents) if not path.exists()]
    try:
        published.download()
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        with suppress(OSError):  # what is not empty stays
            for path in made:
                path.rmdir()
        raise InputError(
            f"data.root: {dataset} can't be had under {folder} ({reason}); put the four files of"
            f" {kind.__name__} into {raw}, name another folder in data.root or ${DATA_VARIABLE},"
            " or connect to the network"
        ) from None


def _idx(path: Path) -> np.ndarray:
    """The array in a file of the IDX format: two zeros, type 8 (uint8), dimensions, sizes, data."""
    content = path.read_bytes()
    sizes = np.frombuffer(content, ">u4", content[3], 4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _verify(path: Path, md5: str, dataset: str) -> None:
    """InputError unless the file is what was published, by its archive's or its own checksum."""
    content = path.read_bytes()
    archive = path.with_name(path.name + ".gz")
    damaged = InputError(
        f"{path}: damaged, its checksum is not that of {dataset}; delete it (and {archive.name}),"
        " and it is downloaded again"
    )
    if dataset == "mnist":
        if hashlib.sha256(content).hexdigest() != MNIST_SHA256[path.name]:
            raise damaged
    elif archive.exists():
        packed = archive.read_bytes()
        if hashlib.md5(packed).hexdigest() != md5 or gzip.decompress(packed) != content:
            raise damaged
    else:
        raise InputError(
            f"{path}: its checksum can't be verified without {archive.name}; put the archive"
            " beside it"
        )


# Images in one's own code


def prepare(
    images: Tensor | np.ndarray, levels: int = 256, generator: torch.Generator | None = None
) -> Tensor:
    """What models are asked about, of grey levels: (v + u)/L float32 in [0, 1), of the same shape.

    images: uint8, a NumPy array or a tensor, [n, h, w] or [n, D], with grey levels v below
    L = `levels`, which a model knows (`model.levels`). u ~ U[0, 1) is drawn from the generator, or
    anew each time. `to_images` is the way back. Raises InputError for other images.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = torch.from_numpy(np.array(images, order="C"))
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim < 2:
        kind = getattr(images, "dtype", type(images).__name__)
        shape = f" of shape {tuple(images.shape)}" if hasattr(images, "shape") else ""
        raise InputError(
            f"images: found {kind}{shape}, expected uint8, a NumPy array or a tensor, [n, h, w] or"
            " [n, D], of grey levels; images in [0, 1) are ready as they are"
        )
    brightest = int(images.max()) if images.numel() else 0
    if brightest >= levels:
        raise InputError(
            f"images: found grey level {brightest}, expected all below levels = {levels}; give"
            " the number of grey levels, such as levels=256"
        )
    return with_noise(images, levels, generator or fresh_generator())


def to_images(x: Tensor | np.ndarray, levels: int = 256) -> np.ndarray:
    """Grey levels uint8 of images in [0, 1), of the same shape: ⌊x L⌋, cut to 0 … L − 1.

    The way back from `prepare`. Raises InputError where pixels are no numbers.
    """
    if isinstance(x, Tensor):
        x = (x.detach().double() if x.is_floating_point() else x).cpu().numpy()
    x = np.asarray(x)
    if x.dtype.kind != "f" or np.isnan(x).any():
        raise InputError(f"images: found {x.dtype}, expected floating point without NaN, in [0, 1)")
    return np.clip(np.floor(x.astype(np.float64) * levels), 0, levels - 1).astype(np.uint8)
