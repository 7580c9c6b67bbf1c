"""The lab of two sites as one object: built, found again by its prefix, and taken down.

           10.1.0.0/24              192.0.2.0/24             10.2.0.0/24
           2001:db8:a::/64                                   2001:db8:b::/64
    site-a ─────────────── gw-a ═══════════════════ gw-b ─────────────── site-b
       eth0             eth1  eth0               eth0  eth1             eth0

Gateway A is left bare for gre-xdp. Gateway B is bare as well, or a stock kernel whose tunnel is
``gre1``: this host's in a namespace, or User-Mode Linux, in which case there is no namespace gw-b.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gre_xdp.errors import LabError
from gre_xdp.history import History
from gre_xdp.lab import kernel_gre
from gre_xdp.lab.kernel_gre import HostKernel
from gre_xdp.lab.topology import Link, Namespace, Node, Tap, Topology
from gre_xdp.lab.uml import UmlKernel

DEFAULT_PREFIX = "gxlab"
STATE_DIRECTORY = Path("/run/gre-xdp-lab")
TUNNEL = "fra1"
KERNEL_TUNNEL = "gre1"

Peer = Literal["kernel", "gre-xdp"]
Kernel = Literal["auto", "host", "uml"]


@dataclass(frozen=True, slots=True)
class Side:
    """The addresses of one half of the lab; ``prefixes`` are its site's."""

    underlay: str
    gateway: tuple[str, ...]
    host: tuple[str, ...]
    prefixes: tuple[str, ...]
    tunnel: tuple[str, ...]


SIDES = {
    "a": Side(
        underlay="192.0.2.1",
        gateway=("10.1.0.1/24", "2001:db8:a::1/64"),
        host=("10.1.0.2/24", "2001:db8:a::2/64"),
        prefixes=("10.1.0.0/24", "2001:db8:a::/64"),
        tunnel=("169.254.10.1/30", "fd00:10::1/64"),
    ),
    "b": Side(
        underlay="192.0.2.2",
        gateway=("10.2.0.1/24", "2001:db8:b::1/64"),
        host=("10.2.0.2/24", "2001:db8:b::2/64"),
        prefixes=("10.2.0.0/24", "2001:db8:b::/64"),
        tunnel=("169.254.10.2/30", "fd00:10::2/64"),
    ),
}


def _other(side: str) -> Side:
    return SIDES["b" if side == "a" else "a"]


def _site(side: str) -> Node:
    defaults = zip(("0.0.0.0/0", "::/0"), SIDES[side].gateway, strict=True)
    return Node(
        f"site-{side}",
        {"eth0": SIDES[side].host},
        {destination: gateway.split("/")[0] for destination, gateway in defaults},
    )


def _gateway(side: str) -> Node:
    return Node(
        f"gw-{side}",
        {"eth0": (f"{SIDES[side].underlay}/24",), "eth1": SIDES[side].gateway},
    )


def topology(prefix: str, *, uml: bool) -> Topology:
    """The two sites, not yet built; with UML as gateway B the taps are its eth0 and eth1."""
    nodes = [_site("a"), _gateway("a"), _site("b")]
    links = [Link("site-a:eth0", "gw-a:eth1")]
    if uml:
        return Topology(prefix, nodes, links, [Tap("gw-a:eth0"), Tap("site-b:eth0")])
    links += [Link("gw-a:eth0", "gw-b:eth0"), Link("gw-b:eth1", "site-b:eth0")]
    return Topology(prefix, [*nodes, _gateway("b")], links)


class Lab:
    """A lab that is up. ``peer`` is gateway B's command channel, None if gre-xdp is to run there.

    ``kernel`` says whose kernel that is, "host" or "uml"; ``key`` is that of both tunnels' ends.
    """

    def __init__(self, prefix: str, kernel: str | None, key: int | None) -> None:
        self.prefix = prefix
        self.kernel = kernel
        self.key = key
        self.peer: UmlKernel | HostKernel | None = None
        self._topology = topology(prefix, uml=kernel == "uml")
        self._directory = _directory(prefix)

    @property
    def nodes(self) -> dict[str, Namespace]:
        """The network namespaces by node: site-a, gw-a, site-b, and gw-b unless it is UML."""
        return self._topology.nodes

    @classmethod
    def up(
        cls,
        prefix: str = DEFAULT_PREFIX,
        *,
        peer: Peer = "kernel",
        kernel: Kernel = "auto",
        key: int | None = None,
    ) -> Lab:
        """Builds a lab; undoes its work when that fails. Raises LabError or PrivilegeError.

        The lab outlives this process, until ``down``.
        """
        lab = cls(prefix, _choose_kernel(kernel) if peer == "kernel" else None, key)
        try:
            lab._directory.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise LabError(
                f"the lab {prefix} is up, or was left half-built",
                remedy=f"gre-xdp lab down --name {prefix}",
                where=str(lab._directory),
            ) from error
        try:
            lab._build()
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def load(cls, prefix: str = DEFAULT_PREFIX) -> Lab:
        """Finds a lab that some process has built; raises LabError when there is none."""
        try:
            state = json.loads((_directory(prefix) / "lab.json").read_text())
        except FileNotFoundError as error:
            raise LabError(
                f"there is no lab {prefix}", remedy=f"gre-xdp lab up --name {prefix}"
            ) from error
        lab = cls(prefix, state["kernel"], state["key"])
        if lab.kernel == "uml":
            lab.peer = UmlKernel(lab._directory / "uml")
        elif lab.kernel == "host":
            lab.peer = HostKernel(lab.nodes["gw-b"])
        return lab

    @classmethod
    def remove(cls, prefix: str = DEFAULT_PREFIX) -> None:
        """Removes whatever there is of a lab, also one half-built by a process that died."""
        directory = _directory(prefix)
        UmlKernel(directory / "uml").stop()
        topology(prefix, uml=False).down()
        for config in directory.glob("*.toml"):
            History(config).forget()
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE_DIRECTORY.rmdir()

    def down(self) -> None:
        """Ends the nodes' processes and removes the lab; nothing to do when it is gone already."""
        self.remove(self.prefix)
        self._topology.down()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    def shell(self, node: str) -> int:
        """Gives the caller's terminal a shell on a node; returns its exit status."""
        if node in self.nodes:
            return subprocess.call(self.nodes[node].command(["bash"]))
        if node == "gw-b" and isinstance(self.peer, UmlKernel):
            return self.peer.shell()
        raise LabError(
            f"the lab has no node {node}", remedy="the nodes are site-a, gw-a, gw-b and site-b"
        )

    def config_toml(self, side: Literal["a", "b"] = "a") -> str:
        """The gre-xdp configuration of one gateway: a tunnel to the other one and its site."""
        here, there = SIDES[side], _other(side)
        key = [] if self.key is None else [f"key = {self.key}"]
        return "\n".join(
            [
                *("[[interface]]", 'name = "eth0"', "", "[[interface]]", 'name = "eth1"', ""),
                "[[tunnel]]",
                f'name = "{TUNNEL}"',
                f'local = "{here.underlay}"',
                f'remote = "{there.underlay}"',
                *key,
                f"addresses = {json.dumps(here.tunnel)}",
                f"routes = {json.dumps(there.prefixes)}",
                "",
            ]
        )

    def _build(self) -> None:
        self._topology.up()
        if self.kernel == "uml":
            directory = self._directory / "uml"
            directory.mkdir()
            uml = UmlKernel.start(directory, list(self._topology.tap_fds.values()))
            # UML has its own now: with it the taps go.
            self._topology.close_taps()
            kernel_gre.run_all(
                uml.run,
                [
                    kernel_gre.set_sysctl("net/ipv6/conf/eth0/disable_ipv6", 1),
                    kernel_gre.add_address("eth0", f"{SIDES['b'].underlay}/24"),
                    *(kernel_gre.add_address("eth1", address) for address in SIDES["b"].gateway),
                ],
            )
            self.peer = uml
        elif self.kernel == "host":
            self.peer = HostKernel(self.nodes["gw-b"])
        if self.peer is not None:
            self._configure(self.peer)
        self._save()

    def _configure(self, peer: UmlKernel | HostKernel) -> None:
        kernel_gre.run_all(
            peer.run,
            [
                kernel_gre.set_sysctl("net/ipv4/ip_forward", 1),
                kernel_gre.set_sysctl("net/ipv6/conf/all/forwarding", 1),
            ],
        )
        kernel_gre.configure(
            peer.run,
            name=KERNEL_TUNNEL,
            local=SIDES["b"].underlay,
            remote=SIDES["a"].underlay,
            key=self.key,
            addresses=SIDES["b"].tunnel,
            routes=SIDES["a"].prefixes,
        )

    def _save(self) -> None:
        uml = self.peer if isinstance(self.peer, UmlKernel) else None
        state = {
            "prefix": self.prefix,
            "kernel": self.kernel,
            "key": self.key,
            "namespaces": {name: str(node.path) for name, node in self.nodes.items()},
            "uml": uml and {"pid": uml.pid, "directory": str(uml.directory)},
        }
        (self._directory / "lab.json").write_text(json.dumps(state, indent=2) + "\n")


def _directory(prefix: str) -> Path:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", prefix):
        raise LabError(
            f"{prefix!r} cannot be a lab's prefix",
            remedy="use up to 32 small letters, digits and hyphens, a letter first",
        )
    return STATE_DIRECTORY / prefix


def _choose_kernel(kernel: Kernel) -> str:
    if kernel == "uml":
        return kernel
    if kernel_gre.host_has_ip_gre():
        return "host"
    if kernel == "auto":
        return "uml"
    raise LabError(
        "this host's kernel has no GRE driver",
        remedy="load the module ip_gre, or let User-Mode Linux be gateway B",
    )
