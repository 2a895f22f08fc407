"""What the evaluation steps share: rows of density and inpainting, and pictures."""

import numpy as np
import torch

from vqdistill.data import Images
from vqdistill.evaluation.density import density_rows
from vqdistill.evaluation.evaluated_models import Evaluated, Subject
from vqdistill.evaluation.inpainting import (
    first_of_each_class,
    hidden_masks,
    inpainting_rows,
    joint_and_marginals,
    pictures,
)
from vqdistill.files import write_arrays, write_json, write_rows
from vqdistill.steps.job import Job, device_name

N_DRAWS = 1  # conditional samples of each picture
N_FREE = 16  # unconditional samples of each model


@torch.no_grad()
def evaluate(
    job: Job, subjects: list[Subject], images: Images, classifier
) -> list[list[Evaluated]]:
    """Write density.csv, inpainting.csv and pictures.npz of one trained source.

    Returns for each subject the log p(x) of its models on the test images: their number of
    components, the name of their weights, and a value in nats for each image.
    """
    scores = job.settings["inpainting"]
    density, inpainted, shown, tested = [], [], {}, []
    largest = {subject.method: max(subject.sizes, default=0) for subject in subjects}
    test, labels = images.evaluated["test"], images.labels["test"]
    observed = ~torch.stack([*hidden_masks(images.shape, test.device).values()])
    examples = test[first_of_each_class(labels)]
    for subject in subjects:
        wanted = {0, *scores["n_components"], largest[subject.method]}
        log_probs, marginals = joint_and_marginals(subject, test, observed, wanted)
        tested.append(log_probs)
        for split, x in images.evaluated.items():
            of_split = log_probs if split == "test" else subject.log_probs(x)
            density += density_rows(subject, of_split, split, images.levels)
        if marginals:
            inpainted += inpainting_rows(
                subject,
                test,
                labels,
                marginals,
                images.levels,
                images.shape,
                scores["scored_images"],
                classifier.predict,
                job.seed,
            )
        n_largest = max(subject.sizes, default=0)
        if n_largest == largest[subject.method]:
            made = pictures(
                subject.model(n_largest), examples, images.shape, N_DRAWS, N_FREE, job.seed
            )
            shown |= {f"{subject.method}/{name}": _small(value) for name, value in made.items()}
    shown["hidden"] = (~observed).cpu().unflatten(1, images.shape).numpy()
    shown["truth"] = _small(examples.unflatten(1, images.shape))
    keys = {"experiment": job.experiment, "dataset": images.dataset, "seed": job.seed}
    made = {"code_version": job.code_version}
    write_rows(job["density"], [keys | row | made for row in density])
    write_rows(job["inpainting"], [keys | row | made for row in inpainted])
    write_arrays(job["pictures"], shown)
    return tested


def write_record(job: Job, images: Images, device, **facts) -> None:
    """Write the record of an evaluation."""
    facts |= {"dataset": images.dataset, "data_checksum": images.checksum}
    write_json(job["record"], job.record(device_name(device), **facts))


def _small(images: torch.Tensor) -> np.ndarray:
    return images.cpu().numpy().astype(np.float16)
