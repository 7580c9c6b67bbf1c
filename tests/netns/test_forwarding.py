"""Real packets between two gateways that run gre-xdp.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import socket
import subprocess

import pytest

from gre_xdp.lab.topology import Link, Node, Topology
from netns_helpers import Gateway, Sites, ping, transfer, wait_until

ADDRESSES = {"ipv4": "10.2.0.2", "ipv6": "2001:db8:b::2"}


def forwarded(gateway: Gateway) -> int:
    """Packets out of the tunnels, less the multicast that the remote's own kernel sends."""
    snapshot = gateway.snapshot()
    multicast = next(c.count for c in snapshot.passes if c.reason.name == "multicast")
    return sum(tunnel.counters.rx_packets for tunnel in snapshot.tunnels) - multicast


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_sites_reach_each_other_through_xdp_alone(sites: Sites, address: str) -> None:
    """Every echo and every reply is counted once by each program, and nothing is dropped."""
    ping(sites.site_a, address, count=1)  # resolves the neighbours on the LANs
    before_a, before_b = forwarded(sites.gw_a), forwarded(sites.gw_b)
    drops = sites.gw_a.drops()
    assert ping(sites.site_a, address, count=20) == 20
    assert forwarded(sites.gw_a) == before_a + 20
    assert forwarded(sites.gw_b) == before_b + 20
    assert sites.gw_a.drops() == drops
    assert set(sites.gw_a.passes()) <= {"multicast", "no_neighbour"}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("size", [0, 1, 64, 1400, 1428])
def test_every_size_up_to_the_mtu_goes_through(sites: Sites, address: str, size: int) -> None:
    """Packets of up to 1,476 bytes pass with the do-not-fragment rule of their family."""
    fits = size if ":" in address else size + 20
    assert ping(sites.site_a, address, "-M", "do", "-s", str(fits), count=2) == 2


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_tcp_arrives_whole(sites: Sites, address: str) -> None:
    """Ten megabytes arrive with the digest they were sent with."""
    assert transfer(sites.site_a, sites.site_b, address, 10 << 20)


@pytest.mark.parametrize(
    ("address", "mss"), [("10.2.0.2", 1436), ("2001:db8:b::2", 1416)], ids=ADDRESSES
)
def test_both_ends_of_a_connection_get_the_tunnels_mss(
    sites: Sites, address: str, mss: int
) -> None:
    """Hosts with 1,500-byte links agree on segments that fit the tunnel, without a lost packet."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    too_big = sites.gw_a.passes().get("too_big", 0)
    server = sites.site_b.call(lambda: socket.create_server((address, 0), family=family))
    with server:
        port = server.getsockname()[1]
        client = sites.site_a.call(lambda: socket.create_connection((address, port), 5))
        accepted, _ = server.accept()
        with client, accepted:
            timestamps = 12
            for end in (client, accepted):
                found = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                assert found == mss - timestamps
    assert sites.gw_a.passes().get("too_big", 0) == too_big


@pytest.mark.parametrize(
    ("address", "far_end", "near_end"),
    [
        ("10.2.0.2", "169.254.10.2", "169.254.10.1"),
        ("2001:db8:b::2", "fd00:10::2", "fd00:10::1"),
    ],
    ids=["ipv4", "ipv6"],
)
def test_the_gateway_itself_uses_the_tunnel(
    sites: Sites, address: str, far_end: str, near_end: str
) -> None:
    """Host traffic goes through the tunnel, to the remote's own address and to hosts behind it."""
    gateway = sites.gw_a.namespace
    assert ping(gateway, far_end) == 3
    assert ping(gateway, address) == 3
    assert ping(sites.site_b, near_end) == 3
    assert transfer(gateway, sites.site_b, address, 1 << 20)
    assert transfer(sites.site_b, gateway, near_end, 1 << 20)


def test_host_traffic_appears_on_the_tunnel_device(sites: Sites) -> None:
    """Tcpdump on fra1 shows the plain packets of both directions."""
    capture = sites.gw_a.namespace.popen(["tcpdump", "-n", "-l", "-i", "fra1", "-c", "4", "icmp"])
    assert capture.stderr is not None
    assert "listening on fra1" in next(line for line in capture.stderr if "listening" in line)
    assert ping(sites.gw_a.namespace, "169.254.10.2", count=2) == 2
    assert capture.stdout is not None
    lines = [line.split("IP ", 1)[1].split(",")[0].rstrip() for line in capture.stdout]
    capture.wait(5)
    assert (
        lines
        == [
            "169.254.10.1 > 169.254.10.2: ICMP echo request",
            "169.254.10.2 > 169.254.10.1: ICMP echo reply",
        ]
        * 2
    )


def test_fragments_pass_and_oversize_without_df_is_fragmented(sites: Sites) -> None:
    """4,000 bytes that may be fragmented arrive; the kernel cuts them to the tunnel's MTU."""
    assert ping(sites.site_a, "10.2.0.2", "-M", "dont", "-s", "4000") == 3


def test_hosts_behind_the_tunnel_see_the_hop(sites: Sites) -> None:
    """Each gateway takes one from TTL and hop limit, the tunnel none."""
    for address, ttl in (("10.2.0.2", "ttl=62"), ("2001:db8:b::2", "ttl=62")):
        assert ttl in sites.site_a.run(["ping", "-n", "-c", "1", address]).stdout


def test_tunnel_to_tunnel() -> None:
    """A hub forwards from one tunnel into another in one pass, without its stack.

    site-1 ── spoke-1 ═══ hub ═══ spoke-2 ── site-2
    """
    nodes = [
        Node("site-1", {"eth0": ("10.1.0.2/24",)}, {"0.0.0.0/0": "10.1.0.1"}),
        Node("spoke-1", {"eth0": ("192.0.2.1/30",), "eth1": ("10.1.0.1/24",)}),
        Node("hub", {"eth0": ("192.0.2.2/30",), "eth1": ("198.51.100.2/30",)}),
        Node("spoke-2", {"eth0": ("198.51.100.1/30",), "eth1": ("10.2.0.1/24",)}),
        Node("site-2", {"eth0": ("10.2.0.2/24",)}, {"0.0.0.0/0": "10.2.0.1"}),
    ]
    links = [
        Link("site-1:eth0", "spoke-1:eth1"),
        Link("spoke-1:eth0", "hub:eth0"),
        Link("hub:eth1", "spoke-2:eth0"),
        Link("spoke-2:eth1", "site-2:eth0"),
    ]
    ports = '[[interface]]\nname = "eth0"\n[[interface]]\nname = "eth1"\n'

    def tunnel(name: str, local: str, remote: str, route: str, key: int) -> str:
        return (
            f'[[tunnel]]\nname = "{name}"\nlocal = "{local}"\nremote = "{remote}"\n'
            f'key = {key}\nroutes = ["{route}"]\n'
        )

    with Topology("gxhub", nodes, links) as network:
        gateways = {name: Gateway(network.nodes[name]) for name in ("spoke-1", "hub", "spoke-2")}
        try:
            gateways["spoke-1"].apply(
                ports + tunnel("up", "192.0.2.1", "192.0.2.2", "10.0.0.0/8", 1)
            )
            gateways["spoke-2"].apply(
                ports + tunnel("up", "198.51.100.1", "198.51.100.2", "10.0.0.0/8", 2)
            )
            hub = gateways["hub"]
            hub.apply(
                ports
                + tunnel("one", "192.0.2.2", "192.0.2.1", "10.1.0.0/24", 1)
                + tunnel("two", "198.51.100.2", "198.51.100.1", "10.2.0.0/24", 2)
            )
            assert ping(network.nodes["site-1"], "10.2.0.2", count=10) == 10
            assert forwarded(gateways["spoke-1"]) == 10
            assert forwarded(gateways["spoke-2"]) == 10
            assert forwarded(hub) == 20
            assert transfer(network.nodes["site-1"], network.nodes["site-2"], "10.2.0.2", 1 << 20)
            assert set(hub.passes()) <= {"multicast"}
            assert hub.drops() == {}
        finally:
            for gateway in gateways.values():
                gateway.down()


def test_a_promiscuous_port_takes_nothing_that_is_not_for_it(sites: Sites) -> None:
    """A frame for another station is left alone, though its packet would fit the tunnel."""
    before = sites.gw_a.tunnel().counters
    sites.site_a.run(
        [
            "ip",
            "neigh",
            "replace",
            "10.1.0.1",
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "eth0",
            "nud",
            "permanent",
        ]
    )
    try:
        assert ping(sites.site_a, "10.2.0.2", "-W", "1", count=2) == 0
    finally:
        sites.site_a.run(["ip", "neigh", "del", "10.1.0.1", "dev", "eth0"])
    assert sites.gw_a.tunnel().counters == before
    assert wait_until(lambda: ping(sites.site_a, "10.2.0.2", count=1) == 1)


def test_ipv6_between_ipv4_only_gateways(sites: Sites) -> None:
    """The underlay has no IPv6 at all; that is what the tunnel is for."""
    shown = subprocess.run(
        sites.gw_a.namespace.command(["ip", "-6", "addr", "show", "dev", "eth0"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "inet6" not in shown.stdout
    assert ping(sites.site_a, "2001:db8:b::2") == 3
