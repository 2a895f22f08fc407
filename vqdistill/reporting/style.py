"""The one place that says how a method looks and what it is called.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; marker and
line style differ as well, so that a print in grey can be read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl

COLUMN_WIDTH = 3.4  # inches, one column of a page
PAGE_WIDTH = 7.0  # inches, the whole width of a page

OBSERVED = (0.03, 0.25, 0.60)  # blue ink
UNOBSERVED = (0.78, 0.06, 0.10)  # red ink
UNOBSERVED_PAPER = (1.0, 0.91, 0.90)  # pale enough for ink, visible in grey
RED = "#C8102E"
GREY = "#666666"
BACKEND = {"backend", "backend_fallback", "interactive", "toolbar"}

# All of matplotlib's settings, so that no figure depends on a user's matplotlibrc.
RC = {name: value for name, value in mpl.rcParamsDefault.items() if name not in BACKEND} | {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "vqdistill",
}


@dataclass(frozen=True)
class MethodStyle:
    """Name and look of one method; `control` methods are drawn fainter."""

    label: str
    colour: str
    marker: str
    filled: bool
    control: bool = False
    letter: str = "K"  # of its `size`


def marks(style: MethodStyle) -> dict[str, object]:
    """A method's look as matplotlib's options of a line with marks."""
    return {
        "color": style.colour,
        "marker": style.marker,
        "markerfacecolor": style.colour if style.filled else "white",
        "linewidth": 0.8 if style.control else 1.2,
    }


# The order is that of legends, tables and rows of pictures.
METHODS = {
    "exm": MethodStyle("ExM", "#000000", "x", True),
    "dmrs": MethodStyle("DMRS", "#0072B2", "s", False),
    "dmbs": MethodStyle("DMBS", "#009E73", "D", False),
    "deep": MethodStyle("deep circuit", "#332288", "h", False, letter="units"),
    "flat": MethodStyle("flat mixture", "#8C6D31", "p", False, control=True, letter="N"),
    "random": MethodStyle("random codes", "#7A7A7A", "^", False, control=True),
    "frequent": MethodStyle("frequent codes", "#3E9BCD", "v", False, control=True),
    "cm": MethodStyle("CM", "#D55E00", "o", True),
    "einet": MethodStyle("EiNet", "#AA4488", "s", True),
    "quad_tree": MethodStyle("quad-tree", "#E69F00", "^", True),
    "quad_tree_levels": MethodStyle("quad-tree of grey levels", "#553311", "v", True),
    "gmm": MethodStyle("plain mixture", "#8C6D31", "p", True, control=True, letter="N"),
}
TRAINED = {"vqvae": "VQ-VAE", "prior": "prior"}
LEARNED = ("deep", "flat", "cm", "einet", "quad_tree", "quad_tree_levels", "gmm")
TRAINED |= {method: METHODS[method].label for method in LEARNED}
TRAINED |= {"classifier": "classifier"}
FREE_COLOURS = ("#CC79A7", "#882255", "#661100", "#117733")
FREE_MARKERS = ("P", "X", "d", "<", ">")
LINE_STYLES = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1, 1.4)), (0, (1, 1.2)))


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Look of each of the methods, in the order of display.

    A method that is not known gets the next free colour and marker (in alphabetical order of the
    unknown ones) and its id in capitals as its label; it comes after the known ones, hollow.
    """
    present = set(methods)
    styles = {method: style for method, style in METHODS.items() if method in present}
    for i, method in enumerate(sorted(present - METHODS.keys())):
        colour = FREE_COLOURS[i % len(FREE_COLOURS)]
        marker = FREE_MARKERS[i % len(FREE_MARKERS)]
        styles[method] = MethodStyle(method.upper(), colour, marker, filled=False)
    return styles


def grid_label(grid: str) -> str:
    """'2x2' as '2×2', and the '-' of a method without a grid as ''."""
    return "" if grid == "-" else grid.replace("x", "×")


def model_label(style: MethodStyle, grid: str) -> str:
    """Label of a method on a grid of codes, such as 'DMRS 2×2'."""
    return f"{style.label} {grid_label(grid)}".strip()


def numbers_label(method: str, codebook_size: int = 0, n_components: int = 0, size: int = 0) -> str:
    """The numbers in a model's keys: 'K = 256, N = 4096', 'K = 16, units = 8' of a deep circuit,
    '' for none."""
    letter = METHODS[method].letter if method in METHODS else MethodStyle.letter
    numbers = [("K", codebook_size), (letter, size), ("N", n_components)]
    return ", ".join(f"{name} = {number}" for name, number in numbers if number)


def ranges_label(name: str, values: Iterable[int]) -> str:
    """Several numbers: 'N = 1, 2, 4, …, 4096', 'K = 2, 4, 8', and '5' without a name."""
    values = [str(value) for value in sorted(set(values))]
    if len(values) > 4:
        values = [*values[:3], "…", values[-1]]
    return f"{name} = {', '.join(values)}" if name else ", ".join(values)


def model_title(model: str) -> str:
    """'vqvae-2x2-K16' as 'VQ-VAE 2×2, K = 16', 'gmm-64' as 'plain mixture, N = 64', and
    'deep-2x2-K16-8' as 'deep circuit 2×2, K = 16, units = 8'."""
    kind, *rest = model.split("-")
    grid = [grid_label(part) for part in rest if "x" in part]
    codes = [int(part.removeprefix("K")) for part in rest if part.startswith("K")]
    size = [int(part) for part in rest if part.isdecimal()]
    numbers = numbers_label(kind, sum(codes), size=sum(size))
    title = " ".join([TRAINED.get(kind, kind), *grid])
    return ", ".join(filter(None, [title, numbers]))


def model_order(model: str) -> tuple:
    """Sorts trained models by the order of training, then by the numbers in their names."""
    kind = model.split("-")[0]
    place = list(TRAINED).index(kind) if kind in TRAINED else len(TRAINED)
    return place, kind, [int(number) for number in re.findall(r"\d+", model)]


def line_styles(teachers: Iterable[tuple]) -> dict[tuple, object]:
    """Line style of each teacher (grid, codebook size), and of what has none: solid."""
    teachers = set(teachers)
    with_grid = sorted(teacher for teacher in teachers if teacher[0] != "-")
    styles = {s: LINE_STYLES[i % len(LINE_STYLES)] for i, s in enumerate(with_grid)}
    return styles | {teacher: "-" for teacher in teachers if teacher[0] == "-"}
