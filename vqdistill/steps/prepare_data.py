"""Prepare the images of an experiment: split them and fix the noise of the evaluated ones."""

from vqdistill.data import prepare
from vqdistill.files import write_arrays, write_json
from vqdistill.steps.job import Job, run


def prepare_data(job: Job) -> None:
    """Write one npz file that all later steps read, and its record."""
    settings = job.settings
    arrays = prepare(
        settings["dataset"], settings["root"], settings["noise_seed"], settings["training_part"]
    )
    write_arrays(job["images"], arrays)
    facts = {"dataset": settings["dataset"], "data_checksum": str(arrays["checksum"])}
    write_json(job["record"], job.record("cpu", **facts))


if __name__ == "__main__":
    run(prepare_data, files="images record")
