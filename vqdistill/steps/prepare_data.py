"""Prepare the images of an experiment: split them and fix the noise of the evaluated ones."""

from vqdistill.data import prepare_dataset
from vqdistill.files import write_arrays
from vqdistill.settings import Data
from vqdistill.steps.job import Job, run


def prepare_data(job: Job) -> None:
    """Write one npz file that all later steps read, and its record."""
    wanted = job.settings
    arrays = prepare_dataset(wanted.dataset, wanted.root, wanted.noise_seed, wanted.training_part)
    write_arrays(job["images"], arrays)
    job.write_record("cpu", dataset=wanted.dataset, data_checksum=str(arrays["checksum"]))


if __name__ == "__main__":
    run(prepare_data, Data, writes="images record")
