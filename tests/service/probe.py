"""What a process may do where it runs: tried, and written down as JSON: "ok" or an error's name.

The unit runs it under the very confinement of the agent (ExecStartPre=).
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def _make_file(directory: str) -> None:
    path = Path(directory, "probe")
    path.touch()
    path.unlink()


def _make_directory(directory: str) -> None:
    Path(directory, "probe").mkdir()
    Path(directory, "probe").rmdir()


def _write_again(path: str) -> None:
    text = Path(path).read_text()
    with Path(path).open("r+") as file:
        file.write(text)


def _make_setuid() -> None:
    path = Path("/tmp/setuid")  # noqa: S108 - the service's own
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write /usr": lambda: _make_file("/usr"),
    "write /etc": lambda: _make_file("/etc"),
    "write /root": lambda: _make_file("/root"),
    "write /run": lambda: _make_file("/run"),
    "write /etc/gre-xdp": lambda: _make_file("/etc/gre-xdp"),
    "write /run/gre-xdp": lambda: _make_file("/run/gre-xdp"),
    "write /var/lib/gre-xdp": lambda: _make_file("/var/lib/gre-xdp"),
    "write /sys/fs/bpf": lambda: _make_directory("/sys/fs/bpf"),
    "write /sys/fs/cgroup": lambda: _make_directory("/sys/fs/cgroup"),
    "write /proc/sys/net": lambda: _write_again("/proc/sys/net/ipv4/ip_forward"),
    "write /proc/sys/kernel": lambda: _write_again("/proc/sys/kernel/core_pattern"),
    "write /sys/class/net": lambda: _write_again("/sys/class/net/lo/mtu"),
    "open /dev/kmsg": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "memory to write and execute": lambda: mmap.mmap(-1, 4096, prot=7),
    "socket AF_PACKET": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM),
    "socket AF_NETLINK": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "socket ICMP": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "socket AF_ALG": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
    "another namespace": lambda: _call("unshare", 0x04000000),
    "another personality": lambda: _call("personality", 0x0040000),
    "mount": lambda: _call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "a user": lambda: os.setuid(1),
    "a setuid file": _make_setuid,
    "the clock": lambda: _call("settimeofday", (ctypes.c_long * 2)(1, 0), None),
    "another's file": lambda: os.chown("/etc/gre-xdp", 1, 1),
}


def attempt(what: Callable[[], object]) -> str:
    """``ok``, or the name of the error."""
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


if __name__ == "__main__":
    found = {name: attempt(what) for name, what in ATTEMPTS.items()}
    Path(sys.argv[1]).write_text(json.dumps(found))
