"""What tests of several folders share: `from helpers import seeded`."""

import copy
import itertools
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import chi2
from torch import Tensor
from torch.distributions import Normal

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import Mixture, uniform_log_weights
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.errors import InputError
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.settings import Prior

ROOT = Path(__file__).parents[1]  # of the repository


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """A random generator that begins at `seed`."""
    return torch.Generator(device=device).manual_seed(seed)


def refusal(call: Callable, *arguments: Any, **named: Any) -> str:
    """The message of the InputError that a call ends in; it has to be one line."""
    with pytest.raises(InputError) as error:
        call(*arguments, **named)
    message = str(error.value)
    assert "\n" not in message
    return message


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """χ² over its critical value at p = 10⁻³; cells that expect fewer than 5 are pooled."""
    few = expected < 5
    if few.any():
        counts = torch.cat([counts[~few], counts[few].sum()[None]])
        expected = torch.cat([expected[~few], expected[few].sum()[None].clamp(min=1e-9)])
    statistic = ((counts - expected).square() / expected).sum().item()
    return statistic / chi2.isf(1e-3, counts.numel() - 1)


# circuits


def mixture_of(
    n: int,
    d: int,
    smallest: float = 0.25,
    uniform: bool = False,
    seed: int = 0,
    n_classes: int = 1,
) -> Mixture:
    """Weights over several nats, or uniform ones; deviations from `smallest` to 0.5. Where there
    are classes, each component belongs to most of them a little."""
    g = seeded(n + d + seed)
    log_weights = (2 * torch.randn(n, generator=g)).double().log_softmax(0)
    stds = smallest + (0.5 - smallest) * torch.rand(n, d, generator=g)
    log_weights = uniform_log_weights(n) if uniform else log_weights
    means = torch.rand(n, d, generator=g)
    classes = 2 * torch.randn(n, n_classes, generator=g) if n_classes > 1 else None
    return Mixture(log_weights, means, stds.log(), classes)


def einet_of(
    shape: tuple[int, int], size: int, step: int = 1, smallest: float = 0.25, seed: int = 3
) -> EiNet:
    """An EiNet in float64 with peaked weights and deviations from `smallest` to 0.5."""
    torch.manual_seed(seed)
    model = EiNet(poon_domingos(shape, step), size).double()
    model.leaves.means.uniform_(0, 1)
    model.leaves.stds.uniform_(smallest, 0.5)
    for layer in model.layers:
        for weights, over in ((layer.weights, (2, 3)), (layer.mixing, (1,))):
            weights.pow_(3).div_(weights.sum(over, keepdim=True))
    return model


def expanded(model: EiNet) -> tuple[Tensor, Tensor, Tensor]:
    """An EiNet as the mixture of all its induced trees: log-weights [N], means, deviations."""
    leaves, trees = model.leaves, {}
    for region in range(len(leaves.pixels)):
        for unit in range(model.size):
            trees[region, unit] = [(0.0, {region: unit})]
    for layer in model.layers:
        for n, region in enumerate(range(layer.regions.start, layer.regions.stop)):
            for unit in range(layer.weights.shape[1]):
                trees[region, unit] = [
                    (math.log(layer.mixing[n, d, unit] * weight) + a + b, left | right)
                    for d in range(layer.depth)
                    for p in [n * layer.depth + d]
                    for (i, j), weight in np.ndenumerate(layer.weights[p, unit])
                    for a, left in trees[layer.left[p].item(), i]
                    for b, right in trees[layer.right[p].item(), j]
                ]
    log_weights, units = zip(*trees[model.n_regions - 1, 0], strict=True)
    chosen = torch.tensor([[tree[leaf] for leaf in sorted(tree)] for tree in units])
    rows = torch.arange(len(leaves.pixels))
    means, stds = (
        leaves.image(part[rows, chosen].transpose(0, 1)) for part in (leaves.means, leaves.stds)
    )
    return torch.tensor(log_weights, dtype=means.dtype), means, stds


def quad_tree_of(
    shape: tuple[int, int],
    size: int,
    n_classes: int = 1,
    class_levels: int = 0,
    smallest: float = 0.25,
    seed: int = 3,
) -> QuadTree:
    """A quad-tree in float64 with peaked weights and deviations from `smallest` to 0.5."""
    torch.manual_seed(seed)
    model = QuadTree(shape, size, n_classes, class_levels).double()
    model.leaves.means.uniform_(0, 1)
    model.leaves.stds.uniform_(smallest, 0.5)
    for weights in model.sum_weights():
        weights.uniform_().pow_(3).div_(weights.sum(-1, keepdim=True))
    return model


def expanded_tree(model: QuadTree) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A quad-tree as the mixture of all its induced trees: log-weights [N], means, deviations, and
    the class of each."""
    leaves, of_classes = model.leaves, range(model.n_classes)
    trees = {
        (leaf, c, unit): [(0.0, {leaf: unit})]
        for leaf in range(len(leaves.pixels))
        for c in of_classes
        for unit in range(model.size)
    }
    for layer in model.layers:
        above = {}
        for region, c, unit in itertools.product(
            range(layer.n_regions), of_classes, range(model.size)
        ):
            children = (layer.parents == region).nonzero().flatten().tolist()
            own = c if layer.weights.shape[1] > 1 else 0
            sums = [
                [
                    (math.log(weight) + a, tree)
                    for j, weight in enumerate(layer.weights[child, own, unit].tolist())
                    for a, tree in trees[child, c, j]
                ]
                for child in children
            ]
            above[region, c, unit] = [
                (sum(a for a, _ in parts), dict(itertools.chain(*(t.items() for _, t in parts))))
                for parts in itertools.product(*sums)
            ]
        trees = above
    found = [
        (math.log(weight) + a, tree, c)
        for (c, unit), weight in np.ndenumerate(model.root)
        for a, tree in trees[0, c, unit]
    ]
    log_weights, units, classes = zip(*found, strict=True)
    chosen = torch.tensor([[tree[leaf] for leaf in sorted(tree)] for tree in units]).T
    means, stds = (leaves.chosen(part, chosen) for part in (leaves.means, leaves.stds))
    return torch.tensor(log_weights, dtype=means.dtype), means, stds, torch.tensor(classes)


def explicit(circuit: Circuit) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights [N], means [N, D] and deviations [N, D] of a circuit as one flat mixture."""
    if isinstance(circuit, EiNet):
        return expanded(circuit)
    if isinstance(circuit, QuadTree):
        return expanded_tree(circuit)[:3]
    means, log_stds = circuit.components.parameters(slice(0, circuit.n_components))
    return circuit.log_weights, means.double(), log_stds.double().exp()


def terms(circuit: Circuit, x: Tensor, observed: Tensor | None = None) -> Tensor:
    """log w_n p_n(x_o) [B, N], leaf by leaf, by torch.distributions in float64."""
    log_weights, means, stds = explicit(circuit)
    density = Normal(means, stds).log_prob(x.double()[:, None])  # [B, N, D]
    if observed is not None:
        density = torch.where(observed.expand(x.shape)[:, None], density, 0.0)
    return density.sum(2) + log_weights


def class_log_probs(circuit: Circuit, x: Tensor, observed: Tensor | None = None) -> Tensor:
    """log p(c | x_o) [B, C] by Bayes' rule, over the components of the flat mixture."""
    if isinstance(circuit, QuadTree):
        classes = torch.eye(circuit.n_classes).double()[expanded_tree(circuit)[3]].log()
    else:
        classes = circuit.log_classes.log_softmax(1)  # [N, C]
    joint = (terms(circuit, x, observed)[..., None] + classes).logsumexp(1)
    return joint - joint.logsumexp(1, keepdim=True)


# priors


def every_latent(codebook_size: int, grid: tuple[int, int]) -> Tensor:
    """All codes [K^(HW), H, W] in lexicographic order."""
    places = [range(codebook_size)] * math.prod(grid)
    return torch.tensor(list(itertools.product(*places))).unflatten(1, grid)


def small_prior(grid, codebook_size=5, n_classes=3, layers=3, head=16, seed=0) -> PixelCNN:
    """An untrained PixelCNN of width 8."""
    torch.manual_seed(seed)
    sizes = Prior(grid=grid, codebook_size=codebook_size, width=8, layers=layers, head=head)
    return PixelCNN(sizes, n_classes).eval()


class TabularPrefixes(NamedTuple):
    """The codes so far [B, i] and the classes [B] of prefixes."""

    codes: torch.Tensor
    classes: torch.Tensor


class TabularPrior:
    """A prior of explicit tables, whose every probability can be computed by hand.

    tables[i][c, z_<i, k] = log p(z_i = k | z_<i, c), with z_<i as a number in base K; the larger
    `scale`, the more peaked, and 0 is uniform.
    """

    device = torch.device("cpu")

    def __init__(self, codebook_size=3, grid=(1, 2), n_classes=2, scale=1.0, seed=0):
        self.codebook_size, self.grid, self.n_classes = codebook_size, grid, n_classes
        self.evaluations, g = 0, seeded(seed)
        shapes = [(n_classes, codebook_size**i, codebook_size) for i in range(math.prod(grid))]
        noise = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
        self.tables = [(scale * one).log_softmax(-1) for one in noise]

    def begin(self, classes):
        return TabularPrefixes(classes.new_zeros(len(classes), 0), classes)

    def next_log_probs(self, prefixes):
        self.evaluations += len(prefixes.codes) * self.codebook_size
        index = torch.zeros_like(prefixes.classes)
        for code in prefixes.codes.unbind(1):
            index = index * self.codebook_size + code
        return self.tables[prefixes.codes.shape[1]][prefixes.classes, index]

    def extend(self, prefixes, parents, codes):
        longer = torch.cat([prefixes.codes[parents], codes[:, None]], dim=1)
        return TabularPrefixes(longer, prefixes.classes[parents])

    def log_prob(self, codes, classes):
        prefixes, total = self.begin(classes), torch.zeros(len(codes), dtype=torch.float64)
        rows = torch.arange(len(codes))
        for code in codes.flatten(1).unbind(1):
            total = total + self.next_log_probs(prefixes)[rows, code]
            prefixes = self.extend(prefixes, rows, code)
        return total

    def every_latent(self):
        return every_latent(self.codebook_size, self.grid)

    def joint(self):
        """p(z, c) of every latent, [K^(HW), C], by the product of the tables' entries."""
        joint = []
        for z in self.every_latent().flatten(1).tolist():
            row = []
            for c in range(self.n_classes):
                p, index = 1.0 / self.n_classes, 0
                for table, code in zip(self.tables, z, strict=True):
                    p *= math.exp(table[c, index, code])
                    index = index * self.codebook_size + code
                row.append(p)
            joint.append(row)
        return torch.tensor(joint, dtype=torch.float64)


# experiments

TINY = {
    "experiment": "tiny",
    "seeds": [0],
    "data": {"dataset": "digits", "training_part": 50},
    "training": {"batch_size": 200, "max_epochs": 2},
    "vqvae": {"channels": {"2x2": [4, 4], "4x4": [4]}},
    "prior": {"width": 4, "layers": 2, "head": 4},
    "teachers": [
        {"grid": "2x2", "codebook_sizes": [4], "methods": ["exm", "dmrs", "dmbs", "deep"]},
        {"grid": "4x4", "codebook_sizes": [4], "methods": ["dmrs", "dmbs", "random", "frequent"]},
    ],
    "n_components": [1, 2, 4],
    "students": {"deep": {"sizes": [2], "settings": {"samples": 400}}},
    "baselines": {
        "cm": {"settings": {"latent_dimension": 2, "channels": [4, 4, 2], "points": 8, "chunk": 8}},
        "einet": {"sizes": [2], "settings": {"pixels_per_step": 4, "em_every": 5}},
        "quad_tree": {"sizes": [2]},
    },
    "inpainting": {"n_components": [2], "scored_images": 20},
    "classifier": {"width": 2, "training": {"max_epochs": 1}},
}


def configuration(*changes: str | dict) -> dict:
    """config.yaml with presets, by their names, and other changes on top, as Snakemake merges."""
    from snakemake.utils import update_config

    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for change in changes:
        if isinstance(change, str):
            path = ROOT / f"workflow/presets/{change}.yaml"
            change = yaml.safe_load(path.read_text(encoding="utf-8"))
        update_config(config, copy.deepcopy(change))
    return config


def environment(repository: Path = ROOT) -> dict[str, str]:
    """This Python for all jobs of Snakemake, with the package of a repository."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(repository)}


def copy_repository(folder: Path) -> Path:
    """All that a run reads, copied into a folder, so that edits meanwhile don't matter to it."""
    for name in ("Snakefile", "config.yaml", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    for name in ("workflow", "vqdistill"):
        shutil.copytree(ROOT / name, folder / name)
    return folder
