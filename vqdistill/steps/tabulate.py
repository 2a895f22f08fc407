"""Gather the metric files of all runs into the tables, and test the statements on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vqdistill.config import expected_models, settings_of_steps
from vqdistill.files import read_arrays, read_csv, write_arrays, write_csv
from vqdistill.provenance.records import check_files, read_record
from vqdistill.reporting import claims
from vqdistill.reporting.dictionary import data_dictionary
from vqdistill.reporting.names import GATHERED, TABLES
from vqdistill.reporting.runs import check_settings, model_keys, model_sizes, timings
from vqdistill.reporting.tables import (
    check_complete,
    density_summary,
    gather,
    gather_pictures,
    in_order,
    inpainting_summary,
    largest_models,
)
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run


def tabulate(job: Job) -> None:
    """Write every table of an experiment, complete or not at all."""
    files = {name: job.paths(name) for name in (*GATHERED, "pictures", "records", "selections")}
    tables, pictures = made(files, job.settings)
    check_complete(tables["density"], pd.DataFrame(expected_models(job.settings)))
    write(job, tables, pictures)


def made(
    files: Mapping[str, Sequence[Path]], experiment: Experiment
) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """All tables, and the pictures that figures show, of the runs with these files.

    files: by table of each run, its 'records' and 'selections', and the 'pictures' of one seed.
    """
    records = {path: read_record(path) for path in files["records"]}
    selections = {path: read_record(path) for path in files["selections"]}
    histories = {
        path.with_name("history.csv"): record
        for path, record in records.items()
        if record["step"].startswith("train")
    }
    read = [path for name in (*GATHERED, "pictures") for path in files[name]]
    check_files([*read, *histories], [*records.values(), *selections.values()])
    check_settings(records | selections, settings_of_steps(experiment))
    tables = {name: gather({p: read_csv(p) for p in files[name]}, name) for name in GATHERED}
    if "dataset" not in tables["costs"]:
        tables["costs"].insert(1, "dataset", tables["density"]["dataset"].iloc[0])
    tables["classifier"] = classifier_accuracy(records)
    accuracy = tables["classifier"]["test_accuracy"].iloc[0]
    tables["density_summary"] = density_summary(tables["density"])
    tables["inpainting_summary"] = inpainting_summary(tables["inpainting"])
    tables["model_sizes"] = model_sizes(records)
    tables["timings"] = timings(records)
    losses_of_all = {path: losses(path, histories[path]) for path in histories}
    tables["history"] = gather(losses_of_all, "history")
    tables["claims"] = claims.judge(
        tables["density"], tables["inpainting"], tables["costs"], accuracy
    )
    tables["thresholds"] = claims.thresholds()
    tables["data_dictionary"] = data_dictionary()
    pictures = {path.parent.parent.name: read_arrays(path) for path in files["pictures"]}
    return tables, gather_pictures(pictures, shown_models(tables["density"]))


def write(job: Job, tables: dict[str, pd.DataFrame], pictures: dict[str, np.ndarray]) -> None:
    """Write tables, pictures and the record of them all."""
    for name in TABLES:
        write_csv(job["tables"] / f"{name}.csv", tables[name])
    write_arrays(job["tables"] / "pictures.npz", pictures)
    first = read_record(job.paths("records")[0])  # all are of the same data, or were refused
    job.write_record("cpu", **{name: first[name] for name in ("dataset", "data_checksum")})


def classifier_accuracy(records: dict[Path, dict]) -> pd.DataFrame:
    """The accuracy of the judge of completions on real test images."""
    record = next(r for r in records.values() if r["model"] == "classifier")
    keys = ("experiment", "dataset", "seed", "test_accuracy")
    return pd.DataFrame([{key: record[key] for key in keys}])


def losses(history: Path, record: dict) -> pd.DataFrame:
    """The losses of a training, epoch by epoch, with the keys of its model."""
    table, keys = read_csv(history), model_keys(record)
    columns = ["epoch", "train_loss", "validation_loss", "best"]
    return table.assign(**keys)[[*keys, *columns]]


def shown_models(density: pd.DataFrame) -> list[tuple[str, dict[str, str | int]]]:
    """(teacher or model, keys of the model) of what figures show: the largest of each method and
    grid, in the order of display."""
    names = ["method", "grid", "codebook_size", "size", "n_components"]
    largest = largest_models(density)[names].drop_duplicates()
    models = {(keys["method"], keys["grid"]): keys for keys in largest.to_dict("records")}
    rows = []
    for method, grid in in_order(largest):
        keys = models[method, grid]
        run = f"{grid}-K{keys['codebook_size']}"
        if grid == "-":
            run = f"{method}-{keys['size']}" if keys["size"] else method
        rows.append((run, keys))
    return rows


if __name__ == "__main__":
    gathered = " ".join(f"{name}+" for name in (*GATHERED, "records", "selections", "pictures"))
    run(tabulate, Experiment, reads=gathered, writes="tables record")
