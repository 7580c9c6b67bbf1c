"""A gateway whose agent follows a network that tests change under it.

                    10.1.0.0/24                fra1: 192.0.2.0/24              10.2.0.0/24
    site-a ─────────────────── eth1  gw-a  eth0 ════════════════ eth0  gw-b  eth1 ────── site-b
    10.1.0.2                               eth2 ════════════════ eth2                  10.2.0.2
    2001:db8:a::2                              fra2: 192.0.3.0/24
                                           eth3 ──────────────── eth3   not in any configuration
                                               192.0.4.0/24

Both gateways have an agent. That of gw-a waits for two interfaces besides, ``lan9`` and ``eth5``,
and for its tunnel fra3 to 192.0.5.2 by the latter.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_helpers import CLI, agent
from gre_xdp.lab.topology import Link, Node, Topology
from gre_xdp.memory import Memory
from gre_xdp.netlink import Netlink, namespaces
from gre_xdp.netlink.links import Link as Device
from gre_xdp.netlink.links import list_links
from gre_xdp.netlink.neighbours import list_neighbours
from netns_helpers import Gateway, ping, wait_until

METRICS_PORT = 9747

NODES = [
    Node(
        "site-a",
        {"eth0": ("10.1.0.2/24", "2001:db8:a::2/64")},
        {"0.0.0.0/0": "10.1.0.1", "::/0": "2001:db8:a::1"},
    ),
    Node(
        "gw-a",
        {
            "eth0": ("192.0.2.1/24",),
            "eth1": ("10.1.0.1/24", "2001:db8:a::1/64"),
            "eth2": ("192.0.3.1/24",),
            "eth3": ("192.0.4.1/24",),
        },
    ),
    Node(
        "gw-b",
        {
            "eth0": ("192.0.2.2/24",),
            "eth1": ("10.2.0.1/24", "2001:db8:b::1/64"),
            "eth2": ("192.0.3.2/24",),
            "eth3": ("192.0.4.2/24",),
        },
    ),
    Node(
        "site-b",
        {"eth0": ("10.2.0.2/24", "2001:db8:b::2/64")},
        {"0.0.0.0/0": "10.2.0.1", "::/0": "2001:db8:b::1"},
    ),
]
LINKS = [
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "gw-b:eth0"),
    Link("gw-a:eth2", "gw-b:eth2"),
    Link("gw-a:eth3", "gw-b:eth3"),
    Link("gw-b:eth1", "site-b:eth0"),
]

TUNNELS = """
[[tunnel]]
name = "fra1"
local = "192.0.2.{here}"
remote = "192.0.2.{there}"
addresses = ["169.254.10.{here}/30", "fd00:10::{here}/64"]
routes = ["10.{there}.0.0/24", "2001:db8:{site}::/64"]

[[tunnel]]
name = "fra2"
local = "192.0.3.{here}"
remote = "192.0.3.{there}"
addresses = ["169.254.20.{here}/30"]
"""
CONFIG_A = (
    """
interface = [
    { name = "eth0" }, { name = "eth1" }, { name = "eth2" }, { name = "eth5" }, { name = "lan9" },
]
"""
    + TUNNELS.format(here=1, there=2, site="b")
    + """
[[tunnel]]
name = "fra3"
local = "192.0.5.1"
remote = "192.0.5.2"
addresses = ["169.254.30.1/30"]
"""
)
CONFIG_B = """
interface = [{ name = "eth0" }, { name = "eth1" }, { name = "eth2" }]
""" + TUNNELS.format(here=2, there=1, site="a")


@dataclass
class Stand:
    """The network with its agents running."""

    network: Topology
    process: subprocess.Popen[bytes]
    log: Path
    toml: str

    def __post_init__(self) -> None:
        self.gw_a = Gateway(self.network.nodes["gw-a"])
        self.gw_b = Gateway(self.network.nodes["gw-b"])
        self.site_a = self.network.nodes["site-a"]
        self.site_b = self.network.nodes["site-b"]
        self._log_from = 0

    def run(self, *lines: str) -> None:
        """Run commands, each written "node word word…"; "@node" stands for a namespace's name."""
        for line in lines:
            node, *words = line.split()
            named = [re.sub(r"^@(.+)$", rf"{self.network.prefix}-\1", word) for word in words]
            self.network.nodes[node].run(named)

    # --- what is the case -----------------------------------------------------------------------

    def state(self, tunnel: str) -> str:
        return self.gw_a.tunnel(tunnel).state

    def links(self) -> dict[str, Device]:
        def read() -> dict[str, Device]:
            with Netlink() as netlink:
                return list_links(netlink)

        return self.gw_a.call(read)

    def next_hops(self) -> set[tuple[str, str]]:
        """Interface and address of the next hops that are kept."""

        def read() -> set[tuple[str, str]]:
            with Netlink() as netlink:
                names = {link.index: link.name for link in list_links(netlink).values()}
                return {
                    (names[found.ifindex], str(found.address))
                    for found in list_neighbours(netlink)
                    if found.is_kept
                }

        return self.gw_a.call(read)

    def attached(self) -> dict[str, int]:
        """Interfaces that run the program, and their indices."""
        return {each.name: each.ifindex for each in self.gw_a.snapshot().interfaces}

    def waiting(self) -> dict[str, str]:
        return Memory.of_namespace(self.gw_a.call(namespaces.cookie)).waiting

    def crosses(self) -> bool:
        """Does a packet get from one site to the other and back, IPv4 and IPv6?"""
        return all(
            ping(self.site_a, address, "-W", "0.3", count=1) == 1
            for address in ("10.2.0.2", "2001:db8:b::2")
        )

    def crosses_back(self) -> bool:
        return ping(self.site_b, "10.1.0.2", "-W", "0.3", count=1) == 1

    def crosses_fra2(self) -> bool:
        return ping(self.gw_a.namespace, "169.254.20.2", "-W", "0.3", count=1) == 1

    def metric(self, name: str, gateway: Gateway | None = None) -> float:
        text = (gateway or self.gw_a).call(_scrape)
        found = re.search(rf"^gre_xdp_{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    def mark_log(self) -> None:
        self._log_from = self.log.stat().st_size

    def logged(self, words: str) -> bool:
        """Has the agent said this since ``mark_log``?"""
        return words in self.log.read_bytes()[self._log_from :].decode()

    def is_well(self) -> bool:
        """Is all as it was at the beginning?"""
        return (
            self.state("fra1") == self.state("fra2") == "up"
            and self.crosses()
            and self.crosses_fra2()
            and self.gw_a.diff(self.toml) == []
            and set(self.waiting()) == {"interface eth5", "interface lan9"}
        )

    def cpu_s(self) -> float:
        """Processor time of gw-a's agent so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _scrape() -> str:
    with socket.create_connection(("127.0.0.1", METRICS_PORT), timeout=5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


@contextmanager
def stand(
    directory: Path, *, drift: str = "repair", prefix: str = "gxf", command: Sequence[str] = CLI
) -> Iterator[Stand]:
    """Everything built and well; taken down at the end. ``command`` is gw-a's ``gre-xdp``."""
    toml = f'drift = "{drift}"\n' + CONFIG_A
    with ExitStack() as stack:
        name = f"{prefix}{os.getpid() % 100000}"
        network = stack.enter_context(Topology(name, NODES, LINKS))
        gateways = [Gateway(network.nodes[node]) for node in ("gw-b", "gw-a")]
        for gateway in gateways:
            stack.callback(gateway.down)
        processes = []
        agents = ((CONFIG_B, CLI), (toml, command))
        for gateway, (text, its_command) in zip(gateways, agents, strict=True):
            place = directory / gateway.namespace.name
            place.mkdir()
            processes.append(stack.enter_context(agent(gateway, place, text, command=its_command)))
        found = Stand(network, processes[1], place / "agent.log", toml)
        assert wait_until(found.is_well, 10), found.log.read_text()
        yield found


def took_s(condition: Callable[[], bool], timeout_s: float) -> float | None:
    """After how long a condition was found true, in seconds; None if it was not in time.

    The look counts from its beginning: how long looking takes is the test's, not the agent's.
    """
    started = time.monotonic()
    while (at := time.monotonic() - started) < timeout_s:
        if condition():
            return at
        time.sleep(0.01)
    return None
