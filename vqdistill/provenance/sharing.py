"""What of a finished experiment lets anybody ask its best distilled models: files, and images."""

from pathlib import Path

import numpy as np
import pandas as pd

from vqdistill import data
from vqdistill.circuits.base import Circuit
from vqdistill.evaluation.inpainting import first_of_each_class
from vqdistill.files import read_csv
from vqdistill.provenance.loading import EXACT_METHOD, load

LARGEST = 10**6  # bytes of a model that is committed
WEIGHT = 8  # bytes of a mixture weight in a file


def save_best_distilled(results: Path, folder: Path) -> list[Path]:
    """The mixture and the deep circuit of the lowest validation BPD, of those that are distilled
    and whose files have at most `LARGEST` bytes.

    They are written to <folder>/<method>-<grid>-K<K>-N<N>.safetensors, and -<size> for -N<N>.
    """
    table = read_csv(results / "tables/density.csv")
    distilled = (table.grid.fillna("-") != "-") & (table.n_components * WEIGHT < LARGEST)
    rows = table[distilled & (table.split == "validation")].sort_values("bpd", kind="stable")
    kinds = (rows[rows["size"] == 0], rows[rows["size"] > 0])
    return [path for kind in kinds if (path := _first_small(results, folder, kind))]


def _first_small(results: Path, folder: Path, rows: pd.DataFrame) -> Path | None:
    """The file of the first model that is small; None where there is none."""
    for row in rows.itertuples():
        extent = row.size or f"N{row.n_components}"
        path = folder / f"{row.method}-{row.grid}-K{row.codebook_size}-{extent}.safetensors"
        _loaded(results, row).save(path)
        if path.stat().st_size <= LARGEST:
            return path
        path.unlink()
    return None


def _loaded(results: Path, row) -> Circuit:
    keys = {"grid": row.grid, "codebook_size": int(row.codebook_size), "seed": int(row.seed)}
    if row.size:
        return load(results, row.method, size=int(row.size), **keys)
    n_components = 0 if row.method == EXACT_METHOD else int(row.n_components)
    return load(results, row.method, n_components=n_components, weights=row.weights, **keys)


def example_images(results: Path) -> dict[str, np.ndarray]:
    """Grey levels uint8 [C, h, w] of the first test image of each class, and the classes [C]."""
    images = data.load(results / "data/images.npz")
    chosen = first_of_each_class(images.labels["test"])
    levels = data.to_images(images.evaluated["test"][chosen], images.levels)
    labels = images.labels["test"][chosen].numpy()
    return {"images": levels.reshape(-1, *images.shape), "labels": labels}
