"""One experiment, wherever its files are and whatever surrounds it: the same jobs, or a line."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, copy_repository, environment

QUICK = "workflow/presets/quick.yaml"
SNAKEMAKE = [sys.executable, "-P", "-m", "snakemake", "--nocolor", "--workflow-profile", "none"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("clone"))


def said(folder: Path, *words: str | Path, status: int = 0, **variables: str) -> str:
    """What Snakemake says in a folder, with variables."""
    done = subprocess.run(
        [*SNAKEMAKE, *words],
        cwd=folder, env=environment() | variables, capture_output=True, check=False,
    )  # fmt: skip
    both = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == status, both
    return both


def jobs(folder: Path, *words: str | Path, **variables: str) -> list[str]:
    """The command lines of a dry run of the quick preset, one seed."""
    dry = ["--dry-run", "--printshellcmds", "--config", "seeds=[0]"]
    found = re.findall(r"Shell command: (python .*)", said(folder, *words, *dry, **variables))
    assert len(found) > 20
    return sorted(found)


@pytest.fixture(scope="module")
def expected(clone) -> list[str]:
    """What the quick preset runs when it is started as the README says."""
    return jobs(clone, "--configfile", QUICK)


# where it is started


def with_directory(clone: Path, folder: Path) -> list[str]:
    return jobs(clone, "--directory", folder, "--configfile", QUICK)


def from_elsewhere(clone: Path, folder: Path) -> list[str]:
    return jobs(folder, "--snakefile", clone / "Snakefile", "--configfile", clone / QUICK)


def beside_another_config(clone: Path, folder: Path) -> list[str]:
    (folder / "config.yaml").write_text("prior: {layers: 3}\nlayers: 2\n", encoding="utf-8")
    return from_elsewhere(clone, folder)


def by_both_files(clone: Path, folder: Path) -> list[str]:
    """As the paths of all configurations had to be named before."""
    files = ["--configfile", clone / "config.yaml", clone / QUICK]
    return jobs(folder, "--snakefile", clone / "Snakefile", *files)


def in_a_folder_with_a_space(clone: Path, folder: Path) -> list[str]:
    copy = shutil.copytree(clone, folder / "a clone of 'it'")
    return jobs(copy, "--configfile", QUICK)


def through_a_link(clone: Path, folder: Path) -> list[str]:
    (folder / "link").symlink_to(clone)
    return jobs(folder / "link", "--configfile", QUICK)


def with_results_elsewhere(clone: Path, folder: Path) -> list[str]:
    (folder / "disk").mkdir()
    (folder / "results").symlink_to(folder / "disk")
    return from_elsewhere(clone, folder)


WAYS = [with_directory, from_elsewhere, beside_another_config, by_both_files]
WAYS += [in_a_folder_with_a_space, through_a_link, with_results_elsewhere]


@pytest.mark.parametrize("way", WAYS)
def test_an_experiment_is_the_same_wherever_it_is_started(
    clone, expected, tmp_path, way: Callable[[Path, Path], list[str]]
):
    assert way(clone, tmp_path) == expected


def test_the_paths_of_a_clone_reach_its_steps(clone, tmp_path):
    """A folder with a space, results elsewhere: what `measure` writes is what `plan` reads."""
    copy = shutil.copytree(clone, tmp_path / "a clone")
    own = tmp_path / "results/quick/measured.csv"
    own.parent.mkdir(parents=True)
    shutil.copy(copy / "workflow/measured/laptop.csv", own)
    common = ["--snakefile", copy / "Snakefile", "--configfile", copy / QUICK, "--cores", "2"]
    plan = said(tmp_path, *common, "plan")
    assert re.search(r"\n +total +\d+ ", plan), plan
    assert "On 2 cores together: " in plan
    measure = said(tmp_path, *common, "--dry-run", "-p", "--force", "measure")
    words = shlex.split(re.search(r"Shell command: (.*) 2>&1 \| tee", measure)[1])
    assert words[words.index("--measured") + 1] == "results/quick/measured.csv"
    assert not [path for path in tmp_path.iterdir() if path.name not in ("a clone", "results")
                and not path.name.startswith(".")]  # fmt: skip


# what surrounds it


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> Path:
    """A folder with a locale whose encoding is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"]
    if not shutil.which("localedef") or subprocess.run(words, check=False).returncode:
        pytest.skip("no localedef, or no description of the locale")
    return folder


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_an_experiment_is_the_same_in_every_locale(clone, expected, locales):
    latin = {"LC_ALL": "en_US.ISO-8859-1", "LOCPATH": str(locales), "PYTHONUTF8": "0"}
    for variables in (latin, ASCII):
        shown = subprocess.run(
            [sys.executable, "-c", "import locale; print(locale.getpreferredencoding(False))"],
            env=environment() | variables, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "UTF" not in shown
        assert jobs(clone, "--configfile", QUICK, **variables) == expected


@pytest.mark.parametrize("variables", [ASCII, {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}])
def test_files_are_read_and_written_alike(clone, tmp_path, variables):
    """The data and their log, made in another locale."""
    target = "results/quick/data/images.npz"
    words = ["--snakefile", clone / "Snakefile", "--configfile", clone / QUICK, "--cores", "1"]
    found = []
    for name, surroundings in (("plain", {}), ("other", variables)):
        (tmp_path / name).mkdir()
        strict = {"PYTHONWARNDEFAULTENCODING": "1"} | surroundings
        said(tmp_path / name, *words, target, **strict)
        found.append((tmp_path / name / target).read_bytes())
        log = (tmp_path / name / "results/quick/logs/prepare_data.log").read_text(encoding="utf-8")
        assert f"{os.sep}vqdistill{os.sep}" not in log, log  # no EncodingWarning of the package
    assert found[0] == found[1]


def test_modules_of_the_working_directory_take_no_ones_place(clone, tmp_path):
    """And the steps are those of the Snakefile's clone, whichever package is installed."""
    for name in ("numpy.py", "random.py", "vqdistill/__init__.py"):
        module = tmp_path / "work" / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("raise SystemExit('of the working directory')\n", encoding="utf-8")
    copy = shutil.copytree(clone, tmp_path / "copy")
    with (copy / "vqdistill/steps/__init__.py").open("a", encoding="utf-8") as file:
        file.write("print('of the clone')\n")
    target = "results/quick/data/images.npz"
    words = ["-s", copy / "Snakefile", "--configfile", copy / QUICK, "--cores", "1", target]
    said(tmp_path / "work", *words, PATH="/usr/bin:/bin")  # nor does another Python
    log = tmp_path / "work/results/quick/logs/prepare_data.log"
    assert "of the clone" in log.read_text(encoding="utf-8")


# the command line


def test_values_of_the_command_line_are_what_was_written(clone, tmp_path):
    root = f"{tmp_path}/data #2: 1.50"
    changes = ["experiment=2024-01-15", f'data={{dataset: mnist, root: "{root}"}}', "seeds=[0, 07]"]
    words = ["--config", *changes, "--dry-run", "--printshellcmds"]
    listed = said(clone, "results/2024-01-15/data/images.npz", *words)
    assert "results/2024-01-15/data/images.npz" in listed
    assert f'"root": "{root}"' in listed


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ["compare", "--configfile", QUICK],
            "compare: 'quick' has no reference; those that have: none",
        ),
        (["--config", "seeds=[one]"], "config: seeds.0: found 'one', expected a valid integer"),
        (["--config", "prior={learning_rate: 1e-3}"], "write 0.001, without quotes"),
        (["--config", "data={dataset: digits, root: here}"], "data.root: found 'here', expected"),
    ],
)
def test_what_cannot_be_run_ends_a_dry_run_with_a_line(clone, tmp_path, words, named):
    lines = said(clone, *words, "--dry-run", status=1).splitlines()
    assert named in lines[-1]
    assert not [line for line in lines if re.search("Traceback|Exception", line)]


def test_a_data_folder_that_is_too_deep_ends_a_dry_run(clone, tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").touch()
    for deep in (raw, raw.parent):
        lines = said(clone, "-n", status=1, VQDISTILL_DATA=str(deep)).splitlines()
        assert lines[-1].startswith(f"$VQDISTILL_DATA: found {deep}, in which MNIST itself lies;")
        assert lines[-1].endswith(f"name the folder above it, {tmp_path}")
    said(clone, "-n", "--quiet", "rules", VQDISTILL_DATA=str(tmp_path))


def test_what_the_docs_have_written_is_no_untracked_file():
    """Folders and files that commands of the docs name are ignored by git."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [b for p in pages for b in re.findall(r"```sh\n(.*?)```", p.read_text("utf-8"), re.S)]
    named = re.findall(r"--(?:into|report|directory) (\S+)", "\n".join(blocks))
    assert {"reproduced", "results/quick/report.html"} <= {*named}
    for name in (*named, "results/quick/measured.csv", "data/MNIST/raw"):
        words = ["git", "check-ignore", "--quiet", f"{name}/x"]
        assert not subprocess.run(words, cwd=ROOT, check=False).returncode, name
    for preset in re.findall(r"snakemake reference .*presets/(\w+)\.yaml", "\n".join(blocks)):
        assert (ROOT / "results/reference" / preset).exists(), preset
