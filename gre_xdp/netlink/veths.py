"""The other end of a veth, wherever it is: XDP's redirects depend on how that end is set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns

from gre_xdp.netlink import Netlink, NetlinkError, drivers, offloads
from gre_xdp.netlink.links import Link, get_link

_NAMED = Path("/run/netns")
_PROCESSES = Path("/proc")

_T = TypeVar("_T")


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
    for path in _namespaces():
        try:
            if _nsid(netlink, path) == nsid:
                return _call_in(path, partial(_look, index, str(path)))
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


def _namespaces() -> Iterator[Path]:
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


def _nsid(netlink: Netlink, path: Path) -> int | None:
    """How the kernel numbers a namespace as seen from ours; -1 or None: not at all."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found: int | None = netlink.get_netnsid(fd=descriptor)["nsid"]
        return found
    finally:
        os.close(descriptor)


def _call_in(path: Path, function: Callable[[], _T]) -> _T:
    """Call a function on a thread of its own that is in this network namespace."""

    def inside() -> _T:
        netns.setns(str(path), flags=0)
        return function()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(inside).result()
