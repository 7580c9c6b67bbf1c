"""GRE over IPv6 (RFC 7676), both ways: what differs from GRE over IPv4, and what must not."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, RouterAlert
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

import packets as p
from packets import came
from program.bench import (
    Bench,
    Outcome,
    dropped,
    encapsulated,
    passed,
    relayed,
    to_device,
    to_port,
    unrelated,
)

GATEWAY_TUNNELS = (
    *("plain", "keyed", "second"),
    *("plain6", "zero6", "keyed6", "split6", "inherit6", "fixed6", "second6"),
    *("lost6", "nowhere6", "astray6", "nested6", "summed6", "numbered6", "full6"),
)

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
TUNNELS = pytest.mark.parametrize(
    "tunnel",
    [
        pytest.param("plain6", id="no-key"),
        pytest.param("zero6", id="key-0-is-a-key"),
        pytest.param("keyed6", id="key"),
        pytest.param("split6", id="ikey-and-okey"),
        pytest.param("second6", id="another-local"),
    ],
)
NAMES = {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"}
NOT_ECT, ECT1, ECT0, CE = NAMES

CHECKSUM, SEQUENCE = {"chksum_present": 1}, {"seqnum_present": 1, "sequence_number": 7}
HEADERS = pytest.mark.parametrize(
    "header", [{}, CHECKSUM, SEQUENCE, CHECKSUM | SEQUENCE], ids=["bare", "C", "S", "CS"]
)

DESTINATION_OPTIONS, FRAGMENT, GRE_NEXT = 60, 44, 47
# The Tunnel Encapsulation Limit in its two forms: filled up with one PadN option, or three Pad1.
LIMITS = {
    "limit,padn": bytes([GRE_NEXT, 0, 4, 1, 4, 1, 1, 0]),
    "limit,pad1": bytes([GRE_NEXT, 0, 4, 1, 4, 0, 0, 0]),
}
BEFORE_GRE = pytest.mark.parametrize(
    "extension", [b"", *LIMITS.values()], ids=["no-extension", *LIMITS]
)


def behind(
    extension: bytes, tunnel: str, carried: Packet, first: int = DESTINATION_OPTIONS
) -> Packet:
    """The frame in which GRE arrives behind the octets of extension headers, if there are any."""
    if not extension:
        return p.received(carried, tunnel)
    return p.received(Raw(extension) / carried, tunnel, nh=first)


def gre_of(tunnel: str, inner: Packet, **header: int) -> Packet:
    return p.gre(inner, p.ENDS[tunnel].okey, **header)


def went(outcome: Outcome, tunnel: str, inner: Packet, **fields: object) -> Outcome:
    """A packet that left through a tunnel, with whatever flow label it has; ``fields`` of IPv6."""
    label = p.flow_label(outcome.frame)
    return encapsulated(tunnel, p.sent(gre_of(tunnel, inner), tunnel, fl=label, **fields), inner)


def from_lan(
    bench: Bench, tunnel: str, inner: Packet, *, carried: Packet | None = None, **fields: object
) -> tuple[Outcome, Outcome]:
    """What becomes of a packet from the LAN, and what should."""
    outcome = bench.port(p.on_lan(inner), "eth1")
    label = p.flow_label(outcome.frame)
    gre = carried or gre_of(tunnel, p.spent(inner))
    return outcome, encapsulated(tunnel, p.sent(gre, tunnel, fl=label, **fields), inner)


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("numbered6", "full6")


class TestDecap:
    """What arrives over IPv6 is carried on like what arrives over IPv4."""

    @HEADERS
    @BEFORE_GRE
    @TUNNELS
    @VERSIONS
    def test_to_lan(
        self, bench: Bench, version: int, tunnel: str, extension: bytes, header: dict[str, object]
    ) -> None:
        """Duties 6, 8, 10, 20: GRE stands behind IPv6, or behind a Tunnel Encapsulation Limit."""
        inner = p.to_lan(tunnel, version)
        frame = behind(extension, tunnel, p.gre(inner, p.ENDS[tunnel].ikey, **header))
        assert bench.port(frame, "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize("limit", [0, 1, 4, 255])
    @pytest.mark.parametrize("padding", [b"\1\1\0", b"\0\0\0"], ids=["padn", "pad1"])
    def test_any_limit(self, bench: Bench, padding: bytes, limit: int) -> None:
        """Duty 20: the limit is for who encapsulates, not for who decapsulates."""
        inner = p.to_lan("plain6", 4)
        extension = bytes([GRE_NEXT, 0, 4, 1, limit]) + padding
        assert bench.port(behind(extension, "plain6", p.gre(inner)), "eth0") == to_port(
            "plain6", inner
        )

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param({"ttl": 1}, id="last-hop"),
            pytest.param({"ttl": 0}, id="no-hop"),
            pytest.param({"fl": 0xFFFFF}, id="flow-label"),
            pytest.param({"tos": 0xFC}, id="dscp"),
        ],
    )
    @VERSIONS
    def test_outer_header(self, bench: Bench, version: int, outer: dict[str, object]) -> None:
        """Duty 25: the outer header has done its work: what it says is not the inner one's."""
        inner = p.to_lan("keyed6", version)
        assert bench.port(came("keyed6", inner, **outer), "eth0") == to_port("keyed6", inner)

    @pytest.mark.parametrize("padding", [1, 18, 200])
    @HEADERS
    @BEFORE_GRE
    @VERSIONS
    def test_padding_behind_the_frame(
        self, bench: Bench, version: int, extension: bytes, header: dict[str, object], padding: int
    ) -> None:
        """Duty 5: Ethernet padding is neither summed nor forwarded, be it zero or not."""
        inner = p.to_lan("plain6", version, 1)
        frame = bytes(behind(extension, "plain6", p.gre(inner, **header))) + b"\xa5" * padding
        assert bench.port(frame, "eth0") == to_port("plain6", inner)

    @pytest.mark.parametrize(
        ("inner", "reason"),
        [
            pytest.param(p.udp("10.36.0.2", "10.1.0.1"), "for_this_host", id="lan-address"),
            pytest.param(
                p.udp("2001:db8:36::2", "2001:db8:a::1"), "for_this_host", id="ipv6-lan-address"
            ),
            pytest.param(p.udp("10.36.0.2", p.LOCAL), "for_this_host", id="underlay-address"),
            pytest.param(
                p.udp("2001:db8:36::2", p.NO_LOCAL6), "for_this_host", id="ipv6-underlay-address"
            ),
            pytest.param(p.udp("fe80::2", "ff02::5", ttl=1), "multicast", id="ipv6-multicast"),
            pytest.param(p.to_lan("plain6", 4, ttl=1), "ttl_expired", id="last-hop"),
            pytest.param(p.to_lan("plain6", 6, ttl=1), "ttl_expired", id="ipv6-last-hop"),
            pytest.param(
                p.to_lan("plain6", 4, options=[IPOption_NOP()] * 4), "ip_options", id="options"
            ),
            pytest.param(
                IPv6(src="2001:db8:36::2", dst=p.HOST6)
                / IPv6ExtHdrHopByHop(options=[RouterAlert()])
                / p.payload(8),
                "ip_options",
                id="ipv6-hop-by-hop",
            ),
            pytest.param(p.udp("10.36.0.2", "10.99.0.1"), "no_route", id="unreachable"),
            pytest.param(p.udp("10.36.0.2", "10.1.0.3"), "no_neighbour", id="silent-host"),
        ],
    )
    @BEFORE_GRE
    def test_to_device(self, bench: Bench, extension: bytes, inner: Packet, reason: str) -> None:
        """What is not to be forwarded arrives on the tunnel's own device."""
        inner = type(inner)(bytes(inner))
        frame = behind(extension, "plain6", p.gre(inner))
        assert bench.port(frame, "eth0") == to_device(bench, "plain6", inner, reason)

    @pytest.mark.parametrize(("tunnel", "mtu"), [("plain6", 1456), ("keyed6", 1452)])
    def test_longest_for_the_device(self, bench: Bench, tunnel: str, mtu: int) -> None:
        """Duty 17: 40 bytes of IPv6 and GRE leave 1456, and a device takes no more."""
        inner = p.of_bytes(mtu, p.udp, p.SITE[tunnel][0], "10.1.0.1")
        assert bench.port(came(tunnel, inner), "eth0") == to_device(
            bench, tunnel, inner, "for_this_host"
        )
        inner = p.of_bytes(mtu + 1, p.udp, p.SITE[tunnel][0], "10.1.0.1")
        assert bench.port(came(tunnel, inner), "eth0") == dropped("too_big")


class TestEcn:
    """RFC 6040 over IPv6: the mark is in the traffic class."""

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
    @BEFORE_GRE
    @VERSIONS
    def test_decap(
        self,
        bench: Bench,
        version: int,
        extension: bytes,
        inner_ecn: int,
        outer_ecn: int,
        result: int | None,
    ) -> None:
        """Duties 24, 25: all sixteen cells; inner DSCP stays as it is."""
        inner = p.to_lan("keyed6", version, tos=0x48 | inner_ecn)
        frame = behind(extension, "keyed6", p.gre(inner, p.KEY))
        frame[IPv6].tc = 0xB8 | outer_ecn
        expected = dropped("ecn_ce_not_ect")
        if result is not None:
            expected = to_port("keyed6", p.to_lan("keyed6", version, tos=0x48 | result))
        assert bench.port(frame, "eth0") == expected

    @pytest.mark.parametrize("ecn", NAMES, ids=NAMES.values())
    @pytest.mark.parametrize(
        ("tunnel", "dscp", "ttl"), [("plain6", 0x48, 64), ("fixed6", 0xB8, 9)], ids=["inherit", "9"]
    )
    @VERSIONS
    def test_encap(
        self, bench: Bench, version: int, tunnel: str, dscp: int, ttl: int, ecn: int
    ) -> None:
        """Duties 23, 25: the outer mark is the inner one, and DSCP that or the configured one."""
        inner = p.to_site(tunnel, version, tos=0x48 | ecn)
        outcome, expected = from_lan(bench, tunnel, inner, tos=dscp | ecn, ttl=ttl)
        assert outcome == expected


class TestEncap:
    """What leaves over IPv6."""

    @TUNNELS
    @VERSIONS
    def test_from_lan(self, bench: Bench, version: int, tunnel: str) -> None:
        """Duties 1, 12, 20: next header 47, no extension header, and one hop is spent."""
        outcome, expected = from_lan(bench, tunnel, p.to_site(tunnel, version))
        assert outcome == expected

    @TUNNELS
    @VERSIONS
    @pytest.mark.parametrize("ttl", [1, 64, 255])
    def test_from_this_host(self, bench: Bench, ttl: int, version: int, tunnel: str) -> None:
        """The kernel has spent the hop already: the inner packet is untouched."""
        inner = p.to_site(tunnel, version, ttl=ttl)
        outcome = bench.inner(p.onto_device(inner, bench.mac(tunnel)), f"gx-{tunnel}")
        assert outcome == went(outcome, tunnel, inner)

    @pytest.mark.parametrize("ttl", [2, 3, 64, 255])
    @VERSIONS
    def test_hop_limit_inherited(self, bench: Bench, version: int, ttl: int) -> None:
        """Duty 12: with ``ttl = "inherit"`` the outer hop limit is the inner one, decremented."""
        inner = p.to_site("inherit6", version, ttl=ttl)
        outcome, expected = from_lan(bench, "inherit6", inner, ttl=ttl - 1)
        assert outcome == expected

    @pytest.mark.parametrize("length", [0, 1, 2, 3, 483, 484, 1380])
    @VERSIONS
    def test_checksum(self, bench: Bench, version: int, length: int) -> None:
        """Duty 5: the checksum covers GRE and payload, and nothing of the outer header."""
        inner = p.to_site("summed6", version, length)
        gre = p.gre(p.spent(inner), **CHECKSUM)
        outcome, expected = from_lan(bench, "summed6", inner, carried=gre)
        assert outcome == expected

    @pytest.mark.parametrize("tunnel", ["numbered6", "full6"])
    def test_sequence(self, bench: Bench, tunnel: str) -> None:
        """Duties 6, 11: numbers start at 0; checksum, key and number stand in this order."""
        inner = p.to_site(tunnel, 6)
        words = CHECKSUM if tunnel == "full6" else {}
        for number in range(3):
            header = words | {"seqnum_present": 1, "sequence_number": number}
            gre = gre_of(tunnel, p.spent(inner), **header)
            outcome, expected = from_lan(bench, tunnel, inner, carried=gre)
            assert outcome == expected

    @pytest.mark.parametrize(
        ("tunnel", "mtu"), [("plain6", 1456), ("keyed6", 1452), ("summed6", 1452), ("full6", 1444)]
    )
    @VERSIONS
    def test_largest(self, bench: Bench, version: int, tunnel: str, mtu: int) -> None:
        """Duties 17, 18: a packet of the tunnel's MTU fits, a longer one is the kernel's."""
        inner = p.of_bytes(mtu, p.to_site, tunnel, version)
        outcome = bench.port(p.on_lan(inner), "eth1")
        assert (outcome.verdict, len(outcome.frame)) == ("redirect", 1514)
        frame = p.on_lan(p.of_bytes(mtu + 1, p.to_site, tunnel, version))
        assert bench.port(frame, "eth1") == passed(frame, "too_big")

    @pytest.mark.parametrize("tunnel", ["plain6", "fixed6"])
    def test_inner_df_stays(self, bench: Bench, tunnel: str) -> None:
        """Duty 13: IPv6 has no DF; what ``pmtudisc`` says is nothing to it."""
        fields = {"ttl": 9, "tos": 0xB8} if tunnel == "fixed6" else {}
        for flags in (0, "DF", "MF"):
            outcome, expected = from_lan(bench, tunnel, p.to_site(tunnel, 4, flags=flags), **fields)
            assert outcome == expected, flags

    @VERSIONS
    @pytest.mark.parametrize("padding", [1, 6, 18, 200])
    def test_padding_trimmed(self, bench: Bench, version: int, padding: int) -> None:
        """Octets behind the IP packet are Ethernet's and stay outside the tunnel."""
        inner = p.to_site("keyed6", version, 1)
        outcome = bench.port(bytes(p.on_lan(inner)) + b"\xa5" * padding, "eth1")
        expected = p.sent(
            gre_of("keyed6", p.spent(inner)), "keyed6", fl=p.flow_label(outcome.frame)
        )
        assert outcome == encapsulated("keyed6", expected, inner)

    @pytest.mark.parametrize("tunnel", ["plain6", "full6"])
    @VERSIONS
    def test_no_headroom(self, bench: Bench, tunnel: str, version: int) -> None:
        """A driver that leaves no room in front of the frame costs the packet, and it counts."""
        frame = p.on_lan(p.to_site(tunnel, version))
        assert bench.port_without_headroom(frame, "eth1") == dropped("no_headroom")

    @pytest.mark.parametrize(
        ("tunnel", "reason"),
        [
            pytest.param("lost6", "no_neighbour", id="remote-does-not-answer"),
            pytest.param("nowhere6", "no_route", id="no-route-to-remote"),
            pytest.param("astray6", "egress_unattached", id="remote-behind-another-interface"),
            pytest.param("nested6", "nested_tunnel", id="remote-behind-a-tunnel"),
        ],
    )
    @VERSIONS
    def test_unreachable_remote(self, bench: Bench, version: int, tunnel: str, reason: str) -> None:
        """Duty 15: what cannot leave is dropped with the reason why, from wherever it came."""
        inner = p.to_site(tunnel, version)
        assert bench.port(p.on_lan(inner), "eth1") == dropped(reason)
        of_host = p.onto_device(inner, p.STRANGER_MAC)
        assert bench.inner(of_host, f"gx-{tunnel}") == dropped(reason)
        at = version == 6
        inner = p.udp(p.SITE["plain"][at], p.SITE[tunnel][at])
        assert bench.port(came("plain", inner), "eth0") == dropped(reason)


class TestFlowLabel:
    """RFC 6438: routers of the underlay spread flows by the label, and keep each flow together."""

    @staticmethod
    def label(bench: Bench, src: str, dst: str, length: int = 26, **ip: object) -> int:
        outcome = bench.port(p.on_lan(p.udp(src, dst, length, **ip)), "eth1")
        assert outcome.reasons == {"encap": 1}
        return p.flow_label(outcome.frame)

    @VERSIONS
    def test_same_for_a_flow(self, bench: Bench, version: int) -> None:
        """A flow has one label, whatever its packets' length, TTL, TOS and payload."""
        ends = p.SITE["plain6"][version == 6], (p.HOST4, p.HOST6)[version == 6]
        labels = {
            self.label(bench, ends[1], ends[0], length, ttl=ttl, tos=tos)
            for length, ttl, tos in [(0, 64, 0), (1, 64, 0), (900, 3, 0), (26, 255, 0xB8)]
        }
        assert len(labels) == 1

    def test_same_for_all_fragments(self, bench: Bench) -> None:
        """Fragments, which have no ports, go with the flow's other packets."""
        inner = p.to_site("plain6", 4)
        frames = [p.on_lan(p.to_site("plain6", 4, **ip)) for ip in ({"flags": "MF"}, {"frag": 9})]
        labels = {p.flow_label(bench.port(f, "eth1").frame) for f in (p.on_lan(inner), *frames)}
        assert len(labels) == 1

    @pytest.mark.parametrize(
        ("src", "dst"),
        [
            pytest.param("10.1.0.{}", "10.36.0.2", id="sources"),
            pytest.param("10.1.0.2", "10.36.0.{}", id="destinations"),
            pytest.param("10.1.0.2", "10.36.{}.2", id="networks"),
            pytest.param("2001:db8:a::{}", "2001:db8:36::2", id="ipv6-sources"),
            pytest.param("2001:db8:a:{}::1", "2001:db8:36::2", id="ipv6-networks"),
            pytest.param("2001:db8:a::2", "2001:db8:36::{}", id="ipv6-destinations"),
            pytest.param("2001:db8:a::2", "2001:db8:36:{}::1", id="ipv6-destination-networks"),
        ],
    )
    def test_differs_between_flows(self, bench: Bench, src: str, dst: str) -> None:
        """A hundred neighbouring flows have a hundred labels, or nearly so."""
        labels = {self.label(bench, src.format(n), dst.format(n)) for n in range(2, 102)}
        assert len(labels) > 95

    def test_same_at_the_inner_end(self, bench: Bench) -> None:
        """A flow has one label, whether this host sends it or forwards it."""
        inner = p.to_site("plain6", 4)
        of_lan = bench.port(p.on_lan(inner), "eth1")
        of_host = bench.inner(p.onto_device(inner, p.STRANGER_MAC), "gx-plain6")
        assert p.flow_label(of_lan.frame) == p.flow_label(of_host.frame)


class TestExtensionHeaders:
    """Duty 20: one rule says which extension headers may stand before GRE."""

    @pytest.mark.parametrize(
        ("first", "extension"),
        [
            pytest.param(0, bytes([47, 0, 1, 4, 0, 0, 0, 0]), id="hop-by-hop"),
            pytest.param(0, bytes([47, 0, 5, 2, 0, 0, 1, 0]), id="router-alert"),
            pytest.param(0, LIMITS["limit,padn"], id="limit-in-hop-by-hop"),
            pytest.param(43, bytes([47, 0, 0, 0, 0, 0, 0, 0]), id="routing"),
            pytest.param(51, bytes([47, 1, 0, 0]) + bytes(8), id="authentication"),
            pytest.param(60, bytes([47, 0, 1, 4, 0, 0, 0, 0]), id="padding-alone"),
            pytest.param(60, bytes([47, 0, 0, 0, 0, 0, 0, 0]), id="pad1-alone"),
            pytest.param(60, bytes([47, 0, 5, 1, 4, 1, 1, 0]), id="another-option"),
            pytest.param(60, bytes([47, 0, 0x84, 1, 4, 1, 1, 0]), id="option-to-discard"),
            pytest.param(60, bytes([47, 0, 4, 2, 4, 0, 0, 0]), id="limit-of-two-octets"),
            pytest.param(60, bytes([47, 0, 4, 0, 1, 2, 0, 0]), id="limit-of-no-octet"),
            pytest.param(60, bytes([47, 0, 1, 1, 0, 4, 1, 4]), id="limit-behind-padding"),
            pytest.param(60, bytes([47, 0, 4, 1, 4, 1, 0, 0]), id="padn-of-none,pad1"),
            pytest.param(60, bytes([47, 0, 4, 1, 4, 0, 1, 0]), id="pad1,padn"),
            pytest.param(60, bytes([47, 0, 4, 1, 4, 1, 2, 0]), id="padn-beyond-the-end"),
            pytest.param(60, bytes([47, 0, 4, 1, 4, 5, 1, 0]), id="another-option-behind"),
            pytest.param(60, bytes([47, 1, 4, 1, 4, 1, 9]) + bytes(9), id="longer"),
            pytest.param(60, bytes([47, 255, 4, 1, 4, 1, 1, 0]), id="longer-than-the-packet"),
            pytest.param(
                60, bytes([60]) + LIMITS["limit,padn"][1:] + LIMITS["limit,padn"], id="two-limits"
            ),
            pytest.param(
                60,
                bytes([0]) + LIMITS["limit,padn"][1:] + bytes([47, 0, 1, 4, 0, 0, 0, 0]),
                id="limit,hop-by-hop",
            ),
            pytest.param(
                60,
                bytes([43]) + LIMITS["limit,padn"][1:] + bytes([47]) + bytes(7),
                id="limit,routing",
            ),
            pytest.param(
                0,
                bytes([60, 0, 1, 4, 0, 0, 0, 0]) + LIMITS["limit,padn"],
                id="hop-by-hop,limit",
            ),
            pytest.param(
                60,
                bytes([44]) + LIMITS["limit,padn"][1:] + bytes([47, 0, 0, 1, 0, 0, 0, 9]),
                id="limit,fragment",
            ),
            pytest.param(60, bytes([59]) + LIMITS["limit,padn"][1:], id="limit,nothing"),
            pytest.param(60, bytes([17]) + LIMITS["limit,padn"][1:], id="limit,udp"),
            pytest.param(59, b"", id="nothing"),
            pytest.param(253, b"", id="an-experiment"),
        ],
    )
    @pytest.mark.parametrize("tunnel", ["plain6", "keyed6"])
    def test_passed(self, bench: Bench, tunnel: str, first: int, extension: bytes) -> None:
        """Whatever has other extension headers is the kernel's to read, octet by octet."""
        gre = p.gre(p.to_lan(tunnel, 4), p.ENDS[tunnel].ikey)
        frame = p.received(Raw(extension) / gre if extension else gre, tunnel, nh=first)
        for policy in ("drop", "pass"):
            with bench.unknown_gre(policy):
                assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param((0, 1), id="first"),
            pytest.param((8, 1), id="middle"),
            pytest.param((8, 0), id="last"),
        ],
    )
    @TUNNELS
    def test_fragment(self, bench: Bench, tunnel: str, fields: tuple[int, int]) -> None:
        """Duty 19: fragments of GRE between a tunnel's ends are dropped and counted."""
        offset, more = fields
        header = bytes([GRE_NEXT, 0]) + (offset << 3 | more).to_bytes(2, "big") + b"\0\0\0\7"
        gre = p.gre(p.to_lan(tunnel, 4), p.ENDS[tunnel].ikey)
        frame = behind(header, tunnel, gre, FRAGMENT)
        assert bench.port(frame, "eth0") == dropped("outer_fragment")

    @TUNNELS
    def test_the_only_fragment(self, bench: Bench, tunnel: str) -> None:
        """Duty 19: a packet with a fragment header that has no other fragments is whole."""
        inner = p.to_lan(tunnel, 4)
        header = bytes([GRE_NEXT, 0, 0, 0, 0, 0, 0, 7])
        frame = behind(header, tunnel, p.gre(inner, p.ENDS[tunnel].ikey), FRAGMENT)
        assert bench.port(frame, "eth0") == to_port(tunnel, inner)

    def test_fragment_of_no_tunnel(self, bench: Bench) -> None:
        """A fragment from nobody's remote is treated like any GRE from there."""
        header = bytes([GRE_NEXT, 0, 0, 1, 0, 0, 0, 7])
        frame = p.received(
            Raw(header) / p.gre(p.to_lan("plain6", 4)), "plain6", nh=FRAGMENT, src=p.STRANGER6
        )
        assert bench.port(frame, "eth0") == dropped("unknown_tunnel")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "unknown_tunnel")

    def test_fragment_of_something_else(self, bench: Bench) -> None:
        """A fragment that is not of GRE is none of our business."""
        frame = behind(bytes([17, 0, 0, 1, 0, 0, 0, 7]), "plain6", p.payload(40), FRAGMENT)
        assert bench.port(frame, "eth0") == unrelated(frame)


class TestWhichTunnel:
    """Duties 10, 22: local, remote and key together say which tunnel a packet is of."""

    @pytest.mark.parametrize(
        ("tunnel", "key"),
        [
            pytest.param("keyed6", p.KEY + 1, id="another-key"),
            pytest.param("keyed6", 0, id="key-0-for-another-key"),
            pytest.param("keyed6", None, id="no-key-for-a-key"),
            pytest.param("inherit6", p.KEY, id="key-for-no-key"),
            pytest.param("inherit6", 0, id="key-0-for-no-key"),
            pytest.param("zero6", p.KEY, id="key-for-key-0-and-none"),
            pytest.param("split6", p.OKEY, id="okey-for-ikey"),
            pytest.param("second6", p.KEY, id="key-at-another-local"),
        ],
    )
    @BEFORE_GRE
    def test_key_mismatch(
        self, bench: Bench, extension: bytes, tunnel: str, key: int | None
    ) -> None:
        """The pair is known and the key is not: dropped, or left to the kernel where it may be."""
        frame = behind(extension, tunnel, p.gre(p.to_lan(tunnel, 4), key))
        assert bench.port(frame, "eth0") == dropped("key_mismatch")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "key_mismatch")

    def test_key_0_is_not_no_key(self, bench: Bench) -> None:
        """Two tunnels of one pair, one with key 0 and one without, tell their packets apart."""
        inner = p.to_lan("plain6", 6)
        for tunnel in ("plain6", "zero6"):
            assert bench.port(came(tunnel, inner), "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param({"src": p.STRANGER6}, id="stranger"),
            pytest.param({"src": p.SECOND_REMOTE6}, id="remote-of-another-local"),
            pytest.param({"dst": p.OTHER_LOCAL6}, id="local-of-another-remote"),
            pytest.param({"src": p.LOCAL6}, id="ourselves"),
            pytest.param({"src": "::"}, id="nobody"),
            pytest.param({"src": f"::ffff:{p.REMOTE}"}, id="an-ipv4-remote"),
        ],
    )
    @pytest.mark.parametrize("key", [None, 0, p.KEY], ids=["no-key", "key-0", "key"])
    def test_unknown_tunnel(self, bench: Bench, key: int | None, outer: dict[str, object]) -> None:
        """GRE to a local of ours from nobody's remote: dropped, or left to the kernel."""
        frame = p.received(p.gre(p.to_lan("plain6", 4), key), "plain6", **outer)
        assert bench.port(frame, "eth0") == dropped("unknown_tunnel")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "unknown_tunnel")

    def test_an_ipv4_tunnel_written_in_ipv6(self, bench: Bench) -> None:
        """An IPv4-mapped pair on the wire is no pair of ours, whatever our maps look like."""
        frame = p.received(
            p.gre(p.to_lan("plain", 4)),
            "plain6",
            src=f"::ffff:{p.REMOTE}",
            dst=f"::ffff:{p.LOCAL}",
        )
        assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize(
        "dst",
        [
            pytest.param("2001:db8:e::99", id="another-host"),
            pytest.param(p.NO_LOCAL6, id="our-other-address"),
            pytest.param("ff02::1", id="multicast"),
            pytest.param("fe80::ff:fe00:1", id="our-link-local-address"),
        ],
    )
    @BEFORE_GRE
    def test_to_no_local(self, bench: Bench, extension: bytes, dst: str) -> None:
        """GRE to where no tunnel ends is none of our business."""
        frame = behind(extension, "plain6", p.gre(p.to_lan("plain6", 4)))
        frame[IPv6].dst = dst
        assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize(
        "mac",
        [
            pytest.param(p.STRANGER_MAC, id="for-another-mac"),
            pytest.param("ff:ff:ff:ff:ff:ff", id="in-a-broadcast"),
            pytest.param(p.LAN_MAC, id="for-the-lan's-mac"),
            pytest.param("02:00:00:00:00:03", id="for-almost-our-mac"),
        ],
    )
    @BEFORE_GRE
    def test_not_for_our_mac(self, bench: Bench, extension: bytes, mac: str) -> None:
        """A promiscuous port sees frames that are not for us."""
        frame = behind(extension, "plain6", p.gre(p.to_lan("plain6", 4)))
        frame.dst = mac
        assert bench.port(frame, "eth0") == unrelated(frame)

    @pytest.mark.parametrize("interface", ["eth0", "eth1"])
    def test_on_every_interface(self, bench: Bench, interface: str) -> None:
        """The underlay may be any configured interface, if the frame is for its link address."""
        inner = p.to_lan("plain6", 4)
        frame = came("plain6", inner, mac=bench.mac(interface))
        assert bench.port(frame, interface) == to_port("plain6", inner)


class TestBadHeader:
    """GRE over IPv6 for a tunnel of ours that is no GRE of RFC 2784."""

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            pytest.param({"routing_present": 1}, "gre_routing_bit", id="routing-bit"),
            pytest.param({"strict_route_source": 1}, "gre_reserved_bits", id="bit-4"),
            pytest.param({"recursion_control": 4}, "gre_reserved_bits", id="bit-5"),
            pytest.param({"chksum_present": 1, "chksum": 1}, "gre_checksum", id="checksum"),
            pytest.param({"proto": 0x6558}, "unknown_protocol", id="ethernet"),
            pytest.param({"proto": 0}, "unknown_protocol", id="keepalive"),
            *(
                pytest.param({"version": version}, "gre_version", id=f"version-{version}")
                for version in range(2, 8)
            ),
        ],
    )
    @BEFORE_GRE
    @pytest.mark.parametrize("tunnel", ["plain6", "keyed6"])
    def test_dropped(
        self,
        bench: Bench,
        tunnel: str,
        extension: bytes,
        header: dict[str, object],
        reason: str,
    ) -> None:
        """Duties 2, 3, 5, 7: what is wrong over IPv4 is wrong over IPv6."""
        gre = p.gre(p.to_lan(tunnel, 4), p.ENDS[tunnel].ikey, **header)
        frame = behind(extension, tunnel, gre)
        for policy in ("drop", "pass"):
            with bench.unknown_gre(policy):
                assert bench.port(frame, "eth0") == dropped(reason)

    @pytest.mark.parametrize("bit", range(6, 13))
    def test_bits_to_ignore(self, bench: Bench, bit: int) -> None:
        """Duty 4: bits 6 to 12 mean nothing."""
        inner = p.to_lan("plain6", 6)
        frame = bytearray(bytes(came("plain6", inner)))
        frame[p.GRE_AT6 + bit // 8] |= 0x80 >> bit % 8
        assert bench.port(bytes(frame), "eth0") == to_port("plain6", inner)

    @BEFORE_GRE
    @pytest.mark.parametrize("src", [p.REMOTE6, p.STRANGER6], ids=["remote", "stranger"])
    def test_pptp_passed(self, bench: Bench, src: str, extension: bytes) -> None:
        """Duty 2: version 1 is PPTP's (RFC 2637) and goes to the kernel, counted."""
        frame = behind(extension, "plain6", GRE(proto=0x880B, version=1) / p.payload(30))
        frame[IPv6].src = src
        assert bench.port(frame, "eth0") == passed(frame, "gre_version")

    @BEFORE_GRE
    @HEADERS
    @VERSIONS
    def test_truncated_anywhere(
        self, bench: Bench, version: int, header: dict[str, object], extension: bytes
    ) -> None:
        """Duty 6: a packet that ends early is dropped once it is GRE, be there padding or not."""
        inner = p.to_lan("keyed6", version)
        frame = behind(extension, "keyed6", p.gre(inner, p.KEY, **header))
        gre_at = p.GRE_AT6 + len(extension)
        inner_at = len(frame) - len(inner)
        within = "gre_checksum" if header.get("chksum_present") else "inner_malformed"
        for length in range(p.GRE_AT6, len(frame)):
            short = p.cut(frame, length)
            # The octets may be there still, as Ethernet padding: they are none of the packet's.
            for tried in (short, short + bytes(frame)[length:]):
                expected = dropped("gre_truncated" if length < inner_at else within)
                if length < gre_at:
                    expected = unrelated(tried)
                assert bench.port(tried, "eth0") == expected, (length, len(tried))

    @pytest.mark.parametrize("length", range(8))
    def test_truncated_fragment_header(self, bench: Bench, length: int) -> None:
        """A fragment header that is not whole says nothing, though padding follows."""
        header = bytes([GRE_NEXT, 0, 0, 1, 0, 0, 0, 7])
        frame = behind(header, "plain6", p.gre(p.to_lan("plain6", 4)), FRAGMENT)
        short = p.cut(frame, p.GRE_AT6 + length)
        for tried in (short, short + bytes(frame)[p.GRE_AT6 + length :]):
            assert bench.port(tried, "eth0") == unrelated(tried)

    @BEFORE_GRE
    @pytest.mark.parametrize("tunnel", ["plain6", "keyed6"])
    @VERSIONS
    def test_frame_shorter_than_outer_packet(
        self, bench: Bench, version: int, tunnel: str, extension: bytes
    ) -> None:
        """Where even the outer header is broken, nothing says that the frame is ours: passed."""
        gre = p.gre(p.to_lan(tunnel, version), p.ENDS[tunnel].ikey, **CHECKSUM)
        frame = bytes(behind(extension, tunnel, gre))
        for length in range(14, len(frame)):
            assert bench.port(frame[:length], "eth0") == unrelated(frame[:length]), length

    @pytest.mark.parametrize(
        ("at", "octet"),
        [
            pytest.param(14, b"\x50", id="version-5"),
            pytest.param(14, b"\x45", id="version-4"),
            pytest.param(18, b"\xff", id="length-beyond-the-end"),
            pytest.param(12, b"\x08\x00", id="said-to-be-ipv4"),
        ],
    )
    def test_broken_outer_header(self, bench: Bench, at: int, octet: bytes) -> None:
        """An outer header that is not whole is the kernel's to judge."""
        frame = p.patched(came("plain6", p.to_lan("plain6", 4)), at, octet)
        assert bench.port(frame, "eth0") == unrelated(frame)


class TestChecksum:
    """Duty 5: a GRE checksum that is there is verified."""

    LENGTHS = pytest.mark.parametrize("length", [0, 1, 2, 3, 473, 474, 475, 1400])

    @LENGTHS
    @BEFORE_GRE
    def test_right_and_wrong(self, bench: Bench, extension: bytes, length: int) -> None:
        """It begins at the GRE header: extension headers are not summed."""
        inner = p.to_lan("summed6", 6, length)
        frame = bytes(behind(extension, "summed6", p.gre(inner, **CHECKSUM)))
        assert bench.port(frame, "eth0") == to_port("summed6", inner)
        for at in (len(frame) - 1, len(frame) - 2, len(frame) - len(inner)):
            broken = p.patched(frame, at, bytes([frame[at] ^ 1 << at % 8]))
            assert bench.port(broken, "eth0") == dropped("gre_checksum"), at

    def test_missing(self, bench: Bench) -> None:
        """A tunnel with ``csum`` takes nothing without."""
        frame = came("summed6", p.to_lan("summed6", 4))
        assert bench.port(frame, "eth0") == dropped("gre_checksum_missing")


class TestSequence:
    """Duty 11: numbers rise, gaps are accepted."""

    @pytest.mark.parametrize("tunnel", ["numbered6", "full6"])
    def test_old_and_new(self, bench: Bench, tunnel: str) -> None:
        """A number is accepted once, and none that is older."""
        inner = p.to_lan(tunnel, 4)
        words = CHECKSUM if tunnel == "full6" else {}
        for number, is_new in [(5, True), (5, False), (4, False), (9, True), (6, False)]:
            header = words | {"seqnum_present": 1, "sequence_number": number}
            expected = to_port(tunnel, inner) if is_new else dropped("gre_sequence")
            assert bench.port(came(tunnel, inner, header), "eth0") == expected, number

    def test_missing(self, bench: Bench) -> None:
        """A tunnel with ``seq`` takes nothing without."""
        frame = came("numbered6", p.to_lan("numbered6", 4))
        assert bench.port(frame, "eth0") == dropped("gre_sequence_missing")


class TestBadInner:
    """A GRE header without blame, and what it carries is nothing to forward."""

    @pytest.mark.parametrize(
        "source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "::1", "ff02::1"]
    )
    def test_martian_source(self, bench: Bench, source: str) -> None:
        """Sources that no packet on a wire has are not forwarded (RFC 1812 5.3.7, RFC 6890)."""
        inner = p.udp(source, p.HOST6 if ":" in source else p.HOST4)
        assert bench.port(came("plain6", inner), "eth0") == dropped("inner_source")

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(p.udp("2001:db8:36::2", p.LOCAL6), id="udp"),
            pytest.param(
                IPv6(src=p.REMOTE6, dst=p.LOCAL6, nh=47) / p.gre(p.to_lan("plain6", 4)),
                id="gre-in-gre",
            ),
            pytest.param(
                IPv6(src=p.REMOTE6, dst=p.LOCAL6, nh=60)
                / Raw(LIMITS["limit,padn"])
                / p.gre(p.to_lan("plain6", 4)),
                id="gre-behind-a-limit-in-gre",
            ),
            pytest.param(
                IPv6(src=p.LOCAL6, dst=p.LOCAL6, nh=47) / p.gre(p.to_lan("plain6", 4)),
                id="from-ourselves",
            ),
        ],
    )
    @BEFORE_GRE
    def test_looped_back(self, bench: Bench, extension: bytes, inner: Packet) -> None:
        """Duty 9: an inner packet for the address that encapsulates is a loop (RFC 2784)."""
        frame = behind(extension, "keyed6", p.gre(IPv6(bytes(inner)), p.KEY))
        assert bench.port(frame, "eth0") == dropped("looped_back")

    @pytest.mark.parametrize(
        ("tunnel", "inner"),
        [
            pytest.param(
                "plain6",
                IPv6(src=p.SECOND_REMOTE6, dst=p.OTHER_LOCAL6, nh=47)
                / p.gre(p.to_lan("second6", 4)),
                id="ipv6-in-ipv6",
            ),
            pytest.param(
                "plain6",
                IP(src=p.REMOTE, dst=p.LOCAL) / p.gre(p.to_lan("plain", 4)),
                id="ipv4-in-ipv6",
            ),
            pytest.param(
                "plain",
                IPv6(src=p.REMOTE6, dst=p.LOCAL6, nh=47) / p.gre(p.to_lan("plain6", 4)),
                id="ipv6-in-ipv4",
            ),
            pytest.param(
                "plain6",
                IPv6(src=p.STRANGER6, dst=p.OTHER_LOCAL6, nh=47) / p.gre(p.to_lan("plain", 4)),
                id="of-a-stranger",
            ),
        ],
    )
    def test_nested_tunnel(self, bench: Bench, tunnel: str, inner: Packet) -> None:
        """Duty 9: GRE inside GRE to where another tunnel of ours ends is not unwrapped."""
        inner = type(inner)(bytes(inner))
        assert bench.port(came(tunnel, inner), "eth0") == dropped("nested_tunnel")


class TestTunnelToTunnel:
    """Hub and spoke between the families: out of one tunnel and into another in one pass."""

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            ("plain", "plain6"),
            ("plain6", "plain"),
            ("keyed", "keyed6"),
            ("keyed6", "keyed"),
            ("plain6", "keyed6"),
            ("split6", "second6"),
            ("second6", "second"),
            ("plain", "inherit6"),
            ("keyed6", "fixed6"),
        ],
    )
    @HEADERS
    @VERSIONS
    def test_relayed(
        self, bench: Bench, version: int, header: dict[str, object], source: str, target: str
    ) -> None:
        """Duties 8, 12: one hop is spent for both, and both tunnels count the packet."""
        at = version == 6
        inner = p.udp(p.SITE[source][at], p.SITE[target][at])
        outcome = bench.port(bytes(came(source, inner, header)) + b"\xa5" * 3, "eth0")
        outer = {"inherit6": {"ttl": 63}, "fixed6": {"ttl": 9, "tos": 0xB8}}.get(target, {})
        if p.ENDS[target].is_ipv6:
            outer = {**outer, "fl": p.flow_label(outcome.frame)}
        expected = p.sent(gre_of(target, p.spent(inner)), target, **outer)
        assert outcome == relayed(source, target, expected, inner)

    @pytest.mark.parametrize("extension", LIMITS.values(), ids=LIMITS)
    def test_relayed_without_extension(self, bench: Bench, extension: bytes) -> None:
        """The Tunnel Encapsulation Limit of one tunnel ends with it."""
        inner = p.udp("10.36.0.2", p.SITE["keyed"][0])
        frame = behind(extension, "plain6", p.gre(inner))
        expected = p.sent(p.gre(p.spent(inner), p.KEY), "keyed")
        assert bench.port(frame, "eth0") == relayed("plain6", "keyed", expected, inner)

    @pytest.mark.parametrize(
        ("source", "target"), [("plain", "plain6"), ("plain6", "keyed6"), ("plain6", "keyed")]
    )
    def test_too_big(self, bench: Bench, source: str, target: str) -> None:
        """Duty 18: the kernel gets it from the tunnel it came out of, and answers through that."""
        mtu = {"plain6": 1456, "keyed6": 1452, "keyed": 1472}[target]
        inner = p.of_bytes(mtu, p.udp, p.SITE[source][0], p.SITE[target][0])
        [reason] = bench.port(came(source, inner), "eth0").reasons
        assert reason == "relay"
        inner = p.of_bytes(mtu + 1, p.udp, p.SITE[source][0], p.SITE[target][0])
        outcome = bench.port(came(source, inner), "eth0")
        # What is too long for the device of its own tunnel as well could not even be told.
        is_told = source == "plain" or target == "keyed6"
        expected = to_device(bench, source, inner, "too_big") if is_told else dropped("too_big")
        assert outcome == expected

    @VERSIONS
    def test_not_back_where_it_came_from(self, bench: Bench, version: int) -> None:
        """RFC 4443 section 3.1: else two gateways play ping-pong until its hops are spent."""
        inner = p.udp(p.SITE["keyed6"][version == 6], p.SITE["plain6"][version == 6])
        assert bench.port(came("plain6", inner), "eth0") == dropped("looped_back")
