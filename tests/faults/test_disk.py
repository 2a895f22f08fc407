"""A full disk, and folders and files without permission: one line, and nothing is lost."""

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_experiment import check_as_undisturbed, hidden, pick, refusal, run, without_outputs

from vqdistill import files

AS_ROOT = os.geteuid() == 0
NOBODY = 65534
SIZE = 2**16
WRITERS = {
    "json": (files.write_json, list(range(SIZE))),
    "csv": (files.write_csv, pd.DataFrame({"a": np.arange(SIZE)})),
    "rows": (files.write_rows, [{"a": n} for n in range(SIZE)]),
    "npz": (files.write_arrays, {"a": np.arange(SIZE)}),
    "safetensors": (files.write_tensors, {"a": torch.arange(SIZE)}, {}),
}


@pytest.fixture
def full_disk(tmp_path):
    """A folder with room for `SIZE` bytes; where no disk can be made, for files of that size."""
    folder, limits = tmp_path / "disk", resource.getrlimit(resource.RLIMIT_FSIZE)
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
    if AS_ROOT and subprocess.run(made, capture_output=True, check=False).returncode == 0:
        yield folder
        subprocess.run(["umount", folder], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, limits[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_keeps_the_earlier_file(full_disk, kind):
    write, *values = WRITERS[kind]
    path = full_disk / f"kept.{kind}"
    path.write_text("earlier")
    with pytest.raises(OSError, match="not written") as error:
        write(path, *values)
    assert path.read_text() == "earlier"
    assert list(full_disk.iterdir()) == [path]
    message = str(error.value)
    assert message.startswith(f"{path}: not written (")
    assert "\n" not in message
    assert "make room" in message


def little_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize(
    "name", ["prepare_data", "train_vqvae", "distil", "evaluate_teacher", "tabulate"]
)
def test_a_step_without_room_says_which_file_and_can_run_again(
    commands, undisturbed, folder, log, name
):
    command = pick(commands, name)
    without_outputs(command, folder)
    said = refusal(command, folder, log, little_room)
    assert said.startswith(f"{name}: results/tiny/")
    assert "not written (" in said
    assert "too large" in said
    assert not hidden(folder)
    run(command, folder, log)
    check_as_undisturbed(command, folder, undisturbed)


@pytest.fixture
def owned(undisturbed):
    """A copy of the run in which only its owner may write, which others can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(undisturbed, Path(name) / "run"))
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield folder
        subprocess.run(["chmod", "-R", "u+rwX", name], check=True)


def as_another():
    if AS_ROOT:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.mark.parametrize("name", ["train_vqvae", "distil", "tabulate"])
def test_no_permission_to_write(commands, undisturbed, owned, log, name):
    command = pick(commands, name)
    subprocess.run(["chmod", "-R", "a-w", owned], check=True)
    said = refusal(command, owned, log, as_another)
    assert said.startswith(f"{name}: results/tiny/")
    assert "not written (Permission denied)" in said
    assert "get permission" in said
    check_as_undisturbed(command, owned, undisturbed)


@pytest.mark.parametrize(
    ("name", "read"),
    [("train_vqvae", "images"), ("evaluate_teacher", "vqvae"), ("tabulate", "density")],
)
def test_no_permission_to_read(commands, owned, log, name, read):
    command = pick(commands, name)
    path = command.values(read)[0]
    (owned / path).chmod(0)
    said = refusal(command, owned, log, as_another)
    assert said == f"{name}: {path}: no permission to read it; get it from its owner"
