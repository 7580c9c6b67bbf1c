"""One writer at a time in a network namespace: the lock, and who may take it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gre_xdp import errors, memory
from gre_xdp.netlink import namespaces


def require_root() -> None:
    """Raise ``PrivilegeError`` for an ordinary user."""
    if os.geteuid() != 0:
        raise errors.PrivilegeError(
            "this needs root: it reads and changes pinned BPF maps and network devices",
            remedy="run it as root, for instance with sudo",
        )


@dataclass(slots=True)
class WriterLock:
    """What the one writer holds."""

    descriptor: int
    is_guardians: bool = False  # the guardian has work to do, and releases it afterwards


@contextlib.contextmanager
def hold() -> Iterator[WriterLock]:
    """One writer at a time in a network namespace; others wait. Raises ``HostError``."""
    require_root()
    try:
        lock = WriterLock(_acquire(_path()))
    except OSError as error:
        raise errors.HostError(
            f"taking the lock of this network namespace: {error.strerror or error}",
            remedy=f"see to it that root can make files in {memory.RUN_DIRECTORY}",
        ) from error
    try:
        yield lock
    finally:
        if lock.is_guardians:
            os.close(lock.descriptor)
        else:
            release(lock.descriptor)


def _path() -> Path:
    return memory.RUN_DIRECTORY / f"{namespaces.cookie()}.lock"


def _acquire(path: Path) -> int:
    """Wait for the lock; returns the descriptor that holds it."""
    while True:
        memory.make_directory()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # The last writer of another namespace has just removed the directory.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The one before us may have removed the file while we waited for it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            # Whoever leaves without closing it keeps everybody else waiting.
            os.close(descriptor)
            raise
        os.close(descriptor)


def release(descriptor: int) -> None:
    """Let the next one write, who minds neither the file nor the directory."""
    with contextlib.suppress(OSError):
        _path().unlink()
    # Closing is not enough while a guardian that is about to end has it open, too.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
    memory.remove_directory_if_empty()
