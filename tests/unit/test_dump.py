"""A dump during which something changed is asked for again."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink import NLM_F_DUMP_INTR, NLM_F_MULTI

from gre_xdp.netlink import dump


def message(flags: int) -> dict[str, Any]:
    return {"header": {"flags": flags}}


WHOLE = [message(NLM_F_MULTI), message(NLM_F_MULTI)]
CUT = [message(NLM_F_MULTI), message(NLM_F_MULTI | NLM_F_DUMP_INTR)]


@pytest.mark.parametrize(
    ("answers", "asked"),
    [([WHOLE], 1), ([[]], 1), ([CUT, WHOLE], 2), ([CUT] * 4 + [WHOLE], 5), ([CUT] * 9, 5)],
    ids=["whole", "empty", "cut once", "cut four times", "never whole"],
)
def test_until_it_is_whole(answers: list[list[dict[str, Any]]], asked: int) -> None:
    """Or until it is clear that it never will be: then the last one has to do."""
    given = iter(answers)
    seen: list[list[dict[str, Any]]] = []

    def ask() -> list[dict[str, Any]]:
        seen.append(next(given))
        return seen[-1]

    assert dump(ask) == seen[-1]
    assert len(seen) == asked
