"""An epoch of training the laptop preset's VQ-VAE and prior, batches of 128."""

import functools

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from benchmarks.problems import BATCH, LEVELS, grey_images, images, seeded
from vqdistill.data import Batches, CodeBatches
from vqdistill.models.pixelcnn import PixelCNN, PixelCNNSettings
from vqdistill.models.vqvae import VQVAE, VQVAESettings
from vqdistill.training import GradientLearner

GRIDS = {"2x2": ((2, 2), (8, 16, 32, 64)), "4x4": ((4, 4), (16, 32, 64))}
K = 256


class Digits(Dataset):
    """Images one by one, each through its transforms, as tutorials do it."""

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32),
            v2.Lambda(lambda x: (x + torch.rand_like(x)) / LEVELS),
        ]
    )

    def __len__(self):
        return len(grey_images())

    def __getitem__(self, index):
        return self.transform(grey_images()[index].view(28, 28).numpy()).flatten(), index % 10


def loader():
    return DataLoader(Digits(), BATCH, shuffle=True)


def vqvae(grid):
    torch.manual_seed(0)
    shape, channels = GRIDS[grid]
    return VQVAE((28, 28), VQVAESettings(shape, K, channels))


def prior(grid):
    torch.manual_seed(0)
    return PixelCNN(K, GRIDS[grid][0], 10, PixelCNNSettings(32, 4, 128))


def plain_loop(model, batches):
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in batches:
        optimiser.zero_grad()
        loss, _ = model.loss(*batch, generator=None)
        loss.backward()
        optimiser.step()
    return loss


def epoch(model, batches):
    learner = GradientLearner(model, batches, None, seeded(), 1e-3, 0.0)
    return learner.train_epoch(lambda loss: None)["loss"]


@functools.cache
def codes(grid):
    return vqvae(grid).eval().encode(images(len(grey_images())))


@pytest.mark.parametrize("grid", GRIDS)
def test_vqvae(timed, grid):
    model, batches = vqvae(grid), Batches(grey_images(), LEVELS, BATCH)
    timed(lambda: epoch(model, batches), f"VQ-VAE {grid}", "vqdistill", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_vqvae_in_a_plain_loop(timed, grid):
    model = vqvae(grid)
    timed(lambda: plain_loop(model, ((x,) for x, _ in loader())), f"VQ-VAE {grid}", "plain loop", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_prior(timed, grid):
    batches = CodeBatches(codes(grid), torch.arange(len(grey_images())) % 10, BATCH)
    model = prior(grid)
    timed(lambda: epoch(model, batches), f"prior {grid}", "vqdistill", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_prior_in_a_plain_loop(timed, grid):
    """The codes encoded anew in each batch."""
    model, encoder = prior(grid), vqvae(grid).eval()
    timed(
        lambda: plain_loop(model, ((encoder.encode(x), c) for x, c in loader())),
        f"prior {grid}", "plain loop", K,
    )  # fmt: skip


PAPER = {  # those of config.yaml
    "VQ-VAE 2x2": lambda: VQVAE((28, 28), VQVAESettings((2, 2), 4096)),
    "VQ-VAE 4x4": lambda: VQVAE((28, 28), VQVAESettings((4, 4), 4096, (128, 256, 512))),
    "prior 2x2": lambda: PixelCNN(4096, (2, 2), 10, PixelCNNSettings(256, 10, 512)),
    "prior 4x4": lambda: PixelCNN(4096, (4, 4), 10, PixelCNNSettings(512, 10, 512)),
}


@pytest.mark.parametrize("name", PAPER)
def test_step_of_the_paper(timed, benchmark, name):
    """How much of the machine's peak a training step of the paper's network reaches."""
    torch.manual_seed(0)
    model, g = PAPER[name](), seeded()
    if name.startswith("prior"):
        batch = (torch.randint(4096, (BATCH, *model.grid), generator=g), torch.arange(BATCH) % 10)
    else:
        batch = (images(BATCH),)

    def step():
        model.loss(*batch, generator=g)[0].backward()

    with FlopCounterMode(display=False) as counter:
        step()
    timed(step, "paper", name, 1)
    benchmark.extra_info["operations"] = counter.get_total_flops()


def test_peak(timed, benchmark):
    side = 4096
    one, other = torch.rand(side, side), torch.rand(side, side)
    timed(lambda: one @ other, "paper", "matrix product", 1)
    benchmark.extra_info["operations"] = 2 * side**3
