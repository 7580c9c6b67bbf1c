"""A path that becomes narrow behind a router, and what the tunnel makes of it.

site-a ── gw-a ══ 192.0.2.0/24 ══ router ══ 198.51.100.0/24 ══ gw-b ── site-b
                  2001:db8:f1::/64  │       2001:db8:f2::/64
                          its route to gw-b's link takes 1,400 bytes
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, IPerror
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from agent_helpers import agent
from gre_xdp import memory, path_learner, reconcile, writer_lock
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from gre_xdp.netlink import namespaces
from netns_helpers import Gateway, ping, send_frames, transfer, wait_until

NARROW = 1400
NODES = [
    Node(
        "site-a",
        {"eth0": ("10.1.0.2/24", "2001:db8:a::2/64")},
        {"0.0.0.0/0": "10.1.0.1", "::/0": "2001:db8:a::1"},
    ),
    Node(
        "gw-a",
        {
            "eth0": ("192.0.2.1/24", "2001:db8:f1::1/64"),
            "eth1": ("10.1.0.1/24", "2001:db8:a::1/64"),
        },
        {"198.51.100.0/24": "192.0.2.254", "2001:db8:f2::/64": "2001:db8:f1::fe"},
    ),
    Node(
        "router",
        {
            "eth0": ("192.0.2.254/24", "2001:db8:f1::fe/64"),
            "eth1": ("198.51.100.254/24", "2001:db8:f2::fe/64"),
        },
    ),
    Node(
        "gw-b",
        {
            "eth0": ("198.51.100.7/24", "2001:db8:f2::7/64"),
            "eth1": ("10.2.0.1/24", "2001:db8:b::1/64"),
        },
        {"192.0.2.0/24": "198.51.100.254", "2001:db8:f1::/64": "2001:db8:f2::fe"},
    ),
    Node(
        "site-b",
        {"eth0": ("10.2.0.2/24", "2001:db8:b::2/64")},
        {"0.0.0.0/0": "10.2.0.1", "::/0": "2001:db8:b::1"},
    ),
]
LINKS = [
    Link("site-a:eth0", "gw-a:eth1"),
    Link("gw-a:eth0", "router:eth0"),
    Link("router:eth1", "gw-b:eth0"),
    Link("gw-b:eth1", "site-b:eth0"),
]
OUTERS = {
    "over-ipv4": ("192.0.2.1", "198.51.100.7", 24),
    "over-ipv6": ("2001:db8:f1::1", "2001:db8:f2::7", 44),
}
ADDRESSES = {"ipv4": ("10.2.0.2", 28), "ipv6": ("2001:db8:b::2", 48)}


def toml(side: str, local: str, remote: str, extra: str = "") -> str:
    here, there, far = ("1", "2", "b") if side == "a" else ("2", "1", "a")
    return f"""
exporter = "{"127.0.0.1:9747" if side == "a" else ""}"
interface = [{{ name = "eth0" }}, {{ name = "eth1" }}]
[[tunnel]]
name = "fra1"
local = "{local}"
remote = "{remote}"
{extra}
addresses = ["169.254.10.{here}/30", "fd00:10::{here}/64"]
routes = ["10.{there}.0.0/24", "2001:db8:{far}::/64"]
"""


class NarrowPath:
    """The topology with an agent in gw-a, and the tunnel between."""

    def __init__(self, built: Topology, local: str, remote: str, overhead: int) -> None:
        self.nodes = built.nodes
        self.site_a, self.site_b = built.nodes["site-a"], built.nodes["site-b"]
        self.gw_a, self.gw_b = Gateway(built.nodes["gw-a"]), Gateway(built.nodes["gw-b"])
        self.local, self.remote, self.overhead = local, remote, overhead
        self.wide, self.mtu = 1500 - overhead, NARROW - overhead

    def narrow(self, mtu: int = NARROW) -> None:
        """The router's way to gw-b takes only so much from now on."""
        # The metric is that of the kernel's own IPv6 route, whose place it takes.
        for route in (["198.51.100.0/24"], ["2001:db8:f2::/64", "metric", "256"]):
            self.nodes["router"].run(
                ["ip", "route", "replace", *route, "dev", "eth1", "mtu", str(mtu)]
            )

    def forget(self) -> None:
        """The path is wide again, and nobody remembers that it ever was not."""
        self.narrow(1500)
        gateway = self.gw_a

        def forget() -> None:
            with writer_lock.hold():
                memory.Memory.of_namespace(namespaces.cookie()).forget_all_but_sysctls()

        gateway.call(forget)
        for node in self.nodes.values():
            node.run(["ip", "route", "flush", "cache"])
            node.run(["ip", "-6", "route", "flush", "cache"])
        gateway.apply(toml("a", self.local, self.remote))
        assert gateway.tunnel().mtu == self.wide

    def is_learned(self) -> bool:
        return self.gw_a.tunnel().mtu == self.mtu

    def learn(self) -> None:
        """Send something too long until the tunnel has become narrow."""
        self.narrow()
        too_long = ["-M", "do", "-s", str(self.wide - 28), "-W", "1"]

        def is_learned() -> bool:
            ping(self.site_a, "10.2.0.2", *too_long, count=1)
            return self.is_learned()

        assert wait_until(is_learned)


@contextmanager
def joined(outer: tuple[str, str, int], directory: Path) -> Iterator[NarrowPath]:
    local, remote, overhead = outer
    with Topology(f"gxp{os.getpid() % 100000}", NODES, LINKS) as built:
        built.nodes["router"].set_sysctl("net/ipv4/ip_forward", 1)
        built.nodes["router"].set_sysctl("net/ipv6/conf/all/forwarding", 1)
        found = NarrowPath(built, local, remote, overhead)
        try:
            found.gw_b.apply(toml("b", remote, local))
            with agent(found.gw_a, directory, toml("a", local, remote)):
                assert wait_until(lambda: ping(found.site_a, "10.2.0.2", count=1) == 1)
                yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()


@pytest.fixture(params=OUTERS.values(), ids=OUTERS, scope="module")
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NarrowPath]:
    with joined(request.param, tmp_path_factory.mktemp("agent")) as found:
        yield found


@pytest.fixture
def path(kept: NarrowPath) -> NarrowPath:
    """Wide, and nothing said of it."""
    kept.forget()
    return kept


def test_a_transfer_survives_a_path_that_becomes_narrow(path: NarrowPath) -> None:
    """Duty 16: mid-transfer the path shrinks; TCP goes on within seconds, and metrics tell."""
    result: list[bool] = []
    stream = threading.Thread(
        target=lambda: result.append(
            transfer(path.site_a, path.site_b, "10.2.0.2", 60 << 20, timeout_s=30)
        )
    )
    before = path.gw_a.tunnel().counters.tx_packets
    stream.start()
    assert wait_until(lambda: path.gw_a.tunnel().counters.tx_packets > before + 3000)
    path.narrow()
    stream.join(40)
    assert result == [True]
    tunnel = path.gw_a.tunnel()
    assert (tunnel.mtu, tunnel.path_mtu) == (path.mtu, NARROW)
    assert tunnel.mss_ipv4 == path.mtu - 40
    metrics = path.gw_a.run(
        ["python3", "-c", "import urllib.request as u;"
         "print(u.urlopen('http://127.0.0.1:9747/metrics').read().decode())"]
    ).stdout  # fmt: skip
    assert f'gre_xdp_tunnel_mtu_bytes{{tunnel="fra1"}} {float(path.mtu)}' in metrics
    assert f'gre_xdp_tunnel_path_mtu_bytes{{tunnel="fra1"}} {float(NARROW)}' in metrics


@pytest.mark.parametrize(("address", "headers"), ADDRESSES.values(), ids=ADDRESSES)
def test_senders_are_told_the_new_size(path: NarrowPath, address: str, headers: int) -> None:
    """Duty 18: Frag Needed and Packet Too Big state what fits now, and what fits arrives."""
    path.learn()
    too_long = ["-M", "do", "-s", str(path.mtu + 1 - headers), "-c", "1", "-W", "2", address]
    assert told(path.site_a, too_long) == path.mtu
    assert ping(path.site_a, address, "-M", "do", "-s", str(path.mtu - headers)) == 3


def test_what_arrives_may_still_be_long(path: NarrowPath) -> None:
    """The way back is as wide as it was: packets of its full size arrive at host and site."""
    path.learn()
    fits = str(path.wide - 28)
    # Echoes of full size come in; the replies, as long, are told to be shorter.
    for target in ("10.1.0.2", "169.254.10.1"):
        before = path.gw_a.tunnel().counters.rx_packets
        path.site_b.run(["ping", "-n", "-c2", "-W1", "-M", "do", "-s", fits, target], check=False)
        assert path.gw_a.tunnel().counters.rx_packets >= before + 2
    assert path.gw_a.drops().get("too_big", 0) == 0
    assert f"mtu {path.wide} " in path.gw_a.run(["ip", "link", "show", "fra1"]).stdout


def test_datagrams_without_df_are_fragmented_to_fit(path: NarrowPath) -> None:
    """Duty 18: 4,000 bytes over UDP arrive intact on the narrow path."""
    path.learn()
    with (
        path.site_b.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sink,
        path.site_a.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as source,
    ):
        sink.bind(("10.2.0.2", 0))
        sink.settimeout(5)
        source.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
        payload = os.urandom(4000)
        source.sendto(payload, ("10.2.0.2", sink.getsockname()[1]))
        assert sink.recv(5000) == payload
    assert path.gw_a.drops().get("too_big", 0) == 0


@pytest.mark.parametrize(("address", "headers"), ADDRESSES.values(), ids=ADDRESSES)
def test_routes_of_others_learn_it_too(path: NarrowPath, address: str, headers: int) -> None:
    """A routing daemon's route has no MTU: the sender is told all the same."""
    path.learn()
    prefix = "2001:db8:b::2/128" if ":" in address else "10.2.0.2/32"
    path.gw_a.run(["ip", "route", "replace", prefix, "dev", "fra1"])
    too_long = ["-M", "do", "-s", str(path.mtu + 20 - headers), "-c1", "-W", "1", address]
    try:
        assert wait_until(lambda: told(path.site_a, too_long) == path.mtu)
    finally:
        path.gw_a.run(["ip", "route", "del", prefix, "dev", "fra1"])


def test_belief_ends(path: NarrowPath) -> None:
    """Duty 16: soft state; after its time the tunnel is as wide as it was, routes and all."""
    believe = partial(reconcile.believe_path_mtu, path.gw_a.tunnel().local)
    ends = partial(believe, path.gw_a.tunnel().remote, NARROW)
    assert path.gw_a.call(lambda: ends(time.time() + 600))
    config = toml("a", path.local, path.remote)
    assert {step.object.split()[0] for step in path.gw_a.diff(config)} == {
        "device", "tunnel", "route"
    }  # fmt: skip
    path.gw_a.apply(config)
    assert path.is_learned()
    assert f"mtu {path.mtu}" in path.gw_a.run(["ip", "route", "show", "dev", "fra1"]).stdout
    assert path.gw_a.diff(config) == []
    path.gw_a.call(lambda: ends(time.time() + 0.2))
    assert wait_until(lambda: path.gw_a.diff(config) != [])
    path.gw_a.apply(config)
    assert path.gw_a.tunnel().mtu == path.wide
    assert path.gw_a.tunnel().path_mtu is None
    assert "mtu" not in path.gw_a.run(["ip", "route", "show", "dev", "fra1"]).stdout


def test_a_wider_underlay_is_followed(path: NarrowPath) -> None:
    """The tunnel's MTU is that of the route to its remote, also when that changes."""
    is_ipv6 = ":" in path.remote
    prefix, via = (
        ("2001:db8:f2::/64", "2001:db8:f1::fe") if is_ipv6 else ("198.51.100.0/24", "192.0.2.254")
    )
    route = ["ip", "route", "replace", prefix, "via", via, "dev", "eth0"]
    path.gw_a.run([*route, "mtu", "1450"])
    assert wait_until(lambda: path.gw_a.tunnel().mtu == 1450 - path.overhead)
    path.gw_a.run(route)
    assert wait_until(lambda: path.gw_a.tunnel().mtu == path.wide)
    path.gw_a.run(["ip", "link", "set", "eth0", "mtu", "1480"])
    assert wait_until(lambda: path.gw_a.tunnel().mtu == 1480 - path.overhead)
    path.gw_a.run(["ip", "link", "set", "eth0", "mtu", "1500"])
    assert wait_until(lambda: path.gw_a.tunnel().mtu == path.wide)


@pytest.mark.parametrize(
    ("changes", "mtu"),
    [
        ({"dst": "198.51.100.8"}, None),
        ({"src": "192.0.2.9"}, None),
        ({"proto": 4}, None),
        ({"flags": 0}, None),
        ({"len": 1300}, None),
        ({"key": 5}, None),
        ({}, 1300),
        ({"nexthopmtu": 100}, path_learner.FLOOR[4]),
    ],
    ids=["remote", "local", "protocol", "no-df", "shorter", "key", "genuine", "floor"],
)
def test_only_what_could_be_true_is_believed(
    path: NarrowPath, changes: dict[str, int | str], mtu: int | None
) -> None:
    """Duty 16: the quote must be a packet that the tunnel could have sent; there is a floor."""
    if ":" in path.local:
        # Reports about IPv4 packets, to a gateway that has tunnels over IPv6 only.
        local, remote, _ = OUTERS["over-ipv4"]
        mtu = None
    else:
        local, remote = path.local, path.remote
    changes = dict(changes)
    quote = {"src": local, "dst": remote, "proto": 47, "flags": "DF", "len": 1500}
    next_hop = changes.pop("nexthopmtu", 1300)
    key = changes.pop("key", None)
    gre = GRE(proto=0x800) if key is None else GRE(proto=0x800, key_present=1, key=key)
    frame = (
        Ether(dst=link_address(path.gw_a, "eth0"), src="02:00:00:00:00:99")
        / IP(src="192.0.2.254", dst=local)
        / ICMP(type=3, code=4, nexthopmtu=next_hop)
        / IPerror(**{**quote, **changes})
        / gre
        / Raw(bytes(28))
    )
    send_frames(path.nodes["router"], "eth0", [bytes(frame)])
    if mtu is None:
        assert not wait_until(lambda: path.gw_a.tunnel().mtu != path.wide, 0.7)
    else:
        assert wait_until(lambda: path.gw_a.tunnel().mtu == mtu - path.overhead)


def told(source: Namespace, arguments: list[str]) -> int | None:
    """The MTU that a ping hears of, from a router or from its own kernel, which heard it before."""
    done = source.run(["ping", "-n", *arguments], check=False)
    found = re.search(r"mtu ?= ?(\d+)", done.stdout + done.stderr)
    return int(found[1]) if found else None


def link_address(gateway: Gateway, interface: str) -> str:
    shown = json.loads(gateway.run(["ip", "-j", "link", "show", interface]).stdout)
    return str(shown[0]["address"])
