"""Figure 1: test bits per dimension against the number of parameters; and what weights change."""

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from vqdistill.reporting.figures.layout import legend_of_all
from vqdistill.reporting.style import (
    GREY,
    PAGE_WIDTH,
    RC,
    RED,
    MethodStyle,
    grid_label,
    line_styles,
    marks,
    method_styles,
    model_label,
)
from vqdistill.reporting.tables import in_order, standard_weights, t_interval

CLOSE = 1.35  # ratio of two sizes whose vertical labels would run into each other
SMALL = 1e-3  # bits per dimension, within which the axis of differences is linear


@dataclass(frozen=True)
class Curve:
    """One line of the figure: rows of density_summary, ascending in the number of parameters."""

    method: str
    rows: pd.DataFrame
    label: str
    style: MethodStyle
    line: object  # matplotlib line style; 'none' for the crosses of ExM


@mpl.rc_context(RC)
def density_figure(
    summary: pd.DataFrame, sizes: pd.DataFrame, teachers: pd.DataFrame | None = None
) -> Figure:
    """Figure 1 from density_summary, model_sizes and teacher.

    Lines are means and bands 95 % t-intervals over seeds, with each method's standard weights.
    The BPD of tiny mixtures lies in the hundreds, so the axis ends where curves can be read, and
    goes on above in a panel of its own, with a logarithmic scale.

    Short lines at the right edge are the BPD of test images under p(x|z(x)), with their own codes,
    of each grid's VQ-VAE with the largest codebook.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5.2), layout="constrained")
    curves = density_curves(summary[summary["split"] == "test"])
    low, high = axis_limits(curves)
    highest = max(float(curve.rows["bpd_mean"].max()) for curve in curves)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 2.4), hspace=0)
    axes = figure.add_subplot(grid[1] if highest > high else grid[:])
    for curve in curves:
        _draw(axes, curve, curve.rows["bpd_mean"] <= high)
    axes.set_xscale("log")
    axes.set_ylim(low, high)
    axes.margins(x=0.03)
    if highest > high:
        _go_on_above(figure.add_subplot(grid[0], sharex=axes), curves, high, highest)
    if teachers is not None:
        _reconstructions(axes, teachers[teachers["split"] == "test"])
    _teacher_sizes(axes, summary, sizes)
    axes.set_xlabel("number of parameters")
    figure.supylabel("test bits per dimension (lower is better)", fontsize=8)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3.4)
    return figure


@mpl.rc_context(RC)
def weights_figure(density: pd.DataFrame) -> Figure:
    """BPD with prior weights p(z) (Eq. 1) less BPD with uniform ones (Eq. 2), one panel a grid.

    From density.csv: differences are taken seed by seed. Lines are their means and bands 95 %
    t-intervals, of each method's largest codebook; ExM has crosses, one for each K.
    """
    table = density[(density["split"] == "test") & (density["grid"] != "-")]
    keys = ["method", "grid", "codebook_size", "n_parameters", "seed"]
    bpd = table.pivot_table("bpd", keys, "weights").dropna().reset_index()
    styles, grids = method_styles(table["method"]), sorted(bpd["grid"].unique())
    figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, max(len(grids), 1), squeeze=False, sharey=True)[0]
    for axes, grid in zip(panels, grids, strict=False):
        axes.axhline(0, color=GREY, linestyle=":", linewidth=1.0)
        for method, _ in in_order(bpd[bpd["grid"] == grid]):
            model = bpd[(bpd["grid"] == grid) & (bpd["method"] == method)]
            if method != "exm":
                model = model[model["codebook_size"] == model["codebook_size"].max()]
            by_size = (model["prior"] - model["uniform"]).groupby(model["n_parameters"])
            rows = np.array([t_interval(values) for _, values in by_size])  # [n_sizes, 3]
            _difference(axes, list(by_size.groups), rows, styles[method], method == "exm")
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=SMALL, linscale=0.5)
        axes.set_title(grid_label(grid))
        axes.grid(axis="y", color="0.92", linewidth=0.6)
    legend_of_all(figure, columns=5)
    figure.supxlabel("number of parameters", fontsize=8)
    panels[0].set_ylabel("prior − uniform weights, test bits per dimension")
    return figure


def _difference(
    axes: Axes, sizes: list[int], rows: np.ndarray, style: MethodStyle, crosses: bool
) -> None:
    """One method's differences: rows [n_sizes, 3] of mean, low and high."""
    line = "none" if crosses else "-"
    axes.plot(sizes, rows[:, 0], linestyle=line, markersize=4, label=style.label, **marks(style))
    if crosses:
        axes.vlines(sizes, rows[:, 1], rows[:, 2], color=style.colour, alpha=0.3, linewidth=4)
    else:
        axes.fill_between(
            sizes, rows[:, 1], rows[:, 2], color=style.colour, alpha=0.15, linewidth=0
        )


def density_curves(table: pd.DataFrame) -> list[Curve]:
    """The curves of density_summary rows (one split), in the order of display.

    ExM gives one set of points over K per grid, every other method one curve per grid and K.
    """
    table = standard_weights(table)
    styles = method_styles(table["method"])
    others = table[table["method"] != "exm"]
    lines = line_styles(others[["grid", "codebook_size"]].itertuples(index=False, name=None))
    curves = []
    for method, grid in in_order(table):
        model = table[(table["method"] == method) & (table["grid"] == grid)]
        model = model.sort_values("n_parameters")
        style, label = styles[method], model_label(styles[method], grid)
        if method == "exm":
            curves.append(Curve(method, model, label, style, "none"))
            continue
        several = model["codebook_size"].nunique() > 1
        for codes, rows in model.groupby("codebook_size"):
            name = f"{label}, K = {codes}" if several else label
            curves.append(Curve(method, rows, name, style, lines[grid, codes]))
    return curves


def axis_limits(curves: list[Curve]) -> tuple[float, float]:
    """Range of BPD in which the curves can be read.

    From the best mean of all up to the best mean of the worst curve, and beyond it by the same
    distance again and at least 1 bit; controls have no say. Below the best mean there is room for
    the intervals of what is shown, up to a quarter of that range.
    """
    main = [c for c in curves if not c.style.control] or curves
    best = [float(c.rows["bpd_mean"].min()) for c in main]
    start, spread = min(best), max(best) - min(best)
    high = max(best) + max(spread, 1.0)
    lows = [c.rows["bpd_low"][c.rows["bpd_mean"] <= high].min() for c in curves]
    lowest = max(float(min(lows)), start - 0.25 * (high - start))
    highest = max(float(c.rows["bpd_high"].max()) for c in curves)
    margin = 0.05 * (high - start)
    return min(start, lowest) - margin, min(high, highest + margin)


def _go_on_above(axes: Axes, curves: list[Curve], low: float, highest: float) -> None:
    """The panel of what lies above `low`."""
    for curve in curves:
        _draw(axes, curve, curve.rows["bpd_high"] > low)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low, 2 * highest)
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.axhline(low, color="0.6", linewidth=0.7, zorder=9)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.annotate(
        f"above {low:.2g} bits: logarithmic", (1.0, 1.0), ha="right", va="top",
        xycoords="axes fraction", fontsize=7, color=GREY,
    )  # fmt: skip


def _draw(axes: Axes, curve: Curve, shown: pd.Series) -> None:
    """A curve, with the intervals of those means that are `shown`."""
    if curve.method == "exm":
        _crosses(axes, curve, shown)
        return
    rows, style = curve.rows, curve.style
    axes.plot(
        rows["n_parameters"], rows["bpd_mean"], linestyle=curve.line, label=curve.label,
        markersize=3 if style.control else 4, markeredgewidth=1.0,
        alpha=0.65 if style.control else 1.0, **marks(style),
    )  # fmt: skip
    if (rows["n_seeds"] > 1).any() and not style.control:
        axes.fill_between(
            rows["n_parameters"], rows["bpd_low"], rows["bpd_high"], where=shown,
            color=style.colour, alpha=0.18, linewidth=0,
        )  # fmt: skip


def _crosses(axes: Axes, curve: Curve, shown: pd.Series) -> None:
    """Crosses with K above them."""
    rows, colour = curve.rows[shown], curve.style.colour
    x, y = rows["n_parameters"], rows["bpd_mean"]
    axes.plot(
        x, y, "x", color=colour, markersize=6, markeredgewidth=1.4, zorder=5,
        label=f"{curve.label} (K above)",
    )  # fmt: skip
    axes.vlines(x, rows["bpd_low"], rows["bpd_high"], color=colour, alpha=0.2, linewidth=6)
    for row in rows.itertuples():
        axes.annotate(
            str(row.codebook_size), (row.n_parameters, row.bpd_mean), (0, 6), ha="center",
            va="bottom", textcoords="offset points", fontsize=7, color=colour, zorder=7,
            annotation_clip=True,
        )  # fmt: skip


def _teacher_sizes(axes: Axes, summary: pd.DataFrame, sizes: pd.DataFrame) -> None:
    """Dotted vertical lines at encoder + codebook + decoder of VQ-VAEs, red at CM's decoder."""
    distilled = summary[(summary["grid"] != "-") & (summary["method"] != "exm")]
    if not len(distilled):
        distilled = summary[summary["grid"] != "-"]
    teachers = set(distilled[["grid", "codebook_size"]].itertuples(index=False, name=None))
    lines = []
    for grid, codes in sorted(teachers):
        parts = sizes[sizes["model"] == f"vqvae-{grid}-K{codes}"]
        parts = parts[parts["part"].isin(["encoder", "codebook", "decoder"])]
        if len(parts):
            several = len({c for g, c in teachers if g == grid}) > 1
            name = f"VQ-VAE {grid_label(grid)}" + (f", K = {codes}" if several else "")
            lines.append((_one_size(parts), name, GREY))
    decoder = sizes[(sizes["model"] == "cm") & (sizes["part"] == "decoder")]
    if len(decoder):
        lines.append((_one_size(decoder), "CM decoder", RED))
    for x, name, colour in _merged(lines):
        axes.axvline(x, linestyle=":", color=colour, linewidth=1.1, zorder=1)
        axes.annotate(
            name, (x, _free_height(axes, x, name)), (2, 0), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", ha="left", va="bottom", rotation=90, color=colour,
            fontsize=7, path_effects=[withStroke(linewidth=2, foreground="white")], zorder=8,
        )  # fmt: skip


def _merged(lines: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """The vertical lines from left to right; of those that stand too close for labels of their own,
    the last one's label stands for all."""
    merged: list[tuple[float, str, str]] = []
    for x, name, colour in sorted(lines):
        if merged and x / merged[-1][0] < CLOSE and merged[-1][2] == colour:
            name = "source VQ-VAEs"
            merged[-1] = (merged[-1][0], "", colour)
        merged.append((x, name, colour))
    return merged


def _free_height(axes: Axes, x: float, text: str) -> float:
    """Height (0 to 1) at which an upright label right of x is farthest from all lines drawn."""
    length, width = 0.0185 * len(text), 0.03  # of 7 pt letters, as parts of the axes
    points = []  # in parts of the axes
    to_axes = axes.transData - axes.transAxes
    for line in axes.lines:
        if line.get_transform() == axes.transData and len(line.get_xdata()) > 0:
            corners = to_axes.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            steps = np.linspace(0, len(corners) - 1, 40 * len(corners))
            at = np.arange(len(corners))
            points.append(np.column_stack([np.interp(steps, at, c) for c in corners.T]))
    left = to_axes.transform((x, axes.get_ylim()[0]))[0]
    points = np.concatenate([*points, np.full((1, 2), 9.0)])
    near = points[(points[:, 0] > left - 0.01) & (points[:, 0] < left + width + 0.01), 1]
    candidates = np.linspace(0.02, 0.94 - length, 40)
    if not len(near):
        return candidates[-1]
    away = np.maximum(candidates[:, None] - near, near - candidates[:, None] - length).min(1)
    return float(candidates[np.argmax(np.minimum(away, 0.05) + 1e-3 * candidates)])


def _one_size(parts: pd.DataFrame) -> float:
    return float(parts.groupby("seed")["n_parameters"].sum().mean())


def _reconstructions(axes: Axes, teachers: pd.DataFrame) -> None:
    """Short lines at the right edge, the highest labelled above itself and the lowest below."""
    values = {}
    for grid, rows in teachers.groupby("grid"):
        largest = rows[rows["codebook_size"] == rows["codebook_size"].max()]
        values[grid] = float(largest["reconstruction_bpd"].mean())
    for grid, value in values.items():
        low, high = axes.get_ylim()
        axes.set_ylim(bottom=min(low, value - 0.05 * (high - value)))
        axes.axhline(value, xmin=0.98, color=GREY, linewidth=1.2)
        places = {max(values.values()): "bottom", min(values.values()): "top"}
        axes.annotate(
            f"VQ-VAE {grid_label(grid)},\nown codes", (1, value), (4, 0), ha="left",
            va=places.get(value, "center") if len(values) > 1 else "center",
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", fontsize=7, color=GREY,
        )  # fmt: skip
