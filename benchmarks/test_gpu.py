"""Steps of the paper's experiment on a GPU, and how busy they keep it. Skipped where none is."""

import functools
import time

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.problems import BATCH, D, bits_per_dimension, images, mixture, seeded, trained
from benchmarks.test_training import PAPER
from vqdistill.baselines import continuous_mixture, einet
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import Mixture
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.steps.job import compute_device
from vqdistill.training.gradient import GradientTrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

STEPS = 30  # timed together


@pytest.fixture(autouse=True)
def device():
    return compute_device(torch.get_num_threads())


def on_gpu(seed=0):
    return torch.Generator(device="cuda").manual_seed(seed)


def trainer(name):
    """A training of the paper's, and a batch of it."""
    torch.manual_seed(0)
    x = images(BATCH).cuda()
    if name.startswith("EiNet"):
        settings = einet.Settings(size=int(name.split()[1]))
        model = EiNet(poon_domingos((28, 28), settings.pixels_per_step), settings.size).cuda()
        return einet.trainer(model, [None], x, on_gpu(), settings), (x,)
    if name == "CM":
        model = continuous_mixture.build((28, 28), continuous_mixture.Settings()).cuda()
    else:
        model = PAPER[name]().cuda()
    batch = (x,)
    if name.startswith("prior"):
        codes = torch.randint(4096, (BATCH, *model.grid), generator=seeded())
        batch = (codes.cuda(), (torch.arange(BATCH) % 10).cuda())
    return GradientTrainer(model, None, None, on_gpu(), 1e-3, 1e-5), batch


def step_of(name, recorded):
    made, batch = trainer(name)
    if name.startswith("EiNet"):
        step = made.count if recorded else made._count
    else:
        step = made.step if recorded else made._step
    return functools.partial(step, *batch)


def repeated(step, times):
    """Run a step some times and wait for the last."""
    for _ in range(times):
        step()
    torch.cuda.synchronize()


def seconds_of(step, times):
    repeated(step, 5)
    start = time.perf_counter()
    repeated(step, times)
    return (time.perf_counter() - start) / times


def busy_share(step, times):
    """The share of its time in which a kernel runs."""
    seconds = seconds_of(step, times)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        repeated(step, times)
    kernels = sum(event.self_device_time_total for event in found.key_averages()) / 1e6
    return kernels / times / seconds


def noted(benchmark, name, seconds, **facts):
    benchmark.pedantic(lambda: None)
    facts |= {"machine": f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"}
    benchmark.extra_info.update(task="gpu", implementation=name, size=1, seconds=seconds, **facts)


@pytest.mark.parametrize("name", [*PAPER, "EiNet 2", "EiNet 30", "CM"])
def test_step(benchmark, name):
    times = 5 if name == "CM" else STEPS
    recorded = step_of(name, recorded=True)
    seconds, busy = seconds_of(recorded, times), busy_share(recorded, times)
    one_by_one = seconds_of(step_of(name, recorded=False), times)
    noted(benchmark, f"training step: {name}", seconds, busy=busy, one_by_one=one_by_one)


def test_evaluation(benchmark):
    stored, x = mixture(16_384), images(10_000).cuda()
    parts = (stored.log_weights, stored.means, stored.log_stds)
    model = Mixture(*(part.cuda() for part in parts))
    seconds = seconds_of(lambda: model.log_prob(x), 3)
    busy = busy_share(lambda: model.log_prob(x), 3)
    noted(benchmark, "log p(x), N = 16,384, 10,000 images", seconds, busy=busy)


def test_matrix_product(benchmark):
    one, other = torch.rand(10_000, 2 * D).cuda(), torch.rand(2 * D, 16_384).cuda()
    noted(benchmark, "a float32 matrix product as large", seconds_of(lambda: one @ other, 5))


def test_shorter_products(benchmark):
    """What TF32 would change: bits per dimension of reconstructions, and of single images most."""
    model, _ = trained((4, 4), 256)
    model, x = model.cuda(), images(2000).cuda()

    def log_prob():
        codes = model.encode(x)
        means, log_stds = model.decode(codes)
        scaled = (x - means) * torch.exp(-log_stds)
        return bits_per_dimension((0.5 * scaled.square() + log_stds).double().sum(1))

    exact = log_prob()
    torch.backends.cudnn.allow_tf32 = True
    moved = (log_prob() - exact).abs()
    torch.backends.cudnn.allow_tf32 = False
    facts = {"moves": moved.mean().item(), "moves_most": moved.max().item()}
    noted(benchmark, "TF32", 0.0, **facts)
