"""Truncated files and flipped bits: each is told in one line that names the file."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_experiment import check_as_undisturbed, pick, refusal, run, start, without_outputs

from vqdistill import data, files
from vqdistill.errors import InputError
from vqdistill.provenance import records as provenance


def truncated(path: Path) -> None:
    """Cut at the end of a line, so that what is left can be read."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2 + 1]))


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    """The last bit of a byte in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flipped_digit(path: Path) -> None:
    """The last bit of the last digit: what is left is a plausible number."""
    content = bytearray(path.read_bytes())
    content[max(match.start() for match in re.finditer(rb"\d", content))] ^= 1
    path.write_bytes(content)


# every bit of a small file


TENSORS = {"a": torch.arange(3.0), "b/c": torch.ones(2, 2, dtype=torch.float64)}
KINDS: dict[str, tuple[Callable, Callable]] = {
    "npz": (
        lambda path: files.write_arrays(path, {"a": np.arange(3), "b": np.array("text")}),
        lambda path: {name: (a.dtype, a.tolist()) for name, a in files.read_arrays(path).items()},
    ),
    "safetensors": (
        lambda path: files.write_tensors(path, TENSORS, {"seed": 3}),
        lambda path: [
            files.read_tensors(path)[1],
            {name: (t.dtype, t.tolist()) for name, t in files.read_tensors(path)[0].items()},
        ],
    ),
    "json": (
        lambda path: files.write_json(path, provenance.sealed({"accuracy": 0.5, "settings": {}})),
        provenance.read_record,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_of_a_small_file_changes_what_is_read(tmp_path, kind):
    """Each is refused; or it is where nothing is read from, such as the dates of a zip file."""
    write, read = KINDS[kind]
    path = tmp_path / f"a.{kind}"
    write(path)
    expected, content, refused = read(path), path.read_bytes(), 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            assert found == expected, bit
    assert refused > 4 * len(content)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_of_a_small_file_is_refused(tmp_path, kind):
    write, read = KINDS[kind]
    path = tmp_path / f"a.{kind}"
    write(path)
    content = path.read_bytes()
    for length in range(len(content) - (kind == "json")):  # whose last line break is no loss
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            read(path)


# files of a run


@pytest.mark.parametrize("damage", [half, flipped])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("train_vqvae", "images"),
        ("train_prior", "codes"),
        ("distil", "prior"),
        ("evaluate_teacher", "latents"),
        ("evaluate_teacher", "vqvae"),
        ("evaluate_baseline", "weights"),
        ("tabulate", "pictures"),
    ],
)
def test_damaged_data_and_weights(commands, folder, log, name, read, damage):
    command = pick(commands, name)
    path = command.values(read)[0]
    damage(folder / path)
    without_outputs(command, folder)
    said = refusal(command, folder, log)
    assert said.startswith(f"{name}: {path}: ")
    assert f"make it anew: add --force {path} to your command" in said


@pytest.mark.parametrize("damage", [truncated, flipped_digit])
@pytest.mark.parametrize(
    "read",
    ["density", "inpainting", "costs", "teacher", "bounds", "gain_blocks", "codebook", "history"],
)
def test_damaged_csv_files_get_into_no_table(commands, folder, log, read, damage):
    command = pick(commands, "tabulate")
    path = f"results/tiny/metrics/2x2-K4/seed-0/{read}.csv"
    if read == "history":
        path = "results/tiny/models/cm/seed-0/history.csv"
    damage(folder / path)
    without_outputs(command, folder)
    said = refusal(command, folder, log)
    assert said.startswith(f"tabulate: {path}: damaged, changed or not there")
    assert f"make it anew: add --force {path} to your command" in said
    assert not list((folder / "results/tiny/tables").iterdir())


@pytest.mark.parametrize("damage", [half, flipped_digit])
def test_a_damaged_record_gets_into_no_table(commands, folder, log, damage):
    path = "results/tiny/models/classifier/seed-0/record.json"
    damage(folder / path)
    said = refusal(pick(commands, "tabulate"), folder, log)
    assert said.startswith(f"tabulate: {path}: ")
    assert f"make it anew: add --force {path} to your command" in said


@pytest.mark.parametrize(
    ("step", "name", "damage"),
    [
        ("draw_charts", "density.csv", truncated),
        ("draw_charts", "density.csv", flipped_digit),
        ("draw_pictures", "pictures.npz", half),
        ("draw_pictures", "pictures.npz", flipped),
    ],
)
def test_a_damaged_table_gets_into_no_figure(commands, folder, log, step, name, damage):
    path = f"results/tiny/tables/{name}"
    damage(folder / path)
    said = refusal(pick(commands, step), folder, log)
    assert said.startswith(f"{step}: {path}: ")
    assert not (folder / "results/tiny/figures").exists()


@pytest.mark.parametrize("damage", [half, flipped])
def test_a_damaged_checkpoint_is_not_gone_on_from(commands, undisturbed, folder, log, damage):
    from test_kills import AtBatch

    command = pick(commands, "train_vqvae")
    without_outputs(command, folder)
    start(command, folder, log, AtBatch(9)).join()
    checkpoint = command.values("checkpoint")[0]
    damage(folder / checkpoint)
    said = run(command, folder, log)
    assert f"{checkpoint}: not readable" in said
    assert "training starts anew" in said
    check_as_undisturbed(command, folder, undisturbed)


@pytest.mark.parametrize("damage", [half, flipped])
@pytest.mark.parametrize("name", data.MNIST_SHA256)
def test_a_damaged_file_of_mnist(tmp_path, monkeypatch, name, damage):
    import hashlib

    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for number, published in enumerate(data.MNIST_SHA256):
        (raw / published).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 90, *range(90), number]))
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in raw.iterdir()}
    monkeypatch.setattr(data, "MNIST_SHA256", sums)
    damage(raw / name)
    with pytest.raises(InputError) as error:
        data.prepare_dataset("mnist", str(tmp_path), 0, 10)
    assert str(error.value).startswith(f"{raw / name}: damaged, its checksum is not that of mnist")
    assert "delete it" in str(error.value)
    assert "\n" not in str(error.value)


def test_records_hold_the_digests_of_all_files(undisturbed):
    """Or the tests above could pass with records that know too little."""
    path = undisturbed / "results/tiny/metrics/2x2-K4/seed-0/record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert len(record["files"]) == 18
    for path, digest in record["files"].items():
        assert provenance.file_digest(undisturbed / path) == digest
