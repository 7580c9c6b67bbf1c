"""What the agent counts itself: totals that go on when another agent takes over, until a reboot.

One small JSON file per network namespace under /run/gre-xdp. Only the agent of the namespace writes
it, so it needs no lock between processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Literal, get_args

from gre_xdp import memory

Name = Literal["drift_repairs", "netlink_overruns", "reconciles", "scrape_errors"]
NAMES: tuple[Name, ...] = get_args(Name)
SUFFIX = ".counters"


def path_of(cookie: int) -> Path:
    """The file of the namespace with this cookie."""
    return memory.RUN_DIRECTORY / f"{cookie}{SUFFIX}"


class AgentCounters:
    """Counters by name; without a file they are this process's own."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # The loop counts, and so do scrapes, each in a thread.
        self._lock = threading.Lock()
        self._counts: dict[str, int] = dict.fromkeys(NAMES, 0)
        if path is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                found = json.loads(path.read_text())
                self._counts |= {name: int(found.get(name, 0)) for name in NAMES}

    def __getitem__(self, name: Name) -> int:
        """How many so far."""
        return self._counts[name]

    def add(self, name: Name, count: int = 1) -> None:
        """Count; noted before anybody can read it, so that a successor never says less."""
        if not count:
            return
        with self._lock:
            counts = self._counts | {name: self._counts[name] + count}
            # Where it cannot be noted it is counted all the same.
            with contextlib.suppress(OSError):
                self._write(counts)
            self._counts = counts

    def _write(self, counts: dict[str, int]) -> None:
        if self._path is None:
            return
        memory.make_directory()
        temporary = self._path.with_suffix(f"{SUFFIX}.new")
        temporary.write_text(json.dumps(counts))
        os.replace(temporary, self._path)
