"""Tables of runs that don't belong together are refused, with the files named."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny_experiment import Command, pick, refusal, run

from vqdistill.files import read_csv, write_csv, write_json
from vqdistill.provenance.records import file_digest, read_record, sealed

METRICS = "results/tiny/metrics/2x2-K4/seed-0"


def changed_record(path: Path, **changes) -> None:
    """A record as a run with other circumstances would have written it."""
    write_json(path, sealed(dict(read_record(path)) | changes))


def changed_table(path: Path, change) -> None:
    """A table as another run would have written it, with the record of that run."""
    before = file_digest(path)
    write_csv(path, change(read_csv(path)))
    for record in path.parents[3].rglob("record.json"):
        digests = read_record(record)["files"]
        if before in digests.values():
            new = {k: file_digest(path) if v == before else v for k, v in digests.items()}
            changed_record(record, files=new)


@pytest.mark.parametrize(
    ("record", "settings", "named"),
    [
        ("models/vqvae-2x2-K4", {"commitment": 5.0}, "commitment = 5.0, but the configuration"),
        ("models/prior-2x2-K4", {"layers": 9}, "layers = 9, but the configuration says 2"),
        ("models/cm", {"settings": {"points": 16}}, "settings = {'points': 16}"),
        ("models/classifier", {"colour": 3}, "colour = 3, but the configuration says -"),
        ("metrics/2x2-K4", {"n_components": [1, 2]}, "n_components = [1, 2]"),
        ("metrics/einet-2", {"inpainting": {}}, "inpainting = {}"),
        ("latents/2x2-K4", {"n_components": [4]}, "n_components = [4]"),
    ],
)
def test_results_of_other_settings(commands, folder, log, record, settings, named):
    path = f"results/tiny/{record}/seed-0/record.json"
    found = read_record(folder / path)["settings"]
    changed_record(folder / path, settings=found | settings)
    said = refusal(pick(commands, "tabulate"), folder, log)
    assert said.startswith(f"tabulate: {path}: made with ")
    assert named in said
    assert f"make it anew: add --force {path} " in said


@pytest.mark.parametrize("change", [{"data_checksum": "0"}, {"dataset": "mnist"}])
def test_results_of_other_data(commands, folder, log, change):
    path = "results/tiny/models/einet-2/seed-0/record.json"
    changed_record(folder / path, **change)
    said = refusal(pick(commands, "tabulate"), folder, log)
    assert said.count("record.json") == 2
    assert path in said
    assert next(iter(change.values())) in said


def test_results_of_a_model_that_is_not_in_the_experiment(commands, folder, log):
    path = "results/tiny/models/einet-2/seed-0/record.json"
    changed_record(folder / path, size=3)
    said = refusal(pick(commands, "tabulate"), folder, log)
    assert said == f"tabulate: {path}: einet-3 is no part of this experiment; leave it out"


@pytest.mark.parametrize("column", ["experiment", "dataset", "n_images"])
@pytest.mark.parametrize("table", ["density", "inpainting"])
def test_rows_of_another_experiment_or_of_other_images(commands, folder, log, table, column):
    path = f"{METRICS}/{table}.csv"
    changed_table(folder / path, lambda rows: rows.assign(**{column: 7}))
    said = refusal(pick(commands, "tabulate"), folder, log)
    assert path in said
    assert column in said


def test_rows_of_a_seed_twice(commands, folder, log):
    command = pick(commands, "tabulate")
    path = command.values("density")[0]
    first = command.index(path)
    copy = str(shutil.copy(folder / path, folder / "copy.csv"))
    twice = Command([*command[:first], copy, *command[first:]])
    assert "give each run once" in refusal(twice, folder, log)


def test_other_code_is_a_column_and_no_error(commands, folder, log):
    changed_table(folder / f"{METRICS}/density.csv", lambda rows: rows.assign(code_version="12e4"))
    run(pick(commands, "tabulate"), folder, log)
    density = pd.read_csv(folder / "results/tiny/tables/density.csv", dtype=str)
    assert "12e4" in set(density["code_version"])
    assert len(set(density["code_version"])) > 1


def test_the_tables_have_a_record_that_names_all_they_were_made_of(undisturbed):
    record = json.loads((undisturbed / "results/tiny/tables/record.json").read_text())
    made_of = {str(path) for path in record["files"]}
    assert f"{METRICS}/density.csv" in made_of
    assert "results/tiny/latents/2x2-K4/seed-0/record.json" in made_of
    assert "results/tiny/tables/claims.csv" in made_of
    assert record["settings"]["seeds"] == [0]
    assert record["libraries"]
