"""What all figures share: panels, a legend for all of them, and files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vqdistill.files import replacing
from vqdistill.reporting.style import COLUMN_WIDTH, GREY, PAGE_WIDTH, RC

SEED = {"linewidth": 0.5, "alpha": 0.45}  # a thin line: one seed
METADATA = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def panels(
    n: int, at_most: int, height: float, above: float, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels, `at_most` in a row: each `height` inches high, below `above` inches."""
    columns = min(at_most, n)
    rows = -(-n // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, above + height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for empty in axes[n:]:
        empty.set_axis_off()
    return figure, axes[:n]


def one_seed() -> Line2D:
    """What a legend says of thin lines."""
    return Line2D([], [], color=GREY, label="thin: one seed", **SEED | {"alpha": 1.0})


def legend_of_all(figure: Figure, columns: int, more: Sequence[Artist] = ()) -> None:
    """One legend above the figure, with each label of its panels once, and `more` handles."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    handles = [*entries.values(), *more]
    labels = [*entries, *(str(handle.get_label()) for handle in more)]
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def save(figure: Figure, stem: str | Path) -> None:
    """Write `<stem>.png` (200 dots an inch), `.pdf` and `.svg`.

    No date is stored and the ids in the SVG are fixed, so the same figure gives the same bytes.
    """
    with mpl.rc_context(RC):
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # the layout is found, and the same for all three
    for kind, metadata in METADATA.items():
        with mpl.rc_context(RC), replacing(f"{stem}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
