"""One result made again, alone, from the record that stands beside it.

The record names the step, its settings, seed and command line, and the digests of all files that
it read and wrote. What it read is taken from its place if it is still the same file; else it is
made again first, from the record beside it, back to the images if need be. Another machine, or
other code, may make another file: what is compared in the end tells how far the results differ.
"""

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from numbers import Number
from pathlib import Path
from typing import Any

from vqdistill.errors import InputError
from vqdistill.files import read_csv
from vqdistill.provenance import command_lines
from vqdistill.provenance.records import environment, file_digest, read_record, step_version

log = logging.getLogger(__name__)
RECORD = "record.json"
COSTS = ("wall_seconds", "peak_memory_mb")
TIMED = "history.csv"  # tells of seconds, which no two runs share


def reproduce(record: Path, folder: Path) -> dict[str, list[str] | None]:
    """Make a record's files again in `folder`; of each None where it is the same, byte for byte,
    else the differences that can be told.

    Raises InputError where the record or what its step reads can't be had.
    """
    if record.is_dir():
        record = record / RECORD
    if record.name != RECORD:
        raise InputError(f"{record}: expected a {RECORD}, which stands beside each result")
    result = Result(record)
    root = Path(os.path.commonpath([path.parent for path in result.digests]))
    for change in result.changes():
        log.warning("%s", change)
    run = Reproduction(root, folder.resolve())
    run.make(result)
    found: dict[str, list[str] | None] = {}
    for path, digest in result.digests.items():
        if result.wrote(path) and path.name != TIMED:
            same = file_digest(run.place(path)) == digest
            name = str(path.relative_to(root))
            found[name] = None if same else differences(path, run.place(path))
    if lines := differing_numbers(result.facts, read_record(run.place(result.record))):
        found[str(result.record.relative_to(root))] = lines
    return found


def differing_numbers(recorded: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """What differs in a record but its cost, such as the best validation value of a training."""
    return [
        _told(name, then, now)
        for name, then in recorded.items()
        if isinstance(then, int | float) and name not in COSTS and (now := again.get(name)) != then
    ]


def _told(name: str, then: Any, now: Any) -> str:
    are_numbers = isinstance(then, Number) and isinstance(now, Number)
    return f"{name}: recorded {then}, now {now}" + (
        f", difference {now - then:.3g}" if are_numbers else ""
    )


def differences(recorded: Path, again: Path) -> list[str]:
    """What differs in a table that was made again, in a line for each column: its values where they
    are furthest apart. Nothing for other files, or where the recorded one is not there."""
    if recorded.suffix != ".csv" or not recorded.exists():
        return []
    then, now = read_csv(recorded), read_csv(again)
    if list(then.columns) != list(now.columns) or len(then) != len(now):
        return [f"{len(then)} rows were recorded, and {len(now)} are now, or other columns"]
    lines = []
    for column in then.columns:
        old, new = then[column], now[column]
        apart = (old != new) & ~(old.isna() & new.isna())
        if apart.any():
            row = apart.idxmax()
            if {old.dtype.kind, new.dtype.kind} <= {"i", "f"}:
                row = (new - old).abs().fillna(math.inf).where(apart).idxmax()
            lines.append(_told(column, old[row], new[row]))
    return lines


class Result:
    """A record, with the paths in it as they are now: it may have been copied with its files."""

    def __init__(self, record: Path) -> None:
        self.record = record.absolute()  # links stay: beside them are the other results
        self.facts = read_record(self.record)
        self.reads, self.writes = self._now(self.facts["reads"]), self._now(self.facts["writes"])
        self.digests = {self._place(path): digest for path, digest in self.facts["files"].items()}

    def _now(self, files: dict[str, list[str]]) -> dict[str, list[Path]]:
        return {name: [self._place(path) for path in paths] for name, paths in files.items()}

    def _place(self, path: str) -> Path:
        folder = Path(self.facts["writes"]["record"][0]).parent
        return Path(os.path.normpath(self.record.parent / os.path.relpath(path, folder)))

    def wrote(self, path: Path) -> bool:
        """Whether a file is one of those that the step wrote, or in a folder that it wrote."""
        written = [path for paths in self.writes.values() for path in paths]
        return path in written or path.parent in written

    def current_version(self) -> str:
        """The version of the code that runs the step now, as the workflow computes it."""
        return step_version(self.facts["step"], self.facts["settings"])

    def changes(self) -> Iterator[str]:
        """What is not as it was when the record was written, in a line each."""
        now: dict[str, Any] = environment(self.facts["device"])
        now |= {"code_version": self.current_version(), **now["libraries"], **now["variables"]}
        now |= command_lines.environment(self.facts["threads"])
        then = {name: self.facts[name] for name in ("code_version", "hardware")}
        then |= self.facts["libraries"] | self.facts.get("variables", {})
        for name, value in then.items():
            if now.get(name) != value:
                yield f"{name}: {now.get(name)}, and {value} when the record was written"


class Reproduction:
    """Files under `root` that are made again at the same places under `folder`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.made: set[Path] = set()

    def place(self, path: Path) -> Path:
        return self.folder / path.relative_to(self.root)

    def make(self, result: Result) -> None:
        """Run a record's step, once what it reads is there."""
        facts = result.facts
        paths = {
            name: [self.found(path, result) for path in paths]
            for name, paths in result.reads.items()
        }
        paths |= {name: [*map(self.place, paths)] for name, paths in result.writes.items()}
        command = [sys.executable, "-m", f"vqdistill.steps.{facts['step']}"]
        command += command_lines.options(
            paths,
            self.folder / "lists",
            settings=json.dumps(facts["settings"], sort_keys=True),
            code_version=result.current_version(),
            **{name: facts[name] for name in ("experiment", "seed", "threads")},
        )
        log.info("%s, seed %s: %s", facts["step"], facts["seed"], result.record)
        variables = os.environ | command_lines.environment(facts["threads"])
        if subprocess.run(command, env=variables, check=False).returncode:
            raise InputError(f"{result.record}: its step {facts['step']} failed, see above")

    def found(self, path: Path, reader: Result) -> Path:
        """A file that a step reads: where it was, or made again."""
        digest = reader.digests[path]
        if path.exists() and file_digest(path) == digest:
            return path
        maker = Result(path.with_name(RECORD))
        if not maker.wrote(path):
            raise InputError(f"{path}: missing or changed, and {maker.record} did not make it")
        if maker.record not in self.made:
            self.make(maker)
            self.made.add(maker.record)
        if file_digest(self.place(path)) != digest:
            log.warning("%s: made again, but another file than %s names", path, reader.record)
        return self.place(path)
