"""docs/reliability.md is what a run of tests/netns/test_hitless.py has written."""

from __future__ import annotations

from traffic import table
from traffic.faults import FAULTS


def test_the_document_has_the_rows_that_are_tried() -> None:
    """In their order, as often, and with their notes."""
    assert [(name, found[0], found[2]) for name, found in table.read().items()] == [
        (fault.name, fault.repetitions, fault.note) for fault in FAULTS
    ]


def test_what_is_promised_is_zero_in_the_document() -> None:
    """And what is not says why."""
    written = table.read()
    for fault in FAULTS:
        _, result, note = written[fault.name]
        assert result.sent > 0
        assert result.lost == 0 if fault.promise else note
