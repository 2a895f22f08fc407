import pytest
import torch
from helpers import seeded, small_prior

from vqdistill.models import prefixes as incremental

GRIDS = [(2, 2), (4, 4), (1, 3), (3, 1), (2, 5)]
RELATIVE = 1e-5


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("layers", [1, 4])
def test_incremental_equals_full_pass(grid, layers, monkeypatch):
    """Prefixes are dropped, repeated and reordered at each position, in batches of any size."""
    monkeypatch.setattr(incremental, "ROW_CHUNK", 4)
    model, generator = small_prior(grid, layers=layers), seeded(1)
    prefixes = model.begin(torch.tensor([2, 0, 2, 1]))
    n = grid[0] * grid[1]
    for i in range(n):
        padding = torch.randint(5, (len(prefixes.codes), n - i), generator=generator)
        grids = torch.cat([prefixes.codes, padding], dim=1).unflatten(1, grid)
        logits = model(grids, prefixes.classes).detach().flatten(1, 2)[:, i]
        expected = logits.double().log_softmax(-1)
        found = model.next_log_probs(prefixes)
        torch.testing.assert_close(found, expected, rtol=RELATIVE, atol=0)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(len(found)).double())
        size = int(torch.randint(1, 12, (1,), generator=generator))
        parents = torch.randint(len(found), (size,), generator=generator)
        codes = torch.randint(5, (size,), generator=generator)
        longer = model.extend(prefixes, parents, codes)
        assert torch.equal(longer.codes[:, :-1], prefixes.codes[parents])
        assert torch.equal(longer.codes[:, -1], codes)
        assert torch.equal(longer.classes, prefixes.classes[parents])
        prefixes = longer
    assert prefixes.codes.shape[1] == n


def test_evaluations_are_those_of_the_head():
    """Every row that goes through the head is K evaluations, and nothing else is."""
    model = small_prior((2, 3))
    rows = []
    model.head.register_forward_hook(lambda _, inputs, out: rows.append(out[..., 0].numel()))
    prefixes = model.begin(torch.tensor([0, 1]))
    for parents in ([0, 1, 1], [2, 0], [0, 0, 1, 1, 1], [4], [0, 0], [1, 0, 1]):
        model.next_log_probs(prefixes)
        prefixes = model.extend(prefixes, torch.tensor(parents), torch.tensor(parents) % 5)
    assert rows == [2, 3, 2, 5, 1, 2]
    model.log_prob(torch.zeros(4, 2, 3, dtype=torch.int64), torch.arange(4) % 3)
    assert model.evaluations == sum(rows) * 5 == (15 + 4 * 6) * 5
