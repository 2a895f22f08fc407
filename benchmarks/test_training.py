"""An epoch of training the laptop preset's VQ-VAE and prior, batches of 128."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from benchmarks.problems import BATCH, LEVELS, grey_images, images, seeded
from vqdistill import settings
from vqdistill.data import Batches, CodeBatches
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.training.gradient import GradientTrainer

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
    return VQVAE((28, 28), settings.VQVAE(grid=shape, codebook_size=K, channels=channels))


def prior(grid):
    torch.manual_seed(0)
    sizes = settings.Prior(grid=GRIDS[grid][0], codebook_size=K, width=32, layers=4, head=128)
    return PixelCNN(sizes, 10)


class PlainGatedLayer(torch.nn.Module):
    """A layer of a gated PixelCNN by masked convolutions, with the weights of one of ours."""

    def __init__(self, layer):
        super().__init__()
        self.layer, reach = layer, layer.horizontal.kernel_size[1] - 1
        self.rows, self.columns = (reach, reach, reach, 0), (reach, 0, 0, 0)
        self.register_buffer("row_mask", torch.ones(reach + 1, 1))
        self.register_buffer("column_mask", torch.ones(reach + 1))
        if layer.first:  # mask A
            self.row_mask[-1] = self.column_mask[-1] = 0

    def forward(self, v, h, classes):
        layer, of_class = self.layer, self.layer.classes(classes)[:, :, None, None]
        vertical = layer.vertical.weight * self.row_mask
        horizontal = layer.horizontal.weight * self.column_mask
        rows = F.conv2d(F.pad(v, self.rows), vertical, layer.vertical.bias)
        columns = F.conv2d(F.pad(h, self.columns), horizontal, layer.horizontal.bias)
        columns = columns + pointwise(rows, layer.to_horizontal)
        out = pointwise(plain_gate(columns + of_class), layer.output)
        return plain_gate(rows + of_class), out if layer.first else out + h


def pointwise(maps, linear):
    return F.conv2d(maps, linear.weight[:, :, None, None], linear.bias)


def plain_gate(maps):
    a, b = maps.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class PlainPixelCNN(torch.nn.Module):
    """The same prior as tutorials write it: masked convolutions of maps [B, C, H, W]."""

    def __init__(self, network):
        super().__init__()
        self.embedding, self.head = network.embedding, network.head
        self.layers = torch.nn.ModuleList(map(PlainGatedLayer, network.layers))

    def loss(self, codes, classes, generator):
        v = h = self.embedding(codes).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            v, h = layer(v, h, classes)
        for part in self.head:
            h = pointwise(h, part) if isinstance(part, torch.nn.Linear) else part(h)
        return F.cross_entropy(h, codes), {}


def plain_loop(model, batches):
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in batches:
        optimiser.zero_grad()
        loss, _ = model.loss(*batch, generator=None)
        loss.backward()
        optimiser.step()
    return loss


def epoch(model, batches):
    trainer = GradientTrainer(model, batches, None, seeded(), 1e-3, 0.0)
    return trainer.train_epoch(lambda loss: None)["loss"]


@functools.cache
def codes(grid):
    return vqvae(grid).eval().encode(images(len(grey_images())))


def prior_and_batches(grid):
    classes = torch.arange(len(grey_images())) % 10
    return prior(grid), CodeBatches(codes(grid), classes, BATCH)


@pytest.mark.parametrize("grid", GRIDS)
def test_vqvae(timed, grid):
    model, batches = vqvae(grid), Batches(grey_images(), LEVELS, BATCH)
    timed(lambda: epoch(model, batches), f"VQ-VAE {grid}", "vqdistill", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_vqvae_in_a_plain_loop(timed, grid):
    """The same network, one image a row and its maps one after the other."""
    model = vqvae(grid).to(memory_format=torch.contiguous_format)
    timed(lambda: plain_loop(model, ((x,) for x, _ in loader())), f"VQ-VAE {grid}", "plain loop", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_prior(timed, grid):
    model, batches = prior_and_batches(grid)
    timed(lambda: epoch(model, batches), f"prior {grid}", "vqdistill", K)


@pytest.mark.parametrize("grid", GRIDS)
def test_prior_in_a_plain_loop(timed, grid):
    """The codes encoded anew in each batch."""
    model, encoder = prior(grid), vqvae(grid).eval()
    plain, batch = PlainPixelCNN(model), (codes(grid)[:BATCH], torch.arange(BATCH) % 10)
    torch.testing.assert_close(plain.loss(*batch, None)[0], model.loss(*batch)[0])
    timed(
        lambda: plain_loop(plain, ((encoder.encode(x), c) for x, c in loader())),
        f"prior {grid}", "plain loop", K,
    )  # fmt: skip


PAPER = {  # those of config.yaml
    "VQ-VAE 2x2": lambda: VQVAE((28, 28), settings.VQVAE()),
    "VQ-VAE 4x4": lambda: VQVAE((28, 28), settings.VQVAE(grid=(4, 4), channels=(128, 256, 512))),
    "prior 2x2": lambda: PixelCNN(settings.Prior(), 10),
    "prior 4x4": lambda: PixelCNN(settings.Prior(grid=(4, 4), width=512), 10),
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
