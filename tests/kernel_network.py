"""Many tunnels at once between gre-xdp and a stock kernel in User-Mode Linux, over one underlay.

Tunnel number n joins 10.1.n.0/24 and 10.2.n.0/24, and the same in IPv6:

           10.1.0.0/16              192.0.2.0/24             10.2.0.0/16
           2001:db8:a::/48          2001:db8:ff::/64         2001:db8:b::/48
    site-a ─────────────── gw-a ═══════════════════ UML ──────────────── site-b
       eth0             eth1  eth0               eth0  eth1             eth0
    10.1.n.2         gre-xdp  192.0.2.1   192.0.2.(50+n)             10.2.n.2
    2001:db8:a:n::2    2001:db8:ff::1     2001:db8:ff::(50+n)        2001:db8:b:n::2

                       tn  10.3.n.1 ─────── 10.3.n.2  tn
                  2001:db8:c:n::1 ───────── 2001:db8:c:n::2

A route into a tunnel for frames goes to the peer's address there, as on any Ethernet.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gre_xdp.lab import kernel_gre
from gre_xdp.lab.topology import Link, Node, Tap, Topology
from gre_xdp.lab.uml import UmlKernel
from netns_helpers import Gateway

Side = Literal["a", "b"]
Family = Literal["ipv4", "ipv6"]
FAMILIES: Final[tuple[Family, ...]] = ("ipv4", "ipv6")
KINDS: Final = ("gre", "ip6gre", "gretap", "ip6gretap")
LOCAL: Final = {"ipv4": "192.0.2.1", "ipv6": "2001:db8:ff::1"}
# The gateways' addresses in their sites.
GATES: Final = {"a": ("10.1.0.1", "2001:db8:a::1"), "b": ("10.2.0.1", "2001:db8:b::1")}
CONFIGURE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a tunnel: ``ours`` in keys of TOML, ``theirs`` in words of ``ip link``.

    ``number`` is 1 to 99, a part of its addresses; ``families`` are those of what it carries.
    """

    number: int
    kind: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    families: tuple[Family, ...] = FAMILIES

    @property
    def name(self) -> str:
        """The name of the device, at both ends."""
        return f"t{self.number}"

    @property
    def is_tap(self) -> bool:
        """Whether it carries Ethernet frames."""
        return self.kind.endswith("tap")

    @property
    def outer(self) -> Family:
        """The family of the underlay."""
        return "ipv6" if self.kind.startswith("ip6") else "ipv4"

    @property
    def remote(self) -> str:
        """The kernel's end, an address of this tunnel alone."""
        host = 50 + self.number
        return f"2001:db8:ff::{host}" if self.outer == "ipv6" else f"192.0.2.{host}"

    def host(self, side: Side, family: Family) -> str:
        """A host of a site whose way to its opposite is this tunnel."""
        if family == "ipv6":
            return f"2001:db8:{side}:{self.number}::2"
        return f"10.{'1' if side == 'a' else '2'}.{self.number}.2"

    def network(self, side: Side, family: Family) -> str:
        """What is behind this tunnel at a site."""
        if family == "ipv6":
            return f"2001:db8:{side}:{self.number}::/64"
        return f"10.{'1' if side == 'a' else '2'}.{self.number}.0/24"

    def inner(self, side: Side, family: Family) -> str:
        """The address of a tunnel's end inside it."""
        host = "1" if side == "a" else "2"
        if family == "ipv6":
            return f"2001:db8:c:{self.number}::{host}"
        return f"10.3.{self.number}.{host}"

    def interface(self, side: Side, family: Family) -> str:
        """The same with its prefix length."""
        return f"{self.inner(side, family)}/{64 if family == 'ipv6' else 30}"

    def toml(self) -> str:
        """Our end, with routes unless it carries frames: their next hop is the kernel's to know."""
        routes = [] if self.is_tap else [self.network("b", family) for family in self.families]
        addresses = [self.interface("a", family) for family in self.families]
        return "\n".join(
            [
                "[[tunnel]]",
                f'name = "{self.name}"',
                f'local = "{LOCAL[self.outer]}"',
                f'remote = "{self.remote}"',
                f'payload = "{"ethernet" if self.is_tap else "ip"}"',
                f"addresses = {json.dumps(addresses)}",
                f"routes = {json.dumps(routes)}",
                *self.ours,
                "",
            ]
        )

    def our_routes(self) -> list[str]:
        """What the user of a tunnel for frames routes by himself, in words of ``ip``."""
        if not self.is_tap:
            return []
        return [
            f"route add {self.network('b', family)} via {self.inner('b', family)}"
            for family in self.families
        ]

    def their_end(self) -> list[str]:
        """The kernel's end with its addresses and routes, in words of ``ip``."""
        prefix = "128" if self.outer == "ipv6" else "32"
        return [
            f"address add {self.remote}/{prefix} dev eth0",
            f"link add {self.name} type {self.kind} local {self.remote}"
            f" remote {LOCAL[self.outer]} ttl 64 {' '.join(self.theirs)}",
            f"link set {self.name} up",
            *(
                f"address add {self.interface('b', family)} dev {self.name}"
                for family in self.families
            ),
            *(
                f"route add {self.network('a', family)} "
                + (f"via {self.inner('a', family)}" if self.is_tap else f"dev {self.name}")
                for family in self.families
            ),
        ]


class KernelNetwork:
    """The network above, up: its namespaces and the kernel's command channel."""

    def __init__(self, network: Topology, kernel: UmlKernel, directory: Path) -> None:
        self.site_a = network.nodes["site-a"]
        self.site_b = network.nodes["site-b"]
        self.gateway = Gateway(network.nodes["gw-a"])
        self.kernel = kernel
        self._directory = directory
        self._batches = itertools.count()

    def tell_kernel(self, lines: Sequence[str], options: str = "") -> None:
        """Have the kernel's ``ip`` carry out a file of commands: it reads this host's files."""
        # A new one each time: what the kernel has read of a file it may remember.
        batch = self._directory / f"batch{next(self._batches)}"
        batch.write_text("\n".join(lines) + "\n")
        status, output = self.kernel.run(
            f"ip {options} -batch {batch}", timeout=CONFIGURE_TIMEOUT_S
        )
        assert status == 0, output

    def join(self, pairs: Sequence[Pair], strangers: Sequence[Pair] = ()) -> None:
        """Configure all tunnels on both sides; of ``strangers`` our side knows nothing."""
        self.tell_kernel([line for pair in (*pairs, *strangers) for line in pair.their_end()])
        interfaces = ['exporter = ""', *(f'[[interface]]\nname = "eth{i}"' for i in (0, 1)), ""]
        self.gateway.apply("\n".join([*interfaces, *(pair.toml() for pair in pairs)]))
        routes = [line for pair in pairs for line in pair.our_routes()]
        self.gateway.run(["ip", "-batch", "-"], stdin="\n".join(routes) + "\n")

    def kernel_mtus(self) -> dict[str, int]:
        """The MTU in bytes of each device of the kernel."""
        _, output = self.kernel.run("ip -json link")
        return {link["ifname"]: link["mtu"] for link in json.loads(output)}


@contextlib.contextmanager
def kernel_network(prefix: str, directory: Path, numbers: Sequence[int]) -> Iterator[KernelNetwork]:
    """Build the network for tunnels of these numbers, boot the kernel; take down both after use.

    ``directory`` is empty and visible to User-Mode Linux, so not in /run or /mnt.
    """
    nodes = [
        _site("a", numbers),
        Node(
            "gw-a",
            {"eth0": (f"{LOCAL['ipv4']}/24", f"{LOCAL['ipv6']}/64"), "eth1": _gate("a")},
        ),
        _site("b", numbers),
    ]
    links = [Link("site-a:eth0", "gw-a:eth1")]
    taps = [Tap("gw-a:eth0"), Tap("site-b:eth0")]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Topology(prefix, nodes, links, taps))
        kernel_directory = directory / "kernel"
        kernel_directory.mkdir()
        kernel = UmlKernel.start(kernel_directory, list(network.tap_fds.values()))
        stack.callback(kernel.stop)
        network.close_taps()
        kernel_gre.run_all(
            kernel.run,
            [
                kernel_gre.set_sysctl("net/ipv4/ip_forward", 1),
                kernel_gre.set_sysctl("net/ipv6/conf/all/forwarding", 1),
                # On link is the whole underlay, whatever addresses tunnels take of it.
                kernel_gre.add_address("eth0", "192.0.2.2/24"),
                kernel_gre.add_address("eth0", "2001:db8:ff::2/64"),
                *(kernel_gre.add_address("eth1", address) for address in _gate("b")),
            ],
        )
        found = KernelNetwork(network, kernel, directory)
        stack.callback(found.gateway.down)
        yield found


def _gate(side: Side) -> tuple[str, str]:
    ipv4, ipv6 = GATES[side]
    return f"{ipv4}/16", f"{ipv6}/48"


def _site(side: Side, numbers: Sequence[int]) -> Node:
    pairs = [Pair(number, "gre") for number in numbers]
    addresses = [
        f"{pair.host(side, family)}/{48 if family == 'ipv6' else 16}"
        for pair in pairs
        for family in FAMILIES
    ]
    defaults = zip(("0.0.0.0/0", "::/0"), GATES[side], strict=True)
    return Node(f"site-{side}", {"eth0": tuple(addresses)}, dict(defaults))
