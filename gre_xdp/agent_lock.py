"""Which agent keeps this network namespace, so that nobody works against it unknowingly."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gre_xdp import errors, memory
from gre_xdp.netlink import namespaces

_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent that runs now."""

    pid: int
    config: Path

    def __str__(self) -> str:
        return f"an agent (pid {self.pid}) keeps this network namespace as {self.config} says"


def _path() -> Path:
    return memory.RUN_DIRECTORY / f"{namespaces.cookie()}.agent"


def running() -> RunningAgent | None:
    """The agent of the current network namespace; None without one."""
    try:
        with _path().open() as record:
            try:
                fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = json.load(record)
                return RunningAgent(pid=int(found["pid"]), config=Path(found["config"]))
    except (FileNotFoundError, ValueError, KeyError):
        pass
    return None


@contextlib.contextmanager
def hold(config: Path) -> Iterator[None]:
    """Be the agent of the current network namespace; raises ``HostError`` when there is one."""
    memory.make_directory()
    path = _path()
    with path.open("a+") as record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.HostError(
                str(running() or "another agent keeps this network namespace"),
                remedy="stop that one first, or send it SIGHUP when its file has changed",
            ) from error
        record.truncate(0)
        record.write(json.dumps({"pid": os.getpid(), "config": str(config.resolve())}))
        record.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            memory.remove_directory_if_empty()


def require_agreement(config: Path) -> RunningAgent | None:
    """Refuse to apply a file that a running agent would undo; returns the agent that agrees.

    Raises ``HostError``.
    """
    agent = running()
    if agent is not None and agent.config != config.resolve():
        raise errors.HostError(
            f"{agent}, and would undo {config}",
            remedy=f"change {agent.config}, or stop the agent (kill {agent.pid})",
        )
    return agent


def reload(agent: RunningAgent) -> None:
    """Have an agent read its file again."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent.pid, signal.SIGHUP)


def stop() -> RunningAgent | None:
    """Stop the agent, so that it does not bring back what is removed; returns it if there was one.

    Raises ``HostError`` when it does not stop.
    """
    agent = running()
    if agent is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while running() is not None:
        if time.monotonic() > deadline:
            raise errors.HostError(
                f"{agent}, and does not stop", remedy=f"kill -9 {agent.pid}, then try again"
            )
        time.sleep(_POLL_S)
    return agent
