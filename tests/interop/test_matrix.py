"""Every kind of tunnel with every header, against a stock kernel: all 48 at once, both ways.

site-a ─── gw-a (gre-xdp) ═══ underlay, IPv4 and IPv6 ═══ UML kernel ─── site-b

Tunnel n is the way between 10.1.n.2 and 10.2.n.2, and 2001:db8:a:n::2 and 2001:db8:b:n::2; see
``kernel_network`` for all addresses and ``interop_matrix`` for what each tunnel is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from gre_xdp.lab.topology import Namespace
from gre_xdp.status import ReasonCount, Snapshot, TunnelStatus
from interop_matrix import CELLS, TUNNELS, Cell, Tunnel
from kernel_network import KernelNetwork, kernel_network
from netns_helpers import ping, transfer

TRANSFER_BYTES = 256 << 10
SIZES = (64, 1400)
PINGS_AT_ONCE = 3
WAIT_S = 10.0
# Of an inner IP header and of ICMP's.
PING_HEADER_BYTES = {"ipv4": 28, "ipv6": 48}
# What Destination Options with a Tunnel Encapsulation Limit take (RFC 2473).
ENCAPLIMIT_BYTES = 8


class Matrix:
    """All tunnels, and what was counted so far."""

    def __init__(self, network: KernelNetwork) -> None:
        self.network = network
        self.kernel_mtus = network.kernel_mtus()
        self.first = self.last = network.gateway.snapshot()

    def count(self) -> tuple[Snapshot, Snapshot]:
        """What was counted until the last call, and until now."""
        before, self.last = self.last, self.network.gateway.snapshot()
        return before, self.last


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """One boot and one configuration for all cells."""
    directory = tmp_path_factory.mktemp("matrix")
    numbers = [tunnel.pair.number for tunnel in TUNNELS]
    with kernel_network(f"gxmatrix{os.getpid() % 100000}", directory, numbers) as network:
        network.join([tunnel.pair for tunnel in TUNNELS])
        yield Matrix(network)


def status_of(tunnel: Tunnel, snapshot: Snapshot) -> TunnelStatus:
    return next(status for status in snapshot.tunnels if status.name == tunnel.pair.name)


def gained(before: Sequence[ReasonCount], after: Sequence[ReasonCount]) -> dict[str, int]:
    """Reasons that were met in between, and how often."""
    counts = {
        old.reason.name: new.count - old.count for old, new in zip(before, after, strict=True)
    }
    return {reason: count for reason, count in counts.items() if count}


def test_mtu(matrix: Matrix) -> None:
    """The kernel finds the same MTU for each tunnel, less the options that it alone adds."""
    ours = {tunnel.pair.name: status_of(tunnel, matrix.first).mtu for tunnel in TUNNELS}
    added = {
        tunnel.pair.name: ENCAPLIMIT_BYTES
        for tunnel in TUNNELS
        if tunnel.pair.outer == "ipv6" and "encaplimit" not in tunnel.pair.theirs
    }
    theirs = {name: matrix.kernel_mtus[name] + added.get(name, 0) for name in ours}
    assert ours == theirs


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(matrix: Matrix, cell: Cell) -> None:
    """Unfragmented pings of each size and TCP arrive both ways, all of it by XDP, nothing lost."""
    tunnel, family, network = cell.tunnel, cell.family, matrix.network
    pair, site_a, site_b = tunnel.pair, network.site_a, network.site_b
    host_a, host_b = pair.host("a", family), pair.host("b", family)
    mtu = min(status_of(tunnel, matrix.last).mtu, matrix.kernel_mtus[pair.name])

    def echo(source: Namespace, here: str, there: str, size: int) -> int:
        payload = str(size - PING_HEADER_BYTES[family])
        return ping(source, there, "-I", here, "-M", "do", "-s", payload, count=1)

    pings = [
        (*way, size)
        for size in (*SIZES, mtu)
        for way in ((site_a, host_a, host_b), (site_b, host_b, host_a))
    ]
    try:
        with ThreadPoolExecutor(PINGS_AT_ONCE) as threads:
            replies = list(threads.map(echo, *zip(*pings, strict=True)))
        assert replies == [1] * len(pings)
        assert transfer(site_a, site_b, host_b, TRANSFER_BYTES, WAIT_S, from_address=host_a)
        assert transfer(site_b, site_a, host_a, TRANSFER_BYTES, WAIT_S, from_address=host_b)
    finally:
        # Also of a failure, so that the next cell does not count what is not its own.
        before, after = matrix.count()
    old, new = (status_of(tunnel, snapshot).counters for snapshot in (before, after))
    packets = len(pings) + TRANSFER_BYTES // mtu
    assert new.rx_packets - old.rx_packets >= packets
    assert new.tx_packets - old.tx_packets >= packets
    assert new.rx_bytes - old.rx_bytes > TRANSFER_BYTES
    assert new.tx_bytes - old.tx_bytes > TRANSFER_BYTES
    assert gained(before.drops, after.drops) == {}
    passed = gained(before.passes, after.passes)
    frames = passed.pop("ethernet", 0)
    # Frames are the kernel's to route, in both directions, and other tunnels have their chatter;
    # packets are the kernel's only until XDP knows the host.
    assert (frames >= 2 * packets) == pair.is_tap
    assert sum(passed.values()) <= packets // 10


def test_nothing_was_dropped(matrix: Matrix) -> None:
    """Over the whole matrix no packet met a reason to drop it."""
    assert gained(matrix.first.drops, matrix.network.gateway.snapshot().drops) == {}
