"""What all figures share: panels, a legend for all of them, and files."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqdistill.files import replacing
from vqdistill.reporting.style import COLUMN_WIDTH, PAGE_WIDTH, RC

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


def legend_of_all(figure: Figure, columns: int) -> None:
    """One legend above the figure, with each label of its panels once."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns)


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
