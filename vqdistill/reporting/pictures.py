"""The pictures of all models, gathered into the one small file that the figures read."""

from collections.abc import Mapping

import numpy as np

from vqdistill.reporting.names import MASKS


def gather_pictures(
    runs: Mapping[str, Mapping[str, np.ndarray]], order: list[tuple[str, str, str]]
) -> dict[str, np.ndarray]:
    """One file of pictures from those of single runs.

    runs: arrays by source, with '<method>/samples', '/means', '/unconditional', and 'truth' and
    'hidden' of all. order: (source, method, label) of the rows of the figures.
    """
    first = next(iter(runs.values()))
    gathered = {
        "methods": np.array([label for _, _, label in order]),
        "masks": np.array(MASKS),
        "digits": np.arange(len(first["truth"])),
        "hidden": first["hidden"],
        "truth": first["truth"].astype(np.float32),
    }
    for kind in ("samples", "means", "unconditional"):
        parts = [runs[source][f"{method}/{kind}"] for source, method, _ in order]
        gathered[kind] = np.stack(parts).astype(np.float32)
    return gathered
