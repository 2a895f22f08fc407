"""Command lines of steps, as the workflow and `reproduce` say them, and their environment."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqdistill.files import replacing
from vqdistill.provenance.records import PACKAGE

FEW = 20  # files are named on the command line; more of them in a file
LISTS = Path(".snakemake/lists")

# Steps make and drop tensors of megabytes all the time. glibc keeps their memory, in huge pages,
# and doesn't ask the system for it anew each time.
ALLOCATOR = "hugetlb=1 mmap_threshold=33554432 trim_threshold=4294967296 top_pad=67108864"
TUNABLES = ":".join(f"glibc.malloc.{tunable}" for tunable in ALLOCATOR.split())
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def environment(threads: int = 0) -> dict[str, str]:
    """The variables that steps run with, those of threads too unless Snakemake sets them; a user's
    own GLIBC_TUNABLES are kept.

    Steps run this package, and modules that lie in the working directory take no one's place. Text
    is UTF-8, whatever the locale. numpy's threads would only wait, which takes a core's time: steps
    calculate with PyTorch's.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
    variables |= {"OPENBLAS_NUM_THREADS": "1"}
    variables |= dict.fromkeys(THREADS if threads else (), str(threads))
    return {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", TUNABLES)} | variables


def options(
    paths: Mapping[str, Sequence[str | Path]], lists: Path = LISTS, **values: object
) -> list[str]:
    """The words of a step's options: the files by name, and other values.

    An argument has at most 128 KiB on Linux: a long list of files goes through a file in `lists`
    that is named after its content, and the step gets `@` and its path.
    """
    words = []
    for name, listed in paths.items():
        words += [f"--{name}", *(_listed(listed, lists) if len(listed) > FEW else listed)]
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", value]
    return [str(word) for word in words]


def _listed(paths: Sequence[str | Path], lists: Path) -> list[str]:
    text = "".join(f"{path}\n" for path in paths)
    file = lists / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [f"@{file}"]
