"""Cost of the programs per packet, side by side with a program that does nothing.

Measured by BPF_PROG_RUN over one frame at a time, in a namespace made for it: warm caches, no NIC.
Figures of one run compare with each other, not with those of another machine or time.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Ether

from gre_xdp import bpf, config, reconcile
from gre_xdp.datapath import DataPath, source_digest
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from gre_xdp.netlink import Netlink, namespaces
from gre_xdp.netlink.links import list_links
from gre_xdp.pins import Pins

ROUNDS = 7
RUNS_PER_ROUND = 5_000
FLOOR = "nothing (XDP_PASS)"

_CONFIG = """
exporter = ""
[[interface]]
name = "eth0"
[[interface]]
name = "eth1"
[[tunnel]]
name = "plain"
local = "192.0.2.1"
remote = "192.0.2.2"
routes = ["10.2.0.0/16"]
[[tunnel]]
name = "keyed"
local = "192.0.2.1"
remote = "192.0.2.3"
key = 77
routes = ["10.3.0.0/16"]
"""
_NODES = (
    Node("gw", {"eth0": ("192.0.2.1/24",), "eth1": ("10.1.0.1/24",)}),
    Node("underlay", {"eth0": ("192.0.2.2/24", "192.0.2.3/24")}),
    Node("lan", {"eth0": ("10.1.0.2/24",)}),
)
_LINKS = (Link("underlay:eth0", "gw:eth0"), Link("lan:eth0", "gw:eth1"))
_PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of packet: median over rounds of the mean time per run, in nanoseconds."""

    name: str
    verdict: str
    median_ns: float
    spread_ns: float  # half of the range between the rounds


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    verdict: str
    program: str  # "port" or "floor"
    interface: str
    frame: bytes


def run(rounds: int = ROUNDS, runs: int = RUNS_PER_ROUND) -> list[Cost]:
    """Measure, rounds interleaved; the first row is the floor. Raises ``GreXdpError``."""
    with _gateway() as gateway:
        return gateway.call(partial(_measure, rounds, runs))


@contextmanager
def _gateway() -> Iterator[Namespace]:
    with Topology(f"gxbench{os.getpid()}", _NODES, _LINKS) as network:
        gateway = network.nodes["gw"]
        try:
            gateway.call(partial(reconcile.apply, config.parse(_CONFIG, "bench")))
            # A resolved LAN neighbour: what is measured is forwarding, not learning.
            gateway.run(["ping", "-c", "1", "-W", "1", "10.1.0.2"])
            yield gateway
        finally:
            gateway.call(reconcile.down)


def _measure(rounds: int, runs: int) -> list[Cost]:
    data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
    assert data_path is not None
    with Netlink() as netlink:
        links = list_links(netlink)
    macs = {name: link.mac for name, link in links.items()}
    times: dict[str, list[float]] = {}
    cases = _cases(macs)
    try:
        with (
            data_path.open_program(source_digest(), "port") as port,
            bpf.owned(bpf.prog_load("floor", _PASS, [])) as floor,
        ):
            for _ in range(rounds):
                for case in cases:
                    program = floor if case.program == "floor" else port
                    ifindex = links[case.interface].index
                    results = [bpf.prog_run(program, case.frame, ifindex) for _ in range(runs)]
                    assert results[-1].verdict == case.verdict, (case, results[-1])
                    mean = statistics.fmean(result.duration_ns for result in results)
                    times.setdefault(case.name, []).append(mean)
    finally:
        data_path.close()
    return [
        Cost(
            name=case.name,
            verdict=case.verdict,
            median_ns=statistics.median(times[case.name]),
            spread_ns=(max(times[case.name]) - min(times[case.name])) / 2,
        )
        for case in cases
    ]


# --- frames ---------------------------------------------------------------------------------------


def _cases(macs: dict[str, str]) -> list[_Case]:
    payload = UDP(sport=1, dport=9) / bytes(28)

    def lan(destination: str) -> bytes:
        return bytes(Ether(dst=macs["eth1"]) / IP(src="10.1.0.2", dst=destination) / payload)

    def gre(remote: str, key: int | None = None) -> bytes:
        header = GRE(proto=0x0800, key_present=int(key is not None), key=key)
        inner = IP(src="10.2.0.2", dst="10.1.0.2") / payload
        return bytes(Ether(dst=macs["eth0"]) / IP(src=remote, dst="192.0.2.1") / header / inner)

    return [
        _Case(FLOOR, "pass", "floor", "eth1", lan("10.1.0.1")),
        _Case("unrelated traffic", "pass", "port", "eth1", lan("10.1.0.1")),
        _Case("GRE from an unknown remote", "drop", "port", "eth0", gre("203.0.113.9")),
        _Case("GRE with a wrong key", "drop", "port", "eth0", gre("192.0.2.3", 1)),
        _Case("decap", "redirect", "port", "eth0", gre("192.0.2.2")),
        _Case("decap, key", "redirect", "port", "eth0", gre("192.0.2.3", 77)),
        _Case("encap", "redirect", "port", "eth1", lan("10.2.0.2")),
        _Case("encap, key", "redirect", "port", "eth1", lan("10.3.0.2")),
    ]
