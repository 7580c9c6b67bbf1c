"""The journal between a writer and its guardian: what is undone, and when nothing is."""

from __future__ import annotations

import os
import threading
from ipaddress import ip_interface

import pytest

from gre_xdp import guardian, reconcile
from gre_xdp.guardian import Journal
from gre_xdp.plan import Step
from gre_xdp.resources import Sysctl, TunnelAddress

STEPS = [
    Step(None, Sysctl("ipv4/conf/eth0/forwarding", "1")),
    Step(TunnelAddress("fra1", ip_interface("10.9.0.1/24")), None),
]


class Watch:
    """A guardian on a thread, in place of a process; what it undoes is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.undone: list[Step] | None = None
        self.descriptors: tuple[int, ...] = ()
        monkeypatch.setattr(guardian, "start", self._start)
        monkeypatch.setattr(reconcile, "undo_after_death", self._undo)

    def _start(self, *descriptors: int) -> None:
        self.descriptors = tuple(os.dup(descriptor) for descriptor in descriptors)
        self._thread = threading.Thread(target=guardian.watch, args=self.descriptors)
        self._thread.start()

    def _undo(self, begun: list[Step], lock: int) -> None:
        assert lock == self.descriptors[2]
        self.undone = begun

    def end(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_a_writer_that_ends_has_nothing_undone(watch: Watch) -> None:
    """The word that it is over is enough."""
    journal = Journal(lock=2)
    for step in STEPS:
        journal.begin(step)
    journal.end()
    watch.end()
    assert watch.undone is None


def test_a_writer_that_dies_has_all_undone_that_it_began(watch: Watch) -> None:
    """The kernel closes the pipe of a dead process; the steps come in the order of beginning."""
    journal = Journal(lock=2)
    for step in STEPS:
        journal.begin(step)
    journal.leave()
    watch.end()
    assert watch.undone == STEPS == journal.steps


@pytest.mark.parametrize("kept_bytes", [1, 20])
def test_a_note_that_was_cut_short_had_not_begun(watch: Watch, kept_bytes: int) -> None:
    """Killed while it wrote: the steps before that one are undone."""
    journal = Journal(lock=2)
    journal.begin(STEPS[0])
    length = os.fstat(watch.descriptors[1]).st_size
    journal.begin(STEPS[1])
    os.truncate(watch.descriptors[1], length + kept_bytes)
    journal.leave()
    watch.end()
    assert watch.undone == STEPS[:1]


def test_without_a_step_no_guardian_starts(watch: Watch) -> None:
    """A journal that stays empty costs nothing."""
    Journal(lock=2).end()
    assert watch.descriptors == ()
