"""Tests run side by side, one process a core; benchmarks have the machine for themselves."""

import os
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_xdist_auto_num_workers(config) -> int:
    paths = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    timed = any(path == BENCHMARKS or BENCHMARKS in path.parents for path in paths)
    return 0 if timed else len(os.sched_getaffinity(0))
