"""Metrics of inpainting: conditional BPD, digit accuracy, sharpness and coherence."""

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from vqdistill.reporting.names import MASKS
from vqdistill.reporting.style import (
    GREY,
    PAGE_WIDTH,
    RC,
    method_styles,
    model_label,
    numbers_label,
)
from vqdistill.reporting.tables import in_order, largest_models

PANELS = {
    "conditional_bpd_geometric": "bits per hidden pixel, geometric (lower is better)",
    "accuracy_sample": "digit accuracy of samples (higher is better)",
    "sharpness_sample": "sharpness of samples in greys (near the truth is better)",
    "coherence_sample": "jump at the border in greys (near the truth is better)",
}


@mpl.rc_context(RC)
def metrics_figure(summary: pd.DataFrame, real_accuracy: float = 0.0) -> Figure:
    """Four metrics per mask and model from inpainting_summary, each model at its largest size.

    Marks are means and bars 95 % t-intervals over seeds; of bits, which have no bound, both are
    geometric. Short lines: the true images; dotted: the classifier's accuracy on real images,
    where it is given.
    """
    table = largest_models(summary)
    styles, models = method_styles(table["method"]), in_order(table)
    masks = [mask for mask in MASKS if mask in set(table["mask"])]
    figure = Figure(figsize=(PAGE_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 2).flat
    offsets = np.linspace(-0.36, 0.36, len(models)) if len(models) > 1 else [0.0]
    for axes, (metric, title) in zip(panels, PANELS.items(), strict=True):
        for (method, grid), offset in zip(models, offsets, strict=True):
            rows = table[(table["method"] == method) & (table["grid"] == grid)]
            rows = rows.set_index("mask").reindex(masks).dropna(subset=f"{metric}_mean")
            _bars(axes, rows, metric, masks, offset, styles[method])
        _finish(axes, title, masks)
    bits, accuracy, *pictures = figure.axes
    main = [method for method, _ in models if not styles[method].control]
    _keep_bits_readable(bits, table[table["method"].isin(main)]["conditional_bpd_geometric_mean"])
    if real_accuracy:
        _reference(accuracy, real_accuracy, "real images")
    _keep_readable(accuracy, [*table["accuracy_sample_mean"], real_accuracy or np.nan])
    for axes, metric in zip(pictures, ("sharpness", "coherence"), strict=True):
        truth = table.groupby("mask")[f"{metric}_truth_mean"].mean().reindex(masks)
        for place, value in enumerate(truth):
            axes.plot([place - 0.47, place + 0.47], [value, value], color="black", linewidth=1.0)
        _keep_readable(axes, [*table[f"{metric}_sample_mean"], *truth])
    handles = [*bits.get_legend_handles_labels()[0], Line2D([], [], color="black", label="truth")]
    figure.supxlabel("hidden part of the image; bars that reach an edge go on", fontsize=8)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 3))
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, metric: str, masks: list[str], offset: float, style):
    """A model's means with their intervals, one a mask; rows: by mask."""
    if not len(rows):
        return
    model, mean = rows.iloc[0], rows[f"{metric}_mean"]
    numbers = numbers_label(
        model["method"], model["codebook_size"], model["n_components"], model["size"]
    )
    label = ", ".join(filter(None, [model_label(style, model["grid"]), numbers]))
    bars = np.array([mean - rows[f"{metric}_low"], rows[f"{metric}_high"] - mean])
    axes.errorbar(
        np.array([masks.index(mask) for mask in rows.index]) + offset, mean, yerr=bars,
        linestyle="none", color=style.colour, marker=style.marker, markersize=4.5, elinewidth=0.9,
        markerfacecolor=_face(style, model["grid"]), label=label,
    )  # fmt: skip


def _keep_bits_readable(axes: Axes, means: pd.Series) -> None:
    """A logarithmic axis that ends above the worst of `means`, and says so where something lies
    beyond it."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    means = means[np.isfinite(means)]
    if not len(means):
        return
    limits = means.min() / 1.1, 1.2 * means.max()
    axes.set_ylim(max(low, limits[0]), min(high, limits[1]))
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(ScalarFormatter())
    axes.tick_params(axis="y", which="minor", labelsize=7)
    if limits[1] < high:
        axes.set_title(f"{axes.get_title()}; some lie above")


def _keep_readable(axes: Axes, values: Iterable[float]) -> None:
    """End the axis beyond the least and the largest of some values, however long the bars are."""
    low, high = axes.get_ylim()
    least, largest = np.nanmin([*values]), np.nanmax([*values])
    margin = 0.3 * (largest - least) or 0.1
    axes.set_ylim(max(low, least - margin), min(high, largest + margin))


def _face(style, grid: str) -> str:
    """Hollow for the coarser grids, half-tone for finer ones, so that both are told apart."""
    if style.filled or grid == "-":
        return style.colour
    paler = 0.5 + 0.5 * np.array(mpl.colors.to_rgb(style.colour))
    return "white" if grid.startswith("2x") else mpl.colors.to_hex(paler)


def _finish(axes: Axes, title: str, masks: list[str]) -> None:
    axes.set_title(title)
    axes.margins(y=0.1)
    axes.set_xticks(range(len(masks)), masks)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(masks) - 0.5)
    for edge in np.arange(len(masks) - 1) + 0.5:
        axes.axvline(edge, color="0.88", linewidth=0.6, zorder=0)


def _reference(axes: Axes, value: float, text: str) -> None:
    axes.axhline(value, color=GREY, linestyle=":", linewidth=1.0, zorder=0)
    axes.annotate(
        text, (1.0, value), (0, 2), xycoords=axes.get_yaxis_transform(), ha="right", va="bottom",
        textcoords="offset points", fontsize=7, color=GREY,
    )  # fmt: skip
