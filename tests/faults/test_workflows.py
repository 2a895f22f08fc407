"""Snakemake itself: killed with jobs under way, asked to leave, started twice in one folder."""

import os
import signal
import subprocess
import time

import pytest
from helpers import environment
from tiny_experiment import contents, hidden, snakemake

METRICS = "results/tiny/metrics/einet-2/seed-0"
TARGETS = [f"{METRICS}/density.csv", f"{METRICS}/inpainting.csv"]


def started(folder, *words):
    """A workflow in a session of its own, so that all its processes can be signalled."""
    return subprocess.Popen(
        snakemake(folder, *words), env=environment(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(process):
    """What a workflow has said, and how it ended."""
    said = process.communicate(timeout=240)[0]
    return said, process.returncode


def wait_for(happened, process):
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_workflow_ends_with_the_same_results(undisturbed, tmp_path, kind):
    """SIGKILL for Snakemake alone, whose job lives on; SIGTERM for all, as from a scheduler."""
    log = tmp_path / "results/tiny/logs/train_baseline/einet-2/seed-0.log"
    process = started(tmp_path, *TARGETS)
    wait_for(lambda: log.exists() and "epoch 1/" in log.read_text(), process)
    if kind == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGTERM)
    assert finished(process)[1] != 0
    if kind == signal.SIGKILL:
        said, status = finished(started(tmp_path, *TARGETS))
        assert status != 0
        assert "--rerun-incomplete" in said  # whether it looks at locks or at files first
        assert finished(started(tmp_path, "--unlock"))[1] == 0
    said, status = finished(started(tmp_path, *TARGETS, "--rerun-incomplete"))
    assert status == 0, said
    assert contents(tmp_path, TARGETS) == contents(undisturbed, TARGETS)
    assert not hidden(tmp_path / "results")


@pytest.mark.slow
def test_a_second_workflow_in_the_same_folder_is_refused(undisturbed, tmp_path):
    images = ["results/tiny/data/images.npz"]
    first = started(tmp_path, *images)
    wait_for(lambda: list((tmp_path / ".snakemake/locks").glob("*")), first)
    said, status = finished(started(tmp_path, *images))
    assert status != 0
    assert "cannot be locked" in said
    said, status = finished(first)
    assert status == 0, said
    assert contents(tmp_path, images) == contents(undisturbed, images)


@pytest.mark.slow
def test_another_experiment_runs_beside_the_first_in_the_same_folder(undisturbed, tmp_path):
    """Both give the data that one alone gives: the experiment is only in the records."""
    first = started(tmp_path, "results/tiny/data/images.npz")
    wait_for(lambda: list((tmp_path / ".snakemake/locks").glob("*")), first)
    other = ["results/other/data/images.npz", "--config", "experiment=other"]
    for said, status in (finished(started(tmp_path, *other)), finished(first)):
        assert status == 0, said
    expected = contents(undisturbed, ["results/tiny/data/images.npz"])
    assert contents(tmp_path, ["results/tiny/data/images.npz"]) == expected
    assert list(contents(tmp_path, other[:1]).values()) == list(expected.values())
