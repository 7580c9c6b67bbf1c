"""Floods of events: what does not concern tunnels costs nothing, what is lost is made up for.

The picture of the network is in tests/follow_helpers.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from follow_helpers import Stand, stand, took_s

UNRELATED_ROUTES = 10_000
EVENTS = 5_000  # of one flood
FLOOD_S = 5.0  # floods follow each other so long


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("events"), prefix="gxe") as found:
        yield found


def settle(s: Stand) -> None:
    """Wait until the agent has looked at all that it has heard of."""

    def is_settled() -> bool:
        looks = s.metric("reconciles_total")
        return took_s(lambda: s.metric("reconciles_total") != looks, 1) is None

    assert took_s(is_settled, 20) is not None


def batch(s: Stand, directory: Path, commands: list[str]) -> None:
    """Many changes in the gateway, by one ip(8)."""
    path = directory / "batch"
    path.write_text("\n".join(commands) + "\n")
    s.gw_a.run(["ip", "-force", "-batch", str(path)], check=False, timeout=120)


def routes(action: str, count: int) -> list[str]:
    """Routes as a routing daemon has them: to prefixes that have nothing to do with tunnels."""
    return [
        f"route {action} 100.{64 + (number >> 14)}.{(number >> 6) & 255}.{(number & 63) << 2}/30"
        " via 192.0.4.2 proto bgp"
        for number in range(count)
    ]


def test_a_full_routing_table_does_not_wake_the_agent(quiet: Stand, tmp_path: Path) -> None:
    """10,000 routes of somebody's come and go, the agent looks at none, and is soon done."""
    settle(quiet)
    looks, cpu_s = quiet.metric("reconciles_total"), quiet.cpu_s()
    batch(quiet, tmp_path, routes("add", UNRELATED_ROUTES // 2))
    batch(quiet, tmp_path, routes("del", UNRELATED_ROUTES // 2))
    assert quiet.metric("netlink_overruns_total") == 0
    # The slow timer may look once meanwhile.
    assert quiet.metric("reconciles_total") <= looks + 1
    assert quiet.cpu_s() - cpu_s < 1.0
    # One that leads to the remote is another matter.
    quiet.mark_log()
    quiet.run("gw-a ip route add 192.0.2.2/31 via 192.0.3.2 dev eth2")
    assert took_s(lambda: ("eth2", "192.0.3.2") in quiet.next_hops(), 2) is not None
    quiet.run("gw-a ip route del 192.0.2.2/31")
    assert took_s(quiet.is_well, 2) is not None


def test_its_own_changes_cost_the_agent_one_more_look(quiet: Stand) -> None:
    """A repair is followed by one look that finds everything in order."""
    settle(quiet)
    looks = quiet.metric("reconciles_total")
    quiet.run("gw-a ip route del 10.2.0.0/24")
    assert took_s(lambda: quiet.logged("repaired") and quiet.is_well(), 2) is not None
    settle(quiet)
    assert quiet.metric("reconciles_total") <= looks + 2


# The same agent, with a buffer in which a few messages fit.
TINY_BUFFER = """
from gre_xdp.netlink import monitor
monitor.RECEIVE_BUFFER_BYTES = 2048
from gre_xdp_cli.main import main
main()
"""
TINY_AGENT = [sys.executable, "-c", TINY_BUFFER]


def flood() -> list[str]:
    """Links, addresses, routes and neighbours that come and go: 5,000 events and more."""
    commands = ["link add name d0 type veth peer name d1", "link set d0 up", "link set d1 up"]
    for number in range(EVENTS // 10):
        third, fourth = number >> 8, number & 255
        commands += [
            f"link set d0 mtu {1400 + number % 64}",
            f"addr add 198.18.{third}.{fourth}/32 dev d0",
            f"route add 198.19.{third}.{fourth}/32 dev d0",
            f"neigh replace 198.19.{third}.{fourth} lladdr 02:00:00:00:00:01 dev d0",
            f"neigh del 198.19.{third}.{fourth} dev d0",
            f"route del 198.19.{third}.{fourth}/32 dev d0",
            f"addr del 198.18.{third}.{fourth}/32 dev d0",
        ]
        if number % 50 == 0:
            # In the midst of it somebody meddles with what is ours.
            commands += ["route del 10.2.0.0/24", "link set fra2 mtu 1300", "neigh flush dev eth0"]
    return [*commands, "link del d0", "addr del 169.254.10.1/30 dev fra1", "route del 10.2.0.0/24"]


def test_lost_events_are_made_up_for(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """After floods of 5,000 events through a tiny buffer, all is as configured within seconds.

    Losses are counted, and lead to a look a second at most: the agent is busy, and not too busy.
    """
    with stand(tmp_path_factory.mktemp("tiny"), prefix="gxo", command=TINY_AGENT) as s:
        settle(s)
        looks, cpu_s, began_s = s.metric("reconciles_total"), s.cpu_s(), time.monotonic()
        while time.monotonic() - began_s < FLOOD_S:
            batch(s, tmp_path, flood())
        flooded_s = time.monotonic() - began_s
        looked = s.metric("reconciles_total") - looks
        assert 1 <= looked <= flooded_s + 2
        assert s.cpu_s() - cpu_s < 0.7 * flooded_s
        assert s.metric("netlink_overruns_total") > 0
        assert took_s(s.is_well, 6) is not None, s.log.read_text()[-3000:]
        assert s.process.poll() is None
