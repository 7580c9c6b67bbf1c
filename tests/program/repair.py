"""Making the lengths and checksums of a frame right again: most mutations end there otherwise."""

from __future__ import annotations

GRE = 47
# Extension headers of eight octets that GRE may stand behind: RFC 2473's, and RFC 8200's fragment.
_EXTENSIONS = (60, 44)
_TAGS = (b"\x81\x00", b"\x88\xa8")
_FRAME, _MPLS = b"\x65\x58", b"\x88\x47"
_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
# What the four upper bits of a GRE header say: bytes of the checksum, the key and the number.
_WORD_BYTES = [4 * (bits >> 3) + 4 * (bits >> 1 & 1) + 4 * (bits & 1) for bits in range(16)]


def repaired(frame: bytes | bytearray) -> bytearray:
    """The frame with right ethertypes, lengths and checksums: outer IP, GRE and inner IP."""
    raw = bytearray(frame)
    gre_at = _repair_frame(raw, 0)
    if gre_at:
        _repair_gre(raw, gre_at)
    return raw


def find_sequence(frame: bytes) -> int:
    """Where the sequence number of GRE is in a whole frame; 0 where there is none."""
    at = _repair_frame(bytearray(frame), 0)
    if not at or not frame[at] & 0x10:
        return 0
    return at + _WORD_BYTES[frame[at] >> 4]


def checksum(octets: bytes | bytearray) -> bytes:
    """RFC 1071: 2^16 is 1 in this arithmetic, so the number that the octets are will do."""
    total = int.from_bytes(octets, "big") << 8 * (len(octets) % 2)
    return (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


def _repair_frame(raw: bytearray, at: int) -> int:
    """What is behind the MAC header here; returns where GRE begins, 0 where there is none."""
    at += 12
    for _ in range(2):
        if raw[at : at + 2] in _TAGS:
            at += 4
    if at + 2 >= len(raw) or raw[at : at + 2] == _MPLS:
        return 0
    raw[at : at + 2] = _ETHERTYPES.get(raw[at + 2] >> 4, raw[at : at + 2])
    return _repair_ip(raw, at + 2)


def _repair_ip(raw: bytearray, at: int) -> int:
    """The IP header here; returns where GRE begins behind it, 0 where there is none."""
    left = len(raw) - at
    version = raw[at] >> 4 if left > 0 else 0
    if version == 4:
        end = at + 4 * (raw[at] & 15)
        if not at + 20 <= end <= len(raw):
            return 0
        raw[at + 2 : at + 4] = left.to_bytes(2, "big")
        raw[at + 10 : at + 12] = b"\0\0"
        raw[at + 10 : at + 12] = checksum(raw[at:end])
        protocol = raw[at + 9]
    elif version == 6 and left >= 40:
        end = at + 40
        raw[at + 4 : at + 6] = (left - 40).to_bytes(2, "big")
        protocol = raw[at + 6]
        if protocol in _EXTENSIONS and left >= 48:
            protocol = raw[end]
            end += 8
    else:
        return 0
    return end if protocol == GRE and end + 4 <= len(raw) else 0


def _repair_gre(raw: bytearray, at: int) -> None:
    """The whole GRE header here, and what it carries."""
    carried_at = at + 4 + _WORD_BYTES[raw[at] >> 4]
    protocol = raw[at + 2 : at + 4]
    if protocol == _FRAME:
        _repair_frame(raw, carried_at)
    elif protocol != _MPLS:
        _repair_ip(raw, carried_at)
    if raw[at] & 0x80 and at + 8 <= len(raw):
        raw[at + 4 : at + 6] = b"\0\0"
        raw[at + 4 : at + 6] = checksum(raw[at:])
