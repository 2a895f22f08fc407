"""Finished runs of an experiment in one file, and such files put together on another machine.

A run is a step that has left a record, with all that the record says it has written. What is put
together is checked first, and nothing is written unless all of it fits.
"""

import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vqdistill.errors import InputError
from vqdistill.files import readable, replacing
from vqdistill.provenance.records import check_files, read_record
from vqdistill.reporting.runs import check_settings

RUNS = ("models/*/seed-*/record.json", "latents/*/seed-*/record.json")
RUNS += ("metrics/*/seed-*/record.json",)
SMALL = 2 * 2**20  # bytes of a file that is always packed


def pack(results: Path, archive: Path, largest: float = SMALL) -> tuple[int, int]:
    """Write all finished runs to an archive; how many runs, and how many files were too large.

    Raises InputError where a file is not what its record says, or nothing is finished.
    """
    runs = records(results)
    if not runs:
        raise InputError(f"{results}: no run is finished, expected one at least; run some first")
    left = 0
    with (
        replacing(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for path, record in runs.items():
            written = [one for one in outputs(record, results) if one.exists()]
            check_files(written, [record])
            small = [one for one in written if one.stat().st_size <= largest]
            left += len(written) - len(small)
            for one in (path, *small):
                file.write(one, one.relative_to(results).as_posix())
    return len(runs), left


def merge(
    archive: Path, results: Path, expected: Mapping[tuple[str, str], dict], data: dict[str, Any]
) -> int:
    """Put the runs of an archive among those of `results`; how many are new.

    expected: the experiment's settings of each step, as `check_settings` takes them; data: the
    record of its prepared images. Raises InputError where the archive is damaged, of another
    experiment, of other settings or images, or has another result of a run that is there.
    """
    with tempfile.TemporaryDirectory(dir=results, prefix=".merging-") as temporary:
        folder = Path(temporary)
        unpack(archive, folder)
        runs = records(folder)
        named = {f"{archive}: {path.relative_to(folder)}": run for path, run in runs.items()}
        if not runs:
            raise InputError(f"{archive}: holds no run, expected what `snakemake pack` writes")
        for name, record in named.items():
            _check_source(name, record, results.name, data)
        check_settings(named, expected)
        unpacked = {path for path in folder.rglob("*") if path.is_file()} - runs.keys()
        try:
            check_files(sorted(unpacked), [*runs.values()])
        except InputError as error:
            raise InputError(f"{archive}: {error}".replace(f"{folder}/", "")) from None
        _check_conflicts(named, records(results))
        new = [path for path in runs if not (results / path.relative_to(folder)).exists()]
        now = time.time()  # one time for all: no file is newer than what was made from it
        for path in sorted({*unpacked, *new}):
            target = results / path.relative_to(folder)
            if not target.exists():
                record = target.with_name("record.json")
                then = record.stat().st_mtime if record.exists() else now
                os.utime(path, (then, then))
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    return len(new)


def records(results: Path) -> dict[Path, dict[str, Any]]:
    """The records of all finished runs, by their paths."""
    return {path: read_record(path) for runs in RUNS for path in sorted(results.glob(runs))}


def outputs(record: Mapping[str, Any], results: Path) -> Iterator[Path]:
    """What a run has written, but for its record and its checkpoint."""
    for name, paths in record["writes"].items():
        if name not in ("record", "checkpoint"):
            for path in paths:
                yield results / _below(path)


def unpack(archive: Path, folder: Path) -> None:
    """The files of an archive, below a folder. InputError where it is no whole archive of runs."""
    with readable(archive, "an archive of runs"), zipfile.ZipFile(archive) as file:
        known = {PurePosixPath(pattern).parts[0] for pattern in RUNS}
        for info in file.infolist():
            parts = PurePosixPath(info.filename).parts
            if len(parts) != 4 or parts[0] not in known or ".." in parts:
                raise InputError(f"{archive}: {info.filename}: no file of a run; leave it out")
        if file.testzip() is not None:
            raise zipfile.BadZipFile(f"{file.testzip()} is damaged")
        file.extractall(folder)


def _check_source(name: str, record: dict[str, Any], experiment: str, data: dict) -> None:
    """InputError unless a record is of this experiment and of the same images."""
    if record["experiment"] != experiment:
        raise InputError(
            f"{name}: of the experiment {record['experiment']!r}, expected {experiment!r}; merge it"
            " there"
        )
    found, wanted = record.get("data_checksum"), data["data_checksum"]
    if found not in (None, wanted):
        raise InputError(
            f"{name}: made from images with the checksum {found}, but those here have {wanted};"
            " prepare the same images on both machines"
        )


def _check_conflicts(runs: Mapping[str, dict], here: Mapping[Path, dict]) -> None:
    """InputError where a run has read or written another file than runs that are here."""
    known: dict[str, tuple[str, Path]] = {}
    for path, run in here.items():  # what has made a file stands before what has read it
        for name, digest in _digests(run):
            known.setdefault(name, (digest, path))
    for record, run in runs.items():
        for name, digest in _digests(run):
            other, path = known.get(name, (digest, record))
            if other != digest:
                raise InputError(
                    f"{record}: {name} is another one than {path} tells of; two machines have made"
                    " it. Keep one: remove the folder here, or make the archive without it"
                )


def _digests(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a run has read and written, and the digest of each."""
    for path, digest in run["files"].items():
        yield _below(path), digest


def _below(path: str | Path) -> str:
    """The part of a path 'results/<experiment>/models/…' that lies below the experiment."""
    parts = PurePosixPath(path).parts
    return "/".join(parts[-4:])
