"""The Python of README.md and docs/using.md runs, in a fresh clone, block after block."""

import re

import matplotlib
import pytest
import torch
from helpers import ROOT

import vqdistill
from vqdistill.provenance.sharing import LARGEST

REFERENCE = ROOT / "results/reference/laptop/models"
RUNS = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with nothing but the references, where files may be left."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/reference").symlink_to(ROOT / "results/reference")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    return tmp_path


def test_the_example_of_the_readme_makes_a_picture_with_titles(clone):
    (block,) = RUNS.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    found: dict = {}
    exec(block, found)
    assert (clone / "results/completed.png").stat().st_size > 10_000
    titles = [axis.get_title() for axis in found["figure"].axes]
    assert titles == list(found["rows"])
    assert all(images.shape == (10, 28, 28) for images in found["rows"].values())
    seen = torch.from_numpy(found["observed"])
    completed = found["model"].conditional_mean(found["x"], found["observed"])
    assert torch.equal(completed[:, seen], found["x"][:, seen])
    assert found["model"].bpd(found["x"]).median() < 5  # it is a model of these digits


def test_the_blocks_of_the_page_run_one_after_the_other(clone):
    blocks = RUNS.findall((ROOT / "docs/using.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    found: dict = {}
    for block in blocks[:3]:
        exec(block, found)
    assert found["completed"].shape == found["pictures"].shape == (10, 28, 28)
    assert found["model"].bpd(found["x"]).mean() < 4  # of the quadrants, by the page's last lines
    same = vqdistill.load(clone / "results/quadrants.safetensors")
    assert torch.equal(same.bpd(found["x"]), found["model"].bpd(found["x"]))
    pytest.importorskip("spflow")
    exec(blocks[3], found)
    x = found["x"].flatten(1)
    torch.testing.assert_close(found["same"].log_prob(x), found["model"].log_prob(x))


def test_the_committed_models_are_small_and_know_what_they_are():
    paths = sorted(REFERENCE.glob("*.safetensors"))
    assert [path.stem.partition("-")[0] for path in paths] == ["deep", "dmrs"]
    deep, mixture = map(vqdistill.load, paths)
    assert paths[0].stem.endswith(f"-{deep.size}")
    assert paths[1].stem.endswith(f"-N{mixture.n_components}")
    using = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    for path, model in zip(paths, (deep, mixture), strict=True):
        assert path.stat().st_size <= LARGEST
        assert (model.image_shape, model.levels) == ((28, 28), 256)
        assert path.name in using
    assert paths[1].name in (ROOT / "README.md").read_text(encoding="utf-8")
