"""Draw the charts from the tables."""

from vqdistill.provenance.records import read_table
from vqdistill.reporting.figures.costs_figure import costs_figure
from vqdistill.reporting.figures.density_figures import density_figure, weights_figure
from vqdistill.reporting.figures.layout import save
from vqdistill.reporting.figures.metrics_figure import metrics_figure
from vqdistill.reporting.figures.training_figures import codebook_figure, training_figure
from vqdistill.steps.job import Job, run


def draw_charts(job: Job) -> None:
    """Write each chart as PNG, PDF and SVG."""

    def table(name: str):
        return read_table(job["tables"] / f"{name}.csv")

    density, classifier = table("density"), table("classifier")
    sizes, teachers = table("model_sizes"), table("teacher")
    charts = {
        "figure1": density_figure(table("density_summary"), density, sizes, teachers),
        "weights": weights_figure(density),
        "inpainting_metrics": metrics_figure(
            table("inpainting_summary"), classifier["test_accuracy"].iloc[0]
        ),
        "costs": costs_figure(table("costs")),
        "training": training_figure(table("history")),
        "codebook": codebook_figure(table("codebook")),
    }
    for name, figure in charts.items():
        save(figure, job["figures"] / name)


if __name__ == "__main__":
    run(draw_charts, reads="tables", writes="figures")
