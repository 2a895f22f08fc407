"""Draw all figures from the tables, and from the one small file of pictures."""

from vqdistill.files import read_arrays
from vqdistill.provenance import read_table
from vqdistill.reporting.figures import (
    codebook_figure,
    costs_figure,
    density_figure,
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
    save,
    scores_figure,
    training_figure,
    weights_figure,
)
from vqdistill.reporting.names import MASKS
from vqdistill.steps.common import Job, run


def draw_figures(job: Job) -> None:
    """Write each figure as PNG, PDF and SVG."""

    def table(name: str):
        return read_table(job["tables"] / f"{name}.csv")

    pictures = read_arrays(job["tables"] / "pictures.npz")
    density, classifier = table("density_summary"), table("classifier")
    figures = {
        "figure1": density_figure(density, table("model_sizes"), table("teacher")),
        "figure2": inpainting_figure(pictures),
        "samples": samples_figure(pictures),
        "weights": weights_figure(table("density")),
        "inpainting_scores": scores_figure(
            table("inpainting_summary"), classifier["test_accuracy"].iloc[0]
        ),
        "costs": costs_figure(table("costs")),
        "training": training_figure(table("history")),
        "codebook": codebook_figure(table("codebook")),
    }
    figures |= {f"inpainting_{mask}": inpainting_sheet(pictures, mask) for mask in MASKS}
    for name, figure in figures.items():
        save(figure, job["figures"] / name)


if __name__ == "__main__":
    run(draw_figures, files="tables figures")
