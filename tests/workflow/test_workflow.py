"""The workflow as a whole: what is planned for a config, and one tiny experiment run for real."""

import copy
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import TINY, configuration, copy_repository, environment
from snakemake.utils import update_config

from vqdistill import estimates as plan
from vqdistill.config import baselines, checked, expected_models, students, teachers
from vqdistill.distillation import MAX_EXACT_LATENTS
from vqdistill.errors import make_anew
from vqdistill.files import read_csv, write_csv, write_json
from vqdistill.provenance.records import file_digest, read_record, sealed
from vqdistill.provenance.reproducing import Result
from vqdistill.reporting.dictionary import EMPTY
from vqdistill.reporting.names import FIGURES, MASKS, TABLES
from vqdistill.settings import Experiment

RECORD = "record.json"
COMMIT = "from vqdistill.provenance.records import commit; print(commit())"
EXPERIMENT = checked(configuration(TINY))


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("repository"))


def python(repository: Path, folder: Path, *words: str | Path) -> str:
    """What this Python says on both streams, in `folder`, with the package of a repository."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(repository),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def snakemake(repository: Path, folder: Path, *arguments: str | Path) -> str:
    """What Snakemake says on both streams; in `folder`, with this Python for all its jobs."""
    common = ["--snakefile", repository / "Snakefile", "--directory", folder, "--cores", "2"]
    words = ["-m", "snakemake", *common, "--nocolor", *arguments]
    return python(repository, folder, *words)


def planned(repository: Path, folder: Path, *configs: Path) -> Counter:
    """The jobs of a dry run: how often each (rule, name of teacher or model, seed) is listed."""
    files = [repository / "config.yaml", *configs]
    said = snakemake(repository, folder, "--dry-run", "--configfile", *files)
    jobs = Counter()
    for block in re.split(r"\n(?=(?:local)?rule )", said)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        named = re.search(r"\n +wildcards: (?:teacher|student|model)=(\S+), seed=(\d+)\n", block)
        jobs[(rule, named[1], int(named[2])) if named else (rule, "", -1)] += 1
    stated = re.search(r"\ntotal +(\d+)\n", said)
    assert sum(jobs.values()) == (int(stated[1]) if stated else 0), said
    return jobs


def expected_jobs(experiment: Experiment, seeds: list[int]) -> Counter:
    """All jobs of the runs with these seeds, from the config."""
    of_teachers = ("train_vqvae", "train_prior", "distil", "evaluate_teacher")
    of_baselines = ("train_baseline", "evaluate_baseline")
    jobs = Counter(product(of_teachers, teachers(experiment), seeds))
    jobs += Counter(product(("train_student",), students(experiment), seeds))
    return jobs + Counter(product(of_baselines, baselines(experiment), seeds))


def once(*rules: str) -> Counter:
    return Counter((rule, "", -1) for rule in rules)


REPORT = once("tabulate", "draw_charts", "draw_pictures", "all")
SHARED = once("prepare_data", "train_classifier")


def test_paper_lists_every_run_of_every_seed(repository, tmp_path):
    jobs, experiment = planned(repository, tmp_path), checked(configuration())
    assert experiment.seeds == (0, 1, 2, 3, 4)
    assert len(teachers(experiment)) == 7
    assert jobs == expected_jobs(experiment, experiment.seeds) + SHARED + REPORT
    assert sum(jobs.values()) == plan.jobs(experiment)["jobs"].sum() + plan.LAST_JOBS
    counts = Counter(rule for rule, _, _ in jobs.elements())
    assert counts["train_vqvae"] == counts["distil"] == counts["evaluate_teacher"] == 7 * 5
    assert counts["train_student"] == 2 * 3 * 5
    assert counts["train_baseline"] == counts["evaluate_baseline"] == (1 + 5 + 5 + 1) * 5


def test_quick_preset_is_small_but_has_a_space_that_cannot_be_enumerated(repository, tmp_path):
    jobs = planned(repository, tmp_path, repository / "workflow/presets/quick.yaml")
    experiment = checked(configuration("quick"))
    assert jobs == expected_jobs(experiment, experiment.seeds) + SHARED + REPORT
    assert sum(jobs.values()) == plan.jobs(experiment)["jobs"].sum() + plan.LAST_JOBS <= 116
    latents = [
        size ** math.prod(teacher.grid)
        for teacher in experiment.teachers
        for size in teacher.codebook_sizes
    ]
    assert max(latents) > MAX_EXACT_LATENTS


USED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_two_hundred_seeds_can_be_planned(repository, tmp_path):
    """In no more seconds and megabytes than the first code took for it."""
    files = [repository / "config.yaml", repository / "workflow/presets/quick.yaml"]
    words = ["-m", "snakemake", "--snakefile", repository / "Snakefile", "--dry-run"]
    words += ["--configfile", *files, "--config", f"seeds={[*range(200)]}"]
    seconds, megabytes = python(repository, tmp_path, "-c", USED, sys.executable, *words).split()
    assert float(seconds) < 45
    assert float(megabytes) < 380


@pytest.fixture(scope="session")
def tiny(repository, tmp_path_factory) -> Path:
    """The folder in which the tiny experiment has been run, from nothing to figures."""
    folder = tmp_path_factory.mktemp("tiny")
    configs = (repository / "config.yaml", config_file(folder))
    snakemake(repository, folder, "--configfile", *configs)
    return folder


def config_file(folder: Path, **changes) -> Path:
    """The tiny experiment's config, changed, as a file in `folder`."""
    config = copy.deepcopy(TINY)
    update_config(config, changes)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    paths = (folder / "results/tiny/tables").glob("*.csv")
    return {path.stem: pd.read_csv(path) for path in paths}


def test_all_tables_and_figures_are_there(tiny):
    assert set(tables(tiny)) == set(TABLES)
    drawn = {path.name for path in (tiny / "results/tiny/figures").iterdir() if path.stat().st_size}
    assert drawn == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf", "svg")}


def test_nothing_is_written_outside_the_results(tiny):
    assert {path.name for path in tiny.iterdir()} == {"results", "tiny.yaml", ".snakemake"}
    assert [path.name for path in (tiny / "results").iterdir()] == ["tiny"]
    left = [path for path in (tiny / "results/tiny/checkpoints").rglob("*") if path.is_file()]
    assert left == []


def test_cells_are_numbers_or_empty_where_the_dictionary_says_so(tiny):
    paths = sorted((tiny / "results").rglob("*.csv"))
    names = {path.name for path in paths}
    assert {"density.csv", "inpainting.csv", "history.csv", "claims.csv"} <= names
    for path in paths:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        bad = cells.isin(["nan", "NaN", "NA", "None", "inf", "-inf"])
        assert not bad.any(axis=None), f"{path}\n{cells[bad.any(axis=1)]}"
        assert not cells.duplicated().any(), path
        empty = cells.columns[(cells == "").any()]
        may_be = {column for table, column in EMPTY if table == path.stem}
        assert set(empty) <= may_be, path


def test_numeric_columns_are_numeric_for_plain_pandas(tiny):
    """A '-' in one row would make text of a whole column."""
    dictionary = pd.read_csv(tiny / "results/tiny/tables/data_dictionary.csv")
    for name, columns in dictionary[dictionary["unit"] != "-"].groupby("table"):
        table = pd.read_csv(tiny / f"results/tiny/tables/{name}.csv")
        for column in set(columns["column"]) - {"grid"}:
            assert pd.api.types.is_numeric_dtype(table[column]), f"{name}: {column}"


def test_history_and_costs_can_be_joined_with_the_other_tables(tiny):
    found = tables(tiny)
    keys = ["experiment", "dataset", "model", "grid", "codebook_size", "size", "seed"]
    joined = found["history"].merge(found["timings"], on=keys)
    trained = joined[joined["step"].str.startswith("train")]
    assert len(trained) == len(found["history"])
    assert (trained["epoch"] <= trained["epochs_run"]).all()
    keys = ["experiment", "dataset", "method", "grid", "codebook_size", "n_components", "seed"]
    uniform = found["density"].query("split == 'test' and weights == 'uniform'")
    assert len(found["costs"].merge(uniform, on=keys)) == len(found["costs"])


def test_a_code_version_leads_to_a_commit(repository, tmp_path):
    """In a clone with its own commit, one that is changed since, and in no clone at all."""
    (folder := tmp_path / "clone").mkdir()
    copy_repository(folder)
    said = [python(folder, tmp_path, "-c", COMMIT)]
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    said.append(python(folder, tmp_path, "-c", COMMIT))
    (folder / "config.yaml").write_text("")
    said.append(python(folder, tmp_path, "-c", COMMIT))
    commit = head.stdout[:12]
    assert said == ["{}\n", f"{{'commit': '{commit}'}}\n", f"{{'commit': '{commit}-dirty'}}\n"]


def test_density_has_every_model_and_split_and_no_other(tiny):
    table = tables(tiny)["density"]
    models = pd.DataFrame(expected_models(EXPERIMENT))
    expected = models.merge(pd.DataFrame({"split": ["test", "validation", "train"]}), how="cross")
    keys = list(expected.columns)
    found = Counter(table[keys].itertuples(index=False, name=None))
    assert found == Counter(expected.itertuples(index=False, name=None))
    assert dict(zip(table["split"], table["n_images"], strict=True)) == {
        "test": 300,
        "validation": 300,
        "train": 50,
    }


def test_inpainting_has_every_mask_of_the_wanted_sizes(tiny):
    table = tables(tiny)["inpainting"]
    keys = ["method", "grid", "n_components"]
    models = {("exm", "2x2", 256), ("einet", "-", 0), ("gmm", "-", 0)}
    models |= {("deep", "2x2", 0), ("quad_tree", "-", 0)} | {("cm", "-", n) for n in (2, 4)}
    models |= {(method, "2x2", n) for method in ("dmrs", "dmbs") for n in (2, 4)}
    names = ("dmrs", "dmbs", "random", "frequent")
    models |= {(method, "4x4", n) for method in names for n in (2, 4)}
    found = Counter(table[[*keys, "mask"]].itertuples(index=False, name=None))
    assert found == Counter((*model, mask) for model in models for mask in MASKS)
    assert set(table["n_scored"]) == {20}


def test_dictionary_describes_every_column_of_every_table(tiny):
    written = tables(tiny)
    dictionary = written["data_dictionary"]
    described = Counter(zip(dictionary["table"], dictionary["column"], strict=True))
    assert described == Counter((name, column) for name in written for column in written[name])


def test_a_second_run_has_nothing_to_do(repository, tiny):
    assert planned(repository, tiny, config_file(tiny)) == Counter()


def test_another_order_of_what_has_none_has_nothing_to_do(repository, tiny):
    teachers = copy.deepcopy(TINY["teachers"])[::-1]
    for teacher in teachers:
        teacher["methods"].reverse()
    changes = {"n_components": [4, 1, 2], "teachers": teachers}
    assert planned(repository, tiny, config_file(tiny, **changes)) == Counter()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("data/images.npz", "prepare_data"),
        ("models/vqvae-2x2-K4/seed-0/codes.npz", "train_vqvae"),
        ("latents/4x4-K4/seed-0/latents.npz", "distil"),
        ("metrics/cm/seed-0/record.json", "evaluate_baseline"),
        ("tables/pictures.npz", "tabulate"),
    ],
)
def test_the_advice_on_damaged_files_makes_them_anew(repository, tiny, path, rule):
    """Whether a file is there or not; without it Snakemake misses no file between others."""
    advised = re.search("add (--force .*) to your command", make_anew(f"results/tiny/{path}"))[1]
    words = ["-n", "--configfile", repository / "config.yaml", config_file(tiny)]
    said = snakemake(repository, tiny, *words, *advised.split())
    assert re.findall(r"\n(?:local)?rule (\w+):", said) == [rule]


def test_a_new_seed_runs_alone(repository, tiny):
    jobs = planned(repository, tiny, config_file(tiny, seeds=[0, 3]))
    assert jobs == expected_jobs(EXPERIMENT, [3]) + REPORT


def test_a_new_component_count_trains_nothing(repository, tiny):
    jobs = planned(repository, tiny, config_file(tiny, n_components=[1, 2, 4, 8]))
    expected = {job for job in expected_jobs(EXPERIMENT, [0]) if not job[0].startswith("train")}
    assert jobs == Counter(expected) + REPORT


def test_a_prior_setting_retrains_the_priors_and_what_follows_from_them(repository, tiny):
    jobs = planned(repository, tiny, config_file(tiny, prior={"layers": 3}))
    others = ("train_vqvae", "train_baseline", "evaluate_baseline")
    expected = {job for job in expected_jobs(EXPERIMENT, [0]) if job[0] not in others}
    assert jobs == Counter(expected) + REPORT


def test_an_einet_setting_retrains_the_einet_alone(repository, tiny):
    change = {"einet": {"settings": {"em_step_size": 0.4}}}
    jobs = planned(repository, tiny, config_file(tiny, baselines=change))
    rules = ("train_baseline", "evaluate_baseline")
    assert jobs == Counter((rule, "einet-2", 0) for rule in rules) + REPORT


def test_changed_code_retrains_the_models_that_use_it(repository, tiny, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(repository, changed)
    module = changed / "vqdistill/models/pixelcnn.py"
    module.write_text(module.read_text() + "\n# a comment changes nothing\n")
    assert planned(changed, tiny, config_file(tiny)) == Counter()
    module.write_text(module.read_text() + "\nCHANGED = True\n")
    jobs = planned(changed, tiny, config_file(tiny))
    trained = {(rule, name) for rule, name, _ in jobs if rule.startswith("train")}
    learned = ("train_student", "deep-2x2-K4-2")
    assert trained == {("train_prior", "2x2-K4"), ("train_prior", "4x4-K4"), learned}


SMALLEST = {  # what is allowed of every setting that has a size
    "training": {"batch_size": 1, "max_epochs": 1, "patience": 1},
    "data": {"dataset": "digits", "training_part": 1},
    "vqvae": {"channels": {"2x2": [1, 1]}, "commitment": 0, "learning_rate": 1, "weight_decay": 1},
    "prior": {"width": 1, "layers": 1, "head": 1, "learning_rate": 1},
    "teachers": [{"grid": "2x2", "codebook_sizes": [2], "methods": ["exm", "dmrs"]}],
    "n_components": [1],
    "baselines": {
        "cm": {"settings": {"latent_dimension": 1, "channels": [1, 1, 2], "points": 1, "chunk": 1}},
        "einet": {"sizes": [1], "settings": {"pixels_per_step": 4, "em_every": 1}},
        "gmm": {"sizes": [1]},
    },
    "inpainting": {"n_components": [], "scored_images": 1},
    "classifier": {"width": 1},
}


@pytest.mark.slow
def test_the_smallest_values_that_a_dry_run_accepts_can_be_run(repository, tmp_path):
    """To the last figure, with a step for each image."""
    path = tmp_path / "smallest.yaml"
    path.write_text(yaml.safe_dump(SMALLEST | {"experiment": "tiny", "seeds": [0]}), "utf-8")
    snakemake(repository, tmp_path, "--configfile", path)
    assert set(tables(tmp_path)) == set(TABLES)
    assert len(list((tmp_path / "results/tiny/figures").glob("*.png"))) == len(FIGURES)


# provenance


def test_a_run_is_compared_with_its_reference_as_often_as_it_is_asked(repository, tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    configs = (repository / "config.yaml", folder / "tiny.yaml")
    snakemake(repository, folder, "reference", "--configfile", *configs)
    for _ in range(2):
        said = snakemake(repository, folder, "compare", "--configfile", *configs)
        found = re.findall(r"(\d+) of +(\d+) models agree; largest difference (\S+) bits", said)
        assert len(found) == 12  # methods and grids
        assert all(agree == models and float(most) == 0 for agree, models, most in found)


def test_a_reference_is_drawn_again_from_what_is_committed(repository, tiny, tmp_path):
    """Its figures and their page, by one command, where nothing but the reference is left."""
    clone, made = shutil.copytree(repository, tmp_path / "clone"), tmp_path / "made"
    reference = clone / "results/reference/tiny"
    configs = ("--configfile", clone / "config.yaml", tiny / "tiny.yaml")
    snakemake(clone, tiny, "reference", *configs)
    shutil.copytree(reference, made)
    shutil.rmtree(reference / "figures")
    (reference / "figures.md").unlink()
    (tmp_path / "elsewhere").mkdir()
    snakemake(clone, tmp_path / "elsewhere", "redraw", *configs)
    drawn = sorted(path.name for path in (reference / "figures").iterdir())
    assert drawn == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png"))
    for name in ("figures.md", *(f"figures/{name}" for name in drawn)):
        assert (reference / name).read_bytes() == (made / name).read_bytes()


def records(folder: Path) -> list[Path]:
    return sorted((folder / "results/tiny").rglob(RECORD))


def test_every_result_is_named_by_a_record_with_all_that_made_it(tiny):
    """Its digest, code version, settings, seed, libraries, hardware and the files it came from."""
    named = {}
    for record in records(tiny):
        result, facts = Result(record), read_record(record)
        assert {"code_version", "settings", "seed", "device"} <= facts.keys()
        assert facts["threads"] == 1  # what a job gets of the cores, however many there are
        assert facts["code_version"] == result.current_version(), record
        assert facts["libraries"].keys() >= {"python", "torch", "numpy", "scikit-learn", "scipy"}
        assert "cores" in facts["hardware"]
        assert facts["step"] == "distil" or re.fullmatch(r"[0-9a-f]{16}", facts["data_checksum"])
        for path, digest in result.digests.items():
            assert file_digest(path) == digest, path
            if result.wrote(path):
                named[path] = facts["step"]
    for kind in ("data", "models", "latents", "metrics", "tables"):
        for path in (tiny / "results/tiny" / kind).rglob("*"):
            assert path.is_dir() or path.name == RECORD or path in named, path
    steps = {"prepare_data", "train_vqvae", "train_prior", "train_baseline", "train_classifier"}
    steps |= {"train_student", "distil", "evaluate_teacher", "evaluate_baseline", "tabulate"}
    assert set(named.values()) == steps


def reproduce(repository: Path, record: Path, folder: Path) -> tuple[int, str]:
    """Exit status and words of `python -m vqdistill reproduce`."""
    done = subprocess.run(
        [sys.executable, "-m", "vqdistill", "reproduce", record, "--into", folder],
        env=environment(repository),
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


METRICS = {"cm": ("density.csv", "inpainting.csv", "log_likelihoods.npz", "pictures.npz")}
METRICS["2x2-K4"] = (*METRICS["cm"], "teacher.csv", "bounds.csv", "codebook.csv")


def check_reproduced(original: Path, folder: Path, said: str) -> None:
    for name in METRICS[original.parent.name]:
        place = original.relative_to(original.parents[2]) / name
        assert (folder / place).read_bytes() == (original / name).read_bytes(), name
        assert f"{place}: the same, byte for byte" in said


def test_a_result_is_reproduced_alone_from_its_record(repository, tiny, tmp_path):
    original = tiny / "results/tiny/metrics/cm/seed-0"
    status, said = reproduce(repository, original / RECORD, tmp_path)
    assert status == 0, said
    check_reproduced(original, tmp_path, said)
    made = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {*METRICS["cm"], RECORD}  # nothing else was run


@pytest.mark.slow
def test_a_result_is_reproduced_where_only_records_are_left(repository, tiny, tmp_path):
    """Back to the images: data, VQ-VAE, prior, selection, student, classifier, evaluation."""
    left, folder = tmp_path / "left", tmp_path / "reproduced"
    for record in records(tiny):
        target = left / record.relative_to(tiny)
        target.parent.mkdir(parents=True)
        shutil.copy(record, target)
    record = left / "results/tiny/metrics/2x2-K4/seed-0" / RECORD
    status, said = reproduce(repository, record, folder)
    assert status == 0, said
    check_reproduced(tiny / "results/tiny/metrics/2x2-K4/seed-0", folder, said)
    steps = [json.loads(path.read_text())["step"] for path in folder.rglob(RECORD)]
    chain = "prepare_data train_vqvae train_prior distil train_student train_classifier"
    assert Counter(steps) == Counter([*chain.split(), "evaluate_teacher"])


def changed_copy(tiny: Path, folder: Path, change) -> Path:
    """A copy of the tiny results in which `change` was done to them."""
    shutil.copytree(tiny / "results", folder / "results")
    change(folder / "results/tiny")
    return folder / "results/tiny"


def test_a_result_that_differs_is_told_with_its_numbers(repository, tiny, tmp_path):
    """A record of other weights of the components, and of a lower bit of the table."""

    def change(results):
        table = read_csv(results / "metrics/cm/seed-0/density.csv")
        table.loc[2, "bpd"] += 0.5
        write_csv(results / "metrics/cm/seed-0/density.csv", table)

    results = changed_copy(tiny, tmp_path, change)
    folder = results / "metrics/cm/seed-0"
    new = tmp_path / "new"
    facts = dict(read_record(folder / RECORD))
    facts["files"]["results/tiny/metrics/cm/seed-0/density.csv"] = "0"
    write_json(folder / RECORD, sealed(facts))
    status, said = reproduce(repository, folder, new)
    assert status == 1
    then, now = (read_csv(p / "density.csv")["bpd"][2] for p in (folder, new / "metrics/cm/seed-0"))
    assert then == now + 0.5
    line = f"    bpd: recorded {then}, now {now}, difference -0.5"
    assert line in said.splitlines()
    assert "inpainting.csv: the same, byte for byte" in said


def test_a_result_whose_inputs_are_made_otherwise_is_made_all_the_same(repository, tiny, tmp_path):
    """As on another machine, whose weights differ: the numbers in the end tell how far."""

    def change(results):
        (results / "data/images.npz").unlink()
        for name in ("data", "models/classifier/seed-0"):
            facts = dict(read_record(results / name / RECORD))
            facts["files"] = dict.fromkeys(facts["files"], "0")
            if "best_validation" in facts:
                facts["best_validation"] += 2.0
            write_json(results / name / RECORD, sealed(facts))

    results = changed_copy(tiny, tmp_path, change)
    status, said = reproduce(repository, results / "models/classifier/seed-0", tmp_path / "new")
    assert status == 1
    assert "images.npz: made again, but another file than" in said
    assert "weights.safetensors: differs from the recorded one" in said
    assert re.search(r"\n    best_validation: recorded \S+, now \S+, difference -2\n", said)


def test_results_behind_links_are_reproduced(repository, tiny, tmp_path):
    """The models are on another disk, a record is named by the link to it."""

    def change(results):
        (results / "metrics").rename(tmp_path / "disk")
        (results / "metrics").symlink_to(tmp_path / "disk")

    results = changed_copy(tiny, tmp_path, change)
    status, said = reproduce(repository, results / "metrics/cm/seed-0" / RECORD, tmp_path / "new")
    assert status == 0, said
    check_reproduced(tiny / "results/tiny/metrics/cm/seed-0", tmp_path / "new", said)


def test_a_result_of_other_settings_is_told(repository, tiny, tmp_path):
    """The same files can't come of it."""

    def change(results):
        record = results / "metrics/cm/seed-0" / RECORD
        facts = dict(read_record(record)) | {"code_version": "another", "hardware": "Z80, 1 core"}
        facts["settings"]["n_components"] = [1, 2]
        write_json(record, sealed(facts))

    results = changed_copy(tiny, tmp_path, change)
    status, said = reproduce(repository, results / "metrics/cm/seed-0" / RECORD, tmp_path / "new")
    assert status == 1
    assert "metrics/cm/seed-0/density.csv: differs from the recorded one" in said
    assert re.search(r"code_version: [0-9a-f]{12}, and another when the record was written", said)
    assert "and Z80, 1 core when the record was written" in said


def test_what_cannot_be_reproduced_is_told_in_one_line(repository, tiny, tmp_path):
    def change(results):
        (results / "models/cm/seed-0/weights.safetensors").write_bytes(b"other weights")
        (results / "models/cm/seed-0" / RECORD).unlink()

    results = changed_copy(tiny, tmp_path, change)
    cases = {
        results / "metrics/cm/seed-0" / RECORD: "models/cm/seed-0/record.json: no such file",
        results / "models/cm/seed-0" / RECORD: "no such file",
        results / "tables/density.csv": "expected a record.json",
        repository / "config.yaml": "config.yaml: expected a record.json",
        results / "figures": "figures/record.json: no such file",
    }
    for record, named in cases.items():
        status, said = reproduce(repository, record, tmp_path / "new")
        assert status == 1
        assert len(said.splitlines()) == 1, said
        assert said.startswith("reproduce: ")
        assert named in said
    assert not (tmp_path / "new").exists()


# many seeds


def copy_seed(results: Path, seed: int) -> None:
    """The files of seed 0 under another seed, as if a run of that seed had written them."""
    for source in sorted(results.glob("*/*/seed-0")):
        if source.parent.name == "classifier":
            continue
        folder = Path(shutil.copytree(source, source.with_name(f"seed-{seed}")))
        for path in folder.glob("*.csv"):
            table = read_csv(path)
            if "seed" in table:
                write_csv(path, table.assign(seed=seed))
    for path in results.glob(f"*/*/seed-{seed}/{RECORD}"):
        facts = dict(read_record(path)) | {"seed": seed}
        names = [name.replace("/seed-0/", f"/seed-{seed}/") for name in facts["files"]]
        facts["files"] = {
            name: file_digest(results.parents[1] / name)
            for name in names
            if (results.parents[1] / name).exists()
        }
        write_json(path, sealed(facts))


def test_tables_are_made_of_forty_seeds(repository, tiny, tmp_path):
    """Whose files are too many for a command line."""
    folder, seeds = tmp_path / "copy", [*range(40)]
    shutil.copytree(tiny / "results", folder / "results")
    for seed in seeds[1:]:
        copy_seed(folder / "results/tiny", seed)
    configs = (repository / "config.yaml", config_file(folder, seeds=seeds))
    said = snakemake(repository, folder, "-n", "-p", "-F", "--configfile", *configs)
    command = re.search(r"Shell command: python (.* vqdistill.steps.tabulate .*) > ", said)[1]
    python(repository, folder, *shlex.split(command))
    density = tables(folder)["density"]
    assert set(density["seed"]) == set(seeds)
    assert set(tables(folder)["density_summary"]["n_seeds"]) == {40}
