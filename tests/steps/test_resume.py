"""Trainings that are killed go on from their checkpoint, to the bit; bad settings leave nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vqdistill.data import prepare
from vqdistill.files import read_arrays, read_tensors, write_arrays

TRAINING = {"batch_size": 64, "max_epochs": 4, "patience": 4, "min_improvement": 0.001}
ADAM = {"learning_rate": 0.002, "weight_decay": 0.00001}
LATENTS = {"grid": "2x2", "codebook_size": 8}
CASES = {
    "vqvae": (
        "train_vqvae",
        LATENTS
        | ADAM
        | {"channels": [8, 8], "commitment": 10.0, "initialisation": "kmeans", "ema_decay": 0.9}
        | {"revive_dead_codes": True, "training": TRAINING},
    ),
    "prior": (
        "train_prior",
        LATENTS | ADAM | {"width": 8, "layers": 2, "head": 8, "training": TRAINING},
    ),
    "cm": (
        "train_baseline",
        {
            "method": "cm",
            "settings": {"latent_dimension": 2, "channels": [8, 8, 2], "points": 16, "chunk": 8},
            "training": TRAINING,
        },
    ),
    "einet": (
        "train_baseline",
        {
            "method": "einet",
            "settings": {"size": 2, "pixels_per_step": 4, "em_every": 5},
            "training": TRAINING,
        },
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with the prepared digits, and codes for all of them."""
    folder = tmp_path_factory.mktemp("inputs")
    arrays = prepare("digits", None, noise_seed=0, training_part=50)
    write_arrays(folder / "images.npz", arrays)
    rng = np.random.default_rng(0)
    shapes = {"train": (1197, 2, 2), "validation": (300, 2, 2)}
    codes = {split: rng.integers(8, size=shape) for split, shape in shapes.items()}
    write_arrays(folder / "codes.npz", codes)
    return folder


def start(case: str, folder: Path, inputs: Path, **extra) -> subprocess.Popen:
    """The step of a case as a process, which writes into `folder`."""
    step, settings = CASES[case]
    files = {
        "images": inputs / "images.npz",
        "checkpoint": folder / "checkpoint.safetensors",
        "weights": folder / "weights.safetensors",
        "history": folder / "history.csv",
        "record": folder / "record.json",
    }
    if case == "vqvae":
        files["codes"] = folder / "codes.npz"
    if case == "prior":
        files["codes"] = inputs / "codes.npz"
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    options += ["--settings", json.dumps(settings | extra), "--seed", "1", "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", f"vqdistill.steps.{step}", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen) -> str:
    """What a process that ends well has logged."""
    log = process.communicate(timeout=120)[1]
    assert process.returncode == 0, log
    return log


def kill_in_epoch(process: subprocess.Popen, epoch: int) -> None:
    """SIGKILL as soon as the log tells of `epoch`."""
    for line in process.stderr:
        if f"epoch {epoch}/" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_ends_as_if_undisturbed(case, inputs, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    first, second = start(case, undisturbed, inputs), start(case, killed, inputs)
    kill_in_epoch(second, 2)
    assert not (killed / "weights.safetensors").exists()
    again = start(case, killed, inputs)
    assert "going on from" not in finish(first)
    assert "going on from" in finish(again)

    expected, metadata = read_tensors(undisturbed / "weights.safetensors")
    found, same = read_tensors(killed / "weights.safetensors")
    assert same == metadata
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    histories = [
        pd.read_csv(folder / "history.csv", dtype=str).drop(columns="seconds")
        for folder in (undisturbed, killed)
    ]
    assert len(histories[0]) == TRAINING["max_epochs"]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    if case == "vqvae":
        codes = [read_arrays(folder / "codes.npz") for folder in (undisturbed, killed)]
        assert all(np.array_equal(codes[0][split], codes[1][split]) for split in codes[0])
    assert not (killed / "checkpoint.safetensors").exists()


def test_a_checkpoint_of_other_settings_is_not_used(inputs, tmp_path):
    kill_in_epoch(start("einet", tmp_path, inputs), 3)
    other = start("einet", tmp_path, inputs, training=TRAINING | {"max_epochs": 1})
    log = finish(other)
    assert "training starts anew" in log
    assert "going on from" not in log
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1


def test_a_wrong_key_ends_with_one_line_and_leaves_nothing(inputs, tmp_path):
    wrong = {case: {"colour": 3} for case in ("vqvae", "prior")}
    for case in ("cm", "einet"):
        wrong[case] = {"settings": CASES[case][1]["settings"] | {"colour": 3}}
    started = {case: start(case, tmp_path / case, inputs, **wrong[case]) for case in wrong}
    for case, process in started.items():
        said = process.communicate(timeout=120)[1]
        assert process.returncode not in (0, None), case
        assert len(said.splitlines()) == 1, said
        assert "colour" in said
        assert "expected" in said
        assert not (tmp_path / case).exists(), case
