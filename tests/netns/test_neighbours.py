"""Neighbours are asked whether they are still there: nothing is lost, nobody's entry is changed.

The picture of the network is in tests/follow_helpers.py.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from follow_helpers import Stand, stand, took_s
from gre_xdp.lab.topology import Namespace

# Who is asked is asked every three seconds.
OLD_S = 12
WATCHED_S = 12


@pytest.fixture(scope="module")
def s(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("neighbours"), prefix="gxn") as found:
        yield found


def entry(namespace: Namespace, device: str, address: str) -> dict[str, Any]:
    """What ip(8) says of a neighbour; ages are in seconds."""
    where = ["to", address, "dev", device, "nud", "all"]
    shown = namespace.run(["ip", "-j", "-s", "-d", "neigh", "show", *where])
    (found,) = json.loads(shown.stdout)
    return dict(found)


def answers(ages: list[float]) -> int:
    """How often a neighbour has answered, by what its entry's age was from look to look."""
    return sum(later < earlier for earlier, later in itertools.pairwise(ages))


def test_probing_loses_nothing(s: Stand) -> None:
    """In twelve seconds of traffic all neighbours on its way are asked, and no packet is lost."""
    flow = s.site_a.popen(["ping", "-n", "-q", "-i", "0.01", "-w", str(WATCHED_S), "10.2.0.2"])
    ages: dict[tuple[str, str, str], list[float]] = {
        ("gw-a", "eth0", "192.0.2.2"): [],
        ("gw-b", "eth0", "192.0.2.1"): [],
        ("gw-a", "eth1", "10.1.0.2"): [],
        ("gw-b", "eth1", "10.2.0.2"): [],
    }

    def is_over() -> bool:
        for (node, device, address), seen in ages.items():
            found = entry(s.network.nodes[node], device, address)
            assert set(found["state"]) <= {"REACHABLE", "STALE", "DELAY", "PROBE"}, found
            seen.append(found["confirmed"])
        return flow.poll() is not None

    assert took_s(is_over, WATCHED_S + 5) is not None
    assert flow.stdout is not None
    said = flow.stdout.read()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found is not None
    assert int(found[1]) > 100
    assert found[1] == found[2], said
    assert all(answers(seen) >= 2 for seen in ages.values()), ages


@pytest.mark.parametrize(
    ("made", "is_asked"),
    [
        (("nud", "stale", "proto", "static"), True),
        (("nud", "reachable", "router"), True),
        (("nud", "stale", "extern_learn", "proto", "zebra"), False),
        (("nud", "noarp"), False),
        (("nud", "permanent"), False),
    ],
    ids=["stale", "router", "external", "noarp", "permanent"],
)
def test_entries_of_others_stay_theirs(s: Stand, made: tuple[str, ...], is_asked: bool) -> None:
    """Protocol and flags stay as they were; static and externally learned ones are not asked."""
    assert s.crosses_back()
    mac = entry(s.gw_a.namespace, "eth1", "10.1.0.2")["lladdr"]
    to = ["to", "10.1.0.2", "dev", "eth1"]
    s.gw_a.run(["ip", "neigh", "replace", *to, "lladdr", mac, *made])
    before = entry(s.gw_a.namespace, "eth1", "10.1.0.2")
    ages = [before["confirmed"]]

    def was_asked() -> bool:
        assert s.crosses_back()
        ages.append(entry(s.gw_a.namespace, "eth1", "10.1.0.2")["confirmed"])
        return answers(ages) > 0

    try:
        assert (took_s(was_asked, 8) is not None) == is_asked
        after = entry(s.gw_a.namespace, "eth1", "10.1.0.2")
        assert after["lladdr"] == mac
        for word in ("protocol", "router", "extern_learn"):
            # A flag is there, without a value, or is not.
            assert after.get(word, "") == before.get(word, ""), word
        if not is_asked:
            assert after["state"] == before["state"]
    finally:
        s.gw_a.run(["ip", "neigh", "del", *to])


def test_idle_neighbours_of_the_lan_are_left_alone(s: Stand) -> None:
    """Where nothing is sent, nobody is asked: an entry of the LAN ages as the kernel has it age."""
    assert s.crosses_back()
    ages: list[float] = []

    def is_old() -> bool:
        ages.append(entry(s.gw_a.namespace, "eth1", "10.1.0.2")["confirmed"])
        return ages[-1] > OLD_S

    assert took_s(is_old, 30) is not None, ages


def test_idle_next_hops_are_asked(s: Stand) -> None:
    """The way to a remote is known to be right, whether or not anything is sent."""
    ages: list[float] = []

    def was_asked_twice() -> bool:
        ages.append(entry(s.gw_a.namespace, "eth2", "192.0.3.2")["confirmed"])
        return answers(ages) >= 2

    assert took_s(was_asked_twice, 10) is not None, ages
    assert ("eth2", "192.0.3.2") in s.next_hops()
