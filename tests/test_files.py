"""Files are whole or not there, never unpickled, and damage is told in one line."""

import ast
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, refusal, seeded
from safetensors.torch import save_file

from vqdistill import files


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


# writing


class Unwritable:
    """What no writer can write."""


def broken_frame():
    frame = pd.DataFrame({"a": [1]})

    class Broken(pd.DataFrame):
        def to_csv(self, path, **_):
            path.write_text("half a fi")
            raise OSError("No space left on device")

    return Broken(frame)


FAILURES = {
    "json": (files.write_json, ({"a": Unwritable()},)),
    "nan": (files.write_json, ({"a": float("nan")},)),
    "csv": (files.write_csv, (broken_frame(),)),
    "rows": (files.write_rows, ([{"a": 1, "b": 2}, {"a": 1}],)),
    "arrays": (files.write_arrays, ({"a": np.array([Unwritable()], dtype=object)},)),
    "tensors": (files.write_tensors, ({"a": torch.zeros(2)}, {"b": Unwritable()})),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, kind):
    write, arguments = FAILURES[kind]
    path = tmp_path / "kept.npz"
    path.write_bytes(b"what was there")
    with pytest.raises((TypeError, ValueError, OSError)):
        write(path, *arguments)
    assert path.read_bytes() == b"what was there"
    assert listing(tmp_path) == ["kept.npz"]


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    files.write_json(tmp_path / "json", {})
    files.write_csv(tmp_path / "csv", pd.DataFrame({"a": [1]}))
    files.write_rows(tmp_path / "rows", [{"a": 1}])
    files.write_arrays(tmp_path / "arrays", {"a": np.zeros(2)})
    files.write_tensors(tmp_path / "tensors", {"a": torch.zeros(2)}, {})
    (tmp_path / "plain").write_text("")
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 6
    assert set(modes.values()) == {modes["plain"]}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, error):
    def write():
        with files.replacing(tmp_path / "new.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert listing(tmp_path) == []


def test_the_target_is_untouched_until_the_write_is_complete(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename within one file system
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert listing(path.parent) == ["table.csv"]


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    files.write_json(tmp_path / "ours.json", 1)
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


# round trips


def test_json(tmp_path):
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text().endswith("}\n")


def test_csv(tmp_path):
    frame = pd.DataFrame({"grid": ["-", "2x2"], "bpd": [1 / 3, -1e-12], "n": [1, 2]})
    files.write_csv(tmp_path / "a.csv", frame)
    assert (tmp_path / "a.csv").read_bytes() == b"grid,bpd,n\n-,0.3333333333,1\n2x2,-1e-12,2\n"
    found = files.read_csv(tmp_path / "a.csv")
    assert found["grid"].tolist() == ["-", "2x2"]
    assert found["n"].dtype == np.int64
    np.testing.assert_allclose(found["bpd"], frame["bpd"], rtol=1e-9)


def test_rows_are_written_as_a_frame_is(tmp_path):
    rows = [
        {"grid": "-", "bpd": 1 / 3, "n": 1, "excess": float("inf")},
        {"grid": 'a, "b"', "bpd": -1e-12, "n": 2**40, "excess": float("nan")},
        {"grid": "", "bpd": 123456789012.0, "n": 0, "excess": -0.0},
    ]
    files.write_csv(tmp_path / "frame.csv", pd.DataFrame(rows))
    files.write_rows(tmp_path / "rows.csv", rows)
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "frame.csv").read_bytes()
    files.write_csv(tmp_path / "frame.csv", pd.DataFrame([], columns=["a", "b"]))
    files.write_rows(tmp_path / "rows.csv", [], ["a", "b"])
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "frame.csv").read_bytes()


def test_names_in_a_csv_stay_names(tmp_path):
    """'NA' is no missing value, and a digest of digits is no number; an empty cell is missing."""
    for name in ("NA", "null", "nan", "None", "12e4", "007"):
        frame = pd.DataFrame({"experiment": [name], "code_version": [name], "bpd": [2.0]})
        files.write_csv(tmp_path / "a.csv", frame)
        pd.testing.assert_frame_equal(files.read_csv(tmp_path / "a.csv"), frame, check_dtype=False)
    files.write_csv(tmp_path / "a.csv", frame.assign(bpd=np.nan, experiment=""))
    assert files.read_csv(tmp_path / "a.csv")[["bpd", "experiment"]].isna().all(axis=None)


def test_arrays_under_any_name(tmp_path):
    for name in ("a.npz", "b.bin", "c"):
        files.write_arrays(tmp_path / name, {"x": np.arange(3)})
        assert files.read_arrays(tmp_path / name)["x"].tolist() == [0, 1, 2]
    assert listing(tmp_path) == ["a.npz", "b.bin", "c"]


def test_what_a_file_lacks_is_told(tmp_path):
    files.write_arrays(tmp_path / "a.npz", {"x": np.arange(3), "y": np.arange(3)})
    said = refusal(lambda: files.read_arrays(tmp_path / "a.npz")["z"])
    assert said.endswith("a.npz: no 'z', only x, y")
    assert "z" not in files.read_arrays(tmp_path / "a.npz")


def test_arrays(tmp_path):
    arrays = {
        "codes_8": np.arange(24).reshape(2, 3, 4),
        "x": np.array([0.1, -np.inf], dtype=np.float32),
        "dataset": np.array("digits"),
        "empty": np.zeros((0, 3), dtype=bool),
    }
    files.write_arrays(tmp_path / "a.npz", arrays)
    found = files.read_arrays(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_tensors_with_metadata(tmp_path):
    tensors = {
        "weight": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last),
        "transposed": torch.arange(6).view(2, 3).T,
        "trained": torch.randn(2, dtype=torch.float64, requires_grad=True),
        "state": seeded(3).get_state(),
        "scalar": torch.tensor(7),
    }
    metadata = {
        "settings": {"grid": "2x2", "rate": 0.1},
        "history": [{"loss": 1 / 3}],
        "none": None,
    }
    files.write_tensors(tmp_path / "a.safetensors", tensors, metadata)
    found, also = files.read_tensors(tmp_path / "a.safetensors")
    assert also == metadata
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())


def test_tensors_that_nothing_vouches_for_are_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert "a.safetensors: not readable" in refusal(files.read_tensors, tmp_path / "a.safetensors")


def test_equal_content_gives_equal_bytes(tmp_path):
    metadata = {"settings": {"b": 1, "a": [2]}, "seed": 3}
    written = set()
    for n in range(20):
        files.write_tensors(tmp_path / f"{n}", {"a": torch.ones(2), "b": torch.zeros(3)}, metadata)
        written.add((tmp_path / f"{n}").read_bytes())
    assert len(written) == 1


# what can't be read


READERS = {
    "json": files.read_json,
    "csv": files.read_csv,
    "npz": files.read_arrays,
    "safetensors": files.read_tensors,
}


def check_refused(kind, path, *words):
    message = refusal(READERS[kind], path)
    for word in (str(path), *words):
        assert word in message


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file(tmp_path, kind):
    check_refused(kind, tmp_path / f"a.{kind}", "no such file")


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", [b"", b"\x80\x81\xfe\n\xff{", b"\x00" * 300])
def test_a_damaged_file(tmp_path, kind, content):
    if kind == "csv" and content.startswith(b"\x00"):
        pytest.skip("a table of one odd column, as far as CSV goes")
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    check_refused(kind, path, "not readable", f"make it anew: add --force {path} ")


def test_a_folder_in_place_of_a_file(tmp_path):
    for kind in READERS:
        check_refused(kind, tmp_path)


def test_metadata_that_is_no_json(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={"json": "{half"})
    check_refused("safetensors", path, "not readable")


def test_json_of_a_bad_number_is_never_written(tmp_path):
    for value in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="JSON"):
            files.write_json(tmp_path / "a.json", {"loss": value})
    assert listing(tmp_path) == []
    files.write_json(tmp_path / "a.json", {"loss": 1e308})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1e308}


# encodings

OF_TEXT = {"open", "read_text", "write_text"}  # pandas takes UTF-8 everywhere


def without_encoding(source: str) -> list[str]:
    """The calls in a module that read or write text in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(source)):
        called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
        if called in OF_TEXT:
            binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in node.args)
            if not binary and "encoding" not in [word.arg for word in node.keywords]:
                found.append(ast.unparse(node))
    return found


def test_no_module_reads_or_writes_text_in_the_encoding_of_the_locale():
    bad = "open(a)\np.open('w')\np.read_text()\np.write_text(t)"
    assert len(without_encoding(bad)) == 4
    assert not without_encoding("p.open('rb')\np.write_text(t, encoding='utf-8')\nopen_all(p)")
    folders = [ROOT / name for name in ("vqdistill", "workflow", "benchmarks")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 60
    found = {str(path): without_encoding(path.read_text("utf-8")) for path in sources}
    assert {path: calls for path, calls in found.items() if calls} == {}
    rules = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    assert not [path for path in rules if re.search(r"open\(|_text\(", path.read_text("utf-8"))]
