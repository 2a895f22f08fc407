"""Inpainting: masks, conditional bits, errors, and metrics with known values."""

import math

import pytest
import torch
from helpers import class_log_probs, mixture_of, seeded, terms

from vqdistill.data import Images
from vqdistill.evaluation import inpainting
from vqdistill.evaluation.evaluated_models import EvaluatedModels, distilled_models
from vqdistill.evaluation.inpainting import (
    coherence,
    hidden_masks,
    inpainting_rows,
    joint_and_marginals,
    sharpness,
)
from vqdistill.randomness import generator
from vqdistill.reporting.dictionary import INPAINTING_METRICS

SHAPE, D, LEVELS = (6, 8), 48, 17
NAMES = ["left", "right", "top", "bottom", "centre"]


def evaluated(n=6, sizes=(2, 6), n_classes=2):
    full = mixture_of(n, D, uniform=True, n_classes=n_classes)
    weights = torch.randn(n, generator=seeded()).double()
    return distilled_models("dmrs", {n: full}, list(sizes), {n: weights}, grid="2x2")[0]


@pytest.fixture
def x():
    return torch.rand(9, D, generator=seeded(1))


LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])


def bright(images):
    """A classifier: whether the mean is above one half."""
    return (images.mean(1) > 0.5).long()


def rows_of(one, x, sizes, n_scored=5, seed=3, classify=bright):
    observed = ~torch.stack([*hidden_masks(SHAPE).values()])
    _, marginals = joint_and_marginals(one, x, observed, set(sizes))
    labels, none = {"test": LABELS}, torch.zeros(0)
    images = Images("digits", "-", LEVELS, SHAPE, none, none, {"test": x}, labels)
    return list(inpainting_rows(one, images, marginals, n_scored, classify, seed))


# masks


def test_masks_by_hand():
    masks = {name: mask.view(4, 4).int().tolist() for name, mask in hidden_masks((4, 4)).items()}
    assert list(masks) == NAMES
    assert masks["left"] == [[1, 1, 0, 0]] * 4
    assert masks["right"] == [[0, 0, 1, 1]] * 4
    assert masks["top"] == [[1] * 4] * 2 + [[0] * 4] * 2
    assert masks["bottom"] == [[0] * 4] * 2 + [[1] * 4] * 2
    assert masks["centre"] == [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]


@pytest.mark.parametrize(("shape", "half", "centre"), [((28, 28), 392, 196), ((8, 8), 32, 16)])
def test_sizes_of_masks(shape, half, centre):
    masks = hidden_masks(shape)
    for name, mask in masks.items():
        assert mask.shape == (math.prod(shape),)
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == (centre if name == "centre" else half)
    assert torch.equal(masks["left"], ~masks["right"])
    assert torch.equal(masks["top"], ~masks["bottom"])


# rows


def test_conditional_bits_of_hidden_pixels(x):
    """−log₂ p(x_u | x_o) / |u| + log₂ L, from explicit responsibilities."""
    one = evaluated()
    for row in rows_of(one, x, (2, 6)):
        hidden = hidden_masks(SHAPE)[row["mask"]]
        model = one.model(row["n_components"])
        of_observed = terms(model, x, ~hidden)
        of_hidden = terms(model, x) - of_observed  # log p_n(x_u)
        nats = (of_observed.log_softmax(1) + of_hidden).logsumexp(1).mean().item()
        expected = -nats / int(hidden.sum()) / math.log(2) + math.log2(LEVELS)
        assert row["conditional_bpd"] == pytest.approx(expected, rel=1e-10)
        bits = -((of_observed.log_softmax(1) + of_hidden).logsumexp(1)) / int(hidden.sum())
        ordered = sorted((bits / math.log(2) + math.log2(LEVELS)).tolist())
        assert row["conditional_bpd_q50"] == pytest.approx(ordered[4])
        assert row["conditional_bpd_q100"] == pytest.approx(ordered[8])
        assert row["n_images"] == 9
        assert row["n_parameters"] == model.n_parameters


def test_keys_of_rows(x):
    rows = rows_of(evaluated(), x, (2, 6))
    assert [(row["mask"], row["n_components"]) for row in rows] == [
        (name, n) for n in (2, 6) for name in NAMES
    ]
    assert {row["weights"] for row in rows} == {"uniform"}
    assert {row["n_scored"] for row in rows} == {5}
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))


def test_metrics_of_rows_are_those_of_the_same_queries(x):
    one, seed = evaluated(), 3
    truth = inpainting.without_noise(x[:5], LEVELS)
    for row in rows_of(one, x, (6,), seed=seed):
        hidden, model = hidden_masks(SHAPE)[row["mask"]], one.model(6)
        mean = model.conditional_mean(x[:5], ~hidden)
        difference = (mean - x[:5])[:, hidden].double()
        assert row["mean_squared_error"] == pytest.approx(difference.pow(2).mean().item())
        assert row["mean_absolute_error"] == pytest.approx(difference.abs().mean().item())
        noise = generator(seed, f"inpainting {row['mask']}")
        sample = model.conditional_sample(x[:5], ~hidden, noise, leaf_means=True)
        for kind, completed in (("sample", sample), ("mean", mean)):
            guesses = bright(torch.where(hidden, completed, truth))
            accuracy = sum(
                a == b for a, b in zip(guesses.tolist(), LABELS.tolist()[:5], strict=True)
            )
            assert row[f"accuracy_{kind}"] == pytest.approx(accuracy / 5)
            assert row[f"sharpness_{kind}"] == sharpness(completed, hidden, SHAPE)
            assert row[f"coherence_{kind}"] == coherence(completed, truth, hidden, SHAPE)
        assert row["sharpness_truth"] == sharpness(truth, hidden, SHAPE)
        assert row["coherence_truth"] == coherence(truth, truth, hidden, SHAPE)


def test_class_accuracy_is_the_share_of_likeliest_classes_that_are_right(x):
    one, found = evaluated(), set()
    for row in rows_of(one, x, (2, 6)):
        observed = ~hidden_masks(SHAPE)[row["mask"]]
        guesses = class_log_probs(one.model(row["n_components"]), x[:5], observed).argmax(1)
        assert row["class_accuracy"] == (guesses == LABELS[:5]).double().mean().item()
        found.add(row["class_accuracy"])
    assert len(found) > 1
    unknown = rows_of(evaluated(n_classes=1), x, (6,))
    assert all(math.isnan(row["class_accuracy"]) for row in unknown)


def test_the_classifier_sees_the_truth_where_it_is_observed(x):
    seen = []

    def classify(images):
        seen.append(images)
        return LABELS[: len(images)]

    rows = rows_of(evaluated(), x, (6,), classify=classify)
    truth = inpainting.without_noise(x[:5], LEVELS)
    for row, image in zip(rows, seen[::2], strict=True):
        observed = ~hidden_masks(SHAPE)[row["mask"]]
        assert torch.equal(image[:, observed], truth[:, observed])
        assert (row["accuracy_sample"], row["accuracy_mean"]) == (1.0, 1.0)


def test_rows_of_a_circuit_that_is_no_mixture_of_sizes(x):
    """Read as it is: no size, learned weights, and the same numbers as the mixture in it."""
    mixture = evaluated().circuit
    learned = rows_of(EvaluatedModels("einet", mixture, size=4), x, (0,))
    expected = rows_of(evaluated(), x, (6,))
    for row, other in zip(learned, expected, strict=True):
        assert (row["method"], row["size"], row["n_components"]) == ("einet", 4, 0)
        assert row["weights"] == "learned"
        for name in ("conditional_bpd", "mean_squared_error", "sharpness_sample"):
            assert row[name] == pytest.approx(other[name], rel=1e-9)


def test_rows_depend_on_their_seed(x):
    one = evaluated()
    assert rows_of(one, x, (6,)) == rows_of(one, x, (6,))
    first, other = (rows_of(one, x, (6,), seed=s) for s in (3, 4))
    assert any(
        a["sharpness_sample"] != b["sharpness_sample"] for a, b in zip(first, other, strict=True)
    )
    assert all(
        a["conditional_bpd"] == b["conditional_bpd"] for a, b in zip(first, other, strict=True)
    )


# metrics


def ramp(rows, columns, down, right):
    y, z = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (down * y + right * z).float().flatten()[None]


@pytest.mark.parametrize("name", NAMES)
def test_sharpness_of_ramps(name):
    """A plane of slopes (a, b) has the gradient √(a² + b²) everywhere."""
    hidden = hidden_masks(SHAPE)[name]
    assert sharpness(ramp(*SHAPE, 3.0, 4.0), hidden, SHAPE) == pytest.approx(5.0)
    assert sharpness(ramp(*SHAPE, -6.0, 8.0), hidden, SHAPE) == pytest.approx(10.0)
    assert sharpness(ramp(*SHAPE, 0.0, 0.0), hidden, SHAPE) == 0.0


def test_sharpness_looks_at_hidden_pixels_alone():
    hidden = hidden_masks(SHAPE)["left"]
    truth = ramp(*SHAPE, 1.0, 0.0)
    other = torch.where(hidden, truth, 50 * torch.rand(1, D))
    assert sharpness(other, hidden, SHAPE) == sharpness(truth, hidden, SHAPE) == pytest.approx(1.0)


def test_sharpness_of_a_small_image_by_hand():
    """The top half of 4×4 hidden: differences at the three top-left pixels of the first row."""
    hidden = hidden_masks((4, 4))["top"]
    image = torch.zeros(1, 4, 4)
    image[0, 1, 0] = 3.0  # down: 3 at column 0
    image[0, 0, 2] = 4.0  # right: 4 at column 1; down: −4 and right: −4 at column 2
    expected = (3 + 4 + math.sqrt(32)) / 3
    assert sharpness(image.flatten(1), hidden, (4, 4)) == pytest.approx(expected)


def test_coherence_by_hand():
    """Left half hidden: the border is one jump a row, between columns 3 and 4."""
    hidden = hidden_masks(SHAPE)["left"]
    truth = ramp(*SHAPE, 0.0, 2.0)  # jumps of 2
    assert coherence(torch.full((1, D), 8.0), truth, hidden, SHAPE) == 0.0  # meets column 4
    assert coherence(torch.full((1, D), 5.0), truth, hidden, SHAPE) == pytest.approx(3.0)
    assert coherence(torch.full((1, D), 12.0), truth, hidden, SHAPE) == pytest.approx(4.0)


def test_coherence_counts_every_side_of_the_centre_square():
    shape = (4, 4)
    hidden = hidden_masks(shape)["centre"]
    truth = torch.zeros(1, 16)
    truth[0, hidden.nonzero().squeeze(1)[:1]] = 1.0  # one hidden pixel: 2 of 8 border jumps
    assert coherence(truth, truth, hidden, shape) == pytest.approx(2 / 8)
    assert coherence(torch.full((1, 16), 0.75), truth, hidden, shape) == pytest.approx(0.75)


def test_coherence_takes_observed_pixels_from_the_truth():
    hidden = hidden_masks(SHAPE)["top"]
    truth = ramp(*SHAPE, 2.0, 0.0)
    spoiled = torch.where(hidden, truth, 99.0)
    assert coherence(spoiled, truth, hidden, SHAPE) == coherence(truth, truth, hidden, SHAPE) == 2.0


@pytest.mark.parametrize("grey", [0.0, 0.5, 1 - 2**-24])
def test_scores_of_constant_images_are_numbers_of_greys(grey):
    """Whatever the truth is, all metrics of a completion are finite and in their bounds."""
    for row in rows_of(evaluated(), torch.full((9, D), grey), (2, 6)):
        scores = {name: value for name, value in row.items() if isinstance(value, float)}
        assert all(map(math.isfinite, scores.values()))
        assert (row["sharpness_truth"], row["coherence_truth"]) == (0.0, 0.0)
        for name in INPAINTING_METRICS.keys() - {"conditional_bpd"}:
            assert 0 <= scores[name] <= math.sqrt(2)


def test_without_noise_is_the_middle_of_the_level():
    levels = torch.arange(17)
    x = (levels + 0.3) / 17
    torch.testing.assert_close(inpainting.without_noise(x, 17), (levels + 0.5) / 17)


def test_first_of_each_class():
    labels = torch.tensor([2, 0, 2, 1, 0, 1])
    assert inpainting.first_of_each_class(labels).tolist() == [1, 3, 0]


def test_pictures(x):
    circuit = evaluated().circuit
    made = inpainting.pictures(circuit, x[:3], SHAPE, n_draws=2, n_free=4, seed=0)
    assert made["samples"].shape == (5, 3, 2, *SHAPE)
    assert made["means"].shape == (5, 3, *SHAPE)
    assert made["unconditional"].shape == (4, *SHAPE)
    for i, hidden in enumerate(hidden_masks(SHAPE).values()):
        for image in range(3):
            shown = x[image][~hidden]
            assert torch.equal(made["means"][i, image].flatten()[~hidden], shown)
            for draw in range(2):
                drawn = made["samples"][i, image, draw].flatten()
                assert torch.equal(drawn[~hidden], shown)
                assert (drawn[hidden] == circuit.means[:, hidden]).all(1).any()  # a component's
    means = made["unconditional"].flatten(1)
    assert (means[:, None] == circuit.means).all(-1).any(1).all()
