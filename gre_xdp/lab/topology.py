"""Builds network namespaces, the wires between them and their addresses from a description.

A wire here behaves as one made of copper: packets on it are whole, at most MTU-sized, and carry
complete checksums. A bare veth pair promises none of that, see ``_make_like_a_wire``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import TypeVar

from pyroute2 import Ethtool, IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from gre_xdp.errors import LabError, PrivilegeError

NETNS_DIRECTORY = Path("/run/netns")
FIRST_IFINDEX = 101
READY_TIMEOUT_S = 10.0

# <linux/if_tun.h>, <linux/if.h> and <linux/if_addr.h>
TUNSETIFF = 0x400454CA
TUNSETIFINDEX = 0x400454DA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_RUNNING = 0x40
IFA_F_NODAD = 0x02
IFA_F_TENTATIVE = 0x40

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """A host to be: addresses ("10.1.0.2/24") by interface, gateways by destination prefix.

    An interface without an IPv6 address speaks no IPv6 at all, not even link-local.
    """

    name: str
    interfaces: Mapping[str, tuple[str, ...]]
    routes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A wire (veth pair) between two interfaces, each written "node:interface"; MTU in bytes."""

    a: str
    b: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface "node:interface" whose wire ends in a process; MTU in bytes."""

    end: str
    mtu: int = 1500


class Namespace:
    """A network namespace that exists: runs commands and functions in it.

    Only the network namespace is entered, so bpffs and the pins on it stay visible.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS_DIRECTORY / name
        self._started: list[subprocess.Popen[str]] = []

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` in this namespace."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 30.0,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end and captures what it says; ``timeout`` in seconds.

        Raises CalledProcessError (its output attached as a note) or TimeoutExpired.
        """
        done = subprocess.run(
            self.command(argv),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin or "",
        )
        if check and done.returncode:
            error = subprocess.CalledProcessError(
                done.returncode, list(argv), done.stdout, done.stderr
            )
            error.add_note(f"in {self.name}: {(done.stdout + done.stderr).strip()}")
            raise error
        return done

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a command with its output piped; it is ended at the latest with the namespace."""
        process = subprocess.Popen(
            self.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def end_processes(self) -> None:
        """Kills what ``popen`` started and is still running."""
        while self._started:
            with self._started.pop() as process:
                process.kill()

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on a thread of its own that is in this namespace."""

        def inside() -> T:
            netns.setns(str(self.path), flags=0)
            return function()

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(inside).result()

    def set_sysctl(self, name: str, value: int) -> None:
        """Sets e.g. ``net/ipv4/ip_forward``, written with slashes as interfaces may have dots."""
        self.call(lambda: Path("/proc/sys", name).write_text(str(value)))


class Topology:
    """Namespaces named ``<prefix>-<node>`` for the nodes, wired as the links and taps say.

    ``tap_fds`` holds, while up, the file descriptor in which each tap's wire ends. Close it once
    it is passed on; a tap lives for as long as anybody has it open.
    """

    def __init__(
        self,
        prefix: str,
        nodes: Iterable[Node],
        links: Iterable[Link] = (),
        taps: Iterable[Tap] = (),
    ) -> None:
        self.prefix = prefix
        self.links = tuple(links)
        self.taps = tuple(taps)
        self.tap_fds: dict[str, int] = {}
        self._nodes = tuple(nodes)
        self.nodes = {node.name: Namespace(f"{prefix}-{node.name}") for node in self._nodes}

    def __enter__(self) -> Topology:
        self.up()
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    def up(self) -> None:
        """Builds everything and returns when packets can flow; undoes its work when it fails.

        Raises LabError when a namespace of one of the names exists, or something does not work.
        """
        if os.geteuid() != 0:
            raise PrivilegeError(
                "a lab needs network namespaces", remedy="run it as root, for instance with sudo"
            )
        if found := [node.name for node in self.nodes.values() if node.path.exists()]:
            raise LabError(
                f"network namespace {', '.join(found)} exists",
                remedy="take the lab of that prefix down first, or choose another prefix",
            )
        try:
            self._build()
        except (NetlinkError, OSError) as error:
            self.down()
            raise LabError(
                f"the namespaces of {self.prefix} could not be built: {error}",
                remedy="the kernel needs veth, tun and network namespaces",
            ) from error
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Removes everything, also what an earlier process of the same prefix left behind."""
        self.close_taps()
        for node in self._nodes:
            namespace = self.nodes[node.name]
            namespace.end_processes()
            if not namespace.path.exists():
                continue
            # A namespace is dismantled asynchronously: what must be gone now is deleted now.
            with (
                contextlib.suppress(NetlinkError, OSError),
                IPRoute(netns=namespace.name) as ip,
            ):
                for name in node.interfaces:
                    for index in ip.link_lookup(ifname=name):
                        ip.link("del", index=index)
            with contextlib.suppress(FileNotFoundError):
                netns.remove(namespace.name)

    def close_taps(self) -> None:
        """Closes our ends of the taps, so that they live and die with whom they were passed to."""
        while self.tap_fds:
            os.close(self.tap_fds.popitem()[1])

    def _build(self) -> None:
        for namespace in self.nodes.values():
            netns.create(namespace.name)
            namespace.set_sysctl("net/ipv6/conf/default/accept_dad", 0)
        # Ifindexes are counted through the whole lab: in fresh namespaces they would all be alike
        # and hide a program that takes one interface for another.
        index = iter(range(FIRST_IFINDEX, 2**31))
        mtus: dict[str, int] = {}
        for link in self.links:
            self._add_veth(link, index)
            mtus |= {link.a: link.mtu, link.b: link.mtu}
        for tap in self.taps:
            namespace, name = self._end(tap.end)
            self.tap_fds[tap.end] = namespace.call(partial(_open_tap, name, next(index)))
            mtus[tap.end] = tap.mtu
        # Before any is up: a veth learns at its start, and not later, that its peer has NAPI.
        for node in self._nodes:
            for name in node.interfaces:
                self.nodes[node.name].call(partial(_make_like_a_wire, name))
        for node in self._nodes:
            self._configure(node, mtus)
        for namespace in self.nodes.values():
            _wait_until_ready(namespace)

    def _end(self, end: str) -> tuple[Namespace, str]:
        node, _, interface = end.partition(":")
        return self.nodes[node], interface

    def _add_veth(self, link: Link, index: Iterator[int]) -> None:
        (a, a_name), (b, b_name) = self._end(link.a), self._end(link.b)
        with IPRoute(netns=a.name) as ip:
            ip.link(
                "add",
                kind="veth",
                ifname=a_name,
                index=next(index),
                # Spelt as the netlink attribute: the keyword `peer` cannot take an ifindex.
                VETH_INFO_PEER={
                    "index": next(index),
                    "attrs": [["IFLA_IFNAME", b_name], ["IFLA_NET_NS_FD", b.name]],
                },
            )

    def _configure(self, node: Node, mtus: Mapping[str, int]) -> None:
        namespace = self.nodes[node.name]
        with IPRoute(netns=namespace.name) as ip:
            ip.link("set", index=1, state="up")
            for name, addresses in node.interfaces.items():
                parsed = [ip_interface(address) for address in addresses]
                speaks_ipv6 = any(address.version == 6 for address in parsed)
                namespace.set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", int(not speaks_ipv6))
                [index] = ip.link_lookup(ifname=name)
                ip.link("set", index=index, mtu=mtus[f"{node.name}:{name}"], state="up")
                for address in parsed:
                    ip.addr(
                        "add",
                        index=index,
                        address=str(address.ip),
                        prefixlen=address.network.prefixlen,
                        flags=IFA_F_NODAD if address.version == 6 else 0,
                    )
            for destination, gateway in node.routes.items():
                ip.route("add", dst=destination, gateway=gateway)


def _open_tap(name: str, ifindex: int) -> int:
    """Makes a tap in the calling thread's network namespace; it goes with its last descriptor.

    Without vnet headers, so every packet through it is whole and its checksums are complete.
    Non-blocking, as tun runs a native XDP program in place only on such writes (else on an skb).
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("I", ifindex))
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_like_a_wire(name: str) -> None:
    """Turns tx checksum offload off and GRO on; the kernel ignores what a device does not have.

    With the offload a local sender's packets reach an XDP program on the other end with partial
    checksums, and in super-sized segments; GRO gives a veth the NAPI without which the kernel
    drops what XDP redirects into its peer.
    """
    with contextlib.closing(Ethtool()) as ethtool:
        features = ethtool.get_features(name)
        for feature in ("tx-checksum-ip-generic", "tx-checksum-sctp"):
            features.features[feature].enable = False
        features.features["rx-gro"].enable = True
        ethtool.set_features(name, features)


def _wait_until_ready(namespace: Namespace) -> None:
    """Waits until every interface is running and no address is tentative."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    with IPRoute(netns=namespace.name) as ip:
        while True:
            waiting = [
                link.get("ifname") for link in ip.get_links() if not link["flags"] & IFF_RUNNING
            ] + [
                address.get("address")
                for address in ip.get_addr()
                if address["flags"] & IFA_F_TENTATIVE
            ]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"in {namespace.name} not ready: {waiting}")
            time.sleep(0.01)
