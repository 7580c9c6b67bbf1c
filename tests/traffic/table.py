"""The table of losses in docs/reliability.md: written from a run, and read back to be judged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from traffic.faults import FAULTS
from traffic.flow import Account

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_BEGIN = "<!-- written by make reliability -->"
_END = "<!-- end of what is written -->"
_HEAD = ("fault", "repetitions", "packets sent", "packets lost", "note")


@dataclass(frozen=True, slots=True)
class Result:
    """Both directions of one run."""

    sent: int
    lost: int

    @classmethod
    def of(cls, accounts: Sequence[Account]) -> Result:
        """Add up the flows of one run."""
        return cls(
            sent=sum(account.sent for account in accounts),
            lost=sum(account.lost for account in accounts),
        )


def write(results: Mapping[str, Result]) -> None:
    """Replace the table in the document."""
    rows = [_HEAD, ("---", "--:", "--:", "--:", "---")]
    for fault in FAULTS:
        found = results[fault.name]
        numbers = (f"{number:,}" for number in (fault.repetitions, found.sent, found.lost))
        rows.append((fault.name, *numbers, fault.note))
    lines = "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)
    text = DOCUMENT.read_text()
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    DOCUMENT.write_text(f"{text[:begin]}\n\n{lines}\n\n{text[end:]}")


def read() -> dict[str, tuple[int, Result, str]]:
    """Repetitions, result and note by fault, as the document has them."""
    text = DOCUMENT.read_text()
    written = text[text.index(_BEGIN) : text.index(_END)]
    found = {}
    for line in re.findall(r"^\|(.*)\|$", written, re.M)[2:]:
        name, repetitions, sent, lost, note = (cell.strip() for cell in line.split("|"))
        numbers = [int(cell.replace(",", "")) for cell in (repetitions, sent, lost)]
        found[name] = (numbers[0], Result(*numbers[1:]), note)
    return found
