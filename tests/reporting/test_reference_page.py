"""The page of a reference: its verdicts, its models, its figures, and what it is made from."""

import re

import pandas as pd
import pytest
from helpers import ROOT
from synthetic_tables import costs_table, density_table, inpainting_table

from vqdistill.reporting.claims import STATEMENTS, judge
from vqdistill.reporting.names import FIGURES, caption
from vqdistill.reporting.page import interval, largest_of_each, page, verdicts
from vqdistill.reporting.tables import density_summary

CAPTIONS = {
    name: (ROOT / f"workflow/report/{caption(name)}.rst").read_text(encoding="utf-8")
    for name in FIGURES
}
TIMINGS = pd.DataFrame({"commit": ["763e9168e04b", None]})


@pytest.fixture(scope="module", params=[range(5), [0]], ids=["five seeds", "one seed"])
def tables(request):
    density = density_table(seeds=request.param, components=[1, 16, 4096])
    costs = costs_table(seeds=request.param)
    claims = judge(density, inpainting_table(density), costs, 0.99)
    return claims, density_summary(density)


def test_a_statement_is_what_all_of_its_measures_are():
    found = verdicts(
        pd.DataFrame(
            [
                (1, "one", "reproduced"),
                (1, "one", "reproduced"),
                (2, "two", "not reproduced"),
                (3, "three", "undecided"),
                (4, "four", "reproduced"),
                (4, "four", "undecided"),
                (4, "four", "undecided"),
            ],
            columns=["claim", "statement", "verdict"],
        )
    )
    assert found["verdict"].tolist() == ["reproduced", "not reproduced", "undecided", "in part"]
    assert found["reproduced"].tolist() == [2, 0, 0, 1]
    assert found["undecided"].tolist() == [0, 0, 1, 2]


def test_an_interval_where_there_is_one():
    assert interval(4.2449, 4.1551, 4.3249) == "4.24 [4.16, 4.32]"
    assert interval(643, -354, 1639, 0) == "643 [−354, 1639]"
    assert interval(3.0, float("nan"), float("nan")) == "3.00"


def test_the_page_begins_with_the_verdicts_and_has_every_figure(tables):
    claims, summary = tables
    text = page("synthetic", claims, summary, TIMINGS, CAPTIONS)
    first = text[: text.index("## The largest models")]
    for number, statement in STATEMENTS.items():
        assert re.search(rf"^\| {number} \| {re.escape(statement)} \|", first, re.MULTILINE)
    for name in FIGURES:
        assert f"![{name}](figures/{name}.png)\n\n{CAPTIONS[name].strip()}" in text
    assert "`763e9168e04b`" in text
    assert "nan" not in text


def test_the_pages_numbers_are_the_tables(tables):
    claims, summary = tables
    text = page("synthetic", claims, summary, TIMINGS, CAPTIONS)
    row = largest_of_each(summary).query("method == 'dmbs'").squeeze()
    bpd = interval(row["bpd_mean"], row["bpd_low"], row["bpd_high"])
    assert row["n_components"] == 4096
    assert f"| DMBS 4×4, K = 4096, N = 4096 | {row['n_parameters']:,} | {bpd} |" in text
    for model in ("ExM 2×2, K = 96", "EiNet, K = 2", "plain mixture, N = 1"):
        assert f"| {model}" in text
