"""Figure 3: bits against parameters of all models, deep circuits among them, and of others'."""

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, StrMethodFormatter

from vqdistill.reporting.figures.curves import (
    Curve,
    density_curves,
    detail_limits,
    draw_curve,
    say_what_is_better,
)
from vqdistill.reporting.published import PUBLISHED, Published
from vqdistill.reporting.style import GREY, PAGE_WIDTH, RC, grid_label, marks, numbers_label

PANELS = {
    "bpd": "bits per dimension (density)",
    "bpd_discrete": "discrete bits per dimension (grey levels)",
}
CONTROLS = ("random", "frequent")  # are in figure 1
TICKS = (1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10, 15, 20)
STAR = {"marker": "*", "color": "0.55", "linestyle": "none", "markersize": 6}


@mpl.rc_context(RC)
def circuits_figure(density: pd.DataFrame) -> Figure:
    """Figure 3 from density.csv: test bits per dimension against the number of parameters.

    One panel of bpd, and one of bpd_discrete where there are any, with published results. Marks
    and lines are means over seeds, thin lines single seeds. What is distilled from one VQ-VAE has
    one line style, and its exact density is a horizontal line. What is worse than the ends of the
    panels is left out, with the lines that lead there.
    """
    test = density[(density["split"] == "test") & ~density["method"].isin(CONTROLS)]
    curves = density_curves(test)
    metrics = [metric for metric in PANELS if metric in test and test[metric].notna().any()]
    published = PUBLISHED.get(test["dataset"].iloc[0], ()) if "bpd_discrete" in metrics else ()
    figure = Figure(figsize=(PAGE_WIDTH, 4.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw(axes, curves, metric, published if metric == "bpd_discrete" else ())
    panels[0].set_ylabel("test bits (lower is better)")
    seeds = test["seed"].nunique()
    said = f"means of {seeds} seeds, thin lines single seeds" if seeds > 1 else "one seed"
    figure.supxlabel(f"number of parameters; {said}", fontsize=8)
    _legends(figure, curves, published)
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], metric: str, published: Sequence[Published]) -> None:
    """All curves on logarithmic axes, from the best bits of all to the worse end of most."""
    curves = [curve for curve in curves if curve.rows[metric].notna().any()]
    _, top = detail_limits(curves, metric)
    bits = [curve.means(metric)[metric].min() for curve in curves]
    best = min([*bits, *(one.bits for one in published)])
    for curve in curves:
        draw_curve(axes, curve, metric, top)
        if curve.method == "exm":
            _exact_densities(axes, curve, metric, top, _teachers(curves))
    for one in published:
        axes.plot(one.n_parameters, one.bits, **STAR)
    span = top / best
    axes.set_title(PANELS[metric])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(best / span**0.15, top * span**0.03)  # with room for an arrow below
    axes.set_yticks([tick for tick in TICKS if best <= tick <= top])
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    say_what_is_better(axes)


def _exact_densities(axes: Axes, exact: Curve, metric: str, top: float, teachers: dict) -> None:
    """A horizontal line at the exact density of each of the teachers that is known."""
    for grid, codes, _, bits in exact.means(metric).itertuples(index=False, name=None):
        if (grid, codes) in teachers and bits <= top:
            line = teachers[grid, codes]
            axes.axhline(bits, color=exact.style.colour, linestyle=line, linewidth=0.8)


def _teachers(curves: Sequence[Curve]) -> dict[tuple[str, int], object]:
    """The line style of each VQ-VAE, by grid and K, from which more than ExM is distilled."""
    found = {tuple(c.rows[["grid", "codebook_size"]].iloc[0]): c.line for c in curves}
    return {key: line for key, line in sorted(found.items()) if line != "none" and key[0] != "-"}


def _legends(figure: Figure, curves: Sequence[Curve], published: Sequence[Published]) -> None:
    """Left what is distilled and the line styles of its teachers, right what is learned."""
    distilled, learned = {}, {}
    for curve in curves:
        label = curve.style.label + (", the exact model" if curve.method == "exm" else "")
        group = learned if curve.rows["grid"].iloc[0] == "-" else distilled
        group[label] = Line2D([], [], label=label, **marks(curve.style))
    for (grid, codes), line in _teachers(curves).items():
        label = f"{grid_label(grid)}, {numbers_label('', codes)}"
        distilled[label] = Line2D([], [], color=GREY, linestyle=line, label=label)
    if published:
        learned["published"] = Line2D([], [], label="published circuits", **STAR)
    titles = {
        "left": ("distilled from a VQ-VAE without images (hollow)", distilled),
        "right": ("learned from images (filled)", learned),
    }
    for place, (title, group) in titles.items():
        if group:
            figure.legend(
                handles=list(group.values()), title=title, title_fontsize=7, alignment="left",
                loc=f"outside upper {place}", ncols=2, handlelength=3.0,
            )  # fmt: skip
