"""VLAN sub-interfaces as underlay and as LAN: XDP meets their frames on the device below.

              VLAN 6                    VLAN 5: 192.0.2.0/24, 2001:db8:f::/64
site  s0 ─────────────── l0  gw  g0 ════════════════════════════════════════ p0  peer (ip_gre)
10.1.0.2                              VLAN 7 (802.1ad), 8: 192.0.3.0/24          10.2.0.1, 10.3.0.1
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from linux61.conftest import CLI, Machine
from netns_helpers import wait_until

# A veth passes a tag on beside the frame, where XDP does not see it, unless this is off.
NETWORK = """
modprobe -d /mnt -a 8021q
for name in site gw peer; do
    ip netns add $name
    ip -n $name link set lo up
done
ip link add s0 netns site type veth peer name l0 netns gw
ip link add g0 netns gw type veth peer name p0 netns peer
for end in site/s0 gw/l0 gw/g0 peer/p0; do
    nsenter --net=/run/netns/${end%/*} ethtool -K ${end#*/} txvlan off tx-vlan-stag-hw-insert off \
        tx off gro on >/dev/null
    ip -n ${end%/*} link set ${end#*/} up
done
vlan() {
    ip -n $1 link add link $2 name $3 type vlan protocol $4 id $5
    ip -n $1 link set $3 up
    shift 5
    for address; do ip -n $node address add $address dev $device nodad; done
}
node=site device=s0.6; vlan site s0 s0.6 802.1q 6 10.1.0.2/24 2001:db8:a::2/64
node=gw device=l0.6; vlan gw l0 l0.6 802.1q 6 10.1.0.1/24 2001:db8:a::1/64
node=gw device=g0.5; vlan gw g0 g0.5 802.1q 5 192.0.2.1/24 2001:db8:f::1/64
node=peer device=p0.5; vlan peer p0 p0.5 802.1q 5 192.0.2.2/24 2001:db8:f::2/64
node=gw device=g0.7; vlan gw g0 g0.7 802.1ad 7
node=gw device=g0.7.8; vlan gw g0.7 g0.7.8 802.1q 8 192.0.3.1/24
node=peer device=p0.7; vlan peer p0 p0.7 802.1ad 7
node=peer device=p0.7.8; vlan peer p0.7 p0.7.8 802.1q 8 192.0.3.2/24
ip -n site route add default via 10.1.0.1
ip -n site route add default via 2001:db8:a::1
tunnel() {
    ip -n peer link add $1 type $2 local $3 remote $4
    ip -n peer link set $1 up
    ip -n peer address add $5 dev lo
    ip -n peer address add $6 dev lo
    ip -n peer route add $7 dev $1
}
tunnel gre1 gre 192.0.2.2 192.0.2.1 10.2.0.1/32 2001:db8:2::1/128 10.1.0.0/24
tunnel gre2 gre 192.0.3.2 192.0.3.1 10.3.0.1/32 2001:db8:3::1/128 2001:db8:a::/64
tunnel gre3 ip6gre 2001:db8:f::2 2001:db8:f::1 10.4.0.1/32 2001:db8:4::1/128 198.18.0.0/24
nsenter --net=/run/netns/peer sh -c 'for device in all default gre1 gre2 gre3; do
    echo 0 >/proc/sys/net/ipv4/conf/$device/rp_filter; done'
"""
CONFIG = """
exporter = ""
interface = [{ name = "g0.5" }, { name = "g0.7.8" }, { name = "l0.6" }]

[[tunnel]]
name = "one"
local = "192.0.2.1"
remote = "192.0.2.2"
routes = ["10.2.0.1/32", "2001:db8:2::1/128"]

[[tunnel]]
name = "two"
local = "192.0.3.1"
remote = "192.0.3.2"
routes = ["10.3.0.1/32", "2001:db8:3::1/128"]

[[tunnel]]
name = "six"
local = "2001:db8:f::1"
remote = "2001:db8:f::2"
routes = ["10.4.0.1/32", "2001:db8:4::1/128"]
"""


@pytest.fixture(scope="module")
def vlans(machine: Machine) -> Iterator[Machine]:
    machine.script(NETWORK)
    config = machine.directory / "vlan.toml"
    config.write_text(CONFIG)
    machine.gre_xdp("gw", f"apply {config}")
    try:
        yield machine
    finally:
        machine.gre_xdp("gw", "down --yes")
        for name in ("site", "gw", "peer"):
            machine.run(f"ip netns del {name}")


def test_the_program_is_where_the_tags_are(vlans: Machine) -> None:
    """Interfaces are listed under their own names; the program is on the devices below them."""
    shown = {each["name"]: each for each in vlans.json("gw", "show interfaces")}
    assert set(shown) == {"g0.5", "g0.7.8", "l0.6"}
    assert all(each["mode"] == "native" and each["link_pinned"] for each in shown.values())
    assert shown["g0.5"]["program_id"] == shown["g0.7.8"]["program_id"]
    config = vlans.directory / "vlan.toml"
    assert vlans.json("gw", f"diff {config}")["changes"] == []


def test_packets_go_by_vlans(vlans: Machine) -> None:
    """Encap puts the tags on, decap takes them off: one or two, on the underlay and on the LAN.

    The peer answers IPv4 through its first tunnel (one tag), IPv6 through its second (two tags).
    """
    tunnels = {
        "one": ("10.2.0.1", "2001:db8:2::1"),
        "two": ("10.3.0.1", "2001:db8:3::1"),
        "six": ("10.4.0.1", "2001:db8:4::1"),
    }
    ping = "nsenter --net=/run/netns/site ping -n -W3"
    # The first packets find the neighbours.
    vlans.run(f"{ping} -c1 10.2.0.1; {ping} -c1 2001:db8:2::1; true")
    before = counters(vlans)
    for name, addresses in tunnels.items():
        for address in addresses:
            assert "5 received" in vlans.run(f"{ping} -c5 -i0.05 {address}"), name
    moved = {name: count - before[name] for name, count in counters(vlans).items()}
    # The peer's kernel asks for routers, now and then, by multicast.
    del moved["passes multicast"]
    received = [moved.pop(f"{name} rx") for name in tunnels]
    assert min(received[:2]) >= 15
    # All else went the fast way, and nothing else moved.
    assert {name: count for name, count in moved.items() if count} == {
        "one tx": 10,
        "two tx": 10,
        "six tx": 10,
    }


def counters(vlans: Machine) -> dict[str, int]:
    found = {}
    for tunnel in vlans.json("gw", "show tunnels -s"):
        found[f"{tunnel['name']} rx"] = tunnel["rx_packets"]
        found[f"{tunnel['name']} tx"] = tunnel["tx_packets"]
    for kind in ("drops", "passes"):
        for row in vlans.json("gw", f"show {kind}"):
            found[f"{kind} {row['reason']}"] = row["count"]
    return found


def test_a_vlan_that_is_made_later_is_picked_up(vlans: Machine) -> None:
    """One that vanishes is waited for by the agent; what has its name later is another device."""
    config = vlans.directory / "vlan.toml"
    log = "/mnt/agent.log"
    pid = vlans.run(
        f"setsid env {CLI} --netns gw agent {config} </dev/null >{log} 2>&1 & echo $!"
    ).strip()
    try:
        assert wait_until(lambda: "applied" in vlans.run(f"cat {log}"), 60)
        (before,) = [each for each in interfaces(vlans) if each["name"] == "l0.6"]
        vlans.run("ip -n gw link del l0.6")
        assert wait_until(lambda: {i["name"] for i in interfaces(vlans)} == {"g0.5", "g0.7.8"}, 20)
        (waiting,) = vlans.json("gw", "show status")["waiting"]
        assert waiting["object"] == "interface l0.6"
        vlans.script(
            "ip -n gw link add link l0 name l0.6 type vlan protocol 802.1q id 6\n"
            "ip -n gw link set l0.6 up\n"
            "ip -n gw address add 10.1.0.1/24 dev l0.6\n"
        )
        assert wait_until(lambda: "l0.6" in {i["name"] for i in interfaces(vlans)}, 20)
        (after,) = [each for each in interfaces(vlans) if each["name"] == "l0.6"]
        assert after["ifindex"] != before["ifindex"]
        ping = "nsenter --net=/run/netns/site ping -n -W3 -c3 -i0.1 10.2.0.1"
        assert wait_until(lambda: "3 received" in vlans.run(f"{ping}; true"), 20)
        assert vlans.json("gw", "show status")["waiting"] == []
    finally:
        vlans.run(f"kill {pid}; true")


def interfaces(vlans: Machine) -> list[dict[str, object]]:
    found: list[dict[str, object]] = vlans.json("gw", "show interfaces")
    return found
