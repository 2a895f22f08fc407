"""The data dictionary: unit and meaning of every column of every table."""

import pandas as pd

_SEED = {"seed": ("-", "Model seed; the seeds are independent trainings of everything.")}
_TEACHER = {
    "experiment": ("-", "Name of the experiment in the config."),
    "dataset": ("-", "Name of the data set."),
    "grid": ("codes", "Height x width of the grid of codes, '-' where there is none."),
    "codebook_size": ("codes", "K of the VQ-VAE, 0 where there is none."),
}
_EXTENT = {"size": ("units", "K of the EiNet, N of the plain mixture, 0 for all other models.")}
MODEL = {
    "experiment": _TEACHER["experiment"],
    "dataset": _TEACHER["dataset"],
    "method": ("-", "exm, dmrs, dmbs, random, frequent, cm, einet, gmm, or the id of another."),
    "grid": _TEACHER["grid"],
    "codebook_size": _TEACHER["codebook_size"],
    **_EXTENT,
    "n_components": ("components", "N of the mixture (K^HW for ExM), 0 for EiNet and gmm."),
    "weights": ("-", "Uniform (Eq. 2), prior p(z) (Eq. 1), or learned (EiNet, gmm)."),
}
_KEYS = {**MODEL, **_SEED}
_COUNTED = {
    "n_parameters": (
        "parameters",
        "Of the circuit: 2 per Gaussian leaf and fan-in - 1 per sum unit; a mixture N 2D + N - 1.",
    ),
    "code_version": ("-", "Digest of the modules that the step uses."),
}
_TRAINED = {"model": ("-", "Trained model, such as vqvae-2x2-K16, prior-4x4-K4096, einet-4.")}

DENSITY_METRICS = {
    "log_likelihood": ("nats per image", "Mean log p(x) of the dequantised images in [0, 1)."),
    "bpd": ("bits per dimension", "-log_likelihood / (D ln 2) + log2 L; L grey levels, D pixels."),
}
INPAINTING_METRICS = {
    "conditional_bpd": ("bits per hidden pixel", "-log2 p(x_u | x_o) per hidden pixel + log2 L."),
    "mean_squared_error": ("squared grey in [0, 1]", "Of the conditional mean, hidden pixels."),
    "mean_absolute_error": ("grey in [0, 1]", "Of the conditional mean, hidden pixels."),
    "accuracy_sample": ("fraction", "Completed samples that the classifier reads as the digit."),
    "accuracy_mean": ("fraction", "Completed conditional means read as the digit."),
    "sharpness_sample": ("ratio", "Mean gradient magnitude of samples over the truth's, hidden."),
    "sharpness_mean": ("ratio", "The same of the conditional means."),
    "coherence_sample": ("ratio", "Jump across the mask's border of samples over the truth's."),
    "coherence_mean": ("ratio", "The same of the conditional means."),
}
_SPLIT = {
    "split": ("-", "Images measured: test, validation or train."),
    "n_images": ("images", "Images over which the mean is taken."),
}
_MASK = {
    "mask": ("-", "The hidden part: left, right, top or bottom half, or the centre square."),
    "n_images": ("images", "Images over which conditional_bpd is taken."),
    "n_scored": ("images", "Images over which the metrics of completions are taken."),
}


def _summary(metrics: dict) -> dict:
    columns = {"n_seeds": ("seeds", "Seeds over which is summarised.")}
    for name, (unit, meaning) in metrics.items():
        one = "; one seed has no interval: low = high = mean"
        columns[f"{name}_mean"] = (unit, f"Mean over seeds. {meaning}")
        columns[f"{name}_std"] = (unit, f"Standard deviation (n - 1) of {name}; 0 for one seed.")
        columns[f"{name}_low"] = (unit, f"Lower end of the 95 % t-interval of {name}{one}.")
        columns[f"{name}_high"] = (unit, f"Upper end of the 95 % t-interval of {name}{one}.")
    return columns


COLUMNS: dict[str, dict[str, tuple[str, str]]] = {}
COLUMNS["density"] = {**_KEYS, **_SPLIT, **DENSITY_METRICS, **_COUNTED}
COLUMNS["density_summary"] = {**MODEL, **_SPLIT, **_COUNTED, **_summary(DENSITY_METRICS)}
COLUMNS["inpainting"] = {**_KEYS, **_MASK, **INPAINTING_METRICS, **_COUNTED}
COLUMNS["inpainting_summary"] = {**MODEL, **_MASK, **_COUNTED, **_summary(INPAINTING_METRICS)}
COLUMNS["model_sizes"] = {
    **_TEACHER,
    **_TRAINED,
    **_EXTENT,
    **_SEED,
    "part": ("-", "encoder, codebook, decoder, prior, circuit or classifier."),
    "n_parameters": ("parameters", "Trainable parameters of the part."),
    "codebook_usage": ("fraction", "Codes used on training images over K; 0 without a codebook."),
    "perplexity": ("codes", "exp of the entropy of the training codes; 0 without a codebook."),
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
    "epochs_run": ("epochs", "Epochs trained, 0 where nothing is trained."),
    "best_epoch": ("epochs", "Epoch whose weights are kept, 0 where nothing is trained."),
    "stopped_by": ("-", "patience, epoch limit, or '-' where nothing is trained."),
    "best_validation": (
        "nats",
        "Validation loss of the best epoch: per image (VQ-VAE: total loss), prior per code.",
    ),
}
COLUMNS["costs"] = {
    **{key: text for key, text in _TEACHER.items() if key != "dataset"},
    **_SEED,
    "method": MODEL["method"],
    "n_components": MODEL["n_components"],
    "evaluations": ("evaluations", "p(z_i = k | z_<i, c) evaluated by the selection, counted."),
    "weighting_evaluations": ("evaluations", "The same for log p(z | c) of what was selected."),
    "latents_enumerated": ("latents", "K^HW, what an enumeration would visit."),
}
COLUMNS["claims"] = {
    "claim": ("-", "Number of the paper's statement, 1 to 8."),
    "statement": ("-", "The statement, in our words."),
    "measure": ("-", "What is measured for each seed, paired by seed."),
    "kind": ("-", "Kind of measure: the row of thresholds that it is judged by."),
    "unit": ("-", "Unit of value, low, high and threshold."),
    "value": ("see unit", "Mean over seeds; '-' where it was not measured."),
    "low": ("see unit", "Lower end of the 95 % t-interval over seeds."),
    "high": ("see unit", "Upper end of the 95 % t-interval over seeds."),
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
    **_TRAINED,
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
    "reconstruction_bpd": ("bits per dimension", "Of p(x | z(x)), each image with its codes."),
    "code_log_prob": ("nats per image", "Mean log p(z(x)) of the encoder's codes."),
    "joint_bpd": ("bits per dimension", "Of p(x, z(x)); an upper bound of the exact BPD."),
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
}


def data_dictionary() -> pd.DataFrame:
    """One row per column of every table: table, column, unit, meaning."""
    rows = [
        (table, column, unit, meaning)
        for table, columns in COLUMNS.items()
        for column, (unit, meaning) in columns.items()
    ]
    return pd.DataFrame(rows, columns=["table", "column", "unit", "meaning"])
