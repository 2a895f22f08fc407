"""`vqdistill.load` on a results folder of tiny untrained models, written as the steps do."""

import math
import shutil

import pytest
import torch
from helpers import einet_of, every_latent, mixture_of, refusal, seeded

import vqdistill
from vqdistill import settings
from vqdistill.baselines import load_baseline
from vqdistill.baselines.gmm import GaussianMixture
from vqdistill.circuits.gaussian import log_density
from vqdistill.circuits.mixture import DecodedComponents, Mixture, StreamedMixture
from vqdistill.distillation import dmrs, exm, mixtures
from vqdistill.errors import InputError
from vqdistill.files import read_tensors, write_arrays, write_json, write_tensors
from vqdistill.models.classifier import Classifier
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.provenance import loading
from vqdistill.provenance.records import sealed
from vqdistill.settings import plain

K, SHAPE, SEED = 3, (8, 8), 2
TEACHER = settings.VQVAE(grid="2x2", codebook_size=K, channels=(4, 6))
PRIOR = settings.Prior(grid="2x2", codebook_size=K, width=6, layers=2, head=8)
BASELINES = {
    "cm": settings.ContinuousMixture(latent_dimension=3, channels=(6, 4, 2), points=16, chunk=16),
    "einet-2": settings.EiNet(size=2, pixels_per_step=4),
}
EVERY = every_latent(K, (2, 2))
EXACT = {"grid": "2x2", "codebook_size": K, "seed": SEED}
HALF = torch.arange(64) < 32


def save(path, model, own):
    """As a training step does."""
    metadata = {"settings": plain(own), "image_shape": list(SHAPE), "seed": SEED}
    write_tensors(path / f"seed-{SEED}" / "weights.safetensors", model.state_dict(), metadata)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(folder, the models that are in it)."""
    folder = tmp_path_factory.mktemp("results")
    torch.manual_seed(0)
    models = {"vqvae": VQVAE(SHAPE, TEACHER), "prior": PixelCNN(PRIOR, 10)}
    for name, own in BASELINES.items():
        method = name.partition("-")[0]
        models[name] = load_baseline(method).build(SHAPE, own)
        job = {"method": method, "settings": plain(own), "training": settings.Training()}
        save(folder / "models" / name, models[name], settings.BaselineTraining(**job))
    with torch.no_grad():  # codes that differ, and batch norm that isn't the identity
        models["vqvae"].codebook.vectors.normal_()
        for module in models["vqvae"].modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        models["vqvae"].decoder[-1].weight.mul_(16)  # latents that differ by nats
        models["prior"].head[-1].bias.normal_(0, 2)  # some of which are much more likely
        models["prior"].head[-1].weight.mul_(30)  # and some in one class
    save(folder / "models/vqvae-2x2-K3", models["vqvae"], TEACHER)
    save(folder / "models/prior-2x2-K3", models["prior"], PRIOR)
    models = {name: model.eval() for name, model in models.items()}
    with torch.no_grad():
        log_prob, by_class = (part.numpy() for part in exm.log_probs_of_all(models["prior"]))
        arrays = {"exm/log_prob": log_prob, "exm/log_prob_by_class": by_class}
        for name, sizes in {"dmrs": [K**4], "dmbs": [2, 5]}.items():  # nested, and not
            models[name] = {}
            for n in sizes:
                noise = seeded(n)
                found = dmrs.select(models["prior"], n, noise, torch.zeros(0, 2, 2).long())
                arrays[f"{name}/codes_{n}"] = found.codes.numpy()
                arrays[f"{name}/log_prob_by_class_{n}"] = found.log_prob_by_class.numpy()
                models[name][n] = found
    write_arrays(folder / f"latents/2x2-K3/seed-{SEED}/latents.npz", arrays)
    return folder, models


@pytest.fixture(scope="module")
def x():
    return torch.rand(4, 64, generator=seeded(1))


def test_the_models_of_these_tests_can_tell_latents_apart(results, x):
    """Or wrong weights and orders would pass the tests below."""
    assert terms(results[1], EVERY, x).std(0).min() > 1.0
    assert results[1]["dmrs"][K**4].log_prob.std() > 1.0


def load(results, method, **keys):
    return vqdistill.load(results[0], method, **keys)


def terms(models, codes, x):
    """log p(x|z) [N, B], one latent after the other, in float64 from the decoder's own output."""
    rows = []
    for z in codes:
        means, log_stds = models["vqvae"].decode(z[None])
        rows.append(log_density(x.double(), means.double(), log_stds.double()).sum(1))
    return torch.stack(rows)


def test_the_exact_model_equals_a_brute_force_double_loop(results, x):
    """log 1/C Σ_c Σ_z p(z|c) p(x|z), over classes and latents one by one (Eq. 1)."""
    models, total = results[1], torch.full((4,), -torch.inf, dtype=torch.float64)
    mass, prior = 0.0, models["prior"]
    with torch.no_grad():
        for z, likelihood in zip(EVERY, terms(models, EVERY, x), strict=True):
            for c in range(10):
                log_joint = prior.log_prob(z[None], torch.tensor([c]))[0] - math.log(10)
                mass += log_joint.exp().item()
                total = torch.logaddexp(total, log_joint + likelihood)
    assert mass == pytest.approx(1.0, abs=1e-5)
    circuit = load(results, "exm", weights="prior", **EXACT)
    assert circuit.n_components == K**4
    assert circuit.n_parameters == K**4 * 2 * 64 + K**4 - 1
    torch.testing.assert_close(circuit.log_prob(x), total, rtol=0, atol=2e-3)


def test_the_exact_model_is_the_same_when_it_is_streamed(results, x, monkeypatch):
    kept = load(results, "exm", weights="prior", **EXACT)
    monkeypatch.setattr(mixtures, "DECODED_AT_ONCE", 100)
    streamed = load(results, "exm", weights="prior", **EXACT)
    assert isinstance(kept, Mixture)
    assert isinstance(streamed, StreamedMixture)
    assert not isinstance(streamed, Mixture)
    torch.testing.assert_close(streamed.log_prob(x), kept.log_prob(x), rtol=0, atol=1e-3)
    classes = (model.class_log_prob(x, HALF) for model in (streamed, kept))
    torch.testing.assert_close(*classes, rtol=0, atol=1e-3)


def test_classes_are_those_of_the_prior(results, x):
    """p(c | x) by p(z|c) p(x|z) of the prior, latent by latent: all of them, and selected ones."""
    models = results[1]
    with torch.no_grad():
        of_all = torch.stack(
            [models["prior"].log_prob(EVERY, torch.full((K**4,), c)) for c in range(10)], 1
        ).double()
    joint = terms(models, EVERY, x)[..., None] + of_all[:, None]  # [N, B, C]
    exact = load(results, "exm", **EXACT)
    found = exact.class_log_prob(x)
    torch.testing.assert_close(found, joint.logsumexp(0).log_softmax(1), rtol=0, atol=2e-3)
    assert found.exp().max() > 0.2
    stored = models["dmbs"][5]
    shares = stored.log_prob_by_class.log_softmax(1)
    joint = terms(models, stored.codes, x)[..., None] + shares[:, None]
    found = load(results, "dmbs", n_components=5, **EXACT).class_log_prob(x)
    torch.testing.assert_close(found, joint.logsumexp(0).log_softmax(1), rtol=0, atol=2e-3)


def test_an_exact_model_of_too_many_latents_knows_no_classes(results, x, tmp_path, monkeypatch):
    kept = exm.log_probs_of_all(results[1]["prior"])
    monkeypatch.setattr(exm, "MAX_BY_CLASS", 10 * K**4 - 1)
    log_prob, by_class = exm.log_probs_of_all(results[1]["prior"])
    assert by_class is None
    assert torch.equal(log_prob, kept[0])
    folder = shutil.copytree(results[0], tmp_path / "results")
    path = folder / f"latents/2x2-K3/seed-{SEED}/latents.npz"
    write_arrays(path, {"exm/log_prob": log_prob.numpy()})
    model = vqdistill.load(folder, "exm", **EXACT)
    assert torch.equal(model.log_prob(x), load(results, "exm", **EXACT).log_prob(x))
    assert "class_log_prob: this model knows no classes" in refusal(model.class_log_prob, x)


def test_the_exact_model_under_uniform_weights(results, x):
    """What `weights` says holds for exm too: all latents uniformly are Eq. 2 with N = K^HW."""
    expected = terms(results[1], EVERY, x).logsumexp(0) - math.log(K**4)
    uniform = load(results, "exm", weights="uniform", **EXACT)
    torch.testing.assert_close(uniform.log_prob(x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("method", "n"), [("dmrs", 1), ("dmrs", 7), ("dmbs", 2), ("dmbs", 5)])
@pytest.mark.parametrize("weights", ["uniform", "prior"])
def test_distilled_models(results, x, method, n, weights):
    """Eq. 2, of the first N latents where larger selections nest, else of the N found for N."""
    models = results[1]
    stored = models[method][K**4 if method == "dmrs" else n]
    codes, log_prior = stored.codes[:n], stored.log_prob[:n]
    log_weights = torch.zeros(n).double() if weights == "uniform" else log_prior
    expected = (terms(models, codes, x) + log_weights.log_softmax(0)[:, None]).logsumexp(0)
    of_weights = {} if weights == "uniform" else {"weights": weights}  # the default
    circuit = load(results, method, n_components=n, **of_weights, **EXACT)
    assert circuit.n_components == n
    torch.testing.assert_close(circuit.log_prob(x), expected, rtol=0, atol=2e-3)


def test_the_continuous_mixture_nests_and_is_the_same_each_time(results, x):
    large, small = (load(results, "cm", n_components=n, seed=SEED) for n in (16, 4))
    assert (large.n_components, small.n_components) == (16, 4)
    torch.testing.assert_close(large.means[:4], small.means, rtol=0, atol=1e-5)
    torch.testing.assert_close(large.log_stds[:4], small.log_stds, rtol=0, atol=1e-5)
    again = load(results, "cm", n_components=16, seed=SEED)
    assert torch.equal(again.means, large.means)
    expected = log_density(x.double()[:, None], large.means.double(), large.log_stds.double()).sum(
        -1
    )
    torch.testing.assert_close(large.log_prob(x), expected.logsumexp(1) - math.log(16))


def test_the_einet_answers_as_before_it_was_saved(results, x):
    circuit = load(results, "einet", size=2, seed=SEED)
    saved = results[1]["einet-2"]
    assert torch.equal(circuit.log_prob(x), saved.log_prob(x))
    assert circuit.n_parameters == saved.n_parameters
    observed = torch.arange(64) % 2 == 0
    assert circuit.conditional_mean(x, observed).shape == (4, 64)


def test_loaded_networks_are_frozen_and_in_evaluation_mode(results, tmp_path):
    folder, models = results
    judge = settings.Classifier(width=2)
    save(tmp_path, Classifier(SHAPE, 10, judge), judge)
    weights = f"seed-{SEED}/weights.safetensors"
    for network in (
        loading.load_vqvae(folder / "models/vqvae-2x2-K3" / weights),
        loading.load_prior(folder / "models/prior-2x2-K3" / weights),
        loading.load_classifier(tmp_path / weights),
    ):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    codes = torch.randint(0, K, (5, 2, 2))
    loaded = loading.load_vqvae(folder / "models/vqvae-2x2-K3" / weights)
    frozen = models["vqvae"].requires_grad_(False)
    assert torch.equal(loaded.decode(codes)[0], frozen.decode(codes)[0])


# what a run does not hold


EINET = {"size": 2, "seed": SEED}
MISSING = {  # method, keys, and what is said
    "no method": ("", {}, "method: found '', expected 'cm', 'dmbs', 'dmrs', 'einet', 'exm' in"),
    "a misspelt method": ("dmbss", EXACT, "found 'dmbss', expected 'cm', 'dmbs'"),
    "its suggestion": ("dmbss", EXACT, "; did you mean 'dmbs'?"),
    "a method that was not run": ("frequent", EXACT, "found 'frequent', expected 'cm', 'dmbs'"),
    "no grid": (
        "dmrs",
        {"n_components": 4, "seed": SEED},
        "grid: found '', expected '2x2' of dmrs",
    ),
    "another grid": ("exm", EXACT | {"grid": "4x4"}, "grid: found '4x4', expected '2x2' of exm"),
    "another K": ("exm", EXACT | {"codebook_size": 9}, "codebook_size: found 9, expected 3 of exm"),
    "no K": ("exm", EXACT | {"codebook_size": 0}, "codebook_size: found 0, expected 3 of exm"),
    "another size": ("einet", EINET | {"size": 9}, "size: found 9, expected 2 of einet"),
    "another seed": ("cm", {"n_components": 4, "seed": 9}, "seed: found 9, expected 2 of cm"),
    "a size of none": ("cm", {"size": 3, "seed": SEED}, "size: found 3, expected none of cm"),
    "a grid of none": ("cm", {"grid": "2x2", "seed": SEED}, "grid: found '2x2', expected none"),
    "no components": ("dmrs", EXACT, "n_components: found 0, expected 1 to 81 of dmrs"),
    "components of none": ("einet", EINET | {"n_components": 4}, "found 4, expected none of einet"),
    "components as text": ("dmrs", EXACT | {"n_components": "4"}, "found '4', expected 1 to 81"),
    "components of all": ("exm", EXACT | {"n_components": 4}, "found 4, expected none of exm"),
    "no components of a CM": ("cm", {"seed": SEED}, "n_components: found 0, expected 1 or more"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_told_with_what_there_is(results, what):
    method, keys, said = MISSING[what]
    message = refusal(load, results, method, **keys)
    assert said in message
    assert str(results[0]) in message


def test_models_are_listed_as_they_are_loaded(results):
    table = vqdistill.models(results[0])
    rows = [tuple(row) for row in table.itertuples(index=False)]
    assert rows == [
        ("cm", "", 0, 0, "1 or more", "2"),
        ("dmbs", "2x2", 3, 0, "2, 5", "2"),
        ("dmrs", "2x2", 3, 0, "1 to 81", "2"),
        ("einet", "", 0, 2, "", "2"),
        ("exm", "2x2", 3, 0, "", "2"),
    ]
    for row in table.to_dict("records"):
        n = row.pop("n_components")
        row |= {"n_components": {"": 0, "2, 5": 5}.get(n, 3), "seed": int(row["seed"])}
        assert vqdistill.load(results[0], **row).image_shape == SHAPE


def test_a_folder_without_models(tmp_path):
    assert "no trained models there; expected the folder of a run" in refusal(
        vqdistill.models, tmp_path
    )
    assert "nowhere: no trained models" in refusal(vqdistill.load, tmp_path / "nowhere", "cm")


def test_a_folder_with_a_file_of_a_model_names_it(tmp_path):
    mixture_of(3, 64).save(tmp_path / "models/one.safetensors")
    assert f"such as {tmp_path}/models/one.safetensors" in refusal(vqdistill.load, tmp_path, "cm")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta device", 3.5])
def test_devices_that_are_not_there(results, device):
    said = refusal(load, results, "einet", device=device, **EINET)
    assert f"device: found {device!r}, expected 'cpu'" in said


def test_completion_shows_what_there_is():
    assert {"load", "models", "__version__"} <= set(dir(vqdistill))
    assert callable(vqdistill.models)
    assert vqdistill.models.vqvae.VQVAE is VQVAE  # the package of that name is still there


def test_latents_of_another_training(results, tmp_path):
    folder = shutil.copytree(results[0], tmp_path / "results")
    run = f"seed-{SEED}/record.json"
    trained, selected = folder / "models/vqvae-2x2-K3" / run, folder / "latents/2x2-K3" / run
    write_json(trained, sealed({"files": {"codes.npz": "a", "weights.safetensors": "b"}}))
    write_json(selected, sealed({"files": {"codes.npz": "a"}}))
    assert loading.load(folder, "exm", **EXACT).n_components == K**4
    write_json(selected, sealed({"files": {"codes.npz": "of an earlier training"}}))
    found = refusal(loading.load, folder, "exm", **EXACT)
    assert "latents.npz: selected from another training" in found


@pytest.mark.parametrize(
    ("method", "n", "expected"), [("dmrs", K**4 + 1, "1 to 81"), ("dmbs", 3, "2, 5")]
)
def test_missing_sizes(results, method, n, expected):
    said = refusal(load, results, method, n_components=n, **EXACT)
    assert f"no {n} components; expected {expected}" in said


def test_unknown_weights(results):
    assert "found 'equal'" in refusal(load, results, "dmrs", weights="equal", **EXACT)
    assert "weights" in refusal(load, results, "exm", weights="nonsense", **EXACT)
    assert "its own" in refusal(load, results, "cm", n_components=2, weights="prior", seed=SEED)


def test_weights_of_another_model(tmp_path):
    save(tmp_path, PixelCNN(PRIOR, 10), PRIOR.model_copy(update={"width": 7}))
    path = tmp_path / f"seed-{SEED}/weights.safetensors"
    assert "another model" in refusal(loading.load_prior, path)


def test_a_file_without_settings(tmp_path):
    write_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(1)}, {})
    assert "weights.safetensors" in refusal(loading.load_prior, tmp_path / "weights.safetensors")


def test_a_file_that_is_no_model(tmp_path):
    write_json(tmp_path / "weights.safetensors", {})
    assert "not readable" in refusal(loading.load_vqvae, tmp_path / "weights.safetensors")


# one file


SAVED = {  # what is loaded of the run, and the kind of its file
    "distilled": (("dmrs", EXACT | {"n_components": 7}), "latents"),
    "distilled, prior weights": (
        ("dmbs", EXACT | {"n_components": 5, "weights": "prior"}),
        "latents",
    ),
    "exact": (("exm", EXACT), "latents"),
    "continuous mixture": (("cm", {"n_components": 16, "seed": SEED}), "mixture"),
    "einet": (("einet", EINET), "einet"),
}


@pytest.mark.parametrize("what", SAVED)
def test_one_file_saves_and_loads_a_model(results, x, tmp_path, what):
    (method, keys), kind = SAVED[what]
    model = load(results, method, **keys)
    model.levels = 17
    model.save(tmp_path / "model.safetensors")
    again = vqdistill.load(tmp_path / "model.safetensors")
    check_same(again, model, x)
    assert read_tensors(tmp_path / "model.safetensors")[1]["circuit"] == kind
    again.save(tmp_path / "again.safetensors")
    contents = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("model", "again")]
    assert contents[0] == contents[1]


def test_a_streamed_exact_model_is_saved_too(results, x, tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "DECODED_AT_ONCE", 100)
    model = load(results, "exm", **EXACT)
    model.save(tmp_path / "model.safetensors")
    check_same(vqdistill.load(tmp_path / "model.safetensors"), model, x)


def test_circuits_without_a_run_are_saved(x, tmp_path):
    trained = GaussianMixture(5, 64)
    known = mixture_of(3, 64, n_classes=4)
    for number, model in enumerate((trained, mixture_of(3, 64), known, einet_of(SHAPE, 2, 4))):
        model.save(tmp_path / f"{number}.safetensors")
        check_same(vqdistill.load(tmp_path / f"{number}.safetensors"), model, x)


def check_same(again, model, x):
    """To the bit."""
    assert torch.equal(again.log_prob(x), model.log_prob(x))
    assert torch.equal(again.sample(3, seeded()), model.sample(3, seeded()))
    if model.n_classes > 1:
        assert torch.equal(again.class_log_prob(x), model.class_log_prob(x))
    for name in ("image_shape", "levels", "n_classes", "n_parameters", "n_variables"):
        assert getattr(again, name) == getattr(model, name), name


def test_files_that_hold_no_model(results, tmp_path):
    path = results[0] / f"models/einet-2/seed-{SEED}/weights.safetensors"
    assert "no model that model.save wrote" in refusal(vqdistill.load, path)
    assert "no such file" in refusal(vqdistill.load, tmp_path / "nothing.safetensors")
    assert "no argument but" in refusal(vqdistill.load, path, n_components=3)
    saved = tmp_path / "model.safetensors"
    load(results, "dmrs", n_components=7, **EXACT).save(saved)
    tensors, facts = read_tensors(saved)
    for name in {*tensors} - {"log_classes"}:  # one is missing; of classes a model may know none
        write_tensors(saved, {n: t for n, t in tensors.items() if n != name}, facts)
        assert refusal(vqdistill.load, saved).startswith(f"{saved}: "), name
    before = saved.read_bytes()
    with pytest.raises(InputError, match="to save it"):
        streamed_by_a_function().save(saved)
    assert saved.read_bytes() == before


def streamed_by_a_function():
    components = mixture_of(3, 64).components
    decoded = DecodedComponents(components.parameters, 3, 64, torch.device("cpu"))
    return StreamedMixture(mixture_of(3, 64).log_weights, decoded)


def test_levels_are_those_of_the_weights_file(results, x, tmp_path):
    folder = shutil.copytree(results[0], tmp_path / "results")
    for path in folder.rglob("weights.safetensors"):
        tensors, metadata = read_tensors(path)
        write_tensors(path, tensors, {**metadata, "levels": 17})
    for method, keys in (
        ("exm", EXACT),
        ("cm", {"n_components": 2, "seed": SEED}),
        ("einet", EINET),
    ):
        model = vqdistill.load(folder, method, **keys)
        expected = -model.log_prob(x) / 64 / math.log(2) + math.log2(17)
        torch.testing.assert_close(model.bpd(x), expected)
        assert "levels" in refusal(load(results, method, **keys).bpd, x)  # of an older file
