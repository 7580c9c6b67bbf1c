"""How often the agent looks, without waiting for it: a clock that only moves when told to."""

from __future__ import annotations

import pytest

from gre_xdp import pace
from gre_xdp.pace import DEBOUNCE_S, Pace


class Clock:
    """Stands for the time module in ``pace``."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


def look(paced: Pace, clock: Clock, took_s: float) -> None:
    with paced.looking():
        clock.now_s += took_s


def test_where_it_was_quiet_it_looks_at_once(clock: Clock) -> None:
    """Only for so long that a burst of events is one."""
    paced = Pace()
    assert paced.wait_s() == DEBOUNCE_S <= 0.05
    look(paced, clock, 0.01)
    assert paced.wait_s() == DEBOUNCE_S


def test_it_rests_as_long_as_it_worked(clock: Clock) -> None:
    """Under a flood it is busy half of the time, however long a look takes."""
    paced = Pace()
    look(paced, clock, 3.0)
    assert paced.wait_s() == pytest.approx(3.0)
    clock.now_s += 2.5
    assert paced.wait_s() == pytest.approx(0.5)
    clock.now_s += 2.5
    assert paced.wait_s() == DEBOUNCE_S


def test_failures_are_tried_again_less_and_less_often(clock: Clock) -> None:
    """From half a second to five, and from the beginning once it went well."""
    paced = Pace()
    waits = []
    for _ in range(6):
        look(paced, clock, 0.0)
        paced.note_failure()
        waits.append(paced.wait_s())
        clock.now_s += waits[-1]
    assert waits == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0])
    paced.note_success()
    look(paced, clock, 0.0)
    assert paced.wait_s() == DEBOUNCE_S
    paced.note_failure()
    assert paced.wait_s() == pytest.approx(0.5)


def test_where_messages_are_lost_it_looks_once_a_second(clock: Clock) -> None:
    """As long as more of them are lost, and no longer."""
    paced = Pace()
    look(paced, clock, 0.1)
    paced.note_overruns(7)
    assert paced.wait_s() == pytest.approx(1.0)
    clock.now_s += 1.0
    look(paced, clock, 0.0)
    paced.note_overruns(7)
    assert paced.wait_s() == DEBOUNCE_S
