"""Octets of GRE frames: written with any field wrong, and read without trusting a single one.

Apart from scapy on purpose: thousands of frames, lengths and checksums that contradict each other,
and nothing that is shared with what is tested.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

IPV4, IPV6, MPLS, TEB, ARP, WCCP = 0x0800, 0x86DD, 0x8847, 0x6558, 0x0806, 0x883E
VLAN, SERVICE_VLAN = 0x8100, 0x88A8
GRE, UDP = 47, 17
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION = 0, 43, 44, 59, 60
CHECKSUM, ROUTE, KEY, SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000


# --- written --------------------------------------------------------------------------------------


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@functools.cache
def address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def total(octets: bytes) -> int:
    """The one's-complement sum: 0xffff (or 0, of nothing) over what includes its checksum."""
    padded = octets + b"\0" * (len(octets) % 2)
    added = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while added >> 16:
        added = (added & 0xFFFF) + (added >> 16)
    return added


def checksum(octets: bytes) -> int:
    return 0xFFFF ^ total(octets)


def udp(content: bytes) -> bytes:
    """Without a checksum, which IPv4 permits and no router looks at."""
    return struct.pack("!4H", 53, 4242, 8 + len(content), 0) + content


def ipv4(
    src: str,
    dst: str,
    protocol: int,
    content: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 1,
    fragment: int = 0x4000,
    options: bytes = b"",
    extra_length: int = 0,
    checksum_xor: int = 0,
    version: int = 4,
    words: int | None = None,
) -> bytes:
    """An IPv4 packet; ``fragment`` is flags and offset, ``words`` the header length as told."""
    words = 5 + len(options) // 4 if words is None else words
    header = struct.pack(
        "!BBHHHBBH4s4s",
        version << 4 | words,
        tos,
        (20 + len(options) + len(content) + extra_length) & 0xFFFF,
        ident & 0xFFFF,
        fragment,
        ttl,
        protocol,
        0,
        address(src),
        address(dst),
    )
    header += options
    summed = checksum(header) ^ checksum_xor
    return header[:10] + summed.to_bytes(2, "big") + header[12:] + content


def ipv6(
    src: str,
    dst: str,
    protocol: int,
    content: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    label: int = 0,
    extra_length: int = 0,
    version: int = 6,
) -> bytes:
    first = version << 28 | tos << 20 | label & 0xFFFFF
    length = (len(content) + extra_length) & 0xFFFF
    return (
        struct.pack("!IHBB", first, length, protocol, ttl) + address(src) + address(dst) + content
    )


def gre(
    protocol: int,
    content: bytes,
    *,
    bits: int = 0,
    summed: bool = False,
    checksum_xor: int = 0,
    reserved: int = 0,
    key: int | None = None,
    sequence: int | None = None,
) -> bytes:
    """GRE and its content; ``bits`` are flipped in flags and version, nothing follows from them."""
    flags = CHECKSUM * summed | KEY * (key is not None) | SEQUENCE * (sequence is not None)
    header = struct.pack("!HH", flags ^ bits, protocol)
    if summed:
        header += struct.pack("!HH", 0, reserved)
    if key is not None:
        header += struct.pack("!I", key)
    if sequence is not None:
        header += struct.pack("!I", sequence & 0xFFFFFFFF)
    packet = header + content
    if not summed:
        return packet
    return packet[:4] + (checksum(packet) ^ checksum_xor).to_bytes(2, "big") + packet[6:]


def ethernet(dst: bytes, src: bytes, kind: int, content: bytes, tags: Sequence[int] = ()) -> bytes:
    """A frame; each tag is TPID << 16 | TCI."""
    return dst + src + b"".join(struct.pack("!I", tag) for tag in tags) + _word(kind) + content


def _word(value: int) -> bytes:
    return value.to_bytes(2, "big")


# --- read -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """An IPv4 or IPv6 packet as its octets tell, as far as there are any; no field is believed."""

    raw: bytes

    @property
    def version(self) -> int:
        return self.raw[0] >> 4 if self.raw else 0

    @property
    def header_bytes(self) -> int:
        return 4 * (self.raw[0] & 15) if self.version == 4 else 40

    @property
    def is_headed(self) -> bool:
        """There is a fixed header of version 4 or 6."""
        return len(self.raw) >= {4: 20, 6: 40}.get(self.version, 1 << 20)

    @property
    def length(self) -> int:
        if self.version == 4:
            return int.from_bytes(self.raw[2:4], "big")
        return 40 + int.from_bytes(self.raw[4:6], "big")

    @property
    def is_whole(self) -> bool:
        """What a router must check before it forwards (RFC 1812 section 5.2.2, RFC 8200)."""
        if not self.is_headed or self.length > len(self.raw):
            return False
        if self.version == 6:
            return True
        header = self.header_bytes
        return 20 <= header <= self.length and total(self.raw[:header]) == 0xFFFF

    @property
    def tos(self) -> int:
        return self.raw[1] if self.version == 4 else int.from_bytes(self.raw[:2], "big") >> 4 & 0xFF

    @property
    def ecn(self) -> int:
        return self.tos & 3

    @property
    def ttl(self) -> int:
        return self.raw[8] if self.version == 4 else self.raw[7]

    @property
    def protocol(self) -> int:
        return self.raw[9] if self.version == 4 else self.raw[6]

    @property
    def src(self) -> bytes:
        return self.raw[12:16] if self.version == 4 else self.raw[8:24]

    @property
    def dst(self) -> bytes:
        return self.raw[16:20] if self.version == 4 else self.raw[24:40]

    @property
    def fragment(self) -> int:
        """IPv4's flags and offset."""
        return int.from_bytes(self.raw[6:8], "big") if self.version == 4 else 0

    @property
    def is_fragment(self) -> bool:
        return bool(self.fragment & 0x3FFF) or (
            self.version == 6 and FRAGMENT in self.extension_headers
        )

    @property
    def extension_headers(self) -> list[int]:
        return self._walk()[0]

    @property
    def upper(self) -> int:
        """The protocol behind all extension headers."""
        return self.protocol if self.version == 4 else self._walk()[1]

    @property
    def upper_at(self) -> int:
        return self.header_bytes if self.version == 4 else self._walk()[2]

    def _walk(self) -> tuple[list[int], int, int]:
        found: list[int] = []
        at, kind = 40, self.protocol
        while kind in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION) and at + 8 <= len(self.raw):
            found.append(kind)
            size = 8 if kind == FRAGMENT else 8 * (1 + self.raw[at + 1])
            kind, at = self.raw[at], at + size
        return found, kind, at


@dataclass(frozen=True)
class Frame:
    """An Ethernet frame that may hold GRE, as its octets tell."""

    raw: bytes

    @functools.cached_property
    def tags(self) -> list[int]:
        tags, at = [], 12
        while (
            int.from_bytes(self.raw[at : at + 2], "big") in (VLAN, SERVICE_VLAN) and len(tags) < 3
        ):
            tags.append(int.from_bytes(self.raw[at : at + 4], "big"))
            at += 4
        return tags

    @property
    def ethertype(self) -> int:
        at = 12 + 4 * len(self.tags)
        return int.from_bytes(self.raw[at : at + 2], "big")

    @functools.cached_property
    def outer(self) -> Packet:
        return Packet(self.raw[14 + 4 * len(self.tags) :])

    @functools.cached_property
    def is_gre(self) -> bool:
        """A whole IP packet that says it carries GRE, of which there are at least four octets."""
        outer = self.outer
        return (
            self.ethertype == {4: IPV4, 6: IPV6}.get(outer.version)
            and outer.is_whole
            and outer.upper == GRE
            and len(self.gre) >= 4
        )

    @functools.cached_property
    def gre(self) -> bytes:
        """From the GRE header to the end of the outer packet."""
        return self.outer.raw[self.outer.upper_at : self.outer.length]

    @property
    def flags(self) -> int:
        return int.from_bytes(self.gre[:2], "big")

    @property
    def version(self) -> int:
        return self.flags & 7

    @property
    def protocol(self) -> int:
        return int.from_bytes(self.gre[2:4], "big")

    @property
    def gre_header_bytes(self) -> int:
        return 4 + 4 * sum(bool(self.flags & bit) for bit in (CHECKSUM, KEY, SEQUENCE))

    @property
    def has_gre_header(self) -> bool:
        return self.is_gre and len(self.gre) >= self.gre_header_bytes

    @property
    def is_sum_right(self) -> bool:
        return total(self.gre) == 0xFFFF

    @property
    def key(self) -> int | None:
        if not self.flags & KEY:
            return None
        at = 4 + 4 * bool(self.flags & CHECKSUM)
        return int.from_bytes(self.gre[at : at + 4], "big")

    @property
    def sequence(self) -> int | None:
        if not self.flags & SEQUENCE:
            return None
        at = self.gre_header_bytes - 4
        return int.from_bytes(self.gre[at : at + 4], "big")

    @functools.cached_property
    def carried(self) -> bytes:
        return self.gre[self.gre_header_bytes :]

    @functools.cached_property
    def inner(self) -> Packet:
        """The carried packet, or the one in the carried frame (behind its tags)."""
        if self.protocol == TEB:
            return Frame(self.carried).outer
        return Packet(self.carried)
