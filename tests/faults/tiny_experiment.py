"""One tiny experiment, whose steps run as processes that can be killed, starved and lied to.

The processes are forked from a server that has imported torch once, so each starts at once.
"""

import json
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
from helpers import ROOT, TINY, environment

CONFIG = TINY | {
    "training": {"batch_size": 100, "max_epochs": 5},
    "vqvae": {
        "channels": {"2x2": [4, 4]},
        "initialisation": "kmeans",
        "ema_decay": 0.9,
        "revive_dead_codes": True,
    },
    "teachers": TINY["teachers"][:1],
    "baselines": TINY["baselines"] | {"gmm": {"sizes": [3]}},
    "classifier": {"width": 2, "training": {"max_epochs": 5}},
}
SERVER = multiprocessing.get_context("forkserver")
STEPS = sorted(path.stem for path in (ROOT / "vqdistill/steps").glob("*.py"))
IMPORTED_LATE = ["encodings.cp437", "sklearn.datasets", "vqdistill.baselines.gmm"]
SERVER.set_forkserver_preload([*(f"vqdistill.steps.{step}" for step in STEPS), *IMPORTED_LATE])


TIMED = ("record.json", "timings.csv")  # they tell of seconds, and so does a column of history.csv


class Command(list[str]):
    """The words of a step's command line, as the workflow says them, and the files it writes."""

    written: tuple[Path, ...] = ()

    @property
    def step(self) -> str:
        return self[2].rpartition(".")[2]

    def values(self, option: str) -> list[str]:
        """What stands after an option."""
        first = self.index(f"--{option}") + 1
        following = [n for n in range(first, len(self)) if self[n].startswith("--")]
        return list(self[first : min(following, default=len(self))])

    def outputs(self) -> list[Path]:
        """The files that the step writes."""
        return list(self.written)

    def changed(self, **options: str) -> "Command":
        """The command with other values."""
        command = Command(self)
        command.written = self.written
        for name, value in options.items():
            command[command.index(f"--{name}") + 1] = value
        return command

    def with_settings(self, **settings) -> "Command":
        """The command with other settings."""
        values = json.loads(self.values("settings")[0]) | settings
        return self.changed(settings=json.dumps(values))

    def with_training(self, **settings) -> "Command":
        """The command with other settings of its training."""
        training = json.loads(self.values("settings")[0])["training"]
        return self.with_settings(training=training | settings)


def files_of(folder: Path, paths: list[Path]) -> list[Path]:
    """Those of the paths that are there."""
    return [folder / path for path in paths if (folder / path).is_file()]


def contents(folder: Path, paths: list[Path]) -> dict[str, bytes]:
    """What is in the files of a run, but for those that tell of seconds."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files_of(folder, paths)
        if path.name not in TIMED
    }
    for name in found:
        if name.endswith("history.csv") and "/tables/" not in name:
            table = pd.read_csv(folder / name, dtype=str).drop(columns="seconds")
            found[name] = table.to_csv().encode()
    return found


def hidden(folder: Path) -> list[Path]:
    """Temporary files that are left."""
    return [path for path in folder.rglob(".*") if path.is_file()]


def snakemake(folder: Path, *arguments: str | Path) -> list[str]:
    """The command line of Snakemake for the tiny experiment in `folder`, with its own messages."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    common = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "1", "--nocolor"]
    words = [sys.executable, "-m", "snakemake", *arguments, "--workflow-profile", "none", *common]
    return [str(word) for word in (*words, "--configfile", ROOT / "config.yaml", path)]


def pick(commands: list[Command], step: str, word: str = "") -> Command:
    """The first command of a step that has a word in it."""
    return next(c for c in commands if c.step.startswith(step) and word in str(c))


def without_outputs(command: Command, folder: Path) -> None:
    """Remove a step's outputs, as Snakemake does before it runs."""
    for path in files_of(folder, command.outputs()):
        path.unlink()


def check_as_undisturbed(command: Command, folder: Path, undisturbed: Path) -> None:
    """The outputs of a step are those of the undisturbed run, and nothing is left beside them."""
    paths = command.outputs()
    found, expected = contents(folder, paths), contents(undisturbed, paths)
    assert found.keys() == expected.keys() != set()
    assert [path for path in expected if found[path] != expected[path]] == []
    assert not hidden(folder)


def planned(folder: Path) -> list[Command]:
    """The commands of all steps, in an order in which they can run."""
    words = snakemake(folder, "--dry-run", "--printshellcmds")
    said = subprocess.run(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout
    found = re.findall(r"^ *output: (.*)\n(?: .*\n)* *Shell command: (python.*) > ", said, re.M)
    assert found, said
    commands = []
    for outputs, line in found:
        commands.append(Command(shlex.split(line)))
        commands[-1].written = tuple(Path(path) for path in outputs.split(", "))
    return commands


def start(
    command: Command, folder: Path, log: Path, prepare: Callable[[], None] | None = None
) -> BaseProcess:
    """A step as a process in `folder`, both of whose streams go to `log`."""
    log.write_text("", encoding="utf-8")
    process = SERVER.Process(target=_run, args=(command, folder, log, prepare))
    process.start()
    return process


def _run(command: Command, folder: Path, log: Path, prepare: Callable[[], None] | None) -> None:
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.argv = command[2:]
    warnings.simplefilter("ignore")  # that the step has been imported already
    if prepare:
        prepare()
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)


def run(command: Command, folder: Path, log: Path, prepare=None) -> str:
    """What a step says that ends well."""
    process = start(command, folder, log, prepare)
    process.join()
    assert process.exitcode == 0, log.read_text(encoding="utf-8")
    return log.read_text(encoding="utf-8")


def refusal(command: Command, folder: Path, log: Path, prepare=None) -> str:
    """The one line, besides its log, with which a step refuses its work."""
    process = start(command, folder, log, prepare)
    process.join()
    assert process.exitcode == 1, log.read_text(encoding="utf-8")
    return one_line(log)


def one_line(log: Path) -> str:
    """The only line of a log that has no date before it."""
    lines = [
        line
        for line in log.read_text(encoding="utf-8").splitlines()
        if not re.match(r"\d{4}-\d\d-", line)
    ]
    assert len(lines) == 1, log.read_text(encoding="utf-8")
    return lines[0]


def wait_for(happened: Callable[[], bool], process: BaseProcess) -> None:
    """Until something has happened, or the process has ended, or a minute is over."""
    end = time.monotonic() + 60
    while not happened() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.001)
    assert happened()
