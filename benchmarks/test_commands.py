"""Whole commands: what a user waits for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
QUICK = ["--configfile", "config.yaml", "workflow/presets/quick.yaml"]
CORES = 2


def python(*arguments: str, folder: Path = ROOT) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)


def run_quick(folder: Path, *arguments: str) -> None:
    python("-m", "snakemake", "--cores", str(CORES), *arguments, *QUICK, folder=folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project, without results."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "config.yaml", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    for name in ("workflow", "vqdistill"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture
def finished(project) -> Path:
    """That copy with the quick preset's results."""
    run_quick(project)
    return project


def test_quick_preset(timed, benchmark, project):
    timed(lambda: run_quick(project), "commands", "quick preset", 1, rounds=1)
    results = project / "results/quick"
    logs = [path.read_text(encoding="utf-8") for path in (results / "logs").rglob("*.log")]
    computing = [float(re.search(r"done in (.+) s,", text)[1]) for text in logs]
    jobs = [pd.read_csv(path, sep="\t") for path in (results / "benchmarks").rglob("*.tsv")]
    records = [path for path in results.rglob("record.json") if path.parent.name != "tables"]
    in_jobs = sum(json.loads(path.read_text(encoding="utf-8"))["wall_seconds"] for path in records)
    assert len(jobs) == len(records)
    benchmark.extra_info.update(
        jobs=len(computing),
        computing=sum(computing) / CORES,
        starting=(pd.concat(jobs)["s"].sum() - in_jobs) / len(jobs) * len(computing) / CORES,
    )


def test_figures(timed, finished):
    drawing = ("--forcerun", "draw_charts", "draw_pictures")
    timed(lambda: run_quick(finished, *drawing), "commands", "figures", 1)


def test_report(timed, finished):
    timed(lambda: run_quick(finished, "--report", "report.html"), "commands", "report", 1)


def test_dry_run(timed):
    timed(lambda: python("-m", "snakemake", "-n"), "commands", "dry run of config.yaml", 1)


def test_help(timed):
    timed(lambda: python("-m", "vqdistill", "--help"), "commands", "help", 1)


def test_import(timed):
    timed(lambda: python("-c", "import vqdistill"), "commands", "import", 1)
