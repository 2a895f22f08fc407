"""What selecting latents costs: counted prior evaluations against the number of components."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vqdistill.reporting.figures.layout import legend_of_all, panels
from vqdistill.reporting.style import GREY, RC, grid_label, marks, method_styles
from vqdistill.reporting.tables import t_interval

FAR = 1e4  # an enumeration above this times the largest count is told by an arrow, not drawn


@mpl.rc_context(RC)
def costs_figure(costs: pd.DataFrame) -> Figure:
    """Evaluated p(z_i = k | z_<i, c) of each selection against N, one panel per grid and K.

    Marks are means and bands 95 % t-intervals over seeds. Dotted: N·H·W·K; grey: K^HW, the
    enumeration, or an arrow with its size where it lies far above the axis.
    """
    styles = method_styles(costs["method"])
    selected = costs[costs["method"] != "exm"]  # enumeration alone is no curve
    shown = selected if len(selected) else costs
    teachers = sorted(set(shown[["grid", "codebook_size"]].itertuples(index=False, name=None)))
    figure, drawn = panels(len(teachers), at_most=3, height=2.4, above=0.5)
    for axes, (grid, codes) in zip(drawn, teachers, strict=True):
        table = costs[(costs["grid"] == grid) & (costs["codebook_size"] == codes)]
        for method, style in styles.items():
            _curve(axes, table[table["method"] == method], style)
        height, cells = map(int, grid.split("x"))
        n = np.sort(table["n_components"].unique())
        axes.plot(n, n * height * cells * float(codes), ":", color="black", label="N·H·W·K")
        _enumeration(axes, float(table["latents_enumerated"].iloc[0]))
        axes.set_xscale("log", base=2)
        axes.set_title(f"{grid_label(grid)}, K = {codes}")
    legend_of_all(figure, columns=3 if len(teachers) == 1 else 6)
    figure.supxlabel("number of components N", fontsize=8)
    figure.supylabel("prior evaluations", fontsize=8)
    return figure


def _curve(axes, table: pd.DataFrame, style) -> None:
    """Counts above 0 only: a method that never asks the prior has no place on a log axis."""
    table = table[table["evaluations"] > 0]
    if not len(table):
        return
    counts = table.groupby("n_components")["evaluations"]
    rows = np.array([t_interval(values) for _, values in counts])  # [n_sizes, 3]
    n = list(counts.groups)
    axes.plot(n, rows[:, 0], label=style.label, alpha=0.9, **marks(style))
    low = np.maximum(rows[:, 1], rows[:, 0] / 10)  # a log axis has no place for 0
    axes.fill_between(n, low, rows[:, 2], color=style.colour, alpha=0.18, linewidth=0)


def _enumeration(axes, latents: float) -> None:
    axes.set_yscale("log")
    highest = max(line.get_ydata().max() for line in axes.lines)
    exponent = int(np.floor(np.log10(latents)))
    size = f"${latents / 10**exponent:.1f}\\times 10^{{{exponent}}}$"
    if latents <= FAR * highest:
        axes.axhline(latents, color=GREY, linewidth=1.0)
        axes.annotate(
            f"$K^{{HW}}$ = {size}", (0.02, latents), (0, 2), fontsize=7, color=GREY,
            xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
        _raise_top(axes, 3 * max(latents, highest))
        return
    _raise_top(axes, 30 * highest)
    axes.annotate(
        f"enumeration $K^{{HW}}$ = {size} ↑", (0.02, 0.98), xycoords="axes fraction",
        va="top", fontsize=7, color=GREY,
    )  # fmt: skip


def _raise_top(axes, top: float) -> None:
    axes.set_ylim(top=max(top, axes.get_ylim()[1]))
