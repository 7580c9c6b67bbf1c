"""What ``doctor`` finds in made-up facts: each finding provoked, and not provoked by its neighbour.

LAN ─── eth1 [host 192.0.2.1] eth0 ─── 192.0.2.2 … and, by 192.0.2.254, the rest
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from gre_xdp import doctor, errors
from gre_xdp.doctor import Finding, findings
from gre_xdp.doctor import facts as doctor_facts
from gre_xdp.doctor import fixes as doctor_fixes
from gre_xdp.doctor.facts import Device, Facts, Machine, parse_options
from gre_xdp.host import Host
from gre_xdp.netlink import drivers
from gre_xdp.netlink.addresses import AddressOn
from gre_xdp.netlink.bypassed import Chain, Traffic
from gre_xdp.netlink.neighbours import NUD_FAILED, NUD_PERMANENT, Neighbour
from gre_xdp.netlink.routes import RouteEntry
from gre_xdp.netlink.veths import Peer
from hosts import (
    ETH0,
    GATEWAY,
    LOCAL,
    REMOTE,
    chain,
    config,
    link,
    neighbour,
    path,
    tunnel,
    tunnel_pair,
)
from hosts import host as any_host

ALL_XDP = drivers.XDP_BASIC | drivers.XDP_REDIRECT | drivers.XDP_XMIT | drivers.XDP_FRAGS
OPTIONS = {
    f"CONFIG_{name}": "y" for name in ("BPF", "BPF_SYSCALL", "BPF_JIT", "INET", "VETH", "IPV6")
}
MACHINE = Machine(
    release="6.12.9+deb13-amd64",
    options=OPTIONS,
    has_btf=True,
    jit="1",
    cpus=8,
    is_root=True,
    missing_capabilities=(),
    has_bpffs=True,
    pins_problem=None,
    libbpf_problem=None,
    bcc="0.26.0",
    build_problem=None,
    built="load",
)
NIC = Device(driver="ice", xdp_features=ALL_XDP, receive_queues=(8, 8))
HERE = AddressOn(ETH0.index, ip_interface("192.0.2.1/24"), is_ours=False)


def host(*more_links: Any, **changes: Any) -> Host:
    """A host that has the tunnels' local address."""
    return any_host(*more_links, **({"addresses": (HERE,)} | changes))


def facts(**changes: Any) -> Facts:
    """A host where everything is as it should be."""
    usual = Facts(
        machine=MACHINE,
        netns=None,
        host=host(),
        host_problem=None,
        devices={"eth0": NIC, "eth1": NIC},
        neighbour_limits={4: 1024, 6: 1024},
        rp_filter={"eth0": 0, "eth1": 0, "default": 0},
    )
    return replace(usual, **changes)


def machine(**changes: Any) -> Facts:
    return facts(machine=replace(MACHINE, **changes))


def eth0(**changes: Any) -> Facts:
    return facts(devices={"eth0": replace(NIC, **changes), "eth1": NIC})


def veth(peer: Peer | None, *, features: int | None) -> Facts:
    device = Device(driver="veth", xdp_features=features, receive_queues=(1, 2), peer=peer)
    return facts(
        host=host(link("eth1", 3, kind="veth", peer_index=9)),
        devices={"eth0": NIC, "eth1": device},
    )


def unresolved(found: Neighbour) -> Neighbour:
    return replace(found, state=NUD_FAILED)


def many_neighbours(count: int, **changes: Any) -> tuple[Neighbour, ...]:
    one = replace(neighbour("192.0.2.9"), **changes)
    return (one,) * count


def troubles(found: Facts, asked: Any = None) -> list[Finding]:
    return [
        finding
        for finding in findings(found, config(tunnel()) if asked is None else asked)
        if finding.severity != "ok"
    ]


def test_nothing_is_wrong_with_a_good_host() -> None:
    """A host as it should be has ok findings alone, at least one for each subject."""
    found = findings(facts(), config(tunnel()))
    assert {finding.severity for finding in found} == {"ok"}
    assert list(dict.fromkeys(finding.subject for finding in found)) == [
        "kernel",
        "privileges",
        "packages",
        "programs",
        "pins",
        "firewall",
        "neighbours",
        "interface eth0",
        "interface eth1",
        "tunnel fra1",
    ]


PACKAGE = errors.PackageError("no BCC", remedy="install python3-bpfcc")
NAPI = Peer("lan0", "/run/netns/lan", has_napi=True, has_tx_checksum=False)
NO_NAPI = replace(NAPI, has_napi=False)
PARTIAL = replace(NAPI, has_tx_checksum=True)
WITH_PAIR = host(*tunnel_pair("fra1", 10).values())
OVER_IPV6 = config(tunnel(local="2001:db8::1", remote="2001:db8::2"))
IPV6_HOST = host(
    addresses=(AddressOn(2, ip_interface("2001:db8::1/64"), is_ours=False),),
    paths={},
    accept_ra={"eth0": "1"},
    ipv6_forwarding={"eth0": "1"},
)

# What is so, its subject, severity, and pieces of the finding and of the remedy.
PROVOKED: dict[str, tuple[Facts, str, str, str, str]] = {
    "kernel": (machine(release="6.0.19"), "kernel", "error", "older than 6.1", "install Linux"),
    "old-kernel": (machine(release="5.15.0-91"), "kernel", "error", "older", "install Linux"),
    "no-veth": (
        machine(options={**OPTIONS, "CONFIG_VETH": "n"}),
        "kernel",
        "error",
        "without CONFIG_VETH",
        "CONFIG_VETH",
    ),
    "no-jit-built": (
        machine(options={k: v for k, v in OPTIONS.items() if k != "CONFIG_BPF_JIT"}),
        "kernel",
        "warning",
        "without CONFIG_BPF_JIT",
        "CONFIG_BPF_JIT",
    ),
    "no-ipv6": (
        machine(options={k: v for k, v in OPTIONS.items() if k != "CONFIG_IPV6"}),
        "kernel",
        "note",
        "without IPv6",
        "CONFIG_IPV6",
    ),
    "jit-off": (
        machine(jit="0"),
        "kernel",
        "warning",
        "JIT is switched off",
        "sysctl -w net.core.bpf_jit_enable=1",
    ),
    "user": (
        machine(is_root=False),
        "privileges",
        "note",
        "ordinary user",
        "sudo gre-xdp doctor",
    ),
    "container": (
        machine(missing_capabilities=("CAP_NET_ADMIN",)),
        "privileges",
        "error",
        "root lacks CAP_NET_ADMIN",
        "CAP_NET_ADMIN",
    ),
    "no-libbpf": (
        machine(libbpf_problem=errors.PackageError("no libbpf", remedy="install libbpf1")),
        "packages",
        "error",
        "no libbpf",
        "install libbpf1",
    ),
    "no-bcc": (
        machine(bcc=None, build_problem=PACKAGE),
        "packages",
        "error",
        "no BCC",
        "install python3-bpfcc",
    ),
    "old-bcc": (machine(bcc="0.25.0"), "packages", "error", "older than 0.26", "install BCC 0.26"),
    "refused": (
        machine(build_problem=errors.KernelError("the verifier says no", remedy="report it")),
        "programs",
        "error",
        "the verifier says no",
        "report it",
    ),
    "private-sys": (
        machine(pins_problem=errors.HostError("a /sys of its own", remedy="--netns blue")),
        "pins",
        "error",
        "a /sys of its own",
        "--netns blue",
    ),
    "unreadable": (
        facts(host=None, host_problem=errors.KernelError("no netlink", remedy="try again")),
        "network",
        "error",
        "no netlink",
        "try again",
    ),
    "firewall": (
        facts(host=host(forward_chains=(chain(rules=3),))),
        "firewall",
        "error",
        "inet filter forward has rules",
        "bypass_firewall = true",
    ),
    "nat": (
        facts(chains=(Chain("ip nat post", "postrouting", is_nat=True),)),
        "firewall",
        "warning",
        "NAT chain ip nat post",
        "nft list chain ip nat post",
    ),
    "legacy-nat": (
        facts(chains=(Chain("iptables-legacy nat", "postrouting", is_nat=True),)),
        "firewall",
        "warning",
        "NAT chain",
        "iptables-legacy -t nat -S",
    ),
    "prerouting": (
        facts(netns="blue", chains=(Chain("inet raw pre", "prerouting", is_nat=False),)),
        "firewall",
        "note",
        "inet raw pre (prerouting)",
        "ip netns exec blue nft list chain inet raw pre",
    ),
    "neighbours": (
        facts(host=host(neighbours=many_neighbours(820))),
        "neighbours",
        "warning",
        "820 neighbours",
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096",
    ),
    "whole-host-forwards": (
        facts(host=host(has_force_forwarding=False)),
        "forwarding",
        "note",
        "whole host",
        "",
    ),
    "foreign": (
        facts(host=host(xdp_owners={"eth0": "program xdp_lb (id 17)"})),
        "interface eth0",
        "error",
        "another XDP program: program xdp_lb (id 17)",
        "ip link set dev eth0 xdp off",
    ),
    "down": (
        facts(host=host(link("eth1", 3, is_up=False)), netns="blue"),
        "interface eth1",
        "warning",
        "eth1 is down",
        "ip netns exec blue ip link set dev eth1 up",
    ),
    "no-native": (eth0(xdp_features=0), "interface eth0", "error", "no native XDP", '"skb"'),
    "no-redirect": (
        eth0(xdp_features=drivers.XDP_BASIC),
        "interface eth0",
        "error",
        "no native XDP",
        '"skb"',
    ),
    "no-xmit": (
        replace(
            eth0(xdp_features=ALL_XDP & ~drivers.XDP_XMIT),
            host=host(link("eth0", 2, xdp_mode="native", xdp_program_id=1)),
        ),
        "interface eth0",
        "error",
        "does not send what XDP redirects",
        "update the driver",
    ),
    "jumbo": (
        replace(
            eth0(xdp_features=ALL_XDP & ~drivers.XDP_FRAGS), host=host(link("eth0", 2, mtu=9000))
        ),
        "interface eth0",
        "error",
        "MTU of eth0 is 9000",
        "ip link set eth0 mtu 3500",
    ),
    "lro": (
        eth0(features={doctor_facts.LRO: True}),
        "interface eth0",
        "warning",
        "lro on",
        "ethtool -K eth0 lro off",
    ),
    "gro-hw": (
        eth0(features={doctor_facts.GRO_HW: True}),
        "interface eth0",
        "warning",
        "rx-gro-hw on",
        "ethtool -K eth0 rx-gro-hw off",
    ),
    "gro-hw-for-good": (
        eth0(features={doctor_facts.GRO_HW: True}, fixed=frozenset({doctor_facts.GRO_HW})),
        "interface eth0",
        "warning",
        "for good",
        'mode = "skb"',
    ),
    "virtio-gro-hw-for-good": (
        eth0(
            driver="virtio_net",
            features={doctor_facts.GRO_HW: True},
            fixed=frozenset({doctor_facts.GRO_HW}),
        ),
        "interface eth0",
        "error",
        "for good",
        "ctrl_guest_offloads",
    ),
    "one-queue": (
        eth0(receive_queues=(1, 16)),
        "interface eth0",
        "note",
        "one queue of 16",
        "ethtool -L eth0 combined 8",
    ),
    "no-napi": (
        veth(NO_NAPI, features=ALL_XDP & ~drivers.XDP_XMIT),
        "interface eth1",
        "error",
        "its other end lan0 has no NAPI",
        "nsenter --net=/run/netns/lan ethtool -K lan0 gro on",
    ),
    "no-napi-linux-6.1": (
        veth(replace(NO_NAPI, namespace=None), features=None),
        "interface eth1",
        "error",
        "has no NAPI",
        "ethtool -K lan0 gro on",
    ),
    "no-napi-somewhere": (
        veth(None, features=ALL_XDP & ~drivers.XDP_XMIT),
        "interface eth1",
        "error",
        "its other end has no NAPI",
        "ethtool -K PEER gro on",
    ),
    "partial-checksums": (
        veth(PARTIAL, features=ALL_XDP),
        "interface eth1",
        "warning",
        "leaves checksums",
        "nsenter --net=/run/netns/lan ethtool -K lan0 tx off",
    ),
    "tc": (
        eth0(traffic=Traffic(filters=2)),
        "interface eth0",
        "warning",
        "tc has filters",
        "tc filter show dev eth0",
    ),
    "shaper": (
        eth0(traffic=Traffic(shaper="htb")),
        "interface eth0",
        "warning",
        "discipline htb",
        "tc qdisc show dev eth0",
    ),
    "not-forwarding": (
        replace(eth0(is_forwarding=False), host=host(attached=frozenset({2}))),
        "interface eth0",
        "error",
        "switched IPv4 forwarding off",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
    ),
    "no-local": (
        facts(host=host(addresses=())),
        "tunnel fra1",
        "error",
        "does not have the address 192.0.2.1",
        "ip addr add 192.0.2.1/32 dev lo",
    ),
    "no-route": (
        facts(host=host(paths={})),
        "tunnel fra1",
        "error",
        "no route to its remote",
        "ip route add 198.51.100.7/32 via GATEWAY",
    ),
    "route-elsewhere": (
        facts(host=host(link("eth2", 4), paths={REMOTE: path(ifindex=4)})),
        "tunnel fra1",
        "error",
        "reached by eth2, which is not in the configuration",
        'name = "eth2"',
    ),
    "silent-next-hop": (
        facts(host=host(neighbours=(unresolved(neighbour(str(GATEWAY))),))),
        "tunnel fra1",
        "warning",
        "192.0.2.254 on eth0, does not answer",
        "ping -c 1 -I eth0 192.0.2.254",
    ),
    "narrow-underlay": (
        facts(host=host(paths={REMOTE: path(mtu=90)})),
        "tunnel fra1",
        "error",
        "takes 90 bytes",
        "raise the MTU",
    ),
    "learned": (
        facts(learned={(str(LOCAL), str(REMOTE)): 1400}),
        "tunnel fra1",
        "note",
        "takes 1400 bytes",
        "gre-xdp mtu --path 198.51.100.7",
    ),
    "measured": (
        facts(measured={REMOTE: 1499}),
        "tunnel fra1",
        "warning",
        "takes 1499 bytes, and the tunnel sends up to 1500",
        "set mtu = 1475",
    ),
    "no-echo": (
        facts(measured={REMOTE: errors.HostError("no echo", remedy="check that it is up")}),
        "tunnel fra1",
        "warning",
        "no echo",
        "check that it is up",
    ),
    "rp-filter": (
        facts(host=WITH_PAIR, rp_filter={"fra1": 1, "default": 0}),
        "tunnel fra1",
        "warning",
        "rp_filter is strict on fra1",
        "sysctl -w net.ipv4.conf.fra1.rp_filter=2",
    ),
    "rp-filter-to-be": (
        facts(rp_filter={"default": 1}),
        "tunnel fra1",
        "note",
        "will be strict",
        "after apply: sysctl -w net.ipv4.conf.fra1.rp_filter=2",
    ),
}


@pytest.mark.parametrize("row", PROVOKED.values(), ids=PROVOKED)
def test_a_fault_is_found(row: tuple[Facts, str, str, str, str]) -> None:
    """Each fault has one finding, and nothing else is found fault with."""
    found, subject, severity, what, remedy = row
    (finding,) = troubles(found)
    assert (finding.subject, finding.severity) == (subject, severity)
    assert what in finding.finding
    assert finding.why
    assert remedy in (finding.remedy or "")


HEALTHY = {
    "oldest-kernel": machine(release="6.1.0-38"),
    "next-major": machine(release="10.0.0"),
    "options-unpublished": machine(options=None),
    "module": machine(options={**OPTIONS, "CONFIG_VETH": "m"}),
    "jit-not-told": machine(jit=None),
    "no-btf": machine(has_btf=False),
    "oldest-bcc": machine(bcc="0.26.0"),
    "newer-bcc": machine(bcc="0.31.0+ds-1"),
    "no-bpffs-yet": machine(has_bpffs=False),
    "many-static-neighbours": facts(
        host=host(neighbours=many_neighbours(2000, state=NUD_PERMANENT))
    ),
    "many-kept-neighbours": facts(host=host(neighbours=many_neighbours(2000, is_kept=True))),
    "room-for-neighbours": facts(host=host(neighbours=many_neighbours(800))),
    "limits-untold": facts(host=host(neighbours=many_neighbours(2000)), neighbour_limits={}),
    "forwarding-already": facts(
        host=host(has_force_forwarding=False, ipv6_forwarding={"eth0": "1"})
    ),
    "forwarding-applied": facts(host=host(has_force_forwarding=False, attached=frozenset({2}))),
    "features-untold": eth0(xdp_features=None),
    "driver-untold": eth0(driver=None, receive_queues=None),
    "largest-page": replace(
        eth0(xdp_features=ALL_XDP & ~drivers.XDP_FRAGS), host=host(link("eth0", 2, mtu=3500))
    ),
    "jumbo-in-pieces": facts(host=host(link("eth0", 2, mtu=9000))),
    "xmit-with-a-program": eth0(xdp_features=ALL_XDP & ~drivers.XDP_XMIT),
    "lro-but-attached": replace(
        eth0(features={doctor_facts.LRO: True}),
        host=host(link("eth0", 2, xdp_mode="native", xdp_program_id=1)),
    ),
    "virtio-gro-hw": eth0(driver="virtio_net", features={doctor_facts.GRO_HW: True}),
    "lro-off": eth0(features={doctor_facts.LRO: False}),
    "only-one-queue": eth0(receive_queues=(1, 1)),
    "napi": veth(NAPI, features=ALL_XDP),
    "napi-linux-6.1": veth(NAPI, features=None),
    "peer-unseen": veth(None, features=None),
    "no-filters": eth0(traffic=Traffic()),
    "not-forwarding-before-apply": eth0(is_forwarding=False),
    "resolved": facts(host=host(neighbours=(neighbour(str(GATEWAY)),))),
    "unresolved-stranger": facts(host=host(neighbours=(unresolved(neighbour("192.0.2.7")),))),
    "measured-enough": facts(measured={REMOTE: 1500}),
    "loose-rp-filter": facts(host=WITH_PAIR, rp_filter={"fra1": 2, "default": 1}),
}


@pytest.mark.parametrize("found", HEALTHY.values(), ids=HEALTHY)
def test_what_is_no_fault_is_not_found(found: Facts) -> None:
    """What is just right, or cannot be told, is no finding."""
    assert troubles(found) == []


def test_vlan_tags_that_xdp_would_not_see_are_mended() -> None:
    """The refusal of apply comes with its command, for --fix as well."""
    vlan = link("eth1.5", 9, kind="vlan", peer_index=3, vlan=(0x8100, 5))
    found = facts(host=host(vlan, tag_strippers=frozenset({"eth1"})), netns="blue")
    asked = config(tunnel(), interface=[{"name": "eth0"}, {"name": "eth1.5"}])
    (finding,) = troubles(found, asked)
    assert finding.subject == "interface eth1.5"
    fix = ("ip", "netns", "exec", "blue", "ethtool", "-K", "eth1", "rxvlan", "off")
    assert finding.fixes == (fix,)


def test_a_missing_interface_is_one_finding() -> None:
    """Nothing else can be said about it."""
    asked = config(tunnel(), interface=[{"name": "eth0"}, {"name": "eth7"}])
    (finding,) = troubles(facts(), asked)
    assert (finding.subject, finding.severity) == ("interface eth7", "error")
    assert "there is no interface eth7" in finding.finding


def test_skb_mode_is_remarked_upon_where_native_would_do() -> None:
    """And only there."""
    asked = config(tunnel(), interface=[{"name": "eth0", "mode": "skb"}, {"name": "eth1"}])
    (finding,) = troubles(facts(), asked)
    assert finding.severity == "note"
    assert 'mode = "native"' in (finding.remedy or "")
    assert troubles(eth0(xdp_features=0), asked) == []


def test_router_advertisements_that_are_ignored_may_be_the_missing_route() -> None:
    """A tunnel over IPv6, no default route, and an interface that forwards: they are connected."""
    (warning,) = [
        finding
        for finding in troubles(facts(host=IPV6_HOST), OVER_IPV6)
        if finding.subject == "interface eth0"
    ]
    assert warning.fixes == (("sysctl", "-w", "net.ipv6.conf.eth0.accept_ra=2"),)
    route = RouteEntry(ip_network("::/0"), 2, is_ours=False, metric=1024)
    with_route = replace(IPV6_HOST, routes=(route,))
    subjects = [each.subject for each in troubles(facts(host=with_route), OVER_IPV6)]
    assert subjects == ["tunnel fra1"]


@pytest.mark.parametrize(
    "changes", [{"accept_ra": {"eth0": "2"}}, {"ipv6_forwarding": {"eth0": "0"}}], ids=str
)
def test_router_advertisements_that_are_heeded_are_not_the_matter(changes: dict[str, Any]) -> None:
    """With accept_ra = 2, or on an interface that does not forward, the kernel takes them."""
    found = troubles(facts(host=replace(IPV6_HOST, **changes)), OVER_IPV6)
    assert [each.subject for each in found] == ["tunnel fra1"]


@pytest.mark.parametrize(
    ("fault", "contradiction"),
    [
        ("firewall", "no chain that XDP would bypass has rules"),
        ("nat", "no chain that XDP would bypass has rules"),
        ("no-veth", "it was built with all that is needed"),
        ("jit-off", "the BPF JIT is on"),
        ("refused", "they compile, and this kernel takes them"),
        ("no-bcc", "BCC"),
    ],
)
def test_what_is_wrong_is_not_called_ok_as_well(fault: str, contradiction: str) -> None:
    """Who reads -v is not told both."""
    asked = config(tunnel())
    assert any(contradiction in each.finding for each in findings(facts(), asked))
    found = findings(PROVOKED[fault][0], asked)
    assert not any(contradiction in each.finding for each in found if each.severity == "ok")


def test_bypassing_the_firewall_on_purpose_is_a_note() -> None:
    """Who has written bypass_firewall = true is reminded, and not stopped."""
    chains = (Chain("ip nat post", "postrouting", is_nat=True),)
    found = facts(host=host(forward_chains=(chain(drop=True), chain("ip b f"))), chains=chains)
    noted = troubles(found, config(tunnel(), bypass_firewall=True))
    assert [finding.severity for finding in noted] == ["note"] * 3
    assert troubles(replace(found, machine=replace(MACHINE, is_root=False)))[0].severity == "note"


def test_the_host_alone_is_looked_at_without_a_configuration() -> None:
    """No interface and no tunnel is asked for, and a firewall will matter once there are some."""
    found = [each for each in findings(facts(), None) if each.severity != "ok"]
    assert found == []
    walled = facts(host=host(forward_chains=(chain(rules=1),)))
    (finding,) = [each for each in findings(walled, None) if each.severity != "ok"]
    assert (finding.severity, finding.subject) == ("warning", "firewall")


def test_one_tunnel_does_not_hide_the_next() -> None:
    """All findings of all tunnels come at once."""
    asked = config(tunnel("a", key=1), tunnel("b", key=2))
    subjects = [finding.subject for finding in troubles(facts(host=host(paths={})), asked)]
    assert subjects == ["tunnel a", "tunnel b"]


def test_settings_of_devices_with_dots_are_named_as_sysctl_wants_them() -> None:
    """A dot in a name is not a separator."""
    pair = tunnel_pair("fra.1", 10)
    found = facts(host=host(*pair.values()), rp_filter={"fra.1": 1})
    (finding,) = troubles(found, config(tunnel("fra.1")))
    assert finding.fixes == (("sysctl", "-w", "net/ipv4/conf/fra.1/rp_filter=2"),)


def test_every_fix_is_safe_and_is_the_remedy() -> None:
    """What --fix runs is what the remedy says, and nothing but features and sysctls."""
    fixing = [each for row in PROVOKED.values() for each in troubles(row[0]) if each.fixes]
    assert len(fixing) >= 9
    for finding in fixing:
        assert all(doctor_fixes.is_safe(fix) for fix in finding.fixes)
        assert finding.remedy == " && ".join(" ".join(fix) for fix in finding.fixes)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ethtool -K eth0 gro on", True),
        ("sysctl -w net.ipv4.conf.fra1.rp_filter=2", True),
        ("ip netns exec blue sysctl -w net.ipv4.conf.fra1.rp_filter=2", True),
        ("nsenter --net=/proc/7/ns/net ethtool -K eth0 tx off", True),
        ("ethtool -L eth0 combined 4", False),
        ("ip netns exec blue ip link set eth0 down", False),
        ("ip netns exec blue ip netns exec red ethtool -K eth0 tx off", False),
        ("nsenter --mount=/x ethtool -K eth0 tx off", False),
        ("sysctl -p /tmp/x", False),
        ("nft flush ruleset", False),
        ("sh -c true", False),
    ],
)
def test_only_features_and_sysctls_are_safe(command: str, expected: bool) -> None:
    """Whatever else a remedy says is for people to run."""
    assert doctor_fixes.is_safe(tuple(command.split())) is expected


def test_a_fix_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the command's own words, or with the package that has it."""
    with pytest.raises(errors.HostError, match=r"it failed: .*nosuch"):
        doctor_fixes.run(("sysctl", "-w", "net.nosuch=1"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.PackageError, match="ethtool is not installed"):
        doctor_fixes.run(("ethtool", "-K", "eth0", "gro", "on"))


def test_every_mistake_of_a_file_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken file does not keep the doctor from the host."""
    monkeypatch.setattr(doctor_facts, "read", lambda *_, **__: facts())
    file = tmp_path / "bad.toml"
    file.write_text('colour = "red"\nunknown_gre = 7\n')
    found = [each for each in doctor.examine(file, is_required=True) if each.severity != "ok"]
    assert [(each.subject, each.severity) for each in found] == [("configuration", "error")] * 2
    assert found[0].finding.startswith(f"{file}:1: ")
    missing = doctor.examine(tmp_path / "none.toml", is_required=True)
    assert missing[0].severity == "error"
    (note, *rest) = doctor.examine(tmp_path / "none.toml", is_required=False)
    assert (note.severity, note.subject) == ("note", "configuration")
    assert {each.severity for each in rest} == {"ok"}


def test_kernel_options_are_read_as_make_writes_them() -> None:
    """Options that are off stand in comments."""
    text = '# Linux\nCONFIG_VETH=m\n# CONFIG_TUN is not set\nCONFIG_LOCALVERSION="-x=1"\n'
    assert parse_options(text) == {"CONFIG_VETH": "m", "CONFIG_LOCALVERSION": "-x=1"}
