"""An evaluation as a whole: which models it reads, and what it gives for each."""

import numpy as np
import pytest
import torch
from helpers import einet_of, mixture_of, seeded

from vqdistill.data import Images
from vqdistill.evaluation.evaluate import N_FREE, evaluate
from vqdistill.evaluation.evaluated_models import EvaluatedModels, distilled_models

SHAPE, D = (4, 4), 16
LABELS = torch.tensor([1, 0, 0, 1, 2])


def mixtures(*numbers):
    return {n: mixture_of(n, D, uniform=True) for n in numbers}


def check_log_likelihoods(found):
    """The log-likelihoods of single images make the rows of density.csv, model by model."""
    of_images = found.log_likelihoods
    keys = ("method", "grid", "codebook_size", "size", "n_components", "weights")
    models = list(zip(*(of_images[key].tolist() for key in keys), strict=True))
    assert len(set(models)) == len(models) == len(found.density) / 2
    for row in found.density:
        values = of_images[row["split"]][models.index(tuple(row[key] for key in keys))]
        assert values.dtype == np.float64
        assert values.mean() == pytest.approx(row["log_likelihood"], rel=1e-12)
        assert of_images[f"{row['split']}_image"].tolist() == list(range(row["n_images"]))
        bits = np.sort(-values / (D * np.log(2)) + np.log2(17))
        assert row["bpd_q50"] == pytest.approx(bits[(len(bits) - 1) // 2])
        assert row["bpd_q100"] == pytest.approx(bits[-1])


def test_all_models_of_all_circuits_are_evaluated():
    g, none = seeded(1), torch.zeros(0)
    evaluated = {"test": torch.rand(5, D, generator=g), "train": torch.rand(3, D, generator=g)}
    images = Images("digits", "-", 17, SHAPE, none, none, evaluated, {"test": LABELS})
    einet = EvaluatedModels("einet", einet_of(SHAPE, 2, 2), size=2)
    priors = {n: torch.zeros(n).double() for n in (1, 3, 8)}
    nested = distilled_models("dmrs", mixtures(8), [1, 3, 8], priors)
    searched = distilled_models("dmbs", mixtures(1, 3, 8), [1, 3, 8], priors)
    circuits = [*nested, *searched, einet]
    for models in circuits:
        models.circuit.levels = 17
    found = evaluate(circuits, images, lambda x: LABELS[: len(x)], (3, 64), 4, seed=0)
    assert len(found.density) == 2 * (2 * 3 + 2 * 3 + 1)
    models = [(row["method"], row["n_components"]) for row in found.inpainting[::5]]
    assert models == [("dmrs", 3), ("dmrs", 8), ("dmbs", 3), ("dmbs", 8), ("einet", 0)]
    assert {row["n_scored"] for row in found.inpainting} == {4}
    assert [len(models) for models in found.test] == [6, 2, 2, 2, 1]
    test = [row["log_likelihood"] for row in found.density if row["split"] == "test"]
    joint = [log_prob.mean().item() for models in found.test for _, _, log_prob in models]
    assert test == joint
    check_log_likelihoods(found)
    for row in found.density:
        assert row["n_images_discrete"] == row["n_images"]
        assert row["bpd_discrete"] < row["bpd"]
    kinds = [f"{method}/{kind}" for method in ("dmrs", "dmbs", "einet")
             for kind in ("samples", "means", "unconditional")]  # fmt: skip
    assert set(found.pictures) == {*kinds, "hidden", "truth"}
    assert found.pictures["truth"].shape == (3, *SHAPE)  # the first image of each class
    assert found.pictures["dmbs/unconditional"].shape == (N_FREE, *SHAPE)
