"""What an experiment will cost, from the costs that were measured of others.

The work of a job is the number of multiplications that its networks and mixtures take, counted
roughly, from the configuration alone. Time grows with it: a job is compared with the measured job
of its kind that is most like it, and takes as many times longer as it has more work.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from vqdistill.config import baselines, teachers
from vqdistill.datasets import DATASETS, Dataset
from vqdistill.distillation import EXACT_METHOD

START_SECONDS = 5.0  # at most, of Python and the libraries, in every job
PASSES = 3  # forwards and backwards, in forwards
MASKS = 5
GRID_PRODUCTS = {4: 9, 16: 36}  # of a 3×3 convolution, for 2×2 and 4×4 positions, in training
COPIES = 6  # of weights in memory: they, gradient, two moments, the best epoch's, a checkpoint's
KEYS = ["rule", "name", "device"]
MEASURED = [*KEYS, "experiment", "family", "jobs", "work", "parameters", "seconds", "memory_mb"]


def jobs(config: dict[str, Any]) -> pd.DataFrame:
    """All jobs but those of tables and figures: rule, name, family, number, work, parameters and
    size on disk of each. A family is what can be compared: a grid or a method."""
    n_seeds = len(config["seeds"])
    shared = {"prepare_data": 1.0, "train_classifier": _classifier(config)}
    rows = [
        {"rule": rule, "name": "-", "family": "-", "jobs": 1, "work": work, "parameters": 0}
        for rule, work in shared.items()
    ]
    for source, methods in teachers(config).items():
        family = f"{source.partition('-')[0]}{' exm' if EXACT_METHOD in methods else ''}"
        for rule, count in (
            ("train_vqvae", _vqvae),
            ("train_prior", _prior),
            ("distil", _selection),
            ("evaluate_teacher", _evaluation),
        ):
            work, parameters = count(config, source)
            kind = family.split()[0] if rule.startswith("train") else family
            rows.append({"rule": rule, "name": source, "family": kind, "jobs": n_seeds})
            rows[-1] |= {"work": work, "parameters": parameters}
    for model, (method, size) in baselines(config).items():
        work, parameters, components = _baseline(config, method, size)
        row = {"name": model, "family": method, "jobs": n_seeds, "parameters": parameters}
        rows.append(row | {"rule": "train_baseline", "work": work})
        queries = _queries(config) * components
        rows.append(row | {"rule": "evaluate_baseline", "work": queries})
    table = pd.DataFrame(rows)
    table["disk_mb"] = [_disk_mb(config, row) for row in table.to_dict("records")]
    return table


def estimates(config: dict[str, Any], measured: pd.DataFrame) -> pd.DataFrame:
    """The jobs of an experiment, each with its hours on one core and on one GPU (NaN where nothing
    of its kind was measured on one), its memory, and what this rests on."""
    rows, measured = [], measured.reset_index(drop=True)
    for job in jobs(config).to_dict("records"):
        row = job | {"cpu_hours": np.nan, "gpu_hours": np.nan, "memory_mb": np.nan}
        row |= {"cpu_basis": "-", "gpu_basis": "-"}
        alike = measured[(measured["rule"] == job["rule"]) & (measured["family"] == job["family"])]
        if alike.empty:
            alike = measured[measured["rule"] == job["rule"]]
        for kind, of_kind in alike.groupby(np.where(alike["device"] == "cpu", "cpu", "gpu")):
            nearest = of_kind.loc[_distances(job, of_kind).idxmin()]
            factor = job["work"] / nearest["work"]
            start = min(START_SECONDS, 0.8 * nearest["seconds"])
            seconds = start + (nearest["seconds"] - start) * factor
            row[f"{kind}_hours"] = seconds / 3600
            more = max(job["parameters"] - nearest["parameters"], 0)
            memory = nearest["memory_mb"] + COPIES * 4 * more / 1e6
            row["memory_mb"] = np.fmax(row["memory_mb"], memory)
            row[f"{kind}_basis"] = f"{nearest['experiment']} {nearest['name']} x{factor:.3g}"
        rows.append(row)
    return pd.DataFrame(rows)


def _distances(job: dict[str, Any], measured: pd.DataFrame) -> pd.Series:
    """How unlike measured jobs are: networks of another size first, then another amount of work."""
    sizes = np.log((measured["parameters"] + 1) / (job["parameters"] + 1)).abs()
    return 1000 * sizes + np.log(measured["work"] / job["work"]).abs()


def by_rule(jobs: pd.DataFrame) -> pd.DataFrame:
    """The plan: one row a rule, and their sum."""
    rows = []
    groups = [(rule, jobs[jobs["rule"] == rule]) for rule in jobs["rule"].unique()]
    for rule, group in [*groups, ("total", jobs)]:
        number = group["jobs"]
        row = {"rule": rule, "jobs": int(number.sum())}
        for kind in ("cpu", "gpu"):
            hours = group[f"{kind}_hours"]
            row[f"{kind}_hours"] = (hours * number).sum(min_count=1)
            row[f"longest_{kind}_hours"] = hours.max()
        row["memory_gb"] = group["memory_mb"].max() / 1000
        row["disk_gb"] = (group["disk_mb"] * number).sum() / 1000
        rows.append(row)
    return pd.DataFrame(rows)


def measured_jobs(config: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """Measurements of a finished experiment, one row for each rule, name and device.

    runs: rule, name, device, seconds, memory_mb and epochs (0 where it has none) of each job.
    Work is that of the epochs that were run, which can be fewer than were allowed.
    """
    table = runs.groupby(KEYS, as_index=False).agg(
        jobs=("seconds", "size"),
        seconds=("seconds", "mean"),
        epochs=("epochs", "mean"),
        memory_mb=("memory_mb", "max"),
    )
    planned = jobs(config)[["rule", "name", "family", "work", "parameters"]]
    table = table.merge(planned, on=["rule", "name"])
    allowed = table.apply(lambda row: _epochs(config, row["rule"], row["name"]), axis=1)
    table["work"] *= np.where(table["epochs"] > 0, table["epochs"] / allowed, 1)
    table["experiment"] = config["experiment"]
    return table[MEASURED].round({"seconds": 1, "memory_mb": 0})


def _section(config: dict[str, Any], rule: str, name: str) -> dict[str, Any]:
    if rule == "train_baseline":
        return config["baselines"][baselines(config)[name][0]]
    names = {"train_vqvae": "vqvae", "train_prior": "prior", "train_classifier": "classifier"}
    return config[names[rule]] if rule in names else {"training": {}}


def _epochs(config: dict[str, Any], rule: str, name: str = "-") -> int:
    return (config["training"] | _section(config, rule, name)["training"])["max_epochs"]


def _training(config: dict[str, Any], rule: str, name: str = "-") -> float:
    """Forward passes of one image that a training takes."""
    return PASSES * _epochs(config, rule, name) * _dataset(config).n_train


def _dataset(config: dict[str, Any]) -> Dataset:
    return DATASETS[config["data"]["dataset"]]


def _variables(config: dict[str, Any]) -> int:
    return math.prod(_dataset(config).shape)


def _queries(config: dict[str, Any]) -> float:
    """Pixels of all images whose likelihood an evaluation asks for: once, and for each mask."""
    images = _dataset(config).n_held_out
    asked = 2 * images + config["data"]["training_part"] + MASKS * images
    return float(asked * _variables(config))


def _shape(source: str) -> tuple[int, int]:
    """Positions of the grid, and codes, of a source."""
    grid, _, size = source.partition("-K")
    return math.prod(int(side) for side in grid.split("x")), int(size)


def _vqvae(config: dict[str, Any], source: str) -> tuple[float, int]:
    positions, codes = _shape(source)
    channels = config["vqvae"]["channels"][source.partition("-")[0]]
    side, inputs, work, parameters = _dataset(config).shape[0], 1, 0.0, 0
    for outputs in channels:
        side = max(math.ceil(side / 2), math.isqrt(positions))
        weights = 2 * 16 * inputs * outputs  # encoder and decoder
        work, parameters, inputs = work + weights * side**2, parameters + weights, outputs
    products = GRID_PRODUCTS[positions] + positions  # of 3×3 and 1×1 convolutions
    work += 4 * products * inputs**2 + codes * inputs * positions
    parameters += (4 * 10 * inputs + codes) * inputs
    return _training(config, "train_vqvae") * work, parameters


def _prior_parameters(config: dict[str, Any], source: str) -> int:
    _, codes = _shape(source)
    prior = config["prior"]
    width = prior["width"] or config["vqvae"]["channels"][source.partition("-")[0]][-1]
    return 26 * width**2 * prior["layers"] + prior["head"] * (width + codes)


def _prior(config: dict[str, Any], source: str) -> tuple[float, int]:
    parameters = _prior_parameters(config, source)
    positions = _shape(source)[0]
    return _training(config, "train_prior") * positions * parameters, parameters


def _selected(config: dict[str, Any], source: str) -> float:
    """Latents that the methods of a source write: those that do not nest write some for each N."""
    sizes = config["n_components"]
    methods = [method for method in teachers(config)[source] if method != EXACT_METHOD]
    return float(sum(sum(sizes) if method == "dmbs" else max(sizes) for method in methods))


def _enumerated(config: dict[str, Any], source: str) -> int:
    """All latents of a source with an exact model, else 0."""
    positions, codes = _shape(source)
    return codes**positions if EXACT_METHOD in teachers(config)[source] else 0


def _selection(config: dict[str, Any], source: str) -> tuple[float, int]:
    positions, codes = _shape(source)
    latents = _enumerated(config, source)
    states = positions * _selected(config, source) + latents / codes
    return states * _prior_parameters(config, source), latents


def _evaluation(config: dict[str, Any], source: str) -> tuple[float, int]:
    latents = _enumerated(config, source)
    return _queries(config) * (_selected(config, source) + latents), latents


def _baseline(config: dict[str, Any], method: str, size: int) -> tuple[float, int, float]:
    """Work of a training, parameters, and components to evaluate, of one baseline."""
    section = config["baselines"][method]
    own, variables = section["settings"], _variables(config)
    images = PASSES * (config["training"] | section["training"])["max_epochs"]
    images *= _dataset(config).n_train
    if method == "cm":
        channels = [own.get("latent_dimension", 16), *own.get("channels", [128, 64, 32, 2])]
        weights = [9 * a * b + 10 * b * b for a, b in pairwise(channels)]
        weights[-1] -= 10 * channels[-1] ** 2  # no residual block after the last
        sides = [_dataset(config).shape[0] >> n for n in reversed(range(len(weights)))]
        decoder = sum(w * side**2 for w, side in zip(weights, sides, strict=True))
        batch = (config["training"] | section["training"])["batch_size"]
        points = own.get("points", 16384)
        work = points * (decoder / batch + 2 * variables)
        return images * work, sum(weights), float(max(config["n_components"]))
    if method == "einet":
        pieces = math.ceil(_dataset(config).shape[0] / own.get("pixels_per_step", 4))
        splits = sum((pieces + 1 - a) * (a - 1) for a in range(1, pieces + 1))
        partitions = 2 * splits * pieces * (pieces + 1) // 2
        sums = partitions * size**3 + variables * size
        return float(images * sums), sums, sums / variables
    return float(images * max(size, 1) * variables), 2 * size * variables, float(max(size, 1))


def _classifier(config: dict[str, Any]) -> float:
    width = config["classifier"]["width"]
    return _training(config, "train_classifier") * _variables(config) * (25 * width + 18 * width**2)


def _disk_mb(config: dict[str, Any], row: dict[str, Any]) -> float:
    """What a job leaves on disk: weights, codes, latents; of the rest a megabyte."""
    dataset, rule = _dataset(config), row["rule"]
    size = 1e6
    if rule == "prepare_data":
        kept = 2 * dataset.n_held_out + config["data"]["training_part"]
        size += (dataset.n_train + 4 * kept) * _variables(config)
    elif rule.startswith("train"):
        size += 4 * row["parameters"]
        if rule == "train_vqvae":
            images = dataset.n_train + dataset.n_held_out
            size += 8 * images * _shape(row["name"])[0]
    elif rule == "distil":
        selected = _selected(config, row["name"]) * (_shape(row["name"])[0] + 3)
        size += 8 * (selected + row["parameters"])
    return size / 1e6
