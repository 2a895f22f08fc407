"""Every number with an interval, 'a [b, c]', in README and docs is in the reference's tables."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT

from vqdistill.files import read_csv
from vqdistill.reporting.tables import MODEL_KEYS, t_interval

TABLES = ROOT / "results/reference/laptop/tables"  # which the pages name
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = r"([−-]?\d+(?:\.\d+)?)"
INTERVAL = re.compile(rf"{NUMBER}(?:\*\*| bits)? \[{NUMBER}, {NUMBER}\]")
COUNTS = re.compile(
    r"Of the (\d+) measures (\d+) are reproduced, (\d+) are not, and (\d+) are undecided"
)


@cache
def intervals(tables: Path) -> np.ndarray:
    """Value and ends [n, 3] of all measures of the claims, all summaries, and what prior weights
    change."""
    found = [read_csv(tables / "claims.csv")[["value", "low", "high"]].to_numpy()]
    for name in ("density_summary", "inpainting_summary"):
        summary = read_csv(tables / f"{name}.csv")
        for column in [c for c in summary if c.endswith("_low")]:
            metric = column.removesuffix("_low")
            found.append(summary[[f"{metric}_mean", column, f"{metric}_high"]].to_numpy())
    density = read_csv(tables / "density.csv")
    keys = [key for key in MODEL_KEYS if key != "weights"]
    bpd = density[density["split"] == "test"].pivot_table("bpd", [*keys, "seed"], "weights")
    change = (bpd["prior"] - bpd["uniform"]).dropna().groupby(keys)
    found.append([t_interval(values) for _, values in change])
    numbers = pd.DataFrame(np.concatenate(found)).apply(pd.to_numeric, errors="coerce")
    return numbers.dropna().to_numpy(dtype=np.float64)


def unknown(text: str, tables: Path) -> Iterator[str]:
    """The numbers with intervals in a text that no table has, as they stand there."""
    known = intervals(tables)
    for match in INTERVAL.finditer(text):
        written = [number.replace("−", "-") for number in match.groups()]
        digits = [len(number.partition(".")[2]) for number in written]
        near = [abs(known[:, i] - float(n)) <= 0.5001 * 10.0**-d
                for i, (n, d) in enumerate(zip(written, digits, strict=True))]  # fmt: skip
        if not np.all(near, axis=0).any():
            yield match[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_numbers_with_intervals_are_the_tables(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert list(unknown(text, TABLES)) == []
    for found in COUNTS.finditer(text):
        verdicts = read_csv(TABLES / "claims.csv")["verdict"].value_counts()
        counts = [verdicts[kind] for kind in ("reproduced", "not reproduced", "undecided")]
        assert [*map(int, found.groups())] == [sum(counts), *counts]


def test_numbers_that_are_off_by_a_digit_are_found():
    row = next(row for row in intervals(TABLES) if 1 < row[0] < 9)
    right = "{:.2f} [{:.2f}, {:.2f}]".format(*row)
    assert list(unknown(f"| ExM | {right} |", TABLES)) == []
    wrong = f"{row[0]:.2f} [{row[1]:.2f}, {row[2] + 0.01:.2f}]"
    assert list(unknown(f"| ExM | {wrong} |", TABLES)) == [wrong]


def test_pages_have_such_numbers():
    texts = " ".join(" ".join(page.read_text(encoding="utf-8").split()) for page in PAGES)
    assert len(INTERVAL.findall(texts)) > 20
    assert COUNTS.search(texts)
