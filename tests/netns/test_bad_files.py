"""Files that are nearly right: each is applied as a whole, or nothing of it; while a tunnel runs.

peer ═══ gw ── lan
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from config_mutations import Mutator
from gre_xdp.errors import ConfigErrors, GreXdpError
from gre_xdp.lab.topology import Link, Node, Topology
from gre_xdp.status import Snapshot
from netns_helpers import Gateway, config_for, ping

GOOD = config_for("a")
SECOND = """
[[tunnel]]
name = "fra2"
local = "192.0.2.1"
remote = "192.0.2.3"
key = 77
mtu = 1400
routes = ["10.3.0.0/24"]
"""
NODES = [
    Node("gw", {"eth0": ("192.0.2.1/24",), "eth1": ("10.1.0.1/24", "2001:db8:a::1/64")}),
    Node("peer", {"eth0": ("192.0.2.2/24", "192.0.2.3/24")}),
    Node("lan", {"eth0": ("10.1.0.2/24",)}),
]
LINKS = [Link("peer:eth0", "gw:eth0"), Link("lan:eth0", "gw:eth1")]
FILES = 300
COMMANDS = 12
SEED = 5
# What is no state: times that run, and what the kernel gives a device anew (accept_dad when IPv6
# comes back to a device without ARP, after an MTU that was too small for it).
_VOLATILE = re.compile(r"(valid_lft|preferred_lft|expires) \S+")
_NUMBER = re.compile(
    r"^\d+: |@\S+|(stable_secret|accept_dad).*|link/ether \S+|fe80:\S+", re.MULTILINE
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway with two tunnels, of which one has sent something."""
    with Topology(f"gxnear{os.getpid() % 10000}", NODES, LINKS) as network:
        found = Gateway(network.nodes["gw"])
        try:
            found.apply(GOOD + SECOND)
            ping(found.namespace, "10.2.0.2", "-W", "0.1")
            yield found
        finally:
            found.down()


@dataclass(frozen=True)
class State:
    """What there is in a namespace."""

    host: tuple[str, ...]
    snapshot: Snapshot

    @classmethod
    def of(cls, gateway: Gateway) -> State:
        commands = (
            ["ip", "-d", "link"],
            ["ip", "addr"],
            ["ip", "route", "show", "table", "all"],
            ["ip", "-6", "route", "show", "table", "all"],
            ["sysctl", "net.ipv4.conf", "net.ipv6.conf"],
        )
        host = tuple(_VOLATILE.sub("", gateway.run(command).stdout) for command in commands)
        return cls(host, gateway.snapshot())

    def lines(self) -> Counter[str]:
        """The same for devices that have been made again, in any order."""
        _, *others = self.host
        return Counter(_NUMBER.sub("", "\n".join(others)).splitlines())

    def assert_same(self, before: State) -> None:
        """Nothing was made anew, and no counter was set back."""
        assert self.host == before.host
        assert self.snapshot.interfaces == before.snapshot.interfaces
        tunnels, former = self.snapshot.tunnels, before.snapshot.tunnels
        assert [(t.name, t.ifindex, t.mtu) for t in tunnels] == [
            (t.name, t.ifindex, t.mtu) for t in former
        ]
        for now, then in zip(tunnels, former, strict=True):
            assert now.counters.tx_packets >= then.counters.tx_packets
            assert now.counters.rx_packets >= then.counters.rx_packets
        for reason, old in zip(self.snapshot.drops, before.snapshot.drops, strict=True):
            assert reason.count >= old.count


def files(seed: int, count: int) -> Iterator[str]:
    mutator = Mutator([GOOD, GOOD + SECOND], Random(seed))  # noqa: S311 - not for secrets
    for _ in range(count):
        yield mutator.nearly_right()


@pytest.mark.timeout(600)
def test_a_file_is_applied_as_a_whole_or_not_at_all(gateway: Gateway) -> None:
    """After an error all is as before, counters included; else there is nothing left to do."""
    good = GOOD + SECOND
    first = State.of(gateway)
    assert gateway.tunnel("fra1").counters.tx_packets >= 3
    outcomes: Counter[str] = Counter()
    before = first
    for text in files(SEED, FILES):
        try:
            try:
                gateway.apply(text)
            except GreXdpError as error:
                outcomes["mistakes" if isinstance(error, ConfigErrors) else error.code] += 1
                assert gateway.diff(good) == []
                State.of(gateway).assert_same(before)
                continue
            outcomes["applied"] += 1
            assert gateway.diff(text) == []
            gateway.apply(good)
            assert gateway.diff(good) == []
            before = State.of(gateway)
            assert before.lines() - first.lines() == first.lines() - before.lines() == Counter()
        except BaseException as problem:
            problem.add_note(f"the file:\n{text}")
            raise
    sys.stdout.write(f"{outcomes}\n")
    # What the file says, what the host says against it, and what is right.
    assert outcomes["mistakes"] >= FILES / 10
    assert outcomes["host"] >= FILES / 100
    assert outcomes["applied"] >= FILES / 10


def test_the_command_applies_a_file_as_a_whole_or_not_at_all(
    gateway: Gateway, tmp_path: Path
) -> None:
    """As a user runs it: exit code 1, errors with places as JSON, and everything as before."""
    good, path = GOOD + SECOND, tmp_path / "c.toml"
    command = [sys.executable, "-m", "gre_xdp_cli.main", "--netns", gateway.namespace.name]
    command += ["apply", "-j"]
    gateway.apply(good)
    codes: Counter[int] = Counter()
    for text in files(SEED + 1, COMMANDS):
        path.write_text(text)
        before = State.of(gateway)
        done = subprocess.run(
            [*command, str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        codes[done.returncode] += 1
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            assert json.loads(done.stdout)["changes"] is not None
            assert gateway.diff(text) == []
            gateway.apply(good)
            continue
        error = json.loads(done.stderr)["error"]
        assert done.stdout == ""
        assert error["message"]
        assert error["remedy"]
        if error["code"] == "config" and "errors" in error:
            for mistake in error["errors"]:
                assert re.fullmatch(rf"{re.escape(str(path))}:\d+(:\d+)?", mistake["where"])
        State.of(gateway).assert_same(before)
    assert set(codes) == {0, 1}
