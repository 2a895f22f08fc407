"""Draw figure 2 and the sheets of samples from the one small file of pictures."""

from vqdistill.files import read_arrays
from vqdistill.reporting.figures.layout import save
from vqdistill.reporting.figures.picture_figures import (
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
)
from vqdistill.reporting.names import MASKS
from vqdistill.steps.job import Job, run


def draw_pictures(job: Job) -> None:
    """Write each picture as PNG, PDF and SVG."""
    arrays = read_arrays(job["pictures"])
    pictures = {"figure2": inpainting_figure(arrays), "samples": samples_figure(arrays)}
    pictures |= {f"inpainting_{mask}": inpainting_sheet(arrays, mask) for mask in MASKS}
    for name, figure in pictures.items():
        save(figure, job["figures"] / name)


if __name__ == "__main__":
    run(draw_pictures, reads="pictures", writes="figures")
