"""A tunnel that the peer has set up differently says what is different.

site-a ─── gw-a (gre-xdp) ═══ underlay, IPv4 and IPv6 ═══ UML kernel ─── site-b

One tunnel for each mismatch and kind, see ``kernel_network`` for all addresses. The kernel speaks
no IPv6 in them and knows its neighbours, so that nothing is counted but what a test sends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import product

import pytest

from kernel_network import KINDS, KernelNetwork, Pair, kernel_network
from netns_helpers import wait_until

PACKETS = 3
DISCARD_PORT = 9

# What differs: our end, the kernel's end, and the reason of the drop.
MISMATCHES = {
    "no-checksum": (("csum = true",), (), "gre_checksum_missing"),
    "no-sequence": (("seq = true",), (), "gre_sequence_missing"),
    "key-wrong": (("key = 77",), ("key", "78"), "key_mismatch"),
    "key-missing": (("key = 77",), (), "key_mismatch"),
    "key-unexpected": ((), ("key", "77"), "key_mismatch"),
    "key-zero-missing": (("key = 0",), (), "key_mismatch"),
    "key-zero-unexpected": ((), ("key", "0"), "key_mismatch"),
    "keys-not-crossed": (("ikey = 5", "okey = 6"), ("ikey", "5", "okey", "6"), "key_mismatch"),
    "stranger": ((), (), "unknown_tunnel"),
}
CASES = {
    f"{kind}-{mismatch}": Pair(number, kind, *MISMATCHES[mismatch][:2], families=("ipv4",))
    for number, (kind, mismatch) in enumerate(product(KINDS, MISMATCHES), start=1)
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelNetwork]:
    """One boot and one configuration for all cases; of strangers our side knows nothing."""
    directory = tmp_path_factory.mktemp("mismatch")
    numbers = [pair.number for pair in CASES.values()]
    strangers = [pair for name, pair in CASES.items() if name.endswith("stranger")]
    with kernel_network(f"gxmismatch{os.getpid() % 10000}", directory, numbers) as found:
        found.kernel.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
        found.join([pair for pair in CASES.values() if pair not in strangers], strangers)
        found.tell_kernel(
            [
                f"neighbour add {pair.inner('a', 'ipv4')} lladdr 02:00:00:00:00:01 dev {pair.name}"
                for pair in CASES.values()
                if pair.is_tap
            ]
        )
        yield found


@pytest.mark.parametrize("case", CASES)
def test_a_mismatch_has_a_name(network: KernelNetwork, case: str) -> None:
    """Each packet of a peer that differs is dropped for the reason that says how, and only that."""
    pair = CASES[case]
    reason = MISMATCHES[case.removeprefix(f"{pair.kind}-")][2]
    gateway = network.gateway
    before = gateway.snapshot()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((pair.host("b", "ipv4"), 0))
            for _ in range(PACKETS):
                sender.sendto(b"mismatch", (pair.host("a", "ipv4"), DISCARD_PORT))

    def gained() -> dict[str, int]:
        counts = zip(before.drops, gateway.snapshot().drops, strict=True)
        return {new.reason.name: new.count - old.count for old, new in counts if new != old}

    network.site_b.call(send)
    wait_until(lambda: gained().get(reason, 0) >= PACKETS)
    assert gained() == {reason: PACKETS}
    received = [tunnel.counters.rx_packets for tunnel in gateway.snapshot().tunnels]
    assert received == [tunnel.counters.rx_packets for tunnel in before.tunnels]
