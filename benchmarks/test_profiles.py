"""Where the time goes: the share of each of torch's operations in some tasks."""

import pytest
from torch.profiler import ProfilerActivity, profile

from benchmarks.problems import BATCH, LEVELS, grey_images, images, mixture
from benchmarks.test_einet import N_IMAGES, circuit
from benchmarks.test_training import epoch, prior_and_batches, vqvae
from vqdistill.baselines.einet import zero_counts
from vqdistill.data import Batches

SHOWN = 6


def density():
    model, x = mixture(4096), images(2000)
    return lambda: model.log_prob(x)


def e_step():
    model, x = circuit(10), images(N_IMAGES)
    return lambda: model.count(x, zero_counts(model))


def training(grid):
    model, batches = vqvae(grid), Batches(grey_images(), LEVELS, BATCH)
    return lambda: epoch(model, batches)


def prior_training():
    model, batches = prior_and_batches("4x4")
    return lambda: epoch(model, batches)


TASKS = {
    ("mixture", 4096): density,
    ("EiNet", 10): e_step,
    ("VQ-VAE 2x2", 256): lambda: training("2x2"),
    ("VQ-VAE 4x4", 256): lambda: training("4x4"),
    ("prior 4x4", 256): prior_training,
}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task[0])
def test_profile(benchmark, task):
    function = TASKS[task]()

    def profiled():
        with profile(activities=[ProfilerActivity.CPU]) as found:
            function()
        return found.key_averages()

    events = benchmark.pedantic(profiled, rounds=1, warmup_rounds=1)
    seconds = {one.key.removeprefix("aten::"): one.self_cpu_time_total / 1e6 for one in events}
    total = sum(seconds.values())
    largest = sorted(seconds.items(), key=lambda item: -item[1])[:SHOWN]
    benchmark.extra_info["profile"] = [
        {"task": task[0], "size": task[1], "operation": name, "share": round(spent / total, 3)}
        for name, spent in largest
    ]
