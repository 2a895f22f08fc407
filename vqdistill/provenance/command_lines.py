"""Command lines of steps, as the workflow and `reproduce` say them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqdistill.files import replacing

FEW = 10  # files are named on the command line; more of them in a file
LISTS = Path(".snakemake/lists")


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
