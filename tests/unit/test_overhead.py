"""The arithmetic of headers, against numbers that every GRE guide prints."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

import pytest

from gre_xdp.model import Tunnel
from gre_xdp.overhead import Transfer, headers, mss, overhead_bytes, transfer, tunnel_mtu

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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"outer IPv4": 20, "GRE": 4}),
        ({"ikey": 7, "icsum": True, "iseq": True}, {"outer IPv4": 20, "GRE": 4}),
        ({"okey": 0}, {"outer IPv4": 20, "GRE": 4, "GRE key": 4}),
        (
            {"ocsum": True, "okey": 1, "oseq": True},
            {"outer IPv4": 20, "GRE": 4, "GRE checksum": 4, "GRE key": 4, "GRE sequence": 4},
        ),
        (
            {**IPV6, "oseq": True, "payload": "ethernet"},
            {"outer IPv6": 40, "GRE": 4, "GRE sequence": 4, "inner Ethernet": 14},
        ),
    ],
    ids=["plain", "received-only", "key-0", "full", "ethernet"],
)
def test_headers_by_name(change: dict[str, Any], expected: dict[str, int]) -> None:
    """Duty 6: in the order in which they stand on the wire."""
    found = headers(PLAIN.model_copy(update=change))
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(("change", "overhead", "mtu"), TUNNELS)
def test_headers_add_up(change: dict[str, Any], overhead: int, mtu: int) -> None:
    """The parts are the whole."""
    assert sum(headers(PLAIN.model_copy(update=change)).values()) == overhead


@pytest.mark.parametrize(
    ("payload_bytes", "family", "change", "expected"),
    [
        # 150,000 bytes are 102.7 segments of 1,460 bytes, or 104.5 of 1,436.
        (150_000, 4, None, Transfer(103, 150_000 + 103 * 40)),
        (150_000, 4, {}, Transfer(105, 150_000 + 105 * 64)),
        (150_000, 4, {"okey": 1}, Transfer(105, 150_000 + 105 * 68)),
        (150_000, 4, IPV6, Transfer(106, 150_000 + 106 * 84)),
        (150_000, 6, None, Transfer(105, 150_000 + 105 * 60)),
        (150_000, 6, {}, Transfer(106, 150_000 + 106 * 84)),
        (1, 4, {}, Transfer(1, 65)),
        (1436, 4, {}, Transfer(1, 1500)),
        (1437, 4, {}, Transfer(2, 1437 + 2 * 64)),
        (0, 4, {}, Transfer(0, 0)),
    ],
)
def test_a_transfer(
    payload_bytes: int, family: Literal[4, 6], change: dict[str, Any] | None, expected: Transfer
) -> None:
    """103 packets of 1,500 bytes become 105 in a plain tunnel; each carries all headers."""
    tunnel = None if change is None else PLAIN.model_copy(update=change)
    assert transfer(payload_bytes, 1500, family, tunnel) == expected


@pytest.mark.parametrize(("underlay_mtu", "fits"), [(64, False), (65, True)])
def test_a_transfer_that_does_not_fit(underlay_mtu: int, fits: bool) -> None:
    """An underlay that leaves no room for a byte of TCP carries nothing."""
    if fits:
        assert transfer(2, underlay_mtu, 4, PLAIN) == Transfer(2, 130)
    else:
        with pytest.raises(ValueError, match="nothing fits into 64 bytes"):
            transfer(2, underlay_mtu, 4, PLAIN)
