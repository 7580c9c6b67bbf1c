"""Traffic of which every packet is accounted for, between two hosts of a network of namespaces.

A source (``source.py``) sends numbered UDP packets; an XDP program on the destination's interface
counts how often each number arrives. Both programs are in ``traffic.c``.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cache, partial
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from gre_xdp import bpf
from gre_xdp.lab.topology import Namespace
from gre_xdp.netlink import Netlink
from gre_xdp.netlink.links import Link, list_links
from netns_helpers import wait_until
from traffic.source import Order, Report

HERE = Path(__file__).parent
RATE = 50_000
_FRAME_BYTES = 64
_MAGIC = 0x67726578
_PACKETS_MAX = 1 << 24
_LOOPBACK = 1
_MMAPABLE = 1 << 10
_ARRIVAL_TIMEOUT_S = 2.0


class MapIndex(IntEnum):
    """Of ``enum map_index`` in traffic.c."""

    SOURCE = 0
    SINK = 1
    ARRIVALS = 2


_MAPS = {
    MapIndex.SOURCE: bpf.MapSpec("source", bpf.MAP_TYPE_ARRAY, 4, 72, 1, _MMAPABLE),
    MapIndex.SINK: bpf.MapSpec("sink", bpf.MAP_TYPE_ARRAY, 4, 16, 1, _MMAPABLE),
    MapIndex.ARRIVALS: bpf.MapSpec(
        "arrivals", bpf.MAP_TYPE_ARRAY, 4, mmap.PAGESIZE, _PACKETS_MAX // mmap.PAGESIZE, _MMAPABLE
    ),
}


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the packets of one flow."""

    sent: int
    lost: int
    duplicated: int
    late: int  # arrived after one that was sent later
    seconds: float
    longest_silence_s: float


@dataclass(frozen=True, slots=True)
class Host:
    """One end: a namespace, its interface, and its address."""

    namespace: Namespace
    interface: str
    address: str

    def link(self) -> Link:
        """The interface as it is now."""

        def read() -> Link:
            with Netlink() as netlink:
                return list_links(netlink)[self.interface]

        return self.namespace.call(read)


@cache
def _bytecode() -> dict[str, bytes]:
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "compile.py")],
        input=json.dumps({"flags": [], "source": None}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    programs = json.loads(done.stdout)["programs"]
    return {name: base64.b64decode(code) for name, code in programs.items()}


class Flow:
    """Packets from one host to another, from ``start`` to ``stop``."""

    def __init__(self, source: Host, sink: Host, gateway_mac: str, rate: int = RATE) -> None:
        self._fds = [bpf.map_create(_MAPS[index]) for index in MapIndex]
        frame = Ether(src=source.link().mac, dst=gateway_mac) / IP(
            src=source.address, dst=sink.address, ttl=64
        )
        frame /= UDP(sport=9, dport=9, chksum=0) / bytes(_FRAME_BYTES - 42)
        content = bytearray(bytes(frame))
        content[42:46] = _MAGIC.to_bytes(4, sys.byteorder)
        bpf.map_update(self._fds[MapIndex.SOURCE], bytes(4), bytes(8) + bytes(content))
        names = ("traffic_source", "traffic_sink")
        self._fds += [bpf.prog_load(name, _bytecode()[name], self._fds[:3]) for name in names]
        self._program, sink_program = self._fds[-2:]
        attach = partial(bpf.link_create, sink_program, sink.link().index, bpf.XDP_FLAGS_NATIVE)
        self._fds.append(sink.namespace.call(attach))
        # A program that is attached nowhere enters the kernel's XDP dispatcher with each
        # BPF_PROG_RUN, and waits tens of milliseconds for that. Nothing comes by this one.
        attach = partial(bpf.link_create, self._program, _LOOPBACK, bpf.XDP_FLAGS_SKB)
        self._fds.append(source.namespace.call(attach))
        self._order = Order(
            self._program,
            self._fds[MapIndex.SOURCE],
            self._fds[MapIndex.SINK],
            source.link().index,
            rate,
        )
        self._from = source.namespace
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to send; returns when the first packets have arrived."""
        order = json.dumps(asdict(self._order))
        self._process = subprocess.Popen(
            self._from.command([sys.executable, str(HERE / "source.py"), order]),
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(self._order.program, self._order.source_map, self._order.sink_map),
        )
        assert wait_until(lambda: self.arrived() > 0, 20), "no packet arrives"

    def arrived(self) -> int:
        """How far the numbers are that have arrived."""
        value = bpf.map_lookup(self._fds[MapIndex.SINK], bytes(4), 16)
        assert value is not None
        return int.from_bytes(value[:8], sys.byteorder)

    def stop(self) -> Account:
        """End, wait for what is on its way, and count."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=30)
        assert self._process.returncode == 0
        self._process = None
        report = Report(**json.loads(output))
        wait_until(lambda: self.arrived() == report.sent, _ARRIVAL_TIMEOUT_S)
        with mmap.mmap(self._fds[MapIndex.ARRIVALS], _PACKETS_MAX, prot=mmap.PROT_READ) as arrivals:
            counts = arrivals[: report.sent]
        sink = bpf.map_lookup(self._fds[MapIndex.SINK], bytes(4), 16)
        assert sink is not None
        return Account(
            sent=report.sent,
            lost=counts.count(0),
            duplicated=len(counts) - counts.count(0) - counts.count(1),
            late=int.from_bytes(sink[8:], sys.byteorder),
            seconds=report.seconds,
            longest_silence_s=report.longest_silence_s,
        )

    def close(self) -> None:
        """Detach the sink; a source that still runs is ended."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        while self._fds:
            os.close(self._fds.pop())
