"""Runs the loaded programs over single frames and says what became of each, counters included."""

from __future__ import annotations

import ctypes as ct
import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from scapy.packet import Packet

import packets as p
from gre_xdp import abi, bpf, reasons
from gre_xdp.datapath import DataPath
from gre_xdp.resources import Program

UNRELATED = "unrelated"
_NAMES = (
    {reasons.UNRELATED_CODE: UNRELATED}
    | {reason.code: f"{reason.verdict.value} {reason.name}" for reason in reasons.REASONS}
    | reasons.FORWARDED
)
# With the frame's own bookkeeping (struct xdp_frame) this leaves less than an outer header.
_METADATA_BYTES = 216
# More than the headers of a tunnel are together.
_GROWTH_BYTES = 256
_TUNNEL_COUNTERS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")


@dataclass(frozen=True)
class Outcome:
    """A verdict, the frame that is left (none of a dropped one), and every counter that moved.

    ``reasons`` by "drop NAME", "pass NAME", "unrelated", "decap", "encap" or "relay"; ``tunnels``
    by "NAME rx_packets" etc.
    """

    verdict: str
    frame: bytes = b""
    reasons: Mapping[str, int] = field(default_factory=dict)
    tunnels: Mapping[str, int] = field(default_factory=dict)


def unrelated(frame: Packet | bytes) -> Outcome:
    """Passed as it came, and counted as nobody's business."""
    return Outcome("pass", bytes(frame), {UNRELATED: 1})


def passed(frame: Packet | bytes, reason: str) -> Outcome:
    """Handed to the kernel as it came."""
    return Outcome("pass", bytes(frame), {f"pass {reason}": 1})


def dropped(reason: str) -> Outcome:
    """Dropped, and counted nowhere else."""
    return Outcome("drop", b"", {f"drop {reason}": 1})


def decapsulated(
    tunnel: str, frame: Packet | bytes, reason: str | None = None, carried: int | None = None
) -> Outcome:
    """Out of a tunnel: to a port, or for a pass reason to the tunnel's own device.

    ``carried`` are the bytes that count, where they are not all behind an Ethernet header.
    """
    moved = _moved(tunnel, "rx", len(frame) - 14 if carried is None else carried)
    return Outcome("redirect", bytes(frame), {f"pass {reason}" if reason else "decap": 1}, moved)


def to_port(tunnel: str, inner: Packet) -> Outcome:
    """Out of a tunnel and to a host of the LAN."""
    return decapsulated(tunnel, p.out_of_lan(p.spent(inner)))


def to_device(bench: Bench, tunnel: str, carried: Packet | bytes, reason: str) -> Outcome:
    """Onto the tunnel's device, for the kernel: a frame as it is, anything else in one."""
    is_frame = p.ethertype(carried) == 0x6558
    frame = carried if is_frame else p.onto_device(carried, bench.mac(tunnel))
    return decapsulated(tunnel, frame, reason, len(carried))


def encapsulated(tunnel: str, frame: Packet | bytes, inner: Packet | bytes) -> Outcome:
    """Into a tunnel."""
    return Outcome("redirect", bytes(frame), {"encap": 1}, _moved(tunnel, "tx", len(inner)))


def relayed(came: str, left: str, frame: Packet | bytes, inner: Packet) -> Outcome:
    """Out of one tunnel and into another."""
    moved = _moved(came, "rx", len(inner)) | _moved(left, "tx", len(inner))
    return Outcome("redirect", bytes(frame), {"relay": 1}, moved)


def _moved(tunnel: str, direction: str, inner_bytes: int) -> dict[str, int]:
    return {f"{tunnel} {direction}_packets": 1, f"{tunnel} {direction}_bytes": inner_bytes}


class _PerCpuArray:
    """The first rows of a per-CPU array of u64s, read with one system call."""

    def __init__(self, fd: int, rows: int, width: int) -> None:
        self._fd = fd
        self._rows, self._width = rows, width
        self._libbpf = ct.CDLL("libbpf.so.1")
        self._keys = (ct.c_uint32 * rows)()
        self._values = (ct.c_uint64 * (rows * bpf.possible_cpus() * width))()
        self._last = self._read()

    def _read(self) -> bytes:
        count, batch = ct.c_uint32(self._rows), ct.c_uint32()
        result = self._libbpf.bpf_map_lookup_batch(
            self._fd, None, ct.byref(batch), self._keys, self._values, ct.byref(count), None
        )
        assert count.value == self._rows, result
        return bytes(self._values)

    def moved(self) -> dict[tuple[int, int], int]:
        """What was added since the last call, all CPUs, by (row, column)."""
        before, after = self._last, self._read()
        if after == before:
            return {}
        self._last = after
        found: dict[tuple[int, int], int] = {}
        row_words = bpf.possible_cpus() * self._width
        old, new = memoryview(before).cast("Q"), memoryview(after).cast("Q")
        for i, (was, is_now) in enumerate(zip(old, new, strict=True)):
            if was != is_now:
                cell = (i // row_words, i % self._width)
                found[cell] = found.get(cell, 0) + is_now - was
        return found


class Bench:
    """The programs and counters of the current network namespace's data plane.

    ``interfaces`` are (index, link address) by name, as the system says, not the maps.
    """

    def __init__(
        self,
        data_path: DataPath,
        tunnels: Sequence[str],
        interfaces: Mapping[str, tuple[int, str]],
    ) -> None:
        self.data_path = data_path
        self._interfaces = interfaces
        [digest] = data_path.pinned_digests()
        self._names = [data_path.tunnel(i).name.decode() for i in range(len(tunnels))]
        assert sorted(self._names) == sorted(tunnels)
        self._open = ExitStack()
        self._programs: dict[Program, int] = {
            name: self._open.enter_context(data_path.open_program(digest, name))
            for name in ("port", "inner")
        }
        self._reasons = self._map(abi.MapIndex.REASON_COUNTERS, abi.REASON_COUNT, 1)
        self._tunnels = self._map(abi.MapIndex.TUNNEL_COUNTERS, len(tunnels), len(_TUNNEL_COUNTERS))

    def close(self) -> None:
        """Close the descriptors."""
        self._open.close()

    def port(self, frame: Packet | bytes, interface: str) -> Outcome:
        """Run the program of configured interfaces over a frame that came in by one."""
        return self._run("port", bytes(frame), interface)

    def inner(self, frame: Packet | bytes, interface: str) -> Outcome:
        """Run the program of inner ends over a frame that came in by an interface."""
        return self._run("inner", bytes(frame), interface)

    def port_without_headroom(self, frame: Packet, interface: str) -> Outcome:
        """Like ``port``, on a frame whose headroom is full of metadata.

        Skips the test where the kernel takes only 32 bytes of metadata (before Linux 6.3).
        """
        raw = bytes(_METADATA_BYTES) + bytes(frame)
        outcome = self._run_with(raw, interface, data=_METADATA_BYTES, data_end=len(raw))
        if outcome is None:
            pytest.skip("this kernel takes no more than 32 bytes of metadata")
        return outcome

    def port_in_pieces(self, frame: Packet | bytes, interface: str, first: int) -> Outcome:
        """Like ``port``, on a frame of which only so many bytes are in its first piece.

        Skips the test where the kernel makes the first piece as long as it can (before Linux 6.18).
        """
        outcome = self.in_pieces("port", bytes(frame), interface, first)
        if outcome is None:
            pytest.skip("this kernel does not let the first piece of a frame be short")
        return outcome

    def in_pieces(
        self, program: Program, frame: bytes, interface: str, first: int
    ) -> Outcome | None:
        """The same of either program; None where the kernel does not let the piece be short."""
        return self._run_with(frame, interface, data=0, data_end=first, program=program)

    def _run_with(
        self, raw: bytes, interface: str, *, data: int, data_end: int, program: Program = "port"
    ) -> Outcome | None:
        """Where the frame begins and its first piece ends; None if the kernel will not have it."""
        buffer = ct.create_string_buffer(raw, len(raw))
        out = ct.create_string_buffer(len(raw) + _GROWTH_BYTES)
        ctx = bpf._XdpMd(
            data=data, data_end=data_end, ingress_ifindex=self._interfaces[interface][0]
        )
        opts = bpf._TestRunOpts(
            sz=ct.sizeof(bpf._TestRunOpts),
            data_in=ct.addressof(buffer),
            data_size_in=len(raw),
            data_out=ct.addressof(out),
            data_size_out=len(out),
            ctx_in=ct.addressof(ctx),
            ctx_size_in=ct.sizeof(ctx),
            repeat=1,
        )
        result = bpf._libbpf().bpf_prog_test_run_opts(self._programs[program], ct.byref(opts))
        if result == -errno.EINVAL:
            return None
        assert result == 0
        return self._outcome(bpf.VERDICTS[opts.retval], out.raw[: opts.data_size_out])

    def mac(self, interface: str) -> str:
        """A link address."""
        return self._interfaces[interface][1]

    def ifindex(self, interface: str) -> int:
        """An interface's index."""
        return self._interfaces[interface][0]

    def tunnel_id(self, tunnel: str) -> int:
        """A tunnel's index in the maps."""
        return self._names.index(tunnel)

    def program_fd(self, program: Program) -> int:
        """A program's descriptor, for as long as the bench is open."""
        return self._programs[program]

    def moved(self) -> tuple[dict[str, int], dict[str, int]]:
        """How far all counters have moved since the last frame or call, as in an ``Outcome``."""
        return (
            {
                _NAMES.get(code, f"code {code}"): moved
                for (code, _), moved in self._reasons.moved().items()
            },
            {
                f"{self._names[row]} {_TUNNEL_COUNTERS[column]}": moved
                for (row, column), moved in self._tunnels.moved().items()
            },
        )

    def reset_sequences(self, *tunnels: str) -> None:
        """Number packets as new tunnels do."""
        for tunnel in tunnels:
            self.data_path.reset_sequences(self._names.index(tunnel))

    @contextmanager
    def unknown_gre(self, policy: str) -> Iterator[None]:
        """Another policy for GRE that no tunnel takes, for the time of a block."""
        before = self.data_path.unknown_gre()
        self.data_path.put_unknown_gre(policy)
        try:
            yield
        finally:
            self.data_path.put_unknown_gre(before)

    def _run(self, program: Program, frame: bytes, interface: str) -> Outcome:
        result = bpf.prog_run(self._programs[program], frame, self._interfaces[interface][0])
        return self._outcome(result.verdict, result.frame)

    def _outcome(self, verdict: str, frame: bytes) -> Outcome:
        return Outcome(verdict, b"" if verdict == "drop" else frame, *self.moved())

    def _map(self, index: abi.MapIndex, rows: int, width: int) -> _PerCpuArray:
        path = self.data_path.pins.maps / abi.MAPS[index].name
        return _PerCpuArray(self._open.enter_context(bpf.owned(bpf.get(path))), rows, width)
