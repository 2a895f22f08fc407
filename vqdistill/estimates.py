"""What an experiment will cost, from what jobs of finished ones were measured to cost.

A job takes as many times longer than a measured one as it has more work:

- a training: images of all epochs × parameters (of a CM: integration points of all batches);
- a selection: beginnings z_<i of latents that the prior is asked about × its parameters;
- an evaluation: images, once and under each mask × parameters of the circuits.

Of the measured jobs of its rule and family (a grid, or a method), that with the nearest work is
taken. Parameters are those of the networks themselves, built without memory for them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from vqdistill import config
from vqdistill.baselines import load_baseline, settings_of
from vqdistill.circuits.mixture import mixture_parameters
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.data import N_CLASSES
from vqdistill.distillation import EXACT_METHOD, load_method
from vqdistill.models.classifier import Classifier
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.reporting.names import MASKS
from vqdistill.reporting.runs import model_name
from vqdistill.settings import Experiment, grid_name, parsed

START_SECONDS = 3.0  # of Python and the libraries, which records leave out
COPIES = 6  # of weights in memory: they, gradient, two moments, the best epoch's, a checkpoint's
LAST_JOBS = 4  # tabulate, draw_charts, draw_pictures, all: they take seconds
KEYS = ["rule", "name", "device"]
MEASURED = [*KEYS, "experiment", "family", "jobs", "work", "held", "seconds", "memory_mb"]


def jobs(experiment: Experiment) -> pd.DataFrame:
    """All jobs but those of tables and figures, those of all seeds in one row.

    rule; name, as in timings.csv; family; number of jobs; of each its work, the epochs in which it
    is done, the numbers held in memory (parameters, or log p(z) of all latents), and disk_mb.
    """
    data, judge = config.images(experiment), experiment.classifier
    pixels = data.n_train + 4 * (2 * data.n_held_out + experiment.data.training_part)
    parameters = _parameters(lambda: Classifier(data.shape, N_CLASSES, judge))
    images = judge.training.max_epochs * data.n_train
    rows = [
        _job("prepare_data", "-", "-", 1, disk=pixels * math.prod(data.shape)),
        _job("train_classifier", "classifier", "-", images * parameters, parameters,
             judge.training.max_epochs),
    ]  # fmt: skip
    rows = [row | {"jobs": 1} for row in rows]
    for teacher in config.teachers(experiment):
        rows += _of_teacher(experiment, teacher)
    for model in config.baselines(experiment):
        rows += _of_baseline(experiment, model)
    return pd.DataFrame([{"jobs": len(experiment.seeds)} | row for row in rows])


def _job(
    rule: str, name: str, family: str, work: float, held: int = 0, epochs: int = 1, disk: float = 0
) -> dict[str, Any]:
    """disk: bytes that are kept, beside a megabyte of tables and records."""
    row = {"rule": rule, "name": name, "family": family, "work": float(work)}
    return row | {"epochs": epochs, "held": held, "disk_mb": 1 + disk / 1e6}


def _of_teacher(experiment: Experiment, teacher: str) -> Iterator[dict[str, Any]]:
    """The jobs of a teacher, such as '2x2-K16': four, and one for each circuit that learns from
    its samples."""
    data = config.images(experiment)
    methods = config.selection_settings(experiment, teacher).methods
    vqvae = config.vqvae_settings(experiment, teacher)
    prior = config.prior_settings(experiment, teacher)
    positions, family = math.prod(vqvae.grid), teacher.split("-")[0]
    networks = {"vqvae": (vqvae, _parameters(lambda: VQVAE(data.shape, vqvae)))}
    networks["prior"] = (prior, _parameters(lambda: PixelCNN(prior, N_CLASSES)))
    codes = {"vqvae": 8 * positions * (data.n_train + data.n_held_out), "prior": 0}
    for name, (settings, parameters) in networks.items():
        epochs, disk = settings.training.max_epochs, 4 * parameters + codes[name]
        work = epochs * data.n_train * parameters
        yield _job(f"train_{name}", f"{name}-{teacher}", family, work, parameters, epochs, disk)
    sizes, latents = experiment.n_components, 0
    if EXACT_METHOD in methods:
        latents, family = vqvae.codebook_size**positions, f"{family} {EXACT_METHOD}"
    selections = [load_method(method) for method in methods if method != EXACT_METHOD]
    selected = sum(max(sizes) if s.PREFIXES_ARE_MODELS else sum(sizes) for s in selections)
    asked = (positions * selected + latents // vqvae.codebook_size) * networks["prior"][1]
    disk = 8 * (selected * (positions + N_CLASSES) + latents)
    yield _job("distil", f"selection-{teacher}", family, asked, latents, disk=disk)
    circuits = mixture_parameters(selected + latents, math.prod(data.shape))
    models = 2 * (len(selections) * len(sizes) + (EXACT_METHOD in methods))  # two weights each
    for student in config.students_of(experiment, teacher):
        job = _of_student(experiment, student)
        circuits, models = circuits + job["held"], models + 1
        yield job
    work, disk = _queries(experiment) * circuits, _log_likelihoods(experiment, models)
    yield _job("evaluate_teacher", f"vqvae-{teacher}", family, work, latents, disk=disk)


def _of_baseline(experiment: Experiment, model: str) -> Iterator[dict[str, Any]]:
    """The two jobs of a baseline, such as 'einet-8'."""
    data, job = config.images(experiment), config.baseline_settings(experiment, model)
    method, size = config.baselines(experiment)[model]
    settings = parsed(settings_of(method), job.settings, model)
    parameters = _parameters(lambda: load_baseline(method).build(data.shape, settings))
    images = job.training.max_epochs * data.n_train
    points = getattr(settings, "points", None)  # a CM decodes them once a batch
    work = (images / job.training.batch_size * points if points else images) * parameters
    yield _job(
        "train_baseline", model, method, work, parameters, job.training.max_epochs, 4 * parameters
    )
    compiled = mixture_parameters(max(experiment.n_components), math.prod(data.shape))
    work = _queries(experiment) * (parameters if size else compiled)
    disk = _log_likelihoods(experiment, 1 if size else len(experiment.n_components))
    yield _job("evaluate_baseline", model, method, work, parameters, disk=disk)


def _of_student(experiment: Experiment, model: str) -> dict[str, Any]:
    """The training of a circuit on a teacher's samples."""
    own, shape = config.student_settings(experiment, model), config.images(experiment).shape
    levels = own.class_levels or 0
    parameters = _parameters(lambda: QuadTree(shape, own.size, N_CLASSES, levels))
    epochs = own.training.max_epochs
    work, disk = epochs * own.samples * parameters, 4 * parameters
    family = f"{own.method} {grid_name(own.grid)}"
    return _job("train_student", model, family, work, parameters, epochs, disk)


def _parameters(build: Callable[[], nn.Module]) -> int:
    """Numbers that a network consists of; it is built without memory for them."""
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in build().state_dict().values())


def _queries(experiment: Experiment) -> int:
    """Images whose likelihood an evaluation asks for: of each split, and under each mask."""
    return _evaluated(experiment) + len(MASKS) * config.images(experiment).n_held_out


def _evaluated(experiment: Experiment) -> int:
    """Images of all splits."""
    return 2 * config.images(experiment).n_held_out + experiment.data.training_part


def _log_likelihoods(experiment: Experiment, models: int) -> int:
    """Bytes of the log-likelihoods of so many models of every image."""
    return 8 * models * _evaluated(experiment)


def measured_jobs(experiment: Experiment, records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What the jobs of a finished experiment cost, by their records: one row for each rule, name
    and device, with the work of the epochs that were run."""
    runs = pd.DataFrame(
        {
            "rule": record["step"],
            "name": model_name(record) if "model" in record else "-",
            "device": record["device"],
            "run": record.get("epochs_run", 1),
            "seconds": record["wall_seconds"],
            "memory_mb": record["peak_memory_mb"],
        }
        for record in records
    )
    costs = {"jobs": ("run", "size"), "run": ("run", "mean"), "seconds": ("seconds", "mean")}
    table = runs.groupby(KEYS, as_index=False).agg(**costs, memory_mb=("memory_mb", "max"))
    table = table.merge(jobs(experiment).drop(columns="jobs"), on=["rule", "name"])
    table["work"] *= table["run"] / table["epochs"]
    table["experiment"] = experiment.experiment
    return table[MEASURED].round({"seconds": 1, "memory_mb": 0})


def estimates(experiment: Experiment, measured: pd.DataFrame) -> pd.DataFrame:
    """The jobs of an experiment, each with its hours on one core and on one GPU (missing where
    nothing of its kind was measured on one), its memory, and what this rests on."""
    rows, measured = [], measured.reset_index(drop=True)
    unknown = {"cpu_hours": np.nan, "gpu_hours": np.nan, "memory_mb": 0.0}
    unknown |= {"cpu_basis": "-", "gpu_basis": "-"}
    for job in jobs(experiment).to_dict("records"):
        row = job | unknown
        alike = measured[(measured["rule"] == job["rule"]) & (measured["family"] == job["family"])]
        if alike.empty:
            alike = measured[measured["rule"] == job["rule"]]
        for kind, of_kind in alike.groupby(np.where(alike["device"] == "cpu", "cpu", "gpu")):
            nearest = of_kind.loc[np.log(of_kind["work"] / job["work"]).abs().idxmin()]
            factor = job["work"] / nearest["work"]
            row[f"{kind}_hours"] = (START_SECONDS + nearest["seconds"] * factor) / 3600
            more = COPIES * 4 * max(job["held"] - nearest["held"], 0) / 1e6
            row["memory_mb"] = max(row["memory_mb"], nearest["memory_mb"] + more)
            row[f"{kind}_basis"] = f"{nearest['experiment']} {nearest['name']} x{factor:.3g}"
        rows.append(row)
    return pd.DataFrame(rows)


def by_rule(jobs: pd.DataFrame) -> pd.DataFrame:
    """The plan: one row a rule, and their sum, with the jobs of tables and figures."""
    rows = []
    groups = [(rule, jobs[jobs["rule"] == rule]) for rule in jobs["rule"].unique()]
    for rule, group in [*groups, ("total", jobs)]:
        row = {"rule": rule, "jobs": int(group["jobs"].sum())}
        for kind in ("cpu", "gpu"):
            hours = group[f"{kind}_hours"]
            row[f"{kind}_hours"] = (hours * group["jobs"]).sum(min_count=1)
            row[f"longest_{kind}_hours"] = hours.max()
        row["memory_gb"] = group["memory_mb"].max() / 1000
        row["disk_gb"] = (group["disk_mb"] * group["jobs"]).sum() / 1000
        rows.append(row)
    last = dict.fromkeys(rows[-1], np.nan) | {"rule": "tables, figures", "jobs": LAST_JOBS}
    rows[-1]["jobs"] += LAST_JOBS
    return pd.DataFrame([*rows[:-1], last, rows[-1]])


def wall_hours(jobs: pd.DataFrame, cores: int) -> float:
    """Hours from images to evaluations on so many cores, if all of them are always at work; at
    least those of the longest chain of jobs that wait for each other. NaN if unknown.
    """
    first = jobs.loc[jobs["rule"] == "prepare_data", "cpu_hours"].sum()
    longest = first + jobs.groupby(_chains(jobs))["cpu_hours"].sum().max()
    total = (jobs["cpu_hours"] * jobs["jobs"]).sum(skipna=False)
    return np.nan if np.isnan(total) else max(total / cores, longest)


def parts(experiment: Experiment, jobs: pd.DataFrame) -> pd.DataFrame:
    """The experiment in parts for several machines, in the order in which they are best run.

    A part is all jobs of a teacher or of another model, and one seed: a chain, since they wait for
    each other. Whole seeds come first, and of a seed the longest part. Columns: seed; model; jobs;
    gpu_minutes and cpu_minutes, missing where no job of a kind was measured; target, the file that
    is asked for.
    """
    of_seeds = jobs[~jobs["rule"].isin(["prepare_data", "train_classifier"])]
    hours = of_seeds.groupby(_chains(of_seeds))[["gpu_hours", "cpu_hours"]]
    minutes = (
        (60 * hours.sum(min_count=1)).round(1).set_axis(["gpu_minutes", "cpu_minutes"], axis=1)
    )
    minutes = minutes.assign(jobs=hours.size()).sort_values([*minutes], ascending=False)
    minutes = minutes.rename_axis("model").reset_index()
    table = pd.concat([minutes.assign(seed=seed) for seed in experiment.seeds], ignore_index=True)
    folder = f"results/{experiment.experiment}/metrics/"
    table["target"] = (
        folder + table["model"] + "/seed-" + table["seed"].astype(str) + "/density.csv"
    )
    return table[["seed", "model", "jobs", "gpu_minutes", "cpu_minutes", "target"]]


def _chains(jobs: pd.DataFrame) -> pd.Series:
    """The teacher of each job, such as '2x2-K16', or else its model."""
    return jobs["name"].str.replace(r"^\w+-(\d+x\d+-K\d+).*", r"\1", regex=True)


def duration(hours: float) -> str:
    """Hours as people say them; '-' where they are unknown."""
    if np.isnan(hours):
        return "-"
    minutes = round(hours * 60)
    if hours * 60 < 1:
        return f"{hours * 3600:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{hours:.0f} h"
