"""Notices when somebody makes or removes a pin: netlink says nothing of that."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

# <sys/inotify.h>
_IN_NONBLOCK, _IN_CLOEXEC = 0o4000, 0o2000000
_IN_MOVED, _IN_CREATE, _IN_DELETE, _IN_DELETE_SELF = 0xC0, 0x100, 0x200, 0x400
_IN_ONLYDIR = 0x1000000
_EVENTS = _IN_MOVED | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_ONLYDIR
_READ_BYTES = 64 << 10


class PinWatch:
    """An inotify descriptor; readable when something in the watched directories comes or goes."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def fileno(self) -> int:
        """For the event loop."""
        return int(self._fd)

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._fd)

    def watch(self, directories: Iterable[Path]) -> None:
        """Watch directories, those that are watched already too; absent ones are left out."""
        for directory in directories:
            self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _EVENTS)

    def read(self) -> None:
        """Take in what is known now: which pin it was shows when the kernel is looked at."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, _READ_BYTES):
                pass
