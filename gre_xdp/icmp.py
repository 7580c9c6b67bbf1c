"""What routers of the underlay say about our outer packets, and saying it on to inner senders.

Bytes of ICMP messages in, facts out, and the other way round; sockets are the agent's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from gre_xdp.values import IPAddress

PROTOCOL = {4: 1, 6: 58}
_GRE = 47
_DF, _OFFSET = 0x4000, 0x1FFF
_FRAG_NEEDED = (3, 4)  # RFC 792: destination unreachable, fragmentation needed and DF set
_PACKET_TOO_BIG = 2  # RFC 4443 section 3.2
_IPV4, _IPV6 = 0x0800, 0x86DD
_IPV4_PLAIN = 0x45  # version 4 and five words of header
_BROADCAST = IPv4Address("255.255.255.255")
# RFC 1191 section 7: what to believe of a router that does not say which size would pass.
_PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)


@dataclass(frozen=True, slots=True)
class TooBig:
    """A router's report that an outer packet was too long for its next hop."""

    local: IPAddress
    remote: IPAddress
    mtu: int  # of that hop, in bytes
    has_key: bool
    key: int | None  # as far as the quote goes; None with ``has_key``: it ends before
    protocol: int  # of what GRE carried
    inner: bytes  # what is quoted of that


def parse_too_big(version: int, message: bytes) -> TooBig | None:
    """Read an ICMP or ICMPv6 message; None when it is another one, or quotes no GRE of version 0.

    The quote holds at least 64 bits of what follows the outer header (RFC 792, RFC 1191).
    """
    if len(message) < 8:
        return None
    kind, code = message[0], message[1]
    quote = message[8:]
    if version == 4:
        # Raw IPv4 sockets hear messages before the kernel has checked them.
        if (kind, code) != _FRAG_NEEDED or checksum(message) != b"\0\0":
            return None
        return _of_ipv4(int.from_bytes(message[6:8], "big"), quote)
    if kind != _PACKET_TOO_BIG:
        return None
    return _of_ipv6(int.from_bytes(message[4:8], "big"), quote)


def _of_ipv4(mtu: int, quote: bytes) -> TooBig | None:
    # We send no options.
    if len(quote) < 20 or quote[0] != _IPV4_PLAIN or quote[9] != _GRE:
        return None
    length, fragment = struct.unpack("!H2xH", quote[2:8])
    if not fragment & _DF or fragment & _OFFSET:
        return None
    if mtu == 0:
        mtu = next((size for size in _PLATEAUS if size < length), 68)
    if length <= mtu:
        return None
    return _of_gre(IPv4Address(quote[12:16]), IPv4Address(quote[16:20]), mtu, quote[20:])


def _of_ipv6(mtu: int, quote: bytes) -> TooBig | None:
    # We send no extension headers.
    if len(quote) < 40 or quote[0] >> 4 != 6 or quote[6] != _GRE:
        return None
    if 40 + int.from_bytes(quote[4:6], "big") <= mtu:
        return None
    return _of_gre(IPv6Address(quote[8:24]), IPv6Address(quote[24:40]), mtu, quote[40:])


def _of_gre(local: IPAddress, remote: IPAddress, mtu: int, gre: bytes) -> TooBig | None:
    if len(gre) < 4 or gre[1] & 7:
        return None
    has_checksum, has_key, has_sequence = (bool(gre[0] & bit) for bit in (0x80, 0x20, 0x10))
    at = 4 + 4 * has_checksum
    key = int.from_bytes(gre[at : at + 4], "big") if has_key and len(gre) >= at + 4 else None
    at += 4 * (has_key + has_sequence)
    protocol = int.from_bytes(gre[2:4], "big")
    return TooBig(local, remote, mtu, has_key, key, protocol, gre[at:])


def too_big_for_sender(report: TooBig, mtu: int) -> tuple[IPAddress, bytes] | None:
    """The message that tells the inner sender, and its address; None where none may be sent.

    ``mtu`` is what the tunnel carries, in bytes. Nothing is said about ICMP errors, later
    fragments, or packets to or from several hosts (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    An IPv6 checksum is left to the socket.
    """
    inner = report.inner
    header_bytes = (inner[0] & 15) * 4 if inner else 0
    is_ipv4 = len(inner) >= header_bytes + 8 and header_bytes >= 20 and inner[0] >> 4 == 4
    if report.protocol == _IPV4 and is_ipv4:
        fragment = int.from_bytes(inner[6:8], "big")
        ends = ip_address(inner[12:16]), ip_address(inner[16:20])
        is_error = inner[9] == PROTOCOL[4] and inner[header_bytes] not in (0, 8)
        if not fragment & _DF or fragment & _OFFSET or is_error:
            return None
        header = struct.pack("!BBHHH", *_FRAG_NEEDED, 0, 0, mtu)
        message = header + inner[: header_bytes + 8]
        message = message[:2] + checksum(message) + message[4:]
    elif report.protocol == _IPV6 and len(inner) >= 48 and inner[0] >> 4 == 6:
        ends = ip_address(inner[8:24]), ip_address(inner[24:40])
        if inner[6] == PROTOCOL[6] and inner[40] < 128:
            return None
        message = struct.pack("!BBHI", _PACKET_TOO_BIG, 0, 0, mtu) + inner[:1232]
    else:
        return None
    if any(map(_is_of_several, ends)):
        return None
    return ends[0], message


def _is_of_several(address: IPAddress) -> bool:
    is_one = not (address.is_multicast or address.is_unspecified or address.is_loopback)
    return not is_one or address == _BROADCAST


def checksum(message: bytes) -> bytes:
    """The Internet checksum (RFC 1071), of an ICMP message whose own field is zero."""
    padded = message + b"\0" * (len(message) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
