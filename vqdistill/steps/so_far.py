"""Tables, figures and their page of the runs that are finished, and which ones are missing."""

import logging
from itertools import product
from pathlib import Path

from vqdistill.config import baselines, students, teachers
from vqdistill.errors import InputError
from vqdistill.reporting.names import GATHERED, OF_TEACHERS
from vqdistill.settings import Experiment
from vqdistill.steps.draw_charts import draw_charts
from vqdistill.steps.draw_pictures import draw_pictures
from vqdistill.steps.draw_reference import write_page
from vqdistill.steps.job import Job, run
from vqdistill.steps.tabulate import made, write

log = logging.getLogger(__name__)


def so_far(job: Job) -> None:
    """Write every table and figure, of the models and seeds that are evaluated."""
    results, experiment = job["results"], job.settings
    of_teachers, of_baselines = [*teachers(experiment)], [*baselines(experiment)]
    wanted = [*product([*of_teachers, *of_baselines], experiment.seeds)]
    done = [run for run in wanted if (_metrics(results, *run) / "record.json").exists()]
    if not done:
        raise InputError(f"{results}: no model is evaluated, expected one at least; run some first")
    missing = [f"{name} seed {seed}" for name, seed in wanted if (name, seed) not in done]
    log.info("%d of %d runs are finished", len(done), len(wanted))
    if missing:
        log.info("missing: %s", ", ".join(missing))
    job.reads.update(_files(results, experiment, done, of_teachers))
    write(job, *made(job.reads, experiment))
    job.reads["pictures"] = [job["tables"] / "pictures.npz"]
    draw_charts(job)
    draw_pictures(job)
    write_page(job)


def _files(
    results: Path, experiment: Experiment, done: list[tuple[str, int]], of_teachers: list[str]
) -> dict[str, list[Path]]:
    """By table the files of the finished runs, (name, seed), and what else tables are made of."""
    folders = [_metrics(results, *run) for run in done]
    taught = [run for run in done if run[0] in of_teachers]
    files = {name: [folder / f"{name}.csv" for folder in folders] for name in GATHERED}
    files |= {name: [_metrics(results, *r) / f"{name}.csv" for r in taught] for name in OF_TEACHERS}
    first = dict(reversed(done))
    files["pictures"] = [_metrics(results, *run) / "pictures.npz" for run in first.items()]
    trained = [results / "models/classifier/seed-0"]
    for name, seed in done:
        names = [name]
        if name in of_teachers:
            of_teacher = [
                s for s, (_, teacher, _) in students(experiment).items() if teacher == name
            ]
            names = [f"vqvae-{name}", f"prior-{name}", *of_teacher]
        trained += [results / f"models/{model}/seed-{seed}" for model in names]
    files["records"] = [folder / "record.json" for folder in (*trained, *folders)]
    files["selections"] = [results / f"latents/{n}/seed-{s}/record.json" for n, s in taught]
    return files


def _metrics(results: Path, name: str, seed: int) -> Path:
    return results / f"metrics/{name}/seed-{seed}"


if __name__ == "__main__":
    run(so_far, Experiment, reads="results captions", writes="tables figures page record")
