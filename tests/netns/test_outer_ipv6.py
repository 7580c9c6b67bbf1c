"""Tunnels over an IPv6-only underlay, one of them through a router.

site-a ── gw-a ══ underlay 2001:db8:f1::/64 ══ router ══ 2001:db8:f2::/64 ══ gw-b ── site-b
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gre_xdp.lab.topology import Link, Node, Topology
from netns_helpers import Gateway, ping, transfer, wait_until

ADDRESSES = {"ipv4": "10.2.0.2", "ipv6": "2001:db8:b::2"}
NODES = [
    Node(
        "site-a",
        {"eth0": ("10.1.0.2/24", "2001:db8:a::2/64")},
        {"0.0.0.0/0": "10.1.0.1", "::/0": "2001:db8:a::1"},
    ),
    Node(
        "gw-a",
        {"eth0": ("2001:db8:f1::1/64",), "eth1": ("10.1.0.1/24", "2001:db8:a::1/64")},
        {"2001:db8:f2::/64": "2001:db8:f1::fe"},
    ),
    Node("router", {"eth0": ("2001:db8:f1::fe/64",), "eth1": ("2001:db8:f2::fe/64",)}),
    Node(
        "gw-b",
        {"eth0": ("2001:db8:f2::2/64",), "eth1": ("10.2.0.1/24", "2001:db8:b::1/64")},
        {"2001:db8:f1::/64": "2001:db8:f2::fe"},
    ),
    Node(
        "site-b",
        {"eth0": ("10.2.0.2/24", "2001:db8:b::2/64")},
        {"0.0.0.0/0": "10.2.0.1", "::/0": "2001:db8:b::1"},
    ),
]
LINKS = [
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "router:eth0"),
    Link("router:eth1", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
]


def toml(side: str, extra: str = "") -> str:
    here, there, far = ("1", "2", "b") if side == "a" else ("2", "1", "a")
    return f"""
exporter = ""
interface = [{{ name = "eth0" }}, {{ name = "eth1" }}]
[[tunnel]]
name = "six1"
local = "2001:db8:f{here}::{here}"
remote = "2001:db8:f{there}::{there}"
{extra}
addresses = ["169.254.10.{here}/30", "fd00:10::{here}/64"]
routes = ["10.{there}.0.0/24", "2001:db8:{far}::/64"]
"""


class Network:
    """The topology, and both gateways."""

    def __init__(self, network: Topology) -> None:
        self.nodes = network.nodes
        self.gw_a, self.gw_b = Gateway(network.nodes["gw-a"]), Gateway(network.nodes["gw-b"])

    def join(self, extra: str = "") -> None:
        self.gw_a.apply(toml("a", extra))
        self.gw_b.apply(toml("b", extra))


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Topology(f"gxsix{os.getpid() % 100000}", NODES, LINKS) as built:
        built.nodes["router"].set_sysctl("net/ipv6/conf/all/forwarding", 1)
        found = Network(built)
        try:
            found.join()
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_sites_reach_each_other(network: Network, address: str) -> None:
    """Both payloads cross, up to the MTU that IPv6 and GRE leave of 1,500 bytes, by XDP alone."""
    site_a = network.nodes["site-a"]
    assert network.gw_a.tunnel("six1").mtu == 1456
    ping(site_a, address, count=1)
    before = network.gw_b.tunnel("six1").counters.rx_packets
    drops = network.gw_a.drops()
    headers = 48 if ":" in address else 28
    assert ping(site_a, address, "-M", "do", "-s", str(1456 - headers), count=10) == 10
    assert network.gw_b.tunnel("six1").counters.rx_packets >= before + 10
    assert network.gw_a.drops() == drops


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_tcp_arrives_whole(network: Network, address: str) -> None:
    """Ten megabytes arrive with the digest they were sent with."""
    assert transfer(network.nodes["site-a"], network.nodes["site-b"], address, 10 << 20)


@pytest.mark.parametrize(
    ("address", "mss"), [("10.2.0.2", 1416), ("2001:db8:b::2", 1396)], ids=ADDRESSES
)
def test_the_mss_fits(network: Network, address: str, mss: int) -> None:
    """Duty 27: 1456 - 40 for IPv4, 1456 - 60 for IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    site_a, site_b = network.nodes["site-a"], network.nodes["site-b"]
    with site_b.call(lambda: socket.create_server((address, 0), family=family)) as server:
        port = server.getsockname()[1]
        with site_a.call(lambda: socket.create_connection((address, port), 5)) as client:
            timestamps = 12
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == mss - timestamps


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["-M", "do", "-s", "1429", "10.2.0.2"], "Frag needed and DF set (mtu = 1456)"),
        (["-M", "do", "-s", "1409", "2001:db8:b::2"], "Packet too big: mtu=1456"),
        (["-t", "1", "10.2.0.2"], "Time to live exceeded"),
        (["-t", "1", "2001:db8:b::2"], "Time exceeded: Hop limit"),
    ],
    ids=["ipv4-df", "ipv6-too-big", "ipv4-ttl", "ipv6-hop-limit"],
)
def test_the_kernel_answers(network: Network, arguments: list[str], answer: str) -> None:
    """Duty 26: one byte too many, or one hop too few, is answered to the sender."""
    said = network.nodes["site-a"].run(["ping", "-n", "-c1", "-W2", *arguments], check=False)
    assert answer in said.stdout


@pytest.mark.parametrize(
    "extra", ["key = 77\ncsum = true\nseq = true", 'ttl = "inherit"\ntos = 16'], ids=["full", "ttl"]
)
def test_options(network: Network, extra: str) -> None:
    """What GRE can carry over IPv4 it carries over IPv6."""
    network.join(extra)
    before = network.gw_a.drops(), network.gw_b.drops()
    try:
        for address in ADDRESSES.values():
            assert ping(network.nodes["site-a"], address) == 3
            assert transfer(network.nodes["site-a"], network.nodes["site-b"], address, 1 << 20)
        assert (network.gw_a.drops(), network.gw_b.drops()) == before
    finally:
        network.join()


def test_a_tunnel_too_narrow_for_ipv6_goes_over_ipv6(network: Network) -> None:
    """The tunnel's MTU bounds what it carries, and not the family of what carries it."""
    small = "mtu = 1000"
    for gateway, side in ((network.gw_a, "a"), (network.gw_b, "b")):
        ipv4_only = (
            toml(side, small).replace(', "fd00', '] # "fd00').replace(', "2001', '] # "2001')
        )
        gateway.apply(ipv4_only)
    try:
        assert ping(network.nodes["site-a"], "10.2.0.2", "-M", "do", "-s", "972") == 3
    finally:
        network.join()


def test_a_lost_next_hop_has_a_name(network: Network) -> None:
    """Without a neighbour the state and the reason say so; with it, traffic goes on."""
    router = network.nodes["router"]
    site_a = network.nodes["site-a"]
    router.run(["ip", "link", "set", "eth0", "down"])
    try:
        network.gw_a.run(["ip", "-6", "neigh", "flush", "dev", "eth0"])
        assert wait_until(lambda: network.gw_a.tunnel("six1").state == "no_neighbour")
        assert ping(site_a, ADDRESSES["ipv4"], "-W", "1", count=1) == 0
        assert network.gw_a.drops().get("no_neighbour", 0) >= 1
    finally:
        router.run(["ip", "link", "set", "eth0", "up"])
        # The kernel forgets addresses and routes of a device that was down.
        router.run(["ip", "address", "replace", "2001:db8:f1::fe/64", "dev", "eth0", "nodad"])
        network.gw_a.apply(toml("a"))
    assert wait_until(lambda: ping(site_a, ADDRESSES["ipv4"], count=1) == 1)
