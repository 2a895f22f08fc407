"""Figure 2 and the sheets of samples, from the arrays of pictures.npz.

method, grid   text [M]                 'dmrs' and '4x4', 'cm' and '-': keys of each model, and
codebook_size, size, n_components  int [M]  its numbers, 0 where it has none
masks          text [Q]                 names of the masks
digits         int [D]                  label of each test image
hidden         bool [Q, h, w]           True where unobserved
truth          float [D, h, w]          in [0, 1], the first test image of each digit
samples        float [M, Q, D, S, h, w] x_u ~ p(x_u | x_o), the mean of the sampled component
means          float [M, Q, D, h, w]    E[x_u | x_o]
unconditional  float [M, n, h, w]       x ~ p(x), the mean of the sampled component
"""

from collections.abc import Mapping
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqdistill.reporting.style import (
    OBSERVED,
    PAGE_WIDTH,
    RC,
    UNOBSERVED,
    UNOBSERVED_PAPER,
    method_styles,
    model_label,
    numbers_label,
)

MAX_COLUMNS = 20
BLUE_RED = "blue: observed, red on pale red: unobserved"
NOTES = {
    "cm": "CM: after a short training some of its points decode to no digit (blots).",
    "random": "Random codes: most combinations of codes decode to no digit (empty or torn images).",
}


@mpl.rc_context(RC)
def inpainting_figure(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Figure 2: the same queries answered by every model, unobserved part red, observed blue.

    Rows: truth, query, then for each model one conditional sample and the conditional mean.
    Columns: for each mask the next few digits, so that all masks and digits fit a page. Controls
    are left to the sheets.
    """
    methods = [str(method) for method in pictures["method"]]
    styles = method_styles(methods)
    shown = [m for m, method in enumerate(methods) if not styles[method].control]
    n_masks, n_digits = len(pictures["masks"]), len(pictures["truth"])
    each = max(1, min(n_digits, MAX_COLUMNS // n_masks))
    chosen = [[(q * each + i) % n_digits for i in range(each)] for q in range(n_masks)]
    blocks = []
    for q, digits in enumerate(chosen):
        hidden, truth = pictures["hidden"][q], pictures["truth"][digits]
        rows = [[ink(x, hidden) for x in truth], [ink(x, hidden, blank=True) for x in truth]]
        for m in shown:
            rows.append([ink(x, hidden) for x in pictures["samples"][m, q, digits, 0]])
            rows.append([ink(x, hidden) for x in pictures["means"][m, q, digits]])
        blocks.append(rows)
    labels = ["truth", "query"]
    for name, numbers in (_labels(pictures)[m] for m in shown):
        labels += [f"{name}, sample", ", ".join(filter(None, [numbers, "mean"]))]
    heads = [f"{name} hidden" for name in pictures["masks"]]
    return _sheet(blocks, labels, heads, BLUE_RED, [2 * m for m in range(1, len(labels) // 2)])


@mpl.rc_context(RC)
def inpainting_sheet(pictures: Mapping[str, np.ndarray], mask: str) -> Figure:
    """All digits under one mask: for each model its conditional samples, and the mean."""
    q = pictures["masks"].tolist().index(mask)
    hidden, truth = pictures["hidden"][q], pictures["truth"]
    rows = [[ink(x, hidden) for x in truth], [ink(x, hidden, blank=True) for x in truth]]
    labels, gaps = ["truth", "query"], []
    for m, (name, numbers) in enumerate(_labels(pictures)):
        gaps.append(len(rows))
        for s in range(pictures["samples"].shape[3]):
            rows.append([ink(x, hidden) for x in pictures["samples"][m, q, :, s]])
            labels.append(f"{name}, sample" if s == 0 else "")
        rows.append([ink(x, hidden) for x in pictures["means"][m, q]])
        labels.append(", ".join(filter(None, [numbers, "mean"])))
    notes = "\n".join([BLUE_RED, *_notes(pictures, "random")])
    return _sheet([rows], labels, [f"{mask} hidden"], notes, gaps)


@mpl.rc_context(RC)
def samples_figure(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Unconditional samples, one row a model: the mean of a component drawn from the mixture."""
    images = pictures["unconditional"][:, :MAX_COLUMNS]  # [M, n, h, w]
    rows = [[np.repeat(1 - np.clip(x, 0, 1)[..., None], 3, axis=2) for x in row] for row in images]
    labels = ["\n".join(filter(None, pair)) for pair in _labels(pictures)]
    return _sheet([rows], labels, [], "\n".join(_notes(pictures, *NOTES)), [])


def ink(image: np.ndarray, hidden: np.ndarray, blank: bool = False) -> np.ndarray:
    """An image [h, w] in [0, 1] as ink on paper [h, w, 3]: blue where observed, red where hidden.

    The hidden part has a pale red paper, which shows in grey too; `blank` leaves it without ink.
    """
    amount = np.clip(image, 0, 1).astype(np.float64)[..., None]  # [h, w, 1]
    paper = np.where(hidden[..., None], UNOBSERVED_PAPER, (1.0, 1.0, 1.0))
    colour = np.where(hidden[..., None], UNOBSERVED, OBSERVED)
    if blank:
        amount = np.where(hidden[..., None], 0, amount)
    return np.clip((1 - amount) * paper + amount * colour, 0, 1)


def _labels(pictures: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Name and numbers of each model: ('DMRS 4×4', 'K = 256, N = 4096')."""
    styles = method_styles(str(method) for method in pictures["method"])
    keys = ("method", "grid", "codebook_size", "n_components", "size")
    return [
        (model_label(styles[method], grid), numbers_label(method, *numbers))
        for method, grid, *numbers in zip(*(pictures[key].tolist() for key in keys), strict=True)
    ]


def _notes(pictures: Mapping[str, np.ndarray], *methods: str) -> list[str]:
    """What is to be said of those of the methods that are shown."""
    return [NOTES[method] for method in methods if method in pictures["method"]]


def _sheet(
    blocks: list[list[list[np.ndarray]]],
    labels: list[str],
    heads: list[str],
    note: str,
    gaps: list[int],
) -> Figure:
    """Blocks of images [rows][columns][h, w, 3] side by side, labelled; `gaps` before rows."""
    h, w, _ = blocks[0][0][0].shape
    edge, between = max(1, h // 14), max(2, h // 4)  # pixels between images, and between groups
    tops, y = [], 0
    for row in range(len(labels)):
        y += between if row in gaps else 0
        tops.append(y)
        y += h + edge
    n_columns = sum(len(block[0]) for block in blocks)
    width = n_columns * (w + edge) + (len(blocks) - 1) * between - edge
    canvas = np.ones((y - edge, width, 3))
    centres, x = [], 0
    for block in blocks:
        start = x
        for column in range(len(block[0])):
            for top, row in zip(tops, block, strict=True):
                canvas[top : top + h, x : x + w] = row[column]
            x += w + edge
        centres.append((start + x - edge) / 2)
        x += between
    rows = dict(zip([top + h / 2 for top in tops], labels, strict=True))
    columns = dict(zip(centres, heads, strict=False))
    return _canvas_figure(canvas, 0.5 / w, rows, columns, note)  # at most half an inch an image


def _canvas_figure(
    canvas: np.ndarray, inches: float, rows: dict[float, str], columns: dict[float, str], note: str
) -> Figure:
    """A canvas [height, width, 3] on a page, with labels of rows and columns by their middles.

    inches: of a pixel, at most.
    """
    longest = max(len(line) for label in rows.values() for line in label.splitlines())
    left, right = 0.14 + 0.058 * longest, 0.06  # 7 pt letters
    height, width, _ = canvas.shape
    inches = min((PAGE_WIDTH - left - right) / width, 8.8 / height, inches)
    letters = int((left + width * inches) / 0.058)
    note = "\n".join(fill(line, letters) for line in note.splitlines())
    top, bottom = 0.24 if columns else 0.06, 0.08 + 0.12 * len(note.splitlines())
    size = (left + right + width * inches, top + bottom + height * inches)
    figure = Figure(figsize=size)
    axes: Axes = figure.add_axes(
        (left / size[0], bottom / size[1], width * inches / size[0], height * inches / size[1])
    )
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    axes.set_axis_off()
    for y, label in rows.items():
        axes.text(-0.05 / inches, y, label, ha="right", va="center", fontsize=7)
    for x, head in columns.items():
        axes.text(x, -0.06 / inches, head, ha="center", va="bottom", fontsize=8)
    axes.text(width, height + 0.05 / inches, note, ha="right", va="top", fontsize=7)
    return figure
