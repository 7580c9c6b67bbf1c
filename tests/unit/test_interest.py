"""Which route changes the agent looks at: those that may concern a tunnel."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from gre_xdp.netlink import PROTOCOL
from gre_xdp.netlink.interest import Interest

BGP = 186
INTEREST = Interest.of(
    ends=[ip_address(end) for end in ("192.0.2.1", "198.51.100.7", "2001:db8:f::2")],
    prefixes=[ip_network(prefix) for prefix in ("10.20.0.0/16", "2001:db8:20::/48")],
)


def has_route(destination: str, protocol: int = BGP) -> bool:
    network = ip_network(destination)
    return INTEREST.has_route(protocol, network.network_address.packed, network.prefixlen)


@pytest.mark.parametrize(
    "destination",
    [
        *("0.0.0.0/0", "::/0"),
        *("198.51.100.7/32", "198.51.100.0/24", "198.51.100.6/31", "128.0.0.0/1"),
        *("2001:db8:f::2/128", "2001:db8:f::/64", "2000::/3"),
        *("192.0.2.0/30", "10.20.0.0/16", "2001:db8:20::/48"),
    ],
)
def test_what_leads_to_an_end_or_is_in_our_way_matters(destination: str) -> None:
    """Default routes, prefixes with a local or a remote in them, and the tunnels' own."""
    assert has_route(destination)


@pytest.mark.parametrize(
    "destination",
    [
        *("198.51.100.8/29", "198.51.100.6/32", "198.51.101.0/24", "203.0.113.0/24"),
        *("2001:db8:f::3/128", "2001:db8:e::/48", "c000::/3"),
        *("10.20.0.0/17", "10.20.1.0/24", "10.0.0.0/8", "2001:db8:20::/49"),
    ],
)
def test_what_has_nothing_to_do_with_tunnels_does_not(destination: str) -> None:
    """Neighbouring prefixes, and parts of what is routed into a tunnel."""
    assert not has_route(destination)


def test_ours_always_matter() -> None:
    """Whatever they lead to: a route of a tunnel that is no longer configured, say."""
    assert has_route("203.0.113.0/24", protocol=PROTOCOL)


def test_without_tunnels_nothing_matters_but_defaults() -> None:
    """An agent that waits for its first tunnel looks at no other routes."""
    assert not Interest().has_route(BGP, bytes([203, 0, 113, 0]), 24)
    assert Interest().has_route(BGP, bytes(4), 0)
