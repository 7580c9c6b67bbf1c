"""Frames of more than a page: their first part is where headers are read, the rest are fragments.

Here the first 3,520 bytes are in one piece and the rest in pieces of a page (BPF_PROG_RUN's own
way); a driver may cut elsewhere.
"""

from __future__ import annotations

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.l2 import Ether
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

LINK_MTU = 9000
GATEWAY_TUNNELS = (
    *("plain", "keyed", "narrow", "summed", "full"),
    *("plain6", "summed6", "full6", "tap", "tapfull", "tapfull6"),
)

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
CHECKSUM, NUMBER = {"chksum_present": 1}, {"seqnum_present": 1, "sequence_number": 0}
FIRST_PART, PAGE = 3520, 4096
# What the links take, by tunnel; and what a tunnel with these words of GRE sends.
MTU = {
    **{"plain": 8976, "keyed": 8972, "summed": 8972, "full": 8964},
    **{"plain6": 8956, "summed6": 8952, "full6": 8944},
}
HEADER = {
    "summed": CHECKSUM,
    "summed6": CHECKSUM,
    **dict.fromkeys(["full", "full6", "tapfull", "tapfull6"], CHECKSUM | NUMBER),
}
TUNNELS = pytest.mark.parametrize("tunnel", MTU)
# Frames that just fit one piece, or just do not, and the same for more of them.
LENGTHS = [
    *range(FIRST_PART - 2, FIRST_PART + 3),
    *range(FIRST_PART + PAGE - 1, FIRST_PART + PAGE + 2),
    *(FIRST_PART - 24, FIRST_PART + 14, 5000, 9014),
]
PAYLOADS = pytest.mark.parametrize(
    "length", [0, 1, 100, 3000, 3450, 3460, 3470, 3480, 3490, 3500, 7500, 7550, 7570, 7600, 8800]
)
FRAME = bytes(Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC) / p.udp("10.0.0.1", "10.0.0.2", 8800))


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("full", "full6", "tapfull", "tapfull6")


def came_as_asked(tunnel: str, carried: Packet | bytes) -> Packet:
    """What the other end sends, with the words of GRE that the tunnel asks for."""
    return came(tunnel, carried, HEADER.get(tunnel))


def went(outcome: Outcome, tunnel: str, carried: Packet | bytes) -> Packet:
    """What leaves through a tunnel, with the words of GRE that it is to have."""
    label = {"fl": p.flow_label(outcome.frame)} if p.ENDS[tunnel].is_ipv6 else {}
    gre = p.gre(carried, p.ENDS[tunnel].okey, **HEADER.get(tunnel, {}))
    return p.sent(gre, tunnel, **label)


class TestDecap:
    """Out of a tunnel."""

    @TUNNELS
    @VERSIONS
    def test_longest(self, bench: Bench, version: int, tunnel: str) -> None:
        """A frame that fills the links is decapsulated to its last octet."""
        inner = p.of_bytes(MTU[tunnel], p.to_lan, tunnel, version)
        frame = came_as_asked(tunnel, inner)
        assert len(frame) == 9014
        assert bench.port(frame, "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize("length", LENGTHS)
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_where_pieces_end(
        self, bench: Bench, tunnel: str, header: dict[str, object], length: int
    ) -> None:
        """Duty 5: nothing is lost or summed twice where one piece of the frame ends."""
        least = len(came(tunnel, p.to_lan(tunnel, 4, 0), header))
        inner = p.to_lan(tunnel, 4, length - least)
        frame = came(tunnel, inner, header)
        assert len(frame) == length
        assert bench.port(frame, "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize("tunnel", ["summed", "summed6"])
    def test_wrong_at_any_octet(self, bench: Bench, tunnel: str) -> None:
        """Duty 5: one bit that is another one, in whatever piece, and the packet is dropped."""
        frame = bytes(came_as_asked(tunnel, p.of_bytes(MTU[tunnel], p.to_lan, tunnel, 4)))
        ends = (FIRST_PART, FIRST_PART + PAGE, len(frame))
        places = {at for end in ends for at in range(end - 3, end + 3) if at < len(frame)}
        for at in sorted(places | {*range(100, len(frame), 509)}):
            broken = p.patched(frame, at, bytes([frame[at] ^ 1 << at % 8]))
            assert bench.port(broken, "eth0") == dropped("gre_checksum"), at

    @pytest.mark.parametrize(
        "length",
        [0, 1, 100, 3000, 3450, 3460, 3470, 3480, 3500, 7500, 7550, 7560, 7570, 7600, 8900],
    )
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_padding_trimmed(
        self, bench: Bench, tunnel: str, header: dict[str, object], length: int
    ) -> None:
        """Padding may be in pieces of its own, or all of them but the first."""
        inner = p.to_lan(tunnel, 4, length)
        frame = bytes(came(tunnel, inner, header)).ljust(9014, b"\xa5")
        assert bench.port(frame, "eth0") == to_port(tunnel, inner)

    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_onto_the_device(self, bench: Bench, tunnel: str) -> None:
        """The tunnel's device gets long packets too, up to its MTU."""
        ends = p.SITE[tunnel][0], "10.1.0.1"
        inner = p.of_bytes(MTU[tunnel], p.udp, *ends)
        expected = to_device(bench, tunnel, inner, "for_this_host")
        assert bench.port(came(tunnel, inner), "eth0") == expected
        inner = p.of_bytes(MTU[tunnel] + 1, p.udp, *ends)
        assert bench.port(came(tunnel, inner), "eth0") == dropped("too_big")

    @pytest.mark.parametrize("tunnel", ["plain", "plain6"])
    def test_cut_off(self, bench: Bench, tunnel: str) -> None:
        """A long frame that ends before its packet is not one of ours."""
        whole = bytes(came(tunnel, p.of_bytes(MTU[tunnel], p.to_lan, tunnel, 4)))
        for length in (9013, FIRST_PART + PAGE, FIRST_PART + 1, FIRST_PART, FIRST_PART - 1):
            assert bench.port(whole[:length], "eth0") == unrelated(whole[:length]), length

    @pytest.mark.parametrize(
        ("tunnel", "header"), [("tap", {}), *((t, HEADER[t]) for t in ("tapfull", "tapfull6"))]
    )
    def test_frame(self, bench: Bench, tunnel: str, header: dict[str, object]) -> None:
        """Ethernet frames of many bytes arrive as they were sent."""
        frame = bytes(
            Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC) / p.udp("10.0.0.1", "10.0.0.2", 8800)
        )
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(came(tunnel, frame, header), "eth0") == expected

    def test_mpls(self, bench: Bench) -> None:
        """Labels and much below them, too."""
        stack = MPLS(bytes(MPLS(label=16, s=1, ttl=9) / p.payload(8900)))
        assert bench.port(came("plain", stack), "eth0") == to_device(bench, "plain", stack, "mpls")


class TestShortFirstPart:
    """Drivers that split headers from data leave little more than headers in the first piece."""

    FIRST = pytest.mark.parametrize("first", [128, 129, 256, 511])

    @FIRST
    @pytest.mark.parametrize("padding", [0, 50, 4500], ids=["", "padded", "mostly-padding"])
    @pytest.mark.parametrize("tunnel", ["plain", "summed", "plain6", "summed6"])
    @VERSIONS
    def test_decap(self, bench: Bench, version: int, tunnel: str, padding: int, first: int) -> None:
        """Duty 5: where the first piece ends behind the headers is nothing to us."""
        inner = p.to_lan(tunnel, version, 4000)
        frame = bytes(came_as_asked(tunnel, inner)) + b"\xa5" * padding
        assert bench.port_in_pieces(frame, "eth0", first) == to_port(tunnel, inner)

    @FIRST
    @pytest.mark.parametrize("padding", [300, 4500], ids=["padded", "mostly-padding"])
    @pytest.mark.parametrize("tunnel", ["plain", "summed", "plain6", "summed6"])
    @VERSIONS
    def test_encap(self, bench: Bench, version: int, tunnel: str, padding: int, first: int) -> None:
        """Duty 5: the same on the way into a tunnel."""
        inner = p.to_site(tunnel, version, 4000)
        frame = bytes(p.on_lan(inner)) + b"\xa5" * padding
        outcome = bench.port_in_pieces(frame, "eth1", first)
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, p.spent(inner)), inner)

    @pytest.mark.parametrize("first", [34, 36, 38, 44, 57])
    def test_headers_in_the_second_piece(self, bench: Bench, first: int) -> None:
        """What cannot be read is not missing: the reason says where it is."""
        frame = bytes(came_as_asked("plain", p.to_lan("plain", 4, 4000)))
        assert bench.port_in_pieces(frame, "eth0", first) == dropped("split_headers")


class TestEncap:
    """Into a tunnel."""

    @TUNNELS
    @VERSIONS
    def test_longest(self, bench: Bench, version: int, tunnel: str) -> None:
        """Duties 5, 17: a packet of the tunnel's MTU is encapsulated, and summed to its end."""
        inner = p.of_bytes(MTU[tunnel], p.to_site, tunnel, version)
        outcome = bench.port(p.on_lan(inner), "eth1")
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, p.spent(inner)), inner)
        assert len(outcome.frame) == 9014

    @TUNNELS
    @VERSIONS
    def test_too_big(self, bench: Bench, version: int, tunnel: str) -> None:
        """Duty 18: a longer one goes to the kernel as it came."""
        frame = p.on_lan(p.of_bytes(MTU[tunnel] + 1, p.to_site, tunnel, version))
        assert bench.port(frame, "eth1") == passed(frame, "too_big")

    def test_too_big_for_a_narrow_tunnel(self, bench: Bench) -> None:
        """Duty 18: so does one that is too long for a tunnel of short packets."""
        frame = p.on_lan(p.of_bytes(9000, p.to_site, "narrow", 4))
        assert bench.port(frame, "eth1") == passed(frame, "too_big")

    @pytest.mark.parametrize("length", LENGTHS[:-1])
    @pytest.mark.parametrize("tunnel", ["plain", "summed", "summed6"])
    def test_where_pieces_end(self, bench: Bench, tunnel: str, length: int) -> None:
        """Duty 5: nothing is lost or summed twice where one piece of the frame ends."""
        inner = p.of_bytes(length - 14, p.to_site, tunnel, 4)
        outcome = bench.port(p.on_lan(inner), "eth1")
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, p.spent(inner)), inner)

    @PAYLOADS
    @pytest.mark.parametrize("tunnel", ["plain", "summed", "summed6"])
    def test_padding_trimmed(self, bench: Bench, tunnel: str, length: int) -> None:
        """Padding may be in pieces of its own, or all of them but the first."""
        inner = p.to_site(tunnel, 4, length)
        outcome = bench.port(bytes(p.on_lan(inner)).ljust(9014, b"\xa5"), "eth1")
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, p.spent(inner)), inner)

    @pytest.mark.parametrize("tunnel", ["plain", "full", "full6"])
    def test_from_this_host(self, bench: Bench, tunnel: str) -> None:
        """The same from the tunnel's inner end."""
        inner = p.of_bytes(MTU[tunnel], p.to_site, tunnel, 6)
        outcome = bench.inner(p.onto_device(inner, p.STRANGER_MAC), f"gx-{tunnel}")
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, inner), inner)

    @pytest.mark.parametrize("tunnel", ["tap", "tapfull", "tapfull6"])
    def test_frame(self, bench: Bench, tunnel: str) -> None:
        """Ethernet frames of many bytes."""
        frame = bytes(
            Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC) / p.udp("10.0.0.1", "10.0.0.2", 8800)
        )
        outcome = bench.inner(frame, f"gx-{tunnel}")
        assert outcome == encapsulated(tunnel, went(outcome, tunnel, frame), frame)


class TestTunnelToTunnel:
    """Hub and spoke with long packets."""

    @pytest.mark.parametrize(
        ("source", "target"),
        [("plain", "full6"), ("full6", "keyed"), ("summed", "summed6"), ("summed6", "full")],
    )
    @pytest.mark.parametrize("padding", [0, 3], ids=["", "padded"])
    def test_relayed(self, bench: Bench, padding: int, source: str, target: str) -> None:
        """Verified and summed again, in one pass."""
        length = min(MTU[source], MTU[target])
        inner = p.of_bytes(length, p.udp, p.SITE[source][0], p.SITE[target][0])
        frame = bytes(came_as_asked(source, inner)) + b"\xa5" * padding
        outcome = bench.port(frame, "eth0")
        expected = went(outcome, target, p.spent(inner))
        assert outcome == relayed(source, target, expected, inner)


class TestUnrelated:
    """Not ours, however long."""

    @pytest.mark.parametrize("length", [FIRST_PART, FIRST_PART + 1, 9014])
    def test_passed(self, bench: Bench, length: int) -> None:
        """It goes to the kernel octet by octet as it came."""
        for frame in (
            Ether(dst=p.UNDERLAY_MAC, type=0x88CC) / Raw(bytes(length - 14)),
            p.on_lan(p.of_bytes(length - 14, p.udp, p.HOST4, p.HOST4)),
            p.received(p.payload(length - 34), proto=17),
        ):
            assert bench.port(frame, "eth1") == unrelated(frame)
