"""What holds for every frame, however odd: it is sent on whole or left alone, and counted once."""

from __future__ import annotations

from ipaddress import ip_address

import packets as p
from gre_xdp.resources import Program
from program import gateway, repair
from program.bench import UNRELATED, Outcome

VERDICTS: dict[Program, tuple[str, ...]] = {
    "port": ("drop", "pass", "redirect"),
    "inner": ("drop", "redirect"),
}
# There always is room for headers before these frames.
NEVER = "drop no_headroom"
# What a redirected frame's reason says about the tunnels that it came and left by.
DIRECTIONS = {"pass": {"rx"}, "decap": {"rx"}, "encap": {"tx"}, "relay": {"rx", "tx"}}
IPV4, IPV6, MPLS, FRAME = 0x0800, 0x86DD, 0x8847, 0x6558
CHECKSUM, KEY, SEQUENCE = 0x80, 0x20, 0x10


def check(outcome: Outcome, frame: bytes | bytearray, program: Program) -> None:
    """One frame in, one outcome: exactly one reason, or exactly one way through tunnels."""
    assert outcome.verdict in VERDICTS[program]
    assert list(outcome.reasons.values()) == [1]
    assert NEVER not in outcome.reasons
    [kind] = {name.split()[0] for name in outcome.reasons}
    if outcome.verdict == "drop":
        assert kind == "drop"
        assert not outcome.tunnels
    elif outcome.verdict == "pass":
        assert kind in (UNRELATED, "pass")
        assert not outcome.tunnels
        assert outcome.frame == frame
    else:
        _check_sent(outcome, DIRECTIONS[kind])


def _check_sent(outcome: Outcome, directions: set[str]) -> None:
    """What leaves is a whole frame, of the length that was counted, with right header checksums."""
    tunnels = {}  # by direction
    for name in outcome.tunnels:
        tunnel, counter = name.split()
        tunnels[counter.split("_")[0]] = tunnel
    assert tunnels.keys() == directions
    if "tx" in tunnels:
        kind, carried = _out_of_gre(outcome.frame, tunnels["tx"])
    elif tunnels["rx"] in gateway.ETHERNET:
        kind, carried = FRAME, outcome.frame
    else:
        kind, carried = _out_of_link(outcome.frame)
    if kind in (IPV4, IPV6):
        _check_ip(carried, kind)
    else:
        assert (kind == MPLS and len(carried) >= 4) or (kind == FRAME and len(carried) >= 14)
    assert outcome.tunnels == {
        f"{tunnel} {direction}_{unit}": value
        for direction, tunnel in tunnels.items()
        for unit, value in (("packets", 1), ("bytes", len(carried)))
    }


def _out_of_link(frame: bytes) -> tuple[int, bytes]:
    """The ethertype, and what is behind it and up to two tags."""
    at = 12
    for _ in range(2):
        at += 4 * (frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"))
    return int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :]


def _out_of_gre(frame: bytes, tunnel: str) -> tuple[int, bytes]:
    """What a tunnel's GRE carries, by its protocol; all headers are as the tunnel asks for."""
    end, keys = p.ENDS[tunnel], gateway.ALL_TUNNELS[tunnel]
    kind, packet = _out_of_link(frame)
    assert kind == (IPV6 if end.is_ipv6 else IPV4)
    _check_ip(packet, kind)
    if end.is_ipv6:
        protocol, addresses, gre = packet[6], packet[8:40], packet[40:]
    else:
        assert packet[0] == 0x45
        protocol, addresses, gre = packet[9], packet[12:20], packet[20:]
    assert protocol == repair.GRE
    assert addresses == b"".join(ip_address(each).packed for each in (end.local, end.remote))
    flags = (
        CHECKSUM * ("csum = true" in keys)
        | KEY * (end.okey is not None)
        | SEQUENCE * ("seq = true" in keys)
    )
    assert gre[:2] == bytes([flags, 0])
    at = 4
    if flags & CHECKSUM:
        assert repair.checksum(gre) == b"\xff\xff"
        assert gre[6:8] == b"\0\0"
        at += 4
    if flags & KEY:
        assert gre[at : at + 4] == (end.okey or 0).to_bytes(4, "big")
        at += 4
    at += 4 * bool(flags & SEQUENCE)
    kind = int.from_bytes(gre[2:4], "big")
    assert (kind == FRAME) == (tunnel in gateway.ETHERNET)
    return kind, gre[at:]


def _check_ip(packet: bytes, ethertype: int) -> None:
    if ethertype == IPV6:
        assert packet[0] >> 4 == 6
        assert len(packet) == 40 + int.from_bytes(packet[4:6], "big")
        return
    assert packet[0] >> 4 == 4
    assert len(packet) == int.from_bytes(packet[2:4], "big")
    # A sum that takes in its own checksum has nothing left to complement.
    assert repair.checksum(packet[: 4 * (packet[0] & 15)]) == b"\xff\xff"
