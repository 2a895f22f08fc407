"""The eight statements of the paper, and four of ours on deep circuits, tested from the tables.

Every measure is computed for each seed (paired by seed where two models are compared) and has a
95 % t-interval over seeds. Verdict: 'reproduced' where the whole interval is on the right side of
the threshold, 'not reproduced' where the whole of it is on the wrong side, else 'undecided'; so
are measures with one seed only, which have no interval, and those that were not taken.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vqdistill.errors import InputError
from vqdistill.reporting.style import METHODS, model_label, numbers_label
from vqdistill.reporting.tables import (
    in_order,
    largest_models,
    mean_sizes,
    standard_weights,
    t_interval,
)


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
        "Plateau: two more doublings of this kind would bring no more than 0.1, which is close.",
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
    "digit advantage": Threshold(
        "above", 0.0, "fraction",
        "As often right: at least so, by any amount that the seeds confirm; where both are alike "
        "it stays undecided.",
    ),
    "picture metric": Threshold(
        "above", 0.0, "grey",
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
    9: "A deep circuit distilled without data, with at most a hundredth of the parameters of DMRS, "
    "outperforms DMRS, DMBS and the exact model of its teacher",
    10: "It outperforms CM, and at equal size EiNets learned from images and a flat mixture "
    "learned from the same samples",
    11: "Quad-trees outperform EiNets at every shared size",
    12: "Completions of deep circuits are as often the right digit, and as coherent, as those of "
    "the best flat model of their teacher",
}
DISTILLED = ("dmrs", "dmbs")
PAPER_METHODS = ("exm", *DISTILLED, "cm", "einet")
FLAT = (*DISTILLED, "exm")
CHANCE = 0.1  # accuracy of guessing one of ten digits
SMALL = 1 / 100  # of the parameters of DMRS at its largest N
COLUMNS = [
    "claim", "statement", "measure", "kind", "unit", "value", "low", "high", "median", "min", "max",
    "side", "threshold", "n_seeds", "verdict",
]  # fmt: skip
NOT_MEASURED = "not measured in this experiment"
TOO_LARGE = "each has more than a hundredth of the parameters of DMRS"
LACKING = {  # what a claim is about, where no model of it was measured
    3: ("BPD of each distilled model minus that of CM", [], "advantage"),
    4: ("BPD that the last doubling of N gains", [], "last gain"),
    5: ("BPD of each model minus that of EiNet", [], "advantage"),
    6: ("digit accuracy on completed images", [], "digit accuracy"),
    7: ("sharpness and coherence of completions", [], "picture metric"),
    8: ("prior evaluations of DMBS / NHWK", [], "evaluations per NHWK"),
    9: ("BPD of each flat model minus that of a small deep circuit", [], "advantage"),
    10: ("BPD of each learned model minus that of deep circuits", [], "advantage"),
    12: ("digit accuracy and coherence of completions of deep circuits", [], "digit advantage"),
}
Measures = Iterator[tuple]  # of what is measured, its values by seed, its threshold, why missing


def judge(
    density: pd.DataFrame,
    inpainting: pd.DataFrame,
    costs: pd.DataFrame,
    real_accuracy: float = 0.0,
) -> pd.DataFrame:
    """All rows of claims.csv, by claim; a table that an experiment lacks is empty.

    real_accuracy: of the digit classifier on real test images; 0 where it was not measured. Rows
    of what was not measured have no numbers, NaN.
    """
    every = mean_sizes(standard_weights(density[density["split"] == "test"]))
    completed = standard_weights(inpainting) if len(inpainting) else inpainting
    density = _main_curves(every)
    inpainting = largest_models(inpainting) if len(inpainting) else inpainting
    measures = {
        1: claim_1(density),
        2: claim_2(density),
        3: claim_3(density),
        4: claim_4(density),
        5: claim_5(density),
        6: claim_6(inpainting, real_accuracy),
        7: claim_7(inpainting),
        8: claim_8(costs),
        9: claim_9(every),
        10: claim_10(every),
        11: claim_11(density),
        12: claim_12(completed),
    }
    with np.errstate(invalid="ignore"):  # the difference of two infinite values is no number
        rows = [
            _row(claim, *measure)
            for claim, found in measures.items()
            for measure in list(found) or [LACKING[claim]]
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def thresholds() -> pd.DataFrame:
    """The thresholds, fixed before the run, and why each is where it is."""
    rows = [
        {"kind": k, "side": t.side, "threshold": t.value, "unit": t.unit, "why": t.why}
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


def claim_1(density: pd.DataFrame) -> Measures:
    """Gap of DMRS 2×2 to ExM of the largest codebook, and the N that nearly closes it."""
    exact, sampled = _curve(density, "exm", "2x2"), _curve(density, "dmrs", "2x2")
    gap = _paired(sampled.iloc[:, -1:], exact.iloc[:, -1:], lambda d, e: d[0] - e[0])
    what = "BPD of DMRS 2×2 at its largest N minus that of ExM 2×2 at its largest K"
    yield what, gap, "reference gap"
    close, sizes, rows = THRESHOLDS["reference gap"].value, sampled.columns, sampled.to_numpy()
    share = [_components_for(bpd, sizes, 0.1 * (bpd[0] - bpd[-1])) for bpd in rows]
    speed = "smallest N of DMRS 2×2 with 90 % of its improvement from its smallest to its largest N"
    yield f"{speed}, over the largest N", share, "share of components"
    near = [_components_for(bpd, sizes, close) for bpd in rows]
    own = f"smallest N of DMRS 2×2 within {close} bits of its BPD at its largest N"
    yield f"{own}, over the largest N", near, "share of components"


def claim_2(density: pd.DataFrame) -> Measures:
    """BPD of DMBS 4×4 minus DMRS 4×4, at the largest shared N and over the upper half of them."""
    beam, sampled = _curve(density, "dmbs", "4x4"), _curve(density, "dmrs", "4x4")
    shared = beam.columns.intersection(sampled.columns)
    beam, sampled, upper = beam[shared], sampled[shared], len(shared) // 2
    what = "BPD of DMBS 4×4 minus that of DMRS 4×4"
    last = _paired(beam, sampled, lambda b, s: b[-1] - s[-1])
    yield f"{what} at the largest N", last, "beam gap"
    mean = _paired(beam, sampled, lambda b, s: np.mean(b[upper:] - s[upper:]))
    yield f"{what}, mean over the upper half of the doublings of N", mean, "beam gap"


def claim_3(density: pd.DataFrame) -> Measures:
    """BPD of each distilled model minus that of CM, at equal N."""
    mixture = _curve(density, "cm", "-")
    for model in _models(density, DISTILLED):
        other, at = _curve(density, *model), f"BPD of {_label(*model)} minus that of CM"
        last = _paired_at_overlap(other, mixture, lambda d: d[-1])
        yield f"{at} at the largest shared N", last, "advantage"
        least = _paired_at_overlap(other, mixture, np.min)
        yield f"{at}, smallest over all shared N", least, "advantage"


def claim_4(density: pd.DataFrame) -> Measures:
    """BPD gained by the last doublings of N, alone and over that of the first."""
    for model in _models(density, DISTILLED):
        curve, name = _curve(density, *model), _label(*model)
        gains = -np.diff(curve.to_numpy(), axis=1)  # [n_seeds, n_sizes - 1]
        gains = gains / np.diff(np.log2(curve.columns.to_numpy(dtype=float)))
        last = gains[:, -1] if gains.shape[1] else []
        yield f"BPD that the last doubling of N gains {name}", last, "last gain"
        first = gains[:, :2].sum(axis=1)
        gained = (first > 0).all()  # in each seed
        ratio = gains[:, -2:].sum(axis=1) / first if gained and gains.shape[1] >= 4 else []
        missing = NOT_MEASURED if gained else "not defined, where the first gain nothing"
        yield f"gain of {name}: last two doublings / first two", ratio, "gain ratio", missing


def claim_5(density: pd.DataFrame) -> Measures:
    """Least BPD by which EiNet beats each other model, at sizes (parameters) that both cover."""
    einet = _curve(density, "einet", "-", "n_parameters")
    for model in _models(density, [method for method in PAPER_METHODS if method != "einet"]):
        other = _curve(density, *model, "n_parameters")
        least = _paired_at_overlap(other, einet, np.min)
        what = f"BPD of {_label(*model)} minus that of EiNet"
        yield f"{what}, smallest over the shared sizes", least, "advantage"


def claim_6(inpainting: pd.DataFrame, real_accuracy: float) -> Measures:
    """Accuracy on digits completed by samples, from chance (0) to that on real images (1)."""
    for model in _models(inpainting, PAPER_METHODS) if real_accuracy > CHANCE else []:
        accuracy = _metric(inpainting, *model, "accuracy_sample").mean(axis=1)
        scaled = (accuracy - CHANCE) / (real_accuracy - CHANCE)
        what = f"(accuracy of {_label(*model)}'s completions - 0.1) / (that of real images - 0.1)"
        yield f"{what}, mean over masks", scaled, "digit accuracy"


def claim_7(inpainting: pd.DataFrame) -> Measures:
    """How much nearer to the truth's sharpness and coherence are those of distilled models."""
    for metric in ("sharpness", "coherence"):
        for model in _models(inpainting, DISTILLED):
            for baseline in _models(inpainting, ("cm", "einet")):
                near, far = (
                    _from_truth(inpainting, *pair, metric).mean(axis=1)
                    for pair in (model, baseline)
                )
                what = f"|{metric} - truth's| of {_label(*baseline)} minus that of {_label(*model)}"
                yield f"{what}, mean over masks", (far - near).dropna(), "picture metric"


def claim_8(costs: pd.DataFrame) -> Measures:
    """Prior evaluations counted by DMBS over NHWK, their growth with N, and over K^HW."""
    beam = costs[costs["method"] == "dmbs"] if len(costs) else costs
    for (grid, codes), table in beam.groupby(["grid", "codebook_size"]) if len(beam) else []:
        positions = math.prod(map(int, grid.split("x")))
        counted = table.pivot(index="seed", columns="n_components", values="evaluations")
        n = counted.columns.to_numpy(dtype=float)
        name = f"prior evaluations of {_label('dmbs', grid)}, K = {codes}"
        constant = (counted / (n * positions * codes)).max(axis=1)
        yield f"{name} / NHWK, largest over all N", constant, "evaluations per NHWK"
        half, growth = len(n) // 2, []
        if len(n) - half >= 2:
            growth = np.polyfit(np.log(n[half:]), np.log(counted.to_numpy()[:, half:].T), 1)[0]
        yield f"{name}: exponent of N, upper half of the doublings", growth, "growth"
        share = counted.iloc[:, -1] / float(codes) ** positions
        yield f"{name} at the largest N / K^HW", share, "share of enumeration"


def claim_9(density: pd.DataFrame) -> Measures:
    """Least BPD, over all N, of the flat models of a teacher minus that of a small deep circuit."""
    for grid, codes, teacher in _teachers_of_deep(density):
        small, name, missing = _small_deep(teacher, grid, codes)
        for method in FLAT:
            flat = _curve(teacher, method, grid)
            if method != "exm" or len(flat):
                ahead = _paired(flat, small, lambda f, s: f.min() - s[0])
                what = f"least BPD of {_label(method, grid, codes)} over all N minus that of {name}"
                yield what, ahead, "advantage", missing


def claim_10(density: pd.DataFrame) -> Measures:
    """Least BPD of CM minus that of a small deep circuit, and least BPD by which deep circuits beat
    what is learned, at sizes (parameters) that both cover."""
    mixture = _curve(density, "cm", "-")
    einet = _curve(density, "einet", "-", "n_parameters")
    for grid, codes, teacher in _teachers_of_deep(density):
        small, name, missing = _small_deep(teacher, grid, codes)
        ahead = _paired(mixture, small, lambda m, s: m.min() - s[0])
        yield f"least BPD of CM over all N minus that of {name}", ahead, "advantage", missing
        deep = _curve(teacher, "deep", grid, "n_parameters")
        flat = _curve(teacher, "flat", grid, "n_parameters")
        for other, curve in (("EiNet", einet), (_label("flat", grid, codes), flat)):
            least = _paired_at_overlap(curve, deep, np.min)
            what = f"BPD of {other} minus that of {_label('deep', grid, codes)}"
            yield f"{what}, smallest over the shared sizes", least, "advantage"


def claim_11(density: pd.DataFrame) -> Measures:
    """Least BPD by which quad-trees beat EiNets, at sizes (parameters) that both cover."""
    einet, tree = (
        _curve(density, method, "-", "n_parameters") for method in ("einet", "quad_tree")
    )
    least = _paired_at_overlap(einet, tree, np.min)
    what = "BPD of EiNet minus that of quad-trees, smallest over the shared sizes"
    yield what, least, "advantage"


def claim_12(inpainting: pd.DataFrame) -> Measures:
    """Digit accuracy and coherence of the largest deep circuit's completions, beside those of the
    flat model of its teacher that is best at it in each seed, of any N."""
    for grid, codes, teacher in _teachers_of_deep(inpainting):
        jump = (teacher["coherence_sample"] - teacher["coherence_truth"]).abs()
        teacher, name = teacher.assign(jump=jump), _label("deep", grid, codes)
        deep, flat = (teacher[teacher["method"].isin(which)] for which in (["deep"], FLAT))
        pair = (_over_masks(rows, "accuracy_sample") for rows in (deep, flat))
        what = (
            f"digit accuracy of completions of {name} minus that of its teacher's best flat model"
        )
        yield f"{what}, mean over masks", _paired(*pair, _last_minus_best), "digit advantage"
        pair = (-_over_masks(rows, "jump") for rows in (deep, flat))
        what = f"|coherence - truth's| of its teacher's best flat model minus that of {name}"
        yield f"{what}, mean over masks", _paired(*pair, _last_minus_best), "picture metric"


def _row(claim: int, measure: str, values, threshold: str, missing: str = NOT_MEASURED) -> dict:
    """One row of claims.csv from a measure's values, one per seed (none: why they are missing)."""
    rule, values = THRESHOLDS[threshold], np.asarray(values, dtype=np.float64)
    row = {"claim": claim, "statement": STATEMENTS[claim], "measure": measure, "kind": threshold}
    row |= {"unit": rule.unit, "side": rule.side, "threshold": rule.value, "n_seeds": len(values)}
    if not len(values):
        return row | {"measure": f"{measure}: {missing}", "verdict": "undecided"}
    value, low, high = t_interval(values)
    numbers = {"value": value, "low": low, "high": high, "median": np.median(values)}
    numbers |= {"min": values.min(), "max": values.max()}
    row |= {name: float(f"{number:.6g}") for name, number in numbers.items()}
    return row | {"verdict": verdict(low, high, len(values), rule)}


def _main_curves(density: pd.DataFrame) -> pd.DataFrame:
    """But for ExM, the rows of the largest codebook of method and grid."""
    largest = density.groupby(["method", "grid"])["codebook_size"].transform("max")
    return density[(density["method"] == "exm") | (density["codebook_size"] == largest)]


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


def _models(table: pd.DataFrame, methods: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (method, grid) of some methods in a table, in the order of display."""
    return [pair for pair in in_order(table) if pair[0] in methods] if len(table) else []


def _label(method: str, grid: str, codes: int = 0) -> str:
    numbers = numbers_label(method, codes)
    return ", ".join(filter(None, [model_label(METHODS[method], grid), numbers]))


def _teachers_of_deep(table: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Grid, K and rows of each teacher of deep circuits, if there are any; of 2×2 and 4×4, which
    the statements are about, with K = 0 and no rows where they have none."""
    if not len(table) or not (table["method"] == "deep").any():
        return
    deep = table[table["method"] == "deep"]
    teachers = set(deep[["grid", "codebook_size"]].itertuples(index=False, name=None))
    teachers |= {(grid, 0) for grid in {"2x2", "4x4"} - set(deep["grid"])}
    for grid, codes in sorted(teachers):
        yield grid, codes, table[(table["grid"] == grid) & (table["codebook_size"] == codes)]


def _small_deep(teacher: pd.DataFrame, grid: str, codes: int) -> tuple[pd.DataFrame, str, str]:
    """BPD [n_seeds, 1] of a teacher's largest deep circuit with at most a hundredth of the
    parameters of its largest DMRS; its name, and why it is missing where it is."""
    largest = teacher.loc[teacher["method"] == "dmrs", "n_parameters"].max()
    curve, name = _curve(teacher, "deep", grid, "n_parameters"), _label("deep", grid, codes)
    small = curve.loc[:, curve.columns <= SMALL * largest].iloc[:, -1:]
    if small.shape[1]:
        name += f", of {small.columns[0]} parameters"
    return small, name, TOO_LARGE if curve.shape[1] and largest > 0 else NOT_MEASURED


def _over_masks(inpainting: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric's mean over masks [n_seeds, n_models], the largest model of a method last."""
    return inpainting.pivot_table(metric, "seed", ["method", "size", "n_components"])


def _last_minus_best(one: np.ndarray, other: np.ndarray) -> float:
    return one[-1] - other.max()


def _metric(inpainting: pd.DataFrame, method: str, grid: str, metric: str) -> pd.DataFrame:
    """A metric [n_seeds, n_masks] of one model."""
    table = inpainting[(inpainting["method"] == method) & (inpainting["grid"] == grid)]
    return table.pivot(index="seed", columns="mask", values=metric)


def _from_truth(inpainting: pd.DataFrame, method: str, grid: str, metric: str) -> pd.DataFrame:
    """|metric of samples - metric of the true images| [n_seeds, n_masks] of one model."""
    found = (_metric(inpainting, method, grid, f"{metric}_{kind}") for kind in ("sample", "truth"))
    return next(found).sub(next(found)).abs()


def _components_for(bpd: np.ndarray, n_components: pd.Index, left: float) -> float:
    """Smallest N, over the largest, from which no more than `left` of BPD is to be gained."""
    if bpd[-1] >= bpd[0]:
        return 1.0
    return float(n_components[np.argmax(bpd - bpd[-1] <= left)] / n_components[-1])


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
