"""Reading and writing files: whole or not at all, and never by unpickling.

Every writer writes under a temporary name beside the target and renames it when it is complete,
so that a reader, or a run that goes on after an interruption, never sees half a file. Flipped bits
are noticed: in npz and safetensors by a digest that they hold of all their content, in records and
CSV files by the digests that the records hold (vqdistill/provenance/records.py). Equal content
gives equal bytes.
"""

import csv
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqdistill.errors import InputError, make_anew

if TYPE_CHECKING:
    import pandas as pd
    import torch

TEXT_COLUMNS = dict.fromkeys(("experiment", "code_version", "commit"), str)  # not numbers
DIGEST = "sha256"


class Named(dict[str, Any]):
    """Values by name; InputError where one is asked for that is not there."""

    def __init__(self, values: Mapping[str, Any], where: str | Path) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self.where}: no {name!r}, only {', '.join(self) or 'nothing'}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes the place of `path` if the block succeeds."""
    path = Path(path)
    name = f".{path.stem}-{secrets.token_hex(4)}-{os.getpid()}{path.suffix}"
    temporary = path.with_name(name)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            yield temporary
            temporary.chmod(mode)  # safetensors makes a file that its owner alone can read
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn what a system refuses while `path` is written into one line that names it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: not written ({error.strerror or error}), what was there is still there; make"
            " room or get permission to write there, and run the same command again"
        ) from None


def _remove_orphans(path: Path) -> None:
    """Remove temporary files of `path` whose process, the number in their name, was killed."""
    for left in path.parent.glob(f".{path.stem}-*-*{path.suffix}"):
        process = left.name.removesuffix(path.suffix).rpartition("-")[2]
        if process.isdigit() and not _is_running(int(process)):
            left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def readable(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one line that names it."""
    try:
        yield
    except (FileNotFoundError, PermissionError):  # safetensors tells the one for the other
        if Path(path).exists():
            raise InputError(f"{path}: no permission to read it; get it from its owner") from None
        raise InputError(f"{path}: no such file; expected {kind}") from None
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not readable as {kind} ({reason}); {make_anew(path)}") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused with a ValueError."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; InputError where it is missing or damaged."""
    with readable(path, "JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table without its index; floats with 10 significant digits."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def write_rows(
    path: str | Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()
) -> None:
    """Write rows as the table that `write_csv` would write, without the time to import pandas.

    columns: in their order, if not those of the first row. ValueError where a row has others.
    """
    columns = columns or list(rows[0])
    if any(row.keys() != set(columns) for row in rows):
        raise ValueError(f"rows of a table with other columns than {', '.join(columns)}")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return value


def read_csv(path: str | Path) -> "pd.DataFrame":
    """A table; no text but the empty one stands for a missing value, and names stay text.

    InputError where the file is missing or damaged.
    """
    import pandas as pd

    with readable(path, "CSV"):
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=TEXT_COLUMNS)


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write NumPy arrays as one npz file, with a digest of all; object arrays are refused."""
    digest = np.array(_digest(arrays))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{DIGEST: digest})


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without pickles; InputError where missing or damaged."""
    with readable(path, "npz"), np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
        _check_digest(str(arrays.pop(DIGEST, "")), arrays)
        return Named(arrays, path)


def array_names(path: str | Path) -> list[str]:
    """The names of the arrays of an npz file, none of which is read."""
    with readable(path, "npz"), np.load(path, allow_pickle=False) as stored:
        return [name for name in stored.files if name != DIGEST]


def write_tensors(
    path: str | Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, Any]
) -> None:
    """Write tensors as safetensors, with `metadata` and a digest of both as JSON beside them."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    text = json.dumps(metadata)
    # one entry, for the order of several would differ from file to file
    stored = json.dumps({"metadata": text, DIGEST: _digest(_as_arrays(contiguous), text)})
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={"json": stored})
        except SafetensorError as error:
            raise OSError(str(error)) from None


def read_tensors(path: str | Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Tensors and metadata of a safetensors file; InputError where missing or damaged."""
    from safetensors import safe_open

    with readable(path, "safetensors"), safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        beside = json.loads(stored.metadata()["json"])
        _check_digest(beside[DIGEST], _as_arrays(tensors), beside["metadata"])
        return Named(tensors, path), Named(json.loads(beside["metadata"]), path)


def _as_arrays(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _digest(arrays: Mapping[str, np.ndarray], text: str = "") -> str:
    """SHA-256 of arrays, with their names, types and shapes, and of a text."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_digest(expected: str, arrays: Mapping[str, np.ndarray], text: str = "") -> None:
    if expected != _digest(arrays, text):
        raise ValueError("its checksum is another")
