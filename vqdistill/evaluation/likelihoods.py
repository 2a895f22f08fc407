"""All log-likelihoods of a circuit's models: of every split, under masks, and of grey levels."""

from typing import NamedTuple

from torch import Tensor

from vqdistill.data import Images
from vqdistill.evaluation.density import log_probs_discrete
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels
from vqdistill.evaluation.inpainting import joint_and_marginals


class Likelihoods(NamedTuple):
    """In nats."""

    splits: dict[str, list[Evaluated]]  # log p(x) of the images of each split
    discrete: dict[str, list[Evaluated]]  # log P(v) of the grey levels of its first ones
    marginals: dict[int, Tensor]  # of test images by number of components, [1 + M, n], log p(x)
    # and log p(x_o) under each mask


def likelihoods(
    models: EvaluatedModels, images: Images, masks: Tensor, wanted: set[int]
) -> Likelihoods:
    """masks: [M, D], true where a pixel of a test image is observed; wanted: the numbers of
    components whose marginals are wanted."""
    joint, marginals = joint_and_marginals(models, images.evaluated["test"], masks, wanted)
    splits = {
        split: joint if split == "test" else list(models.log_probs(x))
        for split, x in images.evaluated.items()
    }
    return Likelihoods(splits, log_probs_discrete(models, images), marginals)
