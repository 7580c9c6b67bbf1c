"""What changes in the network: one netlink subscription, reduced to "look again"."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from gre_xdp.netlink import family
from gre_xdp.netlink.interest import Interest
from gre_xdp.netlink.neighbours import NTF_EXT_LEARNED, NUD_FAILED
from gre_xdp.netlink.routes import Address

# What the kernel may have to tell while we are busy, in bytes: some ten thousand changes.
RECEIVE_BUFFER_BYTES = 8 << 20

_SO_RCVBUFFORCE = 33
_DATAGRAM_BYTES = 64 << 10
# The loop has other things to do, too: the rest is read in its next round.
_DATAGRAMS_AT_ONCE = 64

# RTNLGRP_…: links, neighbours, addresses, routes, rules, settings (forwarding), next hop objects.
_GROUPS = (1, 3, 5, 9, 7, 11, 8, 19, 24, 25, 32)
_NLMSG_MIN_TYPE = 16
_RTM_F_CLONED = 0x200
_FAMILIES = (family(4), family(6))

_log = logging.getLogger("gre_xdp.monitor")


class Monitor:
    """A subscription, from its creation to ``close``; call ``read`` whenever it is readable.

    Only what concerns ``interest`` is a change: a routing daemon that fills its table sends
    hundreds of thousands of messages.
    ``on_change`` is called for what does, ``on_failed`` with next hops that no longer answer.
    """

    def __init__(
        self,
        on_change: Callable[[str], None],
        on_failed: Callable[[int, Address], None],
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self._on_change = on_change
        self._on_failed = on_failed
        self.interest = Interest()
        self.next_hops: frozenset[tuple[int, Address]] = frozenset()
        self.overruns = 0
        self._marshal = MarshalRtnl()
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        size = RECEIVE_BUFFER_BYTES if receive_buffer_bytes is None else receive_buffer_bytes
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        self._socket.bind((0, sum(1 << group - 1 for group in _GROUPS)))

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

    def read(self) -> None:
        """Take in what waits; that messages were lost is counted, and a change like another.

        The subscription goes on meanwhile: what happens after a loss is heard, what happened before
        it is seen by looking.
        """
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data = self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                self._on_change("lost")
                continue
            # What cannot be understood is a reason to look.
            try:
                self._take(data)
            except (struct.error, ValueError):
                self._on_change("unreadable")

    def _take(self, data: bytes) -> None:
        for message in self._marshal.parse(data):
            kind = message["header"]["type"]
            if kind in (RTM_NEWROUTE, RTM_DELROUTE):
                if self._is_of_interest(message):
                    self._on_change(_name(kind))
            elif kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
                self._judge_neighbour(kind, message)
            elif kind >= _NLMSG_MIN_TYPE:
                self._on_change(_name(kind))

    def _is_of_interest(self, message: Any) -> bool:
        if message["flags"] & _RTM_F_CLONED or message["family"] not in _FAMILIES:
            return False
        destination = message.get_attr("RTA_DST")
        # The kernel leaves out an address of zeros.
        return destination is None or self.interest.has_route(
            message["proto"], ipaddress.ip_address(destination).packed, message["dst_len"]
        )

    def _judge_neighbour(self, kind: int, message: Any) -> None:
        """Of neighbours only next hops matter, and only that they are lost or somebody else's."""
        is_failed = bool(message["state"] & NUD_FAILED)
        is_taken = kind == RTM_DELNEIGH or not message["flags"] & NTF_EXT_LEARNED
        destination = message.get_attr("NDA_DST") if is_failed or is_taken else None
        if destination is None:
            return
        with contextlib.suppress(ValueError):
            hop = (message["ifindex"], ipaddress.ip_address(destination))
            if hop not in self.next_hops:
                return
            if is_taken:
                self._on_change(_name(kind))
            else:
                self._on_failed(*hop)


def _name(kind: int) -> str:
    """The name of a message's type; one that pyroute2 does not know stays a number."""
    return str(rtnl.RTM_VALUES.get(kind, kind))
