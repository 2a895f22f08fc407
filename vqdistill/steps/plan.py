"""Print what the configured experiment will cost, by rule, from what others did cost."""

import pandas as pd

from vqdistill.estimates import by_rule, duration, estimates, parts, wall_hours
from vqdistill.files import read_csv, write_csv
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run

TIMES = {
    "cpu_hours": "one core",
    "longest_cpu_hours": "longest job",
    "gpu_hours": "one GPU",
    "longest_gpu_hours": "longest job",
}


def plan(job: Job) -> None:
    """Write the estimate of each job, and the parts for several machines; print sums by rule."""
    measured = pd.concat([read_csv(path) for path in job.paths("measured")], ignore_index=True)
    jobs = estimates(job.settings, measured)
    write_csv(job["plan"], jobs)
    write_csv(job["parts"], parts(job.settings, jobs))
    shown = by_rule(jobs)
    for column in TIMES:
        shown[column] = shown[column].map(duration)
    for column, form in {"jobs": "{:.0f}", "memory_gb": "{:.1f}", "disk_gb": "{:.2f}"}.items():
        shown[column] = ["-" if pd.isna(x) else form.format(x) for x in shown[column]]
    cores = "one core" if job.threads == 1 else f"{job.threads} cores"
    print(f"{job.settings.experiment}: at most, if no training stops before its last epoch\n")
    print(shown.rename(columns=TIMES).to_string(index=False))
    print(f"\nOn {cores} together: {duration(wall_hours(jobs, job.threads))}.\n")
    unknown = int(jobs.loc[jobs["gpu_hours"].isna(), "jobs"].sum())
    print("Times of one GPU are of jobs that were measured on one; each holds a core too.")
    print(f"Jobs of which none of their kind was, and that are in no sum: {unknown}.")
    print("memory_gb: the largest job. disk_gb: what is kept.")
    print(f"Each job and the measurement that its estimate rests on: {job['plan']}")
    print(f"Parts for several machines, in the order in which they are best run: {job['parts']}")


if __name__ == "__main__":
    run(plan, Experiment, reads="measured+", writes="plan parts")
