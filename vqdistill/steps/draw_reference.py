"""Draw all figures of a committed reference again from its tables and pictures, and its page."""

from vqdistill.files import replacing
from vqdistill.reporting.names import FIGURES, caption
from vqdistill.reporting.page import page
from vqdistill.steps.draw_charts import current_table, draw_charts
from vqdistill.steps.draw_pictures import draw_pictures
from vqdistill.steps.job import Job, run


def draw_reference(job: Job) -> None:
    """Write every figure, and the page that shows them all with their captions."""
    draw_charts(job)
    draw_pictures(job)
    for path in job["figures"].glob("*.svg"):  # the reference has PNG and PDF
        path.unlink()
    write_page(job)


def write_page(job: Job) -> None:
    """Write the page from the tables and from the captions, one file each."""
    names = ("claims", "density_summary", "timings")
    tables = [current_table(job["tables"], name) for name in names]
    captions = {
        name: (job["captions"] / f"{caption(name)}.rst").read_text(encoding="utf-8")
        for name in FIGURES
        if (job["page"].parent / f"figures/{name}.png").exists()
    }
    text = page(tables[1]["experiment"].iloc[0], *tables, captions)
    with replacing(job["page"]) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(draw_reference, reads="tables pictures captions", writes="figures page")
