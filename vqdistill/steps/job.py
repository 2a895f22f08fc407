"""What all steps share: their command line, threads, device, randomness, and records."""

import argparse
import gc
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqdistill.errors import InputError, TrainingError
from vqdistill.files import Named
from vqdistill.provenance.records import Stopwatch, environment, file_digest, sealed

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A step's command line: files by name, settings, and what every step has."""

    step: str
    files: dict[str, Path]
    lists: dict[str, list[Path]]
    settings: dict[str, Any]
    experiment: str
    seed: int
    threads: int
    code_version: str
    stopwatch: Stopwatch

    def __getitem__(self, name: str) -> Path:
        return self.files[name]

    def key(self, *inputs: str) -> str:
        """A digest of all that a training depends on, to tell whose checkpoint a file is."""
        values = [self.step, self.settings, self.seed, self.code_version, *inputs]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def record(self, device: str, earlier_seconds: float = 0.0, **facts: Any) -> dict[str, Any]:
        """The JSON record that stands beside a result."""
        identity = {"experiment": self.experiment, "step": self.step, "seed": self.seed}
        identity |= {"settings": self.settings}
        made = {"code_version": self.code_version, **environment(device), "threads": self.threads}
        made |= {"options": self._options(), "files": self._digests()}
        return sealed(identity | facts | made | self.stopwatch.cost(earlier_seconds))

    def _options(self) -> dict[str, list[str]]:
        """The paths on the command line."""
        single = {name: [str(path)] for name, path in self.files.items()}
        return single | {name: [str(path) for path in paths] for name, paths in self.lists.items()}

    def _digests(self) -> dict[str, str]:
        """SHA-256 of all files that the step has read and written so far."""
        named = [path for name, path in self.files.items() if name not in ("record", "checkpoint")]
        paths = [*named, *(path for listed in self.lists.values() for path in listed)]
        paths += [path for folder in named if folder.is_dir() for path in sorted(folder.iterdir())]
        return {
            str(path): file_digest(path)
            for path in paths
            if path.is_file() and path != self.files.get("record")
        }


def run(
    step: Callable[[Job], None], files: str, lists: str = "", arguments: list[str] | None = None
) -> None:
    """Run a step from its command line.

    `files` and `lists` name its options, in words: each takes one path, or any number of them.
    What a user can mend ends the program with one line and status 1; so does SIGTERM, which
    schedulers send some time before they kill.
    """
    stopwatch = Stopwatch()
    gc.freeze()  # what was imported stays to the end
    gc.enable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=step.__doc__, prog=f"vqdistill.{step.__name__}")
    for name in files.split():
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    for name in lists.split():
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--settings", type=json_object, default="{}", metavar="JSON")
    parser.add_argument("--experiment", default="-")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive_int, default=1)
    parser.add_argument("--code-version", default="-")
    values = vars(parser.parse_args(arguments))
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    for name in ("vqdistill", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    job = Job(
        step=step.__name__,
        files={name: values.pop(name) for name in files.split()},
        lists={name: values.pop(name) for name in lists.split()},
        stopwatch=stopwatch,
        **values,
    )
    try:
        step(job)
        log.info("done in %(wall_seconds)s s, at most %(peak_memory_mb)s MB", stopwatch.cost())
        if arguments is None:
            end_at_once()
    except (InputError, TrainingError, OSError) as error:
        sys.exit(f"{job.step}: {error}")
    except KeyboardInterrupt:
        sys.exit(
            f"{job.step}: interrupted; nothing half-written is left, and the same command goes on"
            " from the last finished epoch"
        )


def end_at_once() -> None:
    """End the program, and leave it to the system to take apart what PyTorch's import has made."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def json_object(text: str) -> dict[str, Any]:
    values = json.loads(text, object_hook=lambda values: Named(values, "--settings"))
    if not isinstance(values, dict):
        raise ValueError
    return values


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def compute_device(threads: int) -> "torch.device":
    """The GPU if there is one, else the CPU with exactly `threads` threads."""
    import torch

    # Numbers below 1e-38 are zeros: some processors take tens of times as long for them. Before
    # there are other threads, which take it over.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")  # the error of a shorter type would show at
    torch.backends.cudnn.allow_tf32 = False  # standard deviations of 1e-3
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def initialised(seed: int, purpose: str, build: "Callable[[], nn.Module]") -> "nn.Module":
    """A new model whose weights are fixed by the seed, whatever was drawn before."""
    import torch

    from vqdistill.randomness import derived_seed

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, f"initialisation {purpose}"))
        return build()


def device_name(device: "torch.device") -> str:
    """The name of the processor that a device stands for."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
