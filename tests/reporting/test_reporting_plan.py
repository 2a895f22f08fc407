"""Plans: all jobs are counted, and what was measured is what is planned."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from vqdistill import config as experiment
from vqdistill.reporting.plan import MEASURED, by_rule, estimates, jobs, measured_jobs

ROOT = Path(__file__).parents[2]


def resolved(preset: str = "", **changes) -> dict:
    """The paper's config, a preset and changes on top, as the workflow sees it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if preset:
        update_config(
            config, yaml.safe_load((ROOT / f"workflow/presets/{preset}.yaml").read_text())
        )
    update_config(config, copy.deepcopy(changes))
    return experiment.checked(
        config, experiment.read_schema(ROOT / "workflow/schemas/config.schema.yaml")
    )


def runs(config: dict, **facts) -> pd.DataFrame:
    """A run of each job, each of another duration."""
    table = jobs(config)[["rule", "name"]]
    table["seconds"] = 10.0 + np.arange(len(table))
    return table.assign(**({"device": "cpu", "memory_mb": 1000.0, "epochs": 0} | facts))


def committed() -> pd.DataFrame:
    return pd.concat(map(pd.read_csv, sorted((ROOT / "workflow/measured").glob("*.csv"))))


def test_all_jobs_of_the_paper_are_counted():
    table = jobs(resolved())
    counts = Counter()
    for rule, number in zip(table["rule"], table["jobs"], strict=True):
        counts[rule] += number
    teachers = dict.fromkeys(("train_vqvae", "train_prior", "distil", "evaluate_teacher"), 35)
    baselines = dict.fromkeys(("train_baseline", "evaluate_baseline"), 30)
    assert counts == {"prepare_data": 1, "train_classifier": 1} | teachers | baselines
    assert (table[["work", "disk_mb"]] > 0).all(axis=None)


def test_parameters_are_near_those_of_the_published_networks():
    table = jobs(resolved()).set_index(["rule", "name"])["parameters"]
    assert table["train_vqvae", "2x2-K4096"] == pytest.approx(4.15e6, rel=0.5)
    assert table["train_vqvae", "4x4-K4096"] == pytest.approx(16.0e6, rel=0.5)
    assert table["train_prior", "2x2-K4096"] == pytest.approx(20.3e6, rel=0.1)
    assert table["train_prior", "4x4-K4096"] == pytest.approx(72.2e6, rel=0.1)
    assert table["train_baseline", "cm"] == pytest.approx(328e3, rel=0.3)
    assert table["train_baseline", "einet-4"] == 3136 * 4**3 + 784 * 4


def test_an_experiment_that_was_measured_is_planned_as_it_was():
    config = resolved("quick")
    planned = estimates(config, measured_jobs(config, runs(config)))
    assert planned["cpu_hours"].to_numpy() * 3600 == pytest.approx(10.0 + np.arange(len(planned)))
    assert planned["gpu_hours"].isna().all()
    assert (planned["memory_mb"] == 1000).all()
    sums = by_rule(planned).set_index("rule")
    assert sums.loc["total", "jobs"] == 82
    assert sums.loc["total", "cpu_hours"] == pytest.approx(sums["cpu_hours"].iloc[:-1].sum())
    assert np.isnan(sums.loc["total", "gpu_hours"])


def test_time_grows_with_epochs_and_epochs_not_run_do_not_count():
    short, long = (
        resolved("quick", prior={"training": {"max_epochs": epochs}}) for epochs in (10, 40)
    )
    measured = measured_jobs(short, runs(short, epochs=5, seconds=65.0))
    hours = estimates(long, measured).set_index("rule").loc["train_prior", "cpu_hours"]
    assert hours.to_numpy() * 3600 == pytest.approx(5 + 60 * 40 / 5)


def test_hours_on_gpus_come_from_gpus_alone():
    config = resolved("quick")
    on_both = [runs(config), runs(config, device="NVIDIA H200", seconds=7.0)]
    planned = estimates(config, measured_jobs(config, pd.concat(on_both)))
    assert planned["gpu_hours"].to_numpy() * 3600 == pytest.approx(np.full(len(planned), 7.0))
    assert planned["cpu_hours"].to_numpy() * 3600 == pytest.approx(10.0 + np.arange(len(planned)))


def test_larger_networks_need_more_memory_and_disk():
    small, large = resolved("laptop"), resolved()
    measured = measured_jobs(small, runs(small))
    planned = estimates(large, measured).set_index(["rule", "name"])
    prior = planned.loc[("train_prior", "4x4-K4096")]
    assert prior["memory_mb"] > 1000 + 6 * 4 * 70
    assert prior["disk_mb"] > 4 * 70


@pytest.mark.parametrize("preset", ["", "quick", "laptop"])
def test_committed_measurements_suffice_for_our_experiments(preset):
    measured = committed()
    assert list(measured.columns) == MEASURED
    planned = estimates(resolved(preset), measured)
    assert (planned[["cpu_hours", "memory_mb"]] > 0).all(axis=None)
