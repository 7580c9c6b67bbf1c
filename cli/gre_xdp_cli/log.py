"""The log of the commands that stay, on stderr: text or JSON, for people or for the journal.

SIGUSR1 makes it say more, SIGUSR2 less, while the command runs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO, TypeVar

import click

from gre_xdp_cli.options import Options

LEVELS = ("debug", "info", "warning", "error")
_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# The journal knows time and priority itself.
_JOURNAL_FORMAT = "%(name)s: %(message)s"
# syslog(3): debug 7, info 6, warning 4, err 3, crit 2.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_PRIORITY_DEBUG = 7

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
# Only our own loggers speak at length: libraries' debugging is not the user's.
_log = logging.getLogger("gre_xdp")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with its priority as sd-daemon(3) says: ``<6>``."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        priority = next(
            (number for level, number in _PRIORITIES if record.levelno >= level), _PRIORITY_DEBUG
        )
        lines = self._inner.format(record).splitlines()
        return "\n".join(f"<{priority}>{line}" for line in lines)


def options(command: _Decorated) -> _Decorated:
    """Give a command ``--log-level``, ``-v`` and ``--log-format``."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            help="Format of the log on stderr; text, or json with -j.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="The same as --log-level debug."),
        click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            default="info",
            show_default=True,
            help="How much to log; SIGUSR1 makes it more, SIGUSR2 less.",
        ),
    ):
        command = option(command)
    return command


def start(
    shared: Options,
    log_format: Literal["text", "json"] | None,
    log_level: str,
    *,
    verbose: bool,
) -> None:
    """Log to stderr from here on, and listen to the two signals."""
    is_json = log_format == "json" or (log_format is None and shared.json)
    is_journal = _is_journal(sys.stderr)
    formatter: logging.Formatter
    if is_json:
        formatter = JsonFormatter()
    else:
        formatter = logging.Formatter(_JOURNAL_FORMAT if is_journal else _TEXT_FORMAT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(formatter) if is_journal else formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _set_level("debug" if verbose else log_level)
    signal.signal(signal.SIGUSR1, lambda *_: _step(-1))
    signal.signal(signal.SIGUSR2, lambda *_: _step(+1))


def _set_level(level: str) -> None:
    _log.setLevel(level.upper())


def _step(by: int) -> None:
    """One level more (-1) or less (+1), as far as there are any."""
    present = LEVELS.index(logging.getLevelName(_log.level).lower())
    level = LEVELS[min(max(present + by, 0), len(LEVELS) - 1)]
    _set_level(level)
    _log.log(_log.level, "the log level is %s", level)


def _is_journal(stream: TextIO) -> bool:
    """Is it the journal that reads this? ``JOURNAL_STREAM`` says which file that is."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
