"""Copy the tables, figures and small metric files of a finished experiment to the reference."""

import logging
import shutil

from vqdistill.errors import InputError
from vqdistill.files import replacing
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)
COPIED = ("tables/*.csv", "tables/record.json", "figures/*.png", "figures/*.pdf")
COPIED += ("metrics/*/*/*.csv", "metrics/*/*/record.json", "latents/*/*/record.json")
COPIED += ("models/*/*/history.csv", "models/*/*/record.json", "data/record.json")


def copy_reference(job: Job) -> None:
    """Replace the reference by this experiment's files; models and pictures stay behind, and what
    others put into the reference, such as a README.md, stays there."""
    results, reference = job["results"], job["reference"]
    paths = [path for pattern in COPIED for path in sorted(results.glob(pattern))]
    if not paths:
        raise InputError(f"{results}: nothing to copy; run the experiment first")
    wanted = {reference / path.relative_to(results) for path in paths}
    for path in paths:
        with replacing(reference / path.relative_to(results)) as temporary:
            shutil.copyfile(path, temporary)
    for path in {path for pattern in COPIED for path in reference.glob(pattern)} - wanted:
        path.unlink()
    log.info("%d files copied to %s", len(paths), reference)


if __name__ == "__main__":
    run(copy_reference, reads="results", writes="reference")
