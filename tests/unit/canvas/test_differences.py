"""docs/canvas-differences.md names a test for each difference, and it is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[2] / "docs/canvas-differences.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| id")]


@pytest.mark.parametrize("row", ROWS)
def test_each_difference_has_a_test(row):
    named = re.search(r"`((?:tests/(?:\w+/)+)?test_\w+\.py)`(?: `(test_\w+)`)? \|$", row)
    assert named, "a row ends with its test"
    place = HERE.parents[2] if named[1].startswith("tests/") else HERE
    source = (place / named[1]).read_text(encoding="utf-8")
    assert not named[2] or f"def {named[2]}(" in source
