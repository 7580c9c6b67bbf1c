"""docs/conformance.md is whole, and what it points to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interop.differences import DIFFERENCES
from interop_matrix import CELLS, to_markdown

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "conformance.md").read_text()
ROWS = {int(number): row for row, number in re.findall(r"^(\| (\d+) \|.*)$", TEXT, re.M)}
DUTIES = range(1, 29)


def test_every_duty_has_a_row() -> None:
    """The duties are numbered from 1 to 28, each once."""
    assert list(ROWS) == list(DUTIES)


@pytest.mark.parametrize("duty", DUTIES)
def test_a_row_is_complete_and_its_tests_exist(duty: int) -> None:
    """Six cells, and every test that is named is defined in the file that is named."""
    cells = [cell.strip() for cell in ROWS[duty].strip("|").split("|")]
    assert len(cells) == 6
    assert all(cells)
    shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[3])
    assert shown or cells[3] == "not yet"
    for path, name in shown:
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.M), f"{path}::{name}"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_every_difference_from_the_kernel_is_explained(difference: object) -> None:
    """What the differential test lets pass is in the document, with its reason."""
    assert f"| {difference.name} |" in TEXT  # type: ignore[attr-defined]
    assert difference.why in TEXT  # type: ignore[attr-defined]


def test_the_matrix_is_the_one_that_is_tested() -> None:
    """The table shows every cell of the interop matrix, all of them passed."""
    assert to_markdown({str(cell): True for cell in CELLS}).strip() in TEXT
