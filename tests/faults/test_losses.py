"""A loss that is not finite ends a training with what is needed to go on from there."""

import re

import pytest
from tiny_experiment import files_of, pick, refusal, run, without_outputs


class FarTooFast:
    """A learning rate beyond those that settings allow."""

    def __call__(self):
        from vqdistill.training.gradient import Adam

        initialise = Adam.__init__

        def broken(optimiser, model, learning_rate, weight_decay):
            initialise(optimiser, model, 1e30, weight_decay)

        Adam.__init__ = broken


@pytest.mark.parametrize("model", ["vqvae-2x2-K4", "prior-2x2-K4", "cm", "classifier"])
def test_a_training_that_explodes(commands, folder, log, model):
    """At the first epochs of a real step."""
    command = pick(commands, "train", f"models/{model}/")
    without_outputs(command, folder)
    said = refusal(command, folder, log, FarTooFast())
    expected = (
        rf"{command.step}: (train|validation) loss is (nan|inf) in epoch (\d)(, step \d+ of 12)?;"
        r" the last good epoch is (none|\d, the best \d); lower the learning rate or look at the"
        " data"
    )
    assert re.fullmatch(expected, said), said
    assert not files_of(folder, command.outputs())


class NotANumber:
    """Makes the loss of the third batch of the fourth epoch infinite."""

    def __call__(self):
        from vqdistill.models.vqvae import VQVAE

        loss, seen = VQVAE.loss, []

        def broken(model, x, generator):
            value, parts = loss(model, x, generator)
            seen.append(model.training)
            return (value / 0 if sum(seen) == 3 * 12 + 3 else value), parts

        VQVAE.loss = broken


def test_the_last_good_epoch_is_named_and_kept(commands, undisturbed, folder, log):
    command = pick(commands, "train_vqvae")
    without_outputs(command, folder)
    said = refusal(command, folder, log, NotANumber())
    assert "train loss is nan in epoch 4, step 3 of 12; the last good epoch is 3, the best " in said
    assert not files_of(folder, command.outputs())
    assert "after epoch 3\n" in run(command, folder, log)
