"""Compare a finished run with the committed reference of the same experiment."""

import logging

from vqdistill.files import write_csv
from vqdistill.provenance.records import read_table
from vqdistill.reporting.reference import compare
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)


def compare_reference(job: Job) -> None:
    """Write the comparison and say, for each method, how many models agree."""
    table = compare(read_table(job["summary"]), read_table(job["reference"]))
    write_csv(job["comparison"], table)
    for (method, grid), rows in table.groupby(["method", "grid"]):
        agreeing = (rows["agrees"] == "yes").sum()
        furthest = rows["difference"].abs().max()
        log.info(
            "%-8s %-4s %3d of %3d models agree; largest difference %.4f bits per dimension",
            method, grid, agreeing, len(rows), furthest,
        )  # fmt: skip


if __name__ == "__main__":
    run(compare_reference, reads="summary reference", writes="comparison")
