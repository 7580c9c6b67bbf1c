"""What the model accepts, what it makes of it, and what it refuses on which key."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.values import Loc
from strategies import configs, device_names

ENDS = {"local": "192.0.2.1", "remote": "198.51.100.7"}
FRA1 = {"name": "fra1", **ENDS}
FRA2 = {"name": "fra2", "local": "192.0.2.1", "remote": "198.51.100.8"}


def refusals(model: type[Config | Tunnel | Interface], value: Any) -> dict[Loc, str]:
    """Every mistake the model finds, by its place."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return {detail["loc"]: detail["msg"] for detail in caught.value.errors()}


def tunnel_with(**keys: Any) -> Tunnel:
    return Tunnel.model_validate({**FRA1, **keys})


def config_with(*tunnels: dict[str, Any]) -> dict[str, Any]:
    return {"interface": [{"name": "eth0"}], "tunnel": list(tunnels)}


def test_an_empty_configuration_asks_for_nothing() -> None:
    """Neither interfaces nor tunnels are needed."""
    config = Config.model_validate({})
    assert config == Config(interfaces=(), tunnels=())
    assert config.unknown_gre is None
    assert (config.bypass_firewall, config.drift) == (False, "repair")
    assert config.exporter == "127.0.0.1:9747"


def test_defaults_are_the_documented_ones() -> None:
    """Name, local and remote are enough."""
    assert tunnel_with() == Tunnel(
        name="fra1",
        local=ip_address("192.0.2.1"),
        remote=ip_address("198.51.100.7"),
        backing="veth",
        payload="ip",
        ikey=None,
        okey=None,
        icsum=False,
        ocsum=False,
        iseq=False,
        oseq=False,
        ttl=64,
        tos="inherit",
        pmtudisc=True,
        mtu="auto",
        mss_clamp=True,
        addresses=(),
        routes=(),
        allowed_sources=(),
    )
    assert Interface(name="eth0").mode == "native"


ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"ikey": None, "okey": None}),
    ({"key": 77}, {"ikey": 77, "okey": 77}),
    ({"key": 0}, {"ikey": 0, "okey": 0}),
    ({"key": 2**32 - 1}, {"ikey": 2**32 - 1}),
    ({"key": "0.0.0.77"}, {"ikey": 77, "okey": 77}),
    ({"key": "255.255.255.255"}, {"okey": 2**32 - 1}),
    ({"ikey": 1}, {"ikey": 1, "okey": None}),
    ({"ikey": 1, "okey": "1.0.0.0"}, {"ikey": 1, "okey": 2**24}),
    ({"csum": False, "seq": False}, {"icsum": False, "ocsum": False, "iseq": False}),
    ({"ttl": 1, "tos": 0}, {"ttl": 1, "tos": 0}),
    ({"ttl": 255, "tos": 255}, {"ttl": 255, "tos": 255}),
    ({"ttl": "inherit"}, {"ttl": "inherit"}),
    ({"mtu": 68}, {"mtu": 68}),
    ({"mtu": 65535}, {"mtu": 65535}),
    ({"mss_clamp": False}, {"mss_clamp": False}),
    ({"mss_clamp": 1400}, {"mss_clamp": 1400}),
    (
        {"addresses": ["169.254.10.1/30", "fd00:10::1/64", "10.0.0.1"]},
        {"addresses": tuple(map(ip_interface, ("169.254.10.1/30", "fd00:10::1/64", "10.0.0.1")))},
    ),
    (
        {"routes": ["10.20.0.0/16", "::/0", "10.0.0.1"]},
        {"routes": tuple(map(ip_network, ("10.20.0.0/16", "::/0", "10.0.0.1/32")))},
    ),
]


@pytest.mark.parametrize(("keys", "expected"), ACCEPTED)
def test_values_are_normalised(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each spelling of a value becomes the one value that the rest of the project asks for."""
    tunnel = tunnel_with(**keys)
    assert {name: getattr(tunnel, name) for name in expected} == expected


def test_a_shorthand_is_forgotten_once_resolved() -> None:
    """A tunnel does not remember whether key or ikey and okey were written."""
    assert tunnel_with(key=7) == tunnel_with(ikey=7, okey=7)
    assert hash(tunnel_with(key=7)) == hash(tunnel_with(ikey=7, okey=7))
    assert not hasattr(tunnel_with(key=7), "key")


def test_values_do_not_change() -> None:
    """Every value is frozen."""
    with pytest.raises(ValidationError):
        tunnel_with().__setattr__("ttl", 1)


NOT_ON_A_TUNNEL: list[tuple[str, Any, str]] = [
    *[("name", name, "1 to 15") for name in ("", "a" * 16, 7, None, ["fra1"])],
    *[("name", name, "no such device name") for name in (".", "..", "a/b", "a:b", "a b", "a\n")],
    *[("name", name, "no such device name") for name in ("fr\xe01", "gre%d", "\x00", "a\x7f")],
    *[("name", name, "another meaning") for name in ("all", "default", "lo")],
    ("name", "gx-fra1", "gre-xdp makes itself"),
    *[("local", ip, "not an IP address") for ip in ("", "192.0.2.1/24", "192.0.2", "x", 1, None)],
    *[("local", ip, "not an IP address") for ip in ("192.0.2.01", "fe80::1%eth0", True)],
    ("remote", "0.0.0.0", "unspecified"),
    ("remote", "127.0.0.1", "loopback"),
    ("remote", "::1", "loopback"),
    ("remote", "224.0.0.1", "multicast"),
    ("remote", "ff02::1", "multicast"),
    ("remote", "255.255.255.255", "broadcast"),
    ("remote", "192.0.2.1", "also local"),
    ("remote", "fd00::1", "this is IPv6, but local = 192.0.2.1 is IPv4"),
    *[("key", key, "0 to 4294967295") for key in (-1, 2**32, True, 1.0, "77", "1.2.3", "x", [1])],
    ("ikey", "::1", "0 to 4294967295"),
    *[("ttl", hops, "from 1 to 255") for hops in (0, 256, -1, True, "64", 64.0, "auto", None)],
    *[("tos", tos, "from 0 to 255") for tos in (-1, 256, False, "0x10")],
    *[("mtu", mtu, "from 68 to 65535") for mtu in (67, 65536, True, "1476", "inherit")],
    *[("mss_clamp", mss, "from 88 to 65495") for mss in (0, 1, 87, 65496, "true", 1400.0)],
    *[("pmtudisc", flag, "boolean") for flag in (0, 1, "true", None)],
    ("backing", "gre", "Input should be"),
    ("payload", 1, "Input should be"),
    ("colour", "red", "Extra inputs"),
    ("both_key", 1, "Extra inputs"),
    *[(key, 1, "Extra inputs") for key in ("dev", "encaplimit", "fanout")],
    ("addresses", "10.0.0.1/8", "tuple"),
    ("routes", {"10.0.0.0/8": 1}, "tuple"),
]


@pytest.mark.parametrize(("key", "value", "words"), NOT_ON_A_TUNNEL)
def test_a_wrong_value_is_refused_at_its_key(key: str, value: Any, words: str) -> None:
    """One wrong value gives one mistake, at the key that holds it."""
    found = refusals(Tunnel, {**FRA1, key: value})
    assert list(found) == [(key,)]
    assert words in found[key,]


ELEMENTS: list[tuple[str, Any, str]] = [
    ("addresses", "0.0.0.0/8", "cannot have"),
    ("addresses", "224.0.0.1/8", "cannot have"),
    ("addresses", "10.0.0.1/33", "not an IP address with"),
    ("addresses", "10.0.0.1/255.0.0.0", "not an IP address with"),
    ("addresses", 7, "not an IP address with"),
    ("routes", "10.20.0.1/16", "beyond the prefix length"),
    ("routes", "2001:db8::1/32", "beyond the prefix length"),
    ("routes", "10.0.0.0/0.0.0.255", "not an IP prefix"),
    ("routes", "default", "not an IP prefix"),
    ("routes", None, "not an IP prefix"),
]


@pytest.mark.parametrize(("key", "value", "words"), ELEMENTS)
def test_a_wrong_element_is_refused_at_its_index(key: str, value: Any, words: str) -> None:
    """The second of three elements is the one that is named."""
    good = ["10.1.0.0/32", "10.2.0.0/32"]
    found = refusals(Tunnel, {**FRA1, key: [good[0], value, good[1]]})
    assert list(found) == [(key, 1)]
    assert words in found[key, 1]


def test_host_bits_come_with_the_prefix_that_was_meant() -> None:
    """The remedy is the corrected prefix."""
    with pytest.raises(ValidationError) as caught:
        tunnel_with(routes=["10.20.0.1/16"])
    assert caught.value.errors()[0]["ctx"]["remedy"] == 'write "10.20.0.0/16"'


@pytest.mark.parametrize("word", ["key", "csum", "seq"])
@pytest.mark.parametrize("way", ["i", "o"])
def test_a_shorthand_excludes_its_directions(word: str, way: str) -> None:
    """Saying the same twice is refused too: one place to change is enough."""
    value = 0 if word == "key" else False
    found = refusals(Tunnel, {**FRA1, word: value, way + word: value})
    assert found == {(way + word,): f"{word} has set both directions already"}


NOT_YET: list[dict[str, Any]] = [
    {"backing": "kernel"},
]


@pytest.mark.parametrize("keys", NOT_YET)
def test_what_the_data_plane_cannot_do_is_refused_once(keys: dict[str, Any]) -> None:
    """The key that asks for it is named, and nothing that follows from it."""
    ((loc, message),) = refusals(Tunnel, {**FRA1, **keys}).items()
    assert loc == (next(iter(keys)),)
    assert message.endswith("not supported yet by this version")


EXPORTERS = {
    "": True,
    "127.0.0.1:9747": True,
    "localhost:1": True,
    "metrics.example:65535": True,
    "[::]:9747": True,
    "[fd00::1]:9747": True,
    ":9747": False,
    "127.0.0.1": False,
    "127.0.0.1:": False,
    "127.0.0.1:0": False,
    "127.0.0.1:65536": False,
    "127.0.0.1:http": False,
    "127.0.0.1:٣": False,
    "127.0.0.256:1": False,
    "::1:9747": False,
    "[::1]": False,
    "[127.0.0.1]:1": False,
    "[fe80::1%eth0]:1": False,
    "a b:1": False,
    "-a:1": False,
}


@pytest.mark.parametrize(("text", "is_valid"), EXPORTERS.items())
def test_the_exporter_is_host_and_port_or_nothing(text: str, is_valid: bool) -> None:
    """An IPv6 host needs its brackets, and a port is between 1 and 65535."""
    if is_valid:
        assert Config(exporter=text).exporter == text
    else:
        assert list(refusals(Config, {"exporter": text})) == [("exporter",)]


CONFLICTS: dict[str, tuple[dict[str, Any], dict[Loc, str]]] = {
    "two interfaces of one name": (
        {"interface": [{"name": "eth0"}, {"name": "eth1"}, {"name": "eth0", "mode": "skb"}]},
        {("interface", 2, "name"): 'interface "eth0" has this name already'},
    ),
    "two tunnels of one name": (
        config_with(FRA1, {**FRA2, "name": "fra1"}),
        {("tunnel", 1, "name"): 'tunnel "fra1" has this name already'},
    ),
    "a tunnel with the name of an interface": (
        config_with({**FRA1, "name": "eth0"}),
        {("tunnel", 0, "name"): 'interface "eth0" has this name already'},
    ),
    "overlapping without keys": (
        config_with(FRA1, {**FRA1, "name": "fra2", "okey": 1}),
        {("tunnel", 1, "remote"): 'tunnel "fra1" has the same local and remote'},
    ),
    "overlapping with two spellings of one key": (
        config_with({**FRA1, "key": 1}, {**FRA1, "name": "fra2", "ikey": "0.0.0.1"}),
        {("tunnel", 1, "remote"): 'tunnel "fra1" has the same local and remote'},
    ),
    "one address twice": (
        config_with(
            {**FRA1, "addresses": ["10.0.0.1/30"]},
            {**FRA2, "addresses": ["fd00::1/64", "10.0.0.1/24"]},
        ),
        {("tunnel", 1, "addresses", 1): 'tunnel "fra1" has this address already'},
    ),
    "one route twice": (
        config_with({**FRA1, "routes": ["10.0.0.0/8"]}, {**FRA2, "routes": ["10.0.0.0/8"]}),
        {("tunnel", 1, "routes", 0): 'tunnel "fra1" has this route already'},
    ),
    "a remote routed through its own tunnel": (
        config_with({**FRA1, "routes": ["10.0.0.0/8", "198.51.100.7/32"]}),
        {("tunnel", 0, "routes", 1): 'this is the remote of tunnel "fra1"'},
    ),
    "a remote routed through another tunnel": (
        config_with({**FRA1, "routes": ["198.51.100.8"]}, FRA2),
        {("tunnel", 0, "routes", 0): 'this is the remote of tunnel "fra2"'},
    ),
    "a remote on the link of its own tunnel": (
        config_with({**FRA1, "addresses": ["198.51.100.1/24"]}),
        {("tunnel", 0, "addresses", 0): "198.51.100.0/24 holds the tunnel's own remote"},
    ),
    "a shared device with the name of a tunnel": (
        config_with(FRA1, {**FRA2, "device": "fra1", "nexthop": "10.255.0.1"}),
        {("tunnel", 1, "device"): 'tunnel "fra1" has this name already'},
    ),
    "a shared device with the name of an interface": (
        config_with({**FRA1, "device": "eth0", "nexthop": "10.255.0.1"}),
        {("tunnel", 0, "device"): 'interface "eth0" has this name already'},
    ),
    "a shared device without a next hop": (
        config_with({**FRA1, "device": "pop0"}),
        {("tunnel", 0, "device"): "the tunnel shares pop0, and nothing says which"},
    ),
    "one next hop twice": (
        config_with(
            {**FRA1, "device": "pop0", "nexthop": ["fd00::1", "10.255.0.1"]},
            {**FRA2, "device": "pop0", "nexthop": "10.255.0.1"},
        ),
        {("tunnel", 1, "nexthop"): 'tunnel "fra1" has this next hop already'},
    ),
    "a next hop that is an address of the device": (
        config_with(
            {**FRA1, "device": "pop0", "nexthop": "10.255.0.1"},
            {**FRA2, "device": "pop0", "nexthop": "10.255.0.2", "addresses": ["10.255.0.1/32"]},
        ),
        {("tunnel", 0, "nexthop"): "10.255.0.1 is an address of the device itself"},
    ),
    "an IPv6 route by a next hop of IPv4": (
        config_with(
            {**FRA1, "device": "pop0", "nexthop": "10.255.0.1", "routes": ["2001:db8::/32"]}
        ),
        {("tunnel", 0, "routes", 0): "2001:db8::/32 is IPv6, and nexthop is IPv4"},
    ),
    "tunnels without an interface": (
        {"tunnel": [FRA1]},
        {("tunnel",): "there is no [[interface]]"},
    ),
    "several at once": (
        {"tunnel": [FRA1, {**FRA1, "addresses": ["198.51.100.7/31"]}]},
        {
            ("tunnel",): "there is no [[interface]]",
            ("tunnel", 1, "name"): 'tunnel "fra1" has this name already',
            ("tunnel", 1, "remote"): 'tunnel "fra1" has the same local and remote',
            ("tunnel", 1, "addresses", 0): "198.51.100.6/31 holds",
        },
    ),
}


@pytest.mark.parametrize(("value", "expected"), CONFLICTS.values(), ids=CONFLICTS)
def test_what_contradicts_another_table_is_refused(
    value: dict[str, Any], expected: dict[Loc, str]
) -> None:
    """All conflicts are found at once, each at the later place and naming the earlier one."""
    found = refusals(Config, value)
    assert found.keys() == expected.keys()
    assert all(found[loc].startswith(words) for loc, words in expected.items())


NEIGHBOURS: dict[str, dict[str, Any]] = {
    "one pair, other keys": config_with(FRA1, {**FRA1, "name": "fra2", "key": 0}),
    "one pair, the other way round": config_with(
        FRA1, {"name": "fra2", "local": ENDS["remote"], "remote": ENDS["local"]}
    ),
    "a link-local address on two links": config_with(
        {**FRA1, "addresses": ["fe80::1/64"]}, {**FRA2, "addresses": ["fe80::1/64"]}
    ),
    "a wider route over a remote": config_with({**FRA1, "routes": ["198.51.100.0/24"]}),
    "a wider route that begins at a remote": config_with({**FRA2, "routes": ["198.51.100.8/29"]}),
    "a default route": config_with({**FRA1, "routes": ["0.0.0.0/0", "::/0"]}),
    "one next hop on two devices": config_with(
        {**FRA1, "device": "pop0", "nexthop": "10.255.0.1"},
        {**FRA2, "device": "pop1", "nexthop": "10.255.0.1"},
    ),
    "an IPv4 route by a next hop of IPv6": config_with(
        {**FRA1, "device": "pop0", "nexthop": "fd00::1", "routes": ["10.0.0.0/8"]}
    ),
    "a host route to something else": config_with({**FRA1, "routes": ["198.51.100.9/32"]}),
}


@pytest.mark.parametrize("value", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_what_only_looks_like_a_conflict_is_accepted(value: dict[str, Any]) -> None:
    """Tunnels may share what does not make them ambiguous."""
    assert len(Config.model_validate(value).tunnels) == len(value["tunnel"])


@given(configs())
def test_any_valid_configuration_survives_its_own_values(config: Config) -> None:
    """Validating what a configuration holds gives an equal configuration."""
    assert Config.model_validate(config.model_dump()) == config


@given(device_names)
def test_any_valid_name_serves_both_tables(name: str) -> None:
    """Interfaces and tunnels have one rule for names."""
    assert Interface(name=name).name == tunnel_with(name=name).name == name
