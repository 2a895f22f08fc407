"""What is known of each dataset before its images are read."""

from typing import NamedTuple


class Dataset(NamedTuple):
    """Grey images: their shape [h, w], grey levels, and how many there are of each split."""

    shape: tuple[int, int]
    levels: int
    n_train: int
    n_held_out: int  # of validation, and of test


DATASETS = {
    "mnist": Dataset((28, 28), 256, 50_000, 10_000),
    "fashion_mnist": Dataset((28, 28), 256, 50_000, 10_000),
    "digits": Dataset((8, 8), 17, 1197, 300),
}
