"""The templates of docs/extending.md, used; and what is said of files that lack something."""

import importlib
import re
import sys
from types import SimpleNamespace

import pytest
import test_methods
import torch
from helpers import ROOT, TINY, TabularPrior, configuration, refusal, seeded

import vqdistill
from vqdistill import baselines, config, data, distillation
from vqdistill.circuits.base import Circuit
from vqdistill.files import write_tensors
from vqdistill.settings import BaselineTraining, Training, plain
from vqdistill.steps import distil
from vqdistill.training.loop import fit

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
TEMPLATES = {
    name: (package, code)
    for package, name, code in re.findall(
        r"```python\n# vqdistill/(\w+)/(\w+)\.py\n(.*?)```", PAGE, re.DOTALL
    )
}


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Adds a file to a package, for one test."""

    def added(package: str, name: str, code: str):
        module = {"distillation": distillation, "baselines": baselines}[package]
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path)])
        monkeypatch.delitem(sys.modules, f"{module.__name__}.{name}", raising=False)
        importlib.invalidate_caches()

    yield added
    for name in list(sys.modules):
        if name.startswith(("vqdistill.distillation.", "vqdistill.baselines.")):
            path = getattr(sys.modules[name], "__file__", "")
            if path.startswith(str(tmp_path)):
                del sys.modules[name]
    if "vqdistill.contracts" in sys.modules:
        sys.modules["vqdistill.contracts"].check_method.cache_clear()


def with_method(name):
    return configuration(TINY, {"teachers": [TINY["teachers"][0] | {"methods": ["dmrs", name]}]})


def with_baseline(name, **entry):
    return configuration(TINY, {"baselines": {name: entry}})


def test_the_page_has_a_template_of_each():
    assert {name: package for name, (package, _) in TEMPLATES.items()} == {
        "likely": "distillation",
        "pixels": "baselines",
    }


def test_the_selection_method_of_the_page(add):
    """It is accepted, does what all methods must do, and is taken by the step."""
    add(*_named("likely"))
    experiment = config.checked(with_method("likely"))
    assert config.evaluated_on(experiment, "likely") == ["2x2-K4"]
    method = distillation.load_method("likely")
    for conformance in (
        test_methods.test_selections_are_distinct_and_weighted,
        test_methods.test_prefixes_are_models_where_a_method_says_so,
        test_methods.test_equal_seeds_give_equal_selections,
    ):
        conformance(method)
    for n in (0, 10):
        test_methods.test_impossible_sizes_are_refused(method, n)


def test_the_baseline_of_the_page(add, tmp_path):
    """It is accepted without sizes, trained by the loop, and evaluated as one circuit."""
    add(*_named("pixels"))
    experiment = config.checked(with_baseline("pixels"))
    assert config.baselines(experiment)["pixels"] == ("pixels", 0)
    (row,) = [row for row in config.expected_models(experiment) if row["method"] == "pixels"]
    assert (row["size"], row["n_components"], row["weights"]) == (0, 0, "learned")
    own = config.baseline_settings(experiment, "pixels")

    module, settings = baselines.load_baseline("pixels"), baselines.settings_of("pixels")()
    x = 0.2 + 0.1 * torch.rand(200, 64, generator=seeded())
    model = module.build((8, 8), settings)
    batches = data.Batches((x * 256).to(torch.uint8), 256, 20)
    trainer = module.trainer(model, batches, x, seeded(), settings)
    training = Training(max_epochs=30, patience=30)
    fitted = fit(trainer, training, tmp_path / "checkpoint", "key")
    assert fitted.best_validation < -64 * 0.8  # the entropy of U(0.2, 0.3) is −2.3 nats a pixel
    assert plain(own)["method"] == "pixels"
    model.load_state_dict(fitted.weights)
    assert isinstance(model, Circuit)
    assert model.n_parameters == 128
    torch.testing.assert_close(
        model.conditional_mean(x, x[0] > 9).mean(), x.mean(), atol=0.02, rtol=0
    )


def _named(name):
    package, code = TEMPLATES[name]
    return package, name, code


LIKELY, PIXELS = (TEMPLATES[name][1] for name in ("likely", "pixels"))
BAD_METHODS = {  # what is replaced in the template, and what is said
    "codes alone": ("complete(prior, codes, classes, prior.evaluations - before)", "codes",
                    "select: found Tensor, expected a Selection; end it with `return complete("),
    "one code twice": ("drawn.codes[best], ", "drawn.codes[best[:1]].expand(len(best), 2, 2), ",
                       "select: found 1 distinct codes, expected 7"),
    "fewer": ("[:n_components]", "[1:n_components]", "found codes of shape (6, 2, 2)"),
    "floats": ("drawn.codes[best], ", "drawn.codes[best].float(), ", "failed when it was tried"),
    "unknown codes": ("drawn.codes[best], ", "drawn.codes[best] + 1, ", "failed when it was tried"),
    "unknown classes": ("drawn.classes[best]", "drawn.classes[best] + 5", "found classes from 5"),
    "other arguments": ("(prior, n_components, generator, training_codes=None)", "(prior, n)",
                        "found select(prior, n), expected select(prior, n_components, generator,"),
    "no select": ("def select", "def choose", "found no select, expected a function select(prior"),
    "no constant": ("PREFIXES_ARE_MODELS = False", "", "PREFIXES_ARE_MODELS: found None, expected"),
    "no such prefixes": ("PREFIXES_ARE_MODELS = False", "PREFIXES_ARE_MODELS = True",
                         "PREFIXES_ARE_MODELS: found True, but the first"),
    "an error": ("drawn.log_prob.argsort", "drawn.log_p.argsort", "AttributeError in line"),
    "no Python": ("def select", "def def", "SyntaxError in line"),
}  # fmt: skip
BAD_BASELINES = {
    "no trainer": ("def trainer", "def learner", "found no trainer, expected a function trainer("),
    "other arguments": ("(image_shape, settings)", "(shape)", "found build(shape), expected"),
    "no circuit": ("(nn.Module, StreamedMixture)", "(nn.Module)", "failed when it was tried"),
    "no module": ("return Pixels(image_shape[0] * image_shape[1])", "return 3",
                  "build: found int, expected a torch.nn.Module"),
    "no loss": ("def loss", "def cost", "AttributeError in line"),
    "a trainer of another kind": ("return GradientTrainer(", "return dict; (",
                                  "trainer: found no train_epoch, expected a"),
    "densities that are no numbers": ("torch.full((1, n_pixels), 0.5)",
                                      "torch.full((1, n_pixels), torch.nan)", "no finite numbers"),
    "no Settings": ("class Settings(Base)", "class Options(Base)", "found no Settings"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_METHODS)
def test_a_method_that_lacks_something_is_refused_before_anything_is_trained(add, what):
    message, said = refused(add, "distillation", LIKELY, BAD_METHODS[what], with_method)
    assert message.startswith("config: teachers.0.methods: selection method 'own': ")
    assert said in message
    assert "docs/extending.md" in message


@pytest.mark.parametrize("what", BAD_BASELINES)
def test_a_baseline_that_lacks_something_is_refused_before_anything_is_trained(add, what):
    message, said = refused(add, "baselines", PIXELS, BAD_BASELINES[what], with_baseline)
    assert message.startswith("config: ")
    assert "own" in message
    assert said in message


def refused(add, package, text, bad, configured):
    """What a configuration says to an added file with something in it changed; what it should."""
    before, after, said = bad
    assert text.count(before) == 1
    add(package, "own", text.replace(before, after))
    return refusal(config.checked, configured("own")), said


def test_a_selection_is_checked_when_it_is_made_too(add):
    """A method may go wrong on a real prior alone; before it is written."""
    wrong = LIKELY.replace("drawn.codes[best], ", "drawn.codes[best[:1]].expand(len(best), 1, 2), ")
    add("distillation", "own_method", wrong)
    job = SimpleNamespace(seed=0, settings=SimpleNamespace(n_components=[4]))
    said = refusal(distil.select, job, "own_method", TabularPrior(3, (1, 2)), None)
    assert "own_method: select: found 1 distinct codes, expected 4" in said


def test_a_trained_baseline_without_sizes_is_loaded_and_asked(add, tmp_path):
    add(*_named("pixels"))
    model = baselines.load_baseline("pixels").build((8, 8), None)
    job = BaselineTraining(method="pixels", settings={}, training=Training())
    metadata = {"settings": plain(job), "image_shape": [8, 8], "levels": 17, "seed": 0}
    path = tmp_path / "run/models/pixels/seed-0/weights.safetensors"
    write_tensors(path, model.state_dict(), metadata)
    assert vqdistill.models(tmp_path / "run").method.tolist() == ["pixels"]
    loaded = vqdistill.load(tmp_path / "run", "pixels")
    x = torch.rand(3, 8, 8, generator=seeded())
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    assert (loaded.image_shape, loaded.levels) == ((8, 8), 17)
    loaded.save(tmp_path / "pixels.safetensors")
    assert torch.equal(vqdistill.load(tmp_path / "pixels.safetensors").bpd(x), loaded.bpd(x))
