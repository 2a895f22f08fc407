"""A run beside its reference."""

import numpy as np
import pytest
from helpers import refusal
from synthetic_tables import density_table

from vqdistill.reporting.reference import compare
from vqdistill.reporting.tables import density_summary

FEW = {("dmrs", "2x2"): (3.5, 0.9), ("cm", "-"): (3.0, 0.9)}


@pytest.fixture(scope="module")
def density():
    return density_table(FEW, components=[1, 4])


def test_a_run_agrees_with_itself_and_with_one_of_its_seeds(density):
    summary = density_summary(density)
    middle = density_summary(density[density["seed"] == 2])  # a single seed has no interval
    for ours, theirs in ((summary, summary), (middle, summary), (middle, middle)):
        found = compare(ours, theirs)
        assert len(found) == len(FEW) * 2 + 5 + 5 + 1 + 6 + 12  # ExM … quad-trees, deep, flat
        assert set(found["agrees"]) == {"yes"}
        np.testing.assert_allclose(found["difference"], 0, atol=0.011)


def test_a_run_that_is_far_away_does_not_agree(density):
    summary = density_summary(density)
    for seeds in ([2], range(5)):
        far = density_summary(density[density["seed"].isin(seeds)].assign(bpd=density["bpd"] + 9))
        assert set(compare(far, summary)["agrees"]) == {"no"}


def test_runs_without_a_model_in_common_are_refused(density):
    summary = density_summary(density)
    assert "share no model" in refusal(compare, summary.assign(dataset="other"), summary)
