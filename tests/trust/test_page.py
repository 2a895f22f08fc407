"""docs/trust.md names tests that there are, and every guarantee."""

import re

from exact_answers import GUARANTEES
from helpers import ROOT
from test_mutants import MUTANTS

PAGE = (ROOT / "docs/trust.md").read_text(encoding="utf-8")


def test_the_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", PAGE)
    assert len(named) > 10
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    for test in re.findall(r"`(test_\w+)`", PAGE):
        assert any(f"def {test}(" in source for source in sources), test


def test_every_guarantee_is_on_the_page():
    listed = re.findall(r"^\|.*\| `(\w+)` \|.*\|.*\|$", PAGE, re.MULTILINE)
    assert listed == list(GUARANTEES)
    assert f"{len(MUTANTS)} times" in PAGE
