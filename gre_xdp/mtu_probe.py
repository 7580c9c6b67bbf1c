"""Does a tunnel carry IPv6? RFC 7676 section 3.2: ask before it is called up, and again and again.

A packet of 1,280 octets that is addressed to ourselves goes into the tunnel; the remote routes it
back. Hop limit 2 lets it be forwarded once, so that it cannot go round, and No Next Header makes it
nobody's business when it arrives (RFC 8200 section 4.7). By how long a packet still comes back the
size of the way there and back is known.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv6Address

from gre_xdp.model import Tunnel
from gre_xdp.overhead import IPV6_MIN_MTU

INTERVAL_S = 30.0
# What every link must carry (RFC 8200 section 5).
REQUIRED_BYTES = IPV6_MIN_MTU
HOP_LIMIT = 2
_NO_NEXT_HEADER = 59
_HEADER_BYTES = 40
_NONCE_BYTES = 16
_TRIES = 3
_TIMEOUT_S = 0.5
_ETH_P_IPV6 = 0x86DD
_SIOCGIFMTU = 0x8921


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """``largest`` is the longest packet that came back, in bytes; 0: not even 1,280 bytes did."""

    largest: int
    at_s: float  # seconds since the epoch

    @property
    def is_carrying(self) -> bool:
        """Does the tunnel carry what RFC 7676 asks for?"""
        return self.largest >= REQUIRED_BYTES


def address_of(tunnel: Tunnel) -> IPv6Address | None:
    """The tunnel's own address that probes are sent to and from."""
    for address in tunnel.addresses:
        if isinstance(address.ip, IPv6Address) and not address.ip.is_link_local:
            return address.ip
    return None


def probe(device: str, address: IPv6Address) -> ProbeResult:
    """Send probes through a tunnel's device, in the current network namespace.

    Raises ``OSError`` when the device is gone, or takes less than 1,280 bytes.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IPV6)) as raw:
        raw.bind((device, _ETH_P_IPV6))
        low, high = REQUIRED_BYTES, _mtu(raw, device)
        if not _comes_back(raw, device, address, low):
            return ProbeResult(0, time.time())
        if _comes_back(raw, device, address, high):
            return ProbeResult(high, time.time())
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if _comes_back(raw, device, address, middle) else (low, middle)
            )
        return ProbeResult(low, time.time())


def _mtu(raw: socket.socket, device: str) -> int:
    """The device's MTU, in bytes."""
    request = struct.pack("16si12x", device.encode(), 0)
    return int(struct.unpack("16si12x", fcntl.ioctl(raw, _SIOCGIFMTU, request))[1])


def _comes_back(raw: socket.socket, device: str, address: IPv6Address, packet_bytes: int) -> bool:
    return any(_ask(raw, device, address, packet_bytes) for _ in range(_TRIES))


def _ask(raw: socket.socket, device: str, address: IPv6Address, packet_bytes: int) -> bool:
    payload = os.urandom(_NONCE_BYTES).ljust(packet_bytes - _HEADER_BYTES, b"\xa5")
    packet = (
        bytes([0x60, 0, 0, 0])
        + len(payload).to_bytes(2, "big")
        + bytes([_NO_NEXT_HEADER, HOP_LIMIT])
        + 2 * address.packed
        + payload
    )
    raw.sendto(packet, (device, _ETH_P_IPV6, 0, 0, bytes(6)))
    deadline = time.monotonic() + _TIMEOUT_S
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            data, origin = raw.recvfrom(packet_bytes + 1)
        except TimeoutError:
            return False
        is_sent = origin[2] == socket.PACKET_OUTGOING
        if not is_sent and data[_HEADER_BYTES:] == payload:
            return True
    return False
