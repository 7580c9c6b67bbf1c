"""VLAN tags: frames of GRE with any, and VLAN sub-interfaces as ports (tests/program/vlans.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

import packets as p
from packets import came
from program import vlans
from program.bench import (
    Bench,
    Outcome,
    decapsulated,
    dropped,
    encapsulated,
    passed,
    relayed,
    to_device,
    to_port,
    unrelated,
)
from program.vlans import U9, U98, V7, V78, C, S, Tags, Vlan

GATEWAY_TUNNELS = (
    *("plain", "keyed", "full", "plain6", "keyed6", "full6", "tap", "tap6"),
    *("behind", "behind6", "behindtwo"),
)

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
LAN_VLANS = pytest.mark.parametrize("vlan", [V7, V78], ids=["one-tag", "two-tags"])


@pytest.fixture(scope="module", autouse=True)
def _vlans(bench: Bench) -> Iterator[None]:
    """The VLANs, for the time of this module."""
    with vlans.made(bench):
        yield


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("full", "full6")


# Tags of no VLAN above.
FOREIGN = {
    "c": ((C, 100),),
    "s": ((S, 100),),
    "c,c": ((C, 100), (C, 200)),
    "s,c": ((S, 100), (C, 200)),
    "s,s": ((S, 100), (S, 200)),
    "c,s": ((C, 100), (S, 200)),
    "priority": ((C, 0xE000),),
    "priority-in-s": ((S, 100), (C, 0xA000)),
    "with-priority": ((C, 0xB064),),
}


class TestTaggedGre:
    """A tunnel is bound to addresses, not to a VLAN."""

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["plain", "keyed", "full", "plain6", "keyed6", "full6"])
    @VERSIONS
    def test_to_lan(self, bench: Bench, version: int, tunnel: str, tags: Tags) -> None:
        """What is decapsulated untagged is so tagged once or twice, and leaves untagged."""
        inner = p.to_lan(tunnel, version)
        header = {}
        if tunnel.startswith("full"):
            header = {"chksum_present": 1, "seqnum_present": 1, "sequence_number": 1}
        frame = p.tagged(came(tunnel, inner, header), *tags)
        assert bench.port(frame + b"\xa5" * 2, "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_to_device(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """On the tunnel's device no tags of the underlay are seen."""
        inner = p.udp(p.SITE[tunnel][0], "10.1.0.1")
        frame = p.tagged(came(tunnel, inner), *tags)
        assert bench.port(frame, "eth0") == to_device(bench, tunnel, inner, "for_this_host")

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["tap", "tap6"])
    def test_frame_in_a_frame(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """The tags of the outer frame go, those of the inner one stay."""
        carried = p.tagged(p.on_lan(p.udp("10.0.0.1", "10.0.0.2")), (C, 3), (C, 4))
        frame = p.tagged(came(tunnel, carried), *tags)
        assert bench.port(frame, "eth0") == to_device(bench, tunnel, carried, "ethernet")

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize(("source", "target"), [("plain", "keyed6"), ("keyed6", "plain")])
    def test_relayed(self, bench: Bench, source: str, target: str, tags: Tags) -> None:
        """Into another tunnel it goes without them, too."""
        inner = p.udp(p.SITE[source][0], p.SITE[target][0])
        outcome = bench.port(p.tagged(came(source, inner), *tags), "eth0")
        label = {"fl": p.flow_label(outcome.frame)} if p.ENDS[target].is_ipv6 else {}
        expected = p.sent(p.gre(p.spent(inner), p.ENDS[target].okey), target, **label)
        assert outcome == relayed(source, target, expected, inner)

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["keyed", "keyed6"])
    def test_broken(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """Tags excuse nothing."""
        whole = came(tunnel, p.to_lan(tunnel, 4), {"chksum_present": 1})
        gre_at = p.GRE_AT6 if p.ENDS[tunnel].is_ipv6 else p.GRE_AT
        for spoiled, reason in [
            (p.patched(whole, len(whole) - 1, b"\0"), "gre_checksum"),
            (p.patched(whole, gre_at + 11, b"\0"), "key_mismatch"),
            (p.patched(whole, gre_at, b"\xe0"), "gre_routing_bit"),
        ]:
            assert bench.port(p.tagged(spoiled, *tags), "eth0") == dropped(reason)

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    @VERSIONS
    def test_frame_cut_off(self, bench: Bench, version: int, tunnel: str, tags: Tags) -> None:
        """A frame that ends before its packet is not one of ours, wherever it ends."""
        frame = p.tagged(came(tunnel, p.to_lan(tunnel, version)), *tags)
        for length in range(14, len(frame)):
            assert bench.port(frame[:length], "eth0") == unrelated(frame[:length]), length

    @pytest.mark.parametrize(
        "tags",
        [((C, 1), (C, 2), (C, 3)), ((S, 1), (S, 2), (C, 3)), ((C, 0), (C, 0), (C, 0))],
        ids=["c,c,c", "s,s,c", "priorities"],
    )
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_three_tags(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """More than two tags nobody reads."""
        frame = p.tagged(came(tunnel, p.to_lan(tunnel, 4)), *tags)
        assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize("protocol", [0x9100, 0x9200, 0x0081, 0xA888])
    def test_tags_of_other_protocols(self, bench: Bench, protocol: int) -> None:
        """Only 802.1Q and 802.1ad are tags."""
        frame = p.tagged(came("plain", p.to_lan("plain", 4)), (protocol, 7))
        assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_not_for_our_mac(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """The frame must be for our link address, whatever its tags."""
        frame = p.tagged(came(tunnel, p.to_lan(tunnel, 4), mac=p.STRANGER_MAC), *tags)
        assert bench.port(frame, "eth0") == unrelated(frame)


def from_lan(tunnel: str, version: int, vlan: Vlan, *, mac: str | None = None) -> Packet:
    """An untagged frame from a host on a VLAN to the VLAN's own link address."""
    inner = p.udp(vlan.neighbours[version == 6], p.SITE[tunnel][version == 6])
    return p.on_lan(inner, dst=mac or vlan.mac)


def went(
    bench: Bench, frame: Packet | bytes, tunnel: str, inner: Packet
) -> tuple[Outcome, Outcome]:
    """What becomes of a LAN's frame, and what should if it goes into a tunnel."""
    outcome = bench.port(frame, "eth1")
    label = {"fl": p.flow_label(outcome.frame)} if p.ENDS[tunnel].is_ipv6 else {}
    expected = p.sent(p.gre(p.spent(inner), p.ENDS[tunnel].okey), tunnel, **label)
    return outcome, encapsulated(tunnel, expected, inner)


class TestFromLan:
    """Frames of the LAN: which VLAN they are of says where they come in."""

    @pytest.mark.parametrize("tag", [0x0000, 0x2000, 0xE000, 0x1000], ids="{:#06x}".format)
    @pytest.mark.parametrize("tunnel", ["plain", "keyed6"])
    @VERSIONS
    def test_priority_tag(self, bench: Bench, version: int, tunnel: str, tag: int) -> None:
        """A tag with ID 0 carries a priority, and is no VLAN (IEEE 802.1Q)."""
        inner = p.to_site(tunnel, version)
        outcome, expected = went(bench, p.tagged(p.on_lan(inner), (C, tag)), tunnel, inner)
        assert outcome == expected

    @pytest.mark.parametrize(
        "tags",
        [
            *(pytest.param(FOREIGN[name], id=name) for name in FOREIGN if name != "priority"),
            pytest.param(((S, 7),), id="s-of-a-c"),
            pytest.param(((C, 9),), id="of-the-other-trunk"),
            pytest.param(((C, 7), (C, 8)), id="inner-tag-too-many"),
            pytest.param(((C, 8),), id="outer-tag-missing"),
            pytest.param(((S, 7), (S, 8)), id="inner-protocol"),
            pytest.param(((C, 8), (S, 7)), id="in-the-wrong-order"),
            pytest.param(((C, 0), (C, 7)), id="priority-before"),
            pytest.param(((C, 1), (C, 2), (C, 3)), id="three-tags"),
        ],
    )
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_unknown_vlan(self, bench: Bench, tunnel: str, tags: Tags) -> None:
        """A VLAN that is no interface of the configuration is none of our business."""
        for version in (4, 6):
            for mac in (p.LAN_MAC, V7.mac, V78.mac):
                frame = p.tagged(from_lan(tunnel, version, V7, mac=mac), *tags)
                assert bench.port(frame, "eth1") == unrelated(frame), (version, mac)

    @pytest.mark.parametrize("priority", [0x0000, 0xE000, 0x1000], ids="{:#06x}".format)
    @LAN_VLANS
    @pytest.mark.parametrize("tunnel", ["plain", "keyed", "plain6", "keyed6"])
    @VERSIONS
    def test_of_a_vlan(
        self, bench: Bench, version: int, tunnel: str, vlan: Vlan, priority: int
    ) -> None:
        """A VLAN that is one is a LAN as any other, whatever the priority of its frames."""
        frame = from_lan(tunnel, version, vlan)
        tags = [(protocol, vlan_id | priority) for protocol, vlan_id in vlan.tags]
        outcome, expected = went(bench, p.tagged(frame, *tags), tunnel, frame.payload)
        assert outcome == expected

    @LAN_VLANS
    def test_comes_in_by_the_vlan(self, bench: Bench, vlan: Vlan) -> None:
        """Routing rules of the VLAN's device hold for its frames, and for no others."""
        inner = p.udp(vlan.neighbours[0], "10.20.77.5")
        frame = p.tagged(p.on_lan(inner, dst=vlan.mac), *vlan.tags)
        outcome, expected = went(bench, frame, "keyed", inner)
        assert outcome == expected
        outcome, expected = went(bench, p.on_lan(inner), "plain", inner)
        assert outcome == expected

    @LAN_VLANS
    @VERSIONS
    def test_for_another_mac(self, bench: Bench, version: int, vlan: Vlan) -> None:
        """A VLAN's frames are for the VLAN's link address, untagged ones for the trunk's."""
        other = {V7: V78, V78: V7}[vlan]
        for mac, tags in [
            (p.LAN_MAC, vlan.tags),
            (other.mac, vlan.tags),
            (p.STRANGER_MAC, vlan.tags),
            (vlan.mac, ()),
        ]:
            frame = p.tagged(from_lan("plain", version, vlan, mac=mac), *tags)
            assert bench.port(frame, "eth1") == unrelated(frame), (mac, tags)

    @LAN_VLANS
    def test_by_another_trunk(self, bench: Bench, vlan: Vlan) -> None:
        """The same tags by another device are another VLAN."""
        for mac in (vlan.mac, p.UNDERLAY_MAC):
            frame = p.tagged(from_lan("plain", 4, vlan, mac=mac), *vlan.tags)
            assert bench.port(frame, "eth0") == unrelated(frame)

    @LAN_VLANS
    @pytest.mark.parametrize(
        ("tunnel", "fields", "reason"),
        [
            pytest.param("plain", {"ttl": 1}, "ttl_expired", id="last-hop"),
            pytest.param("plain", {"length": 1449}, "too_big", id="too-big"),
            pytest.param("plain6", {"length": 1429}, "too_big", id="too-big-for-ipv6"),
            pytest.param("tap", {}, "ethernet", id="ethernet"),
        ],
    )
    def test_left_to_the_kernel(
        self, bench: Bench, tunnel: str, fields: dict[str, int], reason: str, vlan: Vlan
    ) -> None:
        """What the kernel answers it gets as it came, with its tags."""
        inner = p.udp(vlan.neighbours[0], p.SITE[tunnel][0], **fields)
        frame = p.tagged(p.on_lan(inner, dst=vlan.mac), *vlan.tags)
        assert bench.port(frame, "eth1") == passed(frame, reason)

    @LAN_VLANS
    def test_of_no_tunnel(self, bench: Bench, vlan: Vlan) -> None:
        """What is not for a tunnel is none of our business on a VLAN, either."""
        for untagged in (
            Ether(src=p.HOST_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.7.0.1"),
            p.on_lan(p.udp(vlan.neighbours[0], p.HOST4), dst=vlan.mac),
            p.on_lan(p.udp(vlan.neighbours[0], "224.0.0.5"), dst=vlan.mac),
        ):
            frame = p.tagged(untagged, *vlan.tags)
            assert bench.port(frame, "eth1") == unrelated(frame)


def out_of(vlan: Vlan, packet: Packet) -> bytes:
    """The frame in which the gateway sends a packet to a neighbour on a VLAN."""
    frame = Ether(src=vlan.mac, dst=p.HOST_MAC, type=p.ethertype(packet)) / packet
    return p.tagged(frame, *vlan.tags)


@contextmanager
def no_target(bench: Bench, interface: str) -> Iterator[None]:
    """Nothing may be sent out of an interface for the time of a block."""
    bench.data_path.delete_target(bench.ifindex(interface))
    try:
        yield
    finally:
        bench.data_path.put_target(bench.ifindex(interface))


class TestToLan:
    """What is decapsulated for a host on a VLAN."""

    @LAN_VLANS
    @pytest.mark.parametrize("tunnel", ["plain", "keyed", "full", "plain6", "keyed6", "full6"])
    @VERSIONS
    def test_tagged(self, bench: Bench, version: int, tunnel: str, vlan: Vlan) -> None:
        """It leaves with the VLAN's tags, and from the VLAN's link address."""
        inner = p.udp(p.SITE[tunnel][version == 6], vlan.neighbours[version == 6])
        header = {}
        if tunnel.startswith("full"):
            header = {"chksum_present": 1, "seqnum_present": 1, "sequence_number": 1}
        frame = bytes(came(tunnel, inner, header)) + b"\xa5" * 9
        expected = decapsulated(tunnel, out_of(vlan, p.spent(inner)), carried=len(inner))
        assert bench.port(frame, "eth0") == expected

    @LAN_VLANS
    @pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
    def test_tags_of_the_underlay_go(self, bench: Bench, tags: Tags, vlan: Vlan) -> None:
        """Its tags have nothing to do with those that it came with."""
        inner = p.udp(p.SITE4, vlan.neighbours[0])
        expected = decapsulated("plain", out_of(vlan, p.spent(inner)), carried=len(inner))
        assert bench.port(p.tagged(came("plain", inner), *tags), "eth0") == expected

    @LAN_VLANS
    def test_header_only(self, bench: Bench, vlan: Vlan) -> None:
        """The shortest packet makes a frame that is shorter than Ethernet's, as a port pads."""
        inner = IP(bytes(IP(src=p.SITE4, dst=vlan.neighbours[0], proto=253, id=0)))
        expected = decapsulated("plain", out_of(vlan, p.spent(inner)), carried=len(inner))
        assert bench.port(came("plain", inner), "eth0") == expected

    @LAN_VLANS
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_leaves_by_the_trunk(self, bench: Bench, tunnel: str, vlan: Vlan) -> None:
        """Where the trunk takes no frames the kernel gets it: no other device would do."""
        inner = p.udp(p.SITE[tunnel][0], vlan.neighbours[0])
        with no_target(bench, "eth1"):
            expected = to_device(bench, tunnel, inner, "egress_unattached")
            assert bench.port(came(tunnel, inner), "eth0") == expected
        with no_target(bench, "eth0"):
            expected = decapsulated(tunnel, out_of(vlan, p.spent(inner)), carried=len(inner))
            assert bench.port(came(tunnel, inner), "eth0") == expected

    @LAN_VLANS
    def test_silent_host(self, bench: Bench, vlan: Vlan) -> None:
        """A host that has not answered yet is the kernel's to ask."""
        inner = p.udp(p.SITE4, vlan.neighbours[0].replace(".2", ".3"))
        expected = to_device(bench, "plain", inner, "no_neighbour")
        assert bench.port(came("plain", inner), "eth0") == expected


class TestUnderlay:
    """Tunnels whose remotes are behind a VLAN."""

    REMOTES = pytest.mark.parametrize(
        ("tunnel", "vlan"),
        [("behind", U9), ("behind6", U9), ("behindtwo", U98)],
        ids=["one-tag", "one-tag-ipv6", "two-tags"],
    )

    @staticmethod
    def sent(outcome: Outcome, tunnel: str, vlan: Vlan, inner: Packet) -> bytes:
        """The frame in which the gateway sends GRE by a VLAN."""
        label = {}
        if p.ENDS[tunnel].is_ipv6:
            label = {"fl": p.flow_label(outcome.frame[4 * len(vlan.tags) :])}
        packet = p.sent(p.gre(inner), tunnel, **label).payload
        return out_of(vlan, packet)

    @staticmethod
    def received(tunnel: str, vlan: Vlan, inner: Packet, *, mac: str | None = None) -> bytes:
        """The frame in which it receives GRE by a VLAN."""
        return p.tagged(came(tunnel, inner, mac=mac or vlan.mac), *vlan.tags)

    @REMOTES
    @VERSIONS
    def test_from_lan(self, bench: Bench, version: int, tunnel: str, vlan: Vlan) -> None:
        """Tags, outer header, GRE, and the inner packet with one hop less."""
        inner = p.to_site(tunnel, version)
        outcome = bench.port(p.on_lan(inner), "eth1")
        expected = self.sent(outcome, tunnel, vlan, p.spent(inner))
        assert outcome == encapsulated(tunnel, expected, inner)

    @REMOTES
    @VERSIONS
    def test_from_this_host(self, bench: Bench, version: int, tunnel: str, vlan: Vlan) -> None:
        """The same from the tunnel's inner end."""
        inner = p.to_site(tunnel, version)
        outcome = bench.inner(p.onto_device(inner, p.STRANGER_MAC), f"gx-{tunnel}")
        assert outcome == encapsulated(tunnel, self.sent(outcome, tunnel, vlan, inner), inner)

    @REMOTES
    @pytest.mark.parametrize("lan", [V7, V78], ids=["from-one-tag", "from-two-tags"])
    @VERSIONS
    def test_from_vlan_to_vlan(
        self, bench: Bench, version: int, lan: Vlan, tunnel: str, vlan: Vlan
    ) -> None:
        """Tags of the LAN go and those of the underlay come."""
        frame = from_lan(tunnel, version, lan)
        outcome = bench.port(p.tagged(frame, *lan.tags), "eth1")
        expected = self.sent(outcome, tunnel, vlan, p.spent(frame.payload))
        assert outcome == encapsulated(tunnel, expected, frame.payload)

    @REMOTES
    def test_leaves_by_the_trunk(self, bench: Bench, tunnel: str, vlan: Vlan) -> None:
        """Where the trunk takes no frames nothing can leave."""
        inner = p.to_site(tunnel, 4)
        with no_target(bench, "eth0"):
            assert bench.port(p.on_lan(inner), "eth1") == dropped("egress_unattached")
        with no_target(bench, "eth1"):
            outcome = bench.port(p.on_lan(inner), "eth1")
            expected = self.sent(outcome, tunnel, vlan, p.spent(inner))
            assert outcome == encapsulated(tunnel, expected, inner)

    @REMOTES
    def test_largest(self, bench: Bench, tunnel: str, vlan: Vlan) -> None:
        """Duty 17: tags are not of the underlay's MTU."""
        mtu = 1456 if p.ENDS[tunnel].is_ipv6 else 1476
        inner = p.of_bytes(mtu, p.to_site, tunnel, 4)
        outcome = bench.port(p.on_lan(inner), "eth1")
        assert outcome == encapsulated(
            tunnel, self.sent(outcome, tunnel, vlan, p.spent(inner)), inner
        )
        assert len(outcome.frame) == 1514 + 4 * len(vlan.tags)

    @REMOTES
    @VERSIONS
    def test_received(self, bench: Bench, version: int, tunnel: str, vlan: Vlan) -> None:
        """GRE by a VLAN is for the VLAN's link address, and not for the trunk's."""
        inner = p.to_lan(tunnel, version)
        assert bench.port(self.received(tunnel, vlan, inner), "eth0") == to_port(tunnel, inner)
        for mac in (p.UNDERLAY_MAC, p.STRANGER_MAC):
            frame = self.received(tunnel, vlan, inner, mac=mac)
            assert bench.port(frame, "eth0") == unrelated(frame)
        untagged = came(tunnel, inner, mac=vlan.mac)
        assert bench.port(untagged, "eth0") == unrelated(untagged)

    @REMOTES
    def test_received_for_a_vlan(self, bench: Bench, tunnel: str, vlan: Vlan) -> None:
        """In by a VLAN and out by another."""
        inner = p.udp(p.SITE[tunnel][0], V78.neighbours[0])
        expected = decapsulated(tunnel, out_of(V78, p.spent(inner)), carried=len(inner))
        assert bench.port(self.received(tunnel, vlan, inner), "eth0") == expected

    @pytest.mark.parametrize(
        ("source", "came_by", "target", "left_by"),
        [
            pytest.param("behind", U9, "behind6", U9, id="ipv4-to-ipv6"),
            pytest.param("behind6", U9, "behind", U9, id="ipv6-to-ipv4"),
            pytest.param("behind", U9, "behindtwo", U98, id="one-tag-to-two"),
            pytest.param("behindtwo", U98, "behind6", U9, id="two-tags-to-one"),
        ],
    )
    def test_relayed(
        self, bench: Bench, source: str, came_by: Vlan, target: str, left_by: Vlan
    ) -> None:
        """Hub and spoke between VLANs."""
        inner = p.udp(p.SITE[source][0], p.SITE[target][0])
        outcome = bench.port(self.received(source, came_by, inner), "eth0")
        expected = self.sent(outcome, target, left_by, p.spent(inner))
        assert outcome == relayed(source, target, expected, inner)
