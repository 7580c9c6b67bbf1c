"""MPLS in GRE (RFC 4023) to and from a stock kernel that pushes and pops labels.

    labelled packets                                     pops, and routes to site-b
      on tn ─── gw-a (gre-xdp) ═══ underlay ═══ UML kernel (mpls_router) ─── site-b

gw-a only carries them: it needs no MPLS of its kernel. See ``kernel_network`` for all addresses.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from kernel_network import FAMILIES, Family, KernelNetwork, Pair, Side, kernel_network
from netns_helpers import send_frames

ETH_P_MPLS_UC = 0x8847
PORT = 4242
WAIT_S = 5.0
LABEL_BYTES = 4
UDP_HEADER_BYTES = {"ipv4": 28, "ipv6": 48}
TTL = 64
LABELS = 10000

FULL = (("key = 77", "csum = true", "seq = true"), ("key", "77", "csum", "seq"))
PAIRS = {
    "gre": Pair(1, "gre"),
    "gre-key-csum-seq": Pair(2, "gre", *FULL),
    "ip6gre": Pair(3, "ip6gre"),
    "ip6gre-key-csum-seq": Pair(4, "ip6gre", *FULL),
}
CASES = [
    pytest.param(pair, family, id=f"{name}-{family}")
    for (name, pair), family in product(PAIRS.items(), FAMILIES)
]


def popped_label(pair: Pair, family: Family) -> int:
    """The label by which the kernel knows a host of site-b."""
    return 1000 + 10 * pair.number + FAMILIES.index(family)


def pushed_label(pair: Pair, family: Family) -> int:
    """The label that the kernel pushes on what goes to site-a."""
    return 2000 + 10 * pair.number + FAMILIES.index(family)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelNetwork]:
    """One boot; the kernel pops labels that it gets and pushes labels on all that it sends."""
    directory = tmp_path_factory.mktemp("mpls")
    pairs = list(PAIRS.values())
    with kernel_network(
        f"gxmpls{os.getpid() % 100000}", directory, [pair.number for pair in pairs]
    ) as found:
        found.join(pairs)
        status, output = found.kernel.run(
            "\n".join(
                [
                    "set -e",
                    "modprobe -d /mnt -a mpls_router mpls_iptunnel mpls_gso",
                    f"echo {LABELS} >/proc/sys/net/mpls/platform_labels",
                    *(f"echo 1 >/proc/sys/net/mpls/conf/{pair.name}/input" for pair in pairs),
                ]
            )
        )
        assert status == 0, output
        found.tell_kernel(
            [
                f"route add {popped_label(pair, family)} via"
                f" {'inet6' if family == 'ipv6' else 'inet'} {pair.host('b', family)} dev eth1"
                for pair, family in product(pairs, FAMILIES)
            ],
            "-family mpls",
        )
        found.tell_kernel(
            [
                f"route replace {pair.network('a', family)} encap mpls"
                f" {pushed_label(pair, family)} dev {pair.name}"
                for pair, family in product(pairs, FAMILIES)
            ]
        )
        yield found


def host(pair: Pair, side: Side, family: Family) -> socket.socket:
    """The UDP socket of a site's host, to be made in its namespace."""
    found = socket.socket(
        socket.AF_INET6 if family == "ipv6" else socket.AF_INET, socket.SOCK_DGRAM
    )
    found.bind((pair.host(side, family), PORT))
    found.settimeout(WAIT_S)
    return found


def capture(pair: Pair) -> socket.socket:
    """A socket that gets what is labelled on our device, to be made in the gateway's namespace."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    found.bind((pair.name, ETH_P_MPLS_UC))
    found.settimeout(WAIT_S)
    return found


def payloads(network: KernelNetwork, pair: Pair, family: Family) -> list[bytes]:
    """What to send over UDP: little, much, and what a label leaves of the MTU of both ends."""
    mtu = min(network.gateway.tunnel(pair.name).mtu, network.kernel_mtus()[pair.name])
    sizes = (size - UDP_HEADER_BYTES[family] for size in (64, 1400, mtu - LABEL_BYTES))
    return [bytes(1 + (7 * i) % 251 for i in range(size)) for size in sizes]


@pytest.mark.parametrize(("pair", "family"), CASES)
def test_the_kernel_pops_our_labels(network: KernelNetwork, pair: Pair, family: Family) -> None:
    """Labelled packets on our device reach the kernel, which pops the label and routes them."""
    gateway, sent = network.gateway, payloads(network, pair, family)
    ip = IPv6 if family == "ipv6" else IP
    inner = ip(src=pair.host("a", family), dst=pair.host("b", family))
    label = MPLS(label=popped_label(pair, family), s=1, ttl=TTL)
    outer = Ether(type=ETH_P_MPLS_UC) / label
    frames = [bytes(outer / inner / UDP(sport=PORT, dport=PORT) / Raw(each)) for each in sent]
    before, drops = gateway.tunnel(pair.name).counters, gateway.drops()
    with network.site_b.call(partial(host, pair, "b", family)) as sink:
        send_frames(gateway.namespace, pair.name, frames)
        arrived = [sink.recvfrom(2048) for _ in sent]
    assert [octets for octets, _ in arrived] == sent
    assert {address[:2] for _, address in arrived} == {(pair.host("a", family), PORT)}
    assert gateway.tunnel(pair.name).counters.tx_packets - before.tx_packets >= len(sent)
    assert gateway.drops() == drops


@pytest.mark.parametrize(("pair", "family"), CASES)
def test_we_deliver_the_kernels_labels(network: KernelNetwork, pair: Pair, family: Family) -> None:
    """What the kernel pushes a label on arrives on our device with the label, and whole."""
    gateway, sent = network.gateway, payloads(network, pair, family)
    before, drops, passes = gateway.tunnel(pair.name).counters, gateway.drops(), gateway.passes()
    with (
        gateway.call(partial(capture, pair)) as device,
        network.site_b.call(partial(host, pair, "b", family)) as source,
    ):
        for each in sent:
            source.sendto(each, (pair.host("a", family), PORT))
        arrived = [Ether(device.recv(2048)) for _ in sent]
    for frame, octets in zip(arrived, sent, strict=True):
        assert frame.type == ETH_P_MPLS_UC
        label = frame[MPLS]
        # The kernel spends the packet's hop and then copies its TTL into the label (RFC 3443).
        assert (label.label, label.s, label.ttl) == (pushed_label(pair, family), 1, TTL - 1)
        packet = label.payload
        assert (packet.src, packet.dst) == (pair.host("b", family), pair.host("a", family))
        assert bytes(packet[UDP].payload) == octets
    assert gateway.tunnel(pair.name).counters.rx_packets - before.rx_packets >= len(sent)
    assert gateway.passes()["mpls"] - passes.get("mpls", 0) == len(sent)
    assert gateway.drops() == drops
