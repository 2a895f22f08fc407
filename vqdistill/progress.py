"""How far a job has come, for whoever watches it: a small file that is replaced every second.

What takes long counts its rounds in a `loop`, wherever it is. Nothing comes of it until a program
says where to tell (`telling`). A loop within a loop makes its share finer. The time left is what
the rest of the outermost loop takes at the speed so far, and less where a training stops early.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from vqdistill.files import replacing

FILE = "progress.json"  # beside the record of a job, while it runs
EVERY = 1.0  # seconds from one writing to the next
T = TypeVar("T")


class Loop:
    """Something done `total` times, or any number of times where that is 0."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done = what, total, done
        self.begun, self.share_before = time.perf_counter(), done / total if total else 0.0
        self.values: dict[str, Any] = {}

    def advance(self, n: int = 1, **values: Any) -> None:
        """n more are done; `values` are numbers that are shown with it, such as a loss."""
        self.done += n
        _teller.tell(values)


@contextmanager
def loop(what: str, total: int, done: int = 0) -> Iterator[Loop]:
    """A loop that runs in the block; `done` of its rounds were done before."""
    one = Loop(what, total, done)
    _teller.loops.append(one)
    _teller.tell({})
    try:
        yield one
    finally:
        _teller.loops.remove(one)


def track(items: Sequence[T], what: str, sizes: Sequence[int]) -> Iterator[T]:
    """The items one after the other, as a loop of as many rounds as their sizes add up to."""
    with loop(what, sum(sizes)) as one:
        for item, size in zip(items, sizes, strict=True):
            yield item
            one.advance(size)


@contextmanager
def telling(path: Path | None) -> Iterator[None]:
    """Tell of the block's loops in the file `path`, which goes in the end, and on the terminal
    where a person watches this program itself."""
    _teller.path, _teller.due = path, 0.0
    try:
        yield
    finally:
        _teller.path, _teller.due = None, float("inf")
        if path:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def read(path: Path, since: float) -> dict[str, Any]:
    """What a job that began at the time `since` has told: 'at', 'loss' and 'seconds_left', as far
    as they are known."""
    try:
        if path.stat().st_mtime >= since:
            return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # nothing told yet, or no longer
    return {}


class Teller:
    """The loops that are running, the outermost first, and where to tell of them, if anywhere."""

    def __init__(self) -> None:
        self.loops: list[Loop] = []
        self.path: Path | None = None
        self.due = float("inf")

    def tell(self, values: dict[str, Any]) -> None:
        self.loops[0].values.update(values)
        now = time.perf_counter()
        if now < self.due:
            return
        self.due = now + EVERY
        values = self.loops[0].values
        told = self.position(now) | {name: float(value) for name, value in values.items()}
        if self.path:
            with suppress(OSError), replacing(self.path) as temporary:
                temporary.write_text(json.dumps(told), encoding="utf-8")
        if sys.stderr.isatty():
            print("\x1b[K" + "  ".join(filter(None, words(told))), end="\r", file=sys.stderr)

    def position(self, now: float) -> dict[str, Any]:
        """Where the outermost loop is, and the seconds that its rest takes."""
        first, share = self.loops[0], 0.0
        for one in reversed(self.loops):
            share = (one.done + share) / one.total if one.total else 0.0
        at = {"at": f"{first.what} {min(first.done + 1, first.total):,} of {first.total:,}"}
        gained = share - first.share_before
        if gained <= 0:
            return at
        return at | {"seconds_left": (now - first.begun) * max(0.0, 1 - share) / gained}


_teller = Teller()


def words(told: dict[str, Any]) -> list[str]:
    """What was told, in words: where the job is, its loss, and the time left."""
    loss, left = told.get("loss"), told.get("seconds_left")
    return [
        told.get("at", ""),
        "" if loss is None else f"loss {loss:.3f}",
        "" if left is None else f"{clock(left)} left",
    ]


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
