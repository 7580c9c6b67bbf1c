"""Resources: names that Linux takes, keys that identify, and words that people can read."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gre_xdp.netlink.routes import GATEWAY
from gre_xdp.resources import (
    CREATION_ORDER,
    Attachment,
    DataPlane,
    NextHop,
    Policy,
    Port,
    Resource,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
    state,
)
from gre_xdp.values import RESERVED_PREFIX
from strategies import device_names

ENDS = (IPv4Address("192.0.2.1"), IPv4Address("198.51.100.7"))
LONGEST = 15


@given(device_names)
def test_an_inner_name_is_a_device_name_of_ours(name: str) -> None:
    """It fits IFNAMSIZ, begins with the reserved prefix and always comes out the same."""
    inner = inner_name(name)
    assert inner.startswith(RESERVED_PREFIX)
    assert len(inner) <= LONGEST
    assert inner.isascii()
    assert not set(inner) & set("/: %")
    assert inner == inner_name(name)


@pytest.mark.parametrize(
    ("name", "inner"),
    [("fra1", "gx-fra1"), ("a", "gx-a"), ("elevenchars", "gx-elevenchars")],
)
def test_a_short_name_stays_readable(name: str, inner: str) -> None:
    """Up to eleven characters the tunnel's name follows the prefix unchanged."""
    assert inner_name(name) == inner


@given(st.lists(device_names, min_size=2, max_size=50, unique=True))
def test_different_tunnels_have_different_inner_names(names: list[str]) -> None:
    """Whatever they are called."""
    assert len({inner_name(name) for name in names}) == len(names)


@given(st.lists(st.from_regex(r"customer-00[0-9]{4}", fullmatch=True), min_size=2, unique=True))
def test_long_names_that_begin_alike_have_different_inner_names(names: list[str]) -> None:
    """The part that does not fit still counts."""
    assert len({inner_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("scheme", ["customer-{:05}", "branch-{:08}", "tunnel-to-{:05}"])
def test_as_many_tunnels_as_there_may_be_have_different_inner_names(scheme: str) -> None:
    """32768 tunnels named by number, in more characters than fit, do not collide."""
    names = [scheme.format(number) for number in range(32768)]
    inner: dict[str, str] = {}
    twins = [(name, inner.setdefault(inner_name(name), name)) for name in names]
    assert [(name, other) for name, other in twins if name != other] == []


@pytest.mark.parametrize("long_name", ["frankfurt-main", "exactly13char", "a-tunnel-with15"])
def test_no_short_name_has_the_inner_name_of_a_long_one(long_name: str) -> None:
    """A tunnel named like the rest of another's inner end gets an inner end of its own."""
    short_name = inner_name(long_name).removeprefix(RESERVED_PREFIX)
    assert inner_name(short_name) != inner_name(long_name)


def tunnel(ikey: int | None = None, okey: int | None = None, **changes: object) -> TunnelEntry:
    values: dict[str, object] = {"ttl": 64, "tos": "inherit", "pmtudisc": True, "mtu": 1476}
    return TunnelEntry("fra1", "fra1", *ENDS, ikey, okey, **(values | changes))  # type: ignore[arg-type]  # as the table says


_TUNNEL = "fra1 local 192.0.2.1 remote 198.51.100.7"

# Resource, its key, and how it prints.
PRINTED: list[tuple[Resource, str, str]] = [
    (Sysctl("ipv4/conf/eth0/forwarding", "1"), "sysctl ipv4/conf/eth0/forwarding", "= 1"),
    (DataPlane("0123456789ab"), "programs", "programs 0123456789ab"),
    (Policy("drop"), "policy", "unknown_gre = drop"),
    (TunnelDevice("fra1", 1476), "device fra1", "fra1 mtu 1476"),
    (TunnelDevice("fra1", 1476, is_ready=False), "device fra1", "fra1 mtu 1476 (not ready)"),
    (TunnelDevice("tap1", 1462, "ethernet"), "device tap1", "tap1 ethernet mtu 1462"),
    (Target("eth0"), "target eth0", "eth0"),
    (
        Attachment("eth0", "port", "native", "0123456789ab"),
        "attachment eth0",
        "eth0 program port 0123456789ab mode native",
    ),
    (Port("eth0", "02:00:00:00:00:01"), "port eth0", "eth0 02:00:00:00:00:01"),
    (
        Port("eth0.5", "02:00:00:00:00:01", "eth0", ((0x8100, 5),), is_bound=False),
        "port eth0.5",
        "eth0.5 02:00:00:00:00:01 vlan 5 on eth0 (incomplete)",
    ),
    (
        Port("eth0", "02:00:00:00:00:01", has_vlans=True),
        "port eth0",
        "eth0 02:00:00:00:00:01 with vlans",
    ),
    (
        Attachment("gx-fra1", "inner", "native", "0123456789ab"),
        "attachment gx-fra1",
        "gx-fra1 program inner 0123456789ab mode native",
    ),
    (tunnel(), "tunnel fra1", f"{_TUNNEL} ttl 64 tos inherit mtu 1476 pmtudisc"),
    (tunnel(77, 77), "tunnel fra1", f"{_TUNNEL} key 77 ttl 64"),
    (tunnel(0, 0), "tunnel fra1", f"{_TUNNEL} key 0 ttl 64"),
    (tunnel(1, 2), "tunnel fra1", f"{_TUNNEL} ikey 1 okey 2 ttl 64"),
    (tunnel(0, None), "tunnel fra1", f"{_TUNNEL} ikey 0 ttl 64"),
    (tunnel(None, 0), "tunnel fra1", f"{_TUNNEL} okey 0 ttl 64"),
    (tunnel(ttl="inherit", tos=16), "tunnel fra1", "ttl inherit tos 16 mtu 1476"),
    (tunnel(payload="ethernet"), "tunnel fra1", f"{_TUNNEL} ethernet ttl 64"),
    (tunnel(pmtudisc=False), "tunnel fra1", "mtu 1476 nopmtudisc"),
    (tunnel(is_bound=False), "tunnel fra1", "pmtudisc (incomplete)"),
    (
        TunnelAddress("fra1", ip_interface("fd00:10::1/64")),
        "address fra1 fd00:10::1/64",
        "fd00:10::1/64 dev fra1",
    ),
    (
        NextHop("eth0", ip_address("192.0.2.254")),
        "neighbour eth0 192.0.2.254",
        "192.0.2.254 dev eth0 managed",
    ),
    (
        TunnelRoute(ip_network("2001:db8:20::/48"), "fra1", GATEWAY[6]),
        "route 2001:db8:20::/48",
        "2001:db8:20::/48 dev fra1",
    ),
    (
        TunnelRoute(ip_network("10.20.0.0/16"), "tap1", None),
        "route 10.20.0.0/16",
        "10.20.0.0/16 dev tap1 on link",
    ),
]


@pytest.mark.parametrize(("resource", "key", "words"), PRINTED, ids=str)
def test_a_resource_prints_as_what_people_would_type(
    resource: Resource, key: str, words: str
) -> None:
    """The key says what it is, the text everything that a change of it would change."""
    assert " ".join(resource.key) == key
    assert words in str(resource)
    assert str(resource).isprintable()


def test_every_kind_of_resource_is_printed_above_and_has_its_own_name() -> None:
    """Kinds are the first part of keys: two of one name would replace each other."""
    assert {type(resource) for resource, _, _ in PRINTED} == set(CREATION_ORDER)
    assert set(get_args(Resource)) == set(CREATION_ORDER)
    assert len({kind.kind for kind in CREATION_ORDER}) == len(CREATION_ORDER)


def test_resources_that_differ_print_differently() -> None:
    """An update whose two sides read the same would explain nothing."""
    texts = [(str(resource), resource.key) for resource, _, _ in PRINTED]
    assert len(set(texts)) == len(texts)


def test_a_route_is_known_by_its_destination_alone() -> None:
    """The same destination by another tunnel is the same route, changed."""
    destination = ip_network("10.20.0.0/16")
    assert TunnelRoute(destination, "fra1", None).key == TunnelRoute(destination, "fra2", None).key


def test_a_state_keeps_the_order_of_its_list() -> None:
    """The order among equals is that of the list."""
    resources: list[Resource] = [Sysctl(path, "1") for path in ("b", "c", "a")]
    assert list(state(resources).values()) == resources
