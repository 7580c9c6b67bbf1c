"""Having the kernel ask neighbours whether they are still where they were, many at once.

A probed entry keeps its link address while the kernel asks by unicast (NUD_PROBE); without an
answer to three questions it fails, and the kernel looks for the neighbour by broadcast when it has
something to send.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_NEWNEIGH

from gre_xdp.netlink import PROTOCOL, Netlink, NetlinkError, family
from gre_xdp.netlink.neighbours import (
    NTF_EXT_LEARNED,
    NTF_EXT_MANAGED,
    NUD_NONE,
    NUD_PROBE,
    Neighbour,
    list_neighbours,
)
from gre_xdp.netlink.routes import Address

Hop = tuple[int, Address]  # index of the device, and the neighbour's address

# Without NLM_F_CREATE and _REPLACE: what has gone meanwhile stays so, other flags stay.
_CHANGE = (RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK)


def read(netlink: Netlink, hops: Collection[Hop]) -> dict[Hop, Neighbour]:
    """The entries that there are; raises ``OSError``, ``NetlinkError``."""
    found = list_neighbours(netlink) if hops else []
    entries = {(neighbour.ifindex, neighbour.address): neighbour for neighbour in found}
    return {hop: entries[hop] for hop in hops if hop in entries}


def probe(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """Have the kernel ask neighbours that it has found by itself; raises ``OSError``."""
    for hop in hops:
        _change(netlink, hop, NUD_PROBE)


def probe_kept(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """The same for next hops of ours; raises ``OSError``.

    The kernel changes no state of a managed entry, so that it is not managed for a moment; an agent
    that is killed in it leaves an entry that the next one makes managed again.
    """
    for hop in hops:
        _change(netlink, hop, NUD_PROBE, **_kept(is_managed=False))
        _change(netlink, hop, NUD_PROBE, **_kept())


def retry_kept(netlink: Netlink, hops: Iterable[Hop]) -> None:
    """Have the kernel look again for next hops of ours that it has given up; raises ``OSError``."""
    for hop in hops:
        _change(netlink, hop, NUD_NONE, **_kept())


def _kept(*, is_managed: bool = True) -> dict[str, object]:
    managed = {"flags_ext": NTF_EXT_MANAGED} if is_managed else {}
    return {"flags": NTF_EXT_LEARNED, "protocol": PROTOCOL, **managed}


def _change(netlink: Netlink, hop: Hop, state: int, **more: object) -> None:
    ifindex, address = hop
    # It may have gone meanwhile.
    with contextlib.suppress(NetlinkError):
        netlink.neigh(
            _CHANGE,
            ifindex=ifindex,
            dst=str(address),
            family=family(address.version),
            state=state,
            **more,
        )
