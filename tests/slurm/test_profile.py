"""What the profile asks of a cluster, as a dry run shows it; needs no SLURM."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PROFILE = ["--workflow-profile", "workflow/profiles/slurm"]
LOCAL = {"prepare_data", "tabulate", "draw_charts", "draw_pictures", "all"}
COMPUTING = {"train_vqvae", "train_prior", "train_baseline", "train_classifier"}
COMPUTING |= {"train_student", "evaluate_teacher", "evaluate_baseline"}


def planned(folder: Path, *arguments: str) -> list[tuple[str, dict[str, str]]]:
    """(rule, resources) of each job of a dry run of the quick preset."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--verbose", "--nocolor"]
    command += ["--directory", folder]
    files = ["--configfile", ROOT / "config.yaml", ROOT / "workflow/presets/quick.yaml"]
    said = subprocess.run(
        [*command, *arguments, *files], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    jobs = []
    for block in re.split(r"\n(?= *(?:local)?rule )", said)[1:]:
        rule = re.match(r" *(?:local)?rule (\w+):", block)[1]
        listed = re.search(r"\n +resources: (.*)", block)
        fields = dict(f.split("=", 1) for f in listed[1].split(", ")) if listed else {}
        jobs.append((rule, fields))
    return jobs


@pytest.fixture(scope="module")
def through_profile(tmp_path_factory) -> list[tuple[str, dict[str, str]]]:
    return planned(tmp_path_factory.mktemp("planned"), *PROFILE)


def test_gpus_are_asked_for_by_rules_and_withheld_by_the_profile(through_profile, tmp_path):
    asking = {rule for rule, resources in planned(tmp_path) if resources.get("gpu") == "1"}
    assert asking == COMPUTING
    given = {(rule, resources["gpu"]) for rule, resources in through_profile if "gpu" in resources}
    assert given == {(rule, "0") for rule in COMPUTING}


def test_submitted_jobs_have_limits_that_grow_with_each_attempt(through_profile, tmp_path):
    first, third = dict(through_profile), dict(planned(tmp_path, *PROFILE, "--attempt", "3"))
    for rule in first.keys() - LOCAL:
        for name in ("mem_mb", "runtime"):
            assert int(third[rule][name]) == 3 * int(first[rule][name]) > 0, (rule, name)
