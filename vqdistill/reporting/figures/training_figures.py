"""How the models were trained: curves of the losses, and what became of the codebooks."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vqdistill.reporting.figures.layout import panels
from vqdistill.reporting.style import GREY, RC, grid_label, model_order, model_title

TRAINING, VALIDATION, BEST = "#0072B2", "#D55E00", "#000000"


@mpl.rc_context(RC)
def training_figure(history: pd.DataFrame) -> Figure:
    """Training and validation loss against the epoch, one panel a model, one thin line a seed.

    The axis of each panel leaves out what is far above most of its later epochs, so that the end
    of the training can be read.
    """
    models = sorted(history["model"].unique(), key=model_order)
    figure, drawn = panels(len(models), at_most=4, height=1.5, above=0.5, sharey=False)
    for axes, model in zip(drawn, models, strict=True):
        table = history[history["model"] == model]
        for _, run in table.groupby("seed"):
            run = run.sort_values("epoch")
            best = run[run["best"].astype(bool)].tail(1)
            axes.plot(run["epoch"], run["train_loss"], "--", color=TRAINING, linewidth=0.8)
            axes.plot(run["epoch"], run["validation_loss"], "-", color=VALIDATION, linewidth=0.9)
            axes.plot(best["epoch"], best["validation_loss"], "o", color=BEST, markersize=3)
        axes.set_ylim(*_readable(table))
        axes.set_title(model_title(model).replace(", ", "\n", 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles = [
        mpl.lines.Line2D([], [], color=TRAINING, linestyle="--", label="training"),
        mpl.lines.Line2D([], [], color=VALIDATION, label="validation"),
        mpl.lines.Line2D([], [], color=BEST, marker="o", linestyle="none", label="best epoch"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    figure.supxlabel("epoch; each line is one seed", fontsize=8)
    figure.supylabel("loss, lower is better (nats an image; of priors nats a code)", fontsize=8)
    return figure


@mpl.rc_context(RC)
def codebook_figure(codebook: pd.DataFrame) -> Figure:
    """Frequency of each code among the codes of the training images, by rank, one line a seed."""
    teachers = sorted(set(codebook[["grid", "codebook_size"]].itertuples(index=False, name=None)))
    figure, drawn = panels(len(teachers), at_most=3, height=1.9, above=0.35)
    for axes, (grid, codes) in zip(drawn, teachers, strict=True):
        table = codebook[(codebook["grid"] == grid) & (codebook["codebook_size"] == codes)]
        used = table[table["frequency"] > 0]
        for _, run in used.groupby("seed"):
            run = run.sort_values("rank")
            axes.plot(
                run["rank"], run["frequency"], color=TRAINING, linewidth=1.0, alpha=0.8,
                marker="o" if len(run) < 40 else "", markersize=2,
            )  # fmt: skip
        axes.axhline(1 / codes, color=GREY, linestyle=":", linewidth=1.0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(0.8, codes * 1.25)
        ticks = (2 if codes <= 16 else 4) ** np.arange(codes.bit_length())
        axes.set_xticks(ticks[ticks <= codes], [str(n) for n in ticks if n <= codes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(f"{grid_label(grid)}, K = {codes}: {_used(used, codes)}")
        axes.annotate(
            "1/K", (1, 1 / codes), (0, 2), xycoords=axes.get_yaxis_transform(), fontsize=7,
            textcoords="offset points", ha="right", color=GREY,
        )  # fmt: skip
    figure.supxlabel("rank of the code; each line is one seed", fontsize=8)
    figure.supylabel("frequency (near 1/K is better)", fontsize=8)
    return figure


def _readable(table: pd.DataFrame) -> tuple[float, float]:
    """Range of the losses of the later three quarters of the epochs, and a margin.

    What is above the upper quartile by more than three times the quartiles' distance is left out,
    but not a best epoch.
    """
    later = table[table["epoch"] >= table["epoch"].min() + 0.25 * np.ptp(table["epoch"])]
    best = table.loc[table["best"].astype(bool), "validation_loss"].to_numpy()
    losses = np.concatenate([later["train_loss"], later["validation_loss"], best])
    lower, upper = np.quantile(losses, [0.25, 0.75])
    low, high = losses.min(), min(losses.max(), max(best.max(), upper + 3 * (upper - lower)))
    margin = 0.08 * max(high - low, 1e-6 * max(1.0, abs(losses).max()))
    return low - margin, high + 3 * margin


def _used(used: pd.DataFrame, codes: int) -> str:
    numbers = used.groupby("seed").size()
    if not len(numbers):
        return "none used"
    low, high = numbers.min(), numbers.max()
    return f"{low} used" if low == high else f"{low}–{high} used"
