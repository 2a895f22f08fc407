"""Curves of bits per dimension against the number of parameters, as several figures draw them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from vqdistill.reporting.figures.layout import SEED
from vqdistill.reporting.style import (
    GREY,
    MethodStyle,
    line_styles,
    marks,
    method_styles,
    model_label,
    numbers_label,
    ranges_label,
)
from vqdistill.reporting.tables import in_order, mean_sizes, standard_weights

READABLE = [withStroke(linewidth=2, foreground="white")]


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a method's rows by grid, codebook_size, n_parameters and seed, such as
    those of density.csv, ascending in the number of parameters."""

    method: str
    rows: pd.DataFrame
    label: str
    style: MethodStyle
    line: object  # matplotlib line style; 'none' for the crosses of ExM

    def means(self, metric: str = "bpd") -> pd.DataFrame:
        """Means over seeds, one row a size: grid, codebook_size, n_parameters and the metric."""
        keys = ["grid", "codebook_size", "n_parameters"]
        return self.rows.groupby(keys, as_index=False)[metric].mean().sort_values("n_parameters")


def density_curves(density: pd.DataFrame) -> list[Curve]:
    """The curves of density.csv (one split) with standard weights, in the order of display.

    ExM gives one set of points over K per grid, every other method one curve per grid and K.
    """
    table = mean_sizes(standard_weights(density)).sort_values(["n_parameters", "seed"])
    styles = method_styles(table["method"])
    others = table[table["method"] != "exm"]
    lines = line_styles(others[["grid", "codebook_size"]].itertuples(index=False, name=None))
    curves = []
    for method, grid in in_order(table):
        model = table[(table["method"] == method) & (table["grid"] == grid)]
        style, label = styles[method], model_label(styles[method], grid)
        if method == "exm":
            curves.append(Curve(method, model, f"{label} (K beside it)", style, "none"))
            continue
        for codes, rows in model.groupby("codebook_size"):
            numbers = [numbers_label(method, codes)]
            if rows["size"].any():
                numbers.append(ranges_label(style.letter, rows["size"]))
            name = ", ".join(filter(None, [label, *numbers]))
            curves.append(Curve(method, rows, name, style, lines[grid, codes]))
    return curves


def detail_limits(curves: Sequence[Curve], metric: str = "bpd") -> tuple[float, float]:
    """The range of bits in which most models are at their best.

    From the best mean of all to as far above the middle one of all curves' best means as that is
    above the best, and a little more; at least one bit. Controls have no say.
    """
    main = [c for c in curves if not c.style.control] or curves
    best = np.sort([c.means(metric)[metric].min() for c in main])
    low, middle = best[0], best[len(best) // 2]
    high = low + max(1.0, 2.2 * (middle - low)) if np.isfinite(middle) else low + 1.0
    return low - 0.06 * (high - low), high


def draw_curve(axes: Axes, curve: Curve, metric: str = "bpd", top: float = math.inf) -> None:
    """A curve, and thin the seeds that it is the mean of; controls without. What is above `top` is
    left out, with the lines that lead there."""
    mean, style, exact = curve.means(metric), curve.style, curve.method == "exm"
    line = {"linestyle": curve.line, "markersize": 6 if exact else 3.6}
    line |= {"markersize": 2.8, "alpha": 0.6} if style.control else {}
    axes.plot(
        mean["n_parameters"], mean[metric].where(mean[metric] <= top), label=curve.label,
        markeredgewidth=1.0, zorder=5 if exact else 3, **line, **marks(style),
    )  # fmt: skip
    if style.control or curve.rows["seed"].nunique() == 1:
        return
    mark = {"marker": "_", "linestyle": "none"} if exact else {"zorder": 2}
    for run in [curve.rows] if exact else [run for _, run in curve.rows.groupby("seed")]:
        shown = run[metric].where(run[metric] <= top)
        axes.plot(run["n_parameters"], shown, color=style.colour, **mark, **SEED)


def name_crosses(axes: Axes, exact: Curve, metric: str = "bpd") -> None:
    """K right of each cross of ExM that is shown."""
    low, high = axes.get_ylim()
    for _, codes, x, y in exact.means(metric).itertuples(index=False, name=None):
        if low < y < high:
            axes.annotate(
                str(codes), (x, y), (5, 0), va="center", textcoords="offset points", fontsize=7,
                color=exact.style.colour, zorder=7, path_effects=READABLE,
            )  # fmt: skip


def say_what_is_better(axes: Axes) -> None:
    """An arrow to fewer bits and fewer parameters in the lower left corner."""
    axes.annotate(
        "better", (0.02, 0.02), (0.1, 0.09), xycoords="axes fraction", textcoords="axes fraction",
        fontsize=7, color=GREY, ha="center",
        arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.8},
    )  # fmt: skip
