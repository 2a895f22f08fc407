"""The exceptions that users are meant to see, each told in one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Bad input: what was found, what was expected, what to do."""


def make_anew(path: object) -> str:
    """The advice where a file that a step wrote can't be used: Snakemake makes it anew whether or
    not it is there, and all that depends on it after that."""
    return f"make it anew: add --force {path} to your command, then give the command without it"


class TrainingError(RuntimeError):
    """A training that can't go on: where it stood, and what was good last."""


@contextmanager
def failures_told(what: str) -> Iterator[None]:
    """Whatever fails in code that a user wrote as one line, with the place; InputErrors stay."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        file, line = getattr(error, "filename", None), getattr(error, "lineno", None)
        if line is None:  # no SyntaxError
            place = traceback.extract_tb(error.__traceback__)[-1]
            file, line = place.filename, place.lineno
        where, said = f"line {line} of {Path(str(file)).name}", " ".join(str(error).split())
        raise InputError(f"{what}: {type(error).__name__} in {where}: {said}") from None
