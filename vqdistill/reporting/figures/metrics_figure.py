"""Metrics of inpainting: conditional BPD, digit accuracy, sharpness and coherence."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqdistill.reporting.names import MASKS
from vqdistill.reporting.style import GREY, PAGE_WIDTH, RC, method_styles, model_label
from vqdistill.reporting.tables import in_order, largest_models

PANELS = {
    "conditional_bpd": "bits per hidden pixel (lower is better)",
    "accuracy_sample": "digit accuracy of samples (higher is better)",
    "sharpness_sample": "sharpness of samples / truth (near 1 is better)",
    "coherence_sample": "jump at the border / truth (near 1 is better)",
}


@mpl.rc_context(RC)
def metrics_figure(summary: pd.DataFrame, real_accuracy: float = 0.0) -> Figure:
    """Four metrics per mask and model from inpainting_summary, each model at its largest size.

    Marks are means and bars 95 % t-intervals over seeds. Dotted lines: the true image (ratio 1)
    and, where it is given, the classifier's accuracy on real images.
    """
    table = largest_models(summary)
    styles, models = method_styles(table["method"]), in_order(table)
    masks = [mask for mask in MASKS if mask in set(table["mask"])]
    figure = Figure(figsize=(PAGE_WIDTH, 5.0), layout="constrained")
    panels = figure.subplots(2, 2).flat
    offsets = np.linspace(-0.36, 0.36, len(models)) if len(models) > 1 else [0.0]
    for axes, (metric, title) in zip(panels, PANELS.items(), strict=True):
        for (method, grid), offset in zip(models, offsets, strict=True):
            rows = table[(table["method"] == method) & (table["grid"] == grid)]
            rows = rows.set_index("mask").reindex(masks).dropna(subset=f"{metric}_mean")
            style = styles[method]
            x = np.array([masks.index(mask) for mask in rows.index]) + offset
            mean = rows[f"{metric}_mean"]
            bars = np.array([mean - rows[f"{metric}_low"], rows[f"{metric}_high"] - mean])
            axes.errorbar(
                x, mean, yerr=bars, linestyle="none", color=style.colour, marker=style.marker,
                markerfacecolor=_face(style, grid), markersize=4.5, elinewidth=0.9,
                label=model_label(style, grid),
            )  # fmt: skip
        _finish(axes, title, masks)
    main = [method for method, _ in models if not styles[method].control]
    _keep_readable(figure.axes[0], table[table["method"].isin(main)]["conditional_bpd_mean"])
    accuracy, sharpness, coherence = figure.axes[1:]
    for axes in (sharpness, coherence):
        _reference(axes, 1.0, "truth")
    if real_accuracy:
        _reference(accuracy, real_accuracy, "real images")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.supxlabel("hidden part of the image; each model at its largest size", fontsize=8)
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return figure


def _keep_readable(axes: Axes, means: pd.Series) -> None:
    """End the axis above the worst of `means`, and say so where something lies beyond it."""
    low, high = axes.get_ylim()
    spread = max(means.max() - means.min(), 0.1)
    limits = max(low, means.min() - 0.3 * spread), min(high, means.max() + 0.3 * spread)
    axes.set_ylim(limits)
    if limits[1] < high:
        axes.set_title(f"{axes.get_title()}; some lie above")


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
