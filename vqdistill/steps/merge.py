"""Put the runs of other machines among those of this one."""

import logging

from vqdistill.config import settings_of_steps
from vqdistill.errors import InputError
from vqdistill.provenance.records import read_record
from vqdistill.provenance.slices import merge as merge_runs
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)


def merge(job: Job) -> None:
    """Merge all archives, one after the other; one that is refused changes nothing."""
    if not job.paths("archives"):
        raise InputError(
            f"{job['results']}/slices: no archive, expected some *.zip; copy them there"
        )
    expected, data = settings_of_steps(job.settings), read_record(job["data"])
    for archive in job.paths("archives"):
        new = merge_runs(archive, job["results"], expected, data)
        log.info("%s: %d runs are new", archive, new)


if __name__ == "__main__":
    run(merge, Experiment, reads="data archives*", writes="results")
