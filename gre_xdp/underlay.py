"""What the underlay carries: the MTU of the way to a remote."""

from __future__ import annotations

from collections.abc import Callable

from gre_xdp.model import Tunnel
from gre_xdp.netlink import Netlink
from gre_xdp.netlink.links import Link, list_links
from gre_xdp.netlink.routes import Path, paths


def mtu(path: Path | None, links: Callable[[int], Link | None]) -> int | None:
    """The MTU of a path in bytes: of its route or its device, whichever is less.

    ``links`` gives the device with an index.
    """
    if path is None:
        return None
    egress = links(path.ifindex)
    candidates = [path.mtu, egress.mtu if egress else None]
    return min([found for found in candidates if found], default=None)


def current_mtu(tunnel: Tunnel) -> int | None:
    """The MTU of the way to a tunnel's remote, as the current network namespace has it now."""
    with Netlink() as netlink:
        ends = (tunnel.local, tunnel.remote)
        path = paths(netlink, [ends]).between[ends]
        return mtu(path, {link.index: link for link in list_links(netlink).values()}.get)
