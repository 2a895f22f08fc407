"""Synthetic tables of known shape for the tests of the reporting."""

from itertools import product

import numpy as np
import pandas as pd

COMPONENTS = [2**i for i in range(15)]
DIMENSIONS = 784
QUAD_TREES = {4: 1.62, 8: 1.558, 16: 1.504, 32: 1.454, 64: 1.417, 128: 1.397}  # BPD by K
STUDENTS = {  # BPD of deep circuits, and of flat mixtures of such sizes, by K
    "2x2": ({2: 3.45, 4: 3.12, 8: 3.06}, {2: 5.4, 4: 4.68, 8: 4.32}),
    "4x4": ({2: 2.95, 4: 2.75, 8: 2.70}, {2: 5.2, 4: 4.60, 8: 4.16}),
}
MODELS = ("dmrs 2x2", "dmrs 4x4", "dmbs 4x4", "deep 4x4", "cm", "einet", "quad_tree")
DEEP = ("deep", "einet", "quad_tree")


def mixture_size(n: int) -> int:
    return n * 2 * DIMENSIONS + n - 1


def quad_tree_size(k: int) -> int:
    return 2 * DIMENSIONS * k + 1049 * k * (k - 1) + k - 1


def circuit_rows(seeds):
    """Quad-trees, and what is learned on the samples of two teachers, with K = 4096 codes."""
    for seed in seeds:
        shift = 0.01 * (seed - 2)
        for k, bpd in QUAD_TREES.items():
            yield "quad_tree", "-", 0, k, 0, "learned", seed, bpd + shift, quad_tree_size(k)
        for grid, (deep, flat) in STUDENTS.items():
            for k, bpd in deep.items():
                keys = ("deep", grid, 4096, k, 0, "learned", seed)
                yield *keys, bpd + 2 * shift, quad_tree_size(k) + 9 * k
            for k, bpd in flat.items():
                n = quad_tree_size(k) // (2 * DIMENSIONS)
                yield "flat", grid, 4096, n, 0, "learned", seed, bpd + shift, mixture_size(n)


def density_table(methods=None, seeds=range(5), components=COMPONENTS) -> pd.DataFrame:
    """density.csv with BPD = best + 300 / N^slope + a shift per seed for each mixture."""
    methods = methods or {
        ("dmrs", "2x2"): (3.5, 0.9),
        ("dmrs", "4x4"): (3.2, 0.8),
        ("dmbs", "4x4"): (3.25, 0.78),
        ("random", "4x4"): (4.6, 0.6),
        ("frequent", "4x4"): (3.6, 0.7),
        ("cm", "-"): (2.9, 0.95),
    }
    rows = []
    for (method, grid), (best, slope) in methods.items():
        codes = 4096 if grid != "-" else 0
        weightings = ["uniform", "prior"] if grid != "-" else ["uniform"]
        for seed in seeds:
            for n in components:
                for weights in weightings:
                    bpd = best + 300 / n**slope * (1 if n > 1 else 1.5) + 0.02 * (seed - 2)
                    bpd += 0.3 * (weights == "prior")
                    key = (method, grid, codes, 0, n, weights, seed)
                    rows.append((*key, bpd, mixture_size(n)))
    for seed in seeds:
        for codes in (4, 16, 32, 64, 96):
            for weights in ("prior", "uniform"):
                bpd = 3.3 + 6 / codes + 0.02 * (seed - 2) + 0.2 * (weights == "uniform")
                key = ("exm", "2x2", codes, 0, codes**4, weights, seed)
                rows.append((*key, bpd, mixture_size(codes**4)))
        rows.append(("gmm", "-", 0, 1, 0, "learned", seed, 6.5 + 0.01 * seed, mixture_size(1)))
        for size in (2, 4, 8, 16, 30):
            key = ("einet", "-", 0, size, 0, "learned", seed)
            rows.append((*key, 2.6 + 0.8 / size + 0.01 * (seed - 2), size**3 * 3136))
    rows += circuit_rows(seeds)
    columns = ["method", "grid", "codebook_size", "size", "n_components", "weights", "seed"]
    table = pd.DataFrame(rows, columns=[*columns, "bpd", "n_parameters"])
    table.insert(0, "experiment", "synthetic")
    table.insert(1, "dataset", "mnist")
    nats = (8 - table["bpd"]) * DIMENSIONS * np.log(2)
    table = table.assign(
        n_images_discrete=10_000,
        log_prob_discrete=-(table["bpd"] - 0.2) * DIMENSIONS * np.log(2),
        bpd_discrete=table["bpd"] - 0.2,
    )
    table = with_quantiles(with_quantiles(table, "bpd"), "bpd_discrete")
    return table.assign(split="test", n_images=10_000, log_likelihood=nats, code_version="abc")


def with_quantiles(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A measure's quantiles over images beside it: half the images are a tenth better."""
    shares = {"q05": 0.8, "q50": 0.9, "q95": 1.2, "q100": 40.0}
    return table.assign(**{f"{name}_{q}": share * table[name] for q, share in shares.items()})


def inpainting_table(density: pd.DataFrame) -> pd.DataFrame:
    """inpainting.csv for the same models, at the three numbers of components."""
    largest = density["n_components"][density["method"] != "exm"].max()
    chosen = density["n_components"].isin([0, 64, 1024, largest]) | (density["method"] == "exm")
    rng = np.random.default_rng(0)
    tables = []
    for mask in ("left", "right", "top", "bottom", "centre"):
        quantiles = [column for column in density if column.startswith("bpd_")]
        others = ["log_likelihood", "split", "n_images_discrete", "log_prob_discrete", *quantiles]
        table = density[chosen].drop(columns=others)
        n = len(table)
        baseline = table["method"].isin(["cm", "einet", "flat"])
        table = table.assign(
            mask=mask,
            n_scored=1000,
            conditional_bpd=table["bpd"] + 0.3 * rng.random(n),
            mean_squared_error=0.05,
            mean_absolute_error=0.1,
            accuracy_sample=0.9 + 0.01 * rng.random(n),
            accuracy_mean=0.9,
            class_accuracy=np.where(table["grid"] == "-", np.nan, 0.95),
            sharpness_sample=np.where(baseline, 0.6, 0.9) + 0.02 * rng.random(n),
            sharpness_mean=0.5,
            sharpness_truth=1.0,
            coherence_sample=np.where(baseline, 1.6, 1.2) + 0.02 * rng.random(n),
            coherence_mean=1.0,
            coherence_truth=1.0,
        )
        tables.append(with_quantiles(table.drop(columns="bpd"), "conditional_bpd"))
    return pd.concat(tables, ignore_index=True)


def costs_table(seeds=range(3), components=COMPONENTS, codes=4096) -> pd.DataFrame:
    rows = [
        (grid, codes, seed, method, n, factor * n * cells * codes, 10 * n * cells * codes)
        for grid, cells in (("2x2", 4), ("4x4", 16))
        for seed in seeds
        for n in components
        for method, factor in (("dmrs", 1.3), ("dmbs", 1.0 + seed / 10), ("frequent", 0))
    ]
    columns = ["grid", "codebook_size", "seed", "method", "n_components", "evaluations"]
    table = pd.DataFrame(rows, columns=[*columns, "weighting_evaluations"])
    power = table["grid"].map({"2x2": 4.0, "4x4": 16.0})
    table.insert(0, "experiment", "synthetic")
    table.insert(1, "dataset", "mnist")
    return table.assign(latents_enumerated=table["codebook_size"].astype(float) ** power)


def sizes_table(seeds=range(2)) -> pd.DataFrame:
    parts = [
        ("vqvae-2x2-K4096", "2x2", 4096, {"encoder": 1.6e6, "codebook": 1.05e6, "decoder": 1.5e6}),
        ("vqvae-4x4-K4096", "4x4", 4096, {"encoder": 7e6, "codebook": 2.1e6, "decoder": 6.9e6}),
        ("cm", "-", 0, {"decoder": 328_000}),
    ]
    rows = [
        ("synthetic", "mnist", model, grid, codes, 0, seed, part, int(number), 0.1, 12.0)
        for model, grid, codes, numbers in parts
        for seed in seeds
        for part, number in numbers.items()
    ]
    columns = ["experiment", "dataset", "model", "grid", "codebook_size", "size", "seed", "part"]
    return pd.DataFrame(rows, columns=[*columns, "n_parameters", "codebook_usage", "perplexity"])


def history_table(models=("prior-4x4-K4096", "deep-4x4-K4096-16", "cm", "einet-4"), seeds=range(3)):
    rows = []
    for m, model in enumerate(models):
        for seed in seeds:
            end = 30 + 5 * seed
            for epoch in range(1, end + 1):
                loss = 2000 / epoch - 900 + 20 * seed + 100 * m
                validation = loss + 0.02 * (epoch - 15) ** 2
                rows.append((model, seed, epoch, loss, validation, epoch == 22))
    columns = ["model", "seed", "epoch", "train_loss", "validation_loss", "best"]
    table = pd.DataFrame(rows, columns=columns)
    keys = {"experiment": "synthetic", "dataset": "mnist", "grid": "-", "codebook_size": 0}
    return table.assign(**keys, size=0)


def codebook_table(sizes=(("2x2", 16), ("2x2", 4096), ("4x4", 4096)), seeds=range(3)):
    rows = []
    for grid, codes in sizes:
        for seed in seeds:
            used = min(codes, 40 + 300 * seed)
            weight = 1 / np.arange(1, used + 1)
            frequency = np.concatenate([weight / weight.sum(), np.zeros(codes - used)])
            rows += [(grid, codes, seed, r + 1, f) for r, f in enumerate(frequency)]
    return pd.DataFrame(rows, columns=["grid", "codebook_size", "seed", "rank", "frequency"])


def gain_tables(seeds=range(3), grids=("2x2", "4x4")):
    """gain_blocks, gain_places and gain_pixels, with a gain at grey pixels of a broad Gaussian."""
    blocks, places, pixels = [], [], []
    for grid, method, seed in product(grids, ("dmrs", "deep"), seeds):
        flat, keys = method == "dmrs", (method, grid, 4096, seed)
        sides = (1, 2, 4, 8, 16, 32)
        blocks += [(*keys, n, 2.9 + 0.02 * seed + 0.01 * flat * n) for n in sides]
        cells = product(range(0, 28, 4), repeat=2)
        places += [(*keys, r, c, 2.0 + flat * np.exp(-abs(r - c) / 4)) for r, c in cells]
        kinds = product((0.0, 0.01, 0.03, 0.1, 0.3), ("black", "grey", "white"))
        pixels += [(*keys, s, g, 1 / 15, 0.2 + flat * (s - 0.01)) for s, g in kinds]
    keys = ["method", "grid", "codebook_size", "seed"]
    columns = ["block", "bpd"], ["row", "column", "bits"], ["sigma", "grey", "share", "bpd"]
    rows = zip((blocks, places, pixels), columns, strict=True)
    return [pd.DataFrame(table, columns=[*keys, *own]) for table, own in rows]


def pictures(methods=MODELS, h=28, digits=10):
    """Arrays of pictures.npz: rings of different radius for digits."""
    y, x = np.mgrid[:h, :h] / (h - 1) - 0.5
    radii = 0.1 + 0.03 * np.arange(digits)
    truth = np.exp(-(((np.hypot(x, y) - radii[:, None, None]) / 0.05) ** 2)).astype(np.float32)
    half, quarter = h // 2, h // 4
    hidden = np.zeros((5, h, h), dtype=bool)
    hidden[0, :, :half] = hidden[1, :, half:] = True
    hidden[2, :half] = hidden[3, half:] = True
    hidden[4, quarter : h - quarter, quarter : h - quarter] = True
    m = len(methods)
    rng = np.random.default_rng(0)
    samples = truth[None, None, :, None] + 0.2 * rng.random((m, 5, digits, 3, h, h))
    samples = np.where(hidden[None, :, None, None], samples, truth[None, None, :, None])
    return {
        "method": np.array([name.split()[0] for name in methods]),
        "grid": np.array([[*name.split(), "-"][1] for name in methods]),
        "codebook_size": np.array([4096 if " " in name else 0 for name in methods]),
        "size": np.array([30 * (name.split()[0] in DEEP) for name in methods]),
        "n_components": np.array([16384 * (name.split()[0] not in DEEP) for name in methods]),
        "masks": np.array(["left", "right", "top", "bottom", "centre"]),
        "digits": np.arange(digits),
        "hidden": hidden,
        "truth": truth,
        "samples": samples.astype(np.float32),
        "means": samples.mean(3).astype(np.float32),
        "unconditional": (truth[None] + 0.1 * rng.random((m, digits, h, h))).astype(np.float32),
    }
