"""Every call by which gre-xdp reads or changes the kernel's state or files, numbered as it happens.

One of them can be made to fail, or to be the last of a process that is killed there. Installed once
in a process made for it: audit hooks (PEP 578) stay for ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pyroute2.ethtool.ioctl import IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nlsocket import NetlinkRequest

from gre_xdp import bpf, guardian, pins

Effect = Literal["fail", "kill"]

_RTM_GET = 2  # request types of rtnetlink come in fours: new, del, get, set
_RTNETLINK = 0
_READS_OF_LIBBPF = ("lookup", "get_next_key", "obj_get", "get_fd_by_id", "possible_cpus", "print")
# Files that a call may be about: everything of the product's, and what it sets.
_CHANGING_EVENTS = frozenset({"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.chmod"})
_READING_EVENTS = frozenset({"os.listdir", "os.scandir"})


class Faults:
    """The place where all calls come by. ``roots``: directories of the files that are looked at."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.calls: list[tuple[bool, str]] = []  # since it was armed: is it a change, and which
        self._roots = tuple(map(str, roots))
        self._is_on = False
        self._effect: Effect | None = None
        self._changes = True
        self._at = -1
        self._left = 0

    def install(self) -> None:
        """Have all calls come by, from now on."""
        sys.addaudithook(self._audit)
        library = bpf._libbpf()
        bpf._libbpf = lambda: _Library(library, self, _bpf_failure)  # type: ignore[assignment]
        pins.ctypes = _Ctypes(self)  # type: ignore[assignment]
        self._wrap(NetlinkRequest, "send", _is_netlink_change, _netlink_failure)
        self._wrap(IoctlEthtool, "set_features", lambda *_: True, _os_failure)
        Path.write_text = _method(self._write_text)  # type: ignore[method-assign]
        guardian.start = self._start_guardian

    @contextmanager
    def armed(self, effect: Effect | None, *, changes: bool, at: int) -> Any:
        """In this block the call with this number among changes (or reads) fails, or kills us."""
        self.calls = []
        self._effect, self._changes, self._at, self._left = effect, changes, at, at
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    @property
    def is_hit(self) -> bool:
        """Has it come to that call?"""
        return self._left < 0

    def meet(self, name: str, *, is_change: bool) -> bool:
        """A call is about to be made: must it fail?"""
        if not self._is_on:
            return False
        self.calls.append((is_change, name))
        if self._effect is None or is_change != self._changes:
            return False
        self._left -= 1
        if self._left != -1:
            return False
        if self._effect == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "open":
            path, _, flags = arguments
            is_change = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        elif event in _CHANGING_EVENTS:
            path, is_change = arguments[0], True
        elif event in _READING_EVENTS:
            path, is_change = arguments[0], False
        elif event == "fcntl.flock":
            path, is_change = f"{self._roots[0]}/flock", True
        elif event == "fcntl.ioctl":
            path, is_change = f"{self._roots[0]}/ioctl", False
        else:
            return
        if isinstance(path, int) or path is None:
            return
        name = os.fsdecode(path)
        is_ours = name.startswith(self._roots) and not name.endswith((".py", ".pyc"))
        if is_ours and self.meet(f"{event} {name}", is_change=is_change):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    def _wrap(
        self,
        owner: Any,
        name: str,
        is_change: Callable[..., bool],
        failure: Callable[[], Exception],
    ) -> None:
        original = getattr(owner, name)

        def wrapped(subject: Any, *arguments: Any) -> Any:
            kind = subject.msg["header"]["type"] if name == "send" else ""
            words = f"{owner.__name__}.{name} {kind}".rstrip()
            if self.meet(words, is_change=is_change(subject)):
                raise failure()
            return original(subject, *arguments)

        setattr(owner, name, wrapped)

    def _write_text(self, path: Path, text: str) -> int:
        """Like ``Path.write_text``, with the opening and the writing as calls of their own."""
        with path.open("w") as file:
            if str(path).startswith(self._roots) and self.meet(f"write {path}", is_change=True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return file.write(text)

    def _start_guardian(self, pipe: int, journal: int, lock: int) -> None:
        """A guardian that need not load Python and all modules anew: it is forked."""
        if self.meet("start the guardian", is_change=True):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if os.fork():
            return
        self._is_on = False
        try:
            keep = sorted((0, 1, 2, pipe, journal, lock))
            for below, above in zip(keep, [*keep[1:], 1 << 16], strict=True):
                os.closerange(below + 1, above)
            guardian.watch(pipe, journal, lock)
        finally:
            os._exit(0)


def _method(function: Callable[..., Any]) -> Any:
    """A function that becomes a method of the class it is put into: bound ones do not."""

    def method(*arguments: Any) -> Any:
        return function(*arguments)

    return method


def _os_failure() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def _netlink_failure() -> NetlinkError:
    return NetlinkError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _is_netlink_change(request: NetlinkRequest) -> bool:
    # Of other families we only ask.
    is_route = request.sock.status.get("family", _RTNETLINK) == _RTNETLINK
    return bool(is_route and request.msg["header"]["type"] % 4 != _RTM_GET)


def _bpf_failure() -> int:
    return -errno.EIO


def _libc_failure() -> int:
    ctypes.set_errno(errno.EPERM)
    return -1


class _Library:
    """A C library whose functions come by."""

    def __init__(self, library: Any, faults: Faults, failure: Callable[[], int]) -> None:
        self._library, self._faults, self._failure = library, faults, failure

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        is_change = name != "statfs" and not any(word in name for word in _READS_OF_LIBBPF)
        is_change = is_change and name != "bpf_obj_get_info_by_fd"

        def wrapped(*arguments: Any) -> Any:
            if self._faults.meet(name, is_change=is_change):
                return self._failure()
            return function(*arguments)

        return wrapped


class _Ctypes:
    """``ctypes`` as ``pins`` sees it: what it calls in libc comes by."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(ctypes, name)

    def CDLL(self, name: str | None, **options: Any) -> _Library:  # noqa: N802 - as in ctypes
        return _Library(ctypes.CDLL(name, **options), self._faults, _libc_failure)
