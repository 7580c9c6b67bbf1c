"""Any frame whatever: never aborted, changed only if sent on, and one outcome counted for each."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, RouterAlert

import packets as p
from program.bench import UNRELATED, Bench, Outcome

FRAME_BYTES_MAX = 3400  # what BPF_PROG_RUN takes in one page
CHECKSUM, SEQUENCE = {"chksum_present": 1}, {"seqnum_present": 1}

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
    )
)


def check(outcome: Outcome, frame: bytes, program: Literal["port", "inner"]) -> None:
    """One frame in, one outcome: exactly one reason, or exactly one way through tunnels."""
    assert (
        outcome.verdict
        in {"port": ("drop", "pass", "redirect"), "inner": ("drop", "redirect")}[program]
    )
    moved = [name.rsplit(" ", 1)[1] for name in outcome.tunnels]
    assert list(outcome.reasons.values()) == [1]
    kinds = {name.split()[0] for name in outcome.reasons}
    if outcome.verdict == "drop":
        assert kinds == {"drop"}
        assert not moved
    elif outcome.verdict == "pass":
        assert kinds in ({UNRELATED}, {"pass"})
        assert not moved
        assert outcome.frame == frame
    else:
        [kind] = kinds
        directions = {name.split("_")[0] for name in moved}
        assert sorted(moved) == sorted(f"{d}_{unit}" for d in directions for unit in UNITS)
        assert directions == DIRECTIONS[kind]
        check_sent(outcome, is_encapsulated="tx" in directions)


UNITS = ("packets", "bytes")
DIRECTIONS = {"pass": {"rx"}, "decap": {"rx"}, "encap": {"tx"}, "relay": {"rx", "tx"}}


def check_sent(outcome: Outcome, *, is_encapsulated: bool) -> None:
    """What leaves is a whole frame, of the length that was counted, with right header checksums."""
    packet = outcome.frame[14:]
    ethertype = outcome.frame[12:14]
    if is_encapsulated:
        assert ethertype == b"\x08\x00"
        check_ip(packet, 4)
        outer = IP(packet)
        assert (outer.ihl, outer.proto) == (5, 47)
        words = [bool(packet[20] & bit) for bit in (0x80, 0x20, 0x10)]  # checksum, key, sequence
        assert packet[20] & 0x4F == 0
        assert packet[21] == 0
        ethertype, packet = packet[22:24], packet[24 + 4 * sum(words) :]
    check_ip(packet, {b"\x08\x00": 4, b"\x86\xdd": 6}[ethertype])
    for name, value in outcome.tunnels.items():
        assert value == (len(packet) if name.endswith("_bytes") else 1)


def check_ip(packet: bytes, version: int) -> None:
    assert packet[0] >> 4 == version
    if version == 6:
        assert len(packet) == 40 + int.from_bytes(packet[4:6], "big")
        return
    assert len(packet) == int.from_bytes(packet[2:4], "big")
    header = packet[: 4 * (packet[0] & 15)]
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, len(header), 2))
    assert total % 0xFFFF == 0


# --- where mutations go ---------------------------------------------------------------------------


def repaired(frame: bytes, *, is_gre: bool) -> bytes:
    """The frame with the lengths and header checksums of its outer and inner IPv4 header right.

    Without this nearly every mutation ends at the first checksum.
    """
    raw = bytearray(frame)
    raw[12:14] = b"\x08\x00" if raw[14] >> 4 == 4 else b"\x86\xdd"
    end = repair_ip(raw, 14)
    if is_gre and end:
        flags = raw[end] if end < len(raw) else 0
        at = end + 4 + 4 * sum(bool(flags & bit) for bit in (0x80, 0x20, 0x10))
        if at + 20 <= len(raw):
            repair_ip(raw, at)
        if flags & 0x80 and end + 8 <= len(raw):
            raw[end + 4 : end + 6] = b"\0\0"
            raw[end + 4 : end + 6] = checksum(raw[end:])
    return bytes(raw)


def repair_ip(raw: bytearray, at: int) -> int:
    """Where the IPv4 header ends that now is right; 0 where there is none."""
    end = at + 4 * (raw[at] & 15)
    if raw[at] >> 4 != 4 or end < at + 20 or end > len(raw):
        return 0
    raw[at + 2 : at + 4] = (len(raw) - at).to_bytes(2, "big")
    raw[at + 10 : at + 12] = b"\0\0"
    raw[at + 10 : at + 12] = checksum(raw[at:end])
    return end


def checksum(octets: bytes) -> bytes:
    padded = octets + b"\0" * (len(octets) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    return (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


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
    return frame if is_left else repaired(frame, is_gre=frames is GRE_FRAMES)


@st.composite
def headed(draw: st.DrawFn) -> bytes:
    """Arbitrary octets behind the beginning of a good frame."""
    frame = draw(st.sampled_from(GRE_FRAMES + LAN_FRAMES))
    head = frame[: draw(st.sampled_from([14, 34, 38, 42, 54, 58]))]
    frame = head + draw(st.binary(min_size=34 - min(len(head), 34), max_size=120))
    is_left = draw(st.integers(0, 3)) == 3
    return frame if is_left else repaired(frame, is_gre=True)


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

    @fuzz(800)
    @given(frame=mutated(LAN_FRAMES))
    def test_mutated_packets_from_the_lan(self, bench: Bench, frame: bytes) -> None:
        """Almost good packets for a tunnel."""
        check(bench.port(frame, "eth1"), frame, "port")

    @pytest.mark.parametrize("is_repaired", [False, True], ids=["as-is", "repaired"])
    @pytest.mark.parametrize("number", range(len(GRE_FRAMES)))
    def test_every_bit_of_gre(self, bench: Bench, number: int, is_repaired: bool) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(GRE_FRAMES[number]):
            tried = repaired(frame, is_gre=True) if is_repaired else frame
            check(bench.port(tried, "eth0"), tried, "port")

    @pytest.mark.parametrize("is_repaired", [False, True], ids=["as-is", "repaired"])
    @pytest.mark.parametrize("number", range(len(LAN_FRAMES)))
    def test_every_bit_from_the_lan(self, bench: Bench, number: int, is_repaired: bool) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(LAN_FRAMES[number]):
            tried = repaired(frame, is_gre=False) if is_repaired else frame
            check(bench.port(tried, "eth1"), tried, "port")


class TestInner:
    """The program of inner ends."""

    TUNNELS = pytest.mark.parametrize("tunnel", ["plain", "keyed", "fixed"])

    @TUNNELS
    @fuzz(200)
    @given(frame=st.binary(min_size=14, max_size=200))
    def test_arbitrary_bytes(self, bench: Bench, tunnel: str, frame: bytes) -> None:
        """Nothing is too odd."""
        check(bench.inner(frame, f"gx-{tunnel}"), frame, "inner")

    @TUNNELS
    @fuzz(400)
    @given(frame=mutated(LAN_FRAMES))
    def test_mutated(self, bench: Bench, tunnel: str, frame: bytes) -> None:
        """Almost good packets."""
        check(bench.inner(frame, f"gx-{tunnel}"), frame, "inner")

    @pytest.mark.parametrize("number", range(len(LAN_FRAMES)))
    def test_every_bit(self, bench: Bench, number: int) -> None:
        """Each bit of the headers flipped, one at a time."""
        for frame in flips(LAN_FRAMES[number]):
            check(bench.inner(frame, "gx-keyed"), frame, "inner")


def flips(frame: bytes, octets: int = 72) -> list[bytes]:
    """The frame with one bit changed, for each bit of its first octets."""
    return [
        p.patched(frame, at, bytes([frame[at] ^ 1 << bit]))
        for at in range(min(octets, len(frame)))
        for bit in range(8)
    ]
