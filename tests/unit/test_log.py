"""The log of agent and exporter: who reads it decides its form, options and signals its length."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from gre_xdp_cli import log
from gre_xdp_cli.options import Options

LOGGER = logging.getLogger("gre_xdp.x")
NUMBERS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Loggers and signals are put back."""
    root, ours = logging.getLogger(), logging.getLogger("gre_xdp")
    before = root.level, ours.level, root.handlers
    handlers = [signal.getsignal(number) for number in NUMBERS]
    yield
    root.handlers = before[2]
    root.setLevel(before[0])
    ours.setLevel(before[1])
    for number, handler in zip(NUMBERS, handlers, strict=True):
        signal.signal(number, handler)


class Journal:
    """A file that is the journal's, as systemd says, and stderr once the log has been started."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stream = path.open("w+", buffering=1)
        self._monkeypatch = monkeypatch
        status = os.fstat(self._stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        self.close = self._stream.close

    def start(
        self, log_format: Literal["text", "json"] | None, level: str, *, verbose: bool = False
    ) -> None:
        """Log as in a fresh process."""
        self._monkeypatch.setattr("sys.stderr", self._stream)
        logging.getLogger().handlers = []
        log.start(Options(), log_format, level, verbose=verbose)

    def text(self) -> str:
        self._stream.seek(0)
        return self._stream.read()

    def last_words(self) -> list[str]:
        return [line.split()[-1] for line in self.text().splitlines()]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal", monkeypatch)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)],
)
def test_the_journal_gets_priorities(journal: Journal, level: str, priority: int) -> None:
    """sd-daemon(3)'s prefix on every line, and no time, which the journal knows."""
    journal.start(None, "debug")
    LOGGER.log(getattr(logging, level.upper()), "two\nlines")
    assert journal.text() == f"<{priority}>gre_xdp.x: two\n<{priority}>lines\n"


def test_the_journal_gets_json_when_it_is_asked_for(journal: Journal) -> None:
    """The prefix, then one object."""
    journal.start("json", "info")
    LOGGER.warning("two\nlines")
    text = journal.text()
    assert text.startswith("<4>{")
    assert json.loads(text[3:])["message"] == "two\nlines"


def test_a_file_that_is_not_the_journal_gets_times(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JOURNAL_STREAM is inherited; it counts for the very file that it names."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    journal.start(None, "info")
    LOGGER.info("event")
    assert journal.text().endswith(" INFO gre_xdp.x: event\n")


@pytest.mark.parametrize(
    ("level", "verbose", "heard"),
    [
        ("debug", False, ["debug", "info", "warning", "error"]),
        ("info", False, ["info", "warning", "error"]),
        ("warning", False, ["warning", "error"]),
        ("error", False, ["error"]),
        ("error", True, ["debug", "info", "warning", "error"]),
    ],
)
def test_options_say_how_much(
    journal: Journal, level: str, verbose: bool, heard: list[str]
) -> None:
    """--log-level is the least that is logged; -v is all."""
    journal.start(None, level, verbose=verbose)
    for each in log.LEVELS:
        LOGGER.log(getattr(logging, each.upper()), each)
    assert journal.last_words() == heard


def test_signals_say_how_much(journal: Journal) -> None:
    """SIGUSR1 one level more, SIGUSR2 one less, as far as there are any; each says so."""
    journal.start(None, "info")
    for number in (signal.SIGUSR1, signal.SIGUSR1, *[signal.SIGUSR2] * 4):
        signal.raise_signal(number)
    levels = ["debug", "debug", "info", "warning", "error", "error"]
    assert journal.last_words() == levels
