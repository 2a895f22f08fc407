"""What is known of each dataset before its images are read, and where its files are."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vqdistill.errors import InputError

DATA_VARIABLE = "VQDISTILL_DATA"


class Dataset(NamedTuple):
    """Grey images: their shape [h, w], grey levels, and how many there are of each split."""

    shape: tuple[int, int]
    levels: int
    n_train: int
    n_held_out: int  # of validation, and of test
    folder: str = ""  # of its files, where it has some


DATASETS = {
    "mnist": Dataset((28, 28), 256, 50_000, 10_000, "MNIST"),
    "fashion_mnist": Dataset((28, 28), 256, 50_000, 10_000, "FashionMNIST"),
    "digits": Dataset((8, 8), 17, 1197, 300),
}


def folder_of(dataset: str, root: str | None) -> Path:
    """The folder in which a dataset has a folder of its own: `root`, else $VQDISTILL_DATA, else
    data/. Raises InputError where the files themselves lie there, as their folder is named.
    """
    named = root or os.environ.get(DATA_VARIABLE) or "data"
    folder, name = Path(named), DATASETS[dataset].folder
    with suppress(RuntimeError):  # there is no such user
        folder = folder.expanduser()
    for inner, above in ((folder / "raw", folder / ".."), (folder, folder / "../..")):
        if any(inner.glob("train-images-idx3-ubyte*")):
            where = "data.root" if root else f"${DATA_VARIABLE}"
            above = os.path.normpath(above)
            if files_of(dataset, Path(above)).absolute() == inner.absolute():
                advice = f"name the folder above it, {above}"
            else:
                advice = f"move the files to {files_of(dataset, folder)}"
            raise InputError(f"{where}: found {named}, in which {name} itself lies; {advice}")
    return folder


def files_of(dataset: str, folder: Path) -> Path:
    """Where the files of a dataset are in a folder, as torchvision lays them out."""
    return folder / DATASETS[dataset].folder / "raw"
