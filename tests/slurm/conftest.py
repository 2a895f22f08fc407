"""A SLURM of one node on this machine, and Snakemake runs that submit to it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pytest

SCRIPT = Path(__file__).parent / "cluster.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")


def why_not() -> str:
    """Why no SLURM can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a SLURM on this machine needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}; install Debian's slurm-wlm and munge"
    return ""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running SLURM. Skipped where there can be none, unless VQDISTILL_SLURM=1 demands it."""
    demanded = os.environ.get("VQDISTILL_SLURM") == "1"
    reason = why_not()
    if reason and demanded:
        pytest.fail(reason)
    if reason or not demanded:
        pytest.skip(reason or "starts daemons on this machine; VQDISTILL_SLURM=1 allows it")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    subprocess.run([SCRIPT, "start", folder], check=True)
    yield
    subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="session")
def copy_repository(tmp_path_factory):
    """A function that copies all that a run reads into a new folder, to run there."""

    return lambda: helpers.copy_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def start():
    """A function that starts Snakemake in a folder; all it says goes to results/snakemake.log."""
    started = []

    def begin(folder: Path, *arguments: str | Path) -> subprocess.Popen:
        (folder / "results").mkdir(exist_ok=True)
        with (folder / "results/snakemake.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--nocolor", *arguments],
                cwd=folder,
                env=helpers.environment(folder),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait()
