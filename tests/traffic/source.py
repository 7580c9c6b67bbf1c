"""Sends numbered frames at a steady rate, in a process of its own: ``python source.py JSON``.

Frames are sent by BPF_PROG_RUN in live mode, in bursts, at the times of a schedule: what is late is
made up for. At most a window of frames is on its way, as the sink has said, so that no queue on the
way can overflow: a machine that is too busy slows the source down and loses nothing. When nothing
arrives for a time that no queue explains, the way is cut, and frames go out as scheduled.
"""

from __future__ import annotations

import ctypes as ct
import errno
import json
import mmap
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass

from gre_xdp import bpf

_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_FRAME_BYTES = 64
_BURST = 32
# A veth queues 256 frames: half of that is never too much, whoever else sends.
_WINDOW = 128
# Longer than a busy machine leaves a queue alone.
_CUT_AFTER_S = 0.03
# What is late by more than this is not made up for.
_LATE_MAX_S = 2.0
_NAP_S = 0.0002


@dataclass(frozen=True, slots=True)
class Order:
    """What to send: descriptors, the interface that sends, and frames a second."""

    program: int
    source_map: int
    sink_map: int
    ifindex: int
    rate: int


@dataclass(slots=True)
class Report:
    """What was sent; the longest time for which frames were on their way and none arrived."""

    sent: int = 0
    seconds: float = 0.0
    longest_silence_s: float = 0.0


class _Source:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._sink = mmap.mmap(order.sink_map, mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._counter = mmap.mmap(order.source_map, mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._frame = ct.create_string_buffer(_FRAME_BYTES)
        self._context = bpf._XdpMd(data_end=_FRAME_BYTES, ingress_ifindex=order.ifindex)
        self.report = Report()
        self._arrived = 0
        self._progress_at = 0.0

    def run(self, is_over: list[bool]) -> None:
        """Send until told to end."""
        order, report = self._order, self.report
        started = origin = time.monotonic()
        while not is_over:
            now = time.monotonic()
            origin = max(origin, now - _LATE_MAX_S - report.sent / order.rate)
            due = int((now - origin) * order.rate) - report.sent
            if due < _BURST:
                time.sleep((_BURST - due) / order.rate)
            elif self._has_room(now):
                self._send(_BURST)
            else:
                time.sleep(_NAP_S)
        report.seconds = time.monotonic() - started

    def _has_room(self, now: float) -> bool:
        arrived = int.from_bytes(self._sink[:8], sys.byteorder)
        if arrived != self._arrived or arrived == self.report.sent:
            self._arrived, self._progress_at = arrived, now
        silence = now - self._progress_at
        self.report.longest_silence_s = max(self.report.longest_silence_s, silence)
        return self.report.sent + _BURST - arrived <= _WINDOW or silence > _CUT_AFTER_S

    def _send(self, count: int) -> None:
        options = bpf._TestRunOpts(
            sz=ct.sizeof(bpf._TestRunOpts),
            data_in=ct.cast(self._frame, ct.c_void_p),
            data_size_in=_FRAME_BYTES,
            ctx_in=ct.cast(ct.byref(self._context), ct.c_void_p),
            ctx_size_in=ct.sizeof(self._context),
            repeat=count,
            batch_size=count,
            flags=_LIVE_FRAMES,
        )
        done = bpf._libbpf().bpf_prog_test_run_opts(self._order.program, ct.byref(options))
        # The program itself counts: a run that a signal has cut short has sent less.
        self.report.sent = int.from_bytes(self._counter[:8], sys.byteorder)
        if done not in (0, -errno.EINTR):
            raise OSError(-done, f"sending: {os.strerror(-done)}")


def main() -> None:
    """Send until SIGTERM, then say in JSON what was sent."""
    is_over: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    source = _Source(Order(**json.loads(sys.argv[1])))
    source.run(is_over)
    sys.stdout.write(json.dumps(asdict(source.report)))


if __name__ == "__main__":
    main()
