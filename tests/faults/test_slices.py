"""Runs of two machines, put together on a third; archives that don't fit are refused whole."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from helpers import environment
from test_damage import flipped_digit
from test_mixing import changed_record
from tiny_experiment import Command, contents, hidden, pick, refusal, run, snakemake

from vqdistill.files import read_csv
from vqdistill.provenance import slices
from vqdistill.provenance.records import file_digest, read_record

RESULTS = Path("results/tiny")
ARCHIVE = RESULTS / "slices/one.zip"
FOR_ALL = ("classifier",)


def command(step: str, settings: dict | str, **options) -> Command:
    words = ["python", "-m", f"vqdistill.steps.{step}", "--experiment", "tiny"]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    settings = settings if isinstance(settings, str) else json.dumps(settings)
    return Command([*words, "--settings", settings])


def packed(folder: Path, log: Path, everything: bool = False) -> Path:
    options = {"results": RESULTS, "archive": RESULTS / "slice.zip"}
    run(command("pack", {"everything": everything}, **options), folder, log)
    return folder / RESULTS / "slice.zip"


def merging(commands: list[Command]) -> Command:
    settings = pick(commands, "tabulate").values("settings")[0]
    options = {"results": RESULTS, "data": RESULTS / "data/record.json", "archives": ARCHIVE}
    return command("merge", settings, **options)


def part(undisturbed: Path, folder: Path, models: set[str]) -> Path:
    """A copy of the run in which nothing but these models, and what all need, was run."""
    for path in sorted((undisturbed / RESULTS).glob("*/*/*/record.json")):
        name = path.parents[1].name
        if name in FOR_ALL or any(name.endswith(model) for model in models):
            place = folder / path.parent.relative_to(undisturbed)
            shutil.copytree(path.parent, place)
    shutil.copytree(undisturbed / RESULTS / "data", folder / RESULTS / "data")
    return folder


@pytest.fixture
def machine(undisturbed, tmp_path) -> Path:
    """One that has nothing but the images yet."""
    folder = tmp_path / "third"
    shutil.copytree(undisturbed / RESULTS / "data", folder / RESULTS / "data")
    (folder / ARCHIVE).parent.mkdir()
    return folder


def test_two_slices_give_the_tables_of_a_run_in_one_place(
    commands, undisturbed, machine, tmp_path, log
):
    models = {
        path.parents[1].name for path in (undisturbed / RESULTS).glob("metrics/*/*/record.json")
    }
    halves = {"2x2-K4", "2x2-K4-2", "cm"}, models - {"2x2-K4", "cm"}
    for number, half in enumerate(halves):
        folder = part(undisturbed, tmp_path / str(number), half)
        shutil.copy(packed(folder, log), machine / ARCHIVE)
        run(merging(commands), machine, log)
    tabulate = pick(commands, "tabulate")
    run(tabulate, machine, log)
    found, expected = (contents(where, tabulate.outputs()) for where in (machine, undisturbed))
    assert found == expected
    assert not hidden(machine)


def test_snakemake_takes_what_was_merged_as_it_is(commands, undisturbed, machine, tmp_path, log):
    """It trains nothing anew, and goes on with what is missing."""
    names = {
        path.parents[1].name for path in (undisturbed / RESULTS).glob("metrics/*/*/record.json")
    }
    folder = part(undisturbed, tmp_path / "first", {*names, "2x2-K4-2"} - {"gmm-3"})
    shutil.copy(packed(folder, log), machine / ARCHIVE)
    run(merging(commands), machine, log)
    words = snakemake(machine, "tables", "--dry-run")
    said = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    jobs = {line.split()[0] for line in said.stdout.splitlines() if line.startswith("rule ")}
    rules = {
        line.split()[1].rstrip(":") for line in said.stdout.splitlines() if "rule " in line[:12]
    }
    assert jobs
    assert rules <= {"train_baseline", "evaluate_baseline", "tabulate", "tables"}
    assert "gmm-3" in said.stdout
    assert "einet-2" not in said.stdout.split("rule tabulate")[0]


def test_large_files_come_when_they_are_asked_for(commands, folder, machine, log):
    """First without, then with them: they are filled in, as old as the run that made them."""
    weights = "models/cm/seed-0/weights.safetensors"
    size = (folder / RESULTS / weights).stat().st_size
    runs, left = slices.pack(folder / RESULTS, machine / ARCHIVE, size - 1)
    assert runs == len([*(folder / RESULTS).glob("*/*/seed-0/record.json")])
    assert left >= 1
    run(merging(commands), machine, log)
    assert not (machine / RESULTS / weights).exists()
    shutil.copy(packed(folder, log, everything=True), machine / ARCHIVE)
    assert "0 runs are new" in run(merging(commands), machine, log)
    record = machine / RESULTS / "models/cm/seed-0/record.json"
    assert (machine / RESULTS / weights).stat().st_mtime == record.stat().st_mtime
    assert file_digest(machine / RESULTS / weights) == file_digest(folder / RESULTS / weights)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def rewritten(path: Path, change) -> None:
    """The archive with a change made to the files that it holds."""
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    change(folder)
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                file.write(one, one.relative_to(folder))


def of_other_settings(path: Path) -> None:
    def change(folder):
        record = folder / "models/cm/seed-0/record.json"
        settings = read_record(record)["settings"] | {"settings": {"points": 16}}
        changed_record(record, settings=settings)

    rewritten(path, change)


def of_other_images(path: Path) -> None:
    record = Path("models/einet-2/seed-0/record.json")
    rewritten(path, lambda folder: changed_record(folder / record, data_checksum="0"))


def of_another_experiment(path: Path) -> None:
    record = Path("models/einet-2/seed-0/record.json")
    rewritten(path, lambda folder: changed_record(folder / record, experiment="other"))


def with_a_changed_table(path: Path) -> None:
    rewritten(path, lambda folder: flipped_digit(folder / "metrics/cm/seed-0/density.csv"))


def with_a_stray_file(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../../outside.txt", "here")


def with_no_run(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "not readable as an archive of runs"),
        (flipped, ""),
        (of_other_settings, "made with settings = {'points': 16}"),
        (of_other_images, "made from images with the checksum 0"),
        (of_another_experiment, "of the experiment 'other', expected 'tiny'"),
        (with_a_changed_table, "damaged, changed or not there"),
        (with_a_stray_file, "../../outside.txt: no file of a run"),
        (with_no_run, "holds no run"),
    ],
)
def test_an_archive_that_does_not_fit_changes_nothing(commands, folder, machine, log, damage, said):
    shutil.copy(packed(folder, log), machine / ARCHIVE)
    damage(machine / ARCHIVE)
    before = sorted(machine.rglob("*"))
    line = refusal(merging(commands), machine, log)
    assert line.startswith(f"merge: {ARCHIVE}: ")
    assert said in line
    assert sorted(machine.rglob("*")) == before
    assert not (machine.parent / "outside.txt").exists()


def test_another_result_of_the_same_run_is_refused(commands, folder, machine, log):
    """As two machines give it whose processors add in another order."""
    shutil.copy(packed(folder, log), machine / ARCHIVE)
    run(merging(commands), machine, log)
    here = machine / RESULTS / "models/einet-2/seed-0"
    files = read_record(here / "record.json")["files"]
    weights = str(RESULTS / "models/einet-2/seed-0/weights.safetensors")
    changed_record(here / "record.json", files=files | {weights: "0" * 64})
    line = refusal(merging(commands), machine, log)
    assert "models/einet-2/seed-0/weights.safetensors is another one than" in line
    shutil.rmtree(machine / RESULTS / "metrics/einet-2")  # what was evaluated was another one
    shutil.copytree(folder / RESULTS / "metrics", folder / "kept")
    for name in ("models", "latents", "metrics"):
        shutil.rmtree(folder / RESULTS / name)
    shutil.copytree(folder / "kept/einet-2", folder / RESULTS / "metrics/einet-2")
    shutil.copy(packed(folder, log), machine / ARCHIVE)
    line = refusal(merging(commands), machine, log)
    assert line.startswith(f"merge: {ARCHIVE}: metrics/einet-2/seed-0/record.json: ")
    assert "models/einet-2/seed-0/weights.safetensors is another one than" in line


def test_what_is_finished_is_shown_and_the_rest_is_named(commands, folder, log):
    for name in ("einet-2", "2x2-K4"):
        shutil.rmtree(folder / RESULTS / "metrics" / name)
    settings = pick(commands, "tabulate").values("settings")[0]
    shown = RESULTS / "so_far"
    options = {"results": RESULTS, "captions": Path(__file__).parents[2] / "workflow/report"}
    options |= {"tables": shown / "tables", "figures": shown / "figures"}
    options |= {"page": shown / "figures.md", "record": shown / "tables/record.json"}
    said = run(command("so_far", settings, **options), folder, log)
    assert "missing: 2x2-K4 seed 0, einet-2 seed 0" in said
    methods = set(read_csv(folder / shown / "tables/density.csv")["method"])
    assert "einet" not in methods
    assert "cm" in methods
    drawn = {path.stem for path in (folder / shown / "figures").glob("*.png")}
    assert {"figure1", "figure2", "figure3", "samples"} <= drawn
    assert "costs" not in drawn
    page = (folder / shown / "figures.md").read_text(encoding="utf-8")
    assert "![figure1]" in page
    assert "![costs]" not in page
    claims = pd.read_csv(folder / shown / "tables/claims.csv")
    assert set(claims["verdict"]) == {"undecided"}
    assert file_digest(folder / shown / "tables/density.csv")
