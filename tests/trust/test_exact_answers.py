"""Every guarantee of exact_answers.py holds."""

import pytest
from exact_answers import GUARANTEES, hold


@pytest.mark.parametrize("name", GUARANTEES)
def test_guarantee(name):
    hold(name)
