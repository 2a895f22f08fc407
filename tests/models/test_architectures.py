import pytest
from helpers import refusal

from vqdistill.models.architectures import (
    check_channels,
    check_cm_channels,
    decoder_sides,
    encoder_layers,
)


@pytest.mark.parametrize(
    ("image_shape", "grid", "n_layers"),
    [((28, 28), (2, 2), 4), ((28, 28), (4, 4), 3), ((8, 8), (2, 2), 2), ((7, 8), (4, 4), 1)],
)
def test_smaller_images_leave_leading_layers_out(image_shape, grid, n_layers):
    layers, shapes = encoder_layers(image_shape, grid)
    assert len(layers) == n_layers
    assert (shapes[0], shapes[-1]) == (image_shape, grid)
    check_channels((4,) * n_layers, n_layers, grid)


@pytest.mark.parametrize(
    ("image_shape", "grid"), [((8, 8), (3, 3)), ((64, 64), (2, 2)), ((28, 8), (2, 2))]
)
def test_grids_that_no_encoder_reaches(image_shape, grid):
    assert "grid" in refusal(encoder_layers, image_shape, grid)


def test_other_numbers_of_channels_are_refused():
    assert "channels" in refusal(check_channels, (4,), 2, (2, 2))


def test_decoder_of_a_continuous_mixture():
    assert decoder_sides((28, 28)) == [1, 3, 7, 15, 31]
    check_cm_channels((28, 28), (128, 64, 32, 2))
    for channels in ((8, 2), (8, 4, 4, 3)):
        assert "channels" in refusal(check_cm_channels, (28, 28), channels)
