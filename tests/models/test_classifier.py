import numpy as np
import pytest
import torch
from helpers import seeded
from sklearn.datasets import load_digits

from vqdistill import settings
from vqdistill.models import classifier
from vqdistill.models.classifier import Classifier, shifted
from vqdistill.training.gradient import GradientTrainer


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (17, 30), (5, 7), (1, 1)])
def test_logits_for_any_image_shape(shape):
    model = Classifier(shape, 7, settings.Classifier(width=4)).eval()
    assert model(torch.rand(3, shape[0] * shape[1])).shape == (3, 7)


def test_loss_is_the_mean_cross_entropy():
    torch.manual_seed(0)
    model = Classifier((8, 8), 10, settings.Classifier(width=4)).eval()
    x, labels = torch.rand(6, 64), torch.arange(6)
    loss, parts = model.loss(x, labels, seeded())
    logits = model(x).detach().double().numpy()
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss.item() == pytest.approx(-log_probs[np.arange(6), np.arange(6)].mean(), rel=1e-5)
    assert parts["accuracy"].item() == pytest.approx((logits.argmax(1) == np.arange(6)).mean())


def test_predictions_in_parts_are_those_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    model = Classifier((8, 8), 10, settings.Classifier(width=4)).eval()
    x = 4 * torch.randn(11, 64)
    whole = model(x).argmax(1)
    monkeypatch.setattr(classifier, "IMAGES_AT_ONCE", 4)
    assert torch.equal(model.predict(x), whole)
    assert len(whole.unique()) > 1


def test_shifts_move_images_and_bring_in_black():
    images = torch.arange(1.0, 31.0).view(1, 5, 6).expand(200, 5, 6)
    padded = np.pad(images[0].numpy(), 1)
    moves = [padded[i : i + 5, j : j + 6] for i in range(3) for j in range(3)]
    seen = set()
    for image in shifted(images, 1, seeded()).numpy():
        matches = [k for k, moved in enumerate(moves) if np.array_equal(image, moved)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(9))


def test_only_large_images_are_moved_and_only_in_training():
    for shape, moves in (((28, 28), True), ((8, 8), False)):
        torch.manual_seed(0)
        model = Classifier(shape, 10, settings.Classifier(width=4))
        x, labels = torch.rand(8, shape[0] * shape[1]), torch.arange(8)
        in_training = {model.loss(x, labels, seeded(s))[0].item() for s in range(4)}
        model.eval()
        in_evaluation = {model.loss(x, labels, seeded(s))[0].item() for s in range(4)}
        assert (len(in_training) > 1) == moves
        assert len(in_evaluation) == 1


def test_it_learns_the_digits():
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=seeded(7))
    x = (images.float()[order] + torch.rand(images.shape, generator=seeded(1))) / 17
    labels = labels[order]

    def batches(generator):
        for rows in torch.randperm(1297, generator=generator).split(128):
            yield x[rows], labels[rows]

    torch.manual_seed(0)
    model = Classifier((8, 8), 10, settings.Classifier(width=16))
    trainer = GradientTrainer(model, batches, list, seeded(), 1e-3, 1e-5)
    for _ in range(12):
        trainer.train_epoch(lambda loss: None)
    model.eval()
    assert (model.predict(x[1297:]) == labels[1297:]).double().mean() > 0.965
