"""``gre-xdp mtu --path`` measures what really comes through, whatever routers say or do not say.

open ── eth0  router eth2 ── far   198.51.100.7 and 2001:db8:f2::7, 1,400 bytes by the router's
deaf ── eth1 ┘                     routes; 198.51.100.8 and 2001:db8:f2::8, 1,500 bytes
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from agent_helpers import CLI
from gre_xdp.lab.topology import Link, Node, Topology
from netns_helpers import ping

NARROW, WIDE, SILENT = (
    ("198.51.100.7", "2001:db8:f2::7"),
    ("198.51.100.8", "2001:db8:f2::8"),
    ("198.51.100.9", "2001:db8:f2::9"),
)
NODES = [
    Node(
        "open",
        {"eth0": ("192.0.2.1/24", "2001:db8:f1::1/64")},
        {"0.0.0.0/0": "192.0.2.254", "::/0": "2001:db8:f1::fe"},
    ),
    Node(
        "deaf",
        {"eth0": ("203.0.113.1/24", "2001:db8:f3::1/64")},
        {"0.0.0.0/0": "203.0.113.254", "::/0": "2001:db8:f3::fe"},
    ),
    Node(
        "router",
        {
            "eth0": ("192.0.2.254/24", "2001:db8:f1::fe/64"),
            "eth1": ("203.0.113.254/24", "2001:db8:f3::fe/64"),
            "eth2": ("198.51.100.254/24", "2001:db8:f2::fe/64"),
        },
    ),
    Node(
        "far",
        {
            "eth0": (
                *(f"{address}/24" for address in (NARROW[0], WIDE[0])),
                *(f"{address}/64" for address in (NARROW[1], WIDE[1])),
            )
        },
        {"0.0.0.0/0": "198.51.100.254", "::/0": "2001:db8:f2::fe"},
    ),
    # Where the command is started: without --netns it would get nowhere.
    Node("nowhere", {}),
]
LINKS = [
    Link("open:eth0", "router:eth0"),
    Link("deaf:eth0", "router:eth1"),
    Link("router:eth2", "far:eth0"),
]
NO_ICMP_ERRORS = """
add table inet deaf
add chain inet deaf input { type filter hook input priority 0; }
add rule inet deaf input icmp type destination-unreachable drop
add rule inet deaf input icmpv6 type packet-too-big drop
"""
# Whoever asks: each is measured at the same time, as a measurement waits a lot.
ASKED = [(host, remote) for host in ("open", "deaf") for remote in (*NARROW, *WIDE)]
ASKED += [("open", remote) for remote in SILENT]

Answers = dict[tuple[str, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """What the command says, by host and remote."""
    with Topology(f"gxpm{os.getpid() % 100000}", NODES, LINKS) as built:
        router = built.nodes["router"]
        router.set_sysctl("net/ipv4/ip_forward", 1)
        router.set_sysctl("net/ipv6/conf/all/forwarding", 1)
        for remote, length in zip(NARROW, (32, 128), strict=True):
            route = ["ip", "route", "add", f"{remote}/{length}", "dev", "eth2", "mtu", "1400"]
            router.run(route)
        built.nodes["deaf"].run(["nft", "-f", "-"], stdin=NO_ICMP_ERRORS)
        for host, remote in ASKED:
            if remote not in SILENT:
                assert ping(built.nodes[host], remote, count=1) == 1
        asking = {
            (host, remote): built.nodes["nowhere"].popen(
                [*CLI, "--netns", built.nodes[host].name, "mtu", "--path", remote, "-j"]
            )
            for host, remote in ASKED
        }
        found = {}
        for asked, process in asking.items():
            stdout, stderr = process.communicate(timeout=60)
            found[asked] = subprocess.CompletedProcess(
                process.args, process.returncode, stdout, stderr
            )
        yield found


@pytest.mark.parametrize("host", ["open", "deaf"])
@pytest.mark.parametrize(
    ("remote", "mtu"),
    [*((remote, 1400) for remote in NARROW), *((remote, 1500) for remote in WIDE)],
    ids=["narrow-ipv4", "narrow-ipv6", "wide-ipv4", "wide-ipv6"],
)
def test_measured_exactly(answers: Answers, remote: str, mtu: int, host: str) -> None:
    """Duty 17: the path's MTU to the byte, also where no ICMP error arrives."""
    done = answers[host, remote]
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["path_mtu"], answer["underlay_mtu"]) == (mtu, mtu)


@pytest.mark.parametrize("remote", SILENT, ids=["ipv4", "ipv6"])
def test_nobody_there(answers: Answers, remote: str) -> None:
    """A remote that never answers is an error, not a narrow path."""
    done = answers["open", remote]
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{remote} does not answer" in json.loads(done.stderr)["error"]["message"]
