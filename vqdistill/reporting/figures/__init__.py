"""Figures: pure functions from tables (and arrays of pictures) to matplotlib figures."""

from vqdistill.reporting.figures.costs import costs_figure
from vqdistill.reporting.figures.density import density_figure, weights_figure
from vqdistill.reporting.figures.pictures import (
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
)
from vqdistill.reporting.figures.saving import save
from vqdistill.reporting.figures.scores import scores_figure
from vqdistill.reporting.figures.training import codebook_figure, training_figure

__all__ = [
    "codebook_figure",
    "costs_figure",
    "density_figure",
    "inpainting_figure",
    "inpainting_sheet",
    "samples_figure",
    "save",
    "scores_figure",
    "training_figure",
    "weights_figure",
]
