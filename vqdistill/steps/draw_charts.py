"""Draw the charts from the tables."""

from pathlib import Path

import pandas as pd

from vqdistill.errors import InputError
from vqdistill.provenance.records import read_table
from vqdistill.reporting.dictionary import COLUMNS
from vqdistill.reporting.figures.circuits_figure import circuits_figure
from vqdistill.reporting.figures.costs_figure import costs_figure
from vqdistill.reporting.figures.density_figures import density_figure, weights_figure
from vqdistill.reporting.figures.gain_figure import gain_figure
from vqdistill.reporting.figures.layout import save
from vqdistill.reporting.figures.metrics_figure import metrics_figure
from vqdistill.reporting.figures.training_figures import codebook_figure, training_figure
from vqdistill.steps.job import Job, run

# Columns that references of earlier code lack, and that figures can do without.
NEWER = ("log_prob_discrete", "bpd_discrete", "n_images_discrete", "class_accuracy")
NEWER_TABLES = ("gain_blocks", "gain_places", "gain_pixels")


def draw_charts(job: Job) -> None:
    """Write each chart as PNG, PDF and SVG; those of VQ-VAEs where one is evaluated."""

    def table(name: str) -> pd.DataFrame:
        return current_table(job["tables"], name)

    density, classifier = table("density"), table("classifier")
    sizes, teachers = table("model_sizes"), table("teacher")
    charts = {
        "figure1": density_figure(density, sizes, teachers),
        "figure3": circuits_figure(density),
        "inpainting_metrics": metrics_figure(
            table("inpainting_summary"), classifier["test_accuracy"].iloc[0]
        ),
        "training": training_figure(table("history")),
    }
    if len(teachers):
        parts = [table(f"gain_{part}") for part in ("blocks", "places", "pixels")]
        charts |= {
            "gain": gain_figure(*parts),
            "weights": weights_figure(density),
            "costs": costs_figure(table("costs")),
            "codebook": codebook_figure(table("codebook")),
        }
    for name, figure in charts.items():
        save(figure, job["figures"] / name)


def current_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of an experiment. InputError where it or a column is missing, as in one of older
    code, unless figures can do without it."""
    path = folder / f"{name}.csv"
    if name in NEWER_TABLES and not path.exists():
        return pd.DataFrame(columns=list(COLUMNS[name]))
    table = read_table(path)
    needed = [column for column in COLUMNS[name] if not column.startswith(NEWER)]
    missing = [column for column in needed if column not in table]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}, expected those of data_dictionary.csv; it was"
            " made by other code, so run the experiment again"
        )
    return table


if __name__ == "__main__":
    run(draw_charts, reads="tables", writes="figures")
