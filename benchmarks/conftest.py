"""Timings of vqdistill beside those of what a user would pick instead, all in one run.

Each test times one implementation of one task at one size. At the end of the run, the timings of a
task go to results/benchmarks/<task>.csv, and docs/performance.md is written anew from all of them.
"""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "benchmarks"
THREADS = len(os.sched_getaffinity(0))
SECONDS, FEWEST_ROUNDS, MOST_ROUNDS = 6.0, 3, 15


@pytest.fixture(autouse=True, scope="session")
def process():
    """All cores for everybody, and no looking for garbage among what was imported, as in steps."""
    torch.set_num_threads(THREADS)
    gc.collect()
    gc.freeze()


@pytest.fixture
def timed(benchmark):
    """Time a function: timed(function, task, implementation, size) gives what it returns.

    variant: of several ways to run an implementation, the fastest counts. share: the part of the
    task's work that is done; times are divided by it. Several rounds follow one that warms up, the
    more the shorter it is: short times tell most of other users of the machine.
    """

    def run(
        function: Callable,
        task: str,
        implementation: str,
        size: int,
        variant: str = "",
        share: float = 1.0,
        rounds: int | None = None,
    ):
        keys = {"task": task, "implementation": implementation, "size": size}
        benchmark.extra_info.update(keys, variant=variant, share=share)
        if rounds is None:
            start = time.perf_counter()
            function()
            rounds = round(SECONDS / (time.perf_counter() - start))
            rounds = min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS)
        return benchmark.pedantic(function, rounds=rounds)

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the tables and the page, if all benchmarks of the files asked for passed."""
    asked = session.config.option
    if asked.keyword or any("::" in name for name in asked.file_or_dir):
        return
    finished = session.config._benchmarksession.benchmarks
    rows = [
        {
            "machine": report.machine(),
            "threads": THREADS,
            "seconds": one.stats.min / one.extra_info.get("share", 1.0),
            "rounds": one.stats.rounds,
        }
        | one.extra_info
        for one in finished
        if "task" in one.extra_info
    ]
    if session.exitstatus or not finished:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    profiles = [row for one in finished for row in one.extra_info.get("profile", [])]
    if profiles:
        profiles = pd.DataFrame(profiles).assign(machine=report.machine(), threads=THREADS)
        profiles.to_csv(RESULTS / "profile.csv", index=False)
    for task, table in pd.DataFrame(rows).groupby("task") if rows else ():
        table = table.dropna(axis=1, how="all")
        table.round({"seconds": 6}).to_csv(RESULTS / f"{task}.csv", index=False)
    report.write(RESULTS, ROOT / "docs")
