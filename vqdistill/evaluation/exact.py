"""The exact model's log-likelihoods of all images, from one pass that can be interrupted.

It has up to 85 million components. They are decoded in parts, and each part is used for all images,
masks and grey levels. The sums so far are kept from time to time, and a new run goes on from there.
"""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill import progress
from vqdistill.circuits.gaussian import LOWEST, Evidence, slices
from vqdistill.circuits.grey_levels import log_sums_discrete
from vqdistill.circuits.mixture import StoredComponents, log_sums
from vqdistill.data import Images
from vqdistill.errors import InputError
from vqdistill.evaluation.density import first_grey_levels
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.evaluation.likelihoods import Likelihoods
from vqdistill.files import read_tensors, write_tensors

log = logging.getLogger(__name__)

PART = 2**15  # components that are decoded at a time
EVERY = 60.0  # seconds from one keeping to the next


class Checkpoint(NamedTuple):
    """A file that sums are kept in, and a digest of all that they depend on."""

    path: Path
    key: str


def exact_likelihoods(
    models: EvaluatedModels, images: Images, masks: Tensor, checkpoint: Checkpoint | None = None
) -> Likelihoods:
    """What `likelihoods` gives, of a mixture that is one model.

    The sums go on from `checkpoint`, if it was made under the same key, to the bit. The file stays.
    """
    (n,), weights = models.sizes, torch.stack(list(models.log_weights.values()))  # [S, N]
    everything = torch.ones_like(masks[:1])
    evidence = {split: Evidence(x, everything) for split, x in images.evaluated.items()}
    evidence["test"] = Evidence(images.evaluated["test"], torch.cat([everything, masks]))
    levels, counts = first_grey_levels(models, images)
    shapes = {
        split: (len(of.members), len(weights), len(of.x)) for split, of in evidence.items()
    } | {"discrete": (len(weights), len(levels))}
    sums = {name: weights.new_full(shape, LOWEST) for name, shape in shapes.items()}
    done = _resume(sums, checkpoint)
    kept = time.monotonic()
    with progress.loop("component", n, done) as components:
        for part in slices(n, PART):
            if part.start < done:
                continue
            stored = StoredComponents(*models.circuit.components.parameters(part))
            own, size = weights[:, part], [part.stop - part.start]
            for split, of in evidence.items():
                sums[split] = log_sums(of, stored, own, size, sums[split])[:, :, 0]
            of_levels = log_sums_discrete(
                levels, images.levels, stored, own, size, sums["discrete"]
            )
            sums["discrete"] = of_levels[:, 0]
            components.advance(size[0])
            if checkpoint and time.monotonic() > kept + EVERY:
                facts = {"key": checkpoint.key, "done": part.stop}
                write_tensors(checkpoint.path, sums, facts)
                kept = time.monotonic()
    totals = weights.logsumexp(1, keepdim=True)  # [S, 1]
    sums = {name: values - totals for name, values in sums.items()}
    names = list(models.log_weights)

    def named(values: Tensor) -> list:
        """Log-likelihoods [S, n] by the name of their weights."""
        return [(n, name, one) for name, one in zip(names, values, strict=True)]

    parts = dict(zip(counts, sums["discrete"].split(list(counts.values()), 1), strict=True))
    return Likelihoods(
        {split: named(sums[split][0]) for split in evidence},
        {split: named(part) for split, part in parts.items()},
        {n: sums["test"][:, names.index(models.main_weights)]},
    )


def _resume(sums: dict[str, Tensor], checkpoint: Checkpoint | None) -> int:
    """The number of components that are summed up in a checkpoint, whose sums are put back."""
    if checkpoint is None or not checkpoint.path.exists():
        return 0
    try:
        tensors, metadata = read_tensors(checkpoint.path)
    except InputError as error:
        log.warning("%s; the exact model starts anew", error)
        return 0
    if metadata.get("key") != checkpoint.key:
        log.info("%s belongs to other settings, data or code", checkpoint.path)
        return 0
    for name, values in sums.items():
        values.copy_(tensors[name])
    log.info("going on from %s after %d components", checkpoint.path, metadata["done"])
    return metadata["done"]
