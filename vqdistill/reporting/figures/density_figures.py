"""Figure 1: test bits per dimension against the number of parameters; and what weights change."""

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatter, StrMethodFormatter

from vqdistill.reporting.figures.layout import SEED, legend_of_all, one_seed
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
    numbers_label,
    ranges_label,
)
from vqdistill.reporting.tables import in_order, standard_weights

CLOSE = 1.35  # ratio of two sizes whose labels would run into each other
FLOOR = "independent Gaussians, the floor"
SMALL = 1e-3  # bits per dimension, within which the axis of differences is linear
KEYS = ["method", "grid", "codebook_size"]  # of a curve
READABLE = [withStroke(linewidth=2, foreground="white")]


@dataclass(frozen=True)
class Curve:
    """One line of the figure: rows of density_summary and of density, ascending in the number of
    parameters."""

    method: str
    rows: pd.DataFrame
    seeds: pd.DataFrame
    label: str
    style: MethodStyle
    line: object  # matplotlib line style; 'none' for the crosses of ExM


@mpl.rc_context(RC)
def density_figure(
    summary: pd.DataFrame,
    density: pd.DataFrame,
    sizes: pd.DataFrame,
    teachers: pd.DataFrame | None = None,
) -> Figure:
    """Figure 1 from density_summary, density, model_sizes and teacher.

    Left everything, on a logarithmic axis; right the range in which the best of all models lie.
    Marks and lines are means over seeds, thin lines single seeds, each method with its standard
    weights.

    Short lines at the right edge are the BPD of test images under p(x|z(x)), with their own codes,
    of each grid's VQ-VAE with the largest codebook.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5.0), layout="constrained")
    everything, detail = figure.subplots(1, 2, width_ratios=(1, 1.5))
    test = summary["split"] == "test"
    curves = density_curves(summary[test], density[density["split"] == "test"])
    low, high = detail_limits(curves)
    for axes in (everything, detail):
        for curve in curves:
            _draw(axes, curve)
        axes.set_xscale("log")
        axes.margins(x=0.05)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    _show_everything(everything, curves, (low, high))
    detail.set_ylim(low, high)
    for curve in curves:
        if curve.method == "exm":
            _name_crosses(detail, curve.rows, "bpd_mean", curve.style)
    if teachers is not None:
        _reconstructions(detail, teachers[teachers["split"] == "test"])
    for axes in (everything, detail):
        _floor(axes, summary[test])
    _teacher_sizes(detail, summary, sizes)
    _say_what_is_better(detail)
    figure.supxlabel("number of parameters", fontsize=8)
    everything.set_ylabel("test bits per dimension (lower is better)")
    _legend(figure, detail, summary[test])
    return figure


@mpl.rc_context(RC)
def weights_figure(density: pd.DataFrame) -> Figure:
    """BPD with prior weights p(z) (Eq. 1) less BPD with uniform ones (Eq. 2), one panel a grid.

    From density.csv: differences are taken seed by seed, and thin lines are single seeds. Marks are
    means, of each method's largest codebook; ExM has crosses, one for each K.
    """
    table = density[(density["split"] == "test") & (density["grid"] != "-")]
    keys = [*KEYS, "n_parameters", "seed"]
    bpd = table.pivot_table("bpd", keys, "weights").dropna()
    differences = (bpd["prior"] - bpd["uniform"]).rename("difference").reset_index()
    styles, grids = method_styles(table["method"]), sorted(differences["grid"].unique())
    figure = Figure(figsize=(PAGE_WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, max(len(grids), 1), squeeze=False, sharey=True)[0]
    for axes, grid in zip(panels, grids, strict=False):
        axes.axhline(0, color=GREY, linestyle=":", linewidth=1.0)
        of_grid = differences[differences["grid"] == grid]
        largest = of_grid["codebook_size"].max()
        for method, _ in in_order(of_grid):
            model = of_grid[of_grid["method"] == method]
            if method != "exm":
                model = model[model["codebook_size"] == model["codebook_size"].max()]
            _difference(axes, model, styles[method], "none" if method == "exm" else "-")
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=SMALL, linscale=0.5)
        exact = of_grid[of_grid["method"] == "exm"].groupby(KEYS, as_index=False)
        if len(exact):
            crosses = exact[["n_parameters", "difference"]].mean()
            _name_crosses(axes, crosses, "difference", styles["exm"])
        components = ranges_label("N", _components(table, grid))
        axes.set_title(f"{grid_label(grid)}, {numbers_label('dmrs', largest)}, {components}")
        axes.grid(axis="y", color="0.92", linewidth=0.6)
    legend_of_all(figure, columns=6, more=[one_seed()])
    figure.supxlabel("number of parameters", fontsize=8)
    panels[0].set_ylabel(
        "test bits per dimension, prior − uniform weights\n(above 0: uniform weights are better)"
    )
    return figure


def _components(table: pd.DataFrame, grid: str) -> list[int]:
    """The N of the models that are distilled on a grid, ExM apart."""
    distilled = table[(table["grid"] == grid) & (table["method"] != "exm")]
    return sorted(distilled["n_components"].unique())


def _difference(axes: Axes, model: pd.DataFrame, style: MethodStyle, line: str) -> None:
    """One method's differences over the number of parameters: means, and each seed."""
    mean = model.groupby("n_parameters")["difference"].mean()
    axes.plot(mean.index, mean, linestyle=line, markersize=4, label=style.label, **marks(style))
    if line == "none":
        axes.plot(model["n_parameters"], model["difference"], "_", color=style.colour, **SEED)
        return
    for _, run in model.groupby("seed"):
        run = run.sort_values("n_parameters")
        axes.plot(run["n_parameters"], run["difference"], color=style.colour, **SEED)


def density_curves(summary: pd.DataFrame, density: pd.DataFrame) -> list[Curve]:
    """The curves of density_summary and density (one split), in the order of display.

    ExM gives one set of points over K per grid, every other method one curve per grid and K.
    """
    table, single = standard_weights(summary), standard_weights(density)
    styles = method_styles(table["method"])
    others = table[table["method"] != "exm"]
    lines = line_styles(others[["grid", "codebook_size"]].itertuples(index=False, name=None))
    curves = []
    for method, grid in in_order(table):
        model = _of(table, method=method, grid=grid)
        style, label = styles[method], model_label(styles[method], grid)
        seeds = _of(single, method=method, grid=grid)
        if method == "exm":
            name = f"{label} (K beside it)"
            curves.append(Curve(method, model, seeds, name, style, "none"))
            continue
        for codes, rows in model.groupby("codebook_size"):
            numbers = numbers_label(method, codes)
            if rows["size"].any():
                numbers = ranges_label(style.letter, rows["size"])
            name = ", ".join(filter(None, [label, numbers]))
            of_codes = seeds[seeds["codebook_size"] == codes]
            curves.append(Curve(method, rows, of_codes, name, style, lines[grid, codes]))
    return curves


def _of(table: pd.DataFrame, **keys: object) -> pd.DataFrame:
    """The rows with these keys, ascending in the number of parameters."""
    for key, value in keys.items():
        table = table[table[key] == value]
    return table.sort_values("n_parameters")


def detail_limits(curves: list[Curve]) -> tuple[float, float]:
    """The range of BPD in which most models are at their best.

    From the best mean of all to as far above the middle one of all curves' best means as that is
    above the best, and a little more; at least one bit. Controls have no say.
    """
    main = [c for c in curves if not c.style.control] or curves
    best = np.sort([c.rows["bpd_mean"].min() for c in main])
    low, middle = best[0], best[len(best) // 2]
    high = low + max(1.0, 2.2 * (middle - low)) if np.isfinite(middle) else low + 1.0
    return low - 0.06 * (high - low), high


def _show_everything(axes: Axes, curves: list[Curve], detail: tuple[float, float]) -> None:
    """The logarithmic axis of all values, with the range of the other panel on it."""
    values = np.concatenate([curve.seeds["bpd"] for curve in curves])
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


def _draw(axes: Axes, curve: Curve) -> None:
    """A curve, and thin the seeds that it is the mean of; controls without."""
    rows, style = curve.rows, curve.style
    line = {"linestyle": curve.line, "markersize": 6 if curve.method == "exm" else 3.6}
    line |= {"markersize": 2.8, "alpha": 0.6} if style.control else {}
    axes.plot(
        rows["n_parameters"], rows["bpd_mean"], label=curve.label, markeredgewidth=1.0,
        zorder=5 if curve.method == "exm" else 3, **line, **marks(style),
    )  # fmt: skip
    if style.control or curve.seeds["seed"].nunique() == 1:
        return
    if curve.method == "exm":
        axes.plot(curve.seeds["n_parameters"], curve.seeds["bpd"], "_", color=style.colour, **SEED)
        return
    for _, run in curve.seeds.groupby("seed"):
        axes.plot(run["n_parameters"], run["bpd"], color=style.colour, zorder=2, **SEED)


def _name_crosses(axes: Axes, rows: pd.DataFrame, value: str, style: MethodStyle) -> None:
    """K right of each cross of ExM that is shown."""
    low, high = axes.get_ylim()
    for codes, x, y in zip(rows["codebook_size"], rows["n_parameters"], rows[value], strict=True):
        if low < y < high:
            axes.annotate(
                str(codes), (x, y), (5, 0), va="center", textcoords="offset points", fontsize=7,
                color=style.colour, zorder=7, path_effects=READABLE,
            )  # fmt: skip


def _floor(axes: Axes, summary: pd.DataFrame) -> None:
    """A thin line at what a Gaussian a pixel has: the plain mixture of one component."""
    floor = summary[(summary["method"] == "gmm") & (summary["size"] == 1)]
    if len(floor):
        value, colour = floor["bpd_mean"].iloc[0], method_styles(["gmm"])["gmm"].colour
        axes.axhline(value, color=colour, linewidth=0.7, zorder=1, label=FLOOR)


def _teacher_sizes(axes: Axes, summary: pd.DataFrame, sizes: pd.DataFrame) -> None:
    """Dotted vertical lines at encoder + codebook + decoder of VQ-VAEs, red at CM's decoder, with
    their names above the panel."""
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


def _say_what_is_better(axes: Axes) -> None:
    axes.annotate(
        "better", (0.02, 0.02), (0.1, 0.09), xycoords="axes fraction", textcoords="axes fraction",
        fontsize=7, color=GREY, ha="center",
        arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.8},
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes, summary: pd.DataFrame) -> None:
    """The curves and what is thin, under a line that says what the marks of a curve are."""
    n_seeds = ranges_label("", summary["n_seeds"])
    components = summary.loc[summary["method"].isin(["dmrs", "dmbs", "cm"]), "n_components"]
    title = f"mean of {n_seeds} {'seeds' if n_seeds != '1' else 'seed'}"
    if len(components):
        title += f"; marks of a curve, from left to right: {ranges_label('N', components)}"
    figure.legend(
        handles=[*axes.get_legend_handles_labels()[0], one_seed()], title=title,
        title_fontsize=7, loc="outside upper center", ncols=3, handlelength=3.4,
    )  # fmt: skip
