"""All or nothing, also for kill -9: a process that outlives the writer and undoes its half change.

Before each step the writer notes it in a journal, a piece of memory that the guardian has open,
too. A pipe tells the guardian how the writer ended: with a word when its changes stand or are
undone already, without one when it died. The guardian has inherited the writer's lock, so whoever
wants to write next waits until the undoing is over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the guardian sits beside each change: it loads the rest only when it has to act
    from gre_xdp.plan import Step

_OVER = b"."
# Linux 6.3: hardened hosts refuse memory that could be executed (vm.memfd_noexec).
_MFD_NOEXEC_SEAL = 8
# When a service's main process has died, systemd tells the rest to end: not before it is undone.
_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Journal:
    """The writer's end: the steps that have begun. ``lock`` is the descriptor of its lock.

    The guardian starts with the first step, in the network namespace of the calling thread, so
    that a plan without steps costs no process.
    """

    def __init__(self, lock: int) -> None:
        self.steps: list[Step] = []
        self._lock = lock
        self._memory = -1
        self._pipe = -1

    def begin(self, step: Step) -> None:
        """Note a step, before anything of it is done; raises ``OSError``."""
        if self._memory < 0:
            self._start()
        _write(self._memory, pickle.dumps(step))
        self.steps.append(step)

    def end(self) -> None:
        """There is nothing to undo any more: the guardian may go."""
        if self._pipe >= 0:
            # It may have been killed.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, _OVER)
        self.leave()

    def leave(self) -> None:
        """Let the guardian see to it, unless ``end`` came before."""
        descriptors = (self._pipe, self._memory)
        self._pipe = self._memory = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _start(self) -> None:
        memory = _memory()
        try:
            theirs, ours = os.pipe()
            try:
                start(theirs, memory, self._lock)
            except BaseException:
                os.close(ours)
                raise
            finally:
                os.close(theirs)
        except BaseException:
            os.close(memory)
            raise
        self._memory, self._pipe = memory, ours


def start(pipe: int, journal: int, lock: int) -> None:
    """Start a guardian, without waiting until it is ready: what it is told waits for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gre_xdp.guardian", str(pipe), str(journal), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=(pipe, journal, lock),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # An agent lives long: nobody is to wait for the guardian, and none is to stay as a zombie.
    threading.Thread(target=process.wait, name="gre-xdp-guardian", daemon=True).start()


def watch(pipe: int, journal: int, lock: int) -> None:
    """The guardian's life: wait for the writer's end; undo what it had begun if it was killed."""
    if os.read(pipe, 1):
        return
    from gre_xdp import reconcile  # noqa: PLC0415 - see above

    reconcile.undo_after_death(list(_begun(journal)), lock)


def _begun(journal: int) -> Iterator[Step]:
    """The steps in a journal whose writer is dead; one cut short had not begun."""
    os.lseek(journal, 0, os.SEEK_SET)
    with os.fdopen(journal, "rb") as file, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(file)  # noqa: S301 - written by us, in memory that has no name


def _memory() -> int:
    """Memory with a descriptor; raises ``OSError``."""
    try:
        return os.memfd_create("gre-xdp-journal", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create("gre-xdp-journal", os.MFD_CLOEXEC)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    watch(*(int(argument) for argument in sys.argv[1:]))
