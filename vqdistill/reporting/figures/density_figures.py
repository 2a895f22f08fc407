"""Figure 1: test bits per dimension against the number of parameters; and what weights change."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, StrMethodFormatter

from vqdistill.reporting.figures.curves import (
    Curve,
    density_curves,
    detail_limits,
    draw_curve,
    name_crosses,
    say_what_is_better,
)
from vqdistill.reporting.figures.layout import legend_of_all, one_seed
from vqdistill.reporting.style import (
    GREY,
    PAGE_WIDTH,
    RC,
    RED,
    MethodStyle,
    grid_label,
    method_styles,
    numbers_label,
    ranges_label,
)
from vqdistill.reporting.tables import in_order

CLOSE = 1.35  # ratio of two sizes whose labels would run into each other
FLOOR = "independent Gaussians, the floor"
SMALL = 1e-3  # bits per dimension, within which the axis of differences is linear
KEYS = ["method", "grid", "codebook_size"]  # of a curve
OF_FIGURE_3 = ("deep", "flat", "quad_tree", "quad_tree_levels")


@mpl.rc_context(RC)
def density_figure(
    density: pd.DataFrame, sizes: pd.DataFrame, teachers: pd.DataFrame | None = None
) -> Figure:
    """Figure 1 from density, model_sizes and teacher: all but those of figure 3.

    Left everything, on a logarithmic axis; right the range in which the best of all models lie.
    Marks and lines are means over seeds, thin lines single seeds, each method with its standard
    weights.

    Short lines at the right edge are the BPD of test images under p(x|z(x)), with their own codes,
    of each grid's VQ-VAE with the largest codebook.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5.0), layout="constrained")
    everything, detail = figure.subplots(1, 2, width_ratios=(1, 1.5))
    test = density[(density["split"] == "test") & ~density["method"].isin(OF_FIGURE_3)]
    curves = density_curves(test)
    low, high = detail_limits(curves)
    for axes in (everything, detail):
        for curve in curves:
            draw_curve(axes, curve)
        axes.set_xscale("log")
        axes.margins(x=0.05)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    _show_everything(everything, curves, (low, high))
    detail.set_ylim(low, high)
    for curve in curves:
        if curve.method == "exm":
            name_crosses(detail, curve)
    if teachers is not None:
        _reconstructions(detail, teachers[teachers["split"] == "test"])
    for axes in (everything, detail):
        _floor(axes, test)
    _teacher_sizes(detail, test, sizes)
    say_what_is_better(detail)
    figure.supxlabel("number of parameters", fontsize=8)
    everything.set_ylabel("test bits per dimension (lower is better)")
    _legend(figure, detail, test)
    return figure


@mpl.rc_context(RC)
def weights_figure(density: pd.DataFrame) -> Figure:
    """BPD with prior weights p(z) (Eq. 1) less BPD with uniform ones (Eq. 2), one panel a grid.

    From density.csv: differences are taken seed by seed, and thin lines are single seeds (of
    controls none). Marks are means, of each method's largest codebook; ExM has crosses, one for
    each K.
    """
    table = density[(density["split"] == "test") & density["weights"].isin(["prior", "uniform"])]
    table = table[table["grid"] != "-"]
    bpd = table.pivot_table("bpd", [*KEYS, "n_parameters", "seed"], "weights").dropna()
    differences = (bpd["prior"] - bpd["uniform"]).rename("difference").reset_index()
    styles, grids = method_styles(table["method"]), sorted(differences["grid"].unique())
    figure = Figure(figsize=(PAGE_WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, max(len(grids), 1), squeeze=False, sharey=True)[0]
    for axes, grid in zip(panels, grids, strict=False):
        axes.axhline(0, color=GREY, linestyle=":", linewidth=1.0)
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=SMALL, linscale=0.5)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        of_grid = differences[differences["grid"] == grid]
        curves = [_differences(of_grid, method, styles[method]) for method, _ in in_order(of_grid)]
        for curve in curves:
            draw_curve(axes, curve, "difference")
        for curve in curves:
            if curve.method == "exm":
                name_crosses(axes, curve, "difference")
        largest = numbers_label("dmrs", of_grid["codebook_size"].max())
        selected = table[(table["grid"] == grid) & (table["method"] != "exm")]
        components = ranges_label("N", selected["n_components"])
        axes.set_title(f"{grid_label(grid)}, {largest}, {components}")
    legend_of_all(figure, columns=6, more=[one_seed()])
    figure.supxlabel("number of parameters", fontsize=8)
    panels[0].set_ylabel(
        "test bits per dimension, prior − uniform weights\n(above 0: uniform weights are better)"
    )
    return figure


def _differences(table: pd.DataFrame, method: str, style: MethodStyle) -> Curve:
    """A method's differences on a grid: with its largest codebook, of ExM with all."""
    rows = table[table["method"] == method]
    if method == "exm":
        return Curve(method, rows, style.label, style, "none")
    rows = rows[rows["codebook_size"] == rows["codebook_size"].max()]
    return Curve(method, rows, style.label, style, "-")


def _show_everything(axes: Axes, curves: list[Curve], detail: tuple[float, float]) -> None:
    """The logarithmic axis of all values, with the range of the other panel on it."""
    values = np.concatenate([curve.rows["bpd"] for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_yscale("log")
    low, high = max(detail[0], values.min() / 2), detail[1]
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
    axes.set_ylim(low / 1.6, 1.6 * max(values.max(), high))
    axes.axhspan(low, high, color="0.9", linewidth=0, zorder=0)
    axes.annotate(
        "the range on the right", (0.02, low), (0, -2), va="top", fontsize=7, color=GREY,
        xycoords=axes.get_yaxis_transform(), textcoords="offset points",
    )  # fmt: skip


def _floor(axes: Axes, density: pd.DataFrame) -> None:
    """A thin line at what a Gaussian a pixel has: the plain mixture of one component."""
    floor = density[(density["method"] == "gmm") & (density["size"] == 1)]
    if len(floor):
        value, colour = floor["bpd"].mean(), method_styles(["gmm"])["gmm"].colour
        axes.axhline(value, color=colour, linewidth=0.7, zorder=1, label=FLOOR)


def _teacher_sizes(axes: Axes, density: pd.DataFrame, sizes: pd.DataFrame) -> None:
    """Dotted vertical lines at encoder + codebook + decoder of VQ-VAEs, red at CM's decoder, with
    their names above the panel."""
    distilled = density[(density["grid"] != "-") & (density["method"] != "exm")]
    if not len(distilled):
        distilled = density[density["grid"] != "-"]
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
        lines.append((_one_size(decoder), "CM's decoder", RED))
    names = 0
    for x, name, colour in _merged(lines):
        axes.axvline(x, linestyle=":", color=colour, linewidth=1.1, zorder=1)
        axes.annotate(
            name, (x, 1), (0, 2 + 8 * (names % 3)), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", color=colour, fontsize=7, ha="center",
        )  # fmt: skip
        names += bool(name)


def _merged(lines: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """The vertical lines from left to right; of those that stand too close for labels of their own,
    the last one's label stands for all."""
    merged: list[tuple[float, str, str]] = []
    for x, name, colour in sorted(lines):
        if merged and x / merged[-1][0] < CLOSE and merged[-1][2] == colour:
            name = "VQ-VAEs"
            merged[-1] = (merged[-1][0], "", colour)
        merged.append((x, name, colour))
    return merged


def _one_size(parts: pd.DataFrame) -> float:
    return float(parts.groupby("seed")["n_parameters"].sum().mean())


def _reconstructions(axes: Axes, teachers: pd.DataFrame) -> None:
    """Short lines at the right edge, the highest labelled above itself and the lowest below."""
    values = {}
    for grid, rows in teachers.groupby("grid"):
        largest = rows[rows["codebook_size"] == rows["codebook_size"].max()]
        values[grid] = float(largest["reconstruction_bpd"].mean())
    low, high = axes.get_ylim()
    values = {grid: value for grid, value in values.items() if value < high}
    for grid, value in values.items():
        low = min(low, value - 0.05 * (high - value))
        axes.set_ylim(bottom=low)
        axes.axhline(value, xmin=0.97, color=GREY, linewidth=1.2)
        places = {max(values.values()): "bottom", min(values.values()): "top"}
        axes.annotate(
            f"VQ-VAE {grid_label(grid)},\nown codes", (1, value), (4, 0), ha="left",
            va=places.get(value, "center") if len(values) > 1 else "center",
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", fontsize=7, color=GREY,
        )  # fmt: skip


def _legend(figure: Figure, axes: Axes, density: pd.DataFrame) -> None:
    """The curves and what is thin, under a line that says what the marks of a curve are."""
    n_seeds = density["seed"].nunique()
    components = density.loc[density["method"].isin(["dmrs", "dmbs", "cm"]), "n_components"]
    title = f"mean of {n_seeds} {'seeds' if n_seeds > 1 else 'seed'}"
    if len(components):
        title += f"; marks of a curve, from left to right: {ranges_label('N', components)}"
    figure.legend(
        handles=[*axes.get_legend_handles_labels()[0], one_seed()], title=title,
        title_fontsize=7, loc="outside upper center", ncols=3, handlelength=3.4,
    )  # fmt: skip
