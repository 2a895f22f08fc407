"""Configurations: what is filled in, what is refused, and what each job gets."""

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from helpers import ROOT, configuration, refusal

from vqdistill import baselines, config, data
from vqdistill.datasets import DATASETS, Dataset
from vqdistill.settings import Experiment, Training, plain
from vqdistill.steps import describe_settings


def minimal():
    """The keys that have no default, and some more."""
    training = {"batch_size": 8, "max_epochs": 3, "patience": 2, "min_improvement": 0.1}
    return {
        "experiment": "tiny",
        "seeds": [0, 7],
        "data": {"dataset": "mnist"},
        "training": training,
        "vqvae": {"channels": {"2x2": [4, 5, 6, 6]}},
        "prior": {},
        "teachers": [{"grid": "2x2", "codebook_sizes": [3, 5], "methods": ["exm", "dmrs"]}],
        "n_components": [1, 4],
        "baselines": {"cm": {}, "einet": {"sizes": [2, 3], "training": {"patience": 9}}},
    }


# valid configurations


@pytest.mark.parametrize("name", ["paper", "quick", "laptop"])
def test_our_configurations_are_valid(name):
    given = configuration() if name == "paper" else configuration(name)
    before = copy.deepcopy(given)
    experiment = config.checked(given)
    assert experiment.experiment == name
    assert given == before  # checking changes nothing in place
    assert config.checked(plain(experiment)) == experiment


def test_checking_imports_no_torch():
    """A dry run checks the configuration, and should not take the seconds of that."""
    program = "import sys; from vqdistill import config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_the_training_of_a_model_holds_what_differs_from_that_of_all():
    given = minimal() | {"classifier": {"training": {"max_epochs": 4}}}
    experiment, common = config.checked(given), Training(**minimal()["training"])
    assert experiment.vqvae.training == experiment.prior.training == common
    assert experiment.baselines.cm.training == common
    assert experiment.baselines.einet.training == common.model_copy(update={"patience": 9})
    own = {"max_epochs": 4, "patience": 4}  # the classifier's patience is its own
    assert experiment.classifier.training == common.model_copy(update=own)


def test_given_values_stay():
    given = minimal()
    given["data"]["noise_seed"] = 5
    given["vqvae"]["channels"]["4x4"] = [3, 3, 3]
    experiment = config.checked(given)
    assert plain(experiment.data) == {
        "dataset": "mnist", "root": None, "noise_seed": 5, "training_part": 10000
    }  # fmt: skip
    assert experiment.vqvae.channels == {"2x2": (4, 5, 6, 6), "4x4": (3, 3, 3)}


@pytest.mark.parametrize("path", describe_settings.texts())
def test_what_is_generated_from_the_settings_is_in_step(path):
    """Else: python -m vqdistill.steps.describe_settings."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text == describe_settings.texts()[path]


# bad configurations


BAD = {  # what is wrong: (path, value), and what the message must name
    "unknown key": (("seed",), [1], "seed: unknown key; did you mean 'seeds'?"),
    "unknown key far from any": (("xyzzy",), 1, "xyzzy"),
    "unknown key in training": (("training", "epochs"), 1, "training.epochs"),
    "unknown key in a baseline": (("baselines", "cm", "size"), 3, "baselines.cm.size"),
    "unknown key in the classifier": (("classifier",), {"widths": 1}, "classifier.widths"),
    "no experiment's name": (("experiment",), "", "experiment"),
    "a name with a slash": (("experiment",), "a/b", "experiment"),
    "a hidden name": (("experiment",), "../up", "experiment"),
    "the reserved name": (("experiment",), "reference", "experiment"),
    "a repeated seed": (("seeds",), [1, 1], "seeds"),
    "a seed in quotes": (("seeds",), ["1"], "seeds.0"),
    "a root that is a number": (("data", "root"), 5, "data.root"),
    "no evaluated training images": (("data", "training_part"), 0, "data.training_part"),
    "a number as text": (("training", "min_improvement"), "1e-3", "training.min_improvement"),
    "an empty batch": (("training", "batch_size"), 0, "training.batch_size"),
    "no layers": (("prior", "layers"), 0, "prior.layers"),
    "zero components": (("n_components",), [0, 1], "n_components.0"),
    "no scored images": (("inpainting",), {"scored_images": 0}, "inpainting.scored_images"),
    "repeated numbers of components": (("n_components",), [4, 4], "n_components"),
    "a repeated codebook size": (("teachers", 0, "codebook_sizes"), [3, 3], "codebook_sizes"),
    "an inpainted size that is no N": (
        ("inpainting",), {"n_components": [1, 3]},
        "inpainting.n_components: found 3, expected some of n_components, [1, 4]",
    ),
    "more scored images than there are": (
        ("inpainting",), {"scored_images": 10_001}, "inpainting.scored_images: found 10001",
    ),
    "k-means of more codes than encodings": (
        ("vqvae", "initialisation"), "kmeans", "teachers.0: vqvae.initialisation: kmeans of K = 5",
    ),
    "a root of images that need none": (
        ("data",), {"dataset": "digits", "root": "here"}, "data.root: found 'here', expected none",
    ),
    "a name that YAML takes for a date": (
        ("experiment",), date(2024, 1, 15), "experiment: found 2024-01-15, a date; write it in",
    ),
    "a number that YAML takes for a text": (
        ("vqvae", "learning_rate"), "1e-3", "expected a valid number; write 0.001, without quotes",
    ),
    "a grid of astronomical size": (("teachers", 0, "grid"), "9999x9999", "teachers.0.grid"),
    "inpainted sizes of zero": (("inpainting",), {"n_components": [0]}, "inpainting.n_comp"),
    "a classifier of no width": (("classifier",), {"width": 0}, "classifier.width"),
    "a rate of zero": (("vqvae", "learning_rate"), 0, "vqvae.learning_rate"),
    "a decay of one": (("vqvae", "ema_decay"), 1.0, "vqvae.ema_decay"),
    "a truth value in quotes": (("vqvae", "revive_dead_codes"), "no", "vqvae.revive_dead_codes"),
    "a channel of none": (("vqvae", "channels", "2x2"), [4, 0], "vqvae.channels.2x2.1"),
    "a grid that is none": (("vqvae", "channels", "2by2"), [4, 6], "vqvae.channels.2by2"),
    "a teacher's grid that is none": (("teachers", 0, "grid"), "2-2", "teachers.0.grid"),
    "a grid without channels": (("teachers", 0, "grid"), "3x3", "teachers.0.grid: no channels"),
    "a codebook of one": (("teachers", 0, "codebook_sizes"), [1], "teachers.0.codebook_sizes.0"),
    "more components than latents": (("n_components",), [1, 82], "teachers.0"),
    "an exact model too large": (("teachers", 0, "codebook_sizes"), [128], "teachers.0"),
    "a baseline's name": (("baselines", "C-M"), {}, "baselines.C-M"),
    "a size in a baseline's settings": (
        ("baselines", "einet", "settings"), {"size": 3}, "baselines.einet.settings.size: unknown",
    ),
    "settings that are a list": (("baselines", "cm", "settings"), [1], "baselines.cm.settings"),
    "a rate that is no number": (("vqvae", "learning_rate"), math.nan, "vqvae.learning_rate"),
    "an infinite rate": (("prior", "learning_rate"), math.inf, "prior.learning_rate: found inf"),
    "a gain that is no number": (("training", "min_improvement"), math.nan, "min_improvement"),
    "a commitment that is no number": (("vqvae", "commitment"), math.nan, "vqvae.commitment"),
    "a baseline's rate that is no number": (
        ("baselines", "cm", "settings"), {"learning_rate": math.nan},
        "baselines.cm.settings.learning_rate: found nan",
    ),
    "a seed with a point": (("seeds",), [1.0], "seeds.0"),
    "a seed beyond 64 bits": (("seeds",), [2**63], "seeds.0"),
    "epochs with a point": (("training", "max_epochs"), 3.0, "training.max_epochs"),
    "a name with a line break": (("experiment",), "a\n", "experiment: found 'a\\n'"),
    "a name with a space": (("experiment",), "a b", "experiment"),
    "an endless name": (("experiment",), 200 * "a", "experiment"),
    "a grid with a line break": (("teachers", 0, "grid"), "2x2\n", "teachers.0.grid"),
    "a key that is a number": (("vqvae", "channels"), {2: [4]}, "vqvae.channels: the key 2"),
    "a key that is a truth value": (("training", True), 3, "training: the key True"),
    "a grid that the images don't reach": (
        ("data",), {"dataset": "digits", "training_part": 9}, "channels.2x2: channels: (4, 5, 6",
    ),
    "too few channels": (("vqvae", "channels", "2x2"), [4, 5], "vqvae.channels.2x2: "),
    "sizes of a model that has none": (("baselines", "cm", "sizes"), [2], "baselines.cm.sizes"),
    "a setting as text": (
        ("baselines", "cm", "settings"), {"points": "many"},
        "baselines.cm.settings.points: found 'many', expected a valid integer",
    ),
    "a setting with a point": (
        ("baselines", "cm", "settings"), {"chunk": 8.0}, "baselines.cm.settings.chunk: found 8.0",
    ),
    "channels that are one": (
        ("baselines", "cm", "settings"), {"channels": 8}, "baselines.cm.settings.channels: found 8",
    ),
    "an unknown setting of a baseline": (
        ("baselines", "cm", "settings"), {"point": 8}, "did you mean 'points'?",
    ),
    "a step size of nothing": (
        ("baselines", "einet", "settings"), {"em_step_size": 0}, "settings.em_step_size: found 0",
    ),
    "a step size above one": (
        ("baselines", "einet", "settings"), {"em_step_size": 1.5}, "em_step_size: found 1.5",
    ),
    "a rate below zero": (
        ("baselines", "cm", "settings"), {"learning_rate": -0.001}, "learning_rate: found -0.001",
    ),
    "pieces that do not divide the images": (
        ("baselines", "einet", "settings"), {"pixels_per_step": 5}, "pixels_per_step: found 5",
    ),
    "a piece that is the whole image": (
        ("baselines", "einet", "settings"), {"pixels_per_step": 28}, "pixels_per_step: found 28",
    ),
    "a CM's channels for other images": (
        ("baselines", "cm", "settings"), {"channels": [8, 2]}, "channels: (8, 2) given",
    ),
    "an unknown objective": (
        ("baselines", "cm", "settings"), {"objective": "mixtures"}, "did you mean 'mixture'?",
    ),
    "points that chunks don't divide": (
        ("baselines", "cm", "settings"), {"points": 10, "chunk": 4}, "settings.points: found 10",
    ),
    "no points": (("baselines", "cm", "settings"), {"points": 0}, "settings.points: found 0"),
    "a mixture larger than the training set": (
        ("baselines",), {"gmm": {"sizes": [50_001]}}, "baselines.gmm.sizes: found 50001",
    ),
    "more training images than there are": (
        ("data", "training_part"), 50_001, "data.training_part: found 50001",
    ),
    "no sizes": (("baselines",), {"einet": {}}, "baselines.einet.sizes: missing"),
    "a misspelt method": (("teachers", 0, "methods"), ["dmrz"], "did you mean 'dmrs'?"),
    "an unknown baseline": (("baselines",), {"gan": {}}, "baselines.gan: not known"),
    "a misspelt baseline that is left out": (("baselines",), {"cmm": None}, "baselines.cmm: not"),
    "an exact model of astronomical size": (
        ("teachers", 0), {"grid": "4x4", "codebook_sizes": [4096], "methods": ["exm"]}, "exm",
    ),
    "a grid that no encoder reaches": (
        ("teachers", 0), {"grid": "16x16", "codebook_sizes": [4], "methods": ["dmrs"]},
        "teachers.0.grid: (16, 16) can't be reached from images of (28, 28)",
    ),
    "a teacher that stands twice": (
        ("teachers",), 2 * minimal()["teachers"], "teachers: found 2x2 with K = 3 twice",
    ),
    "a student with the name of another method": (
        ("students",), {"dmrs": {}}, "students.dmrs: the name of another method",
    ),
    "a student that is no name": (("students",), {"my deep": {}}, "students.my deep"),
    "a student with an unknown setting": (
        ("students",), {"deep": {"settings": {"sample": 9}}}, "did you mean 'samples'?",
    ),
    "more class levels than a quad-tree has": (
        ("students",), {"deep": {"settings": {"class_levels": 6}}},
        "students.deep.settings.class_levels: found 6, expected at most 5",
    ),
    "a misspelt student": (("teachers", 0, "methods"), ["depp"], "did you mean 'deep'?"),
    "a repeated method": (("teachers", 0, "methods"), ["exm", "exm"], "teachers.0.methods"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_configuration_names_the_key(what):
    path, value, named = BAD[what]
    given = minimal()
    given["vqvae"]["training"] = {}
    given["vqvae"]["channels"] |= {"16x16": [4], "9999x9999": [4]}
    given["data"]["training_part"] = 1  # four encodings on 2x2
    inner = given
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    said = refusal(config.checked, given)
    assert said.startswith("config: ")
    assert named in said


def leaves(schema: dict, within: dict, path: tuple = ()) -> Iterator[tuple[tuple, dict]]:
    """All settings of a JSON schema that hold no others, with their paths; 0 in a list."""
    definition = within["$defs"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    if "anyOf" in definition:
        for one in definition["anyOf"]:
            yield from leaves(one, within, path)
    elif definition.get("type") == "array":
        yield from leaves(definition["items"], within, (*path, 0))
    elif "patternProperties" in definition:
        name, inner = "deep" if path == ("students",) else "2x2", definition["patternProperties"]
        yield from leaves(next(iter(inner.values())), within, (*path, name))
    elif "properties" in definition:
        for name, inner in definition["properties"].items():
            yield from leaves(inner, within, (*path, name))
    elif definition.get("type") not in ("null", "object", None) or "enum" in definition:
        yield path, definition


def everything() -> dict:
    """A configuration with all baselines."""
    given = minimal()
    own = {"gmm": [3], "quad_tree": [2], "quad_tree_levels": [2]}
    given["baselines"] |= {name: {"sizes": sizes} for name, sizes in own.items()}
    return given


def impossible(schema: dict) -> list:
    """Values that a setting must not have: of another type, and beyond each of its bounds."""
    kind, values = schema.get("type"), [[], {"a": 1}]
    if kind in ("integer", "number"):
        values += ["many", True, math.nan, math.inf, "3"]
        values += [schema["minimum"] - 1] if "minimum" in schema else []
        values += [schema["maximum"] + 1] if "maximum" in schema else []
        values += [
            schema[name] for name in ("exclusiveMinimum", "exclusiveMaximum") if name in schema
        ]
    if kind == "integer":
        values += [1.5, 10**30]
    if kind == "string":
        values += [
            5,
            "line\nbreak",
            *(["no such thing"] if {"enum", "pattern"} & {*schema} else []),
        ]
    return values + (["yes", 1] if kind == "boolean" else [])


SCHEMA = Experiment.model_json_schema()
LEAVES = dict(leaves(SCHEMA, SCHEMA))


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_every_setting_has_bounds_and_is_refused_beyond_them(path):
    """From the configuration alone, before anything is run."""
    schema = LEAVES[path]
    if schema.get("type") in ("integer", "number"):
        low, high = ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"})
        assert low & {*schema}
        assert high & {*schema} or path[-1] == "min_improvement"
    for value in impossible(schema):
        given = everything()
        inner = given
        for key, following in itertools.pairwise(path):
            if isinstance(inner, dict):
                inner.setdefault(key, {} if isinstance(following, str) else [])
            inner = inner[key]
        if isinstance(inner, list):
            inner[:] = [value]
        else:
            inner[path[-1]] = value
        said = refusal(config.checked, given)
        assert said.startswith("config: ")
        named = [str(key) for key in path if isinstance(key, str)]
        assert ".".join(named[: 1 if path[0] == "teachers" else None]) in said, value


@pytest.mark.parametrize("key", ["seeds", "data", "teachers", "n_components", "baselines"])
def test_a_missing_key_is_named(key):
    given = minimal()
    del given[key]
    assert f"config: {key}: missing" in refusal(config.checked, given)


def test_the_digits_are_what_is_known_of_them():
    arrays = data.prepare_dataset("digits", None, 0, 1)
    n_train, *shape = arrays["train_images"].shape
    found = Dataset(tuple(shape), int(arrays["levels"]), n_train, len(arrays["test_x"]))
    assert DATASETS["digits"] == found
    assert len(arrays["validation_x"]) == found.n_held_out


COMMAND_LINE = {  # an entry of --config, and what it gives its key
    "seeds=[0, 12]": [0, 12],
    'seeds=["1"]': ["1"],
    "seeds=[one]": ["one"],
    "seeds=": None,
    "experiment=2024-01-15": "2024-01-15",
    "experiment=007": "007",
    "experiment=1e3": "1e3",
    "experiment=null": "null",
    "experiment=yes": "yes",
    "experiment=a: [": "a: [",
    "experiment=a=b": "a=b",
    'data={root: "/mnt/data #2"}': {"root": "/mnt/data #2"},
    "data={root: /mnt/1.50}": {"root": "/mnt/1.50"},
    "data={root: 5}": {"root": "5"},
    "data={root: null}": {"root": None},
    'data={root: "null"}': {"root": "null"},
    "data={dataset: digits, noise_seed: 3}": {"dataset": "digits", "noise_seed": 3},
    "vqvae={learning_rate: 0.01, channels: {2x2: [4, 5]}}": {
        "learning_rate": 0.01, "channels": {"2x2": [4, 5]},
    },
    "vqvae={revive_dead_codes: true, initialisation: kmeans}": {
        "revive_dead_codes": True, "initialisation": "kmeans",
    },
    "teachers=[{grid: 2x2, codebook_sizes: [4], methods: [exm]}]": [
        {"grid": "2x2", "codebook_sizes": [4], "methods": ["exm"]}
    ],
    "baselines={cm: null, einet: {sizes: [2]}}": {"cm": None, "einet": {"sizes": [2]}},
    "baselines={own: {settings: {since: 2024-01-15, at: 12, named: x}}}": {
        "own": {"settings": {"since": "2024-01-15", "at": 12, "named": "x"}}
    },
}  # fmt: skip


@pytest.mark.parametrize("entry", COMMAND_LINE)
def test_a_value_of_the_command_line_is_read_once_by_the_type_of_its_key(entry):
    found = config.of_command_line(entry)
    assert found == {entry.partition("=")[0]: COMMAND_LINE[entry]}
    assert repr(found[entry.partition("=")[0]]) == repr(COMMAND_LINE[entry])  # 1 is no True


def test_defaults_that_count_images_or_name_n_fit_the_experiment():
    given = minimal() | {"n_components": [1, 64]}
    given["data"] = {"dataset": "digits"}
    given["vqvae"] = {"channels": {"2x2": [4, 4]}}
    given["baselines"] = {}
    experiment = config.checked(given)
    assert experiment.data.training_part == 1197
    assert (experiment.inpainting.n_components, experiment.inpainting.scored_images) == ((64,), 300)


def test_what_has_no_order_is_the_same_in_every_order():
    given = minimal()
    given["n_components"], given["inpainting"] = [4, 1, 2], {"n_components": [4, 2]}
    given["teachers"].append({"grid": "2x2", "codebook_sizes": [9, 8], "methods": ["exm"]})
    given["baselines"]["einet"]["sizes"] = [3, 2]
    other = copy.deepcopy(given)
    for section in (other, other["inpainting"], *other["teachers"], other["baselines"]["einet"]):
        for value in section.values():
            if isinstance(value, list):
                value.reverse()
    assert other["teachers"] != given["teachers"]
    assert other["n_components"] != given["n_components"]
    first, second = config.checked(given), config.checked(other)
    assert plain(first) == plain(second)
    assert list(config.teachers(first)) == list(config.teachers(second))
    assert config.settings_of_steps(first) == config.settings_of_steps(second)


def test_a_baseline_is_left_out_by_null():
    experiment = config.checked(configuration({"baselines": {"cm": None}}))
    assert "cm" not in config.methods(experiment)
    left = {("einet", n) for n in (2, 4, 8, 16, 30)} | {("gmm", 1)}
    left |= {("quad_tree", n) for n in (4, 8, 16, 32, 64)}
    assert set(config.baselines(experiment).values()) == left


def test_an_exact_model_alone_may_have_fewer_latents_than_components():
    given = minimal()
    given["n_components"] = [1000]
    given["teachers"][0]["methods"] = ["exm"]
    config.checked(given)


# a researcher's own baseline


@pytest.fixture
def own_baseline(monkeypatch):
    """A file of vqdistill/baselines with settings of its own: the plain mixture, and one more."""
    path = Path(baselines.__file__).with_name("own_for_tests.py")
    lines = [
        "from vqdistill.baselines.gmm import build, trainer",
        "from vqdistill.settings import Count, Settings as Base",
        "class Settings(Base):",
        "    size: Count = 1",
        "    depth: Count = 3",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.delitem(sys.modules, "vqdistill.baselines.own_for_tests", raising=False)
    yield path.stem
    path.unlink()


def test_a_baseline_of_ones_own_is_checked_by_its_own_settings(own_baseline):
    entry = {"sizes": [2], "settings": {"depth": 5}, "training": {"patience": 1}}
    given = minimal()
    given["baselines"] = {own_baseline: entry}
    experiment = config.checked(given)
    job = config.baseline_settings(experiment, f"{own_baseline}-2")
    assert job.settings == {"size": 2, "depth": 5}
    assert job.training == Training(**minimal()["training"] | {"patience": 1})
    for settings, named in (
        ({"depht": 5}, "settings.depht: unknown key; did you mean 'depth'?"),
        ({"depth": 0}, "settings.depth: found 0"),
        ({"size": 2}, "settings.size: list it in `sizes` instead"),
    ):
        given["baselines"][own_baseline] = {"sizes": [2], "settings": settings}
        assert f"baselines.{own_baseline}.{named}" in refusal(config.checked, given)
    given["baselines"][own_baseline] = {}
    assert f"baselines.{own_baseline}.sizes: expected one size or more" in refusal(
        config.checked, given
    )


# settings of jobs


@pytest.fixture
def tiny():
    return config.checked(minimal())


def test_teachers_models_and_methods(tiny):
    assert config.teachers(tiny) == {"2x2-K3": ("dmrs", "exm"), "2x2-K5": ("dmrs", "exm")}
    assert config.baselines(tiny) == {
        "cm": ("cm", 0), "einet-2": ("einet", 2), "einet-3": ("einet", 3)
    }  # fmt: skip
    assert config.methods(tiny) == ["dmrs", "exm", "cm", "einet"]
    assert config.evaluated_on(tiny, "dmrs") == ["2x2-K3", "2x2-K5"]
    assert config.evaluated_on(tiny, "einet") == ["einet-2", "einet-3"]
    assert config.evaluated_on(tiny, "dmbs") == []


def test_settings_of_the_teacher():
    given = minimal()
    given["vqvae"]["training"] = {"max_epochs": 1}
    experiment = config.checked(given)
    vqvae = config.vqvae_settings(experiment, "2x2-K5")
    assert (vqvae.grid, vqvae.codebook_size, vqvae.channels) == ((2, 2), 5, (4, 5, 6, 6))
    assert plain(vqvae)["training"] == given["training"] | {"max_epochs": 1}
    prior = config.prior_settings(experiment, "2x2-K5")
    assert (prior.width, prior.codebook_size) == (6, 5)  # as wide as the latents
    assert plain(prior)["training"] == given["training"]
    for width in (0, 11):
        wide = config.checked(given | {"prior": {"width": width}})
        assert config.prior_settings(wide, "2x2-K5").width == (width or 6)
    selection = {"grid": "2x2", "codebook_size": 5, "n_components": [1, 4]}
    found = config.selection_settings(experiment, "2x2-K5")
    assert plain(found) == selection | {"methods": ["dmrs", "exm"]}
    evaluation = config.teacher_evaluation_settings(experiment, "2x2-K5")
    assert plain(evaluation) == selection | {"inpainting": plain(experiment.inpainting)}


def test_settings_of_baselines(tiny):
    einet = plain(config.baseline_settings(tiny, "einet-3"))
    assert einet["settings"]["size"] == 3
    assert einet["training"] == minimal()["training"] | {"patience": 9}
    cm = config.baseline_settings(tiny, "cm")
    assert (cm.method, cm.training) == ("cm", tiny.training)
    assert cm.settings == plain(tiny.baselines.cm.settings)
    evaluation = config.baseline_evaluation_settings(tiny, "einet-3")
    assert (evaluation.method, evaluation.size) == ("einet", 3)


def test_a_job_does_not_depend_on_what_it_does_not_use(tiny):
    """A new seed, component count or method trains nothing again."""
    other = minimal()
    other["seeds"], other["n_components"] = [3], [1, 2]
    other["teachers"][0]["methods"] = ["dmbs"]
    other = config.checked(other)
    for settings, name in (
        (config.vqvae_settings, "2x2-K3"),
        (config.prior_settings, "2x2-K3"),
        (config.baseline_settings, "cm"),
    ):
        assert settings(other, name) == settings(tiny, name)


def test_expected_models_by_hand(tiny):
    found = config.expected_models(tiny)
    distilled = [
        {"method": method, "grid": "2x2", "codebook_size": K, "size": 0, "n_components": n,
         "weights": weights, "seed": seed}
        for K in (3, 5)
        for method, sizes in (("exm", [K**4]), ("dmrs", [1, 4]))
        for n in sizes
        for weights in ("uniform", "prior")
        for seed in (0, 7)
    ]  # fmt: skip
    none = {"grid": "-", "codebook_size": 0}
    learned = [
        none | {"method": "cm", "size": 0, "n_components": n, "weights": "uniform", "seed": seed}
        for n in (1, 4)
        for seed in (0, 7)
    ] + [
        none | {"method": "einet", "size": K, "n_components": 0, "weights": "learned", "seed": seed}
        for K in (2, 3)
        for seed in (0, 7)
    ]

    def key(model):
        return sorted((name, str(value)) for name, value in model.items())

    assert sorted(found, key=key) == sorted(distilled + learned, key=key)


def test_expected_models_of_the_paper():
    models = config.expected_models(config.checked(configuration()))
    exm = {m["n_components"] for m in models if m["method"] == "exm"}
    assert exm == {4**4, 16**4, 32**4, 64**4, 96**4}
    assert len(models) == 5 * (5 * 2 + 2 * 4 * 15 * 2 + 2 * 3 + 15 + 5 + 5 + 1)
