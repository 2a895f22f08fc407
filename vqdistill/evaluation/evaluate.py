"""The evaluation of every model: density, inpainting, and the pictures of the figures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqdistill import progress
from vqdistill.data import Images
from vqdistill.distillation import EXACT_METHOD
from vqdistill.evaluation.density import density_rows
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels
from vqdistill.evaluation.exact import Checkpoint, exact_likelihoods
from vqdistill.evaluation.inpainting import (
    first_of_each_class,
    hidden_masks,
    inpainting_rows,
    pictures,
)
from vqdistill.evaluation.likelihoods import likelihoods

N_DRAWS = 1  # conditional samples of each picture
N_FREE = 16  # unconditional samples of each model


class Evaluation(NamedTuple):
    """What an evaluation finds."""

    density: list[dict[str, object]]  # rows of density.csv
    inpainting: list[dict[str, object]]  # rows of inpainting.csv
    pictures: dict[str, np.ndarray]  # '<method>/samples', '/means', '/unconditional'; float16
    test: list[list[Evaluated]]  # log p(x) of the test images, of the models of each circuit
    log_likelihoods: dict[str, np.ndarray]  # of every image, see `of_each_image`


@torch.no_grad()
def evaluate(
    circuits: Sequence[EvaluatedModels],
    images: Images,
    classify: Callable[[Tensor], Tensor],
    n_components: Sequence[int],
    n_scored: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> Evaluation:
    """Evaluate all models that circuits hold.

    The density is that of all splits. Test images are inpainted by the models with `n_components`
    components and by the largest of each method; `classify` gives the digits [n] of images [n, D],
    here of the first `n_scored` completed ones. Pictures are those of the largest. The sums of an
    exact model are kept in `checkpoint`.
    """
    result, of_images = Evaluation([], [], {}, [], {}), []
    largest = {models.method: models for models in sorted(circuits, key=lambda c: c.extent)}
    test = images.evaluated["test"]
    hidden = torch.stack([*hidden_masks(images.shape, test.device).values()])
    examples = test[first_of_each_class(images.labels["test"])]
    sizes = [max(1, models.largest) for models in circuits]
    for models in progress.track(circuits, "component", sizes):
        wanted = {0, *n_components, largest[models.method].largest}
        if models.method == EXACT_METHOD:
            found = exact_likelihoods(models, images, ~hidden, checkpoint)
        else:
            found = likelihoods(models, images, ~hidden, wanted)
        result.test.append(found.splits["test"])
        for split, log_probs in found.splits.items():
            result.density.extend(
                density_rows(models, log_probs, found.discrete[split], split, images.levels)
            )
            of_images += [
                (models.keys(n, weights), split, log_prob) for n, weights, log_prob in log_probs
            ]
        rows = inpainting_rows(models, images, found.marginals, n_scored, classify, seed)
        result.inpainting.extend(rows)
        if models is largest[models.method]:
            circuit = models.model(models.largest)
            made = pictures(circuit, examples, images.shape, N_DRAWS, N_FREE, seed)
            for name, value in made.items():
                result.pictures[f"{models.method}/{name}"] = _half_precision(value)
    result.pictures["hidden"] = hidden.cpu().unflatten(1, images.shape).numpy()
    result.pictures["truth"] = _half_precision(examples.unflatten(1, images.shape))
    result.log_likelihoods.update(of_each_image(of_images))
    return result


def of_each_image(
    log_probs: Sequence[tuple[dict[str, object], str, Tensor]],
) -> dict[str, np.ndarray]:
    """log p(x) of every model and image, from (keys of the model, split, log p(x) [n]).

    Arrays: each key [M], such as 'method' and 'n_components', and by the name of each split the
    log-likelihoods [M, n] in nats, float64, of the images in the order of the prepared file. The
    place of an image there is in '<split>_image' [n].
    """
    models = {tuple(keys.values()): keys for keys, _, _ in log_probs}
    arrays = {key: np.array([keys[key] for keys in models.values()]) for key in log_probs[0][0]}
    for split in dict.fromkeys(split for _, split, _ in log_probs):
        rows = [x.cpu().double().numpy() for _, of_split, x in log_probs if of_split == split]
        arrays |= {split: np.stack(rows), f"{split}_image": np.arange(len(rows[0]))}
    return arrays


def _half_precision(images: Tensor) -> np.ndarray:
    return images.cpu().numpy().astype(np.float16)
