"""Put all finished runs of an experiment into one file, to be merged on another machine."""

import logging
import math

from vqdistill.provenance.slices import SMALL
from vqdistill.provenance.slices import pack as pack_runs
from vqdistill.settings import Packing
from vqdistill.steps.job import Job, run

log = logging.getLogger(__name__)


def pack(job: Job) -> None:
    """Write the archive."""
    largest = math.inf if job.settings.everything else SMALL
    runs, left = pack_runs(job["results"], job["archive"], largest)
    size = job["archive"].stat().st_size / 2**20
    log.info("%d runs in %s, %.1f MB", runs, job["archive"], size)
    if left:
        log.info("%d files of more than 2 MB were left out; `pack_all` takes them too", left)


if __name__ == "__main__":
    run(pack, Packing, reads="results", writes="archive")
