"""Tunnels of Ethernet frames (``payload = "ethernet"``): GRE's protocol type 0x6558, both ways."""

from __future__ import annotations

from typing import ClassVar

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, GRE, LLC, STP, Dot3, Ether
from scapy.packet import Packet, Raw

import packets as p
from packets import came
from program.bench import Bench, Outcome, dropped, encapsulated, passed, to_device

GATEWAY_TUNNELS = (
    *("plain", "plain6"),
    *("tap", "tapfull", "tapinherit", "tapfixed", "tap6", "tapfull6", "tapinherit6"),
)

OUTERS = pytest.mark.parametrize("tunnel", ["tap", "tap6"], ids=["over-ipv4", "over-ipv6"])
INHERITING = pytest.mark.parametrize(
    "tunnel", ["tapinherit", "tapinherit6"], ids=["over-ipv4", "over-ipv6"]
)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
NAMES = {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"}
NOT_ECT, ECT1, ECT0, CE = NAMES
CHECKSUM = {"chksum_present": 1}
BROADCAST = "ff:ff:ff:ff:ff:ff"

C, S = 0x8100, 0x88A8
TAGS = {
    "untagged": (),
    "vlan": ((C, 7),),
    "priority": ((C, 0xE000),),
    "two-vlans": ((S, 7), (C, 8)),
}
TAGGED = pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
TAGGED_OR_NOT = pytest.mark.parametrize(
    "tags", [(), TAGS["two-vlans"]], ids=["untagged", "two-vlans"]
)


def framed(packet: Packet | bytes, protocol: int, *tags: tuple[int, int]) -> bytes:
    """A frame between two stations of the bridged network, neither of which is the gateway."""
    return p.tagged(Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC, type=protocol) / packet, *tags)


def of_ip(packet: Packet, *tags: tuple[int, int]) -> bytes:
    return framed(packet, p.ethertype(packet), *tags)


ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
IPV4, IPV6 = p.udp(*ENDS[4]), p.udp(*ENDS[6])
FRAMES = {
    "ipv4": of_ip(IPV4),
    "ipv6": of_ip(IPV6),
    "ipv4-in-a-vlan": of_ip(IPV4, *TAGS["vlan"]),
    "ipv6-in-two-vlans": of_ip(IPV6, *TAGS["two-vlans"]),
    "ipv4-with-a-priority": of_ip(IPV4, *TAGS["priority"]),
    "ipv4-in-three-vlans": of_ip(IPV4, (S, 1), (C, 2), (C, 3)),
    "ipv4-padded": of_ip(p.udp("10.0.0.1", "10.0.0.2", 1)) + b"\xa5" * 17,
    "last-hop": of_ip(p.udp("10.0.0.1", "10.0.0.2", ttl=1)),
    "martian": of_ip(p.udp("127.0.0.1", "255.255.255.255")),
    "for-this-host": of_ip(p.udp("10.0.0.1", "10.1.0.1")),
    "gre-to-the-local": of_ip(IP(bytes(IP(src=p.REMOTE, dst=p.LOCAL) / p.gre(IPV4)))),
    "ipv4-checksum": p.patched(of_ip(IPV4), 24, b"\0\0"),
    "ipv4-cut-off": of_ip(IPV4)[:-5],
    "half-an-ipv4-header": of_ip(IPV4)[:24],
    "half-an-ipv6-header": of_ip(IPV6)[:50],
    "arp": bytes(Ether(src=p.HOST_MAC, dst=BROADCAST) / ARP(pdst="10.0.0.2")),
    "arp-in-a-vlan": p.tagged(
        Ether(src=p.HOST_MAC, dst=BROADCAST) / ARP(pdst="10.0.0.2"), *TAGS["vlan"]
    ),
    "neighbour-solicitation": bytes(
        Ether(src=p.HOST_MAC, dst="33:33:ff:00:00:01")
        / IPv6(src="fe80::2", dst="ff02::1:ff00:1")
        / ICMPv6ND_NS(tgt="fe80::1")
    ),
    "spanning-tree": bytes(Dot3(src=p.HOST_MAC, dst="01:80:c2:00:00:00") / LLC() / STP()),
    "lldp": framed(b"\x02\x07\x04" + bytes(30), 0x88CC),
    "mpls": framed(MPLS(label=16, s=1) / IPV4, 0x8847),
    "loop-test": framed(bytes(46), 0x9000),
    "shortest": framed(b"", 0x1234),
    "shortest-said-to-be-ipv4": framed(b"", 0x0800),
    "shortest-said-to-be-tagged": framed(b"", C),
    "a-tag-and-nothing": framed(b"", 0x0800, *TAGS["vlan"]),
    "half-a-tag": framed(b"\0\7", C),
    "sixty-zeros": bytes(60),
}
ANY_FRAME = pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("tapfull", "tapfull6")


def from_host(bench: Bench, tunnel: str, frame: bytes) -> Outcome:
    """What becomes of a frame that the host sends into a tunnel's device."""
    return bench.inner(frame, f"gx-{tunnel}")


def went(
    outcome: Outcome, tunnel: str, frame: bytes, carried: bytes | None = None, **outer: object
) -> Outcome:
    """A frame that left through a tunnel, as ``carried`` where it has changed."""
    gre = p.gre(frame if carried is None else carried, p.ENDS[tunnel].okey)
    return went_as(outcome, tunnel, frame, gre, **outer)


def went_as(outcome: Outcome, tunnel: str, frame: bytes, gre: Packet, **outer: object) -> Outcome:
    if p.ENDS[tunnel].is_ipv6:
        outer = {"fl": p.flow_label(outcome.frame), **outer}
    return encapsulated(tunnel, p.sent(gre, tunnel, **outer), frame)


class TestDecap:
    """A frame arrives on the tunnel's device as it was sent, for a bridge or the kernel."""

    @ANY_FRAME
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @OUTERS
    def test_delivered(
        self, bench: Bench, tunnel: str, header: dict[str, object], frame: bytes
    ) -> None:
        """Duties 1, 6: octet by octet, whatever is in it, and counted from its MAC header on."""
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(came(tunnel, frame, header), "eth0") == expected

    @pytest.mark.parametrize("padding", [1, 8, 18, 200])
    @pytest.mark.parametrize("name", ["ipv4", "arp", "shortest", "shortest-said-to-be-tagged"])
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @OUTERS
    def test_padding_behind_the_frame(
        self, bench: Bench, tunnel: str, header: dict[str, object], name: str, padding: int
    ) -> None:
        """The outer frame's padding is none of the inner one's, which keeps its own."""
        frame = bytes(came(tunnel, FRAMES[name], header)) + b"\xa5" * padding
        expected = to_device(bench, tunnel, FRAMES[name], "ethernet")
        assert bench.port(frame, "eth0") == expected

    @pytest.mark.parametrize("padding", [0, 60], ids=["", "padded"])
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @OUTERS
    def test_shorter_than_a_mac_header(
        self, bench: Bench, tunnel: str, header: dict[str, object], padding: int
    ) -> None:
        """Fourteen octets are a frame, and none of less are."""
        for length in range(14):
            frame = bytes(came(tunnel, FRAMES["ipv4"][:length], header)) + b"\xa5" * padding
            assert bench.port(frame, "eth0") == dropped("inner_malformed"), length

    @pytest.mark.parametrize("tunnel", ["tapfull", "tapfull6"])
    def test_all_words(self, bench: Bench, tunnel: str) -> None:
        """Duties 5, 6, 11: checksum, key and sequence number mean what they mean for IP."""
        frame = FRAMES["arp"]
        header = CHECKSUM | {"seqnum_present": 1, "sequence_number": 3}
        good = came(tunnel, frame, header)
        assert bench.port(good, "eth0") == to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(good, "eth0") == dropped("gre_sequence")
        header["sequence_number"] = 4
        for spoiled, reason in [
            (came(tunnel, frame, CHECKSUM), "gre_sequence_missing"),
            (came(tunnel, frame, {**header, "chksum_present": 0}), "gre_checksum_missing"),
            (came(tunnel, frame, {**header, "chksum": 1}), "gre_checksum"),
            (p.received(p.gre(frame, **header), tunnel), "key_mismatch"),
        ]:
            assert bench.port(spoiled, "eth0") == dropped(reason)
        good = came(tunnel, frame, header)
        assert bench.port(good, "eth0") == to_device(bench, tunnel, frame, "ethernet")

    @pytest.mark.parametrize(
        "carried",
        [
            pytest.param(IPV4, id="ipv4"),
            pytest.param(IPV6, id="ipv6"),
            pytest.param(MPLS(label=16, s=1) / IPV4, id="mpls"),
            *(
                pytest.param(GRE(proto=protocol) / Raw(FRAMES["ipv4"]), id=f"{protocol:#06x}")
                for protocol in (0x0000, 0x0806, 0x5865, 0x6559, 0x88BE, 0xFFFF)
            ),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @OUTERS
    def test_unknown_protocol(
        self, bench: Bench, tunnel: str, header: dict[str, object], carried: Packet
    ) -> None:
        """Duty 7: an Ethernet tunnel carries frames alone."""
        gre = carried if isinstance(carried, GRE) else p.gre(carried)
        for name, value in header.items():
            setattr(gre, name, value)
        assert bench.port(p.received(gre, tunnel), "eth0") == dropped("unknown_protocol")

    @pytest.mark.parametrize("tunnel", ["plain", "plain6"], ids=["over-ipv4", "over-ipv6"])
    def test_a_frame_in_an_ip_tunnel(self, bench: Bench, tunnel: str) -> None:
        """Duty 7: an IP tunnel carries no frames."""
        assert bench.port(came(tunnel, FRAMES["ipv4"]), "eth0") == dropped("unknown_protocol")

    @pytest.mark.parametrize(("tunnel", "mtu"), [("tap", 1462), ("tap6", 1442), ("tapfixed", 1400)])
    def test_longest_for_the_device(self, bench: Bench, tunnel: str, mtu: int) -> None:
        """Duty 17: a device takes its MTU, a MAC header and a tag; longer ones would be lost."""
        frame = framed(bytes(mtu), 0x1234, *TAGS["vlan"])
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(came(tunnel, frame), "eth0") == expected
        assert bench.port(came(tunnel, frame + b"\0"), "eth0") == dropped("too_big")


class TestEcn:
    """RFC 6040 through the frame: the mark is that of the IP packet in it."""

    @pytest.mark.parametrize(
        ("inner_ecn", "outer_ecn", "result"),
        [
            pytest.param(inner, outer, result, id=f"{NAMES[inner]},{NAMES[outer]}")
            for inner, results in {
                NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
                ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
                ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
                CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
            }.items()
            for outer, result in results.items()
        ],
    )
    @TAGGED_OR_NOT
    @VERSIONS
    @OUTERS
    def test_decap(
        self,
        bench: Bench,
        tunnel: str,
        version: int,
        tags: tuple[tuple[int, int], ...],
        inner_ecn: int,
        outer_ecn: int,
        result: int | None,
    ) -> None:
        """Duties 24, 25: all sixteen cells, tagged or not, the IPv4 checksum included."""
        frame = of_ip(p.udp(*ENDS[version], tos=0x48 | inner_ecn), *tags)
        expected = dropped("ecn_ce_not_ect")
        if result is not None:
            marked = of_ip(p.udp(*ENDS[version], tos=0x48 | result), *tags)
            expected = to_device(bench, tunnel, marked, "ethernet")
        assert bench.port(came(tunnel, frame, tos=0xB8 | outer_ecn), "eth0") == expected

    @pytest.mark.parametrize("name", ["arp", "lldp", "ipv4-checksum", "ipv4-in-three-vlans"])
    @pytest.mark.parametrize("ecn", NAMES, ids=NAMES.values())
    @OUTERS
    def test_decap_of_no_ip(self, bench: Bench, tunnel: str, ecn: int, name: str) -> None:
        """What is no IP packet, or no whole one, has no mark, and is not dropped for that."""
        expected = to_device(bench, tunnel, FRAMES[name], "ethernet")
        assert bench.port(came(tunnel, FRAMES[name], tos=ecn), "eth0") == expected

    @pytest.mark.parametrize("ecn", NAMES, ids=NAMES.values())
    @TAGGED_OR_NOT
    @VERSIONS
    @pytest.mark.parametrize("tunnel", ["tap", "tap6", "tapfixed"])
    def test_encap(
        self,
        bench: Bench,
        tunnel: str,
        version: int,
        tags: tuple[tuple[int, int], ...],
        ecn: int,
    ) -> None:
        """Duties 23, 25: the outer mark is the inner one, DSCP that or the configured one."""
        df = {"flags": "DF"} if version == 4 else {}
        frame = of_ip(p.udp(*ENDS[version], tos=0x48 | ecn, **df), *tags)
        outcome = from_host(bench, tunnel, frame)
        outer: dict[str, object] = {"tos": 0x48 | ecn}
        if tunnel == "tapfixed":
            outer = {"tos": 0xB8 | ecn, "ttl": 9}
            outer |= {} if version == 4 else free_to_fragment(outcome)
        assert outcome == went(outcome, tunnel, frame, **outer)


def free_to_fragment(outcome: Outcome) -> dict[str, object]:
    """Outer fields of what the network may fragment: no DF, and some identification."""
    return {"flags": 0, "id": int.from_bytes(outcome.frame[18:20], "big")}


class TestEncap:
    """Whatever the host or a bridge sends into the device leaves as a frame in GRE."""

    @ANY_FRAME
    @OUTERS
    def test_any_frame(self, bench: Bench, tunnel: str, frame: bytes) -> None:
        """Duty 1: octet by octet, with protocol type 0x6558; padding cannot be told from data."""
        outcome = from_host(bench, tunnel, frame)
        assert outcome == went(outcome, tunnel, frame)

    @pytest.mark.parametrize("tunnel", ["tapfull", "tapfull6"])
    @pytest.mark.parametrize("name", ["ipv4", "arp-in-a-vlan", "shortest", "ipv4-padded"])
    def test_all_words(self, bench: Bench, name: str, tunnel: str) -> None:
        """Duties 5, 6, 11: checksum, key and sequence number, in this order."""
        frame = FRAMES[name]
        for number in range(3):
            outcome = from_host(bench, tunnel, frame)
            header = CHECKSUM | {"seqnum_present": 1, "sequence_number": number}
            gre = p.gre(frame, p.KEY, **header)
            assert outcome == went_as(outcome, tunnel, frame, gre)

    @pytest.mark.parametrize("ttl", [1, 2, 64, 255])
    @TAGGED
    @VERSIONS
    @pytest.mark.parametrize(
        "tunnel", ["tapinherit", "tapinherit6"], ids=["over-ipv4", "over-ipv6"]
    )
    def test_ttl_inherited(
        self,
        bench: Bench,
        tunnel: str,
        version: int,
        tags: tuple[tuple[int, int], ...],
        ttl: int,
    ) -> None:
        """Duty 12: the outer TTL is that of the IP packet in the frame, under tags as well."""
        frame = of_ip(p.udp(*ENDS[version], ttl=ttl, tos=0x48), *tags)
        outcome = from_host(bench, tunnel, frame)
        assert outcome == went(outcome, tunnel, frame, ttl=ttl, tos=0x48)

    @pytest.mark.parametrize(
        "name", ["arp", "arp-in-a-vlan", "lldp", "spanning-tree", "ipv4-checksum", "ipv4-cut-off"]
    )
    @pytest.mark.parametrize(
        "tunnel", ["tapinherit", "tapinherit6"], ids=["over-ipv4", "over-ipv6"]
    )
    def test_nothing_to_inherit(self, bench: Bench, tunnel: str, name: str) -> None:
        """Duty 12: without an IP packet the outer TTL is 64 and the outer TOS 0."""
        outcome = from_host(bench, tunnel, FRAMES[name])
        assert outcome == went(outcome, tunnel, FRAMES[name], ttl=64, tos=0)

    @pytest.mark.parametrize(
        ("frame", "has_df"),
        [
            pytest.param(of_ip(p.udp("10.0.0.1", "10.0.0.2", flags="DF")), True, id="df"),
            pytest.param(
                of_ip(p.udp("10.0.0.1", "10.0.0.2", flags="DF"), *TAGS["vlan"]), True, id="df,vlan"
            ),
            pytest.param(of_ip(IPV4), False, id="no-df"),
            pytest.param(FRAMES["arp"], False, id="arp"),
        ],
    )
    def test_df(self, bench: Bench, frame: bytes, has_df: bool) -> None:
        """Duty 13: without ``pmtudisc`` the outer DF is that of an IPv4 packet in the frame."""
        outcome = from_host(bench, "tapfixed", frame)
        outer = {} if has_df else free_to_fragment(outcome)
        assert outcome == went(outcome, "tapfixed", frame, ttl=9, tos=0xB8, **outer)

    @pytest.mark.parametrize(("tunnel", "mtu"), [("tap", 1462), ("tap6", 1442)])
    def test_largest(self, bench: Bench, tunnel: str, mtu: int) -> None:
        """Duty 17: a frame whose packet is of the tunnel's MTU fills the underlay's."""
        frame = framed(bytes(mtu), 0x1234)
        outcome = from_host(bench, tunnel, frame)
        assert outcome == went(outcome, tunnel, frame)
        assert len(outcome.frame) == 1514

    @pytest.mark.parametrize(("tunnel", "mtu"), [("tap", 1462), ("tap6", 1442)])
    @pytest.mark.parametrize("excess", [1, 4, 5, 1000])
    def test_too_big(self, bench: Bench, excess: int, tunnel: str, mtu: int) -> None:
        """Duty 18: a longer frame would not fit the underlay; nobody could be told, it counts."""
        frame = framed(bytes(mtu + excess), 0x1234)
        assert from_host(bench, tunnel, frame) == dropped("too_big")

    def test_a_tag_is_not_of_the_mtu(self, bench: Bench) -> None:
        """Where the underlay leaves room, a tagged frame may be a tag longer than others."""
        frame = framed(bytes(1400), 0x1234, *TAGS["vlan"])
        outcome = from_host(bench, "tapfixed", frame)
        outer = {"ttl": 9, "tos": 0xB8, **free_to_fragment(outcome)}
        assert outcome == went(outcome, "tapfixed", frame, **outer)
        assert from_host(bench, "tapfixed", frame + b"\0") == dropped("too_big")


class TestFlowLabel:
    """RFC 6438, for frames: the label is that of the IP packet in them."""

    def test_by_flow(self, bench: Bench) -> None:
        """Flows differ, tags do not matter, and what has no addresses has the label 0."""
        flows = [p.udp("10.0.0.1", f"10.0.0.{n}") for n in range(2, 34)]
        labels = [p.flow_label(from_host(bench, "tap6", of_ip(flow)).frame) for flow in flows]
        assert len(set(labels)) == len(flows)
        for flow, label in zip(flows, labels, strict=True):
            tagged = from_host(bench, "tap6", of_ip(flow, *TAGS["two-vlans"]))
            assert p.flow_label(tagged.frame) == label
        assert p.flow_label(from_host(bench, "tap6", FRAMES["arp"]).frame) == 0


class TestMss:
    """Duty 27: the SYN in a frame is clamped to what the tunnel carries."""

    # MTU 1462 over IPv4, 1442 over IPv6.
    MOST: ClassVar = {("tap", 4): 1422, ("tap", 6): 1402, ("tap6", 4): 1402, ("tap6", 6): 1382}

    @staticmethod
    def syn(version: int, mss: int, flags: str = "S", *tags: tuple[int, int]) -> bytes:
        src, dst = ENDS[version]
        ip = IP(src=src, dst=dst, id=7) if version == 4 else IPv6(src=src, dst=dst)
        tcp = TCP(sport=1, dport=2, flags=flags, options=[("MSS", mss), ("NOP", None)])
        return of_ip(type(ip)(bytes(ip / tcp)), *tags)

    @pytest.mark.parametrize("flags", ["S", "SA"], ids=["syn", "syn-ack"])
    @TAGGED
    @VERSIONS
    @OUTERS
    def test_lowered(
        self,
        bench: Bench,
        tunnel: str,
        version: int,
        tags: tuple[tuple[int, int], ...],
        flags: str,
    ) -> None:
        """Both ways, under tags as well; the TCP checksum fits, and nothing else changes."""
        frame = self.syn(version, 1460, flags, *tags)
        lowered = self.syn(version, self.MOST[tunnel, version], flags, *tags)
        outcome = from_host(bench, tunnel, frame)
        assert outcome == went(outcome, tunnel, frame, lowered)
        expected = to_device(bench, tunnel, lowered, "ethernet")
        assert bench.port(came(tunnel, frame), "eth0") == expected

    @pytest.mark.parametrize(("mss", "flags"), [(536, "S"), (1382, "SA"), (1460, "A")])
    @TAGGED_OR_NOT
    @VERSIONS
    @OUTERS
    def test_left_alone(
        self,
        bench: Bench,
        tunnel: str,
        version: int,
        tags: tuple[tuple[int, int], ...],
        mss: int,
        flags: str,
    ) -> None:
        """What fits is not raised, and other segments are nobody's business."""
        frame = self.syn(version, mss, flags, *tags)
        outcome = from_host(bench, tunnel, frame)
        assert outcome == went(outcome, tunnel, frame)
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(came(tunnel, frame), "eth0") == expected

    @OUTERS
    def test_under_three_tags(self, bench: Bench, tunnel: str) -> None:
        """Deeper than two tags nobody looks; the frame is carried as it is."""
        frame = self.syn(4, 1460, "S", (S, 1), (C, 2), (C, 3))
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(came(tunnel, frame), "eth0") == expected

    @VERSIONS
    @OUTERS
    def test_cut_off(self, bench: Bench, tunnel: str, version: int) -> None:
        """A frame that ends inside its SYN, wherever, is carried as it is."""
        whole = self.syn(version, 1460)
        for length in range(14, len(whole)):
            frame = whole[:length]
            expected = to_device(bench, tunnel, frame, "ethernet")
            assert bench.port(came(tunnel, frame), "eth0") == expected, length


class TestFromLan:
    """A packet that the kernel routes to an Ethernet tunnel's device needs a frame of its own."""

    @pytest.mark.parametrize("tunnel", ["tap", "tapfull", "tap6"])
    @VERSIONS
    def test_passed(self, bench: Bench, version: int, tunnel: str) -> None:
        """The kernel knows the neighbour behind the tunnel, or asks for it."""
        frame = p.on_lan(p.to_site(tunnel, version))
        assert bench.port(frame, "eth1") == passed(frame, "ethernet")

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            pytest.param({"ttl": 1}, "ttl_expired", id="last-hop"),
            pytest.param({"length": 1435}, "too_big", id="too-big"),
            pytest.param({"length": 1434}, "ethernet", id="just-fits"),
        ],
    )
    def test_other_reasons(self, bench: Bench, fields: dict[str, int], reason: str) -> None:
        """Duties 8, 18: what the kernel answers has that reason first."""
        frame = p.on_lan(p.to_site("tap", 4, **fields))
        assert bench.port(frame, "eth1") == passed(frame, reason)

    @pytest.mark.parametrize("source", ["plain", "plain6"])
    @pytest.mark.parametrize("target", ["tap", "tap6"])
    @VERSIONS
    def test_from_another_tunnel(
        self, bench: Bench, version: int, target: str, source: str
    ) -> None:
        """Out of an IP tunnel it goes onto that one's device, and the kernel routes it on."""
        at = version == 6
        inner = p.udp(p.SITE[source][at], p.SITE[target][at])
        expected = to_device(bench, source, inner, "ethernet")
        assert bench.port(came(source, inner), "eth0") == expected

    def test_a_frame_is_not_routed(self, bench: Bench) -> None:
        """A frame for the gateway's own address, or for the LAN, is the kernel's to route."""
        for dst in (p.HOST4, p.SITE["plain"][0], "10.1.0.1"):
            packet = p.udp(p.SITE["tap"][0], dst)
            frame = bytes(Ether(src=p.STRANGER_MAC, dst=bench.mac("tap"), type=0x0800) / packet)
            expected = to_device(bench, "tap", frame, "ethernet")
            assert bench.port(came("tap", frame), "eth0") == expected
