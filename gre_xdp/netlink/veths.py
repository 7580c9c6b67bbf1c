"""The other end of a veth, wherever it is: XDP's redirects depend on how that end is set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gre_xdp.netlink import Netlink, NetlinkError, drivers, namespaces, offloads
from gre_xdp.netlink.links import Link, get_link


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth; ``namespace`` is the path of its network namespace if not ours."""

    name: str
    namespace: str | None
    has_napi: bool
    has_tx_checksum: bool  # local senders leave the sum to a NIC that is not there


def find_peer(netlink: Netlink, link: Link) -> Peer | None:
    """The other end of a veth; None if it is not found, or not ours to look at."""
    (message,) = netlink.get_links(link.index)
    nsid = message.get_attr("IFLA_LINK_NETNSID")
    if link.peer_index is None:
        return None
    index = link.peer_index
    if nsid is None:
        return _look(index, None)
    for path in namespaces.paths():
        try:
            if _nsid(netlink, path) == nsid:
                return namespaces.call_in(path, partial(_look, index, str(path)))
        except (OSError, NetlinkError):
            # It is gone, or not ours to look at.
            continue
    return None


def _look(index: int, namespace: str | None) -> Peer | None:
    try:
        with Netlink() as netlink:
            link = get_link(netlink, index)
    except (OSError, NetlinkError):
        return None
    features = drivers.features(link.name, (offloads.GRO, offloads.TX_CHECKSUM))
    return Peer(
        name=link.name,
        namespace=namespace,
        has_napi=features.get(offloads.GRO, False) or link.xdp_mode == "native",
        has_tx_checksum=features.get(offloads.TX_CHECKSUM, False),
    )


def _nsid(netlink: Netlink, path: Path) -> int | None:
    """How the kernel numbers a namespace as seen from ours; -1 or None: not at all."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found: int | None = netlink.get_netnsid(fd=descriptor)["nsid"]
        return found
    finally:
        os.close(descriptor)
