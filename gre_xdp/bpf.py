"""The bpf(2) system call through libbpf's thin wrappers: maps, programs, links, pins.

Byte strings in, byte strings out: what they mean is ``abi``'s business. File descriptors are plain
integers owned by the caller, who closes them with ``os.close`` or holds them in ``owned``.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from gre_xdp import errors

MAP_TYPE_HASH = 1
MAP_TYPE_ARRAY = 2
MAP_TYPE_PERCPU_ARRAY = 6
MAP_TYPE_LRU_HASH = 9
MAP_TYPE_LPM_TRIE = 11
MAP_TYPE_DEVMAP_HASH = 25
MAP_FLAG_NO_PREALLOC = 1

_PROG_TYPE_XDP = 6
# Every XDP program is loaded with this type: a link update between none and it is EINVAL.
_ATTACH_TYPE_XDP = 37
_LINK_TYPE_XDP = 6
# Frames of more than one page reach the program, and its devices may have an MTU for them.
_PROG_FLAG_XDP_HAS_FRAGS = 1 << 5
# Headers in a frame that GRE carries are not aligned. Processors that we run on do not mind, but
# User-Mode Linux asks for it like a kernel for one that does.
_PROG_FLAG_ANY_ALIGNMENT = 1 << 1

XDP_FLAGS_SKB = 1 << 1
XDP_FLAGS_NATIVE = 1 << 2

VERDICTS = ("aborted", "drop", "pass", "tx", "redirect")

# The kernel adds this to every devmap: programs may look up, not write.
_IMPLIED_MAP_FLAGS = 0x80
_BATCH = 4096
_LOG_BYTES = 1 << 20
_UPDATE_TRIES = 20
_UPDATE_RETRY_S = 0.01
_FRAME_ROOM_BYTES = 512


class _MapCreateOpts(ct.Structure):
    _fields_ = [
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    ]


class _ProgLoadOpts(ct.Structure):
    _fields_ = [
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.POINTER(ct.c_int)),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_char_p),
    ]


class _LinkCreateOpts(ct.Structure):
    _fields_ = [
        ("sz", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("iter_info", ct.c_void_p),
        ("iter_info_len", ct.c_uint32),
        ("target_btf_id", ct.c_uint32),
    ]


class _TestRunOpts(ct.Structure):
    _fields_ = [
        ("sz", ct.c_size_t),
        ("data_in", ct.c_void_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    ]


class _XdpMd(ct.Structure):
    _fields_ = [
        ("data", ct.c_uint32),
        ("data_end", ct.c_uint32),
        ("data_meta", ct.c_uint32),
        ("ingress_ifindex", ct.c_uint32),
        ("rx_queue_index", ct.c_uint32),
        ("egress_ifindex", ct.c_uint32),
    ]


class _MapInfo(ct.Structure):
    _fields_ = [
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("name", ct.c_char * 16),
    ]


class _ProgInfo(ct.Structure):
    _fields_ = [
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_prog_len", ct.c_uint32),
        ("xlated_prog_len", ct.c_uint32),
        ("jited_prog_insns", ct.c_uint64),
        ("xlated_prog_insns", ct.c_uint64),
        ("load_time", ct.c_uint64),
        ("created_by_uid", ct.c_uint32),
        ("nr_map_ids", ct.c_uint32),
        ("map_ids", ct.c_uint64),
        ("name", ct.c_char * 16),
    ]


class _LinkInfo(ct.Structure):
    _fields_ = [
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("rest", ct.c_uint8 * 64),
    ]


_Info = TypeVar("_Info", bound=ct.Structure)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What a map must look like; sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """An XDP attachment: ``ifindex`` is 0 once its device is gone."""

    prog_id: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a program did with one frame."""

    verdict: str
    frame: bytes
    duration_ns: int


@cache
def _libbpf() -> ct.CDLL:
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise errors.PackageError(
            "libbpf.so.1 is not installed",
            remedy="install libbpf1 (Debian, Ubuntu) or libbpf (Fedora)",
        ) from error
    # libbpf's own warnings would mix with what users see.
    lib.libbpf_set_print(None)
    return lib


def _check(result: int, what: str) -> int:
    """Turn libbpf's negative errno into ``OSError``."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


@contextlib.contextmanager
def owned(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of a block."""
    try:
        yield fd
    finally:
        os.close(fd)


@cache
def possible_cpus() -> int:
    """Number of values that a per-CPU map holds for one key."""
    return _check(int(_libbpf().libbpf_num_possible_cpus()), "number of possible CPUs")


# --- maps ---------------------------------------------------------------------------------------


def map_create(spec: MapSpec) -> int:
    """Create an unpinned map; raises ``OSError``."""
    opts = _MapCreateOpts(sz=ct.sizeof(_MapCreateOpts), map_flags=spec.flags)
    return _check(
        _libbpf().bpf_map_create(
            spec.type,
            spec.name.encode(),
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            ct.byref(opts),
        ),
        f"create map {spec.name}",
    )


def map_spec(fd: int) -> MapSpec:
    """What the kernel says about an open map."""
    info = _info(fd, _MapInfo())
    return MapSpec(
        name=info.name.decode(),
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
    )


def has_layout(fd: int, expected: MapSpec) -> bool:
    """Is an open map as a specification says?"""
    found = map_spec(fd)
    return (
        found.type == expected.type
        and found.key_size == expected.key_size
        and found.value_size == expected.value_size
        and found.max_entries == expected.max_entries
        and found.flags & ~_IMPLIED_MAP_FLAGS == expected.flags
    )


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of ``key``, or None; per-CPU maps: all CPUs' values, 8-byte aligned, in a row."""
    value = ct.create_string_buffer(value_size)
    result = _libbpf().bpf_map_lookup_elem(fd, key, value)
    if result == -errno.ENOENT:
        return None
    _check(result, "map look-up")
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Create or replace the value of ``key``."""
    for _ in range(_UPDATE_TRIES):
        result = _libbpf().bpf_map_update_elem(fd, key, value, ct.c_uint64(0))
        if result != -errno.ENOMEM:
            break
        # Linux 6.1 on fills its stock of elements a moment after it has run out
        # (kernel/bpf/memalloc.c): updates in a row can be faster than that.
        time.sleep(_UPDATE_RETRY_S)
    _check(result, "map update")


def map_delete(fd: int, key: bytes) -> None:
    """Delete ``key``; deleting what is absent succeeds."""
    result = _libbpf().bpf_map_delete_elem(fd, key)
    if result != -errno.ENOENT:
        _check(result, "map delete")


def map_keys(fd: int, key_size: int) -> list[bytes]:
    """All keys of a map that nobody else changes meanwhile."""
    keys: list[bytes] = []
    key: bytes | None = None
    following = ct.create_string_buffer(key_size)
    while True:
        result = _libbpf().bpf_map_get_next_key(fd, key, following)
        if result == -errno.ENOENT:
            return keys
        _check(result, "map keys")
        key = following.raw
        keys.append(key)


def map_items(fd: int) -> list[tuple[bytes, bytes]]:
    """All keys and values of a map (not of a per-CPU one, nor of a devmap), many in one call."""
    spec = map_spec(fd)
    keys = ct.create_string_buffer(spec.key_size * _BATCH)
    values = ct.create_string_buffer(spec.value_size * _BATCH)
    # Where the last call stopped: for hashes a bucket's number, else a key.
    place = ct.create_string_buffer(max(4, spec.key_size))
    found: list[tuple[bytes, bytes]] = []
    is_first, result = True, 0
    while result != -errno.ENOENT:
        count = ct.c_uint32(_BATCH)
        result = _libbpf().bpf_map_lookup_batch(
            fd, None if is_first else place, place, keys, values, ct.byref(count), None
        )
        if result != -errno.ENOENT:
            _check(result, "map items")
        is_first = False
        found += zip(
            _chunks(keys.raw, spec.key_size, count.value),
            _chunks(values.raw, spec.value_size, count.value),
            strict=True,
        )
    return found


def _chunks(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, size * count, size)]


# --- programs -----------------------------------------------------------------------------------


def prog_load(name: str, instructions: bytes, map_fds: Sequence[int]) -> int:
    """Load an XDP program whose map references are indices into ``map_fds``.

    Raises ``KernelError`` with the verifier's last words, or ``OSError``.
    """
    fds = (ct.c_int * len(map_fds))(*map_fds)
    for log_level in (0, 1):
        log = ct.create_string_buffer(_LOG_BYTES) if log_level else None
        opts = _ProgLoadOpts(
            sz=ct.sizeof(_ProgLoadOpts),
            expected_attach_type=_ATTACH_TYPE_XDP,
            prog_flags=_PROG_FLAG_XDP_HAS_FRAGS | _PROG_FLAG_ANY_ALIGNMENT,
            fd_array=fds,
            log_level=log_level,
            log_size=_LOG_BYTES if log else 0,
            log_buf=ct.cast(log, ct.c_char_p) if log else None,
        )
        result = _libbpf().bpf_prog_load(
            _PROG_TYPE_XDP,
            name.encode(),
            b"GPL",
            instructions,
            ct.c_size_t(len(instructions) // 8),
            ct.byref(opts),
        )
        if result >= 0:
            return int(result)
        if result == -errno.EPERM:
            break
        if log is not None:
            words = "\n".join(log.value.decode(errors="replace").strip().splitlines()[-15:])
            raise errors.KernelError(
                f"the kernel refused program {name}: {os.strerror(-result)}\n{words}",
                remedy="report this output with your kernel version (uname -r)",
            )
    return _check(result, f"load program {name}")


def prog_id(fd: int) -> int:
    """The kernel's number of an open program."""
    return int(_info(fd, _ProgInfo()).id)


def prog_name(prog_id_: int) -> str | None:
    """The name of a loaded program by its number, or None if it is gone."""
    fd = _libbpf().bpf_prog_get_fd_by_id(ct.c_uint32(prog_id_))
    if fd < 0:
        return None
    with owned(fd):
        return str(_info(fd, _ProgInfo()).name.decode(errors="replace"))


def prog_run(fd: int, frame: bytes, ifindex: int) -> RunResult:
    """Run a program over one Ethernet frame as if it came in by ``ifindex`` (BPF_PROG_RUN)."""
    out = ct.create_string_buffer(len(frame) + _FRAME_ROOM_BYTES)
    ctx = _XdpMd(data=0, data_end=len(frame), data_meta=0, ingress_ifindex=ifindex)
    buffer = ct.create_string_buffer(frame, len(frame))
    opts = _TestRunOpts(
        sz=ct.sizeof(_TestRunOpts),
        data_in=ct.cast(buffer, ct.c_void_p),
        data_out=ct.cast(out, ct.c_void_p),
        data_size_in=len(frame),
        data_size_out=len(out),
        ctx_in=ct.cast(ct.byref(ctx), ct.c_void_p),
        ctx_size_in=ct.sizeof(ctx),
        repeat=1,
    )
    _check(_libbpf().bpf_prog_test_run_opts(fd, ct.byref(opts)), "run program")
    return RunResult(
        verdict=VERDICTS[opts.retval],
        frame=out.raw[: opts.data_size_out],
        duration_ns=opts.duration,
    )


# --- links and pins -----------------------------------------------------------------------------


def link_create(prog_fd: int, ifindex: int, flags: int) -> int:
    """Attach a program to a device; raises ``OSError`` (EBUSY: another program is there)."""
    opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=flags)
    return _check(
        _libbpf().bpf_link_create(prog_fd, ifindex, _ATTACH_TYPE_XDP, ct.byref(opts)), "attach"
    )


def link_update(link_fd: int, prog_fd: int) -> None:
    """Replace a link's program atomically: no packet sees no program."""
    _check(_libbpf().bpf_link_update(link_fd, prog_fd, None), "update link")


def link_info(fd: int) -> LinkInfo:
    """What a link attaches, and where."""
    info = _info(fd, _LinkInfo())
    if info.type != _LINK_TYPE_XDP:
        raise OSError(errno.EINVAL, "not an XDP link")
    return LinkInfo(prog_id=info.prog_id, ifindex=info.ifindex)


def pin(fd: int, path: Path) -> None:
    """Give an object a name in bpffs, which keeps it alive."""
    _check(_libbpf().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def get(path: Path) -> int:
    """Open a pinned object; raises ``FileNotFoundError``, ``PermissionError``."""
    return _check(_libbpf().bpf_obj_get(os.fsencode(path)), f"open {path}")


def _info(fd: int, info: _Info) -> _Info:
    length = ct.c_uint32(ct.sizeof(info))
    result = _libbpf().bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(length))
    _check(result, "object information")
    return info
