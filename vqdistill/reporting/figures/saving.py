"""Writing a figure as PNG, PDF and SVG: whole or not at all, and the same bytes each time."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vqdistill.files import replacing
from vqdistill.reporting.style import RC

METADATA = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Write `<stem>.png` (200 dots an inch), `.pdf` and `.svg`, and return their paths.

    No date is stored and the ids in the SVG are fixed, so the same figure gives the same bytes.
    """
    paths = []
    with mpl.rc_context(RC):
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # the layout is found, and the same for all three
    for kind, metadata in METADATA.items():
        path = Path(f"{stem}.{kind}")
        with mpl.rc_context(RC), replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
        paths.append(path)
    return paths
