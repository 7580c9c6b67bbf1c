"""From configuration and facts to the desired state: what is refused, and what is computed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from gre_xdp import errors
from gre_xdp.desired import desire
from gre_xdp.device_settings import ALIAS
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.model import Config
from gre_xdp.netlink.routes import GATEWAY
from gre_xdp.plan import plan
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Policy,
    Port,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
)
from hosts import (
    ETH0,
    ETH1,
    NEAR_REMOTE,
    OTHER_REMOTE,
    REMOTE,
    chain,
    config,
    host,
    link,
    neighbour,
    path,
    route,
    tunnel,
    tunnel_pair,
)

DIGEST = "0123456789ab"


def desired(asked: Config, found: Host, remembered: dict[str, str] | None = None) -> list[Any]:
    memory = Memory(Path("/nowhere/1.json"), dict(remembered or {}))
    wanted = desire(asked, found, memory, DIGEST)
    if wanted.refusals:
        raise wanted.refusals[0].error
    return list(wanted.state.values())


def of_kind(kind: type[Any], asked: Config, found: Host) -> list[Any]:
    return [resource for resource in desired(asked, found) if isinstance(resource, kind)]


def with_pair(name: str = "fra1", **changes: Any) -> Host:
    """A host that has a tunnel's device already."""
    return host(*tunnel_pair(name, 10).values(), **changes)


def test_the_whole_state_of_one_tunnel() -> None:
    """Everything that a configuration asks for, and nothing else."""
    asked = config(
        tunnel(
            key=77,
            addresses=["169.254.10.1/30", "fd00:10::1/64"],
            routes=["10.20.0.0/16", "2001:db8:20::/48"],
        )
    )
    assert desired(asked, host()) == [
        Sysctl("ipv4/conf/eth0/forwarding", "1"),
        Sysctl("ipv4/conf/eth1/forwarding", "1"),
        Sysctl("ipv6/conf/eth0/forwarding", "1"),
        Sysctl("ipv6/conf/eth0/force_forwarding", "1"),
        Sysctl("ipv6/conf/eth1/forwarding", "1"),
        Sysctl("ipv6/conf/eth1/force_forwarding", "1"),
        DataPlane(DIGEST),
        Policy("drop"),
        Port("eth0", ETH0.mac),
        Target("eth0"),
        Attachment("eth0", "port", "native", DIGEST),
        Port("eth1", ETH1.mac),
        Target("eth1"),
        Attachment("eth1", "port", "native", DIGEST),
        TunnelDevice("fra1", 1472),
        TunnelEntry(
            name="fra1",
            device="fra1",
            local=IPv4Address("192.0.2.1"),
            remote=IPv4Address("198.51.100.7"),
            ikey=77,
            okey=77,
            ttl=64,
            tos="inherit",
            pmtudisc=True,
            mtu=1472,
            mss_ipv4=1432,
            mss_ipv6=1412,
        ),
        Target("gx-fra1"),
        Attachment("gx-fra1", "inner", "native", DIGEST),
        TunnelAddress("fra1", ip_interface("169.254.10.1/30")),
        TunnelAddress("fra1", ip_interface("fd00:10::1/64")),
        TunnelRoute(ip_network("10.20.0.0/16"), "fra1", GATEWAY[4]),
        TunnelRoute(ip_network("2001:db8:20::/48"), "fra1", GATEWAY[6]),
        NextHop("eth0", ip_address("192.0.2.254")),
    ]


def test_an_interface_that_does_not_exist_yet_is_pending() -> None:
    """It is waited for, and all the rest is there."""
    asked = config(tunnel(), interface=[{"name": "eth0"}, {"name": "eth7"}])
    wanted = desire(asked, host(), Memory(Path("/nowhere/1.json")), DIGEST)
    assert wanted.pending == {"interface eth7": "there is no such interface yet"}
    assert wanted.refusals == []
    without = config(tunnel(), interface=[{"name": "eth0"}])
    assert wanted.state == desire(without, host(), Memory(Path("/nowhere/1.json")), DIGEST).state


def test_a_renamed_interface_is_followed() -> None:
    """The device that was attached stays so, whatever it is called now, and the file is told."""
    asked = config(tunnel(), interface=[{"name": "eth0"}, {"name": "lan0"}])
    memory = Memory(Path("/nowhere/1.json"), interfaces={ETH0.index: "eth0", ETH1.index: "lan0"})
    wanted = desire(asked, host(), memory, DIGEST)
    assert list(wanted.pending) == ["interface lan0"]
    assert "eth1" in wanted.pending["interface lan0"]
    assert wanted.interfaces == memory.interfaces
    assert wanted.state == desire(config(tunnel()), host(), memory, DIGEST).state


def test_a_refused_tunnel_is_held_and_others_go_on() -> None:
    """What is there of it stays as it is; nothing else of the plan is touched by that."""
    asked = config(tunnel(), tunnel(name="fra2", remote=str(OTHER_REMOTE), routes=["10.9.0.0/16"]))
    memory = Memory(Path("/nowhere/1.json"))
    good = desire(asked, host(), memory, DIGEST)
    taken = host(routes=(route("10.9.0.0/16", ifindex=ETH1.index),))
    wanted = desire(asked, taken, memory, DIGEST)
    (refusal,) = wanted.refusals
    assert (refusal.tunnel, type(refusal.error)) == ("fra2", errors.ForeignError)
    assert not [key for key in wanted.state if "fra2" in " ".join(key)]
    wanted.hold(good.state)
    assert plan(wanted.state, good.state) == []


def test_an_empty_configuration_attaches_nothing() -> None:
    """Neither interfaces nor tunnels: only the data plane itself is there."""
    assert desired(Config(), host()) == [DataPlane(DIGEST), Policy("drop")]


def test_what_is_desired_depends_on_nothing_but_the_facts() -> None:
    """Asking twice gives one answer, and its plan is empty."""
    asked, found = config(tunnel(routes=["10.20.0.0/16"])), host()
    memory = Memory(Path("/nowhere/1.json"))
    first, second = (desire(asked, found, memory, DIGEST).state for _ in range(2))
    assert plan(first, second) == []
    assert memory.sysctls == {}


def test_values_of_a_tunnel_reach_its_entry() -> None:
    """What the data path shall do is what the configuration says."""
    asked = config(tunnel(ikey=0, okey=5, ttl="inherit", tos=16, pmtudisc=False, mtu=1400))
    (entry,) = of_kind(TunnelEntry, asked, host())
    assert (entry.ikey, entry.okey) == (0, 5)
    assert (entry.ttl, entry.tos, entry.pmtudisc) == ("inherit", 16, False)
    assert entry.mtu == 1400


def test_an_interface_is_attached_in_the_mode_that_was_asked_for() -> None:
    """The mode never falls back; inner ends are veth and always native."""
    asked = config(tunnel(), interface=[{"name": "eth0", "mode": "skb"}])
    assert of_kind(Attachment, asked, host()) == [
        Attachment("eth0", "port", "skb", DIGEST),
        Attachment("gx-fra1", "inner", "native", DIGEST),
    ]


# --- refusals -------------------------------------------------------------------------------------

ONE_ROUTE = config(tunnel(routes=["10.20.0.0/16"]))
OWN_24 = host(paths={REMOTE: path(matched="198.51.100.0/24")})
OWN_32 = host(paths={REMOTE: path(matched="198.51.100.7/32")})
BOTH_24 = host(
    paths={
        REMOTE: path(matched="198.51.100.0/24"),
        OTHER_REMOTE: path(matched="198.51.100.0/24"),
    }
)
TWO = [tunnel(), tunnel("fra2", remote=str(OTHER_REMOTE))]


def two(**keys: Any) -> Config:
    """Tunnels fra1 and fra2, the second one with more keys."""
    return config(TWO[0], TWO[1] | keys)


# Configuration, facts, the error, where it is, and words that its message must hold.
REFUSED: dict[str, tuple[Config, Host, type[errors.GreXdpError], str, list[str]]] = {
    "foreign XDP program": (
        config(),
        host(xdp_owners={"eth1": "program xdp_lb (id 17), held by katran (pid 123)"}),
        errors.ForeignError,
        'interface "eth1"',
        ["eth1", "xdp_lb", "id 17", "katran", "pid 123"],
    ),
    "device name taken by a bridge": (
        config(tunnel()),
        host(link("fra1", 9, kind="bridge")),
        errors.ForeignError,
        'tunnel "fra1"',
        ["fra1", "bridge", "not ours"],
    ),
    "device name taken by a kernel tunnel": (
        config(tunnel()),
        host(link("fra1", 9, kind="gre")),
        errors.ForeignError,
        'tunnel "fra1"',
        ["fra1", "gre", "not ours"],
    ),
    "device name taken by hardware": (
        config(tunnel("wlan0")),
        host(link("wlan0", 9)),
        errors.ForeignError,
        'tunnel "wlan0"',
        ["wlan0", "physical"],
    ),
    "device name taken by somebody else's veth": (
        config(tunnel()),
        host(link("fra1", 9, kind="veth", peer_index=10), link("gx-fra1", 10, kind="veth")),
        errors.ForeignError,
        'tunnel "fra1"',
        ["fra1", "veth", "not ours"],
    ),
    "inner name taken": (
        config(tunnel()),
        host(link("gx-fra1", 9, kind="dummy")),
        errors.ForeignError,
        'tunnel "fra1"',
        ["gx-fra1", "dummy", "not ours"],
    ),
    "firewall with rules": (
        config(),
        host(forward_chains=(chain("inet filter forward", rules=3),)),
        errors.FirewallError,
        "inet filter forward",
        ["inet filter forward", "rules"],
    ),
    "firewall with a drop policy": (
        config(),
        host(forward_chains=(chain("ip filter FORWARD", drop=True),)),
        errors.FirewallError,
        "ip filter FORWARD",
        ["ip filter FORWARD", "policy drop"],
    ),
    "firewall before anything else": (
        config(interface=[{"name": "eth7"}]),
        host(forward_chains=(chain(rules=1), chain("ip other forward", drop=True))),
        errors.FirewallError,
        "inet filter forward",
        ["rules"],
    ),
    "remote is local": (
        config(tunnel()),
        host(paths={REMOTE: path(str(REMOTE), ifindex=1, is_local=True)}),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "address of this host"],
    ),
    "remote is routed through its own tunnel": (
        ONE_ROUTE,
        with_pair(paths={REMOTE: path("198.51.100.7", ifindex=10, matched="198.51.100.0/25")}),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "tunnel fra1", "198.51.100.0/25 dev fra1"],
    ),
    "remote is routed through another tunnel": (
        two(),
        with_pair("fra2", paths={REMOTE: path("198.51.100.7", ifindex=10)}),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "tunnel fra2"],
    ),
    "default route into the tunnel, as the remote's": (
        config(tunnel(routes=["0.0.0.0/0"])),
        host(routes=()),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "fra1", "0.0.0.0/0 is as specific", "0.0.0.0/0 dev eth0"],
    ),
    "route as specific as the remote's": (
        config(tunnel(routes=["198.51.100.0/24"])),
        OWN_24,
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.0/24 is as specific", "198.51.100.0/24 dev eth0"],
    ),
    "route more specific than the remote's": (
        config(tunnel(routes=["198.51.100.0/28"])),
        OWN_24,
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.0/28", "198.51.100.0/24 dev eth0"],
    ),
    "another tunnel's route takes the remote": (
        two(routes=["198.51.100.0/29"]),
        host(
            paths={
                REMOTE: path(matched="198.51.100.0/24"),
                OTHER_REMOTE: path(matched="198.51.100.8/32"),
            }
        ),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "tunnel fra2", "198.51.100.0/29"],
    ),
    "another tunnel's address network takes the remote": (
        two(addresses=["198.51.100.1/29"]),
        BOTH_24,
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "tunnel fra2", "198.51.100.0/29"],
    ),
    "no route to the remote but the tunnel's": (
        config(tunnel(routes=["0.0.0.0/0"])),
        host(paths={REMOTE: None}, routes=()),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "fra1", "0.0.0.0/0"],
    ),
    "no route to the remote but another tunnel's": (
        two(routes=["198.51.100.0/29"]),
        host(paths={REMOTE: None, OTHER_REMOTE: path()}),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "fra2", "198.51.100.0/29"],
    ),
    "egress is no [[interface]]": (
        config(tunnel(), interface=[{"name": "eth1"}]),
        host(),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "eth0", "not in the configuration"],
    ),
    "foreign route to the same destination": (
        ONE_ROUTE,
        host(routes=(route("10.20.0.0/16"),)),
        errors.ForeignError,
        'tunnel "fra1"',
        ["10.20.0.0/16", "dev eth1", "not ours"],
    ),
    "foreign multipath route to the same destination": (
        ONE_ROUTE,
        host(routes=(route("10.20.0.0/16", ifindex=None),)),
        errors.ForeignError,
        'tunnel "fra1"',
        ["10.20.0.0/16", "not ours"],
    ),
    "foreign IPv6 route with the kernel's metric": (
        config(tunnel(routes=["2001:db8:20::/48"])),
        host(routes=(route("2001:db8:20::/48", metric=1024),)),
        errors.ForeignError,
        'tunnel "fra1"',
        ["2001:db8:20::/48", "dev eth1"],
    ),
    "mtu does not fit": (
        config(tunnel(mtu=1477)),
        host(),
        errors.ConfigError,
        'tunnel "fra1"',
        ["mtu = 1477", "198.51.100.7 takes 1500", "24 of overhead", "leaves 1476"],
    ),
    "mtu does not fit with a key": (
        config(tunnel(mtu=1476, key=0)),
        host(),
        errors.ConfigError,
        'tunnel "fra1"',
        ["mtu = 1476", "takes 1500", "28 of overhead", "leaves 1472"],
    ),
    "mtu does not fit the route": (
        config(tunnel(mtu=1400)),
        host(paths={REMOTE: path(mtu=1280)}),
        errors.ConfigError,
        'tunnel "fra1"',
        ["mtu = 1400", "takes 1280", "24 of overhead", "leaves 1256"],
    ),
    # RFC 791 section 3.2: every module forwards 68 bytes, and no IPv4 device of Linux has less.
    "underlay too small for any tunnel": (
        config(tunnel()),
        host(replace(ETH0, mtu=80)),
        errors.HostError,
        'tunnel "fra1"',
        ["198.51.100.7", "80", "24 of overhead", "leaves 56", "68"],
    ),
    # RFC 8200 section 5: IPv6 needs links of 1280 bytes; Linux takes it off smaller devices.
    "IPv6 address, and an mtu too small for IPv6": (
        config(tunnel(mtu=1279, addresses=["fd00:10::1/64"])),
        host(),
        errors.ConfigError,
        'tunnel "fra1"',
        ["fd00:10::1/64", "1279", "1280"],
    ),
    "IPv6 route, and an mtu too small for IPv6": (
        config(tunnel(mtu=1279, routes=["2001:db8:20::/48"])),
        host(),
        errors.ConfigError,
        'tunnel "fra1"',
        ["2001:db8:20::/48", "1279", "1280"],
    ),
}


@pytest.mark.parametrize(
    ("asked", "found", "kind", "where", "words"), REFUSED.values(), ids=REFUSED
)
def test_what_cannot_work_is_refused_before_anything_is_touched(
    asked: Config, found: Host, kind: type[errors.GreXdpError], where: str, words: list[str]
) -> None:
    """The error says what is wrong, where, and what to do."""
    with pytest.raises(kind) as caught:
        desired(asked, found)
    assert type(caught.value) is kind
    assert caught.value.where == where
    assert [word for word in words if word not in caught.value.message] == []
    assert caught.value.remedy


# A refusal above whose remedy has to name something.
REMEDIES = {
    "foreign XDP program": "ip link set dev eth1 xdp off",
    "firewall with rules": "bypass_firewall = true",
    "egress is no [[interface]]": 'name = "eth0"',
    "route as specific as the remote's": "198.51.100.7/32",
    "mtu does not fit": "mtu = 1476",
    "mtu does not fit the route": "mtu = 1256",
}


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_can_be_followed_to_the_letter(name: str) -> None:
    """It names the command, the key or the value that helps."""
    asked, found, kind, _, _ = REFUSED[name]
    with pytest.raises(kind) as caught:
        desired(asked, found)
    assert REMEDIES[name] in caught.value.remedy


# --- what is no reason to refuse ------------------------------------------------------------------

WITH_RULES = (chain(rules=3), chain("ip filter FORWARD", drop=True))
FINE: dict[str, tuple[Config, Host]] = {
    "firewall, and bypass_firewall": (
        config(tunnel(), bypass_firewall=True),
        host(forward_chains=WITH_RULES),
    ),
    "firewall, and no interface": (Config(), host(forward_chains=WITH_RULES)),
    "XDP on an interface that is not asked for": (
        config(interface=[{"name": "eth0"}]),
        host(xdp_owners={"eth1": "program xdp_lb (id 17)"}),
    ),
    "the tunnel's device is ours already": (config(tunnel()), with_pair()),
    "default route through the tunnel, a more specific one to the remote": (
        config(tunnel(routes=["0.0.0.0/0", "::/0"])),
        replace(OWN_24, routes=()),
    ),
    "shorter route that holds the remote": (config(tunnel(routes=["198.51.0.0/16"])), OWN_24),
    "same network, host route to the remote": (
        config(tunnel(routes=["198.51.100.0/24"])),
        OWN_32,
    ),
    "address network that holds another remote, host routes to both": (
        two(addresses=["198.51.100.1/29"]),
        host(paths={REMOTE: path(matched="198.51.100.7/32"), OTHER_REMOTE: path()}),
    ),
    "IPv6 default route": (config(tunnel(routes=["::/0"])), host()),
    "long route that holds no remote": (config(tunnel(routes=["198.51.100.128/25"])), OWN_24),
    "no route to the remote, and none of a tunnel's": (ONE_ROUTE, host(paths={REMOTE: None})),
    "the route is ours already": (
        ONE_ROUTE,
        with_pair(routes=(route("10.20.0.0/16", ifindex=10, is_ours=True),)),
    ),
    "foreign route with a higher metric": (
        ONE_ROUTE,
        host(routes=(route("10.20.0.0/16", metric=100),)),
    ),
    "foreign IPv6 route with another metric": (
        config(tunnel(routes=["2001:db8:20::/48"])),
        host(routes=(route("2001:db8:20::/48", metric=256),)),
    ),
    "foreign route to a part": (ONE_ROUTE, host(routes=(route("10.20.0.0/24"),))),
    "foreign route to more": (ONE_ROUTE, host(routes=(route("10.0.0.0/8"),))),
    "IPv4, and an mtu too small for IPv6": (
        config(tunnel(mtu=1279, addresses=["169.254.10.1/30"], routes=["10.20.0.0/16"])),
        host(),
    ),
    "IPv6, and the smallest mtu for it": (
        config(tunnel(mtu=1280, addresses=["fd00:10::1/64"], routes=["2001:db8:20::/48"])),
        host(),
    ),
    "mtu fits exactly": (config(tunnel(mtu=1476)), host()),
    "mtu unknown without a path": (config(tunnel(mtu=8976)), host(paths={REMOTE: None})),
}


@pytest.mark.parametrize(("asked", "found"), FINE.values(), ids=FINE)
def test_what_can_work_is_not_refused(asked: Config, found: Host) -> None:
    """Every tunnel gets its device, every route its place."""
    devices = [device.name for device in of_kind(TunnelDevice, asked, found)]
    assert devices == [each.name for each in asked.tunnels]
    routes = {each.destination for each in of_kind(TunnelRoute, asked, found)}
    assert routes == {destination for each in asked.tunnels for destination in each.routes}


# --- MTU ------------------------------------------------------------------------------------------

# Keys of the tunnel, MTU of route and device in bytes, and the tunnel's.
MTUS: dict[str, tuple[dict[str, Any], int | None, int, int]] = {
    "device": ({}, None, 1500, 1476),
    "jumbo device": ({}, None, 9000, 8976),
    "route lower than device": ({}, 1400, 1500, 1376),
    "route higher than device": ({}, 9000, 1500, 1476),
    "route like device": ({}, 1500, 1500, 1476),
    "keyed": ({"key": 77}, None, 1500, 1472),
    "key 0": ({"key": 0}, None, 1500, 1472),
    "key of sent packets": ({"okey": 77}, None, 1500, 1472),
    "key of received packets": ({"ikey": 77}, None, 1500, 1476),
    "keyed, low route": ({"key": 77}, 1400, 1500, 1372),
    "number": ({"mtu": 1400}, None, 1500, 1400),
    "smallest number": ({"mtu": 68}, None, 1500, 68),
}


@pytest.mark.parametrize(("keys", "route_mtu", "device_mtu", "mtu"), MTUS.values(), ids=MTUS)
def test_the_mtu_is_what_the_path_leaves(
    keys: dict[str, Any], route_mtu: int | None, device_mtu: int, mtu: int
) -> None:
    """The lower of route and device counts, and device and data path agree on the result."""
    asked = config(tunnel(**keys))
    egress = replace(ETH0, mtu=device_mtu)
    found = host(egress, paths={REMOTE: path(mtu=route_mtu)})
    assert [device.mtu for device in of_kind(TunnelDevice, asked, found)] == [mtu]
    assert [entry.mtu for entry in of_kind(TunnelEntry, asked, found)] == [mtu]


@pytest.mark.parametrize(
    ("keys", "mtu"), [({}, 1476), ({"key": 77}, 1472), ({"mtu": 1400}, 1400), ({"mtu": 8976}, 8976)]
)
@pytest.mark.parametrize("paths", [{}, {REMOTE: None}], ids=["not asked", "no route"])
def test_without_a_path_an_underlay_of_1500_is_assumed(
    paths: dict[Any, Any], keys: dict[str, Any], mtu: int
) -> None:
    """A tunnel may exist before its route does; a number is taken at its word."""
    found = host(paths=paths)
    asked = config(tunnel(**keys))
    assert [device.mtu for device in of_kind(TunnelDevice, asked, found)] == [mtu]
    assert of_kind(NextHop, asked, found) == []


# --- next hops ------------------------------------------------------------------------------------

NEAR = tunnel("near", remote=str(NEAR_REMOTE))
BY_GATEWAY, ON_LINK = NextHop("eth0", ip_address("192.0.2.254")), NextHop("eth0", NEAR_REMOTE)

# Tunnels, facts, and the neighbours that are to be kept.
NEXT_HOPS: dict[str, tuple[list[dict[str, Any]], Host, list[NextHop]]] = {
    "by a gateway": ([tunnel()], host(), [BY_GATEWAY]),
    "by an IPv6 gateway": (
        [tunnel()],
        host(paths={REMOTE: path("fe80::fe")}),
        [NextHop("eth0", ip_address("fe80::fe"))],
    ),
    "on link": ([NEAR], host(), [ON_LINK]),
    "shared": (TWO, host(), [BY_GATEWAY]),
    "one each": ([tunnel(), NEAR], host(), [BY_GATEWAY, ON_LINK]),
    "same address behind another interface": (
        TWO,
        host(paths={REMOTE: path(), OTHER_REMOTE: path(ifindex=ETH1.index)}),
        [BY_GATEWAY, NextHop("eth1", BY_GATEWAY.address)],
    ),
    "learned": ([tunnel()], host(neighbours=(neighbour("192.0.2.254"),)), [BY_GATEWAY]),
    "static": ([tunnel()], host(neighbours=(neighbour("192.0.2.254", is_static=True),)), []),
    "static on another interface": (
        [tunnel()],
        host(neighbours=(neighbour("192.0.2.254", ETH1.index, is_static=True),)),
        [BY_GATEWAY],
    ),
    "another one is static": (
        [tunnel()],
        host(neighbours=(neighbour("192.0.2.253", is_static=True),)),
        [BY_GATEWAY],
    ),
    "static among learned": (
        [tunnel(), NEAR],
        host(neighbours=(neighbour("192.0.2.2"), neighbour("192.0.2.254", is_static=True))),
        [ON_LINK],
    ),
    "interface without ARP": ([tunnel()], host(replace(ETH0, is_noarp=True)), []),
    "no route": ([tunnel()], host(paths={REMOTE: None}), []),
}


@pytest.mark.parametrize(("tunnels", "found", "kept"), NEXT_HOPS.values(), ids=NEXT_HOPS)
def test_next_hops_that_need_resolving_are_kept_once(
    tunnels: list[dict[str, Any]], found: Host, kept: list[NextHop]
) -> None:
    """One neighbour per next hop, except where nothing is to be resolved."""
    assert of_kind(NextHop, config(*tunnels), found) == kept


# --- sysctls --------------------------------------------------------------------------------------

IPV4 = ["ipv4/conf/eth0/forwarding=1", "ipv4/conf/eth1/forwarding=1"]
FORCED = [
    "ipv6/conf/eth0/forwarding=1",
    "ipv6/conf/eth0/force_forwarding=1",
    "ipv6/conf/eth1/forwarding=1",
    "ipv6/conf/eth1/force_forwarding=1",
]
EVERYWHERE = [
    "ipv6/conf/eth0/forwarding=1",
    "ipv6/conf/eth1/forwarding=1",
    "ipv6/conf/default/forwarding=1",
    "ipv6/conf/all/forwarding=1",
]
WLAN = "ipv6/conf/wlan0/accept_ra"


def wlan(value: str, **changes: Any) -> Host:
    """A host with an interface that is not ours, and its accept_ra."""
    ra = {"lo": "1", "eth0": "0", "eth1": "0", "wlan0": value}
    return host(link("wlan0", 4), accept_ra=ra, **changes)


# Facts, what is remembered, and the settings in their order.
SYSCTLS: dict[str, tuple[Host, dict[str, str], list[str]]] = {
    "force_forwarding": (host(), {}, IPV4 + FORCED),
    "no force_forwarding": (host(has_force_forwarding=False), {}, IPV4 + EVERYWHERE),
    "no IPv6": (host(ipv6_forwarding={}, accept_ra={}), {}, IPV4),
    "no IPv6, no force_forwarding": (
        host(ipv6_forwarding={}, accept_ra={}, has_force_forwarding=False),
        {},
        IPV4,
    ),
    "accept_ra 1": (wlan("1"), {}, [*IPV4, f"{WLAN}=2", *FORCED]),
    "accept_ra 0": (wlan("0"), {}, IPV4 + FORCED),
    "accept_ra 2": (wlan("2"), {}, IPV4 + FORCED),
    "accept_ra 2, remembered 1": (wlan("2"), {WLAN: "1"}, [*IPV4, f"{WLAN}=2", *FORCED]),
    "accept_ra drifted to 0, remembered 1": (
        wlan("0"),
        {WLAN: "1"},
        [*IPV4, f"{WLAN}=2", *FORCED],
    ),
    "accept_ra 1 of an interface of ours": (
        host(accept_ra={"eth0": "1", "eth1": "0"}),
        {},
        [*IPV4, "ipv6/conf/eth0/accept_ra=2", *FORCED],
    ),
    "accept_ra 1, no force_forwarding": (
        wlan("1", has_force_forwarding=False),
        {},
        [
            *IPV4,
            f"{WLAN}=2",
            "ipv6/conf/eth0/forwarding=1",
            "ipv6/conf/eth1/forwarding=1",
            "ipv6/conf/wlan0/forwarding=1",
            *EVERYWHERE[2:],
        ],
    ),
    "accept_ra 1 of a tunnel's device": (
        with_pair(accept_ra={"eth0": "0", "eth1": "0", "fra1": "1", "gx-fra1": "1"}),
        {},
        IPV4 + FORCED,
    ),
    "a tunnel's device, no force_forwarding": (
        with_pair(
            accept_ra={"eth0": "0", "eth1": "0", "fra1": "0", "gx-fra1": "0"},
            has_force_forwarding=False,
        ),
        {},
        IPV4 + EVERYWHERE,
    ),
    "accept_ra 1 of a device that is gone": (
        host(accept_ra={"eth0": "0", "eth1": "0", "gone0": "1"}),
        {},
        IPV4 + FORCED,
    ),
    "remembered by a device that is gone": (
        host(),
        {"ipv6/conf/gone0/accept_ra": "1"},
        IPV4 + FORCED,
    ),
    "an interface without IPv6": (
        # The kernel takes IPv6 from a device whose MTU is below 1280.
        host(
            ipv6_forwarding={"lo": "0", "eth0": "0"},
            accept_ra={"lo": "1", "eth0": "0"},
        ),
        {},
        IPV4 + FORCED[:2],
    ),
}


@pytest.mark.parametrize(("found", "remembered", "settings"), SYSCTLS.values(), ids=SYSCTLS)
def test_settings_come_in_the_order_in_which_they_may_be_changed(
    found: Host, remembered: dict[str, str], settings: list[str]
) -> None:
    """What protects default routes precedes forwarding, and "all" comes after every device."""
    resources = desired(config(tunnel()), found, remembered)
    sysctls = [each for each in resources if isinstance(each, Sysctl)]
    assert [f"{each.path}={each.value}" for each in sysctls] == settings


@pytest.mark.parametrize("has_force_forwarding", [True, False])
def test_default_routes_are_protected_before_ipv6_forwards_anywhere(
    has_force_forwarding: bool,
) -> None:
    """Every accept_ra is changed before the first IPv6 forwarding, so it is restored after all."""
    ra = {"eth0": "1", "eth1": "1", "wlan0": "1"}
    found = host(link("wlan0", 4), accept_ra=ra, has_force_forwarding=has_force_forwarding)
    paths = [each.path for each in of_kind(Sysctl, config(), found) if "ipv6" in each.path]
    kinds = ["accept_ra" in path_ for path_ in paths]
    assert kinds == sorted(kinds, reverse=True)
    assert sum(kinds) == len(ra)


# --- policy ---------------------------------------------------------------------------------------

KERNEL_KINDS = ("gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan")
FALLBACKS = {"gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "ip6gre0": "ip6gre"}


@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_beside_tunnels_of_the_kernel_unknown_gre_is_passed(kind: str) -> None:
    """It may be theirs."""
    assert of_kind(Policy, config(), host(link("old0", 9, kind=kind))) == [Policy("pass")]


@pytest.mark.parametrize("name", FALLBACKS)
def test_fallback_devices_of_the_kernel_are_no_tunnels(name: str) -> None:
    """The module makes them by itself, and they carry nothing."""
    found = host(link(name, 9, kind=FALLBACKS[name]))
    assert of_kind(Policy, config(), found) == [Policy("drop")]


@pytest.mark.parametrize("kind", [None, "veth", "ipip", "sit", "vxlan", "bridge"])
def test_beside_other_devices_unknown_gre_is_dropped(kind: str | None) -> None:
    """Only GRE devices could take it."""
    assert of_kind(Policy, config(), host(link("gre1", 9, kind=kind))) == [Policy("drop")]


@pytest.mark.parametrize("word", ["drop", "pass"])
@pytest.mark.parametrize("kind", ["gre", "bridge"])
def test_the_configuration_has_the_last_word_on_unknown_gre(word: str, kind: str) -> None:
    """Whatever the host has."""
    found = host(link("old0", 9, kind=kind))
    assert of_kind(Policy, config(unknown_gre=word), found) == [Policy(word)]


# --- whose is it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"group": 0}, {"peer_index": 99}, {"peer_index": None}],
    ids=["no group of ours", "peer is another", "no peer"],
)
def test_a_device_is_ours_only_with_all_its_marks(changes: dict[str, Any]) -> None:
    """Both ends are veth, point to each other, and the inner one is in our group."""
    assert with_pair().is_tunnel_device("fra1")
    pair = tunnel_pair("fra1", 10)
    pair["gx-fra1"] = replace(pair["gx-fra1"], **changes)
    assert not host(*pair.values()).is_tunnel_device("fra1")


def test_a_device_of_ours_is_both_of_its_ends() -> None:
    """A pair is found by its inner end's group, and both ends are known as ours."""
    found = with_pair()
    assert [pair.device.name for pair in found.tunnel_pairs.values()] == ["fra1"]
    assert {name for name in found.links if found.is_ours(name)} == {"fra1", "gx-fra1"}


def test_a_device_that_was_renamed_is_still_ours() -> None:
    """The inner end says whose it is, whatever the other end is called now."""
    device, inner = tunnel_pair("fra1", 10).values()
    found = host(replace(device, name="foo1"), replace(inner, alias=f"{ALIAS}fra1"))
    assert list(found.tunnel_pairs) == ["fra1"]
    assert found.is_ours("foo1")
    assert not found.is_tunnel_device("fra1")
    assert TunnelDevice("fra1", 1476) in desired(config(tunnel("fra1")), found)
