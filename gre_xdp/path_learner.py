"""Learning how narrow the way to a remote is, from what routers of the underlay say to us.

Two raw sockets hear the kernel's copies of ICMP messages, whether or not this kernel has a GRE
driver. A report is believed when it quotes a packet that a tunnel of ours could have sent; it is
soft state, and bounded below, so that a forged one does little and not for long.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address

from gre_xdp import errors, icmp, overhead
from gre_xdp.icmp import TooBig
from gre_xdp.model import Tunnel
from gre_xdp.values import IPAddress

# RFC 1191 section 6.3, RFC 8201 section 4: after ten minutes a wider path is tried again.
LIFETIME_S = 600.0
# As net.ipv4.route.min_pmtu, and RFC 8200 section 5.
FLOOR = {4: 552, 6: overhead.IPV6_MIN_MTU}
_REPORT_BYTES = 2048
# <linux/icmp.h>, <linux/icmpv6.h>: a set bit blocks that type.
_SOL_RAW, _ICMP_FILTER, _ICMP_DEST_UNREACH = 255, 1, 3
_ICMPV6_FILTER, _ICMPV6_PACKET_TOO_BIG = 1, 2
# How many senders are told per second; the routers' own messages are limited as well.
_RELAYED_PER_S = 100
# Not more often than so is the same thing noted, to be believed for longer.
_TOLD_AGAIN_S = 0.1

_log = logging.getLogger("gre_xdp.path_learner")


def open_sockets() -> dict[int, socket.socket]:
    """Non-blocking raw sockets by IP version that hear of packets that were too big.

    Raises ``PrivilegeError``.
    """
    found: dict[int, socket.socket] = {}
    try:
        ipv4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError as error:
        raise errors.PrivilegeError(
            f"hearing what routers say of paths (a raw ICMP socket): {error.strerror}",
            remedy="run it as root, with the capability CAP_NET_RAW",
        ) from error
    ipv4.setsockopt(
        _SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _ICMP_DEST_UNREACH) & 2**32 - 1)
    )
    found[4] = ipv4
    # Without IPv6 in the kernel there is nothing to hear.
    with contextlib.suppress(OSError):
        ipv6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [2**32 - 1] * 8
        blocked[0] &= ~(1 << _ICMPV6_PACKET_TOO_BIG)
        ipv6.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *blocked))
        found[6] = ipv6
    for each in found.values():
        each.setblocking(False)
    return found


class PathLearner:
    """Hears reports, tells what to believe, and passes it on to the senders of inner packets.

    ``believe`` is called with local, remote, MTU in bytes and the end of belief (seconds since the
    epoch).
    """

    def __init__(self, believe: Callable[[IPAddress, IPAddress, int, float], None]) -> None:
        self._believe = believe
        self._sockets = open_sockets()
        self._tunnels: Sequence[Tunnel] = ()
        self._told: dict[tuple[IPAddress, IPAddress], tuple[int, float]] = {}
        self._relayed = 0
        self._second = 0

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets.values():
            each.close()

    @property
    def sockets(self) -> dict[int, socket.socket]:
        """What to wait for, by IP version."""
        return self._sockets

    def follow(self, tunnels: Sequence[Tunnel]) -> None:
        """Believe reports about these tunnels only."""
        self._tunnels = tunnels

    def hear(self, version: int) -> None:
        """Read what has arrived on one of the sockets."""
        while True:
            try:
                data = self._sockets[version].recv(_REPORT_BYTES)
            except OSError:
                return
            # Raw IPv4 sockets give the IP header as well.
            message = data[(data[0] & 15) * 4 :] if version == 4 and data else data
            report = icmp.parse_too_big(version, message)
            if report is not None:
                self._take(report)

    def _take(self, report: TooBig) -> None:
        tunnels = [tunnel for tunnel in self._tunnels if is_about(report, tunnel)]
        if not tunnels:
            return
        mtu = max(report.mtu, FLOOR[report.remote.version])
        now = time.monotonic()
        ends = (report.local, report.remote)
        told_mtu, told_at = self._told.get(ends, (0, 0.0))
        # Routers say it once for each of many packets.
        if told_mtu != mtu or now - told_at > _TOLD_AGAIN_S:
            self._told[ends] = (mtu, now)
            _log.info("the path %s - %s takes %d bytes", report.local, report.remote, mtu)
            self._believe(report.local, report.remote, mtu, time.time() + LIFETIME_S)
        self._relay(report, overhead.tunnel_mtu(mtu, tunnels[0]))

    def _relay(self, report: TooBig, mtu: int) -> None:
        """Tell the sender of the inner packet: routes of others do not know of the narrow path."""
        answer = icmp.too_big_for_sender(report, mtu)
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._relayed = second, 0
        if answer is None or self._relayed >= _RELAYED_PER_S:
            return
        self._relayed += 1
        sender, message = answer
        version = 6 if isinstance(sender, IPv6Address) else 4
        with contextlib.suppress(OSError, KeyError):
            self._sockets[version].sendto(message, (str(sender), 0))


def is_about(report: TooBig, tunnel: Tunnel) -> bool:
    """Could the tunnel have sent the packet that a report quotes?"""
    is_keyed = tunnel.okey is not None
    return (
        (report.local, report.remote) == (tunnel.local, tunnel.remote)
        and report.has_key == is_keyed
        and report.key in (None, tunnel.okey)
    )
