"""An Ethernet tunnel is a port: two sites share one link through two bridges.

site-a ── eth1 [br0] tap1 ═ gw-a ═══ underlay ═══ gw-b ═ tap1 [br0] eth1 ── site-b
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from netns_helpers import Gateway, ping, send_frames, transfer, wait_until

NODES = [
    Node("site-a", {"eth0": ("10.5.0.2/24", "2001:db8:5::2/64")}),
    Node("gw-a", {"eth0": ("192.0.2.1/24", "2001:db8:f::1/64"), "eth1": ()}),
    Node("gw-b", {"eth0": ("192.0.2.2/24", "2001:db8:f::2/64"), "eth1": ()}),
    Node("site-b", {"eth0": ("10.5.0.3/24", "2001:db8:5::3/64")}),
]
LINKS = [
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
]
OUTERS = {
    "over-ipv4": ("192.0.2.1", "192.0.2.2", 1462),
    "over-ipv6": ("2001:db8:f::1", "2001:db8:f::2", 1442),
}


class Network:
    """The topology, both gateways, and the MTU of the tunnel between them."""

    def __init__(self, built: Topology, mtu: int) -> None:
        self.site_a, self.site_b = built.nodes["site-a"], built.nodes["site-b"]
        self.gw_a, self.gw_b = Gateway(built.nodes["gw-a"]), Gateway(built.nodes["gw-b"])
        self.mtu = mtu


@pytest.fixture(scope="module", params=OUTERS.values(), ids=OUTERS)
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    *ends, mtu = request.param
    with Topology(f"gxeth{os.getpid() % 100000}", NODES, LINKS) as built:
        found = Network(built, mtu)
        try:
            for gateway, (local, remote) in ((found.gw_a, ends), (found.gw_b, ends[::-1])):
                gateway.apply(
                    f'exporter = ""\ninterface = [{{ name = "eth0" }}]\n[[tunnel]]\nname = "tap1"\n'
                    f'local = "{local}"\nremote = "{remote}"\npayload = "ethernet"\n'
                )
                gateway.run(["ip", "link", "add", "br0", "type", "bridge"])
                # As on any link: hosts must not send more than its narrowest port carries.
                for port in ("eth1", "tap1"):
                    gateway.run(["ip", "link", "set", port, "master", "br0"])
                gateway.run(["ip", "link", "set", "br0", "up"])
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


def test_the_device_is_an_ethernet_port(network: Network) -> None:
    """It asks neighbours, and its MTU leaves room for the inner Ethernet header."""
    shown = network.gw_a.run(["ip", "-d", "link", "show", "tap1"]).stdout
    assert "NOARP" not in shown
    assert f"mtu {network.mtu} " in shown
    assert network.gw_a.tunnel("tap1").mtu == network.mtu


@pytest.mark.parametrize("address", ["10.5.0.3", "2001:db8:5::3"], ids=["ipv4", "ipv6"])
def test_hosts_find_each_other_and_talk(network: Network, address: str) -> None:
    """ARP, neighbour discovery, packets of full size and TCP cross the tunnel in frames."""
    headers = 48 if ":" in address else 28
    fits = str(network.mtu - headers)
    assert wait_until(lambda: ping(network.site_a, address, count=1) == 1)
    assert ping(network.site_a, address, "-M", "do", "-s", fits) == 3
    # The hosts' own links are wider than the tunnel: it is the clamped MSS that makes this fit.
    assert transfer(network.site_a, network.site_b, address, 4 << 20)
    assert network.gw_a.drops() == network.gw_b.drops() == {}
    assert set(network.gw_b.passes()) <= {"ethernet"}


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(Dot1Q(vlan=7, prio=3), id="vlan"),
        pytest.param(Dot1AD(vlan=8) / Dot1Q(vlan=7), id="two-vlans"),
        pytest.param(Raw(b""), id="untagged"),
    ],
)
def test_frames_arrive_as_they_were_sent(network: Network, middle: Packet) -> None:
    """Tags and all: what a bridge at one end sends, a bridge at the other end receives."""
    inner = IP(src="10.5.0.2", dst="10.5.0.99") / UDP(sport=1, dport=9) / Raw(os.urandom(64))
    frame = bytes(Ether(src="02:00:00:00:05:02", dst="ff:ff:ff:ff:ff:ff") / middle / inner)
    with listener(network.site_b) as capture:
        send_frames(network.site_a, "eth0", [frame])
        assert frame in frames(capture)


def test_the_gateways_talk_over_the_device_itself(network: Network) -> None:
    """Without a bridge the device has addresses like any Ethernet interface."""
    for gateway, host in ((network.gw_a, 1), (network.gw_b, 2)):
        gateway.run(["ip", "link", "set", "tap1", "nomaster"])
        gateway.run(["ip", "address", "add", f"10.6.0.{host}/24", "dev", "tap1"])
    try:
        assert ping(network.gw_a.namespace, "10.6.0.2") == 3
        assert "10.6.0.2 lladdr" in network.gw_a.run(["ip", "neigh", "show", "dev", "tap1"]).stdout
    finally:
        for gateway in (network.gw_a, network.gw_b):
            gateway.run(["ip", "address", "flush", "dev", "tap1", "scope", "global"])
            gateway.run(["ip", "link", "set", "tap1", "master", "br0"])


def listener(namespace: Namespace) -> socket.socket:
    """A socket that sees every frame that comes in by eth0, with its tags."""

    def make() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        raw.bind(("eth0", 3))
        raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: a tag that the driver took off
        raw.settimeout(2)
        return raw

    return namespace.call(make)


def frames(capture: socket.socket) -> Iterator[bytes]:
    """What arrives, until nothing does for two seconds; tags put back."""
    while True:
        try:
            frame, auxiliary, *_ = capture.recvmsg(65536, 256)
        except TimeoutError:
            return
        for level, kind, data in auxiliary:
            if (level, kind) == (263, 8):
                status = int.from_bytes(data[0:4], "little")
                tag, protocol = data[16:18][::-1], data[18:20][::-1]
                if status & 0x10:  # TP_STATUS_VLAN_VALID
                    frame = frame[:12] + protocol + tag + frame[12:]
        yield frame
