"""What selecting latents costs: counted prior evaluations against the number of components."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vqdistill.reporting.figures.layout import SEED, legend_of_all, one_seed, panels
from vqdistill.reporting.style import GREY, RC, grid_label, marks, method_styles

FAR = 1e4  # what is above this times the largest count is told by an arrow, not drawn
ALL = "$K^{HW}$"
EXACT = ": all latents under each of ten classes"


@mpl.rc_context(RC)
def costs_figure(costs: pd.DataFrame) -> Figure:
    """Evaluated p(z_i = k | z_<i, c) of each selection against N, one panel per grid and K.

    Marks are means over seeds, thin lines single seeds. Dotted: N·H·W·K; grey: the number of all
    latents K^HW, or an arrow with its size where it lies far above the axis.
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
        _all_latents(axes, float(table["latents_enumerated"].iloc[0]))
        axes.set_xscale("log", base=2)
        axes.set_title(f"{grid_label(grid)}, K = {codes}")
    everything = Line2D([], [], color=GREY, linewidth=1.0, label=f"all latents, {ALL}")
    legend_of_all(figure, columns=2 if len(teachers) == 1 else 4, more=[everything, one_seed()])
    figure.supxlabel("number of components N; a single mark is one selection for all N", fontsize=8)
    figure.supylabel("prior evaluations (fewer are better)", fontsize=8)
    return figure


def _curve(axes, table: pd.DataFrame, style) -> None:
    """Counts above 0 only: a method that never asks the prior has no place on a log axis."""
    table = table[table["evaluations"] > 0]
    if not len(table):
        return
    mean = table.groupby("n_components")["evaluations"].mean()
    label = f"{style.label}{EXACT if (table['method'] == 'exm').any() else ''}"
    axes.plot(mean.index, mean, label=label, alpha=0.9, **marks(style))
    for _, run in table.sort_values("n_components").groupby("seed"):
        axes.plot(run["n_components"], run["evaluations"], color=style.colour, zorder=1, **SEED)


def _all_latents(axes, latents: float) -> None:
    axes.set_yscale("log")
    highest = max(line.get_ydata().max() for line in axes.lines)
    exponent = int(np.floor(np.log10(latents)))
    size = f"${latents / 10**exponent:.1f}\\times 10^{{{exponent}}}$"
    if latents <= FAR * highest:
        axes.axhline(latents, color=GREY, linewidth=1.0)
        axes.annotate(
            f"{ALL} = {size}", (0.02, latents), (0, 2), fontsize=7, color=GREY,
            xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
        _raise_top(axes, 3 * max(latents, highest))
        return
    _raise_top(axes, 30 * highest)
    axes.annotate(
        f"{ALL} = {size} ↑", (0.02, 0.98), xycoords="axes fraction",
        va="top", fontsize=7, color=GREY,
    )  # fmt: skip


def _raise_top(axes, top: float) -> None:
    axes.set_ylim(top=max(top, axes.get_ylim()[1]))
