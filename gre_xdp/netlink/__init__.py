"""Everything that is said to the kernel by netlink; with the lab, the only place for pyroute2.

Functions take the open ``Netlink`` socket and return plain values; ``NetlinkError`` is raised as
the kernel answered it. The network namespace is the one that was current at the opening.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError

# Marks routes, addresses and neighbours as ours; GRE's own protocol number, free in rt_protos.
PROTOCOL = 47
# Marks the inner ends of our tunnel devices ("ip -d link" shows it as the group).
DEVICE_GROUP = 47
# Where they are while they are deleted all at once.
DOOMED_GROUP = 0x4747


class Netlink(IPRoute):  # type: ignore[misc]  # pyroute2 has no types
    """An open rtnetlink socket; dumps are filtered by the kernel (strict checking, Linux 4.20)."""

    def __init__(self) -> None:
        super().__init__(strict_check=True)


# A table that changes all the time is never the same twice.
_DUMP_ATTEMPTS = 5


def dump(ask: Callable[[], Iterable[Any]]) -> list[Any]:
    """The messages of a dump, asked for again while something changed meanwhile.

    The kernel says when that was so (NLM_F_DUMP_INTR), as such a dump may lack what did not change;
    pyroute2 0.9 leaves it at that.
    """
    found: list[Any] = []
    for _ in range(_DUMP_ATTEMPTS):
        found = list(ask())
        if not any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in found):
            break
    return found


def family(version: int) -> int:
    """The address family of an IP version."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


__all__ = ["DEVICE_GROUP", "DOOMED_GROUP", "PROTOCOL", "Netlink", "NetlinkError", "dump", "family"]
