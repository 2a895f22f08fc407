"""Check that an experiment's tables are there, complete, and without a missing value."""

import logging

from vqdistill.errors import InputError
from vqdistill.provenance.records import read_table
from vqdistill.reporting.names import TABLES
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)


def check_tables(job: Job) -> None:
    """Fail where a table is missing, empty where it can't be, or has an empty cell."""
    for name in TABLES:
        table = read_table(job["tables"] / f"{name}.csv")
        if table.isna().any().any():
            raise InputError(f"{name}.csv: empty cells; expected a value in each")
        log.info("%-20s %6d rows", name, len(table))


if __name__ == "__main__":
    run(check_tables, reads="tables")
