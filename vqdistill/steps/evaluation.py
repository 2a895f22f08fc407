"""What the evaluation steps share: what they write."""

from collections.abc import Callable

from torch import Tensor

from vqdistill.data import Images
from vqdistill.evaluation.evaluate import Evaluation, evaluate
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.files import write_arrays, write_json, write_rows
from vqdistill.steps.job import Job, device_name


def evaluate_and_write(
    job: Job,
    circuits: list[EvaluatedModels],
    images: Images,
    classify: Callable[[Tensor], Tensor],
) -> Evaluation:
    """Evaluate, and write density.csv, inpainting.csv and pictures.npz."""
    chosen = job.settings["inpainting"]
    found = evaluate(
        circuits, images, classify, chosen["n_components"], chosen["scored_images"], job.seed
    )
    keys = {"experiment": job.experiment, "dataset": images.dataset, "seed": job.seed}
    made = {"code_version": job.code_version}
    write_rows(job["density"], [keys | row | made for row in found.density])
    write_rows(job["inpainting"], [keys | row | made for row in found.inpainting])
    write_arrays(job["pictures"], found.pictures)
    return found


def write_record(job: Job, images: Images, device, **facts) -> None:
    """Write the record of an evaluation."""
    facts |= {"dataset": images.dataset, "data_checksum": images.checksum}
    write_json(job["record"], job.record(device_name(device), **facts))
