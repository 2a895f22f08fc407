"""What is benchmarked: mixtures like decoded digits, trained models, images of 28×28 pixels."""

import functools
import math
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from vqdistill import settings
from vqdistill.circuits.mixture import Mixture
from vqdistill.data import Batches, CodeBatches
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.training.gradient import GradientTrainer

LEVELS = 256
D = 784
BATCH = 128


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def grey_images() -> Tensor:
    """scikit-learn's 1,797 digits at the size and the grey levels of MNIST, uint8 [n, 784]."""
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 16
    large = F.interpolate(digits, size=(28, 28), mode="bicubic").clamp(0, 1)
    sharp = ((large - 0.3) / 0.5).clamp(0, 1)  # black paper, as in MNIST
    return (255 * sharp).round().to(torch.uint8).flatten(1)


def images(n: int, seed: int = 0) -> Tensor:
    """n of them, every other one, with dequantisation noise, float32 [n, 784]."""
    g = seeded(seed)
    digits = grey_images()[::2]
    index = torch.randint(len(digits), (n,), generator=g)
    return (digits[index] + torch.rand(n, D, generator=g)) / LEVELS


@functools.cache
def mixture(n: int) -> Mixture:
    """n components like digits that are not among the images: σ = 1e-3 on their paper, and up to
    0.3 on their strokes."""
    g = seeded(n)
    digits = grey_images()[1::2]
    ink = digits[torch.randint(len(digits), (n,), generator=g)].float() / LEVELS
    means = (ink + 0.002 + 0.02 * torch.randn(n, D, generator=g) * (ink > 0)).clamp(0, 1)
    stds = 1e-3 + (0.05 + 0.25 * torch.rand(n, D, generator=g)) * (
        F.avg_pool2d(ink.unflatten(1, (28, 28)), 3, 1, 1).flatten(1) > 0
    )
    weights = torch.randn(n, generator=g, dtype=torch.float64).log_softmax(0)
    return Mixture(weights, means, stds.log())


def peak_memory() -> int:
    """Of this process, in bytes. Not from getrusage: that starts with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def memory_of(module: str, argument: object) -> int:
    """What `report_memory` of one of the benchmarks says in a process of its own, in bytes."""
    code = f"from benchmarks.{module} import report_memory; report_memory({argument!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def half_masks() -> Tensor:
    """Observed pixels [D]: the right half."""
    return (torch.arange(D) % 28) >= 14


def bits_per_dimension(nats: Tensor) -> Tensor:
    return nats / (D * math.log(2))


@functools.cache
def trained(grid: tuple[int, int], codebook_size: int) -> tuple[VQVAE, PixelCNN]:
    """A VQ-VAE and its prior at the laptop preset's size, trained for some seconds."""
    torch.manual_seed(0)
    channels = {(2, 2): (8, 16, 32, 64), (4, 4): (16, 32, 64)}[grid]
    both = {"grid": grid, "codebook_size": codebook_size}
    sizes = settings.VQVAE(**both, channels=channels, initialisation="kmeans")
    vqvae, noise = VQVAE((28, 28), sizes), seeded()
    vqvae.before_training(images(2000), noise)
    batches = Batches(grey_images(), LEVELS, BATCH)
    fit(vqvae, batches, 20)
    codes = vqvae.encode(images(4000))
    prior = PixelCNN(settings.Prior(**both, width=32, layers=4, head=128), 10)
    fit(prior, CodeBatches(codes, torch.arange(4000) % 10, BATCH), 10)
    return vqvae, prior


def fit(model: torch.nn.Module, batches, n_epochs: int) -> None:
    trainer = GradientTrainer(model, batches, None, seeded(), 2e-3, 0.0)
    for _ in range(n_epochs):
        trainer.train_epoch(lambda loss: None)
    model.eval().requires_grad_(False)
