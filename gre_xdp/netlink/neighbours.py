"""Outer next hops: neighbour entries that the kernel keeps resolved and never collects."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import partial

from gre_xdp.netlink import PROTOCOL, Netlink, dump, family
from gre_xdp.netlink.routes import Address

# Linux 5.16: the kernel probes the entry by itself (NTF_EXT_MANAGED). Externally learned entries
# are exempt from garbage collection, however full the table is.
NTF_EXT_LEARNED = 0x10
NTF_EXT_MANAGED = 0x1
NUD_NONE = 0x0
NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x02, 0x04, 0x08, 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
_NUD_LEARNED = NUD_REACHABLE | NUD_STALE | NUD_DELAY
_NUD_VALID = _NUD_LEARNED | NUD_PROBE | NUD_NOARP | NUD_PERMANENT


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of the neighbour table."""

    ifindex: int
    address: Address
    state: int  # NUD_…
    is_external: bool  # somebody keeps it from outside of the kernel: we, or a routing daemon
    is_kept: bool  # ours: managed, and safe from garbage collection

    @property
    def is_static(self) -> bool:
        """Is it somebody's permanent entry, as good as ours?"""
        return bool(self.state & NUD_PERMANENT)

    @property
    def is_resolved(self) -> bool:
        """Is a link address believed?"""
        return bool(self.state & _NUD_VALID)

    @property
    def is_to_be_probed(self) -> bool:
        """Is a link address believed, and nobody asking just now? Static ones never expire."""
        return bool(self.state & _NUD_LEARNED)

    @property
    def is_given_up(self) -> bool:
        """Has the kernel stopped asking?"""
        return self.state in (NUD_NONE, NUD_FAILED)


def list_neighbours(netlink: Netlink) -> list[Neighbour]:
    """The neighbour tables of both families."""
    found = []
    for version in (4, 6):
        for message in dump(partial(netlink.get_neighbours, family=family(version))):
            address = message.get_attr("NDA_DST")
            if address is None:
                continue
            extended = message.get_attr("NDA_FLAGS_EXT") or 0
            is_external = bool(message["flags"] & NTF_EXT_LEARNED)
            found.append(
                Neighbour(
                    ifindex=message["ifindex"],
                    address=ipaddress.ip_address(address),
                    state=message["state"],
                    is_external=is_external,
                    is_kept=is_external
                    and bool(extended & NTF_EXT_MANAGED)
                    and message.get_attr("NDA_PROTOCOL") == PROTOCOL,
                )
            )
    return found


def keep(netlink: Netlink, ifindex: int, address: Address) -> None:
    """Have the kernel resolve a neighbour now, and keep it resolved."""
    netlink.neigh(
        "replace",
        ifindex=ifindex,
        dst=str(address),
        family=family(address.version),
        state=NUD_NONE,
        flags=NTF_EXT_LEARNED,
        flags_ext=NTF_EXT_MANAGED,
        protocol=PROTOCOL,
    )


def forget(netlink: Netlink, ifindex: int, address: Address) -> None:
    """Delete our entry; the kernel learns the neighbour anew when it needs it."""
    netlink.neigh(
        "del",
        ifindex=ifindex,
        dst=str(address),
        family=family(address.version),
    )
