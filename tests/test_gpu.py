"""GPUs: the CPU's numbers, and training that never waits for the device. Skipped where none is."""

import copy
import math

import pytest
import torch
from helpers import seeded
from sklearn.datasets import load_digits

from vqdistill import settings
from vqdistill.baselines import continuous_mixture, einet
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import Mixture, StreamedMixture
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.data import Batches, CodeBatches
from vqdistill.distillation import dmbs, dmrs, mixtures
from vqdistill.distillation.mixtures import exact_mixture
from vqdistill.models.classifier import Classifier
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.randomness import drawn_seed
from vqdistill.reporting.tables import t_interval
from vqdistill.steps.job import compute_device
from vqdistill.training.gradient import GradientTrainer, in_batches

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

N, K, BATCH, SHAPE = 600, 32, 128, (28, 28)
EPOCHS = 60  # of trainings that differ in precision


@pytest.fixture(autouse=True)
def device():
    threads = torch.get_num_threads()
    yield compute_device(threads)
    torch.set_flush_denormal(False)


def grey_images():
    return torch.randint(256, (N, 784), generator=seeded(), dtype=torch.uint8)


def images(n=BATCH):
    return (grey_images()[:n] + torch.rand(n, 784, generator=seeded(1))) / 256


def codes(grid):
    return torch.randint(K, (N, *grid), generator=seeded(2))


def vqvae(grid, codebook_size=K):
    channels = {(2, 2): (32, 64, 128, 256), (4, 4): (128, 256, 512)}[grid]
    return VQVAE(SHAPE, settings.VQVAE(grid=grid, codebook_size=codebook_size, channels=channels))


def prior(grid):
    return PixelCNN(settings.Prior(grid=grid, codebook_size=K, width=64, layers=4, head=64), 10)


def cm():
    small = settings.ContinuousMixture(channels=(32, 16, 8, 2), points=512, chunk=256)
    return continuous_mixture.build(SHAPE, small)


MODELS = {
    "vqvae 2x2": lambda: (vqvae((2, 2)), (images(),)),
    "vqvae 4x4": lambda: (vqvae((4, 4)), (images(),)),
    "prior 2x2": lambda: (prior((2, 2)), (codes((2, 2))[:BATCH], torch.arange(BATCH) % 10)),
    "prior 4x4": lambda: (prior((4, 4)), (codes((4, 4))[:BATCH], torch.arange(BATCH) % 10)),
}
RECORDED = [*MODELS, "classifier"]


def batches_of(name, device):
    """Training batches on a device, the last of which is smaller."""
    labels = (torch.arange(N) % 10).to(device)
    if name.startswith("prior"):
        grid = {"2x2": (2, 2), "4x4": (4, 4)}[name[-3:]]
        return CodeBatches(codes(grid).to(device), labels, BATCH)
    of_class = labels if name == "classifier" else None
    return Batches(grey_images().to(device), 256, BATCH, of_class)


def model_of(name):
    torch.manual_seed(0)
    return (
        Classifier(SHAPE, 10, settings.Classifier()) if name == "classifier" else MODELS[name]()[0]
    )


def doubled(batch):
    """A batch with its images in float64; then the order of sums shows in the last digits only."""
    return tuple(part.double() if part.is_floating_point() else part for part in batch)


def single(batch, device):
    """A batch on a device with its images in float32."""
    batch = tuple(part.to(device) for part in batch)
    return tuple(part.float() if part.is_floating_point() else part for part in batch)


def close(ours, theirs, tolerance):
    """‖a − b‖ ≤ tolerance ‖b‖."""
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    error = (ours - theirs).norm() / theirs.norm().clamp(min=1e-30)
    assert error <= tolerance, error


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_the_cpu(name, device):
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    model, batch = model.double(), doubled(batch)  # in float32 a code may be another's neighbour
    copied = copy.deepcopy(model).to(device)
    loss, _ = model.loss(*batch, generator=None)
    ours, _ = copied.loss(*(part.to(device) for part in batch), generator=None)
    loss.backward()
    ours.backward()
    close(ours, loss, 1e-12)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).max()
    for mine, theirs in zip(copied.parameters(), model.parameters(), strict=True):
        assert (mine.grad.cpu() - theirs.grad).norm() <= 1e-9 * (theirs.grad.norm() + norm)
    found, _ = copied.float().loss(*single(batch, device), generator=None)
    close(found, loss, 1e-5)


def test_log_likelihoods_of_a_continuous_mixture_are_those_of_the_cpu(device):
    torch.manual_seed(0)
    model, latents = cm().double(), torch.randn(512, 16, generator=seeded()).double()
    copied, x = copy.deepcopy(model).to(device), images().double()
    value = model.log_likelihoods(x, latents)
    close(copied.log_likelihoods(x.to(device), latents.to(device)), value, 1e-12)
    found = copied.float().log_likelihoods(*single((x, latents), device))
    close(found, value, 1e-4)


def sharp_mixture(n, device="cpu"):
    """Components around some of the images, with deviations from 10^-3 on."""
    means = images(N)[torch.randint(N, (n,), generator=seeded(n))].clone()
    means += 0.01 * torch.randn(n, 784, generator=seeded(n + 1))
    log_stds = -6.9 * torch.rand(n, 784, generator=seeded(n + 2))
    weights = torch.randn(n, generator=seeded(n + 3), dtype=torch.float64).log_softmax(0)
    return Mixture(weights.to(device), means.to(device), log_stds.to(device))


def masks():
    observed = torch.ones(3, 784, dtype=torch.bool)
    observed[1, :400] = False
    observed[2, ::2] = False
    return observed


@pytest.mark.parametrize("n", [1, 700, 20_000])
def test_mixtures_answer_as_on_the_cpu(n, device):
    ours, theirs, x = sharp_mixture(n, device), sharp_mixture(n), images(N)
    log_prob = theirs.log_prob(x)
    torch.testing.assert_close(ours.log_prob(x.to(device)).cpu(), log_prob, rtol=1e-12, atol=1e-7)
    sizes = sorted({1, n // 3 + 1, n})
    weights = torch.stack([theirs.log_weights, torch.zeros(n, dtype=torch.float64)])
    expected = theirs.prefix_marginals(x, sizes, weights, masks())
    found = ours.prefix_marginals(x.to(device), sizes, weights.to(device), masks().to(device))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=1e-7)
    own = torch.rand(N, 784, generator=seeded(5)) < 0.5
    found = ours.log_prob(x.to(device), own.to(device)).cpu()
    torch.testing.assert_close(found, theirs.log_prob(x, own), rtol=1e-12, atol=1e-7)
    ours.levels = theirs.levels = 256
    grey = (x * 256).to(torch.uint8)
    expected = theirs.prefix_log_prob_discrete(grey, sizes, weights)
    found = ours.prefix_log_prob_discrete(grey.to(device), sizes, weights.to(device))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=1e-7)
    mean = ours.conditional_mean(x.to(device), masks()[1].to(device)).cpu()
    torch.testing.assert_close(mean, theirs.conditional_mean(x, masks()[1]), rtol=0, atol=1e-6)
    mode = ours.conditional_mode(x.to(device), masks()[1].to(device)).cpu()
    torch.testing.assert_close(mode, theirs.conditional_mode(x, masks()[1]), rtol=0, atol=0)


def test_streamed_components_are_summed_as_on_the_cpu(device, monkeypatch):
    monkeypatch.setattr(mixtures, "DECODED_AT_ONCE", 100)
    torch.manual_seed(0)
    model, x = vqvae((2, 2), 10).eval().requires_grad_(False), images(N)
    log_prior = torch.randn(10**4, generator=seeded(), dtype=torch.float64).log_softmax(0)
    theirs = exact_mixture(model, log_prior)
    ours = exact_mixture(copy.deepcopy(model).to(device), log_prior)
    assert type(ours) is StreamedMixture
    found = ours.log_prob(x.to(device)).cpu()
    torch.testing.assert_close(found, theirs.log_prob(x), rtol=1e-6, atol=1e-3)


def test_einets_count_and_answer_as_on_the_cpu(device):
    torch.manual_seed(0)
    theirs = EiNet(poon_domingos(SHAPE, 7), 4)
    ours, x = copy.deepcopy(theirs).to(device), images()
    torch.testing.assert_close(
        ours.log_prob(x.to(device)).cpu(), theirs.log_prob(x), rtol=1e-12, atol=1e-9
    )
    ours.levels = theirs.levels = 256
    grey = (x * 256).to(torch.uint8)
    found = ours.log_prob_discrete(grey.to(device)).cpu()
    torch.testing.assert_close(found, theirs.log_prob_discrete(grey), rtol=1e-12, atol=1e-9)
    expected, found = einet.zero_counts(theirs), einet.zero_counts(ours)
    theirs.count(x, expected)
    ours.count(x.to(device), found)
    for mine, other in zip(found.weights, expected.weights, strict=True):
        close(mine, other, 1e-5)
    close(found.leaves.moments, expected.leaves.moments, 1e-5)


@pytest.mark.parametrize("method", [dmbs, dmrs])
def test_selected_latents_are_those_of_the_cpu(method, device):
    torch.manual_seed(0)
    theirs = prior((4, 4)).eval()
    ours = copy.deepcopy(theirs).to(device)
    with torch.no_grad():
        expected = method.select(theirs, 64, seeded())
        found = method.select(ours, 64, seeded())
    assert torch.equal(found.codes.cpu(), expected.codes)
    torch.testing.assert_close(found.log_prob.cpu(), expected.log_prob, rtol=0, atol=1e-4)


def trained(name, device, recorded):
    """Parameters and losses after three epochs in float64, from recorded steps or plain ones."""
    model, batches = model_of(name).to(device).double(), batches_of(name, device)

    def in_float64(generator):
        for batch in batches(generator):
            yield doubled(batch if isinstance(batch, tuple) else (batch,))

    generator = seeded(3, device)
    trainer = GradientTrainer(model, in_float64, None, generator, 1e-3, 1e-5)
    if not recorded:
        trainer.step = trainer._step
    means = [trainer.train_epoch(lambda loss: None) for _ in range(3)]
    assert not recorded or trainer.step.graph is not None
    return dict(model.named_parameters()), means, generator.get_state()


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps_train_like_plain_ones(name, device):
    """From the same random numbers; sums on a GPU have no fixed order, so that last digits differ,
    which training amplifies."""
    ours, means, state = trained(name, device, recorded=True)
    theirs, expected, expected_state = trained(name, device, recorded=False)
    assert torch.equal(state, expected_state)
    for epoch, other in zip(means, expected, strict=True):
        assert epoch["loss"] == pytest.approx(other["loss"], rel=1e-6)
    for key, value in ours.items():
        close(value, theirs[key], 1e-5)


@pytest.mark.parametrize("size", [2, 8])
def test_recorded_steps_of_em_train_like_plain_ones(size, device):
    def fitted(recorded):
        torch.manual_seed(0)
        model = EiNet(poon_domingos(SHAPE, 7), size).to(device)
        own = einet.Settings(size=size, pixels_per_step=7, em_every=2)
        batches = Batches(grey_images().to(device), 256, BATCH)
        trainer = einet.trainer(model, batches, images().to(device), seeded(3, device), own)
        if not recorded:
            trainer.count = trainer._count
        return [trainer.train_epoch(lambda loss: None)["loss"] for _ in range(3)]

    assert fitted(True) == pytest.approx(fitted(False), rel=1e-4)


@pytest.mark.parametrize("name", [*RECORDED, "einet"])
def test_no_batch_waits_for_the_device(name, device):
    """PyTorch raises an error where the host waits."""
    if name == "einet":
        model = EiNet(poon_domingos(SHAPE, 7), 4).to(device)
        batches = Batches(grey_images().to(device), 256, BATCH)
        own = einet.Settings(size=4, pixels_per_step=7)
        step = einet.trainer(model, batches, images(), seeded(3, device), own).count
    else:
        model = model_of(name).to(device)
        batches = batches_of(name, device)
        step = GradientTrainer(model, batches, None, seeded(3, device), 1e-3, 1e-5).step
    parts = iter(batches(seeded(4, device)))
    first = next(parts)
    for _ in range(5):
        step(*first) if isinstance(first, tuple) else step(first)  # set up, and recorded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for part in parts:
            step(*part) if isinstance(part, tuple) else step(part)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_seeds_are_drawn_without_waiting_for_other_work(device):
    generator = seeded(0, device)
    x = torch.rand(8192, 8192, device=device)
    drawn_seed(generator)
    torch.cuda.synchronize()
    for _ in range(20):
        x @ x  # some half a second
    done = torch.cuda.Event()
    done.record()
    numbers = [drawn_seed(generator) for _ in range(3)]
    assert not done.query()
    assert len({*numbers}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vqvae", "prior"])
def test_tf32_changes_nothing_that_matters(kind, device):
    """Five pairs of trainings on scikit-learn's digits, which differ in the precision alone: the
    interval of the difference in validation loss lies within ± 0.02 bits per dimension or code."""
    differences = []
    for seed in range(5):
        losses = [trained_on_digits(kind, seed, tf32, device) for tf32 in (True, False)]
        differences.append((losses[0] - losses[1]) / math.log(2))
    _, low, high = t_interval(differences)
    print(f"{kind}: {differences}, {low:.4f} to {high:.4f} bits")
    assert -0.02 < low <= high < 0.02


def trained_on_digits(kind, seed, tf32, device):
    """The validation loss after training, in nats per dimension, or per code."""
    digits = torch.from_numpy(load_digits().images.astype("uint8")).flatten(1).to(device)
    torch.manual_seed(seed)
    noise = seeded(seed, device)
    own = {"grid": (2, 2), "codebook_size": K, "tf32": tf32}
    if kind == "vqvae":
        model = VQVAE((8, 8), settings.VQVAE(**own, channels=(64, 64)))
        batches, scale = Batches(digits[:1500], 17, 100), 64
        validation = in_batches(300, (digits[1500:] + 0.5) / 17)
    else:
        model = PixelCNN(settings.Prior(**own, width=64, layers=4, head=64), 10)
        labels = torch.from_numpy(load_digits().target).to(device)
        codes = digits[:, [18, 21, 42, 45]].long().view(-1, 2, 2)  # pixels for codes
        batches, scale = CodeBatches(codes[:1500], labels[:1500], 100), 1
        validation = in_batches(300, codes[1500:], labels[1500:])
    trainer = GradientTrainer(model.to(device), batches, validation, noise, 1e-3, 1e-5)
    for _ in range(EPOCHS):
        trainer.train_epoch(lambda loss: None)
    return trainer.validate()["loss"] / scale
