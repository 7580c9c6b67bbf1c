"""Frames of several pages: an underlay and LANs of 9,000 bytes.

site-a ── gw-a ═══ underlay, MTU 9000 ═══ gw-b ── site-b
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gre_xdp.lab.lab import topology
from gre_xdp.lab.topology import Topology
from netns_helpers import Sites, config_for, ping, transfer

ADDRESSES = {"ipv4": "10.2.0.2", "ipv6": "2001:db8:b::2"}
OPTIONS = {"plain": "", "full": "key = 7\ncsum = true\nseq = true"}


@pytest.fixture(scope="module")
def bare() -> Iterator[Sites]:
    plain = topology(f"gxj{os.getpid() % 100000}", uml=False)
    wide = [replace(link, mtu=9000) for link in plain.links]
    with Topology(plain.prefix, plain._nodes, wide) as network:
        sites = Sites(network)
        try:
            yield sites
        finally:
            sites.gw_a.down()
            sites.gw_b.down()


@pytest.fixture(scope="module", params=OPTIONS.values(), ids=OPTIONS)
def jumbo(bare: Sites, request: pytest.FixtureRequest) -> Sites:
    bare.gw_a.apply(config_for("a", key=request.param))
    bare.gw_b.apply(config_for("b", key=request.param))
    return bare


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_full_size_packets_and_streams(jumbo: Sites, address: str) -> None:
    """9,000 bytes less the headers, in one piece, by ping, UDP and TCP; nothing is dropped."""
    mtu = jumbo.gw_a.tunnel().mtu
    assert mtu == 8976 - (12 if jumbo.gw_a.tunnel().okey else 0)
    headers = 48 if ":" in address else 28
    drops = jumbo.gw_a.drops(), jumbo.gw_b.drops()
    assert ping(jumbo.site_a, address, "-M", "do", "-s", str(mtu - headers)) == 3
    assert transfer(jumbo.site_a, jumbo.site_b, address, 20 << 20)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        jumbo.site_b.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sink,
        jumbo.site_a.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as source,
    ):
        sink.bind((address, 0))
        sink.settimeout(5)
        payload = os.urandom(mtu - headers)
        source.sendto(payload, (address, sink.getsockname()[1]))
        assert sink.recv(10000) == payload
    assert (jumbo.gw_a.drops(), jumbo.gw_b.drops()) == drops


def test_the_mss_is_that_of_the_tunnel(jumbo: Sites) -> None:
    """TCP sends segments of nearly 9,000 bytes."""
    mtu = jumbo.gw_a.tunnel().mtu
    with jumbo.site_b.call(lambda: socket.create_server(("10.2.0.2", 0))) as server:
        port = server.getsockname()[1]
        with jumbo.site_a.call(lambda: socket.create_connection(("10.2.0.2", port), 5)) as client:
            timestamps = 12
            found = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert found == mtu - 40 - timestamps
