"""Having the kernel ask neighbours whether they are still where they were, many at once.

A probed entry keeps its link address while the kernel asks by unicast (NUD_PROBE); without an
answer to three questions it fails, and the kernel looks for the neighbour by broadcast when it has
something to send.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_NEWNEIGH

from gre_xdp.netlink import PROTOCOL, Netlink, NetlinkError
from gre_xdp.netlink.routes import Address

Hop = tuple[int, Address]  # index of the device, and the neighbour's address

_NUD_NONE, _NUD_REACHABLE, _NUD_STALE, _NUD_DELAY, _NUD_PROBE = 0x0, 0x2, 0x4, 0x8, 0x10
_NUD_FAILED = 0x20
_NTF_EXT_LEARNED = 0x10
_NTF_EXT_MANAGED = 0x1
# Without NLM_F_CREATE and _REPLACE: what has gone meanwhile stays so, other flags stay.
_CHANGE = (RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK)


@dataclass(frozen=True, slots=True)
class Entry:
    """What matters here of a neighbour entry."""

    state: int
    is_external: bool  # somebody keeps it from outside of the kernel: we, or a routing daemon
    is_ours: bool

    @property
    def is_to_be_probed(self) -> bool:
        """Is a link address believed, and nobody asking just now? Static ones never expire."""
        return bool(self.state & (_NUD_REACHABLE | _NUD_STALE | _NUD_DELAY))

    @property
    def is_given_up(self) -> bool:
        """Has the kernel stopped asking?"""
        return self.state in (_NUD_NONE, _NUD_FAILED)

    @property
    def is_resolved(self) -> bool:
        """Is a link address believed?"""
        return bool(self.state & ~_NUD_FAILED & ~0x1)


def read(netlink: Netlink, hops: Collection[Hop]) -> dict[Hop, Entry]:
    """The entries that there are; raises ``OSError``, ``NetlinkError``."""
    wanted, found = set(hops), {}
    if not wanted:
        return {}
    for version in {address.version for _, address in wanted}:
        for message in netlink.get_neighbours(family=_family(version)):
            address = message.get_attr("NDA_DST")
            if address is not None:
                hop = (message["ifindex"], ipaddress.ip_address(address))
                if hop in wanted:
                    found[hop] = _entry(message)
    return found


def probe(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """Have the kernel ask neighbours that it has found by itself; raises ``OSError``."""
    for hop in hops:
        _change(netlink, hop, _NUD_PROBE)


def probe_kept(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """The same for next hops of ours; raises ``OSError``.

    The kernel changes no state of a managed entry, so that it is not managed for a moment; an agent
    that is killed in it leaves an entry that the next one makes managed again.
    """
    for hop in hops:
        _change(netlink, hop, _NUD_PROBE, **_kept(is_managed=False))
        _change(netlink, hop, _NUD_PROBE, **_kept())


def retry_kept(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """Have the kernel look again for next hops of ours that it has given up; raises ``OSError``."""
    for hop in hops:
        _change(netlink, hop, _NUD_NONE, **_kept())


def _kept(*, is_managed: bool = True) -> dict[str, object]:
    managed = {"flags_ext": _NTF_EXT_MANAGED} if is_managed else {}
    return {"flags": _NTF_EXT_LEARNED, "protocol": PROTOCOL, **managed}


def _change(netlink: Netlink, hop: Hop, state: int, **more: object) -> None:
    ifindex, address = hop
    # It may have gone meanwhile.
    with contextlib.suppress(NetlinkError):
        netlink.neigh(
            _CHANGE,
            ifindex=ifindex,
            dst=str(address),
            family=_family(address.version),
            state=state,
            **more,
        )


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def _entry(message: Any) -> Entry:
    is_external = bool(message["flags"] & _NTF_EXT_LEARNED)
    is_managed = bool((message.get_attr("NDA_FLAGS_EXT") or 0) & _NTF_EXT_MANAGED)
    is_by_us = message.get_attr("NDA_PROTOCOL") == PROTOCOL
    return Entry(message["state"], is_external, is_external and is_managed and is_by_us)
