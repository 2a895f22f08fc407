"""Gather what the jobs of a finished experiment cost, for plans of others."""

from vqdistill.estimates import measured_jobs
from vqdistill.files import write_csv
from vqdistill.provenance.records import read_record
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run


def measure(job: Job) -> None:
    """Write one row for each rule, model and device, from the records that jobs left."""
    paths = sorted(job["results"].rglob("record.json"))
    write_csv(job["measured"], measured_jobs(job.settings, map(read_record, paths)))


if __name__ == "__main__":
    run(measure, Experiment, reads="results", writes="measured")
