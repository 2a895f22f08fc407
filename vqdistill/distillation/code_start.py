"""For comparison: a deep circuit whose units start as clusters of its teacher's codes.

On one level of the quad-tree there are as many regions as the grid of codes has cells. The codes
are clustered into K. For one epoch each region of that level has just the unit of its sample's
cluster, so that the units learn what clusters look like, and the sums above how they go together
(Liu et al. 2023, latent variable distillation).
"""

import torch
from torch import Tensor

from vqdistill.baselines.quad_tree import mover
from vqdistill.circuits.quad_tree import Only, QuadTree
from vqdistill.distillation.deep import TeacherSamples
from vqdistill.errors import InputError
from vqdistill.models.codebook import kmeans
from vqdistill.models.vqvae import VQVAE
from vqdistill.settings import QuadTreeOfAnySize


@torch.no_grad()
def begin_with_codes(
    model: QuadTree,
    vqvae: VQVAE,
    samples: TeacherSamples,
    generator: torch.Generator,
    settings: QuadTreeOfAnySize,
) -> None:
    """An epoch of EM in which the units of one level are clusters of the samples' codes.

    Raises InputError if no level of the circuit has the cells of the grid for regions.
    """
    level, cells = level_of_grid(model, vqvae.grid)
    units = clusters(vqvae, samples.codes, model.size, generator).flatten(1)[:, cells]
    counts, move = model.zero_counts(), mover(settings, len(samples))
    order = torch.randperm(len(units), generator=generator, device=generator.device)
    for n, index in enumerate(order.to(units.device).split(samples.batch_size)):
        only = Only(level, units[index].T)
        x = samples.images(index, generator)
        model.count_joint(x, samples.classes[index], counts, only)
        move(model, counts, n)


def level_of_grid(model: QuadTree, grid: tuple[int, int]) -> tuple[int, Tensor]:
    """The level whose regions are a grid (H, W), and the cell of each, row by row [regions]."""
    height, width = model.image_shape
    region = torch.arange(model.n_variables)  # of each leaf
    rows, columns = (
        model.leaves.pixels[:, 0].cpu() // width,
        model.leaves.pixels[:, 0].cpu() % width,
    )
    for n, layer in enumerate(model.layers):
        region, rows, columns = layer.parents.cpu()[region], rows // 2, columns // 2
        if ((height - 1 >> n + 1) + 1, (width - 1 >> n + 1) + 1) == tuple(grid):
            cells = torch.empty(layer.n_regions, dtype=torch.int64)
            cells[region] = rows * grid[1] + columns
            return n, cells
    raise InputError(
        f"start: codes of a grid of {grid[0]}×{grid[1]}: no level of a quad-tree over images of"
        f" {height}×{width} has so many regions; start with pixels"
    )


def clusters(vqvae: VQVAE, codes: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """The cluster of each of codes [n, H, W], by k-means of the vectors that are in use."""
    vectors, used = vqvae.codebook.vectors, codes.unique()
    centres = kmeans(vectors[used], min(n_clusters, len(used)), generator)
    return torch.cdist(vectors, centres).argmin(1)[codes]
