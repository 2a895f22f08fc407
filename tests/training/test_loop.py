"""Early stopping, the best epoch, and a resume that is exact to the bit."""

import math

import pytest
import torch
from helpers import seeded
from torch import nn

from vqdistill.data import Batches
from vqdistill.errors import TrainingError
from vqdistill.files import read_tensors
from vqdistill.settings import Training
from vqdistill.training.gradient import GradientTrainer, in_batches
from vqdistill.training.loop import best_epoch, fit


class Scripted:
    """A trainer whose validation losses are given; its weight counts its epochs."""

    def __init__(self, validation, training=None):
        self.validation, self.training = validation, training or [1.0] * len(validation)
        self.epoch = torch.zeros(1)

    def train_epoch(self, progress):
        self.epoch += 1
        progress(torch.tensor(0.0))
        return {"loss": self.training[int(self.epoch) - 1]}

    def validate(self):
        return {"loss": self.validation[int(self.epoch) - 1]}

    def state(self):
        return {"epoch": self.epoch}

    def load_state(self, tensors):
        self.epoch = tensors["epoch"].clone()

    def weights(self):
        return {"epoch": self.epoch}


def stopping(max_epochs, patience, min_improvement):
    return Training(max_epochs=max_epochs, patience=patience, min_improvement=min_improvement)


def run(tmp_path, losses, max_epochs=100, patience=3, min_improvement=0.1):
    return fit(
        Scripted(losses),
        stopping(max_epochs, patience, min_improvement),
        tmp_path / "checkpoint.safetensors",
        "key",
    )


@pytest.mark.parametrize(
    ("losses", "max_epochs", "epochs", "best", "reason"),
    [
        ([5, 4, 3, 3, 3, 3, 3], 100, 6, 3, "patience"),
        ([5, 4, 3, 3, 3, 2, 2, 2, 2], 100, 9, 6, "patience"),  # a gain just in time
        ([5, 6, 7, 8, 9], 100, 4, 1, "patience"),  # the first is the best
        ([5, 4.95, 4.875, 4.85, 4.8, 4.8], 100, 6, 3, "patience"),  # small gains add up
        ([5, 4, 3, 2, 1, 0], 4, 4, 4, "epoch limit"),
        ([5, 4, 4.5, 3.99], 3, 3, 2, "epoch limit"),
        ([5], 1, 1, 1, "epoch limit"),
        ([-1, -2, -2, -2, -2], 100, 5, 2, "patience"),
    ],
)
def test_stopping(tmp_path, losses, max_epochs, epochs, best, reason):
    fitted = run(tmp_path, [float(loss) for loss in losses], max_epochs)
    assert len(fitted.history) == epochs
    assert [row["epoch"] for row in fitted.history] == list(range(1, epochs + 1))
    assert (fitted.best_epoch, fitted.stopped_by) == (best, reason)
    assert fitted.best_validation == losses[best - 1]
    assert fitted.weights["epoch"].item() == best  # that epoch's, not the last one's


def test_best_epoch_needs_the_whole_gain():
    history = [{"epoch": i + 1, "validation_loss": v} for i, v in enumerate([8.0, 7.75, 7.5, 7.0])]
    assert best_epoch(history, 0.25) == 4
    assert best_epoch(history[:3], 0.5) == 3
    assert best_epoch(history[:3], 0.75) == 1


def test_no_gain_at_all_is_none_even_where_none_is_required(tmp_path):
    """With min_improvement 0 a loss that stands still must run out of patience."""
    fitted = run(tmp_path, [2.0] * 30, max_epochs=30, patience=3, min_improvement=0.0)
    assert fitted.stopped_by == "patience"
    assert fitted.best_epoch == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_loss_that_is_not_finite(tmp_path, value, which):
    losses = {"train": [1.0] * 4, "validation": [4.0, 3.0, 3.0, 3.0]}
    losses[which] = [*losses[which][:3], value]
    trainer = Scripted(losses["validation"], losses["train"])
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError) as error:
        fit(trainer, stopping(100, 10, 0.1), path, "key")
    message = str(error.value)
    assert "\n" not in message
    assert "epoch 4" in message
    assert "last good epoch is 3, the best 2;" in message
    assert which in message
    assert len(read_tensors(path)[1]["history"]) == 3  # what was good is still there


def test_a_loss_that_is_not_finite_from_the_start(tmp_path):
    with pytest.raises(TrainingError, match="epoch 1; the last good epoch is none"):
        run(tmp_path, [math.nan])


# a real model


class Regression(nn.Module):
    """Batch norm, dropout and noise of the generator: all that can make a resume differ."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def loss(self, x, generator):
        noise = torch.randn(x.shape, generator=generator)
        error = (self.layers(x + 0.1 * noise) - x).square().sum(1).mean()
        return error, {"noise": noise.mean()}

    def after_epoch(self, generator):
        self.epochs += 1
        with torch.no_grad():
            self.layers[0].bias += 0.01 * torch.randn(8, generator=generator)


def trainer(seed=0):
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (70, 6), generator=seeded(1))
    batches = Batches(images.to(torch.uint8), 256, 16)
    validation = in_batches(16, torch.rand(40, 6, generator=seeded(2)))
    generator = seeded(3)
    return GradientTrainer(Regression(), batches, validation, generator, 1e-2, 1e-4)


STOPPING = stopping(6, 10, 1e-3)


def without_time(fitted):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history]
    return rows, fitted.best_epoch, fitted.best_validation, fitted.stopped_by


def check_equal(first, second):
    assert without_time(first) == without_time(second)
    assert first.weights.keys() == second.weights.keys()
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fit(trainer(), STOPPING, tmp_path_factory.mktemp("run") / "c.safetensors", "key")


class Interrupted(Exception):
    pass


def interrupted(path, epochs, key="key"):
    """A training that breaks off in the midst of the epoch after `epochs`."""
    broken = trainer()
    train, done = broken.train_epoch, []

    def train_epoch(progress):
        if len(done) == epochs:
            next(iter(broken.batches(broken.generator)))  # half an epoch's randomness is spent
            broken.model.layers[0].weight.data.zero_()
            raise Interrupted
        done.append(True)
        return train(progress)

    broken.train_epoch = train_epoch
    with pytest.raises(Interrupted):
        fit(broken, STOPPING, path, key)


class Counted:
    """Counts the epochs that a trainer is trained for."""

    def __init__(self, inner):
        self.inner, self.epochs = inner, 0
        train = inner.train_epoch

        def train_epoch(progress):
            self.epochs += 1
            return train(progress)

        inner.train_epoch = train_epoch


def test_training_lowers_the_loss_and_is_reproducible(tmp_path, undisturbed):
    losses = [row["train_loss"] for row in undisturbed.history]
    assert losses[-1] < 0.7 * losses[0]
    check_equal(fit(trainer(), STOPPING, tmp_path / "c.safetensors", "key"), undisturbed)
    assert undisturbed.weights["epochs"].item() == undisturbed.best_epoch


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path, undisturbed, epochs):
    path = tmp_path / "c.safetensors"
    interrupted(path, epochs)
    resumed = Counted(trainer(seed=99))  # its own initialisation must not matter
    resumed.inner.generator.manual_seed(99)
    check_equal(fit(resumed.inner, STOPPING, path, "key"), undisturbed)
    assert resumed.epochs == STOPPING.max_epochs - epochs


def test_a_finished_run_is_not_trained_again(tmp_path, undisturbed):
    path = tmp_path / "c.safetensors"
    fit(trainer(), STOPPING, path, "key")
    again = Counted(trainer(seed=99))
    check_equal(fit(again.inner, STOPPING, path, "key"), undisturbed)
    assert again.epochs == 0


def test_another_key_starts_anew(tmp_path, undisturbed):
    path = tmp_path / "c.safetensors"
    interrupted(path, 2, key="other settings")
    anew = Counted(trainer())
    check_equal(fit(anew.inner, STOPPING, path, "key"), undisturbed)
    assert anew.epochs == STOPPING.max_epochs


@pytest.mark.parametrize("damage", ["empty", "truncated", "noise"])
def test_a_damaged_checkpoint_starts_anew(tmp_path, undisturbed, damage):
    path = tmp_path / "c.safetensors"
    interrupted(path, 2)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": content[:-50], "noise": b"\xff" * 500}[damage])
    anew = Counted(trainer())
    check_equal(fit(anew.inner, STOPPING, path, "key"), undisturbed)
    assert anew.epochs == STOPPING.max_epochs


def test_validation_is_fixed_and_changes_nothing():
    one = trainer()
    before = {name: tensor.clone() for name, tensor in one.state().items()}
    first = one.validate()
    assert one.validate() == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.state().items())
    model, x = one.model.eval(), torch.cat([batch for (batch,) in one.validation_batches()])
    noise = seeded()
    losses = [float(model.loss(part, noise)[0].detach()) for part in x.split(16)]
    expected = sum(n * loss for n, loss in zip((16, 16, 8), losses, strict=True)) / 40
    assert first["loss"] == pytest.approx(expected, rel=1e-6)  # the last batch is smaller
