"""Prepare the images of an experiment: split them and fix the noise of the evaluated ones."""

from vqdistill.data import prepare
from vqdistill.files import write_arrays
from vqdistill.steps.common import Job, run


def prepare_data(job: Job) -> None:
    """Write one npz file that all later steps read."""
    settings = job.settings
    arrays = prepare(
        settings["dataset"], settings["root"], settings["noise_seed"], settings["training_part"]
    )
    write_arrays(job["images"], arrays)


if __name__ == "__main__":
    run(prepare_data, files="images")
