"""Plans: all jobs are counted, and what was measured is what is planned."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, configuration

from vqdistill.config import baselines, checked, teachers
from vqdistill.estimates import (
    LAST_JOBS,
    MEASURED,
    START_SECONDS,
    by_rule,
    duration,
    estimates,
    jobs,
    measured_jobs,
    parts,
    wall_hours,
)
from vqdistill.files import read_csv


def resolved(preset: str = "", **changes):
    """The paper's experiment, with a preset and changes on top."""
    return checked(configuration(*filter(None, [preset]), changes))


def records(experiment, **facts) -> list[dict]:
    """One record of each job, each of another duration."""
    found = []
    for number, job in enumerate(jobs(experiment).to_dict("records")):
        kind, *rest = job["name"].split("-")  # "-" alone has no model
        record = {"step": job["rule"], "device": "cpu", "epochs_run": job["epochs"]}
        record |= {"wall_seconds": 10.0 + number, "peak_memory_mb": 1000.0}
        if len(rest) > 1:
            record |= {"grid": rest[0], "codebook_size": int(rest[1].removeprefix("K"))}
        if kind:
            record |= {"model": kind, "size": int(rest[-1]) if len(rest) in (1, 3) else 0}
        found.append(record | facts)
    return found


def test_all_jobs_of_the_paper_are_counted():
    table = jobs(resolved())
    counts = Counter()
    for rule, number in zip(table["rule"], table["jobs"], strict=True):
        counts[rule] += number
    teachers = dict.fromkeys(("train_vqvae", "train_prior", "distil", "evaluate_teacher"), 35)
    learned = dict.fromkeys(("train_baseline", "evaluate_baseline"), 60) | {"train_student": 30}
    assert counts == {"prepare_data": 1, "train_classifier": 1} | teachers | learned
    assert (table[["work", "disk_mb"]] > 0).all(axis=None)


def test_an_experiment_that_was_measured_is_planned_as_it_was():
    quick = resolved("quick")
    planned = estimates(quick, measured_jobs(quick, records(quick)))
    seconds = planned["cpu_hours"].to_numpy() * 3600
    assert seconds == pytest.approx(START_SECONDS + 10 + np.arange(len(planned)))
    assert planned["gpu_hours"].isna().all()
    assert (planned["memory_mb"] == 1000).all()
    sums = by_rule(planned).set_index("rule")
    assert sums.loc["total", "jobs"] == planned["jobs"].sum() + LAST_JOBS
    assert sums.loc["total", "cpu_hours"] == pytest.approx(sums["cpu_hours"].iloc[:-1].sum())
    assert sums.loc["total", "jobs"] == sums["jobs"].iloc[:-1].sum()
    assert np.isnan(sums.loc["total", "gpu_hours"])


def test_time_grows_with_epochs_and_epochs_not_run_do_not_count():
    short, long = (
        resolved("quick", prior={"training": {"max_epochs": epochs}}) for epochs in (10, 40)
    )
    measured = measured_jobs(short, records(short, epochs_run=5, wall_seconds=60.0))
    hours = estimates(long, measured).set_index("rule").loc["train_prior", "cpu_hours"]
    assert hours.to_numpy() * 3600 == pytest.approx(START_SECONDS + 60 * 40 / 5)


def test_hours_on_gpus_come_from_gpus_alone():
    quick = resolved("quick")
    on_gpu = records(quick, device="NVIDIA H200", wall_seconds=7.0)
    planned = estimates(quick, measured_jobs(quick, records(quick) + on_gpu))
    assert planned["gpu_hours"].to_numpy() * 3600 == pytest.approx(START_SECONDS + 7.0)
    seconds = planned["cpu_hours"].to_numpy() * 3600
    assert seconds == pytest.approx(START_SECONDS + 10 + np.arange(len(planned)))


def test_larger_networks_need_more_time_memory_and_disk():
    small, large = resolved("laptop"), resolved()
    measured = measured_jobs(small, records(small, wall_seconds=10.0))
    prior = estimates(large, measured).set_index("name").loc["prior-4x4-K4096"]
    assert prior["cpu_hours"] * 3600 > 10 * 72e6 / 0.2e6
    assert prior["memory_mb"] > 1000 + 6 * 4 * 70
    assert prior["disk_mb"] > 4 * 70


@pytest.mark.parametrize("preset", ["", "quick", "laptop"])
def test_committed_measurements_suffice_for_our_experiments(preset):
    paths = sorted((ROOT / "workflow/measured").glob("*.csv"))
    measured = pd.concat([read_csv(path) for path in paths])
    assert list(measured.columns) == MEASURED
    planned = estimates(resolved(preset), measured)
    assert (planned[["cpu_hours", "memory_mb"]] > 0).all(axis=None)


@pytest.mark.parametrize("preset", ["quick", "laptop", "paper"])
def test_the_page_on_running_says_the_plans_numbers_of_jobs(preset):
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    stated = re.search(rf"^\| {preset} \|[^|]+\| (\d+) \|", page, re.M)[1]
    planned = jobs(resolved("" if preset == "paper" else preset))["jobs"].sum() + LAST_JOBS
    assert int(stated) == planned


def test_all_cores_work_unless_a_chain_of_jobs_takes_longer():
    rules = ["prepare_data", "train_vqvae", "evaluate_teacher", "train_baseline"]
    names = ["-", "vqvae-2x2-K4", "vqvae-2x2-K4", "cm"]
    table = pd.DataFrame({"rule": rules, "name": names, "jobs": [1, 2, 2, 2]})
    table["cpu_hours"] = [1.0, 4.0, 2.0, 3.0]
    assert wall_hours(table, 1) == 19.0
    assert wall_hours(table, 2) == 9.5
    assert wall_hours(table, 8) == 1 + 4 + 2
    assert np.isnan(wall_hours(table.assign(cpu_hours=[1.0, 4.0, np.nan, 3.0]), 2))


def test_durations_are_said_as_people_say_them():
    seconds = {12: "12 s", 90: "2 min", 3600: "1 h 0 min", 5400: "1 h 30 min", 400000: "111 h"}
    assert {s: duration(s / 3600) for s in seconds} == seconds
    assert duration(np.nan) == "-"


def test_parts_are_chains_seed_by_seed_and_of_each_seed_the_longest_first():
    quick = resolved("quick", seeds=[1, 2])
    seconds = jobs(quick)["name"].str.contains("4x4").map({True: 100.0, False: 10.0})
    on_gpu = [
        record | {"wall_seconds": time}
        for record, time in zip(records(quick, device="NVIDIA H200"), seconds, strict=True)
    ]
    planned = estimates(quick, measured_jobs(quick, on_gpu))
    table = parts(quick, planned)
    assert table["seed"].is_monotonic_increasing
    assert {*table["seed"]} == {1, 2}
    for _, of_seed in table.groupby("seed"):
        assert of_seed["gpu_minutes"].is_monotonic_decreasing
        assert of_seed["model"].iloc[0] == "4x4-K32"
        assert {*of_seed["model"]} == {*teachers(quick), *baselines(quick)}
    first = table.iloc[0]
    of_chain = planned[planned["name"].str.contains("4x4")]
    assert first["gpu_minutes"] == pytest.approx(60 * of_chain["gpu_hours"].sum(), abs=0.1)
    assert first["jobs"] == len(of_chain)
    assert table["target"].iloc[0] == "results/quick/metrics/4x4-K32/seed-1/density.csv"
    assert table["cpu_minutes"].isna().all()
