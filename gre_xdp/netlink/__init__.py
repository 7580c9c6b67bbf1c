"""Everything that is said to the kernel by netlink; with the lab, the only place for pyroute2.

Functions take the open ``Netlink`` socket and return plain values; ``NetlinkError`` is raised as
the kernel answered it. The network namespace is the one that was current at the opening.
"""

from __future__ import annotations

import socket

from pyroute2 import IPRoute
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


def family(version: int) -> int:
    """The address family of an IP version."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


__all__ = ["DEVICE_GROUP", "DOOMED_GROUP", "PROTOCOL", "Netlink", "NetlinkError", "family"]
