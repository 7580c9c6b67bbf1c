"""The arithmetic of headers, against numbers that every GRE guide prints."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from gre_xdp.model import Tunnel
from gre_xdp.overhead import mss, overhead_bytes, tunnel_mtu

PLAIN = Tunnel(name="fra1", local=ip_address("192.0.2.1"), remote=ip_address("198.51.100.7"))
IPV6 = {"local": ip_address("2001:db8::1"), "remote": ip_address("2001:db8::2")}

# What differs from PLAIN, bytes of headers, and the MTU over an underlay of 1500.
TUNNELS: list[tuple[dict[str, Any], int, int]] = [
    ({}, 24, 1476),
    ({"okey": 77}, 28, 1472),
    ({"okey": 0}, 28, 1472),
    ({"ikey": 77}, 24, 1476),
    ({"icsum": True, "iseq": True}, 24, 1476),
    ({"ocsum": True}, 28, 1472),
    ({"oseq": True}, 28, 1472),
    ({"ocsum": True, "okey": 1, "oseq": True}, 36, 1464),
    ({"payload": "ethernet"}, 38, 1462),
    (IPV6, 44, 1456),
    ({**IPV6, "okey": 1}, 48, 1452),
    ({**IPV6, "payload": "ethernet"}, 58, 1442),
]


@pytest.mark.parametrize(("change", "overhead", "mtu"), TUNNELS)
def test_headers_of_sent_packets_reduce_the_mtu(
    change: dict[str, Any], overhead: int, mtu: int
) -> None:
    """Only what is sent takes room, and key 0 takes as much as any other key."""
    # model_copy does not validate: the arithmetic is ahead of what the data plane supports.
    tunnel = PLAIN.model_copy(update=change)
    assert overhead_bytes(tunnel) == overhead
    assert tunnel_mtu(1500, tunnel) == mtu


@pytest.mark.parametrize(
    ("mtu", "ipv4", "ipv6"), [(1500, 1460, 1440), (1476, 1436, 1416), (1456, 1416, 1396)]
)
def test_mss_is_the_mtu_less_fixed_headers(mtu: int, ipv4: int, ipv6: int) -> None:
    """IPv4 and TCP take 40 bytes, IPv6 and TCP 60."""
    assert (mss(mtu, 4), mss(mtu, 6)) == (ipv4, ipv6)
