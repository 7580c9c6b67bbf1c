"""Sets up GRE tunnels of a stock Linux kernel, the independent peer that gre-xdp is tested with."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Protocol

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from gre_xdp.errors import LabError
from gre_xdp.lab.topology import Namespace

# A request to User-Mode Linux holds less than 4 KB.
COMMANDS_PER_REQUEST = 20


class Run(Protocol):
    """How to run a shell command: ``UmlKernel.run`` or ``HostKernel.run``."""

    def __call__(self, command: str, *, timeout: float = ...) -> tuple[int, str]:
        """Returns its exit status, and stdout and stderr in one; ``timeout`` in seconds."""


class HostKernel:
    """The kernel of this host in a network namespace, with the command channel of UmlKernel."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def run(self, command: str, *, timeout: float = 10.0) -> tuple[int, str]:
        """As ``UmlKernel.run``; ``timeout`` in seconds."""
        done = self.namespace.run(
            ["sh", "-c", f"exec 2>&1\n{command}"], check=False, timeout=timeout
        )
        return done.returncode, done.stdout


def host_has_ip_gre() -> bool:
    """Whether a namespace of this host can have a GRE device (loads the module if there is one)."""
    name = f"gre-probe-{secrets.token_hex(4)}"
    netns.create(name)
    try:
        with IPRoute(netns=name) as ip:
            ip.link("add", ifname="probe", kind="gre", gre_local="192.0.2.1")
    except NetlinkError:
        return False
    finally:
        netns.remove(name)
    return True


def configure(
    run: Run,
    *,
    name: str,
    local: str,
    remote: str,
    key: int | str | None = None,
    ikey: int | str | None = None,
    okey: int | str | None = None,
    routes: Sequence[str] = (),
    addresses: Sequence[str] = (),
    kind: str = "gre",
    extra: Sequence[str] = (),
) -> None:
    """Makes a tunnel device in the words of ``ip tunnel``, with its addresses and routes.

    ``kind``: gre, gretap, ip6gre, ip6gretap, …; ``extra`` goes to ``ip link add`` behind all else,
    so it can override (``["ttl", "inherit"]``). Raises LabError with what ``ip`` said.
    """
    keys = {"key": key, "ikey": ikey, "okey": okey}
    key_words = [word for k, v in keys.items() if v is not None for word in (k, str(v))]
    run_all(
        run,
        [
            [
                *("ip", "link", "add", name, "type", kind, "local", local, "remote", remote),
                *("ttl", "64", *key_words, *extra),
            ],
            *(add_address(name, address) for address in addresses),
            ["ip", "link", "set", name, "up"],
            *(["ip", "route", "add", route, "dev", name] for route in routes),
        ],
    )


def add_address(interface: str, address: str) -> list[str]:
    """The command that gives an interface an address which is usable at once."""
    no_dad = ["nodad"] if ip_interface(address).version == 6 else []
    return ["ip", "address", "add", address, "dev", interface, *no_dad]


def set_sysctl(name: str, value: int) -> list[str]:
    """The command that sets a sysctl, written with slashes; it needs no procps."""
    return ["sh", "-c", f"echo {value} >/proc/sys/{name}"]


def run_all(run: Run, commands: Sequence[Sequence[str]]) -> None:
    """Runs commands in order, many in a request, up to the first that fails: LabError."""
    for start in range(0, len(commands), COMMANDS_PER_REQUEST):
        batch = [shlex.join(command) for command in commands[start : start + COMMANDS_PER_REQUEST]]
        # -x says which one it was that failed.
        status, output = run("\n".join(["set -ex", *batch]), timeout=30.0)
        if status:
            raise LabError(
                f"gateway B refuses its configuration (exit status {status}):\n{output.strip()}",
                remedy="check that its kernel has the drivers named in the last command",
            )
