"""Bad command lines of steps and of the workflow: one line, before anything is trained."""

import re
import subprocess

import pytest
from helpers import environment
from tiny_experiment import Command, files_of, pick, refusal, snakemake, start

BAD = {  # a step, what is changed of its command, and what is said of it
    "no settings": ("train_vqvae", {"settings": "{}"}, "channels: (32, 64, 128, 256) given"),
    "settings without one": (
        "distil", {"settings": '{"grid": "2x2"}'}, "--settings: codebook_size: missing",
    ),
    "a setting that is not known": (
        "train_prior", {"settings": '{"widht": 3}'}, "--settings: widht: unknown key; did you mean",
    ),
    "a setting of a baseline that is not known": (
        "train_baseline",
        {"settings": '{"method": "cm", "settings": {"colour": 3}, "training": {"batch_size": 1, '
         '"max_epochs": 1, "patience": 1, "min_improvement": 0}}'},
        "colour: unknown key",
    ),
    "a file that is not there": ("train_vqvae", {"images": "no.npz"}, "no.npz: no such file"),
    "codes for images": (
        "train_vqvae", {"images": "results/tiny/models/vqvae-2x2-K4/seed-0/codes.npz"},
        "codes.npz: no 'test_x', only train, validation",
    ),
    "images for codes": (
        "train_prior", {"codes": "results/tiny/data/images.npz"}, "images.npz: no 'train', only",
    ),
    "the weights of another model": (
        "distil", {"prior": "results/tiny/models/cm/seed-0/weights.safetensors"}, "cm/seed-0",
    ),
    "a folder for a file": ("train_vqvae", {"images": "results"}, "results: not readable as npz"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_command_line_of_a_step(commands, folder, log, what):
    name, changes, named = BAD[what]
    command = pick(commands, name)
    before = {path: path.read_bytes() for path in files_of(folder, command.outputs())}
    said = refusal(command.changed(**changes), folder, log)
    assert said.startswith(f"{name}: ")
    assert named in said
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["--threads", "0"], "argument --threads: invalid positive_int value: '0'"),
        (["--settings", "{"], "argument --settings: invalid json_object value: '{'"),
        (["--settings", "3"], "argument --settings: invalid json_object value: '3'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_a_bad_option_of_a_step(commands, tmp_path, log, options, named):
    command = Command([*pick(commands, "train_vqvae"), *options])
    process = start(command, tmp_path, log)
    process.join()
    assert process.exitcode == 2
    assert log.read_text().splitlines()[-1].endswith(named)


def test_an_option_that_is_missing(commands, tmp_path, log):
    process = start(Command(pick(commands, "train_vqvae")[:3]), tmp_path, log)
    process.join()
    assert process.exitcode == 2
    assert "required: --images, --weights" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("seeds=[0,0]", "config: seeds: found [0, 0], expected each value once"),
        (
            "baselines={einet: {sizes: [2], settings: {pixels_per_step: 3}}}",
            "config: baselines.einet.settings.pixels_per_step: found 3",
        ),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_bad_configuration_ends_the_workflow(tmp_path, settings, named, dry):
    words = snakemake(tmp_path, "results/tiny/data/images.npz", *dry)
    done = subprocess.run(
        [*words, "--config", settings], env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("config: ")]
    assert len(lines) == 1, done.stderr
    assert named in lines[0]
    assert not re.search("Traceback|Error", done.stderr)
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / ".snakemake/locks").glob("*"))
