"""Outer next hops: neighbour entries that the kernel keeps resolved and never collects."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from gre_xdp.netlink import PROTOCOL, Netlink
from gre_xdp.netlink.routes import Address

# Linux 5.16: the kernel probes the entry by itself (NTF_EXT_MANAGED). Externally learned entries
# are exempt from garbage collection, however full the table is.
_NTF_EXT_LEARNED = 0x10
_NTF_EXT_MANAGED = 0x1
_NUD_NONE = 0x0
NUD_FAILED = 0x20
_NUD_NOARP = 0x40
_NUD_PERMANENT = 0x80
_NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | _NUD_NOARP | _NUD_PERMANENT


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of the neighbour table."""

    ifindex: int
    address: Address
    is_kept: bool  # ours: managed, and safe from garbage collection
    is_static: bool  # somebody's permanent entry, as good as ours
    is_resolved: bool


def list_neighbours(netlink: Netlink) -> list[Neighbour]:
    """The neighbour tables of both families."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in netlink.get_neighbours(family=family):
            address = message.get_attr("NDA_DST")
            if address is None:
                continue
            extended = message.get_attr("NDA_FLAGS_EXT") or 0
            found.append(
                Neighbour(
                    ifindex=message["ifindex"],
                    address=ipaddress.ip_address(address),
                    is_kept=bool(extended & _NTF_EXT_MANAGED)
                    and bool(message["flags"] & _NTF_EXT_LEARNED)
                    and message.get_attr("NDA_PROTOCOL") == PROTOCOL,
                    is_static=bool(message["state"] & _NUD_PERMANENT),
                    is_resolved=bool(message["state"] & _NUD_VALID),
                )
            )
    return found


def keep(netlink: Netlink, ifindex: int, address: Address) -> None:
    """Have the kernel resolve a neighbour now, and keep it resolved."""
    netlink.neigh(
        "replace",
        ifindex=ifindex,
        dst=str(address),
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
        state=_NUD_NONE,
        flags=_NTF_EXT_LEARNED,
        flags_ext=_NTF_EXT_MANAGED,
        protocol=PROTOCOL,
    )


def forget(netlink: Netlink, ifindex: int, address: Address) -> None:
    """Delete our entry; the kernel learns the neighbour anew when it needs it."""
    netlink.neigh(
        "del",
        ifindex=ifindex,
        dst=str(address),
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
    )
