"""Facts about a host, without a host: eth0 leads to the underlay, eth1 to the LAN.

LAN ─── eth1 [host 192.0.2.1] eth0 ─── 192.0.2.2 … and, by 192.0.2.254, the rest
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Final

from gre_xdp.host import Host
from gre_xdp.model import Config
from gre_xdp.netlink import DEVICE_GROUP
from gre_xdp.netlink.firewall import ForwardChain
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.neighbours import NUD_PERMANENT, NUD_REACHABLE, Neighbour
from gre_xdp.netlink.routes import Path, RouteEntry
from gre_xdp.resources import inner_name

LOCAL: Final = ip_address("192.0.2.1")
NEAR_REMOTE: Final = ip_address("192.0.2.2")  # on the underlay's own link
REMOTE: Final = ip_address("198.51.100.7")  # by the gateway
OTHER_REMOTE: Final = ip_address("198.51.100.8")  # by the gateway, too
GATEWAY: Final = ip_address("192.0.2.254")


def link(name: str, index: int, **changes: Any) -> Link:
    """A physical Ethernet device, unless ``changes`` say otherwise."""
    usual = Link(
        name=name,
        index=index,
        mtu=1500,
        mac=f"02:00:00:00:00:{index:02x}",
        kind=None,
        is_up=True,
        is_noarp=False,
        group=0,
        peer_index=None,
        vlan=None,
        xdp_mode=None,
        xdp_program_id=None,
        rx_dropped=0,
        tx_dropped=0,
        alias="",
    )
    return replace(usual, **changes)


LO: Final = link("lo", 1, mtu=65536, mac="00:00:00:00:00:00", is_noarp=True)
ETH0: Final = link("eth0", 2)
ETH1: Final = link("eth1", 3)


def tunnel_pair(name: str, index: int) -> dict[str, Link]:
    """Both ends of a tunnel's device as gre-xdp makes them, by name."""
    inner = inner_name(name)
    ends = link(name, index, kind="veth", mtu=1476, is_noarp=True, peer_index=index + 1)
    other = link(inner, index + 1, kind="veth", mtu=1476, group=DEVICE_GROUP, peer_index=index)
    return {name: ends, inner: other}


def path(
    next_hop: str = "192.0.2.254",
    *,
    matched: str = "0.0.0.0/0",
    ifindex: int = ETH0.index,
    mtu: int | None = None,
    is_local: bool = False,
) -> Path:
    """The kernel's way to an address: by default its default route, by the gateway."""
    return Path(
        ifindex=ifindex,
        next_hop=ip_address(next_hop),
        mtu=mtu,
        matched=ip_network(matched),
        is_local=is_local,
    )


def neighbour(address: str, ifindex: int = ETH0.index, *, is_static: bool = False) -> Neighbour:
    """A resolved neighbour that somebody else made."""
    return Neighbour(
        ifindex=ifindex,
        address=ip_address(address),
        state=NUD_PERMANENT if is_static else NUD_REACHABLE,
        is_external=False,
        is_kept=False,
    )


def route(
    destination: str, *, ifindex: int | None = ETH1.index, is_ours: bool = False, metric: int = 0
) -> RouteEntry:
    """A route of the main table."""
    return RouteEntry(
        destination=ip_network(destination), ifindex=ifindex, is_ours=is_ours, metric=metric
    )


def chain(name: str = "inet filter forward", *, rules: int = 0, drop: bool = False) -> ForwardChain:
    """A chain of the forward hook."""
    return ForwardChain(name=name, rules=rules, is_drop_policy=drop)


def host(*more_links: Link, **changes: Any) -> Host:
    """A host with eth0 and eth1 that reaches both remotes by its gateway; ``paths`` by remote."""
    links = {each.name: each for each in (LO, ETH0, ETH1, *more_links)}
    paths = {
        REMOTE: path(),
        OTHER_REMOTE: path(),
        NEAR_REMOTE: path(str(NEAR_REMOTE), matched="192.0.2.0/24"),
    }
    paths = changes.pop("paths", paths)
    usual = Host(
        links=links,
        routes=(route("0.0.0.0/0", ifindex=ETH0.index),),
        paths={(LOCAL, remote): found for remote, found in paths.items()},
        addresses=(),
        neighbours=(),
        forward_chains=(),
        accept_ra=dict.fromkeys(links, "0"),
        ipv6_forwarding=dict.fromkeys(links, "0"),
        is_ipv6_off=False,
        has_force_forwarding=True,
        attached=frozenset(),
        tag_strippers=frozenset(),
        xdp_owners={},
    )
    return replace(usual, **changes)


def tunnel(name: str = "fra1", **keys: Any) -> dict[str, Any]:
    """A [[tunnel]] table."""
    return {"name": name, "local": str(LOCAL), "remote": str(REMOTE), **keys}


def config(*tunnels: dict[str, Any], **keys: Any) -> Config:
    """A configuration with eth0, eth1 and these tunnels."""
    tables = {"interface": [{"name": "eth0"}, {"name": "eth1"}], "tunnel": list(tunnels)}
    return Config.model_validate(tables | keys)
