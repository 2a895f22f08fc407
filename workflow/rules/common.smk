"""Configuration, paths and helpers of all rules."""

import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from vqdistill import config as experiment
from vqdistill.errors import InputError
from vqdistill.models.settings import baseline_module
from vqdistill.provenance import code_version

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


wildcard_constraints:
    seed=r"\d+",
    source="|".join(TEACHERS),
    model="|".join(BASELINES) or "none",


def quoted(settings):
    """Settings as JSON, in an order of keys that does not change."""
    return json.dumps(settings, sort_keys=True)


def version_of(step, *modules):
    """The code version of a step: a digest of all the package's modules that it uses."""
    return code_version(f"vqdistill.steps.{step}", *modules)


def method_modules(source):
    """Modules of a source's selection methods, which are imported by name."""
    return [f"vqdistill.distillation.{method}" for method in TEACHERS[source]]


def all_runs(pattern, names):
    """`pattern` under the results folder, for each of the names and each seed."""
    return expand(f"{RESULTS}/{pattern}", name=names, seed=SEEDS)
