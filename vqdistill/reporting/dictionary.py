"""The data dictionary: unit and meaning of every column of every table.

A key is never empty, since a group-by would drop its rows: '-' or 0 stands where it does not apply.
A measure is a number or, where there is none, an empty cell; `EMPTY` says where that may be.
"""

import pandas as pd

_SEED = {"seed": ("-", "Model seed; the seeds are independent trainings of everything.")}
_TEACHER = {
    "experiment": ("-", "Name of the experiment in the config."),
    "dataset": ("-", "Name of the data set."),
    "grid": ("codes", "Height x width of the grid of codes, '-' where there is none."),
    "codebook_size": ("codes", "K of the VQ-VAE, 0 where there is none."),
}
_EXTENT = {
    "size": ("units", "K of EiNets, quad-trees and deep circuits, N of plain mixtures; or 0.")
}
MODEL = {
    "experiment": _TEACHER["experiment"],
    "dataset": _TEACHER["dataset"],
    "method": ("-", "exm, dmrs, dmbs, deep, random, cm, einet, quad_tree, …: its id in configs."),
    "grid": _TEACHER["grid"],
    "codebook_size": _TEACHER["codebook_size"],
    **_EXTENT,
    "n_components": ("components", "N of distilled models, CM and ExM (K^HW); 0 for others."),
    "weights": ("-", "uniform (Eq. 2), prior p(z) (Eq. 1), or learned."),
}
_KEYS = {**MODEL, **_SEED}
_CODE = {
    "code_version": ("-", "Digest of the modules that the step uses; timings has its commit."),
}
_COUNTED = {
    "n_parameters": (
        "parameters",
        "Of the circuit: 2 per Gaussian leaf and fan-in - 1 per sum unit; a mixture N 2D + N - 1."
        " In summaries the mean over seeds.",
    ),
    **_CODE,
}
_TRAINED = {"model": ("-", "Trained model, such as vqvae-2x2-K16, deep-2x2-K16-8, einet-4.")}

BPD = ("bits per dimension", "-log_likelihood / (D ln 2) + log2 L; L grey levels, D pixels.")
DENSITY_METRICS = {
    "log_likelihood": ("nats per image", "Mean log p(x) of the dequantised images in [0, 1)."),
    "bpd": BPD,
    "log_prob_discrete": ("nats per image", "Mean log P(v) of grey levels v: mass of their bins."),
    "bpd_discrete": (BPD[0], "-log_prob_discrete / (D ln 2), as of categorical pixels."),
}
INPAINTING_METRICS = {
    "conditional_bpd": ("bits per hidden pixel", "-log2 p(x_u | x_o) per hidden pixel + log2 L."),
    "mean_squared_error": ("squared grey in [0, 1]", "Of the conditional mean, hidden pixels."),
    "mean_absolute_error": ("grey in [0, 1]", "Of the conditional mean, hidden pixels."),
    "accuracy_sample": ("fraction", "Completed samples that the classifier reads as the digit."),
    "accuracy_mean": ("fraction", "Completed conditional means read as the digit."),
    "class_accuracy": ("fraction", "Images whose digit is the likeliest under p(c | x_o)."),
    "sharpness_sample": ("grey per pixel", "Mean gradient magnitude of samples, hidden pixels."),
    "sharpness_mean": ("grey per pixel", "The same of the conditional means."),
    "sharpness_truth": ("grey per pixel", "The same of the true images: the nearer, the better."),
    "coherence_sample": ("grey", "Mean jump of samples across the mask's border."),
    "coherence_mean": ("grey", "The same of the conditional means."),
    "coherence_truth": ("grey", "The same of the true images: the nearer, the better."),
}
_SPLIT = {
    "split": ("-", "Images measured: test, validation or train."),
    "n_images": ("images", "Images over which the mean is taken."),
}
_DISCRETE = {
    "n_images_discrete": ("images", "The split's first images: those of discrete columns."),
}
_MASK = {
    "mask": ("-", "The hidden part: left, right, top or bottom half, or the centre square."),
    "n_images": ("images", "Images over which conditional_bpd is taken."),
    "n_scored": ("images", "Images over which all other metrics are taken."),
}
OF_IMAGES = {
    "q05": "5 % of the images have at most this",
    "q50": "Median over the images",
    "q95": "95 % of the images have at most this",
    "q100": "The worst image's",
}
# means over images that a few of them can decide
UNBOUNDED = ("bpd", "bpd_discrete", "conditional_bpd")


def _quantiles(name: str, unit: str) -> dict:
    return {f"{name}_{q}": (unit, f"{meaning}: {name}.") for q, meaning in OF_IMAGES.items()}


def _measured(metrics: dict) -> dict:
    """The metrics of one seed, those without a bound with their quantiles over images."""
    columns = dict(metrics)
    for name in UNBOUNDED:
        if name in metrics:
            columns |= _quantiles(name, metrics[name][0])
    return columns


def _summary(metrics: dict) -> dict:
    columns = {"n_seeds": ("seeds", "Seeds over which is summarised.")}
    for name, (unit, meaning) in metrics.items():
        columns[f"{name}_mean"] = (unit, f"Mean over seeds. {meaning}")
        columns[f"{name}_std"] = (unit, f"Standard deviation (n - 1) of {name} over seeds.")
        columns[f"{name}_low"] = (unit, f"Lower end of the 95 % t-interval of {name}.")
        columns[f"{name}_high"] = (unit, f"Upper end of the 95 % t-interval of {name}.")
        columns[f"{name}_median"] = (unit, f"Median of {name} over seeds.")
        columns[f"{name}_min"] = (unit, f"Least {name} of all seeds.")
        columns[f"{name}_max"] = (unit, f"Largest {name} of all seeds.")
        if name in UNBOUNDED:
            columns |= _geometric(name, unit)
    return columns


def _geometric(name: str, unit: str) -> dict:
    """Columns of the summary over seeds of a metric that is positive and without a bound."""
    columns = {
        f"{name}_geometric_mean": (unit, f"exp of the mean over seeds of log {name}."),
        f"{name}_geometric_low": (unit, f"Lower end of the t-interval of log {name}, as exp."),
        f"{name}_geometric_high": (unit, f"Upper end of the t-interval of log {name}, as exp."),
    }
    for q, meaning in OF_IMAGES.items():
        columns[f"{name}_{q}_median"] = (unit, f"Median over seeds of: {meaning}: {name}.")
    return columns


COLUMNS: dict[str, dict[str, tuple[str, str]]] = {}
COLUMNS["density"] = {**_KEYS, **_SPLIT, **_DISCRETE, **_measured(DENSITY_METRICS), **_COUNTED}
COLUMNS["density_summary"] = {
    **MODEL,
    **_SPLIT,
    **_DISCRETE,
    **_COUNTED,
    **_summary(DENSITY_METRICS),
}
COLUMNS["inpainting"] = {**_KEYS, **_MASK, **_measured(INPAINTING_METRICS), **_COUNTED}
COLUMNS["inpainting_summary"] = {**MODEL, **_MASK, **_COUNTED, **_summary(INPAINTING_METRICS)}
COLUMNS["model_sizes"] = {
    **_TEACHER,
    **_TRAINED,
    **_EXTENT,
    **_SEED,
    "part": ("-", "encoder, codebook, decoder, prior, circuit or classifier."),
    "n_parameters": ("parameters", "Trainable parameters of the part."),
    "codebook_usage": ("fraction", "Codes used on training images over K."),
    "perplexity": ("codes", "exp of the entropy of the training codes."),
}
COLUMNS["timings"] = {
    **_TEACHER,
    "step": ("-", "Step of the workflow."),
    **_TRAINED,
    **_EXTENT,
    **_SEED,
    "device": ("-", "Processor or GPU that the step ran on."),
    "wall_seconds": ("seconds", "Wall time of the step."),
    "peak_memory_mb": ("MB", "Largest resident memory of the step."),
    "epochs_run": ("epochs", "Epochs trained."),
    "best_epoch": ("epochs", "Epoch whose weights are kept."),
    "stopped_by": ("-", "patience or epoch limit."),
    "best_validation": (
        "nats",
        "Validation loss of the best epoch: per image (VQ-VAE: total loss), prior per code.",
    ),
    "code_version": ("-", "Digest of the modules that the step uses."),
    "commit": ("-", "Commit of the code; -dirty where tracked files were changed since."),
}
COLUMNS["costs"] = {
    **_TEACHER,
    **_SEED,
    "method": MODEL["method"],
    "n_components": MODEL["n_components"],
    "evaluations": ("evaluations", "p(z_i = k | z_<i, c) evaluated by the selection, counted."),
    "weighting_evaluations": ("evaluations", "The same for log p(z | c) of what was selected."),
    "latents_enumerated": ("latents", "K^HW, what an enumeration would visit."),
}
COLUMNS["claims"] = {
    "claim": ("-", "Number of the statement: 1 to 8 the paper's, 9 to 12 ours."),
    "statement": ("-", "The statement, in our words."),
    "measure": ("-", "What is measured for each seed, paired by seed."),
    "kind": ("-", "Kind of measure: the row of thresholds that it is judged by."),
    "unit": ("-", "Unit of value, low, high and threshold."),
    "value": ("see unit", "Mean over seeds."),
    "low": ("see unit", "Lower end of the 95 % t-interval over seeds."),
    "high": ("see unit", "Upper end of the 95 % t-interval over seeds."),
    "median": ("see unit", "Median over seeds."),
    "min": ("see unit", "Least value of all seeds."),
    "max": ("see unit", "Largest value of all seeds."),
    "side": ("-", "Right side of the threshold: at most, above, within (plus or minus)."),
    "threshold": ("see unit", "Fixed before the run."),
    "n_seeds": ("seeds", "Seeds measured; with one there is no interval and no verdict."),
    "verdict": (
        "-",
        "reproduced: the whole interval on the right side; not reproduced: on the wrong side; "
        "undecided: neither, one seed, or not measured.",
    ),
}
COLUMNS["thresholds"] = {
    "kind": ("-", "Kind of measure in claims."),
    "side": ("-", "Right side of the threshold: at most, above, within (plus or minus)."),
    "threshold": ("see unit", "Fixed before the run."),
    "unit": ("-", "Unit of the threshold."),
    "why": ("-", "Why the threshold is where it is."),
}
COLUMNS["history"] = {
    **_TEACHER,
    **_TRAINED,
    **_EXTENT,
    **_SEED,
    "epoch": ("epochs", "From 1."),
    "train_loss": ("nats", "Mean over the epoch: per image, prior per code."),
    "validation_loss": ("nats", "Of the fixed validation images after the epoch."),
    "best": ("-", "1 in the epoch whose weights are kept, else 0."),
}
COLUMNS["codebook"] = {
    **_TEACHER,
    **_SEED,
    "rank": ("-", "Rank of the code by frequency, from 1."),
    "frequency": ("fraction", "Share of the training images' codes that are this code."),
}
COLUMNS["teacher"] = {
    **_TEACHER,
    **_SEED,
    **_SPLIT,
    "reconstruction_bpd": (BPD[0], "Of p(x | z(x)), each image with its codes."),
    **_quantiles("reconstruction_bpd", BPD[0]),
    "code_log_prob": ("nats per image", "Mean log p(z(x)) of the encoder's codes."),
    "joint_bpd": (BPD[0], "Of p(x, z(x)); an upper bound of the exact BPD."),
    **_quantiles("joint_bpd", BPD[0]),
}
COLUMNS["bounds"] = {
    **_TEACHER,
    **_SEED,
    "method": MODEL["method"],
    "n_components": MODEL["n_components"],
    "n_images": ("images", "Test images compared."),
    "largest_violation": (
        "nats",
        "Largest log of sum p(z) p(x | z) over the selected latents minus log p(x) of ExM.",
    ),
    "mean_gap": ("nats per image", "How much the selected latents miss of log p(x), on average."),
    **_quantiles("gap", "nats per image"),
}
COLUMNS["divergence"] = {
    **_KEYS,
    "n_samples": ("images", "Samples of the teacher over which the means are taken."),
    "bpd_of_samples": (BPD[0], "Of samples of the teacher."),
    "kl_low": (
        BPD[0],
        "KL(teacher || model), at least: bpd_of_samples minus the largest BPD that"
        " the teacher may have on its samples.",
    ),
    "kl_high": (
        BPD[0],
        "KL(teacher || model), at most; both are one where the teacher has an exact model.",
    ),
    **_COUNTED,
}
_EXPLAINED = {**_KEYS, "n_images": ("images", "First test images, over which means are taken.")}
COLUMNS["gain_blocks"] = {
    **_EXPLAINED,
    "block": ("pixels", "Side of the squares that an image is cut into."),
    "bpd": (BPD[0], "Of the product of p(x_block): each block explained for itself."),
    **_CODE,
}
COLUMNS["gain_places"] = {
    **_EXPLAINED,
    "row": ("pixels", "First row of a square of pixels, from 0."),
    "column": ("pixels", "First column of the square, from 0."),
    "bits": ("bits", "Mean of the square's pixels, each given those before it in reading order."),
    **_CODE,
}
COLUMNS["gain_pixels"] = {
    **_EXPLAINED,
    "sigma": ("grey in [0, 1]", "Lower end of a range of the decoder's standard deviation."),
    "grey": ("-", "black (the lowest grey level), white (the highest) or grey."),
    "share": ("fraction", "Pixels of this kind."),
    "bpd": (BPD[0], "The part of these pixels; the parts of a model sum to its BPD."),
    **_CODE,
}
COLUMNS["classifier"] = {
    "experiment": _TEACHER["experiment"],
    "dataset": _TEACHER["dataset"],
    **_SEED,
    "test_accuracy": ("fraction", "Real test images that the judge of completions reads right."),
}
COLUMNS["data_dictionary"] = {
    "table": ("-", "Name of the table."),
    "column": ("-", "Name of its column."),
    "unit": ("-", "Unit of its values."),
    "meaning": ("-", "What they are."),
    "empty": ("-", "never, or where a cell is empty since there is no such number."),
}
_ONE_SEED, _NOT_TRAINED = "one seed", "nothing is trained"
_NO_CODEBOOK, _NOT_MEASURED = "there is no codebook", "it was not measured"
_NO_CLASSES = "the model knows no classes"
_INFINITE, _NEGATIVE = "a seed's value is not finite", "a seed's value is not above 0"
_NO_ENDS = f"{_ONE_SEED}, {_INFINITE}, or "
EMPTY = {
    ("model_sizes", "codebook_usage"): _NO_CODEBOOK,
    ("model_sizes", "perplexity"): _NO_CODEBOOK,
    **{
        ("timings", column): _NOT_TRAINED
        for column in ("epochs_run", "best_epoch", "stopped_by", "best_validation")
    },
    ("timings", "commit"): "the code was in no clone",
    ("inpainting", "class_accuracy"): _NO_CLASSES,
    **{
        ("inpainting_summary", f"class_accuracy_{what}"): _NO_CLASSES
        for what in ("mean", "median", "min", "max")
    },
    **{
        ("claims", column): f"{_NOT_MEASURED}, or {_INFINITE}"
        for column in ("value", "median", "min", "max")
    },
    **{("claims", end): f"{_ONE_SEED}, {_NOT_MEASURED}, or {_INFINITE}" for end in ("low", "high")},
    **{
        (table, column): f"{_ONE_SEED}, or {_INFINITE}"
        for table in ("density_summary", "inpainting_summary")
        for column in COLUMNS[table]
        if column.endswith(("_std", "_low", "_high"))
    },
    **{
        ("inpainting_summary", f"class_accuracy_{end}"): f"{_ONE_SEED}, or {_NO_CLASSES}"
        for end in ("std", "low", "high")
    },
    **{
        (table, f"{name}_geometric_{end}"): f"{ends}{_NEGATIVE}"
        for table in ("density_summary", "inpainting_summary")
        for name in UNBOUNDED
        if f"{name}_mean" in COLUMNS[table]
        for end, ends in {
            "mean": "",
            "low": f"{_ONE_SEED}, or ",
            "high": f"{_ONE_SEED}, or ",
        }.items()
    },
}


def data_dictionary() -> pd.DataFrame:
    """One row per column of every table: table, column, unit, meaning, empty."""
    rows = [
        (table, column, unit, meaning, EMPTY.get((table, column), "never"))
        for table, columns in COLUMNS.items()
        for column, (unit, meaning) in columns.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS["data_dictionary"]))
