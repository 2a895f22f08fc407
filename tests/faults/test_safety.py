"""Nothing that is read can run code: a pickle that would leave a trace, before every reader."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_experiment import ROOT, pick, refusal, run, without_outputs

from vqdistill import config, data, files
from vqdistill.errors import InputError
from vqdistill.provenance import records as provenance


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "sprung"


def as_pickle(path, trap):
    path.write_bytes(pickle.dumps(trap))


def as_torch_save(path, trap):
    torch.save({"weights": trap}, path)


def as_old_torch_save(path, trap):
    torch.save({"weights": trap}, path, _use_new_zipfile_serialization=False)


def as_object_array(path, trap):
    with path.open("wb") as file:
        np.savez(file, codes=np.array([trap], dtype=object))


def as_npy(path, trap):
    with path.open("wb") as file:
        np.save(file, np.array([trap], dtype=object))


FORMS = [as_pickle, as_torch_save, as_old_torch_save, as_object_array, as_npy]
READERS = {
    "npz": files.read_arrays,
    "safetensors": files.read_tensors,
    "csv": files.read_csv,
    "json": files.read_json,
    "record": provenance.read_record,
    "images": data.load,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_trap_is_one(tmp_path, mark, form):
    form(tmp_path / "a", Trap(mark))
    if form in (as_object_array, as_npy):
        loaded = np.load(tmp_path / "a", allow_pickle=True)
        if form is as_object_array:
            loaded["codes"]
    elif form is as_pickle:
        pickle.loads((tmp_path / "a").read_bytes())
    else:
        torch.load(tmp_path / "a", weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", READERS)
def test_readers_refuse_pickles(tmp_path, mark, kind, form):
    path = tmp_path / f"file.{kind}"
    form(path, Trap(mark))
    with pytest.raises(InputError) as error:
        READERS[kind](path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("form", [as_pickle, as_torch_save])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("train_vqvae", "images"),
        ("train_prior", "codes"),
        ("distil", "prior"),
        ("evaluate_teacher", "latents"),
        ("evaluate_teacher", "classifier"),
        ("evaluate_baseline", "weights"),
        ("tabulate", "density"),
        ("tabulate", "records"),
        ("tabulate", "pictures"),
    ],
)
def test_steps_refuse_pickles(commands, folder, log, mark, name, read, form):
    command = pick(commands, name)
    path = command.values(read)[0]
    form(folder / path, Trap(mark))
    without_outputs(command, folder)
    assert refusal(command, folder, log).startswith(f"{name}: {path}: ")
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_that_is_a_pickle_is_not_gone_on_from(commands, folder, log, mark, form):
    command = pick(commands, "train_baseline", "gmm")
    checkpoint = folder / command.values("checkpoint")[0]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    form(checkpoint, Trap(mark))
    said = run(command, folder, log)
    assert "not readable as safetensors" in said
    assert "training starts anew" in said
    assert not mark.exists()


@pytest.mark.parametrize("name", data.MNIST_SHA256)
def test_data_files_that_are_pickles(tmp_path, mark, name):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for published in data.MNIST_SHA256:
        as_pickle(raw / published, Trap(mark))
    with pytest.raises(InputError, match="checksum is not that of mnist"):
        data.prepare_dataset("mnist", str(tmp_path), 0, 10)
    assert not mark.exists()


def test_pickles_of_old_torchvision_are_not_looked_at(tmp_path, mark, monkeypatch):
    """torchvision reads MNIST/processed/*.pt, where they are, in place of the published files."""
    from torchvision import datasets

    def no_network(self):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(datasets.MNIST, "download", no_network)
    folder = tmp_path / "MNIST/processed"
    folder.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        as_torch_save(folder / name, Trap(mark))
    with pytest.raises(InputError, match="can't be had"):
        data.prepare_dataset("mnist", str(tmp_path), 0, 10)
    assert not mark.exists()


def test_yaml_of_the_command_line_makes_no_objects(mark):
    unsafe = (
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{mark}]]"
    )
    config.of_command_line(f"seeds=[{unsafe}]")
    config.of_command_line(f"data={{root: {unsafe}}}")
    assert not mark.exists()


UNSAFE_MODULES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
UNSAFE_CALLS = {"torch.load", "yaml.load", "eval", "exec", "pd.read_pickle"}


def unsafe_uses(source: str) -> list[str]:
    """What in a module could run code that it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = any(ast.unparse(word) == "allow_pickle=False" for word in node.keywords)
            if called in UNSAFE_CALLS or (called == "np.load" and not safe):
                found.append(called)
    return found


def test_the_package_has_no_reader_that_runs_code():
    bad = "import pickle\nfrom joblib import load\nnp.load(a)\ntorch.load(a)\nyaml.load(a)"
    assert len(unsafe_uses(bad)) == 5
    assert unsafe_uses("np.load(a, allow_pickle=False)\nyaml.safe_load(a)") == []
    sources = list((ROOT / "vqdistill").rglob("*.py"))
    assert len(sources) > 50
    found = {str(path): unsafe_uses(path.read_text()) for path in sources}
    assert {path: uses for path, uses in found.items() if uses} == {}
