"""The tiny experiment, run once, undisturbed."""

import shutil
from pathlib import Path

import pytest
from tiny_experiment import Command, planned, run


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> list[Command]:
    """What the workflow runs for the tiny experiment."""
    return planned(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="session")
def undisturbed(commands, tmp_path_factory) -> Path:
    """The folder of a run, up to its tables, that nothing went wrong with; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for command in commands:
        if not command.step.startswith("draw_"):
            run(command, folder, folder / "log")
    (folder / "log").unlink()
    return folder


@pytest.fixture
def folder(undisturbed, tmp_path) -> Path:
    """A copy of the undisturbed run, to do things to."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"
