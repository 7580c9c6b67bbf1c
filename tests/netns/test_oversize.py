"""A host that sends 100,000 packets too big for the tunnel, and its neighbour who sends none.

loud  ── eth1 gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
quiet ── eth2 ┘
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

import packets as p
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from netns_helpers import Gateway, config_for, ping, wait_until

MTU = 1476
COUNT = 100_000
ETHERNET_BYTES = 14
# icmp_msgs_per_sec and icmp_msgs_burst of Documentation/networking/ip-sysctl.rst.
LIMIT_PER_S, LIMIT_BURST = 10, 64
NODES = [
    Node(
        "loud",
        {"eth0": ("10.1.0.2/24", "2001:db8:a::2/64")},
        {"0.0.0.0/0": "10.1.0.1", "::/0": "2001:db8:a::1"},
    ),
    Node(
        "quiet",
        {"eth0": ("10.3.0.2/24", "2001:db8:c::2/64")},
        {"0.0.0.0/0": "10.3.0.1", "::/0": "2001:db8:c::1"},
    ),
    Node(
        "gw-a",
        {
            "eth0": ("192.0.2.1/24",),
            "eth1": ("10.1.0.1/24", "2001:db8:a::1/64"),
            "eth2": ("10.3.0.1/24", "2001:db8:c::1/64"),
        },
    ),
    Node("gw-b", {"eth0": ("192.0.2.2/24",), "eth1": ("10.2.0.1/24", "2001:db8:b::1/64")}),
    Node(
        "site-b",
        {"eth0": ("10.2.0.2/24", "2001:db8:b::2/64")},
        {"0.0.0.0/0": "10.2.0.1", "::/0": "2001:db8:b::1"},
    ),
]
LINKS = [
    Link("loud:eth0", "gw-a:eth1"),
    Link("quiet:eth0", "gw-a:eth2"),
    Link("gw-a:eth0", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
]


class Network:
    """The topology with the tunnel up, and both hosts' ways through it resolved."""

    def __init__(self, built: Topology) -> None:
        self.loud, self.quiet = built.nodes["loud"], built.nodes["quiet"]
        self.gw_a, self.gw_b = Gateway(built.nodes["gw-a"]), Gateway(built.nodes["gw-b"])

    def join(self) -> None:
        more = '[[interface]]\nname = "eth2"\n'
        self.gw_a.apply(config_for("a", extra=more))
        back = '"10.1.0.0/24", "10.3.0.0/24", "2001:db8:c::/64", '
        self.gw_b.apply(config_for("b").replace('"10.1.0.0/24", ', back))
        for host in (self.loud, self.quiet):
            for address in ("10.2.0.2", "2001:db8:b::2"):
                assert wait_until(lambda: ping(host, address, count=1) == 1)  # noqa: B023 - called before the next turn

    def oversize(self, version: int) -> bytes:
        """A frame of the loud host, one byte too long."""
        packet: Packet = (
            p.of_bytes(MTU + 1, p.udp, "10.1.0.2", "10.2.0.2", flags="DF")
            if version == 4
            else p.of_bytes(MTU + 1, p.udp, "2001:db8:a::2", "2001:db8:b::2")
        )
        frame = Ether(
            src=mac_of(self.loud, "eth0"),
            dst=mac_of(self.gw_a.namespace, "eth1"),
            type=p.ethertype(packet),
        )
        return bytes(frame / packet)


def mac_of(namespace: Namespace, interface: str) -> str:
    shown = json.loads(namespace.run(["ip", "-j", "link", "show", interface]).stdout)
    return str(shown[0]["address"])


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Topology(f"gxo{os.getpid() % 100000}", NODES, LINKS) as built:
        found = Network(built)
        try:
            found.join()
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


@dataclass(frozen=True)
class Flood:
    """What a flood did: to gw-a's counters, to its host, and to the other host's ping."""

    version: int
    elapsed_s: float
    too_big: int
    dropped: int
    errors: int
    bytes_to_gateway: int
    bytes_to_host: int
    pings: int
    replies: int


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def flood(network: Network, request: pytest.FixtureRequest) -> Flood:
    """One flood from the loud host while the quiet one pings."""
    version, gateway = request.param, network.gw_a
    frame = network.oversize(version)
    too_big, dropped = gateway.passes().get("too_big", 0), sum(gateway.drops().values())
    before = seen(gateway)
    errors, octets = errors_sent(gateway, version), octets_sent(gateway, "eth1")
    with pinging(network.quiet, "10.2.0.2") as pings:
        began = time.monotonic()
        send_often(network.loud, frame, COUNT)
        assert wait_until(lambda: seen(gateway) >= before + COUNT)
        elapsed_s = time.monotonic() - began
    found = Flood(
        version,
        elapsed_s,
        gateway.passes()["too_big"] - too_big,
        sum(gateway.drops().values()) - dropped,
        errors_sent(gateway, version) - errors,
        COUNT * len(frame),
        octets_sent(gateway, "eth1") - octets,
        pings["sent"],
        pings["received"],
    )
    print(found)  # noqa: T201 - pytest shows it with a failure
    return found


def seen(gateway: Gateway) -> int:
    """Packets that were too big: handed over for an answer, or not any more."""
    unanswered = gateway.drops().get("too_big_unanswered", 0)
    return gateway.passes().get("too_big", 0) + unanswered


def send_often(namespace: Namespace, frame: bytes, count: int) -> None:
    """Put a frame on the wire so many times, as fast as it takes them."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            left = count
            while left:
                try:
                    raw.send(frame)
                except OSError as error:
                    # The wire is full, and this one was not sent.
                    if error.errno != errno.ENOBUFS:
                        raise
                else:
                    left -= 1

    namespace.call(send)


def octets_sent(gateway: Gateway, interface: str) -> int:
    """Bytes of the frames that left by an interface."""
    shown = json.loads(gateway.run(["ip", "-j", "-s", "link", "show", interface]).stdout)
    return int(shown[0]["stats64"]["tx"]["bytes"])


def errors_sent(gateway: Gateway, version: int) -> int:
    """Messages of the kernel's: Destination Unreachable, or Packet Too Big."""
    if version == 6:
        text = gateway.run(["cat", "/proc/net/snmp6"]).stdout
        found = re.search(r"^Icmp6OutType2\s+(\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 0
    lines = gateway.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("IcmpMsg:")]
    return int(dict(zip(*rows, strict=True)).get("OutType3", 0)) if rows else 0


@contextlib.contextmanager
def pinging(namespace: Namespace, address: str) -> Iterator[dict[str, int]]:
    """A ping every two milliseconds during a block; how many were sent and received, after it."""
    counts: dict[str, int] = {}
    process = namespace.popen(["ping", "-n", "-i", "0.002", "-s", "1000", address])
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("PING")
        yield counts
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=10)[0]
    finally:
        if process.poll() is None:
            process.kill()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert found is not None, text
    counts.update(sent=int(found[1]), received=int(found[2]))


def test_each_is_counted(flood: Flood) -> None:
    """Duty 18: each is handed to the kernel for an answer, or dropped as one too many."""
    assert flood.too_big >= 1
    assert flood.too_big + flood.dropped == COUNT


def test_nobody_else_notices(flood: Flood) -> None:
    """The other host loses nothing; only a ping in flight at the end may miss its reply."""
    assert flood.pings >= 20
    assert flood.pings - flood.replies <= 1


def test_answers_are_less_than_what_they_answer(flood: Flood) -> None:
    """Duty 26: at most one error for a packet, and a shorter one: nothing is amplified."""
    assert 1 <= flood.errors <= COUNT
    longest = {4: 576, 6: 1280}[flood.version] + ETHERNET_BYTES
    # What the gateway may say besides: it looks for its neighbours.
    assert flood.bytes_to_host <= flood.errors * longest + 2000
    assert flood.bytes_to_host < flood.bytes_to_gateway


def test_answers_are_rate_limited(flood: Flood) -> None:
    """Duty 26: RFC 4443 section 2.4 (f); 10 a second on each CPU, after 64 at once."""
    cpus = os.cpu_count() or 1
    assert flood.errors == flood.too_big
    assert flood.errors <= cpus * (LIMIT_BURST + LIMIT_PER_S * flood.elapsed_s)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["-s", "1449", "10.2.0.2"], "Frag needed and DF set (mtu = 1476)"),
        (["-s", "1429", "2001:db8:b::2"], "Packet too big: mtu=1476"),
    ],
    ids=["ipv4", "ipv6"],
)
def test_others_are_told_all_the_same(
    network: Network, flood: Flood, arguments: list[str], answer: str
) -> None:
    """Duty 18: whoever sends too much after a flood hears so."""
    for version in ("-4", "-6"):
        network.quiet.run(["ip", version, "route", "flush", "cache"])
    ask = ["ping", "-n", "-c", "1", "-W", "1", "-M", "do", *arguments]
    assert wait_until(lambda: answer in network.quiet.run(ask, check=False).stdout)
