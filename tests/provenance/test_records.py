"""Code versions follow imports; costs and environments are what they say."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqdistill.provenance import records as provenance
from vqdistill.provenance.records import (
    Stopwatch,
    code_version,
    environment,
    file_digest,
    step_version,
)

STEP = "vqdistill.steps.train_prior"


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """changed(files): the version of a step, in a copy of the package with these files changed.

    A file is given as a path in the package with what becomes of its text.
    """
    source, copies = provenance.PACKAGE, []

    def version(files, *modules):
        package = tmp_path / str(len(copies)) / "vqdistill"
        copies.append(package)
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, change in files.items():
            path = package / name
            path.write_text(change(path.read_text() if path.exists() else ""))
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "PACKAGE", package)
            return code_version(*(modules or (STEP,)))

    return version


def with_code(text):
    return text + "\nNEW_CONSTANT = 1\n"


def test_the_place_of_the_package_is_no_matter(changed):
    assert changed({}) == changed({}) == code_version(STEP)


@pytest.mark.parametrize(
    "name",
    [
        "steps/train_prior.py",  # itself
        "models/pixelcnn.py",  # imported
        "errors.py",  # imported by what it imports
        "training/loop.py",
        "__init__.py",  # the packages that it lies in
        "steps/__init__.py",
    ],
)
def test_a_change_of_what_a_step_uses_changes_its_version(changed, name):
    assert changed({name: with_code}) != changed({})


@pytest.mark.parametrize(
    "name",
    [
        "reporting/claims.py",
        "baselines/einet.py",
        "distillation/dmbs.py",
        "steps/distil.py",
        "models/classifier.py",
        "circuits/mixture.py",
        "provenance/loading.py",
        "settings.py",
    ],
)
def test_a_change_elsewhere_leaves_the_version(changed, name):
    """train_prior loads none of these but settings.py, of which all that matters is written out in
    the job's settings: a trained prior must not be trained again for them."""
    assert changed({name: with_code}) == changed({})


def test_the_closure_holds_what_a_fresh_interpreter_loads():
    """All of the package that Python loads for a step is in the closure."""
    program = (
        f"import sys, {STEP}; print(*[m.__file__ for n, m in sys.modules.items()"
        " if n.split('.')[0] == 'vqdistill'], sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=provenance.PACKAGE.parent,
    )  # fmt: skip
    loaded = {Path(line) for line in done.stdout.split()}
    assert len(loaded) > 8
    assert loaded - {provenance.PACKAGE / "settings.py"} <= provenance._closure((STEP,))


def test_a_new_module_matters_once_it_is_imported(changed):
    new = {"novelty.py": lambda _: "VALUE = 1\n"}
    assert changed(new) == changed({})

    def importing(text):
        return text + "\nfrom vqdistill import novelty\n"

    first = changed(new | {"files.py": importing})
    other = changed({"novelty.py": lambda _: "VALUE = 2\n", "files.py": importing})
    assert len({changed({}), first, other}) == 3


@pytest.mark.parametrize(
    ("step", "settings", "module"),
    [
        ("distil", {"methods": ["exm", "dmbs"]}, "distillation.dmbs"),
        ("train_baseline", {"method": "cm"}, "baselines.continuous_mixture"),
    ],
)
def test_modules_that_are_imported_by_a_name_in_the_settings(changed, step, settings, module):
    path = f"vqdistill.steps.{step}"
    change = {f"{module.replace('.', '/')}.py": with_code}
    assert changed(change, path) == changed({}, path)
    assert step_version(step, settings) not in (step_version(step, {}), code_version(path))
    named = [f"vqdistill.{module}"] + ["vqdistill.distillation.exm"] * (step == "distil")
    assert step_version(step, settings) == code_version(path, *named)


def test_comments_and_layout_change_nothing(changed):
    def reformatted(text):
        return "# a comment\n\n" + text.replace("\n\n\n", "\n\n\n\n") + "\n# the end\n"

    assert changed({"steps/train_prior.py": reformatted}) == changed({})


def test_a_version_is_short_and_the_order_of_modules_is_no_matter():
    a, b = "vqdistill.files", "vqdistill.randomness"
    assert code_version(a, b) == code_version(b, a)
    assert code_version(a) != code_version(b)
    assert len(code_version(a)) == 12
    assert int(code_version(a), 16) >= 0


def test_file_digest(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc" * 100_000)
    assert file_digest(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_stopwatch_counts_seconds_before_an_interruption():
    watch = Stopwatch()
    time.sleep(0.05)
    assert 0.04 <= watch.cost()["wall_seconds"] < 5
    assert watch.cost(at_least=100.0)["wall_seconds"] == 100.0
    assert 10 < watch.cost()["peak_memory_mb"] < 100_000


def test_environment_names_libraries_and_hardware():
    import numpy as np
    import torch

    found = environment("some gpu")
    assert found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["device"] == "some gpu"
    assert "cores" in found["hardware"]


def test_environment_names_the_variables_that_libraries_calculate_by(monkeypatch):
    given = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "3", "NVIDIA_TF32_OVERRIDE": "0"}
    for name, value in (given | {"HOME": "/somewhere", "NVIDIA_API_KEY": "secret"}).items():
        monkeypatch.setenv(name, value)
    found = environment("cpu")["variables"]
    assert given.items() <= found.items()
    assert not {"HOME", "NVIDIA_API_KEY"} & {*found}
