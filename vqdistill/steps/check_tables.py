"""Check that an experiment's tables are there, and empty only where the dictionary says so."""

import logging

from vqdistill.provenance.records import read_table
from vqdistill.reporting.names import TABLES
from vqdistill.reporting.tables import check_cells
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)


def check_tables(job: Job) -> None:
    """Fail where a table is missing, or has an empty cell where there is none."""
    for name in TABLES:
        table = read_table(job["tables"] / f"{name}.csv")
        check_cells(table, name, f"{name}.csv")
        log.info("%-20s %6d rows", name, len(table))


if __name__ == "__main__":
    run(check_tables, reads="tables")
