"""Figures: pure functions from tables (and arrays of pictures) to matplotlib figures."""

from vqdistill.reporting.figures.costs_figure import costs_figure
from vqdistill.reporting.figures.density_figures import density_figure, weights_figure
from vqdistill.reporting.figures.layout import save
from vqdistill.reporting.figures.metrics_figure import metrics_figure
from vqdistill.reporting.figures.picture_figures import (
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
)
from vqdistill.reporting.figures.training_figures import codebook_figure, training_figure

__all__ = [
    "codebook_figure",
    "costs_figure",
    "density_figure",
    "inpainting_figure",
    "inpainting_sheet",
    "metrics_figure",
    "samples_figure",
    "save",
    "training_figure",
    "weights_figure",
]
