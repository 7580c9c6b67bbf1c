"""Tunnels that share one device: the next hop of a route selects the tunnel.

site-a ── gw-a ═══ pop0: t1, t2, t3 between the same two addresses, by key ═══ gw-b ── site-b
"""

from __future__ import annotations

import json

import pytest

from netns_helpers import Gateway, Sites, ping

TUNNELS = (1, 2, 3)


def config(
    side: str, tunnels: tuple[int, ...] = TUNNELS, *, site_by: int = 1, hop: int = 10
) -> str:
    """One gateway's end of some tunnels; packets for the other site take tunnel ``site_by``."""
    here, there, net = ("1", "2", "2") if side == "a" else ("2", "1", "1")
    site = "b" if side == "a" else "a"
    text = """
        exporter = ""
        [[interface]]
        name = "eth0"
        [[interface]]
        name = "eth1"
    """
    for n in tunnels:
        routes = [f"10.255.{there}.{n}/32", f"fd00:255:{there}::{n}/128"]
        if n == site_by:
            routes += [f"10.{net}.0.0/24", f"2001:db8:{site}::/64"]
        text += f"""
            [[tunnel]]
            name = "t{n}"
            device = "pop0"
            nexthop = ["10.254.{there}.{hop + n}", "fd00:254:{there}::{hop + n}"]
            local = "192.0.2.{here}"
            remote = "192.0.2.{there}"
            key = {100 + n}
            seq = true
            addresses = ["10.255.{here}.{n}/32", "fd00:255:{here}::{n}/128"]
            routes = {json.dumps(routes)}
        """
    return text


@pytest.fixture
def shared(bare_sites: Sites) -> Sites:
    """Both gateways with three tunnels on one device."""
    bare_sites.gw_a.apply(config("a"))
    bare_sites.gw_b.apply(config("b"))
    return bare_sites


def sent(gateway: Gateway) -> dict[str, int]:
    """Packets sent by tunnel."""
    return {tunnel.name: tunnel.counters.tx_packets for tunnel in gateway.snapshot().tunnels}


def used(gateway: Gateway, before: dict[str, int]) -> set[str]:
    """The tunnels that have sent since."""
    return {name for name, count in sent(gateway).items() if count > before.get(name, 0)}


def test_there_is_one_device_for_all(shared: Sites) -> None:
    """Each tunnel is shown with it, and nothing remains to be done."""
    tunnels = shared.gw_a.snapshot().tunnels
    assert [(t.name, t.device, t.state) for t in tunnels] == [
        (f"t{n}", "pop0", "up") for n in TUNNELS
    ]
    names = {link["ifname"] for link in json.loads(shared.gw_a.run(["ip", "-j", "link"]).stdout)}
    assert names == {"lo", "eth0", "eth1", "pop0", "gx-pop0"}
    assert shared.gw_a.diff(config("a")) == []


@pytest.mark.parametrize("n", TUNNELS)
@pytest.mark.parametrize("address", ["10.255.{}.{}", "fd00:255:{}::{}"])
def test_the_host_itself_sends_by_the_next_hop(shared: Sites, address: str, n: int) -> None:
    """What the kernel has routed comes out of the inner end and finds its tunnel."""
    before = sent(shared.gw_a)
    source, destination = address.format(1, n), address.format(2, n)
    assert ping(shared.gw_a.namespace, destination, "-I", source) == 3
    assert used(shared.gw_a, before) == {f"t{n}"}
    # Multicast of the host's own is for no tunnel in particular.
    assert shared.gw_a.drops().keys() <= {"next_hop_unknown"}


@pytest.mark.parametrize("address", ["10.2.0.2", "2001:db8:b::2"])
def test_routes_select_the_tunnel_of_forwarded_packets(shared: Sites, address: str) -> None:
    """And moving the route to another next hop moves the packets."""
    before = sent(shared.gw_a)
    assert ping(shared.site_a, address) == 3
    assert used(shared.gw_a, before) == {"t1"}
    before = sent(shared.gw_a)
    shared.gw_a.apply(config("a", site_by=3))
    assert ping(shared.site_a, address) == 3
    assert used(shared.gw_a, before) == {"t3"}


def test_a_route_of_somebody_else_selects_it_too(shared: Sites) -> None:
    """FRR, BIRD and people: ip route … via NEXTHOP dev pop0."""
    more_specific = ["10.2.0.2/32", "via", "10.254.2.12", "dev", "pop0", "onlink"]
    shared.gw_a.run(["ip", "route", "add", *more_specific])
    before = sent(shared.gw_a)
    assert ping(shared.site_a, "10.2.0.2") == 3
    assert used(shared.gw_a, before) == {"t2"}
    assert shared.gw_a.diff(config("a")) == []


def test_a_next_hop_of_no_tunnel_is_named(shared: Sites) -> None:
    """From a LAN and from the host: dropped by one reason."""
    unknown = ["10.2.0.2/32", "via", "10.254.2.99", "dev", "pop0", "onlink"]
    shared.gw_a.run(["ip", "route", "add", *unknown])
    for sender in (shared.site_a, shared.gw_a.namespace):
        before = shared.gw_a.drops().get("next_hop_unknown", 0)
        assert ping(sender, "10.2.0.2", "-W", "1") == 0
        after = shared.gw_a.drops()["next_hop_unknown"]
        assert after >= before + 3


def test_what_is_too_long_is_fragmented_into_the_right_tunnel(shared: Sites) -> None:
    """The kernel's fragments find their tunnel as well."""
    before = sent(shared.gw_a)
    assert ping(shared.site_a, "10.2.0.2", "-s", "4000", "-M", "dont") == 3
    assert used(shared.gw_a, before) == {"t1"}


def test_one_tunnel_changes_and_the_others_do_not_notice(shared: Sites) -> None:
    """Another next hop, one more, one less: counters and sequence numbers of the rest go on."""
    gateway = shared.gw_a
    assert ping(shared.site_a, "10.2.0.2") == 3
    before = sent(gateway)
    steps = gateway.apply(config("a", (1, 2)))
    assert {step.action for step in steps} == {"delete"}
    assert sent(gateway) == {name: before[name] for name in ("t1", "t2")}
    gateway.apply(config("a"))
    gateway.apply(config("a", hop=50))
    assert gateway.diff(config("a", hop=50)) == []
    assert ping(shared.site_a, "10.2.0.2") == 3
    assert sent(gateway)["t1"] >= before["t1"] + 3
    assert "gre_sequence" not in shared.gw_b.drops()


def test_a_tunnel_moves_onto_a_device_of_its_own_and_back(shared: Sites) -> None:
    """Its counters go with it."""
    gateway, alone = shared.gw_a, config("a")
    start = alone.index('name = "t2"')
    alone = alone[:start] + alone[start:].replace('device = "pop0"\n', "", 1)
    line = next(line for line in alone[start:].splitlines() if "nexthop" in line)
    alone = alone[:start] + alone[start:].replace(line, "", 1)
    assert ping(gateway.namespace, "10.255.2.2", "-I", "10.255.1.2") == 3
    before = sent(gateway)["t2"]
    gateway.apply(alone)
    assert gateway.tunnel("t2").device == "t2"
    assert ping(gateway.namespace, "10.255.2.2", "-I", "10.255.1.2") == 3
    gateway.apply(config("a"))
    assert gateway.tunnel("t2").device == "pop0"
    assert ping(gateway.namespace, "10.255.2.2", "-I", "10.255.1.2") == 3
    assert sent(gateway)["t2"] >= before + 6


def test_down_leaves_nothing(shared: Sites) -> None:
    """Of a shared device either."""
    shared.gw_a.down()
    names = {link["ifname"] for link in json.loads(shared.gw_a.run(["ip", "-j", "link"]).stdout)}
    assert names == {"lo", "eth0", "eth1"}
