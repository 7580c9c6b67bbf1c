"""What one agent has counted, the next one goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gre_xdp import memory
from gre_xdp.agent_counters import NAMES, AgentCounters, path_of


@pytest.fixture(autouse=True)
def _run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RUN_DIRECTORY", tmp_path / "run")


def test_the_next_one_goes_on() -> None:
    """However the one before has ended."""
    first = AgentCounters(path_of(7))
    first.add("drift_repairs", 3)
    first.add("reconciles")
    second = AgentCounters(path_of(7))
    second.add("drift_repairs", 2)
    assert [AgentCounters(path_of(7))[name] for name in NAMES] == [5, 0, 1, 0]
    assert [AgentCounters(path_of(8))[name] for name in NAMES] == [0] * len(NAMES)


def test_nothing_is_written_for_nothing() -> None:
    """An agent that has counted nothing leaves no file, nor does one without a place for it."""
    AgentCounters(path_of(7)).add("drift_repairs", 0)
    alone = AgentCounters()
    alone.add("reconciles")
    assert alone["reconciles"] == 1
    assert not memory.RUN_DIRECTORY.exists()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"reconciles": "x"}', '{"reconciles": [1]}'])
def test_a_broken_file_is_a_beginning(text: str) -> None:
    """It is better to count anew than not to start."""
    memory.make_directory()
    path_of(7).write_text(text)
    counters = AgentCounters(path_of(7))
    counters.add("reconciles")
    assert AgentCounters(path_of(7))["reconciles"] == 1


def test_what_cannot_be_noted_is_counted_all_the_same() -> None:
    """A full or read-only /run is no reason to fail."""
    memory.RUN_DIRECTORY.write_text("not a directory")
    counters = AgentCounters(path_of(7))
    counters.add("reconciles", 2)
    assert counters["reconciles"] == 2
