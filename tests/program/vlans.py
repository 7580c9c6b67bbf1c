"""VLAN sub-interfaces of the gateway's ports.

                       eth1 ─┬─ v7    0x8100 7          u9    0x8100 9           ─┬─ eth0
 10.7.0.2, 2001:db8:7::2 ────┘   │                            │ └──── 198.18.9.2, 2001:db8:f9::2
                       eth1 ─┬─ v78   0x88a8 7, 0x8100 8      u98   0x88a8 9, 0x8100 8 ─┬─ eth0
 10.78.0.2, 2001:db8:78::2 ──┘                                  └──── 198.18.98.2

Where the kernel has no VLAN driver, other devices stand for the VLANs': to XDP they only are
interface indices with routes, neighbours and link addresses of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

import packets as p
from gre_xdp import encoding
from gre_xdp.resources import Port
from program.bench import Bench

C, S = 0x8100, 0x88A8
Tags = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vlan:
    """A VLAN's device as the kernel would have it."""

    name: str
    trunk: str
    tags: Tags
    mac: str
    addresses: tuple[str, ...]
    neighbours: tuple[str, ...]


V7 = Vlan(
    "v7",
    "eth1",
    ((C, 7),),
    "02:00:00:00:07:01",
    ("10.7.0.1/24", "2001:db8:7::1/64"),
    ("10.7.0.2", "2001:db8:7::2"),
)
V78 = Vlan(
    "v78",
    "eth1",
    ((S, 7), (C, 8)),
    "02:00:00:00:78:01",
    ("10.78.0.1/24", "2001:db8:78::1/64"),
    ("10.78.0.2", "2001:db8:78::2"),
)
U9 = Vlan(
    "u9",
    "eth0",
    ((C, 9),),
    "02:00:00:00:09:01",
    ("198.18.9.1/24", "2001:db8:f9::1/64"),
    (p.ENDS["behind"].remote, p.ENDS["behind6"].remote),
)
U98 = Vlan(
    "u98",
    "eth0",
    ((S, 9), (C, 8)),
    "02:00:00:00:98:01",
    ("198.18.98.1/24",),
    (p.ENDS["behindtwo"].remote,),
)
VLANS = (V7, V78, U9, U98)
ROUTED_BY_INGRESS = "10.20.77.0/24"  # from v7 and v78 into the tunnel "keyed", else into "plain"


def _add(ip: IPRoute, vlan: Vlan) -> int:
    """Make the device and what the kernel knows of it; returns its index."""
    far = {"ifname": f"far-{vlan.name}"}
    ip.link("add", kind="veth", ifname=vlan.name, address=vlan.mac, peer=far)
    [index] = ip.link_lookup(ifname=vlan.name)
    [far_index] = ip.link_lookup(ifname=far["ifname"])
    Path(f"/proc/sys/net/ipv6/conf/{far['ifname']}/disable_ipv6").write_text("1")
    for family in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{family}/conf/{vlan.name}/forwarding").write_text("1")
    for end in (index, far_index):
        ip.link("set", index=end, state="up")
    for address in vlan.addresses:
        host, _, length = address.partition("/")
        flags = {"flags": 0x02} if ":" in host else {}  # IFA_F_NODAD
        ip.addr("add", index=index, address=host, prefixlen=int(length), **flags)
    for host in vlan.neighbours:
        ip.neigh("add", ifindex=index, dst=host, lladdr=p.HOST_MAC, state=0x80)  # NUD_PERMANENT
    return int(index)


def _route_by_ingress(ip: IPRoute, undo: ExitStack, name: str, table: int) -> None:
    rule = {"iifname": name, "table": table, "priority": table}
    ip.rule("add", **rule)
    undo.callback(ip.rule, "del", **rule)
    [device] = ip.link_lookup(ifname="keyed")
    route = {"dst": ROUTED_BY_INGRESS, "oif": device, "table": table}
    ip.route("add", **route)
    undo.callback(ip.route, "del", **route)


@contextmanager
def made(bench: Bench) -> Iterator[None]:
    """The VLANs of the drawing above, for the time of a block."""
    with ExitStack() as undo:
        ip = undo.enter_context(IPRoute())
        for table, vlan in enumerate(VLANS, start=101):
            index = _add(ip, vlan)
            undo.callback(ip.link, "del", index=index)
            trunk = bench.ifindex(vlan.trunk)
            port = Port(vlan.name, vlan.mac, vlan.trunk, vlan.tags)
            bench.data_path.put_device(index, encoding.encode_port(port, trunk_ifindex=trunk))
            undo.callback(bench.data_path.delete_device, index)
            bench.data_path.put_vlan(encoding.encode_vlan(trunk, vlan.tags), index)
            undo.callback(bench.data_path.forget_vlans, index)
            if vlan.trunk == "eth1":
                _route_by_ingress(ip, undo, vlan.name, table)
        yield
