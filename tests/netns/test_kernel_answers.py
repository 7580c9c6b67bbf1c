"""What XDP hands over is answered by the kernel, on a host that did not forward before.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
           └── wan ── router (advertises itself by RA)
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptPrefixInfo, IPv6
from scapy.layers.l2 import Ether

from gre_xdp import errors
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from netns_helpers import Gateway, Sites, config_for, ping, send_frames, wait_until


def said(source: Namespace, *arguments: str) -> str:
    return source.run(["ping", "-n", "-W", "2", *arguments], check=False).stdout


@pytest.mark.parametrize(
    ("arguments", "answer", "reason"),
    [
        (
            ["-c", "1", "-M", "do", "-s", "1464", "10.2.0.2"],
            "From 10.1.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1476)",
            "too_big",
        ),
        (
            ["-c", "1", "-M", "do", "-s", "1440", "2001:db8:b::2"],
            "From 2001:db8:a::1 icmp_seq=1 Packet too big: mtu=1476",
            "too_big",
        ),
        (
            ["-c", "1", "-t", "1", "10.2.0.2"],
            "From 10.1.0.1 icmp_seq=1 Time to live exceeded",
            "ttl_expired",
        ),
        (
            ["-c", "1", "-t", "1", "2001:db8:b::2"],
            "From 2001:db8:a::1 icmp_seq=1 Time exceeded: Hop limit",
            "ttl_expired",
        ),
        (
            ["-c", "1", "-t", "2", "10.2.0.2"],
            "From 169.254.10.2 icmp_seq=1 Time to live exceeded",
            None,
        ),
        (
            ["-c", "1", "-t", "2", "2001:db8:b::2"],
            "From fd00:10::2 icmp_seq=1 Time exceeded: Hop limit",
            None,
        ),
    ],
    ids=["ipv4-df", "ipv6-too-big", "ipv4-ttl", "ipv6-hop-limit", "far-ttl", "far-hop-limit"],
)
def test_the_sender_is_told(
    sites: Sites, arguments: list[str], answer: str, reason: str | None
) -> None:
    """Too big and expired packets get the kernel's ICMP error, and are counted as passed."""
    before = sites.gw_a.passes().get(reason or "", 0)
    assert answer in said(sites.site_a, *arguments)
    if reason is not None:
        assert sites.gw_a.passes()[reason] > before


def test_far_expiry_is_counted_at_the_far_gateway(sites: Sites) -> None:
    """A packet that expires behind the tunnel was delivered to the device there."""
    before = sites.gw_b.passes().get("ttl_expired", 0)
    said(sites.site_a, "-c", "1", "-t", "2", "10.2.0.2")
    assert sites.gw_b.passes()["ttl_expired"] == before + 1


def test_an_unknown_destination_is_answered(sites: Sites) -> None:
    """A prefix without a route behind the tunnel gets the kernel's unreachable."""
    sites.gw_a.run(["ip", "route", "add", "10.99.0.0/24", "dev", "fra1"])
    try:
        before = sites.gw_b.passes().get("for_this_host", 0)
        text = said(sites.site_a, "-c", "1", "10.99.0.1")
        assert "Destination Net Unreachable" in text
        assert sites.gw_b.passes()["for_this_host"] == before + 1
    finally:
        sites.gw_a.run(["ip", "route", "del", "10.99.0.0/24", "dev", "fra1"])


@pytest.fixture
def advertised() -> Iterator[tuple[Gateway, Topology]]:
    """A gateway whose third interface has learned its default route by router advertisement."""
    nodes = [
        Node(
            "gw",
            {
                "eth0": ("192.0.2.1/24",),
                "eth1": ("10.1.0.1/24", "2001:db8:a::1/64"),
                "wan": ("2001:db8:f::1/64",),
            },
        ),
        Node("peer", {"eth0": ("192.0.2.2/24",)}),
        Node("lan", {"eth0": ("10.1.0.2/24", "2001:db8:a::2/64")}),
        Node("router", {"eth0": ("2001:db8:f::2/64",)}),
    ]
    links = [
        Link("peer:eth0", "gw:eth0"),
        Link("lan:eth0", "gw:eth1"),
        Link("router:eth0", "gw:wan"),
    ]
    with Topology("gxra", nodes, links) as network:
        gateway = Gateway(network.nodes["gw"])
        try:
            yield gateway, network
        finally:
            gateway.down()


def advertise(network: Topology) -> None:
    """Send one router advertisement with a default route."""
    frame = (
        Ether(dst="33:33:00:00:00:01")
        / IPv6(src="fe80::f", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:f::", prefixlen=64)
    )
    send_frames(network.nodes["router"], "eth0", [bytes(frame)])


def learned_default(gateway: Gateway) -> bool:
    routes = json.loads(gateway.run(["ip", "-6", "-j", "route", "show", "default"]).stdout)
    return any(route["protocol"] == "ra" and route["dev"] == "wan" for route in routes)


def test_a_default_route_learned_by_ra_survives(advertised: tuple[Gateway, Topology]) -> None:
    """Forwarding comes on without the kernel forgetting the router on another interface."""
    gateway, network = advertised
    advertise(network)
    assert wait_until(lambda: learned_default(gateway)), "the test's own advertisement was ignored"
    gateway.apply(config_for("a"))
    assert learned_default(gateway)
    advertise(network)
    assert learned_default(gateway)
    gateway.down()
    assert learned_default(gateway)


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ("add chain inet fw forward { type filter hook forward priority 0; policy drop; }", "drop"),
        (
            "add chain inet fw forward { type filter hook forward priority 0; }\n"
            "add rule inet fw forward tcp dport 22 drop",
            "rules",
        ),
    ],
    ids=["drop-policy", "rules"],
)
def test_a_firewall_is_not_forwarded_around(bare_sites: Sites, rules: str, name: str) -> None:
    """Apply refuses and names the chain; with bypass_firewall it applies."""
    gateway = bare_sites.gw_a
    gateway.run(["nft", "-f", "-"], stdin=f"add table inet fw\n{rules}\n")
    with pytest.raises(errors.FirewallError) as refusal:
        gateway.apply(config_for("a"))
    assert "inet fw forward" in refusal.value.message
    assert name in refusal.value.message
    assert "bypass_firewall" in refusal.value.remedy
    assert gateway.run(["ip", "-o", "link", "show", "type", "veth"]).stdout.count("fra1") == 0
    assert gateway.apply(config_for("a", extra="bypass_firewall = true"))


def test_an_empty_firewall_is_no_firewall(bare_sites: Sites) -> None:
    """A chain with an accept policy and no rules drops nothing, so it stops nothing."""
    gateway = bare_sites.gw_a
    chain = "add chain inet fw forward { type filter hook forward priority 0; policy accept; }"
    gateway.run(["nft", "-f", "-"], stdin=f"add table inet fw\n{chain}\n")
    assert gateway.apply(config_for("a"))


def test_ping_of_the_lan_side_address_behind_the_tunnel(sites: Sites) -> None:
    """The far gateway's own addresses are its host's, and answer."""
    assert ping(sites.site_a, "10.2.0.1") == 3
    assert ping(sites.site_a, "2001:db8:b::1") == 3
    assert sites.gw_b.passes()["for_this_host"] >= 6
