"""One byte less than a tunnel takes, what it takes, and one byte more, for every overhead there is.

site-a ── gw-a ══ underlay, IPv4 and IPv6, MTU 1500 ══ gw-b ── site-b
           a tunnel for each overhead, all to addresses of gw-b of their own

Tunnel N joins 10.1.N.0/24 and 2001:db8:a:N::/64 of site-a to 10.2.N.0/24 and 2001:db8:b:N::/64.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import checksum

import packets as p
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from netns_helpers import Gateway, ping, send_frames, wait_until

OPTIONS = {
    "plain": "",
    "key": "key = 77",
    "csum": "csum = true",
    "seq": "seq = true",
    "full": "key = 77\ncsum = true\nseq = true",
}
# Payload and options; the tunnel's MTU over IPv4, and over IPv6.
MTUS = {
    ("ip", "plain"): (1476, 1456),
    ("ip", "key"): (1472, 1452),
    ("ip", "csum"): (1472, 1452),
    ("ip", "seq"): (1472, 1452),
    ("ip", "full"): (1464, 1444),
    ("ethernet", "plain"): (1462, 1442),
    ("ethernet", "key"): (1458, 1438),
    ("ethernet", "csum"): (1458, 1438),
    ("ethernet", "seq"): (1458, 1438),
    ("ethernet", "full"): (1450, 1430),
}
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
IP_BYTES = {4: 20, 6: 40}
UDP_PORT = 4242


@dataclass(frozen=True)
class Tunnel:
    """One of the tunnels, and who sends to whom through it."""

    number: int
    outer: int
    payload: str
    options: str
    mtu: int

    @property
    def name(self) -> str:
        return f"{self.payload[:3]}{self.outer}-{self.options}"

    @property
    def remote(self) -> str:
        """The address of gw-b."""
        return f"192.0.2.{100 + self.number}" if self.outer == 4 else f"2001:db8:f::b:{self.number}"

    def ends(self, version: int) -> tuple[str, str]:
        """The hosts of site-a and site-b."""
        n = self.number
        if version == 4:
            return f"10.1.{n}.2", f"10.2.{n}.2"
        return f"2001:db8:a:{n}::2", f"2001:db8:b:{n}::2"

    def toml(self, side: str) -> str:
        """Its table in the configuration of one gateway."""
        local = "192.0.2.1" if self.outer == 4 else "2001:db8:f::1"
        here, there = (local, self.remote) if side == "a" else (self.remote, local)
        address = {"a": 1, "b": 2}[side]
        # Frames go to a neighbour, which a route of the configuration does not name.
        routes = json.dumps(list(self.routes(side))) if self.payload == "ip" else "[]"
        return f"""
[[tunnel]]
name = "{self.name}"
local = "{here}"
remote = "{there}"
payload = "{self.payload}"
{OPTIONS[self.options]}
addresses = ["169.254.{self.number}.{address}/30", "fd00:{self.number}::{address}/64"]
routes = {routes}
"""

    def routes(self, side: str) -> dict[str, str]:
        """The far site's prefixes, and the far gateway's addresses in the tunnel."""
        n, (far, letter, address) = self.number, {"a": (2, "b", 2), "b": (1, "a", 1)}[side]
        return {
            f"10.{far}.{n}.0/24": f"169.254.{n}.{address}",
            f"2001:db8:{letter}:{n}::/64": f"fd00:{n}::{address}",
        }


TUNNELS = [
    Tunnel(number, outer, payload, options, mtus[outer == 6])
    for number, (outer, ((payload, options), mtus)) in enumerate(
        ((outer, row) for outer in (4, 6) for row in MTUS.items()), start=1
    )
]
ENDS = [tunnel.ends(version) for tunnel in TUNNELS for version in (4, 6)]


def with_length(address: str) -> str:
    return f"{address}/{48 if ':' in address else 16}"


NODES = [
    Node(
        "site-a",
        {"eth0": tuple(with_length(here) for here, _ in ENDS)},
        {"10.2.0.0/16": "10.1.0.1", "2001:db8:b::/48": "2001:db8:a::1"},
    ),
    Node(
        "gw-a",
        {
            "eth0": ("192.0.2.1/24", "2001:db8:f::1/64"),
            "eth1": ("10.1.0.1/16", "2001:db8:a::1/48"),
        },
    ),
    Node(
        "gw-b",
        {
            "eth0": tuple(f"{t.remote}/{64 if t.outer == 6 else 24}" for t in TUNNELS),
            "eth1": ("10.2.0.1/16", "2001:db8:b::1/48"),
        },
    ),
    Node(
        "site-b",
        {"eth0": tuple(with_length(there) for _, there in ENDS)},
        {"10.1.0.0/16": "10.2.0.1", "2001:db8:a::/48": "2001:db8:b::1"},
    ),
]
LINKS = [
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
]


@dataclass(frozen=True)
class Counts:
    """A tunnel's MTU and packets sent, and what gw-a passed as too big or dropped."""

    mtu: int
    sent: int
    too_big: int
    dropped: int


class Network:
    """The topology with all tunnels up."""

    def __init__(self, built: Topology) -> None:
        self.site_a, self.site_b = built.nodes["site-a"], built.nodes["site-b"]
        self.gw_a, self.gw_b = Gateway(built.nodes["gw-a"]), Gateway(built.nodes["gw-b"])
        self.mac_of_gw_a = link_of(built.nodes["gw-a"], "eth1")["address"]
        self.mac_of_site_a = link_of(built.nodes["site-a"], "eth0")["address"]

    def join(self) -> None:
        """Configure both gateways, and wait for their next hops."""
        for gateway, side in ((self.gw_a, "a"), (self.gw_b, "b")):
            head = 'exporter = ""\ninterface = [{ name = "eth0" }, { name = "eth1" }]\n'
            gateway.apply(head + "".join(tunnel.toml(side) for tunnel in TUNNELS))
            for tunnel in TUNNELS:
                if tunnel.payload == "ethernet":
                    for prefix, via in tunnel.routes(side).items():
                        gateway.run(["ip", "route", "add", prefix, "via", via])
            assert wait_until(lambda: {t.state for t in gateway.snapshot().tunnels} == {"up"})  # noqa: B023 - called before the next turn

    def send(self, packet: Packet) -> None:
        """Send a packet from site-a as it is, whatever its host knows of paths."""
        frame = Ether(src=self.mac_of_site_a, dst=self.mac_of_gw_a, type=p.ethertype(packet))
        send_frames(self.site_a, "eth0", [bytes(frame / packet)])

    def counts(self, tunnel: Tunnel) -> Counts:
        """What gw-a says of a tunnel, and of all packets."""
        snapshot = self.gw_a.snapshot()
        [found] = (each for each in snapshot.tunnels if each.name == tunnel.name)
        [too_big] = (each.count for each in snapshot.passes if each.reason.name == "too_big")
        dropped = sum(each.count for each in snapshot.drops)
        return Counts(found.mtu, found.counters.tx_packets, too_big, dropped)


def link_of(namespace: Namespace, interface: str) -> dict[str, str]:
    shown: list[dict[str, str]] = json.loads(
        namespace.run(["ip", "-j", "link", "show", interface]).stdout
    )
    return shown[0]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Topology(f"gxb{os.getpid() % 100000}", NODES, LINKS) as built:
        found = Network(built)
        try:
            found.join()
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


@pytest.fixture(scope="module")
def reachable(network: Network) -> frozenset[str]:
    """The addresses of gw-a that answer site-a."""
    shown = json.loads(network.gw_a.run(["ip", "-j", "address", "show"]).stdout)
    addresses = [info["local"] for device in shown for info in device["addr_info"]]
    outside = [a for a in addresses if a.startswith(("10.1.", "2001:db8:a:"))]
    return frozenset(a for a in outside if ping(network.site_a, a, count=1) == 1)


@dataclass(frozen=True)
class Error:
    """An ICMP error: who says that what fits, and of which packet."""

    source: str
    mtu: int
    quote: bytes
    packet_bytes: int


def read_error(packet: bytes) -> Error | None:
    """Frag Needed or Packet Too Big, whose checksums must be right; None for anything else."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        message = packet[header : int.from_bytes(packet[2:4], "big")]
        if packet[9] != socket.IPPROTO_ICMP or message[:2] != bytes([3, 4]):
            return None
        assert checksum(packet[:header]) == 0
        assert checksum(message) == 0
        assert message[4:6] == b"\0\0"
        source, mtu = socket.inet_ntop(socket.AF_INET, packet[12:16]), message[6:8]
    else:
        message = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
        if packet[6] != socket.IPPROTO_ICMPV6 or message[:2] != bytes([2, 0]):
            return None
        assert in6_chksum(58, IPv6(packet[:40]), message) in (0, 0xFFFF)
        source, mtu = socket.inet_ntop(socket.AF_INET6, packet[8:24]), message[4:8]
    return Error(source, int.from_bytes(mtu, "big"), message[8:], len(packet))


def error_about(wire: socket.socket, packet: bytes) -> Error:
    """The next error on the wire, which must not be about another packet."""
    while True:
        error = read_error(wire.recv(2000))
        if error is not None:
            assert error.quote == packet[: len(error.quote)]
            return error


def sized(tunnel: Tunnel, version: int, packet_bytes: int) -> Packet:
    df = {"flags": "DF"} if version == 4 else {}
    return p.of_bytes(packet_bytes, p.udp, *tunnel.ends(version), **df)


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("tunnel", TUNNELS, ids=lambda tunnel: tunnel.name)
def test_boundary(
    network: Network, reachable: frozenset[str], tunnel: Tunnel, version: int
) -> None:
    """Duties 17, 18, 26: what fits arrives whole; one byte more, and its sender is told exactly."""
    before = network.counts(tunnel)
    assert before.mtu == tunnel.mtu
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    with ExitStack() as opened:
        sink = network.site_b.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        # IP packets that come in, headers and all.
        wire = network.site_a.call(
            lambda: socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE[version])
            )
        )
        for each in (sink, wire):
            opened.enter_context(each)
            each.settimeout(5)
        sink.bind((tunnel.ends(version)[1], UDP_PORT))
        for packet_bytes in (tunnel.mtu - 1, tunnel.mtu):
            packet = sized(tunnel, version, packet_bytes)
            network.send(packet)
            assert sink.recv(2000) == bytes(packet)[IP_BYTES[version] + 8 :]
        packet = sized(tunnel, version, tunnel.mtu + 1)
        network.send(packet)
        error = error_about(wire, bytes(packet))
        assert error.mtu == tunnel.mtu
        assert error.source in reachable
        # RFC 1812 section 4.3.2.3, RFC 4443 section 3.2: as much as these bounds allow.
        assert error.packet_bytes == {4: 576, 6: 1280}[version]
        assert len(error.quote) >= IP_BYTES[version] + 8
        after = network.counts(tunnel)
        assert (after.too_big, after.dropped) == (before.too_big + 1, before.dropped)
        assert after.sent >= before.sent + 2
        # What was answered was not sent as well.
        sink.setblocking(False)
        with pytest.raises(BlockingIOError):
            sink.recv(2000)
