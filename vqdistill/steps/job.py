"""What all steps share: their command line, threads, device, randomness, and what they write."""

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

from vqdistill import progress
from vqdistill.errors import InputError, TrainingError
from vqdistill.files import write_arrays, write_json, write_rows, write_tensors
from vqdistill.provenance.records import Stopwatch, commit, environment, file_digest, sealed
from vqdistill.settings import Settings, parsed, plain

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vqdistill.data import Images, OfImages
    from vqdistill.evaluation.evaluate import Evaluation
    from vqdistill.training.loop import Fitted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A step's command line: the files that it reads and writes by name, its settings, and what
    every step has."""

    step: str
    reads: dict[str, list[Path]]
    writes: dict[str, list[Path]]
    settings: Any
    experiment: str
    seed: int
    threads: int
    code_version: str
    stopwatch: Stopwatch

    def __getitem__(self, name: str) -> Path:
        return self.paths(name)[0]

    def paths(self, name: str) -> list[Path]:
        """The files of an option that takes any number."""
        return (self.reads | self.writes)[name]

    def key(self, *inputs: str) -> str:
        """A digest of all that a training depends on, to tell whose checkpoint a file is."""
        values = [self.step, plain(self.settings), self.seed, self.code_version, *inputs]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def write_record(self, device: "torch.device | str", at_least: float = 0.0, **facts) -> None:
        """Write the record that stands beside a result: what made it, from what, at what cost."""
        record = {"experiment": self.experiment, "step": self.step, "seed": self.seed}
        record |= {"settings": plain(self.settings), **facts, "code_version": self.code_version}
        record |= commit()
        record |= {**environment(device_name(device)), "threads": self.threads}
        record |= {"reads": _texts(self.reads), "writes": _texts(self.writes)}
        record |= {"files": self._digests(), **self.stopwatch.cost(at_least)}
        write_json(self["record"], sealed(record))

    def write_model(self, fitted: "Fitted", images: "Images | OfImages", device, **facts) -> None:
        """Write weights, history and record of a trained model, then drop its checkpoint."""
        settings = plain(self.settings)
        metadata = {"settings": settings, "image_shape": list(images.shape), "seed": self.seed}
        of_data = {"dataset": images.dataset, "data_checksum": images.checksum}
        metadata |= {"levels": images.levels, **of_data}
        write_tensors(self["weights"], fitted.weights, metadata)
        history = [row | {"best": int(row["epoch"] == fitted.best_epoch)} for row in fitted.history]
        write_rows(self["history"], history)
        facts |= {**of_data, "epochs_run": len(fitted.history), "best_epoch": fitted.best_epoch}
        facts |= {"best_validation": fitted.best_validation, "stopped_by": fitted.stopped_by}
        self.write_record(device, sum(row["seconds"] for row in fitted.history), **facts)
        self["checkpoint"].unlink(missing_ok=True)

    def write_evaluation(self, found: "Evaluation", images: "Images", device, **facts) -> None:
        """Write the tables, log-likelihoods, pictures and the record of an evaluation."""
        keys = {"experiment": self.experiment, "dataset": images.dataset, "seed": self.seed}
        made = {"code_version": self.code_version}
        write_rows(self["density"], [keys | row | made for row in found.density])
        write_rows(self["inpainting"], [keys | row | made for row in found.inpainting])
        write_arrays(self["log_likelihoods"], found.log_likelihoods)
        write_arrays(self["pictures"], found.pictures)
        facts |= {"dataset": images.dataset, "data_checksum": images.checksum}
        self.write_record(device, **facts)

    def _digests(self) -> dict[str, str]:
        """SHA-256 of all files that the step has read and written so far."""
        files = self.reads | self.writes
        named = [path for name in files.keys() - {"record", "checkpoint"} for path in files[name]]
        inside = [path for folder in named if folder.is_dir() for path in folder.iterdir()]
        found = {path for path in (*named, *inside) if path.is_file()}
        return {str(path): file_digest(path) for path in sorted(found - {*files["record"]})}


def run(
    step: Callable[[Job], None],
    settings: type[Settings] = Settings,
    *,
    reads: str = "",
    writes: str = "",
) -> None:
    """Run a step from its command line, and end the program.

    `reads` and `writes` name its options, in words: each takes a path, one or more where a + ends
    the word, any number where a * does. What a user can mend ends the program with one line and
    status 1; so does SIGTERM, which schedulers send some time before they kill.
    """
    stopwatch = Stopwatch()
    gc.freeze()  # what was imported stays to the end
    gc.enable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    values = vars(_parser(step, f"{reads} {writes}").parse_args())
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    for name in ("vqdistill", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    files = [{word.rstrip("+*"): values.pop(word.rstrip("+*")) for word in words.split()}
             for words in (reads, writes)]  # fmt: skip
    try:
        values["settings"] = parsed(settings, values["settings"], "--settings")
        job = Job(step.__name__, *files, stopwatch=stopwatch, **values)
        beside = job["record"].with_name(progress.FILE) if "record" in job.writes else None
        with progress.telling(beside):
            step(job)
        log.info("done in %(wall_seconds)s s, at most %(peak_memory_mb)s MB", stopwatch.cost())
        end_at_once()
    except (InputError, TrainingError, OSError) as error:
        sys.exit(f"{step.__name__}: {error}")
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "allocate memory")  # of PyTorch
        if not (isinstance(error, MemoryError) or any(word in str(error) for word in words)):
            raise
        reason = str(error).partition("\n")[0]
        sys.exit(
            f"{step.__name__}: out of memory ({reason}); lower its sizes or its batch_size, or run"
            " it where there is more"
        )
    except KeyboardInterrupt:
        sys.exit(
            f"{step.__name__}: interrupted; nothing half-written is left, and the same command goes"
            " on from the last finished epoch"
        )


def _parser(step: Callable[[Job], None], names: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=step.__doc__, prog=f"vqdistill.{step.__name__}", fromfile_prefix_chars="@"
    )
    for name in names.split():
        number = name[-1] if name[-1] in "+*" else 1
        rest = {"default": []} if number == "*" else {"required": True}
        option = f"--{name.rstrip('+*')}"
        parser.add_argument(option, type=Path, nargs=number, metavar="FILE", **rest)
    parser.add_argument("--settings", type=json_object, default="{}", metavar="JSON")
    parser.add_argument("--experiment", default="-")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive_int, default=1)
    parser.add_argument("--code-version", default="-")
    return parser


def end_at_once() -> None:
    """End the program, and leave it to the system to take apart what PyTorch's import has made."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def json_object(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError
    return values


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _texts(files: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {name: [str(path) for path in paths] for name, paths in files.items()}


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


def device_name(device: "torch.device | str") -> str:
    """The name of the processor that a device stands for."""
    if str(device) == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(device)
