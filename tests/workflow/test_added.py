"""The templates of docs/extending.md in a real run: they are in every table and figure."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT, TINY, configuration, copy_repository, environment

import vqdistill
from vqdistill.data import prepare
from vqdistill.files import read_arrays, read_csv

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The repository with both files in their places."""
    folder = copy_repository(tmp_path_factory.mktemp("extended"))
    for path, code in re.findall(r"```python\n# (vqdistill/\S+)\n(.*?)```", PAGE, re.DOTALL):
        (folder / path).write_text(code, encoding="utf-8")
    return folder


def run(repository, config: dict, *arguments: str) -> subprocess.CompletedProcess:
    (repository / "own.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]
    return subprocess.run(
        [*words, "--configfile", "own.yaml"],
        cwd=repository,
        env=environment(repository),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )


def extended() -> dict:
    teacher = {"grid": "2x2", "codebook_sizes": [4], "methods": ["exm", "dmrs", "likely"]}
    config = configuration(TINY, {"teachers": [teacher], "baselines": {"pixels": {}}})
    return config | {"baselines": {"pixels": {}, "cm": None, "einet": None}}


def test_a_dry_run_refuses_a_file_that_lacks_something(repository):
    wrong = repository / "vqdistill/distillation/wrong.py"
    text = (repository / "vqdistill/distillation/likely.py").read_text(encoding="utf-8")
    wrong.write_text(text.replace("return complete(", "return ("), encoding="utf-8")
    config = extended()
    config["teachers"][0]["methods"].append("wrong")
    done = run(repository, config, "--dry-run")
    wrong.unlink()
    assert done.returncode != 0
    assert "selection method 'wrong': select: found tuple, expected a Selection" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_the_templates_of_the_page_are_in_every_table_and_figure(repository):
    done = run(repository, extended(), "all")
    assert done.returncode == 0, done.stdout
    tables = repository / "results/tiny/tables"
    for name in ("density", "density_summary", "inpainting", "inpainting_summary"):
        assert {"likely", "pixels"} <= set(read_csv(tables / f"{name}.csv").method), name
    density = read_csv(tables / "density.csv")
    (pixels,) = density.query("method == 'pixels' and split == 'test'").bpd
    assert 2 < pixels < 8
    assert "likely" in set(read_csv(tables / "costs.csv").method)
    assert (repository / "results/tiny/figures/figure1.png").stat().st_size > 10_000
    done = run(repository, extended(), "reference")
    assert done.returncode == 0, done.stdout
    check_shared_model(repository / "results/reference/tiny/models", density)


def check_shared_model(folder: Path, density: pd.DataFrame) -> None:
    """The reference has the best distilled model, and images to ask it about."""
    (path,) = folder.glob("*.safetensors")
    best = density.query("grid != '-' and split == 'validation'").sort_values("bpd").iloc[0]
    assert path.stem == f"{best.method}-2x2-K4-N{best.n_components}"
    model, examples = vqdistill.load(path), read_arrays(folder / "examples.npz")
    assert (model.image_shape, model.levels, model.n_components) == ((8, 8), 17, best.n_components)
    assert examples["images"].shape == (10, 8, 8)
    assert examples["labels"].tolist() == list(range(10))
    assert model.bpd(prepare(examples["images"], 17)).isfinite().all()
