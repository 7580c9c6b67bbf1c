"""Two sites with traffic both ways, and a gateway that everything is done to.

         10.1.0.0/24           192.0.2.0/24           10.2.0.0/24
  site-a ─────────── eth1 gw-a eth0 ═══════ eth0 gw-b eth1 ─────────── site-b
                     eth2 ─── spare

Packets from site-a meet encap on gw-a, packets from site-b decap. Nobody speaks IPv6, so that
nothing but this traffic is in the tunnel, and counters can be compared with what was sent.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from agent_helpers import CLI
from gre_xdp.lab.topology import Link, Node, Topology
from netns_helpers import Gateway, wait_until
from traffic import scraper
from traffic.flow import Account, Flow, Host

TUNNEL = "fra1"
KEY = 7
START_TIMEOUT_S = 30.0
# How much traffic each thing that is done has to meet.
_PACKETS_BETWEEN = 200

Keeper = Literal["agent", "exporter", "nobody"]

_NODES = (
    Node("site-a", {"eth0": ("10.1.0.2/24",)}, {"0.0.0.0/0": "10.1.0.1"}),
    Node("gw-a", {"eth0": ("192.0.2.1/24",), "eth1": ("10.1.0.1/24",), "eth2": ()}),
    Node("gw-b", {"eth0": ("192.0.2.2/24",), "eth1": ("10.2.0.1/24",)}),
    Node("site-b", {"eth0": ("10.2.0.2/24",)}, {"0.0.0.0/0": "10.2.0.1"}),
    Node("spare", {"eth0": ()}),
)
_LINKS = (
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
    Link("spare:eth0", "gw-a:eth2"),
)


def gateway_a(
    settings: str = "",
    *,
    interfaces: tuple[str, ...] = ("eth0", "eth1"),
    addresses: tuple[str, ...] = ("169.254.10.1/30",),
    routes: tuple[str, ...] = ("10.2.0.0/24",),
    others: Mapping[str, int] | None = None,
) -> str:
    """The configuration under test: the tunnel with more ``settings``, and ``others`` by key."""
    tables = [f'exporter = "127.0.0.1:{scraper.PORT}"']
    tables += [f'[[interface]]\nname = "{name}"' for name in interfaces]
    # Sequence numbers: should they ever start anew, nothing arrives.
    tables.append(f"""[[tunnel]]
name = "{TUNNEL}"
local = "192.0.2.1"
remote = "192.0.2.2"
key = {KEY}
seq = true
addresses = {list(addresses)}
routes = {list(routes)}
{settings}""")
    for name, key in (others if others is not None else {"ams1": 100}).items():
        tables.append(f"""[[tunnel]]
name = "{name}"
local = "192.0.2.1"
remote = "192.0.2.2"
key = {key}
routes = ["10.{100 + key}.0.0/16"]""")
    return "\n\n".join(tables).replace("'", '"') + "\n"


BASE = gateway_a()

_GATEWAY_B = """
exporter = ""
interface = [{ name = "eth0" }, { name = "eth1" }]
[[tunnel]]
name = "fra1"
local = "192.0.2.2"
remote = "192.0.2.1"
key = 7
seq = true
routes = ["10.1.0.0/24"]
"""


class Bed:
    """The network, who keeps gw-a, and the traffic."""

    def __init__(self, network: Topology, directory: Path) -> None:
        self.gateway = Gateway(network.nodes["gw-a"])
        self.peer = Gateway(network.nodes["gw-b"])
        self.path = directory / "config.toml"
        self.log = directory / "log"
        self._hosts = (
            Host(network.nodes["site-a"], "eth0", "10.1.0.2"),
            Host(network.nodes["site-b"], "eth0", "10.2.0.2"),
        )
        self._lans = (
            Host(network.nodes["gw-a"], "eth1", "10.1.0.1"),
            Host(network.nodes["gw-b"], "eth1", "10.2.0.1"),
        )
        self._flows: list[Flow] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._keeper: Keeper | None = None

    def prepare(self) -> None:
        """Configure both gateways."""
        for gateway in (self.gateway, self.peer):
            gateway.namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        # The LANs' neighbours are other tests' subject.
        for lan, host in zip(self._lans, self._hosts, strict=True):
            lan.namespace.run(
                ["ip", "neigh", "replace", host.address, "lladdr", host.link().mac, "dev", "eth1"]
            )
        self.gateway.apply(BASE)
        self.peer.apply(_GATEWAY_B)

    # --- who keeps the gateway ------------------------------------------------------------------

    def keep(self, keeper: Keeper) -> None:
        """Have an agent keep the gateway, or only an exporter serve its metrics."""
        if self.process is not None and self._keeper != keeper:
            self.stop()
        if self.process is None and keeper != "nobody":
            self.start(keeper)
            self.wait_for_answer()

    def start(self, keeper: Keeper) -> None:
        """Start one; it may need a while."""
        arguments = {
            "agent": [str(self.path)],
            "exporter": ["--listen", f"127.0.0.1:{scraper.PORT}"],
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*CLI, "--netns", self.gateway.namespace.name, keeper, *arguments[keeper]],
                stdout=log,
                stderr=log,
            )
        self._keeper = keeper

    def wait_for_answer(self) -> None:
        """Wait until the metrics can be had."""
        assert wait_until(self.answers, START_TIMEOUT_S), self.log.read_text()

    def answers(self) -> bool:
        """Can the metrics be had?"""
        try:
            return bool(scraper.read(self.gateway.namespace))
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it as a service manager does."""
        if self.process is not None:
            self.process.terminate()
            status = self.process.wait(START_TIMEOUT_S)
            # The exporter has nothing to put in order, and ends by the signal.
            assert status == 0 or self._keeper == "exporter", self.log.read_text()
            self.process = None

    def kill(self) -> None:
        """Stop it with kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_TIMEOUT_S)
        self.process = None

    def logged(self) -> int:
        """How long the log is."""
        return self.log.stat().st_size if self.log.exists() else 0

    def wait_for_log(self, words: str, since: int) -> None:
        """Wait until something is logged after a time at which the log was that long."""
        assert wait_until(
            lambda: words in self.log.read_bytes()[since:].decode(), START_TIMEOUT_S
        ), self.log.read_bytes()[since:].decode()

    def cli(self, *arguments: str) -> None:
        """Run a command on the gateway and its file."""
        done = subprocess.run(
            [*CLI, "--netns", self.gateway.namespace.name, *arguments, str(self.path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    # --- traffic --------------------------------------------------------------------------------

    def counted(self) -> tuple[float, float]:
        """What the tunnel has sent and received, of the metrics if somebody serves them."""
        if self.process is not None:
            return scraper.tunnel_packets(scraper.read(self.gateway.namespace), TUNNEL)
        counters = self.gateway.tunnel(TUNNEL).counters
        return counters.tx_packets, counters.rx_packets

    def flow(self) -> tuple[int, ...]:
        """How many packets have arrived of either direction."""
        return tuple(flow.arrived() for flow in self._flows)

    def meet(self, packets: int = _PACKETS_BETWEEN) -> None:
        """Let this many packets more arrive in both directions."""
        goals = [arrived + packets for arrived in self.flow()]
        assert wait_until(
            lambda: all(at >= goal for at, goal in zip(self.flow(), goals, strict=True)), 20
        ), f"traffic has stopped: {self.flow()} of {goals}"

    @contextmanager
    def traffic(self) -> Iterator[list[Account]]:
        """Packets in both directions while the block runs, and afterwards their accounts."""
        accounts: list[Account] = []
        hosts, lans = self._hosts, self._lans
        self._flows = [
            Flow(hosts[0], hosts[1], lans[0].link().mac),
            Flow(hosts[1], hosts[0], lans[1].link().mac),
        ]
        try:
            for flow in self._flows:
                flow.start()
            yield accounts
            accounts += [flow.stop() for flow in self._flows]
        finally:
            for flow in self._flows:
                flow.close()
            self._flows = []


@contextmanager
def bed(directory: Path) -> Iterator[Bed]:
    """Build it; all of it is gone afterwards."""
    with Topology(f"gxr{os.getpid() % 100000}", _NODES, _LINKS) as network:
        built = Bed(network, directory)
        try:
            built.path.write_text(BASE)
            built.prepare()
            yield built
        finally:
            if built.process is not None:
                built.kill()
            built.gateway.down()
            built.peer.down()
