"""Going back: to the configuration before, by hand or because a change was not confirmed.

A change that has to be confirmed is watched by a process of its own, which outlives the command
that made the change. When that dies, the agent takes the change back, or whoever applies the file
next.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from gre_xdp import agent_lock, config, errors, reconcile
from gre_xdp.history import History, Pending
from gre_xdp.plan import Step

_POLL_S = 0.1
_RETRY_S = 5.0
_RETRIES = 60


def watch(history: History, pending: Pending) -> None:
    """Start the process that takes a change back when nobody confirms it."""
    subprocess.Popen(
        [sys.executable, "-P", "-m", "gre_xdp.rollback", str(history.path), pending.id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def take_back(history: History) -> list[Step] | None:
    """Return from a change that waits for confirmation; None when somebody else decided first.

    Raises ``GreXdpError`` when the former configuration cannot be applied any more; the file holds
    it all the same.
    """
    if not history.claim():
        return None
    return _return_to(history, history.base())


def take_back_if_over(history: History) -> list[Step] | None:
    """The same for a change whose time is over, or that a reboot has come upon."""
    pending = history.pending
    if pending is None or not pending.is_over:
        return None
    return take_back(history)


def restore_file_if_over(history: History) -> bool:
    """Put the former text back into the file before it is read; nothing is applied."""
    pending = history.pending
    if pending is None or not pending.is_over or not history.claim():
        return False
    base = history.base()
    if base is not None:
        history.restore_file(base)
    return base is not None


def roll_back(history: History) -> list[Step]:
    """Return to the configuration before the present one; doing it twice comes back to this one."""
    if history.pending is not None:
        steps = take_back(history)
        if steps is not None:
            return steps
    previous = history.previous
    if previous is None:
        raise errors.HostError(
            f"nothing was applied before the present configuration of {history.path}",
            remedy="edit the file and apply it",
        )
    return _return_to(history, previous)


def _return_to(history: History, text: str | None) -> list[Step]:
    if text is None:
        return reconcile.down()
    wanted = config.parse(text, f"the former {history.path.name}")
    history.restore_file(text)
    # Before it is applied: whoever sees that it is may note a change of his own at once.
    history.note_applied(text)
    # Told before: woken by our own changes it would bring back what it knows.
    agent = agent_lock.running()
    if agent is not None:
        agent_lock.reload(agent)
    return reconcile.apply(wanted)


def _watchdog(path: Path, change: str) -> None:
    history = History(path)
    while (pending := history.pending) is not None and pending.id == change:
        if not pending.is_over:
            time.sleep(_POLL_S)
            continue
        if not history.claim():
            return
        for _ in range(_RETRIES):
            try:
                _return_to(history, history.base())
            except errors.GreXdpError:
                # The network may be as it was in a moment; the file is right already.
                time.sleep(_RETRY_S)
            else:
                return


if __name__ == "__main__":
    _watchdog(Path(sys.argv[1]), sys.argv[2])
