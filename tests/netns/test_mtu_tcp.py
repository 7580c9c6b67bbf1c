"""TCP and UDP of hosts with links of 1,500 bytes through a tunnel over an underlay of 1,500.

site-a ── gw-a ═══ underlay (IPv4 only), MTU 1500 ═══ gw-b ── site-b

That a narrow path in the middle is learned is in tests/netns/test_path_mtu.py.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from gre_xdp.lab.lab import topology
from gre_xdp.lab.topology import Namespace
from netns_helpers import Sites, config_for, ping, transfer, wait_until

MTU = 1476
# The addresses of site-a and site-b.
HOSTS = {
    "ipv4": ("10.1.0.2", "10.2.0.2"),
    "ipv6": ("2001:db8:a::2", "2001:db8:b::2"),
}
FAMILIES = pytest.mark.parametrize("family", HOSTS)
SIZE = 20 << 20
TIMESTAMPS = 12
# <linux/in.h>
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
# By the links of the hosts, and by the tunnel.
MSS = {"ipv4": (1460, MTU - 40), "ipv6": (1440, MTU - 60)}
NO_ICMP = """
add table inet deaf
add chain inet deaf input { type filter hook input priority 0; }
add counter inet deaf errors
add rule inet deaf input icmp type destination-unreachable counter name errors drop
add rule inet deaf input icmpv6 type packet-too-big counter name errors drop
"""


@pytest.fixture(scope="module")
def bare() -> Iterator[Sites]:
    """The two sites, whose gateways forwarded nothing before."""
    with topology(f"gxt{os.getpid() % 100000}", uml=False) as network:
        found = Sites(network)
        try:
            for gateway in (found.gw_a, found.gw_b):
                for name in ("net/ipv4/conf/all", "net/ipv6/conf/all", "net/ipv6/conf/default"):
                    gateway.namespace.set_sysctl(f"{name}/forwarding", 0)
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


@pytest.fixture
def pair(bare: Sites) -> Sites:
    """Hosts that have heard nothing of paths, and can hear."""
    for host in (bare.site_a, bare.site_b):
        forget_paths(host)
    return bare


def join(sites: Sites, extra: str = "") -> None:
    """Apply, and wait for the way between the sites, both families."""
    sites.gw_a.apply(config_for("a", key=extra))
    sites.gw_b.apply(config_for("b", key=extra))
    for _, there in HOSTS.values():
        assert wait_until(partial(reaches, sites.site_a, there))


def reaches(host: Namespace, address: str) -> bool:
    return ping(host, address, "-W", "1", count=1) == 1


def forget_paths(host: Namespace) -> None:
    for version in ("-4", "-6"):
        host.run(["ip", version, "route", "flush", "cache"])
    # And what it has learned of a destination's connections.
    host.run(["ip", "tcp_metrics", "flush", "all"])


@contextmanager
def deaf(*hosts: Namespace) -> Iterator[None]:
    """Hosts that hear of no packet that was too big."""
    try:
        for host in hosts:
            host.run(["nft", "-f", "-"], stdin=NO_ICMP)
        yield
    finally:
        for host in hosts:
            host.run(["nft", "delete", "table", "inet", "deaf"], check=False)


def unheard(host: Namespace) -> int:
    """Messages that a deaf host got."""
    shown = json.loads(host.run(["nft", "-j", "list", "counter", "inet", "deaf", "errors"]).stdout)
    return int(shown["nftables"][1]["counter"]["packets"])


def path_mtu(host: Namespace, address: str) -> int | None:
    """What a host has heard of the way to an address, in bytes."""
    text = host.run(["ip", "route", "get", address]).stdout
    found = re.search(r" mtu (\d+)", text)
    return int(found[1]) if found else None


def too_big(sites: Sites) -> int:
    return sum(gateway.passes().get("too_big", 0) for gateway in (sites.gw_a, sites.gw_b))


@contextmanager
def connected(sites: Sites, family: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a new connection from site-a to site-b."""
    address = HOSTS[family][1]
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    server = sites.site_b.call(lambda: socket.create_server((address, 0), family=kind))
    with server:
        end = (address, server.getsockname()[1])
        with sites.site_a.call(lambda: socket.create_connection(end, 5)) as client:
            accepted, _ = server.accept()
            with accepted:
                yield client, accepted


def agreed_mss(sites: Sites, family: str) -> int:
    """What both ends of a new connection agree on, timestamps added."""
    with connected(sites, family) as ends:
        [found] = {end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for end in ends}
    return found + TIMESTAMPS


@FAMILIES
def test_a_host_that_did_not_forward_answers(pair: Sites, family: str) -> None:
    """Duties 18, 26: where nothing was forwarded before, senders are told; and after, nothing."""
    here, there = HOSTS[family]
    pair.gw_a.down()
    pair.gw_b.down()
    for name in ("ipv4/conf/all", "ipv6/conf/all"):
        assert pair.gw_a.run(["cat", f"/proc/sys/net/{name}/forwarding"]).stdout == "0\n"
    assert ping(pair.site_a, there, "-W", "1", count=1) == 0
    join(pair)
    for host, address in ((pair.site_a, there), (pair.site_b, here)):
        assert path_mtu(host, address) is None
        headers = {"ipv4": 28, "ipv6": 48}[family]
        too_long = ["-M", "do", "-s", str(MTU + 1 - headers), "-W", "1"]
        assert ping(host, address, *too_long, count=1) == 0
        assert path_mtu(host, address) == MTU
        fits = ["-M", "do", "-s", str(MTU - headers)]
        assert ping(host, address, *fits) == 3


@FAMILIES
def test_clamping_alone(pair: Sites, family: str) -> None:
    """Duty 27: 20 MB either way between hosts that hear no ICMP error; no packet is too big."""
    join(pair)
    here, there = HOSTS[family]
    before = too_big(pair)
    with deaf(pair.site_a, pair.site_b):
        assert agreed_mss(pair, family) == MSS[family][1]
        assert transfer(pair.site_a, pair.site_b, there, SIZE, timeout_s=20)
        assert transfer(pair.site_b, pair.site_a, here, SIZE, timeout_s=20)
        assert unheard(pair.site_a) == unheard(pair.site_b) == 0
    assert too_big(pair) == before


@FAMILIES
def test_path_mtu_discovery_alone(pair: Sites, family: str) -> None:
    """Duty 18: without clamping 20 MB arrive either way, as both gateways tell the senders."""
    join(pair, "mss_clamp = false")
    here, there = HOSTS[family]
    assert agreed_mss(pair, family) == MSS[family][0]
    for source, sink, address, gateway in (
        (pair.site_a, pair.site_b, there, pair.gw_a),
        (pair.site_b, pair.site_a, here, pair.gw_b),
    ):
        # A host that knows the path asks its peer for short segments.
        forget_paths(sink)
        before = gateway.passes().get("too_big", 0)
        assert transfer(source, sink, address, SIZE, timeout_s=20)
        assert gateway.passes()["too_big"] > before
        assert path_mtu(source, address) == MTU


@FAMILIES
def test_neither_is_a_black_hole(pair: Sites, family: str) -> None:
    """That the two tests above can tell: without clamping and ICMP no full segment arrives."""
    join(pair, "mss_clamp = false")
    with deaf(pair.site_a, pair.site_b), connected(pair, family) as (client, accepted):
        client.sendall(bytes(8000))
        accepted.settimeout(1)
        with pytest.raises(TimeoutError):
            accepted.recv(1)
        assert unheard(pair.site_a) > 0
    assert path_mtu(pair.site_a, HOSTS[family][1]) is None


@FAMILIES
@pytest.mark.parametrize("size", [1453, 4000, 60_000])
def test_datagrams_arrive_whole(pair: Sites, family: str, size: int) -> None:
    """Duty 18: IPv4 without DF is fragmented for the tunnel; IPv6 by the host, once it was told."""
    join(pair)
    here, there = HOSTS[family]
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    drops = losses(pair)
    for source, sink, address in (
        (pair.site_a, pair.site_b, there),
        (pair.site_b, pair.site_a, here),
    ):
        with (
            sink.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)) as receiver,
            source.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)) as sender,
        ):
            receiver.bind((address, 0))
            end = (address, receiver.getsockname()[1])
            if family == "ipv4":
                sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            else:
                # The first one tells the host what fits.
                sender.sendto(bytes(size), end)
                assert wait_until(partial(has_heard, source, address))
            payload = os.urandom(size)
            sender.sendto(payload, end)
            receiver.settimeout(5)
            # The first one arrives as well where the host has known what fits.
            while (received := receiver.recv(1 << 16)) == bytes(size):
                continue
            assert received == payload
            # An IPv4 host that lets routers fragment is told nothing.
            assert path_mtu(source, address) == {"ipv4": None, "ipv6": MTU}[family]
    assert losses(pair) == drops


def losses(pair: Sites) -> list[dict[str, int]]:
    """What both gateways have dropped, but for what is not answered any more: it was too big."""
    found = [pair.gw_a.drops(), pair.gw_b.drops()]
    for each in found:
        each.pop("too_big_unanswered", None)
    return found


def has_heard(host: Namespace, address: str) -> bool:
    return path_mtu(host, address) == MTU
