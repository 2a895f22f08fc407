"""Configurations: what is filled in, what is refused, and what each job gets."""

import copy
import math
from pathlib import Path

import pytest
import yaml

from vqdistill import config as experiment
from vqdistill import data
from vqdistill.datasets import DATASETS, Dataset
from vqdistill.errors import InputError
from vqdistill.models.settings import load_baseline

ROOT = Path(__file__).parent.parent
SCHEMA = experiment.read_schema(ROOT / "workflow/schemas/config.schema.yaml")


def merged(base, changes):
    """Snakemake's merge of configuration files: mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = merged(result[key], value)
        result[key] = value
    return result


def paper():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def preset(name):
    return merged(paper(), yaml.safe_load((ROOT / f"workflow/presets/{name}.yaml").read_text()))


def checked(config):
    return experiment.checked(config, SCHEMA)


def minimal():
    """No key but those that have no default."""
    training = {"batch_size": 8, "max_epochs": 3, "patience": 2, "min_improvement": 0.1}
    return {
        "experiment": "tiny",
        "seeds": [0, 7],
        "data": {},
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
    config = paper() if name == "paper" else preset(name)
    before = copy.deepcopy(config)
    assert checked(config)["experiment"] == name
    assert config == before  # checking changes nothing in place
    assert checked(checked(config)) == checked(config)


def test_defaults_are_those_of_the_paper():
    """A key that is left out of config.yaml gets the value that stands there."""
    filled, paper_config = checked(minimal()), paper()
    for section in ("data", "prior", "inpainting"):
        assert filled[section] | {"training": {}} == paper_config[section] | {"training": {}}
    for key in ("commitment", "initialisation", "ema_decay", "learning_rate", "weight_decay"):
        assert filled["vqvae"][key] == paper_config["vqvae"][key]
    assert filled["vqvae"]["revive_dead_codes"] is False
    assert filled["vqvae"]["training"] == {}
    assert filled["classifier"]["width"] == paper_config["classifier"]["width"]
    assert filled["baselines"]["cm"] == {"settings": {}, "training": {}}
    assert filled["baselines"]["einet"]["training"] == {"patience": 9}


def test_given_values_stay():
    config = minimal()
    config["data"] = {"noise_seed": 5}
    assert checked(config)["data"] == {
        "dataset": "mnist", "root": None, "noise_seed": 5, "training_part": 10000
    }  # fmt: skip


# bad configurations


BAD = {  # what is wrong: (path, value), and what the message must name
    "unknown key": (("seed",), [1], "seed: unknown key; did you mean 'seeds'?"),
    "unknown key far from any": (("xyzzy",), 1, "xyzzy"),
    "unknown key in data": (("data", "noise_sed"), 1, "data.noise_sed"),
    "unknown key in training": (("training", "epochs"), 1, "training.epochs"),
    "unknown key in a model's training": (("vqvae", "training", "patiense"), 1, "patiense"),
    "unknown key in a teacher": (("teachers", 0, "method"), ["exm"], "teachers.0.method"),
    "unknown key in a baseline": (("baselines", "cm", "size"), 3, "baselines.cm.size"),
    "unknown key in inpainting": (("inpainting",), {"masks": 1}, "inpainting.masks"),
    "unknown key in the classifier": (("classifier",), {"widths": 1}, "classifier.widths"),
    "no experiment's name": (("experiment",), "", "experiment"),
    "a name with a slash": (("experiment",), "a/b", "experiment"),
    "a hidden name": (("experiment",), "../up", "experiment"),
    "the reserved name": (("experiment",), "reference", "experiment"),
    "no seeds": (("seeds",), [], "seeds"),
    "seeds that are one number": (("seeds",), 3, "seeds"),
    "a negative seed": (("seeds",), [0, -1], "seeds.1"),
    "a repeated seed": (("seeds",), [1, 1], "seeds"),
    "a seed in quotes": (("seeds",), ["1"], "seeds.0"),
    "a seed that is a truth value": (("seeds",), [True], "seeds.0"),
    "an unknown dataset": (("data", "dataset"), "cifar", "data.dataset"),
    "a root that is a number": (("data", "root"), 5, "data.root"),
    "no evaluated training images": (("data", "training_part"), 0, "data.training_part"),
    "an empty batch": (("training", "batch_size"), 0, "training.batch_size"),
    "a broken number of epochs": (("training", "max_epochs"), 2.5, "training.max_epochs"),
    "a number as text": (("training", "min_improvement"), "1e-3", "training.min_improvement"),
    "a negative gain": (("training", "min_improvement"), -0.1, "training.min_improvement"),
    "a rate of zero": (("vqvae", "learning_rate"), 0, "vqvae.learning_rate"),
    "a negative decay": (("prior", "weight_decay"), -1, "prior.weight_decay"),
    "a decay of one": (("vqvae", "ema_decay"), 1.0, "vqvae.ema_decay"),
    "an unknown initialisation": (("vqvae", "initialisation"), "zeros", "vqvae.initialisation"),
    "a truth value in quotes": (("vqvae", "revive_dead_codes"), "no", "vqvae.revive_dead_codes"),
    "no channels": (("vqvae", "channels", "2x2"), [], "vqvae.channels.2x2"),
    "a channel of none": (("vqvae", "channels", "2x2"), [4, 0], "vqvae.channels.2x2.1"),
    "a grid that is none": (("vqvae", "channels", "2by2"), [4, 6], "vqvae.channels.2by2"),
    "no layers": (("prior", "layers"), 0, "prior.layers"),
    "no teachers": (("teachers",), [], "teachers"),
    "a teacher's grid that is none": (("teachers", 0, "grid"), "2-2", "teachers.0.grid"),
    "a grid without channels": (("teachers", 0, "grid"), "4x4", "teachers.0.grid"),
    "a codebook of one": (("teachers", 0, "codebook_sizes"), [1], "teachers.0.codebook_sizes.0"),
    "no methods": (("teachers", 0, "methods"), [], "teachers.0.methods"),
    "methods that are one": (("teachers", 0, "methods"), "exm", "teachers.0.methods"),
    "no components": (("n_components",), [], "n_components"),
    "zero components": (("n_components",), [0, 1], "n_components.0"),
    "more components than latents": (("n_components",), [1, 82], "teachers.0"),
    "an exact model too large": (("teachers", 0, "codebook_sizes"), [128], "teachers.0"),
    "a baseline's name": (("baselines", "C-M"), {}, "baselines.C-M"),
    "a size in a baseline's settings": (
        ("baselines", "einet", "settings"), {"size": 3}, "baselines.einet.settings.size",
    ),
    "settings that are a list": (("baselines", "cm", "settings"), [1], "baselines.cm.settings"),
    "a section that is nothing": (("prior",), None, "prior"),
    "no scored images": (("inpainting",), {"scored_images": 0}, "inpainting.scored_images"),
    "a rate that is no number": (("vqvae", "learning_rate"), math.nan, "vqvae.learning_rate"),
    "an infinite rate": (("prior", "learning_rate"), math.inf, "prior.learning_rate: found inf"),
    "an infinite decay": (("prior", "weight_decay"), math.inf, "prior.weight_decay"),
    "a gain that is no number": (("training", "min_improvement"), math.nan, "min_improvement"),
    "a commitment that is no number": (("vqvae", "commitment"), math.nan, "vqvae.commitment"),
    "a baseline's rate that is no number": (
        ("baselines", "cm", "settings"), {"learning_rate": math.nan},
        "baselines.cm.settings.learning_rate: found nan",
    ),
    "a seed with a point": (("seeds",), [1.0], "seeds.0"),
    "a seed beyond 64 bits": (("seeds",), [2**63], "seeds.0"),
    "a number of components with a point": (("n_components",), [4.0], "n_components.0"),
    "epochs with a point": (("training", "max_epochs"), 3.0, "training.max_epochs"),
    "repeated numbers of components": (("n_components",), [4, 4], "n_components"),
    "a negative number of components": (("n_components",), [-1], "n_components.0"),
    "a repeated codebook size": (("teachers", 0, "codebook_sizes"), [3, 3], "codebook_sizes"),
    "a name that is a number": (("experiment",), 3, "experiment"),
    "a name with a line break": (("experiment",), "a\n", "experiment: found 'a\\n'"),
    "a name with a space": (("experiment",), "a b", "experiment"),
    "an endless name": (("experiment",), 200 * "a", "experiment"),
    "a grid with a line break": (("teachers", 0, "grid"), "2x2\n", "teachers.0.grid"),
    "a key that is a number": (("vqvae", "channels"), {2: [4]}, "vqvae.channels: the key 2"),
    "a key that is a truth value": (("training", True), 3, "training: the key True"),
    "a grid that the images don't reach": (
        ("data", "dataset"), "digits", "vqvae.channels: (4, 5, 6, 6) given",
    ),
    "too few channels": (("vqvae", "channels", "2x2"), [4, 5], "vqvae.channels: (4, 5) given"),
    "a negative channel": (("vqvae", "channels", "2x2"), [4, 5, 6, -6], "vqvae.channels.2x2.3"),
    "a negative layer": (("prior", "layers"), -1, "prior.layers"),
    "a negative size": (("baselines", "einet", "sizes"), [-2], "baselines.einet.sizes.0"),
    "sizes of a model that has none": (("baselines", "cm", "sizes"), [2], "baselines.cm.sizes"),
    "a setting as text": (
        ("baselines", "cm", "settings"), {"points": "many"},
        "baselines.cm.settings.points: found 'many', expected int",
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
    "a repeated method": (("teachers", 0, "methods"), ["exm", "exm"], "teachers.0.methods"),
    "a method that is a number": (("teachers", 0, "methods"), [3], "teachers.0.methods.0"),
    "a noise seed below zero": (("data", "noise_seed"), -1, "data.noise_seed"),
    "a section that is a list": (("data",), [], "data"),
    "inpainted sizes of zero": (("inpainting",), {"n_components": [0]}, "inpainting.n_comp"),
    "a classifier of no width": (("classifier",), {"width": 0}, "classifier.width"),
}  # fmt: skip


def refusal(config):
    with pytest.raises(InputError) as error:
        checked(config)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("config: ")
    return message


def changed(path, value):
    config = minimal()
    config["vqvae"]["training"] = {}
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


@pytest.mark.parametrize("what", BAD)
def test_a_bad_configuration_names_the_key(what):
    path, value, named = BAD[what]
    assert named in refusal(changed(path, value))


BUILT = {  # what can't be built: a baseline's settings, and what the message must name
    "a step that does not divide": ("einet", {"pixels_per_step": 5}, "pixels_per_step 5"),
    "a step of nothing": ("einet", {"pixels_per_step": 0}, "pixels_per_step 0"),
    "a step size above one": ("einet", {"em_step_size": 1.5}, "em_step_size"),
    "channels for other images": ("cm", {"channels": [8, 2]}, "channels: (8, 2) given"),
    "an unknown objective": ("cm", {"objective": "worst"}, "objective: 'worst' given"),
    "points that chunks don't divide": ("cm", {"points": 10, "chunk": 4}, "points: 10"),
    "no points": ("cm", {"points": 0}, "points, chunk: 0"),
}


@pytest.mark.parametrize("what", BUILT)
def test_a_baseline_that_cannot_be_built_is_refused_before_anything_is_trained(what):
    method, settings, named = BUILT[what]
    config = minimal()
    config["baselines"][method]["settings"] = settings
    with pytest.raises(InputError) as error:
        experiment.check_buildable(checked(config))
    assert str(error.value).startswith(f"config: baselines.{method}.settings: ")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("method", "nested"), [("cm", False), ("einet", True)])
def test_a_baseline_is_nested_where_it_has_no_size(method, nested, monkeypatch):
    """`tabulate` expects models of every N of those without a size, and one of the others."""
    monkeypatch.setattr(load_baseline(method), "PREFIXES_ARE_MODELS", nested)
    with pytest.raises(InputError, match=rf"baselines.{method}: .*PREFIXES_ARE_MODELS is {nested}"):
        experiment.check_buildable(checked(minimal()))


@pytest.mark.parametrize("name", ["paper", "quick", "laptop"])
def test_the_baselines_of_our_configurations_can_be_built(name):
    experiment.check_buildable(checked(paper() if name == "paper" else preset(name)))


def test_the_digits_are_what_is_known_of_them():
    arrays = data.prepare("digits", None, 0, 1)
    n_train, *shape = arrays["train_images"].shape
    found = Dataset(tuple(shape), int(arrays["levels"]), n_train, len(arrays["test_x"]))
    assert DATASETS["digits"] == found
    assert len(arrays["validation_x"]) == found.n_held_out


def test_numbers_of_the_command_line():
    """Snakemake reads those within lists and mappings as text."""
    given = {"seeds": ["0", "12"], "vqvae": {"learning_rate": "0.01", "channels": {"2x2": ["4"]}}}
    assert experiment.typed(given | {"experiment": "a: [", "n": 3, "data": {"root": "null"}}) == {
        "seeds": [0, 12],
        "vqvae": {"learning_rate": 0.01, "channels": {"2x2": [4]}},
        "experiment": "a: [",
        "n": 3,
        "data": {"root": None},
    }


@pytest.mark.parametrize("key", ["vqvae", "teachers", "n_components", "training", "baselines"])
def test_a_missing_section_is_named(key):
    config = minimal()
    del config[key]
    assert key in refusal(config)


@pytest.mark.parametrize("key", ["batch_size", "max_epochs", "patience", "min_improvement"])
def test_a_missing_key_of_training_is_named_or_filled(key):
    """Else the first training step ends in a KeyError."""
    config = minimal()
    del config["training"][key]
    try:
        filled = checked(config)
    except InputError as error:
        assert key in str(error)  # noqa: PT017
    else:
        assert key in experiment.vqvae_settings(filled, "2x2-K3")["training"]


def test_an_exact_model_of_astronomical_size_is_refused():
    """K^HW beyond the range of floats is told like any other size."""
    config = minimal()
    config["vqvae"]["channels"]["16x16"] = [4]
    config["teachers"] = [{"grid": "16x16", "codebook_sizes": [4096], "methods": ["exm"]}]
    assert "exm" in refusal(config)


def test_a_grid_that_no_encoder_reaches():
    config = minimal()
    config["vqvae"]["channels"]["3x3"] = [4]
    config["teachers"] = [{"grid": "3x3", "codebook_sizes": [4], "methods": ["dmrs"]}]
    assert "teachers.0.grid: (3, 3) can't be reached from images of (28, 28)" in refusal(config)


def test_a_source_that_stands_twice():
    config = minimal()
    config["teachers"] += [{"grid": "2x2", "codebook_sizes": [5], "methods": ["dmbs"]}]
    assert "teachers.1: 2x2 with K = 5 stands twice" in refusal(config)


def test_a_misspelt_method_is_refused_before_anything_is_trained():
    config = minimal()
    config["teachers"][0]["methods"] = ["dmrz"]
    assert "dmrz" in refusal(config)


def test_a_baseline_is_left_out_by_null():
    config = checked(merged(paper(), {"baselines": {"cm": None}}))
    assert set(config["baselines"]) == {"einet"}
    assert "cm" not in experiment.methods(config)


def test_a_misspelt_baseline_that_is_left_out_is_refused():
    with pytest.raises(InputError, match="cmm: not known"):
        checked(merged(paper(), {"baselines": {"cmm": None}}))


def test_an_unknown_baseline_is_refused_before_anything_is_trained():
    config = minimal()
    config["baselines"]["gan"] = {}
    assert "gan" in refusal(config)


def test_an_einet_without_sizes_is_refused_or_expected_as_one_model():
    """It is no mixture: tables with rows for each N would never be complete."""
    config = minimal()
    del config["baselines"]["einet"]["sizes"]
    try:
        models = experiment.expected_models(checked(config))
    except InputError:
        return
    einets = [m for m in models if m["method"] == "einet"]
    assert {m["weights"] for m in einets} == {"learned"}


def test_an_exact_model_alone_may_have_fewer_latents_than_components():
    config = minimal()
    config["n_components"] = [1000]
    config["teachers"][0]["methods"] = ["exm"]
    checked(config)


# settings of jobs


@pytest.fixture
def tiny():
    return checked(minimal())


def test_sources_models_and_methods(tiny):
    assert experiment.teachers(tiny) == {"2x2-K3": ["exm", "dmrs"], "2x2-K5": ["exm", "dmrs"]}
    assert experiment.baselines(tiny) == {
        "cm": ("cm", 0), "einet-2": ("einet", 2), "einet-3": ("einet", 3)
    }  # fmt: skip
    assert experiment.methods(tiny) == ["exm", "dmrs", "cm", "einet"]
    assert experiment.sources_of(tiny, "dmrs") == ["2x2-K3", "2x2-K5"]
    assert experiment.sources_of(tiny, "einet") == ["einet-2", "einet-3"]
    assert experiment.sources_of(tiny, "dmbs") == []


def test_settings_of_the_teacher(tiny):
    tiny["vqvae"]["training"] = {"max_epochs": 1}
    vqvae = experiment.vqvae_settings(tiny, "2x2-K5")
    assert (vqvae["grid"], vqvae["codebook_size"], vqvae["channels"]) == ("2x2", 5, [4, 5, 6, 6])
    assert vqvae["training"] == tiny["training"] | {"max_epochs": 1}
    prior = experiment.prior_settings(tiny, "2x2-K5")
    assert (prior["width"], prior["codebook_size"]) == (6, 5)  # as wide as the latents
    assert prior["training"] == tiny["training"]
    tiny["prior"]["width"] = 11
    assert experiment.prior_settings(tiny, "2x2-K5")["width"] == 11
    selection = experiment.selection_settings(tiny, "2x2-K5")
    assert selection == {"grid": "2x2", "codebook_size": 5, "n_components": [1, 4]}
    evaluation = experiment.teacher_evaluation_settings(tiny, "2x2-K5")
    assert evaluation == selection | {"inpainting": tiny["inpainting"]}


def test_settings_of_baselines_and_classifier(tiny):
    einet = experiment.baseline_settings(tiny, "einet-3")
    assert einet == {
        "method": "einet", "settings": {"size": 3}, "training": tiny["training"] | {"patience": 9}
    }  # fmt: skip
    cm = experiment.baseline_settings(tiny, "cm")
    assert cm == {"method": "cm", "settings": {}, "training": tiny["training"]}
    evaluation = experiment.baseline_evaluation_settings(tiny, "einet-3")
    assert (evaluation["method"], evaluation["size"]) == ("einet", 3)
    assert experiment.classifier_settings(tiny)["training"] == tiny["training"]
    assert experiment.data_settings(tiny)["dataset"] == "mnist"


def test_a_job_does_not_depend_on_what_it_does_not_use(tiny):
    """A new seed, component count or method trains nothing again."""
    other = minimal()
    other["seeds"], other["n_components"] = [3], [1, 2]
    other["teachers"][0]["methods"] = ["dmbs"]
    other = checked(other)
    for settings, source in (
        (experiment.vqvae_settings, "2x2-K3"),
        (experiment.prior_settings, "2x2-K3"),
        (experiment.baseline_settings, "cm"),
    ):
        assert settings(other, source) == settings(tiny, source)


def test_settings_do_not_share_state_with_the_configuration(tiny):
    before = copy.deepcopy(tiny)
    experiment.vqvae_settings(tiny, "2x2-K3")["training"]["max_epochs"] = 77
    experiment.baseline_settings(tiny, "einet-3")["settings"]["size"] = 77
    assert tiny == before


def test_expected_models_by_hand(tiny):
    found = experiment.expected_models(tiny)
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
    models = experiment.expected_models(checked(paper()))
    exm = {m["n_components"] for m in models if m["method"] == "exm"}
    assert exm == {4**4, 16**4, 32**4, 64**4, 96**4}
    assert len(models) == 5 * (5 * 2 + 2 * 4 * 15 * 2 + 15 + 5)
