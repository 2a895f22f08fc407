"""Gather what the jobs of a finished experiment cost, for plans of others."""

from pathlib import Path

import pandas as pd

from vqdistill.files import read_json, write_csv
from vqdistill.reporting.plan import measured_jobs
from vqdistill.steps.job import Job, run


def measure(job: Job) -> None:
    """Write one row for each rule, name and device, from benchmark files and records."""
    benchmarks = job["results"] / "benchmarks"
    runs = [run_of(path, benchmarks) for path in sorted(benchmarks.rglob("*.tsv"))]
    write_csv(job["measured"], measured_jobs(job.settings, pd.DataFrame(runs)))


def run_of(benchmark: Path, benchmarks: Path) -> dict:
    """What one job cost; its device and epochs are those of the record beside its results."""
    rule, *names = benchmark.relative_to(benchmarks).with_suffix("").parts
    name, seed = names if names else ("-", "seed-0")
    folder = {
        "train_vqvae": f"models/vqvae-{name}",
        "train_prior": f"models/prior-{name}",
        "train_baseline": f"models/{name}",
        "train_classifier": "models/classifier",
        "distil": f"latents/{name}",
    }.get(rule, f"metrics/{name}")
    path = benchmarks.parent / folder / seed / "record.json"
    record = read_json(path) if path.exists() else {}
    measured = pd.read_csv(benchmark, sep="\t").iloc[-1]
    return {
        "rule": rule,
        "name": name,
        "device": record.get("device", "cpu"),
        "seconds": max(measured["s"], record.get("wall_seconds", 0)),  # the last attempt, or all
        "memory_mb": max(measured["max_rss"], record.get("peak_memory_mb", 0)),
        "epochs": record.get("epochs_run", 0),
    }


if __name__ == "__main__":
    run(measure, files="results measured")
