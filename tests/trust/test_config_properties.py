"""Any valid configuration loads; any that is corrupted in one place is refused in one line."""

import copy

from helpers import refusal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vqdistill.config import (
    baseline_settings,
    baselines,
    checked,
    expected_models,
    methods,
    prior_settings,
    settings_of_steps,
    teachers,
    vqvae_settings,
)
from vqdistill.settings import plain

TRIED = settings(max_examples=60, derandomize=True, deadline=None, database=None)

count = st.integers(1, 10_000)
rate = st.floats(1e-6, 1.0)
decay = st.floats(0.0, 0.5)
TRAINING = {"batch_size": count, "max_epochs": count, "patience": count, "min_improvement": decay}
training = st.fixed_dictionaries({}, optional=TRAINING)
LAYERS = {"mnist": {"2x2": 4, "4x4": 3}, "digits": {"2x2": 2, "4x4": 1}}  # of the encoders


def distinct(elements, most: int = 4):
    return st.lists(elements, min_size=1, max_size=most, unique=True)


def model(**own):
    """A model's section; its rates and its training may be left out."""
    rates = {"learning_rate": rate, "weight_decay": decay, "training": training}
    return st.fixed_dictionaries({}, optional=own | rates)


def vqvae_of(dataset: str):
    channels = {
        grid: st.lists(st.integers(1, 64), min_size=n, max_size=n)
        for grid, n in LAYERS[dataset].items()
    }
    own = model(
        commitment=decay,
        initialisation=st.just("uniform"),
        ema_decay=st.floats(0, 0.99),
        revive_dead_codes=st.booleans(),
    )
    return st.builds(lambda c, rest: {"channels": c} | rest, st.fixed_dictionaries(channels), own)


selections = distinct(st.sampled_from(["dmrs", "dmbs", "random", "frequent"]))
teacher = {"codebook_sizes": distinct(st.integers(16, 4096)), "methods": selections}
exact = {"codebook_sizes": distinct(st.integers(16, 100)), "methods": st.just(["exm", "dmrs"])}


def teachers_on(chosen: list[str]):
    """One teacher a grid; exact models where the space is small enough."""
    small = st.one_of(st.fixed_dictionaries(exact), st.fixed_dictionaries(teacher))
    large = st.fixed_dictionaries(teacher)
    return st.tuples(*(large if grid == "4x4" else small for grid in chosen)).map(
        lambda found: [{"grid": g} | t for g, t in zip(chosen, found, strict=True)]
    )


def learned_from(dataset: str):
    """Baselines; a CM's decoder has as many layers as the images need."""
    channels = {"digits": {"settings": st.just({"channels": [8, 4, 2]})}}.get(dataset, {})
    optional = {
        "cm": st.fixed_dictionaries(channels, optional={"training": training}),
        "einet": st.fixed_dictionaries({"sizes": distinct(st.integers(1, 40))}),
        "gmm": st.fixed_dictionaries({"sizes": distinct(st.integers(1, 99))}),
    }
    return st.fixed_dictionaries({}, optional=optional)


def configs_of(dataset: str):
    needed = {
        "experiment": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        "seeds": distinct(st.integers(0, 2**31)),
        "data": st.fixed_dictionaries(
            {"dataset": st.just(dataset), "training_part": st.integers(1, 1000)},
            optional={"noise_seed": st.integers(0, 99)},
        ),
        "training": st.fixed_dictionaries(TRAINING),
        "vqvae": vqvae_of(dataset),
        "prior": model(width=st.integers(0, 512), layers=st.integers(1, 1000), head=count),
        "teachers": distinct(st.sampled_from(["2x2", "4x4"]), 2).flatmap(teachers_on),
        "n_components": distinct(st.integers(1, 4096)),
        "baselines": learned_from(dataset),
    }
    own = {"scored_images": st.integers(1, 300)}
    optional = {"inpainting": st.fixed_dictionaries({}, optional=own)}
    return st.fixed_dictionaries(needed, optional=optional | {"classifier": model(width=count)})


configs = st.sampled_from(list(LAYERS)).flatmap(configs_of)
configs = configs.filter(lambda config: config["experiment"] != "reference")


@TRIED
@given(config=configs)
def test_valid_configurations_load(config):
    given_ = copy.deepcopy(config)
    experiment = checked(config)
    assert config == given_, "checking changed its argument"
    assert checked(plain(experiment)) == experiment
    for teacher in teachers(experiment):
        for settings_of in (vqvae_settings, prior_settings):
            own = settings_of(experiment, teacher)
            section = config["vqvae" if settings_of is vqvae_settings else "prior"]
            wanted = config["training"] | section.get("training", {})
            assert plain(own.training) == wanted
    for model in baselines(experiment):
        baseline_settings(experiment, model)
    settings_of_steps(experiment)
    expected = expected_models(experiment)
    assert {row["seed"] for row in expected} == set(config["seeds"])
    assert {row["method"] for row in expected} == set(methods(experiment))
    rows = [tuple(row.values()) for row in expected]
    assert len(rows) == len(set(rows)), "two models with the same keys"


def places(value, path=()):
    """The paths of all values within a configuration."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def wrong_for(value, path):
    """Values that are impossible where `value` stood."""
    wrong = [{"a": 1}, [[1]], "no such thing", None, -1, 0.5, True]
    if isinstance(value, bool):
        return [x for x in wrong if not isinstance(x, bool)]
    if isinstance(value, int):
        return wrong
    if isinstance(value, float):
        return [x for x in wrong if x != 0.5]
    if isinstance(value, str):
        return [x for x in wrong if not isinstance(x, str)] + ["../up"]
    if isinstance(value, list):
        return [[], "no such thing", 3, None, {"a": 1}, [{}]]
    return [[], "no such thing", 3, None, {"no such key": 1}]


@TRIED
@given(config=configs, data=st.data())
def test_one_wrong_value_is_refused_and_named(config, data):
    path = data.draw(st.sampled_from(sorted(places(config), key=str)))
    *outer, last = path
    section = config
    for key in outer:
        section = section[key]
    wrong = data.draw(st.sampled_from(wrong_for(section[last], path)))
    section[last] = wrong
    names = [str(part) for part in path if isinstance(part, str)]
    said = refusal(checked, config)
    assert said.startswith("config: ")
    assert any(name in said for name in names), (path, wrong)


@TRIED
@given(config=configs, data=st.data())
def test_one_misspelt_key_is_refused_with_a_hint(config, data):
    paths = sorted((p for p in places(config) if isinstance(p[-1], str)), key=str)
    *outer, last = data.draw(st.sampled_from(paths))
    assume("channels" not in outer)  # whose keys are grids
    section = config
    for key in outer:
        section = section[key]
    at = data.draw(st.integers(1, len(last)))
    misspelt = last[:at] + last[at - 1] + last[at:]  # a doubled letter
    section[misspelt] = section.pop(last)
    assert misspelt in refusal(checked, config)
