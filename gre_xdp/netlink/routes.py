"""Routes: ours into tunnels, and the kernel's answer to "how do I reach this remote?"."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gre_xdp.netlink import PROTOCOL, Netlink, NetlinkError, dump, family

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# All packets for a tunnel go to one next hop, so that the slow path makes one neighbour entry for
# the tunnel and not one for every destination (which would overflow the neighbour table). These
# addresses are nobody's on such a link: RFC 7600's dummy address, and a link-local one.
GATEWAY: dict[int, Address] = {
    4: ipaddress.IPv4Address("192.0.0.8"),
    6: ipaddress.IPv6Address("fe80::1"),
}
_RTNH_F_ONLINK = 4

_MAIN_TABLE = 254
_RTN_UNICAST = 1
_RTN_LOCAL = 2
_RTM_F_CLONED = 0x200
_RTM_F_FIB_MATCH = 0x2000
# The metric the kernel gives to a route that names none.
_DEFAULT_METRIC = {4: 0, 6: 1024}


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A unicast route of the main table."""

    destination: Network
    ifindex: int | None
    is_ours: bool
    metric: int
    gateway: Address | None = None
    mtu: int | None = None  # in bytes, where the route says so

    @property
    def is_default_metric(self) -> bool:
        """Would a route of ours to the same destination take this one's place?"""
        return self.metric == _DEFAULT_METRIC[self.destination.version]


@dataclass(frozen=True, slots=True)
class Path:
    """How the kernel reaches an address now."""

    ifindex: int
    next_hop: Address
    mtu: int | None  # of the route, in bytes; None: the device's
    matched: Network  # the routing-table entry that decides
    is_local: bool


def list_own_routes(netlink: Netlink) -> list[RouteEntry]:
    """The routes that carry our protocol number; the kernel picks them out of the main table."""
    return [
        _route(message, version)
        for version in (4, 6)
        for message in _main_table(netlink, version, proto=PROTOCOL)
        if message["type"] == _RTN_UNICAST
    ]


def list_rivals(netlink: Netlink, destinations: Collection[Network]) -> list[RouteEntry]:
    """Somebody else's unicast routes of the main table to just these prefixes, of any metric.

    It reads the whole table, which may be long: ask only for what is about to be routed.
    """
    found = []
    for version in (4, 6):
        wanted = {each for each in destinations if each.version == version}
        lengths = {each.prefixlen for each in wanted}
        if not wanted:
            continue
        for message in _main_table(netlink, version):
            is_candidate = (
                message["type"] == _RTN_UNICAST
                and message["dst_len"] in lengths
                and message["proto"] != PROTOCOL
                and not message["flags"] & _RTM_F_CLONED
            )
            if is_candidate and _destination(message, version) in wanted:
                found.append(_route(message, version))
    return found


def _main_table(netlink: Netlink, version: int, **only: int) -> list[Any]:
    return dump(partial(netlink.get_routes, family=family(version), table=_MAIN_TABLE, **only))


def _route(message: Any, version: int) -> RouteEntry:
    return RouteEntry(
        destination=_destination(message, version),
        ifindex=message.get_attr("RTA_OIF"),
        is_ours=message["proto"] == PROTOCOL,
        metric=message.get_attr("RTA_PRIORITY") or 0,
        mtu=_mtu(message),
        gateway=_gateway(message),
    )


def _mtu(message: Any) -> int | None:
    metrics = message.get_attr("RTA_METRICS")
    return metrics.get_attr("RTAX_MTU") if metrics else None


def _gateway(message: Any) -> Address | None:
    """The next hop; of another family than the destination it is in RTA_VIA."""
    via = message.get_attr("RTA_VIA")
    gateway = message.get_attr("RTA_GATEWAY") or (via and via["addr"])
    return ipaddress.ip_address(gateway) if gateway else None


def _destination(message: Any, version: int) -> Network:
    any_address = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a prefix, not a socket
    address = message.get_attr("RTA_DST") or any_address
    return ipaddress.ip_network(f"{address}/{message['dst_len']}", strict=False)


def path_to(netlink: Netlink, address: Address, source: Address | None = None) -> Path | None:
    """Ask the kernel for the way to an address, from one of ours; None when there is none.

    The MTU is that of the configured route: what the kernel has learned about the path comes and
    goes.
    """
    question = {"dst": str(address), "family": family(address.version)}
    if source is not None:
        question["src"] = str(source)
    try:
        (match,) = netlink.route("get", flags=_RTM_F_FIB_MATCH, **question)
        answer = match
        # Of several next hops the flow decides: only an answer for one names it.
        if match.get_attr("RTA_MULTIPATH"):
            (answer,) = netlink.route("get", **question)
    except NetlinkError:
        return None
    if answer["type"] not in (_RTN_UNICAST, _RTN_LOCAL):
        return None
    return Path(
        ifindex=answer.get_attr("RTA_OIF"),
        next_hop=_gateway(answer) or address,
        mtu=_mtu(match),
        matched=_destination(match, address.version),
        is_local=answer["type"] == _RTN_LOCAL,
    )


@dataclass(frozen=True, slots=True)
class Paths:
    """The ways between locals and remotes, and which of the locals are addresses of this host."""

    between: dict[tuple[Address, Address], Path | None]
    own: frozenset[Address]


def paths(netlink: Netlink, ends: Iterable[tuple[Address, Address]]) -> Paths:
    """Ask for the ways between several ends; a local that the host does not have is left out."""
    wanted = dict.fromkeys(ends)
    here = {local: path_to(netlink, local) for local, _ in wanted}
    own = frozenset(local for local, path in here.items() if path is not None and path.is_local)
    between = {
        (local, remote): path_to(netlink, remote, local if local in own else None)
        for local, remote in wanted
    }
    return Paths(between, own)


def put(
    netlink: Netlink,
    destination: Network,
    ifindex: int,
    *,
    gateway: Address | None,
    mtu: int | None,
    replace: bool,
) -> None:
    """Route a prefix into a tunnel's device, in the main table with the default metric."""
    next_hop: dict[str, object] = {}
    if gateway is not None and gateway.version == destination.version:
        next_hop = {"gateway": str(gateway), "flags": _RTNH_F_ONLINK}
    elif gateway is not None:
        via = {"family": family(gateway.version), "addr": str(gateway)}
        next_hop = {"via": via, "flags": _RTNH_F_ONLINK}
    netlink.route(
        "replace" if replace else "add",
        dst=str(destination),
        family=family(destination.version),
        oif=ifindex,
        proto=PROTOCOL,
        table=_MAIN_TABLE,
        **({"metrics": {"mtu": mtu}} if mtu else {}),
        **next_hop,
    )


def delete(netlink: Netlink, destination: Network, ifindex: int) -> None:
    """Remove our route to a prefix."""
    netlink.route(
        "del",
        dst=str(destination),
        family=family(destination.version),
        oif=ifindex,
        proto=PROTOCOL,
        table=_MAIN_TABLE,
    )
