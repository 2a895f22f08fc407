"""Why a deep circuit is ahead of a flat mixture of the same teacher: its gain taken apart."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqdistill.reporting.figures.layout import SEED, legend_of_all
from vqdistill.reporting.style import (
    GREY,
    METHODS,
    PAGE_WIDTH,
    RC,
    grid_label,
    marks,
    numbers_label,
)

FLAT, DEEP = "dmrs", "deep"
TEACHER = ["grid", "codebook_size"]
INKS = {"black": "#1A1A1A", "grey": "#9A9A9A", "white": "#FFFFFF"}  # of the pixels that they are


@mpl.rc_context(RC)
def gain_figure(blocks: pd.DataFrame, places: pd.DataFrame, pixels: pd.DataFrame) -> Figure:
    """From gain_blocks, gain_places and gain_pixels: a row of three panels for each teacher.

    Left bits with the image cut into blocks; then the gain by σ of the decoder and by grey; right
    the gain by place. Means over seeds, thin lines single seeds.
    """
    teachers = sorted(set(blocks[TEACHER].itertuples(index=False, name=None)))
    height = 0.7 + 2.1 * max(1, len(teachers))
    figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    if not teachers:
        figure.text(0.5, 0.5, "no deep circuit beside DMRS in this experiment", ha="center")
        return figure
    panels = figure.subplots(len(teachers), 3, squeeze=False, width_ratios=(1.3, 1.3, 1))
    for row, (grid, codes) in zip(panels, teachers, strict=True):
        of_teacher = [
            table[(table["grid"] == grid) & (table["codebook_size"] == codes)]
            for table in (blocks, pixels, places)
        ]
        _draw_blocks(row[0], of_teacher[0])
        _draw_pixels(row[1], of_teacher[1])
        _draw_places(figure, row[2], of_teacher[2])
        row[0].set_ylabel(f"{grid_label(grid)}, {numbers_label('', codes)}\ntest bits")
    for axes, title in zip(
        panels[0],
        ("bits of Π p(block): blocks for themselves", "gain by σ of the decoder", "gain by place"),
        strict=True,
    ):
        axes.set_title(title)
    legend_of_all(figure, columns=5)
    return figure


def _draw_blocks(axes: Axes, table: pd.DataFrame) -> None:
    """Bits against the side of the blocks."""
    for method in (FLAT, DEEP):
        style, rows = METHODS[method], table[table["method"] == method]
        for _, run in rows.groupby("seed") if rows["seed"].nunique() > 1 else ():
            axes.plot(run["block"], run["bpd"], color=style.colour, **SEED)
        mean = rows.groupby("block")["bpd"].mean()
        axes.plot(mean.index, mean, label=style.label, **marks(style))
    sides = sorted(table["block"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [*map(str, sides[:-1]), "whole"])
    axes.set_xlabel("side of a block, pixels")


def _draw_pixels(axes: Axes, table: pd.DataFrame) -> None:
    """The gain as bars, one for each range of σ, with parts for black, grey and white pixels."""
    gains = _gains(table, ["sigma", "grey"], "bpd").unstack().fillna(0.0)
    shares = table[table["method"] == DEEP].groupby(["seed", "sigma"])["share"].sum()
    shares = shares.groupby("sigma").mean()
    place = np.arange(len(gains))
    for sign in (1, -1):
        end = np.zeros(len(gains))
        for grey, ink in INKS.items():
            if grey in gains:
                part = np.clip(sign * gains[grey].to_numpy(), 0, None) * sign
                label = f"gain at {grey} pixels" if sign == 1 else None
                axes.bar(
                    place, part, 0.75, end, color=ink, edgecolor=GREY, linewidth=0.6, label=label
                )
                end = end + part
    axes.axhline(0, color=GREY, linewidth=0.7)
    axes.set_xticks(place[1:] - 0.5, [f"{sigma:g}" for sigma in gains.index[1:]])
    axes.set_xticks(place, [f"{share:.0%}" for share in shares], minor=True)
    axes.tick_params(axis="x", which="minor", length=0, pad=15, labelcolor=GREY)
    axes.set_xlabel("σ, and shares of all pixels")
    axes.set_ylabel("gain in bits")


def _draw_places(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """The gain as a map of squares of the image."""
    gains = _gains(table, ["row", "column"], "bits").unstack()
    limit = np.abs(gains.to_numpy()).max()
    image = axes.imshow(gains, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("bits a pixel")
    bar.outline.set_visible(False)


def _gains(table: pd.DataFrame, keys: list[str], measure: str) -> pd.Series:
    """Bits of the flat mixture minus those of the deep circuit, mean over seeds, by keys."""
    by_method = table.pivot_table(measure, ["seed", *keys], "method")
    return (by_method[FLAT] - by_method[DEEP]).groupby(keys).mean()
