"""The eight statements of the paper, each tested from the tables.

Every measure is computed for each seed (paired by seed where two models are compared) and has a
95 % t-interval over seeds. Verdict: 'reproduced' where the whole interval is on the right side of
the threshold, 'not reproduced' where the whole of it is on the wrong side, else 'undecided'; so
are measures with one seed only, which have no interval, and those that were not taken.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vqdistill.errors import InputError
from vqdistill.reporting.style import METHODS, model_label
from vqdistill.reporting.tables import in_order, largest_models, standard_weights, t_interval


@dataclass(frozen=True)
class Threshold:
    """A measure is on the right side when it is `side` ('at most', 'above', 'within' ±) `value`."""

    side: str
    value: float
    unit: str
    why: str


THRESHOLDS = {
    "reference gap": Threshold(
        "at most", 0.1, "bits per dimension",
        "0.1 bits per dimension is what we call close throughout: 54 nats an image of 784 pixels.",
    ),
    "share of components": Threshold(
        "at most", 1 / 16, "share of the largest N",
        "Quickly: what is asked for is there four doublings before the largest N.",
    ),
    "beam gap": Threshold(
        "within", 0.1, "bits per dimension",
        "Closely follows: apart by no more than what we call close, in either direction.",
    ),
    "advantage": Threshold(
        "above", 0.0, "bits per dimension",
        "Outperforms: better by any amount that the seeds confirm.",
    ),
    "last gain": Threshold(
        "at most", 0.05, "bits per dimension and doubling",
        "Plateau: two more doublings of this kind would bring no more than what we call close.",
    ),
    "gain ratio": Threshold(
        "at most", 0.05, "ratio",
        "Plateau: the last two doublings bring a twentieth of what the first two brought.",
    ),
    "digit accuracy": Threshold(
        "above", 0.8, "ratio",
        "Correct digits: four fifths of the way from chance to the classifier's accuracy on real "
        "images; with half of the image hidden some digits are open even to people.",
    ),
    "picture metric": Threshold(
        "above", 0.0, "difference of ratios",
        "Sharper, more coherent: nearer to the true image by any amount that the seeds confirm.",
    ),
    "evaluations per NHWK": Threshold(
        "at most", 10.0, "evaluations / (N H W K)",
        "The constant of O(NHWK): at N = 1 each of the ten classes is searched with one beam.",
    ),
    "growth": Threshold(
        "at most", 1.1, "exponent of N",
        "O(N): evaluations grow no faster than N, up to a tenth for widened beams.",
    ),
    "share of enumeration": Threshold(
        "at most", 0.01, "evaluations / K^HW",
        "Dramatically fewer: a hundredth of the enumeration or less.",
    ),
}  # fmt: skip

STATEMENTS = {
    1: "ExM 2×2 sets a reference that DMRS 2×2 quickly approaches",
    2: "DMBS 4×4 closely follows DMRS 4×4",
    3: "CM outperforms all distilled models",
    4: "The curves of the distilled models plateau",
    5: "EiNet outperforms all other models at all parameter counts",
    6: "All models infill to correct digits",
    7: "Distilled models' reconstructions are sharper and more coherent than those of CM and EiNet",
    8: "DMBS costs O(NHWK) prior evaluations, enumeration O(K^HW)",
}
DISTILLED = ("dmrs", "dmbs")
PAPER_METHODS = ("exm", *DISTILLED, "cm", "einet")
CHANCE = 0.1  # accuracy of guessing one of ten digits
COLUMNS = [
    "claim", "statement", "measure", "unit", "value", "low", "high", "side", "threshold", "n_seeds",
    "verdict",
]  # fmt: skip
NOT_MEASURED = "not measured in this experiment"


@dataclass(frozen=True)
class Tables:
    """What the claims are tested on; a table that an experiment lacks is empty."""

    density: pd.DataFrame
    inpainting: pd.DataFrame
    costs: pd.DataFrame
    real_accuracy: float = 0.0  # of the digit classifier on real test images; 0: not measured


def judge(tables: Tables) -> pd.DataFrame:
    """All rows of claims.csv, by claim."""
    density = _main_curves(tables.density)
    inpainting = tables.inpainting
    inpainting = largest_models(inpainting) if len(inpainting) else inpainting
    rows = [
        *claim_1(density),
        *claim_2(density),
        *claim_3(density),
        *claim_4(density),
        *claim_5(density),
        *claim_6(inpainting, tables.real_accuracy),
        *claim_7(inpainting),
        *claim_8(tables.costs),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def thresholds() -> pd.DataFrame:
    """The thresholds, fixed before the run, and why each is where it is."""
    rows = [
        {"measure": k, "side": t.side, "threshold": t.value, "unit": t.unit, "why": t.why}
        for k, t in THRESHOLDS.items()
    ]
    return pd.DataFrame(rows)


def verdict(low: float, high: float, n_seeds: int, threshold: Threshold) -> str:
    """Where the interval [low, high] lies with respect to a threshold."""
    if n_seeds < 2:
        return "undecided"
    bound = threshold.value
    right, wrong = {
        "at most": (high <= bound, low > bound),
        "above": (low > bound, high <= bound),
        "within": (-bound <= low and high <= bound, low > bound or high < -bound),
    }[threshold.side]
    return "reproduced" if right else "not reproduced" if wrong else "undecided"


def claim_1(density: pd.DataFrame) -> list[dict]:
    """Gap of DMRS 2×2 to ExM of the largest codebook, and the N that nearly closes it."""
    exact, sampled = _curve(density, "exm", "2x2"), _curve(density, "dmrs", "2x2")
    gap = _paired(sampled.iloc[:, -1:], exact.iloc[:, -1:], lambda d, e: d[0] - e[0])
    what = "BPD of DMRS 2×2 at its largest N minus that of ExM 2×2 at its largest K"
    close, rows = THRESHOLDS["reference gap"].value, sampled.to_numpy()
    share = [_components_for(bpd, sampled.columns, 0.1 * (bpd[0] - bpd[-1])) for bpd in rows]
    near = [_components_for(bpd, sampled.columns, close) for bpd in rows]
    speed = "smallest N of DMRS 2×2 with 90 % of its improvement from its smallest to its largest N"
    own = f"smallest N of DMRS 2×2 within {close} bits of its BPD at its largest N"
    return [
        _row(1, what, gap, "reference gap"),
        _row(1, f"{speed}, over the largest N", share, "share of components"),
        _row(1, f"{own}, over the largest N", near, "share of components"),
    ]


def claim_2(density: pd.DataFrame) -> list[dict]:
    """BPD of DMBS 4×4 minus DMRS 4×4, at the largest shared N and over the upper half of them."""
    beam, sampled = _shared(_curve(density, "dmbs", "4x4"), _curve(density, "dmrs", "4x4"))
    upper = len(beam.columns) // 2
    last = _paired(beam, sampled, lambda b, s: b[-1] - s[-1])
    mean = _paired(beam, sampled, lambda b, s: np.mean(b[upper:] - s[upper:]))
    what = "BPD of DMBS 4×4 minus that of DMRS 4×4"
    return [
        _row(2, f"{what} at the largest N", last, "beam gap"),
        _row(2, f"{what}, mean over the upper half of the doublings of N", mean, "beam gap"),
    ]


def claim_3(density: pd.DataFrame) -> list[dict]:
    """BPD of each distilled model minus that of CM, at equal N."""
    mixture = _curve(density, "cm", "-")
    rows = []
    for method, grid in _distilled(density):
        other, at = _curve(density, method, grid), f"BPD of {_label(method, grid)} minus that of CM"
        last = _paired_at_overlap(other, mixture, lambda d: d[-1])
        least = _paired_at_overlap(other, mixture, np.min)
        rows += [
            _row(3, f"{at} at the largest shared N", last, "advantage"),
            _row(3, f"{at}, smallest over all shared N", least, "advantage"),
        ]
    return rows or [_row(3, "BPD of each distilled model minus that of CM", [], "advantage")]


def claim_4(density: pd.DataFrame) -> list[dict]:
    """BPD gained by the last doublings of N, alone and over that of the first."""
    rows = []
    for method, grid in _distilled(density):
        curve, name = _curve(density, method, grid), _label(method, grid)
        gains = -np.diff(curve.to_numpy(), axis=1)  # [n_seeds, n_sizes - 1]
        gains = gains / np.diff(np.log2(curve.columns.to_numpy(dtype=float)))
        last = gains[:, -1] if gains.shape[1] else []
        first = gains[:, :2].sum(axis=1)
        enough, gained = gains.shape[1] >= 4, (first > 0).all()  # in each seed
        ratio = gains[:, -2:].sum(axis=1) / first if enough and gained else []
        missing = NOT_MEASURED if gained else "not defined, where the first gain nothing"
        rows += [
            _row(4, f"BPD that the last doubling of N gains {name}", last, "last gain"),
            _row(
                4, f"gain of {name}: last two doublings / first two", ratio, "gain ratio", missing
            ),
        ]
    return rows or [_row(4, "BPD that the last doubling of N gains", [], "last gain")]


def claim_5(density: pd.DataFrame) -> list[dict]:
    """Least BPD by which EiNet beats each other model, at sizes (parameters) that both cover."""
    einet = _curve(density, "einet", "-", "n_parameters")
    others = [p for p in in_order(density) if p[0] in PAPER_METHODS and p[0] != "einet"]
    rows = []
    for method, grid in others:
        other = _curve(density, method, grid, "n_parameters")
        least = _paired_at_overlap(other, einet, np.min)
        what = f"BPD of {_label(method, grid)} minus that of EiNet"
        rows.append(_row(5, f"{what}, smallest over the shared sizes", least, "advantage"))
    return rows or [_row(5, "BPD of each model minus that of EiNet", [], "advantage")]


def claim_6(inpainting: pd.DataFrame, real_accuracy: float) -> list[dict]:
    """Accuracy on digits completed by samples, from chance (0) to that on real images (1)."""
    rows = []
    if real_accuracy > CHANCE:
        for method, grid in _paper_models(inpainting):
            accuracy = _metric(inpainting, method, grid, "accuracy_sample").mean(axis=1)
            scaled = (accuracy - CHANCE) / (real_accuracy - CHANCE)
            what = (
                f"(accuracy of {_label(method, grid)}'s completions - 0.1) / (that of real images"
            )
            rows.append(_row(6, f"{what} - 0.1), mean over masks", scaled, "digit accuracy"))
    return rows or [_row(6, "digit accuracy on completed images", [], "digit accuracy")]


def claim_7(inpainting: pd.DataFrame) -> list[dict]:
    """How much nearer to the truth (ratio 1) sharpness and coherence of distilled models are."""
    rows = []
    models = _paper_models(inpainting)
    baselines = [model for model in models if model[0] in ("cm", "einet")]
    for metric in ("sharpness", "coherence"):
        for model in (model for model in models if model[0] in DISTILLED):
            for baseline in baselines:
                near, far = (
                    (_metric(inpainting, *pair, f"{metric}_sample") - 1).abs().mean(axis=1)
                    for pair in (model, baseline)
                )
                what = f"|{metric} - 1| of {_label(*baseline)} minus that of {_label(*model)}"
                difference = (far - near).dropna()
                rows.append(_row(7, f"{what}, mean over masks", difference, "picture metric"))
    return rows or [_row(7, "sharpness and coherence of completions", [], "picture metric")]


def claim_8(costs: pd.DataFrame) -> list[dict]:
    """Prior evaluations counted by DMBS over NHWK, their growth with N, and over K^HW."""
    rows = []
    beam = costs[costs["method"] == "dmbs"] if len(costs) else costs
    for (grid, codes), table in beam.groupby(["grid", "codebook_size"]) if len(beam) else []:
        height, width = map(int, grid.split("x"))
        counted = table.pivot(index="seed", columns="n_components", values="evaluations")
        n = counted.columns.to_numpy(dtype=float)
        constant = (counted / (n * height * width * codes)).max(axis=1)
        half = len(n) // 2
        growth = []
        if len(n) - half >= 2:
            growth = np.polyfit(np.log(n[half:]), np.log(counted.to_numpy()[:, half:].T), 1)[0]
        share = counted.iloc[:, -1] / float(codes) ** (height * width)
        name = f"prior evaluations of {_label('dmbs', grid)}, K = {codes}"
        rows += [
            _row(8, f"{name} / NHWK, largest over all N", constant, "evaluations per NHWK"),
            _row(8, f"{name}: exponent of N, upper half of the doublings", growth, "growth"),
            _row(8, f"{name} at the largest N / K^HW", share, "share of enumeration"),
        ]
    return rows or [_row(8, "prior evaluations of DMBS / NHWK", [], "evaluations per NHWK")]


def _row(claim: int, measure: str, values, threshold: str, missing: str = NOT_MEASURED) -> dict:
    """One row of claims.csv from a measure's values, one per seed (none: why they are missing)."""
    rule, values = THRESHOLDS[threshold], np.asarray(values, dtype=np.float64)
    row = {"claim": claim, "statement": STATEMENTS[claim], "measure": measure, "unit": rule.unit}
    row |= {"side": rule.side, "threshold": rule.value, "n_seeds": len(values)}
    if not len(values):
        measure = f"{measure}: {missing}"
        row |= {"measure": measure, "value": "-", "low": "-", "high": "-"}
        return row | {"verdict": "undecided"}
    mean, low, high = t_interval(values)
    row |= {k: float(f"{v:.6g}") for k, v in {"value": mean, "low": low, "high": high}.items()}
    return row | {"verdict": verdict(low, high, len(values), rule)}


def _main_curves(density: pd.DataFrame) -> pd.DataFrame:
    """Test rows with standard weights and, but for ExM, the largest codebook of method and grid."""
    table = standard_weights(density[density["split"] == "test"])
    largest = table.groupby(["method", "grid"])["codebook_size"].transform("max")
    return table[(table["method"] == "exm") | (table["codebook_size"] == largest)]


def _curve(density: pd.DataFrame, method: str, grid: str, size="n_components") -> pd.DataFrame:
    """BPD [n_seeds, n_sizes] of one model, sizes ascending; 0 × 0 where there is none."""
    table = density[(density["method"] == method) & (density["grid"] == grid)]
    curve = table.pivot(index="seed", columns=size, values="bpd")
    if curve.isna().any(axis=None):
        raise InputError(
            f"density: {_label(method, grid)} has not the same sizes ({size}) for every seed; "
            "run the missing ones"
        )
    return curve


def _distilled(density: pd.DataFrame) -> list[tuple[str, str]]:
    return [pair for pair in in_order(density) if pair[0] in DISTILLED]


def _paper_models(inpainting: pd.DataFrame) -> list[tuple[str, str]]:
    models = in_order(inpainting) if len(inpainting) else []
    return [pair for pair in models if pair[0] in PAPER_METHODS]


def _label(method: str, grid: str) -> str:
    return model_label(METHODS[method], grid)


def _metric(inpainting: pd.DataFrame, method: str, grid: str, metric: str) -> pd.DataFrame:
    """A metric [n_seeds, n_masks] of one model."""
    table = inpainting[(inpainting["method"] == method) & (inpainting["grid"] == grid)]
    return table.pivot(index="seed", columns="mask", values=metric)


def _components_for(bpd: np.ndarray, n_components: pd.Index, left: float) -> float:
    """Smallest N, over the largest, from which no more than `left` of BPD is to be gained."""
    if bpd[-1] >= bpd[0]:
        return 1.0
    return float(n_components[np.argmax(bpd - bpd[-1] <= left)] / n_components[-1])


def _shared(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two curves [n_seeds, n_sizes] at the sizes that both have."""
    sizes = one.columns.intersection(other.columns)
    return one[sizes], other[sizes]


def _paired(one: pd.DataFrame, other: pd.DataFrame, measure) -> list[float]:
    """measure(curve, other curve) of each seed that both have; none where a curve is empty."""
    if not one.shape[1] or not other.shape[1]:
        return []
    seeds = one.index.intersection(other.index)
    return [float(measure(one.loc[s].to_numpy(), other.loc[s].to_numpy())) for s in seeds]


def _paired_at_overlap(one: pd.DataFrame, other: pd.DataFrame, measure) -> list[float]:
    """measure(one - other) of each seed, at the sizes of both inside the range that both cover.

    Between its sizes a curve is interpolated linearly in the log of the size, never outside.
    """
    if not one.shape[1] or not other.shape[1]:
        return []
    low = max(one.columns.min(), other.columns.min())
    high = min(one.columns.max(), other.columns.max())
    sizes = np.union1d(one.columns, other.columns).astype(np.float64)
    sizes = np.log(sizes[(sizes >= low) & (sizes <= high)])
    if not len(sizes):
        return []

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        at = [np.log(c.columns.to_numpy(dtype=np.float64)) for c in (one, other)]
        return measure(np.interp(sizes, at[0], a) - np.interp(sizes, at[1], b))

    return _paired(one, other, difference)
