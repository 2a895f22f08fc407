"""Reading and writing files: whole or not at all, and never by unpickling.

Every writer writes under a temporary name beside the target and renames it when it is complete,
so that a reader, or a run that goes on after an interruption, never sees half a file.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqdistill.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import torch


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes the place of `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _readable(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {kind}") from None
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not readable as {kind} ({reason}); delete it and run its step again"
        ) from None


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused with a ValueError."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; InputError where it is missing or damaged."""
    with _readable(path, "JSON"):
        return json.loads(Path(path).read_text())


def write_csv(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table without its index; floats with 10 significant digits."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def read_csv(path: str | Path) -> "pd.DataFrame":
    """A table; '-' stays the text it is. InputError where the file is missing or damaged."""
    import pandas as pd

    with _readable(path, "CSV"):
        return pd.read_csv(path)


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write NumPy arrays as one npz file; object arrays are refused."""
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without pickles; InputError where missing or damaged."""
    with _readable(path, "npz"), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def write_tensors(
    path: str | Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, Any]
) -> None:
    """Write tensors as safetensors; `metadata` is stored as JSON beside them."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={"json": json.dumps(metadata)})


def read_tensors(path: str | Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Tensors and metadata of a safetensors file; InputError where missing or damaged."""
    from safetensors import safe_open

    with _readable(path, "safetensors"), safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        metadata = json.loads((stored.metadata() or {}).get("json", "{}"))
    return tensors, metadata
