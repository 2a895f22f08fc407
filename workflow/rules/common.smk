"""Configuration, paths and helpers of all rules."""

import json
import sys
from functools import cache
from pathlib import Path

from snakemake.utils import update_config

from vqdistill import config as experiment
from vqdistill.errors import InputError
from vqdistill.models.settings import baseline_module
from vqdistill.provenance.records import code_version
from vqdistill.reporting import names

# Numbers in lists of --config, which Snakemake leaves as text.
update_config(config, experiment.typed(workflow.config_settings.config))

try:
    config = experiment.checked(
        config, experiment.read_schema(workflow.source_path("../schemas/config.schema.yaml"))
    )
except InputError as error:
    sys.exit(str(error))

RESULTS = f"results/{config['experiment']}"
IMAGES = f"{RESULTS}/data/images.npz"
CLASSIFIER = f"{RESULTS}/models/classifier/seed-0"
SEEDS = config["seeds"]
TEACHERS = experiment.teachers(config)
BASELINES = experiment.baselines(config)
SOURCES = [*TEACHERS, *BASELINES]
TABLES = [f"{RESULTS}/tables/{name}.csv" for name in names.TABLES]
FIGURES = [f"{RESULTS}/figures/{name}.png" for name in names.FIGURES]
KINDS = ("png", "pdf", "svg")  # of files of a figure
REFERENCE = f"results/reference/{config['experiment']}"
MEASURED = sorted(map(str, Path(workflow.basedir).glob("workflow/measured/*.csv")))
CAPTIONED = [
    "claims",
    "thresholds",
    "density_summary",
    "inpainting_summary",
    "model_sizes",
    "timings",
    "data_dictionary",
]


# Steps make and drop tensors of megabytes all the time. glibc keeps their memory, in huge pages,
# and doesn't ask the system for it anew each time, unless GLIBC_TUNABLES is already set.
ALLOCATOR = "hugetlb=1 mmap_threshold=33554432 trim_threshold=4294967296 top_pad=67108864"
TUNABLES = ":".join(f"glibc.malloc.{tunable}" for tunable in ALLOCATOR.split())

# numpy's threads would only wait, which takes a core's time: steps calculate with PyTorch's.
SETTINGS = f"GLIBC_TUNABLES=${{{{GLIBC_TUNABLES:-{TUNABLES}}}}} OPENBLAS_NUM_THREADS=1"

# Signals reach the step itself and not a shell around it, which would end first and take it along.
shell.prefix(f"set -euo pipefail; export {SETTINGS}; exec ")


# What has the longest way to the results begins first, and evaluations of baselines, which are
# short, fill what is left of the cores at the end.
PRIORITY = {
    "train_vqvae": 4,
    "train_prior": 3,
    "train_classifier": 3,
    "train_baseline": 2,
    "distil": 2,
    "evaluate_teacher": 1,
}


wildcard_constraints:
    seed=r"\d+",
    source="|".join(TEACHERS),
    model="|".join(BASELINES) or "none",


def growing(amount):
    """A resource of which a job gets more with each attempt, where failed jobs are tried again."""
    return lambda wildcards, attempt: attempt * amount


onstart:
    try:
        experiment.check_buildable(config)
    except InputError as error:
        sys.exit(str(error))


def quoted(settings):
    """Settings as JSON, in an order of keys that does not change."""
    return json.dumps(settings, sort_keys=True)


@cache
def version_of(step, *modules):
    """The code version of a step: a digest of all the package's modules that it uses."""
    return code_version(f"vqdistill.steps.{step}", *modules)


def method_modules(source):
    """Modules of a source's selection methods, which are imported by name."""
    return [f"vqdistill.distillation.{method}" for method in TEACHERS[source]]


def all_runs(pattern, models):
    """`pattern` under the results folder, for each of the models and each seed."""
    return expand(f"{RESULTS}/{pattern}", name=models, seed=SEEDS)


def latents_of(wildcards):
    """The files of latents of one source, one for each of its methods."""
    folder = f"{RESULTS}/latents/{wildcards.source}/seed-{wildcards.seed}"
    return [f"{folder}/{method}.npz" for method in TEACHERS[wildcards.source]]


def captioned(path, category):
    """A result as part of the report, with the caption of its name if there is one."""
    name = Path(path).stem
    file = {"figure1": "density", "figure2": "inpainting"}.get(name, name)
    file = "inpainting_sheet" if name.removeprefix("inpainting_") in names.MASKS else file
    labels = {category.lower(): name.replace("_", " ")}
    return report(path, caption=f"../report/{file}.rst", category=category, labels=labels)


def drawn(figures):
    """The files of some figures, by their kind, for the outputs of a rule."""
    paths = {kind: [f"{RESULTS}/figures/{name}.{kind}" for name in figures] for kind in KINDS}
    return paths | {"png": [captioned(path, "Figures") for path in paths["png"]]}


def records():
    """The records of all trainings and evaluations."""
    trained = [f"{kind}-{source}" for source in TEACHERS for kind in ("vqvae", "prior")]
    return [
        *all_runs("models/{name}/seed-{seed}/record.json", [*trained, *BASELINES]),
        *all_runs("metrics/{name}/seed-{seed}/record.json", SOURCES),
        f"{CLASSIFIER}/record.json",
    ]
