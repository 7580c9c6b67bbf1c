"""Decapsulation: what arrives as GRE, and what it becomes, octet by octet and reason by reason."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, RouterAlert
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

import packets as p
from packets import came
from program.bench import (
    Bench,
    dropped,
    passed,
    relayed,
    to_device,
    to_port,
    unrelated,
)

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
NAMES = {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"}
NOT_ECT, ECT1, ECT0, CE = NAMES

TUNNELS = pytest.mark.parametrize(
    "tunnel",
    [
        pytest.param("plain", id="no-key"),
        pytest.param("keyed", id="key"),
        pytest.param("zero", id="key-0-is-a-key"),
        pytest.param("split", id="ikey-not-okey"),
        pytest.param("second", id="another-local"),
    ],
)
CHECKSUM, SEQUENCE = {"chksum_present": 1}, {"seqnum_present": 1, "sequence_number": 0}
ROUTING = {"routing_present": 1}


def flag(bit: int) -> dict[str, int]:
    """Scapy's name and value for a bit of the GRE header that RFC 2784 reserves."""
    return {
        4: {"strict_route_source": 1},
        **{n: {"recursion_control": 0x4 >> (n - 5)} for n in (5, 6, 7)},
        **{n: {"flags": 0x10 >> (n - 8)} for n in range(8, 13)},
    }[bit]


class TestToLan:
    """A packet for a host on the LAN goes there with the link addresses of the next hop."""

    @VERSIONS
    @TUNNELS
    def test_decapsulated(self, bench: Bench, tunnel: str, version: int) -> None:
        """Duties 6, 8, 10: the outer headers go, one hop is spent, the checksum follows."""
        inner = p.to_lan(tunnel, version)
        assert bench.port(came(tunnel, inner), "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize(
        "header",
        [
            pytest.param({}, id="bare"),
            pytest.param(CHECKSUM, id="C"),
            pytest.param(SEQUENCE, id="S"),
            pytest.param({**SEQUENCE, "sequence_number": 0xFFFFFFFF}, id="S-last"),
            pytest.param(CHECKSUM | SEQUENCE, id="CS"),
            pytest.param(CHECKSUM | {"offset": 0xBEEF}, id="reserved1"),
            pytest.param(CHECKSUM | flag(8), id="C,bit-8"),
            *(pytest.param(flag(bit), id=f"bit-{bit}") for bit in range(6, 13)),
            pytest.param({"recursion_control": 3, "flags": 0x1F}, id="bits-6-to-12"),
        ],
    )
    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    @VERSIONS
    def test_header_options(
        self, bench: Bench, tunnel: str, version: int, header: dict[str, object]
    ) -> None:
        """Duties 4, 5, 6, 11: what need not be asked for is accepted all the same."""
        inner = p.to_lan(tunnel, version)
        assert bench.port(came(tunnel, inner, header), "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param({"options": [IPOption_NOP()] * 4}, id="one-word-of-options"),
            pytest.param({"options": [IPOption_NOP()] * 40}, id="ten-words-of-options"),
            pytest.param({"ttl": 1}, id="last-hop"),
            pytest.param({"flags": 0, "id": 0xFFFF}, id="no-df"),
            pytest.param({"flags": "evil"}, id="evil-bit"),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @TUNNELS
    def test_outer_header(
        self, bench: Bench, tunnel: str, header: dict[str, object], outer: dict[str, object]
    ) -> None:
        """The outer header has done its work: its options, TTL and flags do not matter."""
        inner = p.to_lan(tunnel, 4)
        assert bench.port(came(tunnel, inner, header, **outer), "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(p.to_lan("plain", 4, 0), id="no-payload"),
            pytest.param(IP(src=p.SITE4, dst=p.HOST4, proto=253, id=0), id="header-only"),
            pytest.param(IPv6(src=p.SITE6, dst=p.HOST6, nh=59), id="ipv6-header-only"),
            pytest.param(p.to_lan("plain", 4, flags="MF"), id="first-fragment"),
            pytest.param(p.to_lan("plain", 4, frag=100), id="last-fragment"),
            pytest.param(p.to_lan("plain", 4, ttl=2), id="last-hop-but-one"),
            pytest.param(p.to_lan("plain", 6, ttl=2), id="ipv6-last-hop-but-one"),
            pytest.param(p.to_lan("plain", 4, ttl=255), id="ttl-255"),
            pytest.param(p.to_lan("plain", 6, ttl=255), id="hop-limit-255"),
            pytest.param(p.of_bytes(1476, p.to_lan, "plain", 4), id="tunnel-mtu"),
            pytest.param(p.of_bytes(1500, p.to_lan, "plain", 6), id="ipv6-lan-mtu"),
            pytest.param(p.udp(p.STRANGER, p.HOST4), id="source-from-the-internet"),
            pytest.param(p.udp(p.REMOTE, p.HOST4), id="source-is-the-remote"),
            pytest.param(
                IP(src=p.SITE4, dst=p.HOST4) / p.gre(p.udp(p.STRANGER, p.HOST4)),
                id="gre-of-others-inside",
            ),
            pytest.param(
                IPv6(src=p.SITE6, dst=p.HOST6, nh=4) / p.udp(p.STRANGER, p.HOST4), id="4in6-inside"
            ),
        ],
    )
    def test_any_packet(self, bench: Bench, inner: Packet) -> None:
        """Whatever IP carries is carried on unchanged but for the hop."""
        inner = type(inner)(bytes(inner))
        assert bench.port(came("plain", inner), "eth0") == to_port("plain", inner)

    @pytest.mark.parametrize("padding", [1, 18, 200])
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @VERSIONS
    def test_padding_behind_the_frame(
        self, bench: Bench, version: int, header: dict[str, object], padding: int
    ) -> None:
        """Duty 5: Ethernet padding is neither summed nor forwarded, be it zero or not."""
        inner = p.to_lan("plain", version, 1)
        frame = bytes(came("plain", inner, header)) + b"\xa5" * padding
        assert bench.port(frame, "eth0") == to_port("plain", inner)

    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @VERSIONS
    def test_inner_shorter_than_gre(
        self, bench: Bench, version: int, header: dict[str, object]
    ) -> None:
        """What follows the inner packet inside GRE is summed but not forwarded."""
        inner = p.to_lan("plain", version)
        frame = p.received(p.gre(inner, **header) / Raw(b"\xa5" * 9))
        assert bench.port(frame, "eth0") == to_port("plain", inner)


class TestEcn:
    """RFC 6040 section 4.2: all sixteen cells, for both versions."""

    @pytest.mark.parametrize("where", ["port", "device", "tunnel"])
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
    @VERSIONS
    def test_decap(
        self,
        bench: Bench,
        version: int,
        inner_ecn: int,
        outer_ecn: int,
        result: int | None,
        where: str,
    ) -> None:
        """Duties 24, 25: the mark of the path reaches the receiver; inner DSCP stays as it is."""
        target = {
            "port": {4: p.HOST4, 6: p.HOST6},
            "device": {4: "10.1.0.1", 6: "2001:db8:a::1"},
            "tunnel": dict(zip((4, 6), p.SITE["keyed"], strict=True)),
        }[where][version]
        source = p.SITE["plain"][0 if version == 4 else 1]
        inner = p.udp(source, target, tos=0x48 | inner_ecn)
        outcome = bench.port(came("plain", inner, tos=0xB8 | outer_ecn), "eth0")
        if result is None:
            assert outcome == dropped("ecn_ce_not_ect")
            return
        marked = p.udp(source, target, tos=0x48 | result)
        assert (
            outcome
            == {
                "port": to_port("plain", marked),
                "device": to_device(bench, "plain", marked, "for_this_host"),
                "tunnel": relayed(
                    "plain",
                    "keyed",
                    p.sent(p.gre(p.spent(marked), p.KEY), "keyed", tos=0x48 | result),
                    marked,
                ),
            }[where]
        )


class TestChecksum:
    """Duty 5: a GRE checksum that is there is verified, whatever the tunnel asks for."""

    LENGTHS = pytest.mark.parametrize(
        "length",
        # From the first octet of GRE to the last that it carries: around the blocks of the sum.
        [36, 37, 38, 39, 40, 41, 510, 511, 512, 513, 514, 515, 1023, 1024, 1025, 1400, 1483, 1484],
    )

    @staticmethod
    def checksummed(length: int, version: int = 4) -> tuple[Packet, Packet]:
        """A packet, and the frame whose GRE checksum covers ``length`` octets."""
        inner = p.to_lan("plain", version, 0)
        inner = p.to_lan("plain", version, length - 8 - len(inner))
        return inner, came("plain", inner, CHECKSUM)

    @LENGTHS
    def test_right(self, bench: Bench, length: int) -> None:
        """A right checksum is accepted for every length, odd ones included."""
        inner, frame = self.checksummed(length)
        assert bench.port(frame, "eth0") == to_port("plain", inner)

    @pytest.mark.parametrize("length", [1, 2, 3, 511, 512, 513, 1400])
    @VERSIONS
    def test_right_over_payloads(self, bench: Bench, version: int, length: int) -> None:
        """A right checksum is accepted for payloads of any length, IPv4 and IPv6."""
        inner = p.to_lan("keyed", version, length)
        frame = came("keyed", inner, CHECKSUM | SEQUENCE)
        assert bench.port(frame, "eth0") == to_port("keyed", inner)

    @LENGTHS
    def test_wrong_at_any_octet(self, bench: Bench, length: int) -> None:
        """One bit that is another one, wherever in the payload, and the packet is dropped."""
        frame = bytes(self.checksummed(length)[1])
        start, end = p.GRE_AT + 4, p.GRE_AT + length
        assert len(frame) == end
        places = {*range(start, end, 97), *range(start, start + 12), *range(end - 6, end)}
        for at in sorted(places):
            broken = p.patched(frame, at, bytes([frame[at] ^ 1 << at % 8]))
            assert bench.port(broken, "eth0") == dropped("gre_checksum"), at

    @pytest.mark.parametrize("checksum", [0, 1, 0xFFFF])
    def test_of_another_value(self, bench: Bench, checksum: int) -> None:
        """No value is an exception: zero does not mean that there is none."""
        frame = came("plain", p.to_lan("plain", 4), CHECKSUM | {"chksum": checksum})
        assert bench.port(frame, "eth0") == dropped("gre_checksum")

    def test_zero_when_it_is_right(self, bench: Bench) -> None:
        """A checksum that comes out as zero is right, as is its other form 0xffff."""
        inner = p.to_lan("plain", 4, 26)
        checksum = p.Ether(bytes(came("plain", inner, CHECKSUM)))[p.GRE].chksum
        # A word more, not part of the inner packet, makes the rest sum to what zero stands for.
        carried = p.gre(inner, **CHECKSUM) / Raw(checksum.to_bytes(2, "big"))
        frame = p.received(carried)
        assert Ether(bytes(frame))[p.GRE].chksum == 0
        assert bench.port(frame, "eth0") == to_port("plain", inner)
        other_form = p.patched(frame, p.GRE_AT + 4, b"\xff\xff")
        assert bench.port(other_form, "eth0") == to_port("plain", inner)

    def test_covers_all_that_gre_carries(self, bench: Bench) -> None:
        """A broken octet behind the inner packet, but inside GRE, is a broken packet."""
        frame = bytes(p.received(p.gre(p.to_lan("plain", 4), **CHECKSUM) / Raw(b"\xa5" * 9)))
        broken = p.patched(frame, len(frame) - 1, b"\x5a")
        assert bench.port(broken, "eth0") == dropped("gre_checksum")


class TestBadHeader:
    """GRE for a tunnel of ours that is no GRE of RFC 2784."""

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            pytest.param(ROUTING, "gre_routing_bit", id="routing-bit"),
            pytest.param(ROUTING | CHECKSUM, "gre_routing_bit", id="routing-bit,C"),
            pytest.param(flag(4), "gre_reserved_bits", id="bit-4"),
            pytest.param(flag(5), "gre_reserved_bits", id="bit-5"),
            pytest.param(flag(5) | CHECKSUM, "gre_reserved_bits", id="bit-5,C"),
            *(
                pytest.param({"version": version}, "gre_version", id=f"version-{version}")
                for version in range(2, 8)
            ),
        ],
    )
    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    def test_dropped(
        self, bench: Bench, tunnel: str, header: dict[str, object], reason: str
    ) -> None:
        """Duties 2, 3: the routing bit, bits 4 and 5 and versions from 2 on are discarded."""
        frame = came(tunnel, p.to_lan(tunnel, 4), header)
        assert bench.port(frame, "eth0") == dropped(reason)

    @pytest.mark.parametrize("header", [{}, {"key_present": 1, "key": 77}], ids=["bare", "key"])
    @pytest.mark.parametrize("src", [p.REMOTE, p.STRANGER], ids=["remote", "stranger"])
    def test_pptp_passed(self, bench: Bench, header: dict[str, object], src: str) -> None:
        """Duty 2: version 1 is PPTP's (RFC 2637) and goes to the kernel, counted."""
        carried = p.GRE(proto=0x880B, version=1, **header) / p.payload(30)
        frame = p.received(carried, src=src)
        assert bench.port(frame, "eth0") == passed(frame, "gre_version")

    @pytest.mark.parametrize(
        "protocol",
        [
            pytest.param(0x0000, id="cisco-keepalive"),
            pytest.param(0x0600, id="xns"),
            pytest.param(0x0806, id="arp"),
            pytest.param(0x6558, id="ethernet"),
            pytest.param(0x88BE, id="erspan"),
            pytest.param(0x880B, id="ppp"),
            pytest.param(0x00FE, id="osi"),
            pytest.param(0x0008, id="ipv4-of-the-other-byte-order"),
            pytest.param(0xFFFF, id="last"),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM, SEQUENCE], ids=["bare", "C", "S"])
    def test_unknown_protocol(self, bench: Bench, header: dict[str, object], protocol: int) -> None:
        """Duty 7: what is neither IPv4 nor IPv6 is not forwarded."""
        frame = came("plain", p.to_lan("plain", 4), {"proto": protocol, **header})
        assert bench.port(frame, "eth0") == dropped("unknown_protocol")

    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    @pytest.mark.parametrize(
        "header", [{}, CHECKSUM, SEQUENCE, CHECKSUM | SEQUENCE], ids=["bare", "C", "S", "CS"]
    )
    @VERSIONS
    def test_truncated_anywhere(
        self, bench: Bench, version: int, header: dict[str, object], tunnel: str
    ) -> None:
        """Duty 6: a packet that ends early is dropped, and says whether GRE or its payload did."""
        frame = came(tunnel, p.to_lan(tunnel, version), header)
        words = bool(header.get("chksum_present")) + bool(header.get("seqnum_present"))
        gre_end = p.INNER_AT + 4 * (words + (tunnel == "keyed"))
        within = "gre_checksum" if header.get("chksum_present") else "inner_malformed"
        for length in range(p.GRE_AT, len(frame)):
            expected = dropped("gre_truncated" if length < gre_end else within)
            short = p.cut(frame, length)
            assert bench.port(short, "eth0") == expected, length
            # The octets may be there still, as Ethernet padding: they are none of GRE's.
            padded = short + bytes(frame)[length:]
            assert bench.port(padded, "eth0") == expected, f"{length} padded"

    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    @VERSIONS
    def test_frame_shorter_than_outer_packet(self, bench: Bench, tunnel: str, version: int) -> None:
        """Where even the outer header is broken, nothing says that the frame is ours: passed."""
        frame = bytes(came(tunnel, p.to_lan(tunnel, version), CHECKSUM))
        for length in range(14, len(frame)):
            assert bench.port(frame[:length], "eth0") == unrelated(frame[:length]), length


class TestBadInner:
    """A GRE header without blame, and what it carries is nothing to forward."""

    INNER4, INNER6 = bytes(p.to_lan("plain", 4)), bytes(p.to_lan("plain", 6))

    @pytest.mark.parametrize(
        ("protocol", "inner"),
        [
            pytest.param(0x0800, b"", id="nothing"),
            pytest.param(0x86DD, b"", id="ipv6-nothing"),
            pytest.param(0x0800, INNER4[:19], id="half-a-header"),
            pytest.param(0x86DD, INNER6[:39], id="ipv6-half-a-header"),
            pytest.param(0x0800, INNER6, id="ipv6-said-to-be-ipv4"),
            pytest.param(0x86DD, INNER4, id="ipv4-said-to-be-ipv6"),
            pytest.param(0x0800, p.patched(INNER4, 0, b"\x55"), id="version-5"),
            pytest.param(0x86DD, p.patched(INNER6, 0, b"\x50"), id="ipv6-version-5"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, ihl=4)), id="ihl-4"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, ihl=0)), id="ihl-0"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, ihl=15)), id="ihl-beyond-the-header"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, 0, ihl=15)), id="ihl-beyond-the-end"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, len=19)), id="length-19"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, len=0)), id="length-0"),
            pytest.param(0x0800, INNER4[:-1], id="length-beyond-the-end"),
            pytest.param(0x0800, bytes(p.to_lan("plain", 4, len=0xFFFF)), id="length-65535"),
            pytest.param(0x86DD, INNER6[:-1], id="ipv6-length-beyond-the-end"),
            pytest.param(0x86DD, bytes(p.to_lan("plain", 6, plen=0xFFFF)), id="ipv6-length-65535"),
            pytest.param(0x0800, p.patched(INNER4, 10, b"\0\0"), id="checksum-0"),
            pytest.param(0x0800, p.patched(INNER4, 8, b"\x41"), id="checksum-of-another-ttl"),
            pytest.param(0x0800, p.patched(INNER4, 16, b"\x0b"), id="checksum-of-another-address"),
        ],
    )
    @pytest.mark.parametrize("padding", [0, 60], ids=["", "padded"])
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    def test_malformed(
        self,
        bench: Bench,
        header: dict[str, object],
        padding: int,
        protocol: int,
        inner: bytes,
    ) -> None:
        """An inner header that is not whole is dropped (RFC 1812 section 5.2.2)."""
        frame = p.received(p.GRE(proto=protocol, **header) / Raw(inner))
        assert bench.port(bytes(frame) + b"\0" * padding, "eth0") == dropped("inner_malformed")

    @pytest.mark.parametrize("at", range(20))
    def test_no_broken_header_is_repaired(self, bench: Bench, at: int) -> None:
        """A bit error anywhere in the inner IPv4 header is dropped, not given a new checksum."""
        for bit in range(8):
            octet = bytes([self.INNER4[at] ^ 1 << bit])
            frame = p.received(p.GRE(proto=0x0800) / Raw(p.patched(self.INNER4, at, octet)))
            assert bench.port(frame, "eth0") == dropped("inner_malformed")

    @pytest.mark.parametrize(
        "source",
        [
            *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1"),
            *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
            *("::", "::1", "ff02::1", "ff0e::1", "::ffff:10.20.0.2"),
        ],
    )
    @pytest.mark.parametrize("where", ["lan", "host"])
    def test_martian_source(self, bench: Bench, source: str, where: str) -> None:
        """Sources that no packet on a wire has are not forwarded (RFC 1812 5.3.7, RFC 6890)."""
        targets = {"lan": (p.HOST4, p.HOST6), "host": ("10.1.0.1", "2001:db8:a::1")}[where]
        inner = p.udp(source, targets[":" in source])
        assert bench.port(came("plain", inner), "eth0") == dropped("inner_source")

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(p.udp(p.SITE4, p.LOCAL), id="udp"),
            pytest.param(
                IP(src=p.REMOTE, dst=p.LOCAL) / p.gre(p.to_lan("plain", 4)), id="gre-in-gre"
            ),
            pytest.param(
                IP(src=p.LOCAL, dst=p.LOCAL) / p.gre(p.to_lan("plain", 4)), id="from-ourselves"
            ),
        ],
    )
    @TUNNELS
    def test_looped_back(self, bench: Bench, tunnel: str, inner: Packet) -> None:
        """Duty 9: an inner packet for the address that encapsulates is a loop (RFC 2784)."""
        inner = IP(bytes(inner))
        if tunnel == "second":
            inner.dst, inner.chksum = p.OTHER_LOCAL, None
        assert bench.port(came(tunnel, inner), "eth0") == dropped("looped_back")

    @pytest.mark.parametrize("src", [p.REMOTE, p.SECOND_REMOTE, p.STRANGER])
    def test_nested_tunnel(self, bench: Bench, src: str) -> None:
        """Duty 9: GRE inside GRE to where another tunnel of ours ends is not unwrapped."""
        inner = IP(src=src, dst=p.OTHER_LOCAL) / p.gre(p.to_lan("second", 4))
        assert bench.port(came("plain", inner), "eth0") == dropped("nested_tunnel")


class TestToDevice:
    """What XDP does not forward arrives on the tunnel's own device, for the kernel to handle."""

    @TUNNELS
    @pytest.mark.parametrize("ttl", [0, 1])
    @VERSIONS
    def test_ttl_expired(self, bench: Bench, tunnel: str, version: int, ttl: int) -> None:
        """Duty 8: a packet on its last hop is delivered as it came: the kernel answers."""
        inner = p.to_lan(tunnel, version, ttl=ttl)
        assert bench.port(came(tunnel, inner), "eth0") == to_device(
            bench, tunnel, inner, "ttl_expired"
        )

    @pytest.mark.parametrize(
        ("inner", "reason"),
        [
            pytest.param(p.udp(p.SITE4, "10.1.0.1"), "for_this_host", id="lan-address"),
            pytest.param(p.udp(p.SITE6, "2001:db8:a::1"), "for_this_host", id="ipv6-lan-address"),
            pytest.param(p.udp(p.SITE4, "169.254.20.1"), "for_this_host", id="inner-address"),
            pytest.param(p.udp(p.SITE6, "fd00:20::1"), "for_this_host", id="ipv6-inner-address"),
            pytest.param(p.udp(p.SITE4, p.NO_LOCAL), "for_this_host", id="underlay-address"),
            pytest.param(p.udp(p.SITE4, "10.1.0.1", ttl=1), "for_this_host", id="last-hop"),
            pytest.param(p.udp(p.SITE4, "10.1.0.255"), "for_this_host", id="directed-broadcast"),
            pytest.param(p.udp("fe80::2", "fe80::1"), "for_this_host", id="link-local"),
            pytest.param(p.udp("fe80::2", p.HOST6), "for_this_host", id="link-local-source"),
            pytest.param(p.udp(p.SITE6, "::1"), "for_this_host", id="ipv6-loopback"),
            pytest.param(p.udp(p.SITE4, "127.0.0.1"), "for_this_host", id="loopback"),
            pytest.param(p.udp(p.SITE4, "224.0.0.5", ttl=1), "multicast", id="multicast"),
            pytest.param(p.udp(p.SITE4, "239.1.2.3"), "multicast", id="routable-multicast"),
            pytest.param(p.udp(p.SITE4, "255.255.255.255"), "multicast", id="broadcast"),
            pytest.param(p.udp("fe80::2", "ff02::5", ttl=1), "multicast", id="ipv6-multicast"),
            pytest.param(p.udp("::", "ff02::16", ttl=1), "multicast", id="ipv6-mld-of-no-address"),
            pytest.param(p.udp(p.SITE6, "ff0e::1"), "multicast", id="ipv6-global-multicast"),
            pytest.param(p.udp(p.SITE4, "10.1.0.3"), "no_neighbour", id="silent-host"),
            pytest.param(p.udp(p.SITE6, "2001:db8:a::3"), "no_neighbour", id="ipv6-silent-host"),
            pytest.param(p.udp(p.SITE4, "10.99.0.1"), "no_route", id="unreachable"),
            pytest.param(p.udp(p.SITE6, "2001:db8:99::1"), "no_route", id="ipv6-unreachable"),
            # The FIB look-up answers "ours" and "nowhere" alike (BPF_FIB_LKUP_RET_NOT_FWDED).
            pytest.param(p.udp(p.SITE4, "10.98.0.1"), "for_this_host", id="no-route-at-all"),
            pytest.param(p.udp(p.SITE6, "2001:db8:98::1"), "for_this_host", id="ipv6-no-route"),
            pytest.param(p.udp(p.SITE4, "10.9.0.2"), "egress_unattached", id="other-interface"),
            pytest.param(
                p.udp(p.SITE6, "2001:db8:9::2"), "egress_unattached", id="ipv6-other-interface"
            ),
            pytest.param(
                p.to_lan("plain", 4, options=[IPOption_NOP()] * 4), "ip_options", id="options"
            ),
            pytest.param(
                p.to_lan("plain", 4, options=[IPOption_NOP()] * 40), "ip_options", id="all-options"
            ),
            pytest.param(
                IPv6(src=p.SITE6, dst=p.HOST6)
                / IPv6ExtHdrHopByHop(options=[RouterAlert()])
                / p.payload(8),
                "ip_options",
                id="ipv6-hop-by-hop",
            ),
            pytest.param(p.of_bytes(1301, p.udp, p.SITE4, "10.3.0.2"), "too_big", id="narrow-path"),
            pytest.param(
                p.of_bytes(1301, p.udp, p.SITE6, "2001:db8:3::2"), "too_big", id="ipv6-narrow-path"
            ),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM | SEQUENCE], ids=["bare", "CS"])
    def test_delivered(
        self, bench: Bench, header: dict[str, object], inner: Packet, reason: str
    ) -> None:
        """The device gets the whole inner packet, its hop unspent, with the reason why."""
        inner = type(inner)(bytes(inner))
        frame = bytes(came("plain", inner, header)) + b"\0" * 4
        assert bench.port(frame, "eth0") == to_device(bench, "plain", inner, reason)

    @pytest.mark.parametrize("target", ["10.3.0.2", "2001:db8:3::2"])
    def test_longest_on_a_narrow_path(self, bench: Bench, target: str) -> None:
        """Duty 18: a packet of exactly the route's MTU is forwarded."""
        source = p.SITE6 if ":" in target else p.SITE4
        inner = p.of_bytes(1300, p.udp, source, target)
        assert bench.port(came("plain", inner), "eth0") == to_port("plain", inner)

    @pytest.mark.parametrize(("tunnel", "mtu"), [("plain", 1476), ("keyed", 1472)])
    @VERSIONS
    def test_longest_for_the_device(
        self, bench: Bench, tunnel: str, mtu: int, version: int
    ) -> None:
        """A device takes packets up to its MTU; longer ones would be lost there uncounted."""
        source = p.SITE[tunnel][version == 6]
        target = {4: "10.1.0.1", 6: "2001:db8:a::1"}[version]
        inner = p.of_bytes(mtu, p.udp, source, target)
        assert bench.port(came(tunnel, inner), "eth0") == to_device(
            bench, tunnel, inner, "for_this_host"
        )
        inner = p.of_bytes(mtu + 1, p.udp, source, target)
        assert bench.port(came(tunnel, inner), "eth0") == dropped("too_big")


class TestWhichTunnel:
    """Duties 10, 22: local, remote and key together say which tunnel a packet is of."""

    @pytest.mark.parametrize(
        ("tunnel", "key"),
        [
            pytest.param("keyed", p.KEY + 1, id="another-key"),
            pytest.param("keyed", 0, id="key-0-for-another-key"),
            pytest.param("keyed", p.KEY << 24, id="key-of-the-other-byte-order"),
            pytest.param("keyed", None, id="no-key-for-a-key"),
            pytest.param("inherit", p.KEY, id="key-for-no-key"),
            pytest.param("inherit", 0, id="key-0-for-no-key"),
            pytest.param("zero", p.KEY, id="key-for-key-0-and-none"),
            pytest.param("split", p.OKEY, id="okey-for-ikey"),
            pytest.param("second", p.KEY, id="key-at-another-local"),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM, SEQUENCE], ids=["bare", "C", "S"])
    def test_key_mismatch(
        self, bench: Bench, header: dict[str, object], tunnel: str, key: int | None
    ) -> None:
        """The pair is known and the key is not: dropped, or left to the kernel where it may be."""
        frame = p.received(p.gre(p.to_lan(tunnel, 4), key, **header), tunnel)
        assert bench.port(frame, "eth0") == dropped("key_mismatch")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "key_mismatch")

    def test_key_0_is_not_no_key(self, bench: Bench) -> None:
        """Two tunnels of one pair, one with key 0 and one without, tell their packets apart."""
        inner = p.to_lan("plain", 4)
        keyless, keyed = p.received(p.gre(inner)), p.received(p.gre(inner, 0))
        assert bench.port(keyless, "eth0") == to_port("plain", inner)
        assert bench.port(keyed, "eth0") == to_port("zero", inner)

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param({"src": p.STRANGER}, id="stranger"),
            pytest.param({"src": p.SECOND_REMOTE}, id="remote-of-another-local"),
            pytest.param({"dst": p.OTHER_LOCAL}, id="local-of-another-remote"),
            pytest.param({"src": p.LOCAL}, id="ourselves"),
            pytest.param({"src": "0.0.0.0"}, id="nobody"),
        ],
    )
    @pytest.mark.parametrize("key", [None, 0, p.KEY], ids=["no-key", "key-0", "key"])
    def test_unknown_tunnel(self, bench: Bench, key: int | None, outer: dict[str, object]) -> None:
        """GRE to a local of ours from nobody's remote: dropped, or left to the kernel."""
        frame = p.received(p.gre(p.to_lan("plain", 4), key), **outer)
        assert bench.port(frame, "eth0") == dropped("unknown_tunnel")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "unknown_tunnel")

    @pytest.mark.parametrize("interface", ["eth0", "eth1"])
    def test_on_every_interface(self, bench: Bench, interface: str) -> None:
        """The underlay may be any configured interface, if the frame is for its link address."""
        inner = p.to_lan("plain", 4)
        frame = came("plain", inner, mac=bench.mac(interface))
        assert bench.port(frame, interface) == to_port("plain", inner)

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param({"flags": "MF"}, id="first"),
            pytest.param({"flags": "MF", "frag": 1}, id="middle"),
            pytest.param({"flags": 0, "frag": 64}, id="last"),
        ],
    )
    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    def test_outer_fragment(self, bench: Bench, tunnel: str, outer: dict[str, object]) -> None:
        """Duty 19: fragments of outer packets between a tunnel's ends are dropped and counted."""
        frame = came(tunnel, p.to_lan(tunnel, 4), **outer)
        assert bench.port(frame, "eth0") == dropped("outer_fragment")

    def test_outer_fragment_of_no_tunnel(self, bench: Bench) -> None:
        """A fragment from nobody's remote is treated like any GRE from there."""
        frame = p.received(p.gre(p.to_lan("plain", 4)), src=p.STRANGER, flags="MF")
        assert bench.port(frame, "eth0") == dropped("unknown_tunnel")
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == passed(frame, "unknown_tunnel")

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            pytest.param(ROUTING, "gre_routing_bit", id="routing-bit"),
            pytest.param(CHECKSUM | {"chksum": 1}, "gre_checksum", id="checksum"),
            pytest.param({"proto": 0x6558}, "unknown_protocol", id="protocol"),
        ],
    )
    def test_broken_and_ours_is_never_passed(
        self, bench: Bench, header: dict[str, object], reason: str
    ) -> None:
        """``unknown_gre = "pass"`` is about what no tunnel takes, not about what is broken."""
        frame = came("plain", p.to_lan("plain", 4), header)
        with bench.unknown_gre("pass"):
            assert bench.port(frame, "eth0") == dropped(reason)


class TestTunnelToTunnel:
    """Hub and spoke: out of one tunnel and into another in one pass."""

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            ("plain", "keyed"),
            ("keyed", "plain"),
            ("keyed", "split"),
            ("plain", "second"),
            ("second", "zero"),
            ("plain", "inherit"),
        ],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM | SEQUENCE], ids=["bare", "CS"])
    @VERSIONS
    def test_relayed(
        self, bench: Bench, version: int, header: dict[str, object], source: str, target: str
    ) -> None:
        """Duties 8, 12: one hop is spent for both, and both tunnels count the packet."""
        at = version == 6
        inner = p.udp(p.SITE[source][at], p.SITE[target][at])
        outer = {"ttl": 63} if target == "inherit" else {}
        expected = p.sent(p.gre(p.spent(inner), p.ENDS[target].okey), target, **outer)
        frame = bytes(came(source, inner, header)) + b"\xa5" * 3
        assert bench.port(frame, "eth0") == relayed(source, target, expected, inner)

    @pytest.mark.parametrize(
        ("fields", "is_back"),
        [({"ttl": 2}, True), ({"ttl": 3}, False), ({"ttl": 2, "src": p.SITE6}, False)],
        ids=["probe", "more-hops", "of-another"],
    )
    def test_a_probe_goes_back_once(
        self, bench: Bench, fields: dict[str, int | str], is_back: bool
    ) -> None:
        """Duty 21: an IPv6 packet to itself with one hop to spend is what the remote asks with."""
        address = "fd00:20::2"
        inner = p.udp(**{"src": address, "dst": address, **fields})
        expected = relayed("plain", "plain", p.sent(p.gre(p.spent(inner))), inner)
        outcome = bench.port(came("plain", inner), "eth0")
        assert outcome == (expected if is_back else dropped("looped_back"))

    @VERSIONS
    def test_not_back_where_it_came_from(self, bench: Bench, version: int) -> None:
        """RFC 4443 section 3.1: else two gateways play ping-pong until its hops are spent."""
        inner = p.udp(p.SITE["keyed"][version == 6], p.SITE["plain"][version == 6])
        assert bench.port(came("plain", inner), "eth0") == dropped("looped_back")

    @pytest.mark.parametrize(
        ("target", "length", "fields", "reason"),
        [
            pytest.param("narrow", 1301, {}, "too_big", id="too-big"),
            pytest.param("keyed", 1473, {}, "too_big", id="too-big-by-the-key"),
            pytest.param("keyed", 100, {"ttl": 1}, "ttl_expired", id="ttl"),
            pytest.param(
                "keyed", 100, {"options": [IPOption_NOP()] * 4}, "ip_options", id="options"
            ),
        ],
    )
    def test_left_to_the_kernel(
        self, bench: Bench, target: str, length: int, fields: dict[str, object], reason: str
    ) -> None:
        """Duty 18: the kernel gets it from the tunnel it came out of, and answers through that."""
        inner = p.of_bytes(length, p.udp, p.SITE4, p.SITE[target][0], **fields)
        assert bench.port(came("plain", inner), "eth0") == to_device(bench, "plain", inner, reason)

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            ("lost", "no_neighbour"),
            ("nowhere", "no_route"),
            ("astray", "egress_unattached"),
            ("nested", "nested_tunnel"),
        ],
    )
    @VERSIONS
    def test_unreachable_remote(self, bench: Bench, version: int, target: str, reason: str) -> None:
        """Duty 15: a packet that cannot leave counts as a drop, and for neither tunnel."""
        at = version == 6
        inner = p.udp(p.SITE["plain"][at], p.SITE[target][at])
        assert bench.port(came("plain", inner), "eth0") == dropped(reason)
