"""Network namespaces: which one is this, which others are there, and how to work in one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns

from gre_xdp import errors

_NAMED = Path("/run/netns")
_PROCESSES = Path("/proc")
_SO_NETNS_COOKIE = 71  # Linux 5.14; never reused while the machine runs, unlike inode numbers


def enter(name: str) -> None:
    """Move this process's network (and nothing else: bpffs stays) into a named namespace."""
    if name not in netns.listnetns():
        raise errors.HostError(
            f"there is no network namespace named {name}",
            remedy="ip netns list shows those that exist",
            where="--netns",
        )
    try:
        netns.setns(name, flags=0)
    except OSError as error:
        raise errors.PrivilegeError(
            f"entering network namespace {name}: {error.strerror}",
            remedy="run it as root, for instance with sudo",
            where="--netns",
        ) from error


def cookie() -> int:
    """The number of the current network namespace, unique until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def paths() -> Iterator[Path]:
    """Paths of network namespaces, each once: first those with names, then those of processes."""
    seen = set()
    for path in [*sorted(_NAMED.glob("*")), *_PROCESSES.glob("[0-9]*/ns/net")]:
        try:
            inode = path.stat().st_ino
        except OSError:
            continue
        if inode not in seen:
            seen.add(inode)
            yield path


def live_cookies() -> set[int]:
    """The numbers of all network namespaces that have a name or a process.

    Raises ``OSError`` for who may not enter them.
    """
    found = set()
    for path in paths():
        try:
            found.add(call_in(path, cookie))
        except FileNotFoundError:
            # A process that has just ended.
            continue
    return found


_T = TypeVar("_T")


def call_in(path: Path, function: Callable[[], _T]) -> _T:
    """Call a function on a thread of its own that is in this network namespace."""

    def inside() -> _T:
        netns.setns(str(path), flags=0)
        return function()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(inside).result()
