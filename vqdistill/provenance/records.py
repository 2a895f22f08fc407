"""Where a result comes from: the code that made it, the data, the machine, the cost."""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqdistill import baselines
from vqdistill.errors import InputError, make_anew
from vqdistill.files import Named, read_csv, read_json, readable

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).parents[1]
NO_CODE = "settings.py"  # what a job depends on of it is written out in the job's settings
LIBRARIES = ("numpy", "pandas", "safetensors", "scikit-learn", "scipy", "torch", "torchvision")

# Variables by which libraries may calculate otherwise: instruction sets, precision, algorithms.
VARIABLES = ("ATEN_", "BLIS_", "CUBLAS", "CUDNN_", "DNNL_", "GLIBC_TUNABLES", "GOMP_", "KMP_")
VARIABLES += ("MIOPEN_", "MKL_", "NPY_", "NVIDIA_TF32", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_")
VARIABLES += ("TORCH_", "VECLIB_")


def step_version(step: str, settings: Mapping[str, Any]) -> str:
    """The code version of a step, with the modules that it imports by a name in its settings."""
    modules = [f"vqdistill.steps.{step}"]
    if "method" in settings:
        modules.append(baselines.module_name(settings["method"]))
    modules += [f"vqdistill.distillation.{method}" for method in settings.get("methods", ())]
    return code_version(*modules)


def code_version(*modules: str) -> str:
    """A digest of the source of these modules and of all of the package that they import.

    Two versions of a module are told apart by their syntax trees: comments, blank lines and line
    breaks change nothing.
    """
    files = sorted(_closure(modules))
    trees = [f"{path.relative_to(PACKAGE).as_posix()}\n{_dump(path)}" for path in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]


def _closure(modules: tuple[str, ...]) -> set[Path]:
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files(module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imports(path) for file in _files(name)]
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _dump(path: Path) -> str:
    return ast.dump(_tree(path))


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Names of the package that a file imports, as modules or as attributes of modules."""
    names = []
    for node in _executed(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(name for name in names if name.partition(".")[0] == PACKAGE.name)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one but those that only type checkers read."""
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _executed(child)


def _files(module: str) -> list[Path]:
    """The file of a module, and the __init__ files of the packages that it lies in."""
    parts = module.split(".")[1:]
    folders = [PACKAGE.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
    candidates = [folder / "__init__.py" for folder in folders] + [folders[-1].with_suffix(".py")]
    return [path for path in candidates if path.exists() and path != PACKAGE / NO_CODE]


def commit() -> dict[str, str]:
    """The commit of the clone that the package lies in, '-dirty' where tracked files differ from
    it; nothing where there is no clone."""
    clone = PACKAGE.parent
    if not (clone / ".git").exists():
        return {}
    command = ["git", f"--git-dir={clone / '.git'}", f"--work-tree={clone}", "describe"]
    command += ["--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        said = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": said.stdout.decode().strip()}


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with readable(path, "a file"), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with a checksum of all that it says."""
    text = json.dumps(record, sort_keys=True)
    return record | {"checksum": hashlib.sha256(text.encode()).hexdigest()[:16]}


def read_record(path: str | Path) -> dict[str, Any]:
    """The record of a step. InputError where it is missing, damaged or was changed."""
    record = read_json(path)
    content = {k: v for k, v in record.items() if k != "checksum"} if type(record) is dict else {}
    if record != sealed(content):
        raise InputError(f"{path}: damaged or changed; {make_anew(path)}")
    return Named(content, path)


def check_files(paths: Iterable[Path], records: Iterable[dict[str, Any]]) -> None:
    """InputError at the first file that is none of those whose digests the records hold."""
    known = {digest for record in records for digest in record["files"].values()}
    for path in paths:
        if not path.exists() or file_digest(path) not in known:
            raise InputError(
                f"{path}: damaged, changed or not there: no record knows its content;"
                f" {make_anew(path)}"
            )


def read_table(path: str | Path) -> "pd.DataFrame":
    """A table of an experiment, as the record beside it knows it, if there is one."""
    record = Path(path).with_name("record.json")
    if record.exists():
        check_files([Path(path)], [read_record(record)])
    return read_csv(path)


class Stopwatch:
    """Wall time since its making, and the process's peak memory."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def cost(self, at_least: float = 0.0) -> dict[str, float]:
        """wall_seconds, which earlier, interrupted runs may have made more, and peak_memory_mb."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak /= 1024 if sys.platform != "darwin" else 1024**2
        wall = max(time.perf_counter() - self.started, at_least)
        return {"wall_seconds": round(wall, 2), "peak_memory_mb": round(peak, 1)}


def environment(device: str) -> dict[str, object]:
    """Libraries, Python, processor, device and variables of this process."""
    return {
        "libraries": {"python": platform.python_version()} | {n: version(n) for n in LIBRARIES},
        "hardware": f"{_processor()}, {os.cpu_count()} cores",
        "device": device,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
