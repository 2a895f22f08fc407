"""Inpainting: p(x_u | x_o) for five masks, the same queries for every model."""

import logging
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.data import Images
from vqdistill.evaluation.density import bits
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels, name_of
from vqdistill.randomness import generator

log = logging.getLogger(__name__)


def hidden_masks(shape: tuple[int, int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The hidden pixels [D] of each mask: the four halves, and the centre square of half the
    height and half the width."""
    h, w = shape
    masks = {}
    for name, rows, columns in (
        ("left", slice(h), slice(w // 2)),
        ("right", slice(h), slice(w // 2, w)),
        ("top", slice(h // 2), slice(w)),
        ("bottom", slice(h // 2, h), slice(w)),
        ("centre", slice(h // 4, h - h // 4), slice(w // 4, w - w // 4)),
    ):
        mask = torch.zeros(h, w, dtype=torch.bool, device=device)
        mask[rows, columns] = True
        masks[name] = mask.flatten()
    return masks


def joint_and_marginals(
    models: EvaluatedModels, x: Tensor, masks: Tensor, wanted: set[int]
) -> tuple[list[Evaluated], dict[int, Tensor]]:
    """log p(x) of all models; of the wanted ones log p(x) and log p(x_o) [1 + M, n], in nats.

    masks: [M, D], true where a pixel is observed; wanted: numbers of components, read under the
    weights that the method stands for. Where these are all models, one pass gives both.
    """
    main = models.main_weights
    if set(models.sizes or [0]) <= wanted:
        everything = torch.cat([torch.ones_like(masks[:1]), masks])
        found = list(models.marginals(x, everything))
        joint = [(n, weights, log_prob[0]) for n, weights, log_prob in found]
        return joint, {n: log_prob for n, weights, log_prob in found if weights == main}
    joint = list(models.log_probs(x))
    return joint, {
        n: torch.cat([log_prob[None], models.model(n).marginals(x, masks)])
        for n, weights, log_prob in joint
        if weights == main and n in wanted
    }


def inpainting_rows(
    models: EvaluatedModels,
    images: Images,
    log_probs: dict[int, Tensor],
    n_scored: int,
    classify: Callable[[Tensor], Tensor],
    seed: int,
) -> Iterator[dict[str, object]]:
    """Rows of inpainting.csv, over the test images.

    The conditional BPD is exact and over all of them; the metrics of the completions are over the
    first `n_scored`. log_probs: by number of components, log p(x) and log p(x_o) under each mask
    [1 + n_masks, n] of those models that are of interest.
    """
    x, levels, labels = images.evaluated["test"], images.levels, images.labels["test"][:n_scored]
    scored, truth = x[:n_scored], without_noise(x[:n_scored], levels)
    masks = hidden_masks(images.shape, x.device)
    observed = ~torch.stack([*masks.values()])
    for n, (joint, *marginals) in log_probs.items():
        keys, model = models.keys(n, models.main_weights), models.model(n)
        generators = [generator(seed, f"inpainting {name}") for name in masks]
        completed = model.completions(scored, observed, generators, leaf_means=True)
        for m, (name, hidden) in enumerate(masks.items()):
            row = keys | {"mask": name, "n_images": len(x)}
            row |= bits("conditional_bpd", joint - marginals[m], int(hidden.sum()), levels)
            row |= {"n_scored": len(scored)} | errors(completed.means[m], scored, hidden)
            for kind, shown in (("sample", completed.samples[m]), ("mean", completed.means[m])):
                guesses = classify(torch.where(hidden, shown, truth))
                row[f"accuracy_{kind}"] = (guesses == labels).double().mean().item()
                row |= looks(kind, shown, truth, hidden, images.shape)
            row |= looks("truth", truth, truth, hidden, images.shape)
            row["class_accuracy"] = class_accuracy(model, scored, ~hidden, labels)
            yield row | {"n_parameters": models.n_parameters(n)}
        log.info("%s: inpainted", name_of(keys))


def class_accuracy(model: Circuit, x: Tensor, observed: Tensor, labels: Tensor) -> float:
    """The share of images whose class is the likeliest under p(c | x_o); NaN where the model knows
    no classes."""
    if model.n_classes < 2:
        return math.nan
    return (model.class_log_prob(x, observed).argmax(1) == labels).double().mean().item()


def looks(
    kind: str, shown: Tensor, truth: Tensor, hidden: Tensor, shape: tuple[int, int]
) -> dict[str, float]:
    """Sharpness and coherence of completed images, or of the true ones beside them.

    In greys, and no ratios to the truth's: a hidden part may be all of one grey.
    """
    return {
        f"sharpness_{kind}": sharpness(shown, hidden, shape),
        f"coherence_{kind}": coherence(shown, truth, hidden, shape),
    }


def without_noise(x: Tensor, levels: int) -> Tensor:
    """Dequantised images with the middle of its grey level for every pixel."""
    return ((x * levels).floor() + 0.5) / levels


def errors(mean: Tensor, x: Tensor, hidden: Tensor) -> dict[str, float]:
    """Mean squared and mean absolute error of E[x_u | x_o] per hidden pixel."""
    difference = (mean - x)[:, hidden].double()
    return {
        "mean_squared_error": difference.square().mean().item(),
        "mean_absolute_error": difference.abs().mean().item(),
    }


def sharpness(images: Tensor, hidden: Tensor, shape: tuple[int, int]) -> float:
    """Mean of √(∂x² + ∂y²) by forward differences between hidden pixels, in greys a pixel."""
    mask, index = hidden.view(shape), _indices(hidden, shape)
    here = index[:-1, :-1][mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:]]
    pixels, down, right = (images[:, i].double() for i in (here, here + shape[1], here + 1))
    return torch.hypot(down - pixels, right - pixels).mean().item()


def coherence(completed: Tensor, truth: Tensor, hidden: Tensor, shape: tuple[int, int]) -> float:
    """Mean jump across the mask's border in greys: |difference| of neighbouring pixels of which
    one is hidden, as completed, and one is observed, as in the true image."""
    images = torch.where(hidden, completed, truth)
    mask, index = hidden.view(shape), _indices(hidden, shape)
    below, beside = mask[1:] ^ mask[:-1], mask[:, 1:] ^ mask[:, :-1]
    one = torch.cat([index[:-1][below], index[:, :-1][beside]])
    other = torch.cat([index[1:][below], index[:, 1:][beside]])
    return (images[:, other].double() - images[:, one].double()).abs().mean().item()


def _indices(hidden: Tensor, shape: tuple[int, int]) -> Tensor:
    """The place of each pixel in a flattened image, as an image."""
    return torch.arange(hidden.numel(), device=hidden.device).view(shape)


def first_of_each_class(labels: Tensor) -> Tensor:
    """The index of the first image of each class, in the order of the classes."""
    return torch.stack([(labels == c).nonzero()[0, 0] for c in labels.unique()])


def pictures(
    circuit: Circuit, x: Tensor, shape: tuple[int, int], n_draws: int, n_free: int, seed: int
) -> dict[str, Tensor]:
    """What the figures show of a model, all with leaf means in place of pixel noise.

    x: [n, D]. samples [n_masks, n, n_draws, h, w], means [n_masks, n, h, w], unconditional
    [n_free, h, w].
    """
    masks = hidden_masks(shape, x.device)
    generators = [generator(seed, f"pictures {name}") for name in masks]
    observed = ~torch.stack([*masks.values()])
    completed = circuit.completions(
        x.repeat_interleave(n_draws, 0), observed, generators, leaf_means=True
    )
    free = circuit.sample(n_free, generator(seed, "unconditional"), leaf_means=True)
    return {
        "samples": completed.samples.unflatten(1, (len(x), n_draws)).unflatten(-1, shape),
        "means": completed.means[:, ::n_draws].unflatten(-1, shape),
        "unconditional": free.unflatten(-1, shape),
    }
