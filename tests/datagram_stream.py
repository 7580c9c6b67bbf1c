"""A steady stream of numbered datagrams between two namespaces, and their echo: who is missing?"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gre_xdp.lab.topology import Namespace

_NUMBER = struct.Struct("!I")
_BUFFER_BYTES = 1 << 20
_QUIET_S = 1.0


@dataclass
class Stream:
    """Numbers of datagrams: sent, arrived at the other end, and come back. Right after its end."""

    sent: int = 0
    arrived: int = 0
    returned: int = 0


@contextmanager
def stream(source: Namespace, sink: Namespace, address: str, per_second: int) -> Iterator[Stream]:
    """Send for as long as the block lasts, from a process of its own; IPv4."""
    sender, echo = source.call(_socket), sink.call(_socket)
    echo.bind((address, 0))
    found = Stream()
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if not pid:
        try:
            theirs.send(_run(sender, echo, theirs.fileno(), 1 / per_second))
        finally:
            os._exit(0)
    sender.close()
    echo.close()
    theirs.close()
    try:
        yield found
    finally:
        ours.send("end")
        found.sent, found.arrived, found.returned = ours.recv()
        os.waitpid(pid, 0)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    return made


def _run(
    sender: socket.socket, echo: socket.socket, control: int, interval_s: float
) -> tuple[int, int, int]:
    to = echo.getsockname()
    sent = 0
    arrived: set[bytes] = set()
    returned: set[bytes] = set()
    next_s = time.monotonic()
    until_s = None
    while until_s is None or (len(returned) < sent and time.monotonic() < until_s):
        wait_s = max(0.0, next_s - time.monotonic()) if until_s is None else _QUIET_S
        ready, _, _ = select.select([sender, echo, *([] if until_s else [control])], [], [], wait_s)
        if control in ready:
            until_s = time.monotonic() + _QUIET_S
        if echo in ready:
            datagram, back = echo.recvfrom(_NUMBER.size)
            arrived.add(datagram)
            echo.sendto(datagram, back)
        if sender in ready:
            returned.add(sender.recv(_NUMBER.size))
        if until_s is None and time.monotonic() >= next_s:
            sender.sendto(_NUMBER.pack(sent), to)
            sent += 1
            next_s += interval_s
    return sent, len(arrived), len(returned)
