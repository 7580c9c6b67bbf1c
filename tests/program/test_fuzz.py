"""Any frame whatever: never aborted, changed only if sent on, and one outcome counted for each."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IPOption_NOP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether

import packets as p
from program import gateway
from program.bench import Bench
from program.invariants import check
from program.repair import repaired

GATEWAY_TUNNELS = (
    *gateway.TUNNELS,
    *("plain6", "keyed6", "summed6", "full6", "inherit6", "fixed6"),
    *("tap", "tapfull", "tapinherit", "tap6", "tapfull6"),
)

FRAME_BYTES_MAX = 3400  # what BPF_PROG_RUN takes in one page
CHECKSUM, SEQUENCE = {"chksum_present": 1}, {"seqnum_present": 1}
STACK = MPLS(label=16, s=1, ttl=9) / p.udp("10.0.0.1", "10.0.0.2")
BRIDGED = bytes(Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC) / p.udp("10.0.0.1", "10.0.0.2"))
# RFC 2473's Tunnel Encapsulation Limit, which GRE may stand behind.
LIMITED = IPv6(src=p.REMOTE6, dst=p.LOCAL6) / IPv6ExtHdrDestOpt(
    nh=47, options=[HBHOptUnknown(otype=4, optdata=b"\4"), PadN(optdata=b"\0")]
)

GRE_FRAMES = tuple(
    bytes(frame)
    for frame in (
        p.received(p.gre(p.to_lan("plain", 4))),
        p.received(p.gre(p.to_lan("plain", 6))),
        p.received(p.gre(p.to_lan("keyed", 4), p.KEY, **CHECKSUM, **SEQUENCE), "keyed"),
        p.received(p.gre(p.to_lan("keyed", 6), p.KEY, **CHECKSUM), "keyed"),
        p.received(p.gre(p.to_lan("zero", 4), 0), "zero", tos=3),
        p.received(p.gre(p.to_lan("plain", 4)), options=[IPOption_NOP()] * 8),
        p.received(p.gre(p.to_lan("plain", 4, options=[IPOption_NOP()] * 8))),
        p.received(p.gre(p.udp(p.SITE4, p.SITE["keyed"][0]))),
        p.received(p.gre(p.udp(p.SITE6, p.SITE["plain"][1]))),
        p.received(p.gre(p.udp(p.SITE4, "10.1.0.1"))),
        p.received(p.gre(p.udp(p.SITE4, "224.0.0.5"))),
        p.received(p.gre(p.to_lan("plain", 4, 1300), **CHECKSUM)),
        p.came("plain", STACK),
        p.came("tap", BRIDGED),
        p.came("tapfull", p.tagged(BRIDGED, (0x8100, 7)), CHECKSUM | SEQUENCE),
        p.came("plain6", p.to_lan("plain6", 4)),
        p.came("plain6", p.to_lan("plain6", 6), tos=3),
        p.on_lan(LIMITED / p.gre(p.to_lan("plain6", 4)), dst=p.UNDERLAY_MAC),
        p.came("full6", p.to_lan("full6", 4), CHECKSUM | SEQUENCE),
        p.came("keyed6", p.udp(p.SITE["keyed6"][1], p.SITE["summed6"][1])),
        p.came("keyed6", STACK, CHECKSUM),
        p.came("tap6", BRIDGED, tos=1),
    )
)
LAN_FRAMES = tuple(
    bytes(p.on_lan(inner))
    for inner in (
        p.to_site("plain", 4),
        p.to_site("plain", 6),
        p.to_site("keyed", 4),
        p.to_site("fixed", 6, tos=1),
        p.to_site("inherit", 4, ttl=2),
        p.to_site("plain", 4, options=[IPOption_NOP()] * 8),
        IPv6(src=p.HOST6, dst=p.SITE6) / IPv6ExtHdrHopByHop(options=[RouterAlert()]),
        p.of_bytes(1476, p.to_site, "plain", 4),
        p.of_bytes(1477, p.to_site, "plain", 6),
        p.to_site("plain6", 4, tos=2),
        p.to_site("full6", 6),
        p.to_site("tap", 4),
    )
)
HOST_FRAMES = (
    *LAN_FRAMES,
    bytes(Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC, type=0x8847) / STACK),
    bytes(
        Ether(src=p.HOST_MAC, dst="ff:ff:ff:ff:ff:ff")
        / ARP(hwsrc=p.HOST_MAC, psrc="10.0.0.1", pdst="10.0.0.2")
    ),
    p.tagged(BRIDGED, (0x88A8, 7), (0x8100, 8)),
)


# --- where mutations go ---------------------------------------------------------------------------


@st.composite
def mutated(draw: st.DrawFn, frames: tuple[bytes, ...]) -> bytes:
    """A good frame with a few things done to it, its IP headers made right again or not."""
    raw = bytearray(draw(st.sampled_from(frames)))
    for _ in range(draw(st.integers(0, 4))):
        # Headers are where it matters.
        at = draw(st.integers(14, 109) | st.integers(34, 61) | st.integers(0, 13)) % len(raw)
        match draw(st.sampled_from(["flip", "set", "word", "cut", "extend", "insert", "remove"])):
            case "flip":
                raw[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                raw[at] = draw(st.integers(0, 255))
            case "word":
                raw[at & ~1 : (at & ~1) + 2] = draw(
                    st.sampled_from([b"\0\0", b"\xff\xff", b"\x08\0", b"\x86\xdd"])
                )
            case "cut":
                del raw[max(at, 34) :]
            case "extend":
                raw += draw(st.binary(max_size=64))
            case "insert":
                raw[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del raw[at : at + draw(st.integers(1, 8))]
        raw.extend(b"\0" * (34 - len(raw)))
    frame = bytes(raw[:FRAME_BYTES_MAX])
    is_left = draw(st.integers(0, 3)) == 3
    return frame if is_left else bytes(repaired(frame))


@st.composite
def headed(draw: st.DrawFn) -> bytes:
    """Arbitrary octets behind the beginning of a good frame."""
    frame = draw(st.sampled_from(GRE_FRAMES + HOST_FRAMES))
    head = frame[: draw(st.sampled_from([14, 34, 38, 42, 54, 58, 62, 72]))]
    frame = head + draw(st.binary(min_size=34 - min(len(head), 34), max_size=120))
    is_left = draw(st.integers(0, 3)) == 3
    return frame if is_left else bytes(repaired(frame))


def fuzz(examples: int) -> settings:
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


class TestPort:
    """The program of configured interfaces."""

    @pytest.mark.parametrize("interface", ["eth0", "eth1"])
    @fuzz(200)
    @given(frame=st.binary(min_size=14, max_size=200))
    def test_arbitrary_bytes(self, bench: Bench, interface: str, frame: bytes) -> None:
        """Nothing is too odd."""
        check(bench.port(frame, interface), frame, "port")

    @pytest.mark.parametrize("interface", ["eth0", "eth1"])
    @fuzz(500)
    @given(frame=headed())
    def test_good_beginnings(self, bench: Bench, interface: str, frame: bytes) -> None:
        """What begins like ours may go on like nothing."""
        check(bench.port(frame, interface), frame, "port")

    @fuzz(1200)
    @given(frame=mutated(GRE_FRAMES))
    def test_mutated_gre(self, bench: Bench, frame: bytes) -> None:
        """Almost good GRE."""
        check(bench.port(frame, "eth0"), frame, "port")

    @fuzz(700)
    @given(frame=mutated(LAN_FRAMES))
    def test_mutated_packets_from_the_lan(self, bench: Bench, frame: bytes) -> None:
        """Almost good packets for a tunnel."""
        check(bench.port(frame, "eth1"), frame, "port")

    @pytest.mark.parametrize("is_repaired", [False, True], ids=["as-is", "repaired"])
    @pytest.mark.parametrize("number", range(len(GRE_FRAMES)))
    def test_every_bit_of_gre(self, bench: Bench, number: int, is_repaired: bool) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(GRE_FRAMES[number]):
            tried = bytes(repaired(frame)) if is_repaired else frame
            check(bench.port(tried, "eth0"), tried, "port")

    @pytest.mark.parametrize("is_repaired", [False, True], ids=["as-is", "repaired"])
    @pytest.mark.parametrize("number", range(len(LAN_FRAMES)))
    def test_every_bit_from_the_lan(self, bench: Bench, number: int, is_repaired: bool) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(LAN_FRAMES[number]):
            tried = bytes(repaired(frame)) if is_repaired else frame
            check(bench.port(tried, "eth1"), tried, "port")


class TestInner:
    """The program of inner ends."""

    TUNNELS = pytest.mark.parametrize(
        "tunnel", ["plain", "keyed", "fixed", "plain6", "full6", "tap", "tapfull6"]
    )

    @TUNNELS
    @fuzz(100)
    @given(frame=st.binary(min_size=14, max_size=200))
    def test_arbitrary_bytes(self, bench: Bench, tunnel: str, frame: bytes) -> None:
        """Nothing is too odd."""
        check(bench.inner(frame, f"gx-{tunnel}"), frame, "inner")

    @TUNNELS
    @fuzz(200)
    @given(frame=mutated(HOST_FRAMES))
    def test_mutated(self, bench: Bench, tunnel: str, frame: bytes) -> None:
        """Almost good packets."""
        check(bench.inner(frame, f"gx-{tunnel}"), frame, "inner")

    @pytest.mark.parametrize("number", range(len(HOST_FRAMES)))
    @pytest.mark.parametrize("tunnel", ["keyed", "tap6"])
    def test_every_bit(self, bench: Bench, tunnel: str, number: int) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(HOST_FRAMES[number]):
            check(bench.inner(frame, f"gx-{tunnel}"), frame, "inner")


def flips(frame: bytes, octets: int = 72) -> list[bytes]:
    """The frame with one bit changed, for each bit of its first octets."""
    return [
        p.patched(frame, at, bytes([frame[at] ^ 1 << bit]))
        for at in range(min(octets, len(frame)))
        for bit in range(8)
    ]
