"""Network namespaces: which one is this, and how to work in another."""

from __future__ import annotations

import socket

from pyroute2 import netns

from gre_xdp import errors

_SO_NETNS_COOKIE = 71  # Linux 5.14; never reused while the machine runs, unlike inode numbers


def enter(name: str) -> None:
    """Move this process's network (and nothing else: bpffs stays) into a named namespace."""
    if name not in netns.listnetns():
        raise errors.HostError(
            f"there is no network namespace named {name}",
            remedy="ip netns list shows those that exist",
            where="--netns",
        )
    try:
        netns.setns(name, flags=0)
    except OSError as error:
        raise errors.PrivilegeError(
            f"entering network namespace {name}: {error.strerror}",
            remedy="run it as root, for instance with sudo",
            where="--netns",
        ) from error


def cookie() -> int:
    """The number of the current network namespace, unique until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
