"""Copy what is worth committing of a finished experiment to the reference, and write its page."""

import logging
import shutil

from vqdistill.errors import InputError
from vqdistill.files import replacing, write_arrays
from vqdistill.provenance.sharing import example_images, save_best_distilled
from vqdistill.steps.draw_reference import write_page
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)
COPIED = (
    "tables/*.csv",
    "tables/pictures.npz",
    "tables/record.json",
    "figures/*.png",
    "figures/*.pdf",
)
COPIED += ("metrics/*/*/*.csv", "metrics/*/*/record.json", "latents/*/*/record.json")
COPIED += ("models/*/*/history.csv", "models/*/*/record.json", "data/record.json")
MODEL, EXAMPLES = "models/*.safetensors", "models/examples.npz"


def copy_reference(job: Job) -> None:
    """Replace the reference by this experiment's files, with the best distilled models that are
    small and some images to ask them about, and write the page of its figures. All other models
    stay behind. What others put into the reference, such as a README.md, stays there."""
    results, reference = job["results"], job["reference"]
    paths = [path for pattern in COPIED for path in sorted(results.glob(pattern))]
    if not paths:
        raise InputError(f"{results}: nothing to copy; run the experiment first")
    wanted = {reference / path.relative_to(results) for path in paths}
    for path in paths:
        with replacing(reference / path.relative_to(results)) as temporary:
            shutil.copyfile(path, temporary)
    wanted |= {*save_best_distilled(results, reference / "models")}
    write_arrays(reference / EXAMPLES, example_images(results))
    for path in {path for part in (*COPIED, MODEL) for path in reference.glob(part)} - wanted:
        path.unlink()
    write_page(job)
    log.info("%d files copied to %s; %s shows all figures", len(paths), reference, job["page"])


if __name__ == "__main__":
    run(copy_reference, reads="results tables captions", writes="reference page")
