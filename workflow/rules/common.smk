"""Configuration, paths and helpers of all rules."""

import json
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.utils import update_config

from vqdistill import config as experiments
from vqdistill.datasets import DATASETS, folder_of
from vqdistill.errors import InputError
from vqdistill.provenance import command_lines
from vqdistill.provenance.records import step_version
from vqdistill.reporting import names
from vqdistill.settings import Packing, plain

# Snakemake has guessed the types of what --config holds.
for entry in workflow.config_settings.config_args or []:
    update_config(config, experiments.of_command_line(entry))

try:
    EXPERIMENT = experiments.checked(config)
    if DATASETS[EXPERIMENT.data.dataset].folder:
        folder_of(EXPERIMENT.data.dataset, EXPERIMENT.data.root)
except InputError as error:
    sys.exit(str(error))

RESULTS = f"results/{EXPERIMENT.experiment}"
REFERENCE = f"{workflow.basedir}/results/reference/{EXPERIMENT.experiment}"
IMAGES = f"{RESULTS}/data/images.npz"
CLASSIFIER = f"{RESULTS}/models/classifier/seed-0"
TEACHERS = experiments.teachers(EXPERIMENT)
STUDENTS = experiments.students(EXPERIMENT)
BASELINES = experiments.baselines(EXPERIMENT)
TABLES = [f"{RESULTS}/tables/{name}.csv" for name in names.TABLES]
FIGURES = [f"{RESULTS}/figures/{name}.png" for name in names.FIGURES]
MEASURED = sorted(map(str, Path("results").glob("*/measured.csv")))
MEASURED += sorted(map(str, Path(workflow.basedir).glob("workflow/measured/*.csv")))
CAPTIONED = ["claims", "thresholds", "density_summary", "inpainting_summary"]
CAPTIONED += ["model_sizes", "timings", "data_dictionary"]


# Signals reach the step itself and not a shell around it, which would end first and take it along.
VARIABLES = " ".join(f"{k}={shlex.quote(v)}" for k, v in command_lines.environment().items())
if not (workflow.deployment_settings and workflow.deployment_settings.deployment_method):
    VARIABLES += f" PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"  # of this Python
shell.prefix(f"set -euo pipefail; export {VARIABLES}; exec ")


# Snakemake's default of 100 jobs a second limits nothing here. But to keep it, Snakemake looks for
# jobs once a second more with every job that ends: after a hundred that takes a third of a core.
onstart:
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter._limit.max_jobs, limiter._limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


# What has the longest way to the results begins first, and evaluations of baselines, which are
# short, fill what is left of the cores at the end.
PRIORITY = {
    "train_vqvae": 4,
    "train_prior": 3,
    "train_classifier": 3,
    "train_student": 2,
    "train_baseline": 2,
    "distil": 2,
    "evaluate_teacher": 1,
}


wildcard_constraints:
    seed=r"\d+",
    teacher="|".join(TEACHERS),
    student="|".join(STUDENTS) or "none",
    model="|".join(BASELINES) or "none",


def growing(amount):
    """A resource of which a job gets more with each attempt, where failed jobs are tried again."""
    return lambda wildcards, attempt: attempt * amount


def options(step, settings=None, **others):
    """The options of a step, as two params of its rule, `files` and `values`.

    The files are the rule's named inputs and outputs, and `others`, patterns of paths beside them.
    The values hold all else that the result depends on, the settings and the version of the code
    among it. Snakemake runs a job again where they change, since they need the wildcards alone.
    settings: those of the experiment, or settings(experiment, teacher or model).
    """

    @cache
    def resolved(*name):
        found = settings(EXPERIMENT, *name) if callable(settings) else settings
        values = plain(found) if found else {}
        return json.dumps(values, sort_keys=True), step_version(step, values)

    def files(wildcards, input, output):
        named = {**dict(input.items()), **dict(output.items())}
        named |= {name: path.format(**dict(wildcards.items())) for name, path in others.items()}
        paths = {k: [str(v)] if isinstance(v, str) else [*map(str, v)] for k, v in named.items()}
        return shlex.join(command_lines.options({k: v for k, v in paths.items() if v}))

    def values(wildcards):
        own, version = resolved(*(w for k, w in wildcards.items() if k != "seed"))
        seed, name = wildcards.get("seed", 0), EXPERIMENT.experiment
        given = {"settings": own, "experiment": name, "seed": seed, "code_version": version}
        return shlex.join(command_lines.options({}, **given))

    return {"files": files, "values": values}


def trained(name, *others, seed="{seed}"):
    """The outputs of a training, by name; `others` beside weights, history and record."""
    files = ("weights.safetensors", *others, "history.csv", "record.json")
    return {Path(file).stem: f"{RESULTS}/models/{name}/seed-{seed}/{file}" for file in files}


def teacher_of(wildcards):
    """What a circuit learns from: the weights of a VQ-VAE and its prior, and images if so set."""
    method, teacher, _ = STUDENTS[wildcards.student]
    seed = f"seed-{wildcards.seed}/weights.safetensors"
    found = {kind: f"{RESULTS}/models/{kind}-{teacher}/{seed}" for kind in ("vqvae", "prior")}
    return found | ({"images": IMAGES} if EXPERIMENT.students[method].settings.images else {})


def weights_of_students(wildcards):
    """The files of all circuits that are learned from a teacher's samples."""
    models = experiments.students_of(EXPERIMENT, wildcards.teacher)
    return [f"{RESULTS}/models/{m}/seed-{wildcards.seed}/weights.safetensors" for m in models]


def metrics(name, *others):
    """The outputs of an evaluation, by name."""
    files = ("density.csv", "inpainting.csv", "log_likelihoods.npz", "pictures.npz")
    files = (*files, *others, "record.json")
    return {Path(file).stem: f"{RESULTS}/metrics/{name}/seed-{{seed}}/{file}" for file in files}


def all_runs(pattern, models):
    """`pattern` under the results folder, for each of the models and each seed."""
    return expand(f"{RESULTS}/{pattern}", name=models, seed=EXPERIMENT.seeds)


def captioned(path, category):
    """A result as part of the report, with the caption of its name if there is one."""
    name = Path(path).stem
    caption = f"../report/{names.caption(name)}.rst"
    labels = {category.lower(): name.replace("_", " ")}
    return report(path, caption=caption, category=category, labels=labels)


def drawn(figures):
    """The files of some figures, for the outputs of a rule."""
    paths = [f"{RESULTS}/figures/{name}" for name in figures]
    others = [f"{path}.{kind}" for path in paths for kind in ("pdf", "svg")]
    return [captioned(f"{path}.png", "Figures") for path in paths] + others


def records():
    """The records of all trainings and evaluations."""
    trained = [f"{kind}-{teacher}" for teacher in TEACHERS for kind in ("vqvae", "prior")]
    return [
        *all_runs("models/{name}/seed-{seed}/record.json", [*trained, *STUDENTS, *BASELINES]),
        *all_runs("metrics/{name}/seed-{seed}/record.json", [*TEACHERS, *BASELINES]),
        f"{CLASSIFIER}/record.json",
    ]


def reference_summary(wildcards):
    """The table of the committed reference; where there is none, the workflow ends with a line."""
    path = Path(REFERENCE) / "tables/density_summary.csv"
    if not path.exists():
        there = sorted(path.parents[2].glob("*/tables/density_summary.csv"))
        named = ", ".join(file.parents[1].name for file in there) or "none"
        sys.exit(f"compare: {EXPERIMENT.experiment!r} has no reference; those that have: {named}")
    return str(path)
