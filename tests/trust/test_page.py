"""docs/trust.md names tests that there are, and every guarantee."""

import re
from pathlib import Path

from exact_answers import GUARANTEES
from test_mutants import MUTANTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/trust.md").read_text()


def test_the_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", PAGE)
    assert len(named) > 10
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), test


def test_every_guarantee_is_on_the_page():
    listed = re.findall(r"^\|.*\| `(\w+)` \|.*\|.*\|$", PAGE, re.MULTILINE)
    assert listed == list(GUARANTEES)
    assert f"{len(MUTANTS)} times" in PAGE
