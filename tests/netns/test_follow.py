"""A table of what may happen to a network, and what the agent does about it, and how fast.

The picture of the network is in tests/follow_helpers.py. Each row is an event from outside and its
opposite; after both, all is as before. A second is the promise; a row that needs longer says why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent_helpers import agent
from follow_helpers import Stand, stand, took_s
from gre_xdp import bpf, pins
from gre_xdp.datapath import DataPath
from gre_xdp.lab.topology import Link, Node, Topology
from gre_xdp.netlink import namespaces
from netns_helpers import Gateway

Condition = Callable[[Stand], bool]


# --- words for the table --------------------------------------------------------------------------


def crosses(s: Stand) -> bool:
    return s.crosses() and s.crosses_fra2()


def only_fra2(s: Stand) -> bool:
    """The tunnel that has nothing to do with it goes on."""
    return s.crosses_fra2() and not s.crosses()


def state(expected: str, tunnel: str = "fra1") -> Condition:
    return lambda s: s.state(tunnel) == expected


def waiting(what: str, why: str) -> Condition:
    return lambda s: why in s.waiting().get(what, "")


def logged(words: str) -> Condition:
    return lambda s: s.logged(words)


def mtu(device: str, expected: int) -> Condition:
    return lambda s: s.links()[device].mtu == expected


def attached(name: str) -> Condition:
    return lambda s: name in s.attached()


def detached(name: str) -> Condition:
    return lambda s: name not in s.attached()


def next_hop(interface: str, address: str) -> Condition:
    return lambda s: (interface, address) in s.next_hops()


def link_address(interface: str, address: str, expected: str) -> Condition:
    def is_known(s: Stand) -> bool:
        shown = s.gw_a.run(["ip", "-j", "neigh", "show", "to", address, "dev", interface]).stdout
        return [found.get("lladdr") for found in json.loads(shown)] == [expected]

    return is_known


def repaired(s: Stand) -> bool:
    """What somebody has done to what is ours is undone, which the plan says; and packets cross."""
    return s.logged("repaired") and s.is_well()


def failing(s: Stand) -> bool:
    return s.metric("reconcile_successful") == 0


@dataclass(frozen=True)
class Row:
    """An event, what is to be seen then, its opposite, and in what time each is to be seen."""

    name: str
    events: tuple[str, ...]
    expected: tuple[Condition, ...]
    back: tuple[str, ...] = ()
    within_s: float = 1.0
    back_within_s: float = 1.0
    why_longer: str = ""
    act: Callable[[Stand], object] | None = field(default=None, compare=False)


def _wire(interface: str, node: str, peer: str, peer_node: str) -> tuple[str, ...]:
    """Commands that make a wire between two nodes, as the lab makes them."""
    return (
        f"{node} ip link add name {interface} type veth peer name {peer} netns @{peer_node}",
        f"{node} ethtool -K {interface} tx off gro on",
        f"{peer_node} ethtool -K {peer} tx off gro on",
        f"{peer_node} ip link set {peer} up",
    )


LAN_BACK = (
    *_wire("eth1", "gw-a", "eth0", "site-a"),
    "gw-a ip addr add 10.1.0.1/24 dev eth1",
    "gw-a ip addr add 2001:db8:a::1/64 dev eth1 nodad",
    "site-a ip addr add 10.1.0.2/24 dev eth0",
    "site-a ip addr add 2001:db8:a::2/64 dev eth0 nodad",
    "gw-a ip link set eth1 up",
    "site-a ip route add default via 10.1.0.1",
    "site-a ip -6 route add default via 2001:db8:a::1",
)
UNDERLAY_BACK = (
    *_wire("eth0", "gw-a", "eth0", "gw-b"),
    "gw-b ip addr add 192.0.2.2/24 dev eth0",
    "gw-a ip addr add 192.0.2.1/24 dev eth0",
    "gw-a ip link set eth0 up",
)
CARRIER = "the kernel tells of a new device's carrier within a second of its own"
PROBES = "asked every 3 seconds, and given up after 3 unanswered questions, a second apart"
# A host that asks for nobody's address says nothing of its own either.
SILENCE = (
    "gw-b nft add table arp quiet",
    "gw-b nft add chain arp quiet out { type filter hook output priority 0 ; }",
    "gw-b nft add rule arp quiet out arp operation request drop",
)

NETWORK = [
    Row(
        "LAN vanishes, and returns with another index",
        ("gw-a ip link del eth1",),
        (waiting("interface eth1", "no such interface"), detached("eth1"), state("up")),
        back=LAN_BACK,
        back_within_s=2.0,
        why_longer=CARRIER,
    ),
    Row(
        "underlay vanishes, and returns with another index",
        ("gw-a ip link del eth0",),
        (waiting("interface eth0", "no such interface"), state("no_local"), only_fra2),
        back=UNDERLAY_BACK,
        back_within_s=2.0,
        why_longer=CARRIER,
    ),
    Row(
        "LAN appears that never existed",
        ("gw-a ip link add name lan9 type veth peer name lan9p",),
        (attached("lan9"), logged("interface lan9 is no longer pending"), crosses),
        back=("gw-a ip link del lan9",),
    ),
    Row(
        "underlay appears that never existed",
        (
            *_wire("eth5", "gw-a", "eth5", "gw-b"),
            "gw-b ip addr add 192.0.5.2/24 dev eth5",
            "gw-a ip addr add 192.0.5.1/24 dev eth5",
            "gw-a ip link set eth5 up",
        ),
        (attached("eth5"), state("up", "fra3"), crosses),
        back=("gw-a ip link del eth5",),
        within_s=2.0,
        why_longer=CARRIER,
    ),
    Row(
        "LAN is renamed",
        ("gw-a ip link set eth1 name lan1",),
        (waiting("interface eth1", "it is called lan1 now"), attached("lan1"), crosses),
        back=("gw-a ip link set lan1 name eth1",),
    ),
    Row(
        "underlay is renamed",
        ("gw-a ip link set eth0 name wan0",),
        (waiting("interface eth0", "it is called wan0 now"), attached("wan0"), crosses),
        back=("gw-a ip link set wan0 name eth0",),
    ),
    Row(
        "MTU of the underlay is lowered",
        ("gw-a ip link set eth0 mtu 1400",),
        (mtu("fra1", 1376), mtu("fra2", 1476), crosses),
        back=("gw-a ip link set eth0 mtu 1500",),
    ),
    Row(
        "MTU of the underlay is raised",
        ("gw-a ip link set eth0 mtu 2000",),
        (mtu("fra1", 1976), crosses),
        back=("gw-a ip link set eth0 mtu 1500",),
    ),
    Row(
        "MAC address of the LAN changes",
        (
            "gw-a ip link set eth1 address 02:00:00:00:07:01",
            "site-a ip neigh flush all",
        ),
        (logged("port eth1"), crosses),
        back=("gw-a ip link set eth1 address 02:00:00:00:07:02", "site-a ip neigh flush all"),
    ),
    Row(
        "MAC address of the underlay changes",
        ("gw-a ip link set eth0 address 02:00:00:00:07:03",),
        (logged("port eth0"), crosses),
    ),
    Row(
        "LAN goes down and up",
        ("gw-a ip link set eth1 down",),
        (lambda s: not s.crosses(), state("up"), attached("eth1")),
        back=(
            "gw-a ip link set eth1 up",
            # With the device that was down its IPv6 addresses have gone.
            "gw-a ip addr add 2001:db8:a::1/64 dev eth1 nodad",
        ),
    ),
    Row(
        "underlay goes down and up",
        ("gw-a ip link set eth0 down",),
        (state("no_route"), only_fra2, attached("eth0")),
        back=("gw-a ip link set eth0 up",),
    ),
    Row(
        "local is taken away, and comes back",
        ("gw-a ip addr del 192.0.2.1/24 dev eth0",),
        (state("no_local"), only_fra2),
        back=("gw-a ip addr add 192.0.2.1/24 dev eth0",),
    ),
    Row(
        "route to the remote moves to another interface of the configuration",
        ("gw-a ip route add 192.0.2.2/32 via 192.0.3.2 dev eth2",),
        (next_hop("eth2", "192.0.3.2"), state("up"), crosses),
        back=("gw-a ip route del 192.0.2.2/32",),
    ),
    Row(
        "route to the remote moves to an interface that is not in the configuration",
        ("gw-a ip route add 192.0.2.2/32 via 192.0.4.2 dev eth3",),
        (
            logged("is reached by eth3, which is not in the configuration"),
            failing,
            state("no_route"),
            lambda s: "fra1" in s.links() and s.crosses_fra2(),
        ),
        back=("gw-a ip route del 192.0.2.2/32",),
    ),
    Row(
        "route to the remote is deleted",
        ("gw-a ip route del 192.0.2.0/24 dev eth0",),
        (state("no_route"), only_fra2),
        back=("gw-a ip route add 192.0.2.0/24 dev eth0 src 192.0.2.1",),
    ),
    Row(
        "remote falls into a black hole",
        ("gw-a ip route add blackhole 192.0.2.2/32",),
        (state("no_route"), only_fra2),
        back=("gw-a ip route del blackhole 192.0.2.2/32",),
    ),
    Row(
        "remote's MAC address changes, which it announces",
        (
            "gw-b sysctl -qw net.ipv4.conf.eth0.arp_notify=1",
            "gw-b ip link set eth0 address 02:00:00:00:07:05",
        ),
        (crosses,),
        back=("gw-b sysctl -qw net.ipv4.conf.eth0.arp_notify=0",),
    ),
    Row(
        "remote's MAC address changes without a word",
        (*SILENCE, "gw-b ip link set eth0 address 02:00:00:00:07:06"),
        (link_address("eth0", "192.0.2.2", "02:00:00:00:07:06"),),
        within_s=10.0,
        back=("gw-b nft delete table arp quiet",),
        back_within_s=2.0,
        why_longer=PROBES + "; then gw-b, which may ask again, does so once a second",
    ),
    Row(
        "MAC address of a host of the LAN changes without a word",
        ("site-a ip link set eth0 address 02:00:00:00:07:07",),
        (lambda s: s.crosses_back(),),
        within_s=10.0,
        why_longer=PROBES,
    ),
    Row(
        "remote's link layer falls silent, and returns",
        ("gw-b sysctl -qw net.ipv4.conf.eth0.arp_ignore=8",),
        (state("no_neighbour"),),
        within_s=10.0,
        back=("gw-b sysctl -qw net.ipv4.conf.eth0.arp_ignore=0",),
        back_within_s=2.0,
        why_longer=PROBES + "; then the kernel looks for it once a second",
    ),
    Row("neighbours are flushed", ("gw-a ip neigh flush all",), (crosses, state("up"))),
    Row(
        "somebody puts a wrong MAC address in our next hop's place",
        (
            "gw-a ip neigh replace 192.0.2.2 lladdr 02:00:00:00:07:08 dev eth0 nud reachable",
            "gw-a ip neigh replace 192.0.3.2 lladdr 02:00:00:00:07:08 dev eth2 nud stale",
        ),
        (next_hop("eth0", "192.0.2.2"), next_hop("eth2", "192.0.3.2"), crosses),
        within_s=10.0,
        why_longer=PROBES,
    ),
]


def _remove_pin(what: str) -> Callable[[Stand], None]:
    def act(s: Stand) -> None:
        place = pins.Pins.of_namespace(s.gw_a.call(namespaces.cookie))
        if what == "link":
            (place.links / str(s.links()["eth1"].index)).unlink()
            return
        for path in place.programs.rglob("port"):
            path.unlink()

    return act


def _with_maps(change: Callable[[DataPath], None]) -> Callable[[Stand], None]:
    def act(s: Stand) -> None:
        data_path = DataPath.open_existing(pins.Pins.of_namespace(s.gw_a.call(namespaces.cookie)))
        assert data_path is not None
        try:
            change(data_path)
        finally:
            data_path.close()

    return act


def _delete_endpoints(data_path: DataPath) -> None:
    for key in data_path.endpoints():
        data_path.delete_endpoint(key)


MAPS = "the kernel tells nobody: seen with the next look, half a minute later at most"
DRIFT = [
    Row("our route is deleted", ("gw-a ip route del 10.2.0.0/24",), (repaired,)),
    Row("our IPv6 route is deleted", ("gw-a ip route del 2001:db8:b::/64",), (repaired,)),
    Row("our address is deleted", ("gw-a ip addr del 169.254.10.1/30 dev fra1",), (repaired,)),
    Row("our device is deleted", ("gw-a ip link del fra1",), (repaired,)),
    Row("its inner end is deleted", ("gw-a ip link del gx-fra1",), (repaired,)),
    Row("our device is renamed", ("gw-a ip link set fra1 name foo1",), (repaired,)),
    Row("our device gets another MTU", ("gw-a ip link set fra1 mtu 1300",), (repaired,)),
    Row("our device is set down", ("gw-a ip link set fra1 down",), (repaired,)),
    Row("its inner end is set down", ("gw-a ip link set gx-fra1 down",), (repaired,)),
    Row("its checksums are offloaded", ("gw-a ethtool -K fra1 tx on",), (repaired,)),
    Row(
        "IPv4 forwarding is switched off",
        ("gw-a sysctl -qw net.ipv4.conf.eth1.forwarding=0",),
        (repaired,),
    ),
    Row(
        "IPv6 forwarding is switched off",
        ("gw-a sysctl -qw net.ipv6.conf.eth1.forwarding=0",),
        (repaired,),
    ),
    Row("an attachment's pin is removed", (), (repaired,), act=_remove_pin("link")),
    Row(
        "a program's pin is removed",
        (),
        (repaired,),
        act=_remove_pin("program"),
        within_s=10.0,
        why_longer="the programs are compiled again",
    ),
    Row(
        "map entries are deleted",
        (),
        (repaired,),
        act=_with_maps(_delete_endpoints),
        within_s=35.0,
        why_longer=MAPS,
    ),
]


# --- the tests ------------------------------------------------------------------------------------


class Stands:
    """Keeps a network from row to row, and builds another one after a row that failed."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._factory = tmp_path_factory
        self._stack = ExitStack()
        self._found: dict[str, Stand] = {}

    def get(self, drift: str) -> Stand:
        if drift not in self._found:
            self.close()
            directory = self._factory.mktemp("follow")
            self._found[drift] = self._stack.enter_context(stand(directory, drift=drift))
        return self._found[drift]

    def close(self) -> None:
        self._found.clear()
        self._stack.close()


@pytest.fixture(scope="module")
def stands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stands]:
    found = Stands(tmp_path_factory)
    try:
        yield found
    finally:
        found.close()


def _play(s: Stand, row: Row) -> None:
    """Events, what is expected, and the way back."""
    assert bool(row.why_longer) == (max(row.within_s, row.back_within_s) > 1.0)
    s.mark_log()
    s.run(*row.events)
    if row.act is not None:
        row.act(s)
    _expect(s, row.expected, row.within_s, "event")
    s.run(*row.back)
    if not row.back:
        assert s.is_well(), s.log.read_text()[-3000:]
        return
    _expect(s, (Stand.is_well,), row.back_within_s, "back")


# How much later than promised is still no failure: the machine has others to serve.
SLACK_S = 1.0


def _expect(
    s: Stand,
    expected: tuple[Condition, ...],
    within_s: float,
    what: str,
) -> None:
    took = took_s(lambda: all(condition(s) for condition in expected), within_s + SLACK_S)
    seen = [condition(s) for condition in expected] if took is None else []
    assert took is not None, f"{what}: after {within_s} s {seen}\n{s.log.read_text()[-3000:]}"


@pytest.mark.parametrize("row", NETWORK, ids=lambda row: row.name)
def test_the_network_changes(stands: Stands, row: Row) -> None:
    """Each change is followed, what has nothing to do with it goes on, and all comes back."""
    s = stands.get("repair")
    try:
        _play(s, row)
    except BaseException:
        stands.close()
        raise


@pytest.mark.parametrize("row", DRIFT, ids=lambda row: row.name)
def test_somebody_changes_what_is_ours(stands: Stands, row: Row) -> None:
    """With drift = "repair" it is repaired, logged and counted."""
    s = stands.get("repair")
    before = s.metric("drift_repairs_total")
    try:
        _play(s, row)
        assert s.metric("drift_repairs_total") > before
        assert took_s(lambda: s.metric("drift_changes") == 0, 2) is not None
    except BaseException:
        stands.close()
        raise


@pytest.mark.parametrize("row", DRIFT, ids=lambda row: row.name)
def test_somebody_changes_what_is_ours_and_it_is_only_reported(stands: Stands, row: Row) -> None:
    """With drift = "report" it is counted and logged, and left as it is until somebody applies."""
    s = stands.get("report")
    try:
        s.mark_log()
        s.run(*row.events)
        if row.act is not None:
            row.act(s)
        reported = (lambda s: s.metric("drift_changes") > 0, logged("differs"))
        _expect(s, reported, row.within_s, "event")
        assert s.gw_a.diff(s.toml) != []
        assert s.metric("drift_repairs_total") == 0
        s.gw_a.apply(s.toml)
        _expect(s, (Stand.is_well,), 1.0, "back")
        # While something differs, the agent looks every five seconds, whatever it hears.
        assert took_s(lambda: s.metric("drift_changes") == 0, 7) is not None
    except BaseException:
        stands.close()
        raise


def test_a_foreign_program_on_an_interface_that_appears(stands: Stands) -> None:
    """It is refused and named, the others go on; once it is gone, the interface is taken."""
    s = stands.get("repair")

    def attach() -> int:
        # r0 = XDP_PASS; exit
        code = bytes.fromhex("b7000000020000009500000000000000")
        with bpf.owned(bpf.prog_load("somebody_elses", code, [])) as program:
            index = s.links()["tmp9"].index
            return bpf.link_create(program, index, bpf.XDP_FLAGS_NATIVE)

    try:
        s.mark_log()
        s.run("gw-a ip link add name tmp9 type veth peer name tmp9p")
        link = s.gw_a.call(attach)
        try:
            s.run("gw-a ip link set tmp9 name lan9")
            refused = (logged("somebody_elses"), failing, detached("lan9"), crosses)
            _expect(s, refused, 1.0, "foreign")
        finally:
            os.close(link)
        # The kernel tells nobody that it is gone: the agent looks every few seconds.
        _expect(s, (attached("lan9"), crosses), 7.0, "taken")
        s.run("gw-a ip link del lan9")
        _expect(s, (Stand.is_well,), 1.0, "back")
    except BaseException:
        stands.close()
        raise


def test_another_agent_in_another_namespace_minds_its_own(
    stands: Stands, tmp_path: Path, network_beside: Gateway
) -> None:
    """What happens in one namespace is nothing to the agent of another, whatever the names."""
    s = stands.get("repair")
    toml = """
interface = [{ name = "eth0" }, { name = "eth1" }]

[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "192.0.2.2"
routes = ["10.2.0.0/24"]
"""
    with agent(network_beside, tmp_path, toml):
        looks = s.metric("reconciles_total", network_beside)
        before = network_beside.snapshot()
        try:
            for row in (*NETWORK[:2], *DRIFT[:5]):
                _play(s, row)
        except BaseException:
            stands.close()
            raise
        assert network_beside.diff(toml) == []
        after = network_beside.snapshot()
        assert after.interfaces == before.interfaces
        assert [each.ifindex for each in after.tunnels] == [each.ifindex for each in before.tunnels]
        assert s.metric("drift_repairs_total", network_beside) == 0
        # Its own start, and its slow timer.
        assert s.metric("reconciles_total", network_beside) <= looks + 2


@pytest.fixture
def network_beside() -> Iterator[Gateway]:
    """A gateway with names and addresses of the table's, and nobody at the other ends."""
    node = Node("gw", {"eth0": ("192.0.2.1/24",), "eth1": ("10.1.0.1/24",)})
    ends = Node("ends", {"eth0": (), "eth1": ()})
    links = [Link("gw:eth0", "ends:eth0"), Link("gw:eth1", "ends:eth1")]
    with Topology(f"gxb{os.getpid() % 100000}", [node, ends], links) as network:
        gateway = Gateway(network.nodes["gw"])
        try:
            yield gateway
        finally:
            gateway.down()
