import pytest
import torch
import torch.nn.functional as F
from helpers import refusal, seeded, small_prior

from vqdistill import settings
from vqdistill.models import pixelcnn
from vqdistill.models.pixelcnn import PixelCNN

GRIDS = [(2, 2), (4, 4), (1, 3), (3, 1), (2, 5)]
RELATIVE = 1e-5


def random_batch(model, n, seed=0):
    generator = seeded(seed)
    codes = torch.randint(model.codebook_size, (n, *model.grid), generator=generator)
    return codes, torch.randint(model.n_classes, (n,), generator=generator)


def convolved(model, codes, classes):
    """Logits by the published formulation: zero-padded convolutions with masked weights."""

    def gated(x):
        a, b = x.chunk(2, dim=1)
        return a.tanh() * b.sigmoid()

    def one_by_one(linear, x):
        return F.conv2d(x, linear.weight[..., None, None], linear.bias)

    v = h = model.embedding(codes).permute(0, 3, 1, 2)
    for i, layer in enumerate(model.layers):
        vertical, horizontal = layer.vertical.weight.clone(), layer.horizontal.weight.clone()
        if i == 0:
            vertical[:, :, -1] = 0
            horizontal[..., -1] = 0
        reach = 3 if i == 0 else 1
        assert vertical.shape[2:] == (reach + 1, 2 * reach + 1)
        assert horizontal.shape[2:] == (1, reach + 1)
        of_class = layer.classes(classes)[:, :, None, None]
        rows = F.conv2d(F.pad(v, (reach, reach, reach, 0)), vertical, layer.vertical.bias)
        columns = F.conv2d(F.pad(h, (reach, 0, 0, 0)), horizontal, layer.horizontal.bias)
        out = gated(columns + one_by_one(layer.to_horizontal, rows) + of_class)
        out = one_by_one(layer.output, out)
        v, h = gated(rows + of_class), out if i == 0 else out + h
    return model.head(h.permute(0, 2, 3, 1))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_masked_convolutions(grid, layers):
    model = small_prior(grid, layers=layers)
    codes, classes = random_batch(model, 6)
    torch.testing.assert_close(model(codes, classes), convolved(model, codes, classes))


@pytest.mark.parametrize(("width", "grid", "millions"), [(256, (2, 2), 20.3), (512, (4, 4), 72.2)])
def test_published_parameter_counts(width, grid, millions):
    with torch.device("meta"):
        model = PixelCNN(settings.Prior(grid=grid, width=width), 10)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("grid", GRIDS)
def test_conditionals_see_earlier_codes_only_and_all_of_them(grid):
    model = small_prior(grid).double()
    codes, classes = random_batch(model, 1)
    before = model(codes, classes).flatten(1, 2)[0].detach()
    for i in range(codes.numel()):
        changed = codes.clone()
        changed.view(-1)[i] = (changed.view(-1)[i] + 1) % model.codebook_size
        after = model(changed, classes).flatten(1, 2)[0].detach()
        differs = (after != before).any(1)
        assert not differs[: i + 1].any()
        assert differs[i + 1 :].all()


def test_conditionals_depend_on_the_class():
    model = small_prior((2, 2))
    codes = random_batch(model, 1)[0].expand(3, 2, 2)
    logits = model(codes, torch.arange(3)).flatten(1, 2)
    assert (logits[0] != logits[1]).any(1).all()
    assert (logits[1] != logits[2]).any(1).all()


@pytest.mark.parametrize("grid", [(2, 2), (4, 4)])
def test_log_prob_is_the_sum_of_the_conditionals(grid, monkeypatch):
    model = small_prior(grid)
    codes, classes = random_batch(model, 7)
    whole = model.log_prob(codes, classes)
    prefixes, total, rows = model.begin(classes), torch.zeros(7).double(), torch.arange(7)
    for code in codes.flatten(1).unbind(1):
        total += model.next_log_probs(prefixes)[rows, code]
        prefixes = model.extend(prefixes, rows, code)
    torch.testing.assert_close(whole, total, rtol=RELATIVE, atol=0)
    monkeypatch.setattr(pixelcnn, "CONDITIONALS_AT_ONCE", 1)
    in_chunks = model.log_prob(codes, classes)
    assert in_chunks.dtype == torch.float64
    torch.testing.assert_close(in_chunks, whole, rtol=RELATIVE, atol=0)
    loss, _ = model.loss(codes, classes, torch.Generator())
    mean = -whole.mean().item() / (grid[0] * grid[1])
    assert loss.item() == pytest.approx(mean, rel=RELATIVE)


def test_training_fits_a_distribution():
    """The conditionals of a prior trained on weighted grids approach their frequencies."""
    model = small_prior((2, 2), codebook_size=2, n_classes=2)
    codes = torch.tensor([[[0, 0], [0, 1]], [[1, 0], [1, 1]], [[1, 1], [0, 0]], [[1, 1], [0, 1]]])
    classes = torch.tensor([0, 0, 1, 1])
    times = torch.tensor([3, 1, 1, 1])
    batch = codes.repeat_interleave(times, 0), classes.repeat_interleave(times, 0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        loss, parts = model.loss(*batch, None)
        loss.backward()
        optimiser.step()
    assert not parts["nats_per_code"].requires_grad
    expected = torch.tensor([0.75, 0.25, 0.5, 0.5]).double()
    torch.testing.assert_close(model.log_prob(codes, classes).exp(), expected, rtol=0, atol=0.03)


def test_codes_of_another_grid_are_refused():
    zeros = torch.zeros(1, dtype=torch.int64)
    assert "grid" in refusal(small_prior((2, 2)).log_prob, zeros.expand(1, 4, 4), zeros)
