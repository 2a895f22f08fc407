"""EM of the plain mixture, against scikit-learn's."""

import numpy as np
import pytest
import torch
from helpers import refusal, seeded
from sklearn.mixture import GaussianMixture as Reference

from vqdistill.baselines import gmm
from vqdistill.data import Batches
from vqdistill.training.em import EMTrainer

SHAPE, LEVELS = (2, 3), 16


@pytest.fixture
def images() -> torch.Tensor:
    generator = seeded()
    modes = torch.randint(0, LEVELS, (3, 6), generator=generator)
    noise = torch.randint(-2, 3, (600, 6), generator=generator)
    picked = modes[torch.randint(0, 3, (600,), generator=generator)]
    return (picked + noise).clamp(0, LEVELS - 1).to(torch.uint8)


class FixedBatches(Batches):
    """All images at once with noise that stays, so that EM has one likelihood to raise."""

    def __call__(self, generator):
        noise = torch.rand(self.images.shape, generator=seeded(1))
        yield (self.images + noise) / self.levels


class SplitBatches(Batches):
    """The same in smaller batches."""

    def __call__(self, generator):
        return iter(self.images.split(self.batch_size))


def trainer_of(images: torch.Tensor, size: int, seed: int = 0) -> EMTrainer:
    model = gmm.build(SHAPE, gmm.Settings(size=size))
    batches = FixedBatches(images, LEVELS, len(images))
    generator = seeded(seed)
    x = next(iter(batches(None)))
    return gmm.trainer(model, batches, x, generator, gmm.Settings(size=size))


def test_steps_of_em_are_those_of_scikit_learn(images):
    trainer = trainer_of(images, 4)
    x = next(iter(trainer.batches(None))).numpy().astype(np.float64)
    reference = Reference(
        4,
        covariance_type="diag",
        reg_covar=0,
        weights_init=np.full(4, 0.25),
        means_init=trainer.model.means.numpy().astype(np.float64),
        precisions_init=np.full((4, 6), gmm.FIRST_STD**-2),
        max_iter=3,
        tol=0,
    )
    with pytest.warns(match="did not converge"):
        reference.fit(x)
    for _ in range(3):
        trainer.train_epoch(lambda loss: None)
    assert trainer.model.means.numpy() == pytest.approx(reference.means_, abs=1e-5)
    variances = trainer.model.log_stds.exp().square().numpy()
    assert variances == pytest.approx(reference.covariances_, rel=1e-3)
    expected = reference.score_samples(x)
    assert trainer.model.log_prob(torch.tensor(x)).numpy() == pytest.approx(expected, abs=1e-3)


def test_an_epoch_is_one_m_step_whatever_the_batches(images):
    whole, parts = trainer_of(images, 4), trainer_of(images, 4)
    everything = next(iter(parts.batches(None)))
    parts.batches = SplitBatches(everything, 256, 100)
    for _ in range(2):
        losses = [trainer.train_epoch(lambda loss: None)["loss"] for trainer in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1])
    for name, tensor in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], tensor, rtol=1e-6, atol=1e-6)


def test_parameters_are_those_of_a_mixture(images):
    assert gmm.build(SHAPE, gmm.Settings(size=7)).n_parameters == 7 * 2 * 6 + 6


def test_more_components_than_images(images):
    assert "gmm: size" in refusal(trainer_of, images, 601)
