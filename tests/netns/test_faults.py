"""A fault at every step of apply and down: all old or all new, and the next apply gets there.

    site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b        four times, side by side

Each call by which a command changes something (netlink requests, bpf(2), settings, files, mounts,
the start of the guardian: some 150 for a first apply, 90 for down, 60, 30 and 20 for the others)
fails once, and the process is killed at it once: some 700 points. Reads fail, too, the first and
the last of each kind: some 150. A kill right after a call is one at the next call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from datagram_stream import Stream, stream
from fault_sweep import CHANGE_FAILS, EFFECTS, KILLED, READ_FAILS, Outcome, Scenario, State, sweep
from gre_xdp import compiler
from gre_xdp.lab.lab import topology
from netns_helpers import Sites, ping, wait_until

_SHARES = 4
_PER_SECOND = 100
# Two instructions, "return XDP_PASS", where nothing is sent: a verifier's day is long enough.
_PASS = bytes.fromhex("b700000002000000 9500000000000000")
_NOTHING = State(None)


def _config(*tunnels: str) -> str:
    return "\n".join(
        [
            'exporter = ""',
            '[[interface]]\nname = "eth0"',
            *(['[[interface]]\nname = "eth1"'] if len(tunnels) > 1 else []),
            *tunnels,
        ]
    )


def _tunnel(name: str, key: int, *keys: str, local: int = 1, remote: int = 2) -> str:
    ends = f'local = "192.0.2.{local}"\nremote = "192.0.2.{remote}"\nkey = {key}'
    return "\n".join([f'[[tunnel]]\nname = "{name}"', ends, *keys])


_LEFT_ALONE = _tunnel(
    "still",
    1,
    "seq = true",
    'addresses = ["169.254.10.1/30"]',
    'routes = ["10.2.0.0/24"]',
)
_ITS_OTHER_END = _tunnel("still", 1, "seq = true", 'routes = ["10.1.0.0/24"]', local=2, remote=1)
_OTHER = _tunnel("other", 3, 'routes = ["10.9.0.0/24"]', remote=3)
_BEFORE = _tunnel("moved", 2, "mtu = 1400", 'routes = ["10.7.0.0/24", "10.8.0.0/24"]')
_AFTER = _tunnel("moved", 7, "mtu = 1300", 'routes = ["10.8.0.0/24", "2001:db8:8::/48"]')
_ADDED = _tunnel(
    "added",
    4,
    'addresses = ["169.254.40.1/30", "fd00:40::1/64"]',
    'routes = ["10.4.0.0/24"]',
    'allowed_sources = ["10.4.0.0/16"]',
    remote=4,
)
_ONE = State(_config(_ADDED))
_THREE = _config(_LEFT_ALONE, _BEFORE, _OTHER)


@pytest.fixture(scope="module")
def stands() -> Iterator[list[Sites]]:
    """Several networks, so that several faults can be looked at in one second."""
    with ExitStack() as stack:
        found = []
        for number in range(_SHARES):
            prefix = f"gxf{number}{os.getpid() % 100000}"
            sites = Sites(stack.enter_context(topology(prefix, uml=False)))
            stack.callback(sites.gw_a.down)
            stack.callback(sites.gw_b.down)
            for host in (3, 4):
                sites.gw_b.run(["ip", "address", "add", f"192.0.2.{host}/24", "dev", "eth0"])
            found.append(sites)
        yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("scenario", "least_changes"),
    [
        pytest.param(Scenario(_NOTHING, _ONE), 100, id="first-apply"),
        pytest.param(Scenario(_ONE, _NOTHING), 40, id="down"),
    ],
)
def test_all_or_nothing(
    stands: list[Sites], tmp_path: Path, scenario: Scenario, least_changes: int
) -> None:
    """Whatever fails, and wherever it is killed, nothing is half, and the next one succeeds."""
    programs = compiler.Bytecode(dict.fromkeys(compiler.PROGRAMS, _PASS), "")
    gateways = [sites.gw_a.namespace for sites in stands]
    _judge(sweep(gateways, tmp_path, scenario, programs, nullcontext()), least_changes)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("scenario", "least_changes"),
    [
        pytest.param(
            Scenario(State(_THREE), State(_config(_LEFT_ALONE, _AFTER, _OTHER)), "still"),
            20,
            id="one-changes",
        ),
        pytest.param(
            Scenario(State(_THREE), State(_config(_LEFT_ALONE, _BEFORE, _ADDED)), "still"),
            50,
            id="one-comes-one-goes",
        ),
        pytest.param(
            Scenario(State(_THREE), State(_THREE, "000000000002"), "still"), 10, id="upgrade"
        ),
    ],
)
def test_a_tunnel_that_is_left_alone_loses_nothing(
    stands: list[Sites], tmp_path: Path, scenario: Scenario, least_changes: int
) -> None:
    """The same while datagrams pass through a tunnel of both states: each arrives, and its echo."""
    gateways = [sites.gw_a.namespace for sites in stands]
    passing: list[Stream] = []

    @contextmanager
    def all_streams() -> Iterator[None]:
        with ExitStack() as stack:
            for sites in stands:
                # Its sequence numbers start again, as those of the other end have.
                sites.gw_b.down()
                sites.gw_b.apply(_config(_ITS_OTHER_END, _tunnel("x", 9, local=2, remote=1)))
                assert wait_until(lambda sites=sites: ping(sites.site_a, "10.2.0.2", count=1) == 1)
                between = stream(sites.site_a, sites.site_b, "10.2.0.2", _PER_SECOND)
                passing.append(stack.enter_context(between))
            yield

    programs = compiler.compile_programs()
    _judge(sweep(gateways, tmp_path, scenario, programs, all_streams()), least_changes)
    for each in passing:
        assert each.sent > 500
        assert each == Stream(each.sent, each.sent, each.sent)


def _judge(found: dict[str, Outcome], least_changes: int) -> None:
    assert [wrong for effect in EFFECTS for wrong in found[effect].wrong] == []
    assert found[CHANGE_FAILS].points == found[KILLED].points >= least_changes
    assert found[READ_FAILS].points >= 20
