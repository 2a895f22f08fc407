"""Print what the configured experiment will cost, by rule, from what others did cost."""

import pandas as pd

from vqdistill.estimates import by_rule, estimates
from vqdistill.files import read_csv, write_csv
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run

FORMATS = {"jobs": "%d", "memory_gb": "%.1f"}


def plan(job: Job) -> None:
    """Write the estimate of each job and print their sums by rule."""
    measured = pd.concat([read_csv(path) for path in job.paths("measured")], ignore_index=True)
    jobs = estimates(job.settings, measured)
    write_csv(job["plan"], jobs)
    shown = by_rule(jobs)
    for column in shown.columns[1:]:
        form = FORMATS.get(column, "%.2f")
        shown[column] = ["-" if pd.isna(x) else form % x for x in shown[column]]
    print(f"{job.settings.experiment}: at most, if no training stops before its last epoch\n")
    print(shown.to_string(index=False))
    print("\nHours of one core, or of one GPU where jobs of that kind were measured on one; a GPU")
    print("job holds a core too. memory_gb: the largest job. disk_gb: what is kept.")
    print(f"Each job and the measurement that its estimate rests on: {job['plan']}")


if __name__ == "__main__":
    run(plan, Experiment, reads="measured+", writes="plan")
