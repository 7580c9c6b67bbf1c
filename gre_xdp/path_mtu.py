"""Measuring how long a packet a path takes, by echo requests that nobody may fragment.

Only what comes back counts: a path whose routers keep silent about packets that are too long is
measured just as well.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address

from gre_xdp import errors, icmp
from gre_xdp.overhead import IPV6_MIN_MTU

_HEADER_BYTES = {4: 28, 6: 48}  # IP and ICMP echo
_SMALLEST = {4: 68, 6: IPV6_MIN_MTU}
_LARGEST = 65535
_TRIES = 2
# <linux/in.h>, <linux/in6.h>: set DF, and mind no path MTU that the kernel believes in.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
_ECHO = {4: (8, 0), 6: (128, 129)}  # types of request and reply


def measure(remote: IPv4Address | IPv6Address, *, timeout_s: float = 1.0) -> int:
    """Bytes of the longest IP packet that reaches ``remote`` and comes back, unfragmented.

    Raises ``PrivilegeError``, or ``HostError`` when it does not even answer the smallest one.
    ``timeout_s`` is how long one answer may take.
    """
    with _Prober(remote, timeout_s) as prober:
        low, high = _SMALLEST[remote.version], _LARGEST
        if not prober.passes(low):
            raise errors.HostError(
                f"{remote} does not answer an echo request of {low} bytes",
                remedy="check that it is up and that ICMP echo is let through to it and back",
            )
        # Most paths are Ethernet's: try that first, and one byte more.
        for guess in (1500, 1501):
            if low < guess < high:
                low, high = (guess, high) if prober.passes(guess) else (low, guess)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if prober.passes(middle) else (low, middle)
        return low


class _Prober:
    """A raw ICMP socket that sends echo requests to one address."""

    def __init__(self, remote: IPv4Address | IPv6Address, timeout_s: float) -> None:
        self._remote = remote
        self._timeout_s = timeout_s
        self._number = 0
        self._token = os.urandom(4)
        is_ipv4 = remote.version == 4
        try:
            if is_ipv4:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            else:
                self._socket = socket.socket(
                    socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
                )
        except PermissionError as error:
            raise errors.PrivilegeError(
                "measuring a path sends ICMP by a raw socket", remedy="run it as root"
            ) from error
        if is_ipv4:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)

    def __enter__(self) -> _Prober:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def passes(self, packet_bytes: int) -> bool:
        """Does a packet of this size get there and back?"""
        return any(self._ask(packet_bytes) for _ in range(_TRIES))

    def _ask(self, packet_bytes: int) -> bool:
        version = self._remote.version
        request, reply = _ECHO[version]
        self._number = (self._number + 1) & 0xFFFF
        payload = self._token.ljust(packet_bytes - _HEADER_BYTES[version], b"\xa5")
        identity = struct.pack("!HH", os.getpid() & 0xFFFF, self._number)
        message = bytes([request, 0, 0, 0]) + identity + payload
        if version == 4:
            message = message[:2] + icmp.checksum(message) + message[4:]
        try:
            self._socket.sendto(message, (str(self._remote), 0))
        except OSError:
            # Longer than the first link takes (EMSGSIZE), or no way there.
            return False
        deadline = time.monotonic() + self._timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_LARGEST)
            except TimeoutError:
                return False
            # Raw IPv4 sockets give the IP header as well.
            answer = data[(data[0] & 15) * 4 :] if version == 4 else data
            if answer[:1] == bytes([reply]) and answer[4:] == identity + payload:
                return True
        return False
