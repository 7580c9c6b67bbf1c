"""Which tunnel a report is about, and what becomes of one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gre_xdp import path_learner
from gre_xdp.icmp import TooBig
from gre_xdp.model import Tunnel
from gre_xdp.path_learner import PathLearner, is_about

ENDS = {
    4: (ip_address("192.0.2.1"), ip_address("198.51.100.7")),
    6: (ip_address("2001:db8:f1::1"), ip_address("2001:db8:f2::7")),
}
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def tunnel(version: int, **more: Any) -> Tunnel:
    local, remote = map(str, ENDS[version])
    return Tunnel.model_validate({"name": "fra1", "local": local, "remote": remote, **more})


def report(version: int, key: int | None = None, *, has_key: bool | None = None) -> TooBig:
    """A report about a packet with that key; ``has_key`` with none: the quote ends before it."""
    is_keyed = key is not None if has_key is None else has_key
    return TooBig(*ENDS[version], 1400, is_keyed, key, 0x0800, b"")


@VERSIONS
@pytest.mark.parametrize(
    ("keys", "found", "expected"),
    [
        ({}, {}, True),
        ({}, {"key": 0}, False),
        ({}, {"key": 77}, False),
        ({}, {"has_key": True}, False),
        ({"key": 77}, {"key": 77}, True),
        ({"key": 77}, {"key": 78}, False),
        ({"key": 77}, {"has_key": True}, True),
        ({"key": 77}, {}, False),
        ({"key": 0}, {"key": 0}, True),
        ({"key": 0}, {"has_key": True}, True),
        ({"key": 0}, {}, False),
        ({"ikey": 5, "okey": 9}, {"key": 9}, True),
        ({"ikey": 5, "okey": 9}, {"key": 5}, False),
        ({"ikey": 5}, {}, True),
        ({"ikey": 5}, {"key": 5}, False),
    ],
    ids=[
        *("keyless", "keyless-0", "keyless-77", "keyless-unseen"),
        *("keyed", "keyed-other", "keyed-unseen", "keyed-none"),
        *("zero", "zero-unseen", "zero-none"),
        *("okey", "not-ikey", "only-ikey", "only-ikey-keyed"),
    ],
)
def test_the_key(version: int, keys: dict[str, int], found: dict[str, Any], expected: bool) -> None:
    """Duties 10, 16: the key that we send; where the quote ends before it, that there is one."""
    assert is_about(report(version, **found), tunnel(version, **keys)) == expected


@VERSIONS
def test_the_ends(version: int) -> None:
    """Duty 16: both must be the tunnel's, and in this order."""
    ours, other = report(version), {4: "203.0.113.9", 6: "2001:db8:ffff::9"}[version]
    assert is_about(ours, tunnel(version))
    for changed in (
        replace(ours, local=ip_address(other)),
        replace(ours, remote=ip_address(other)),
        replace(ours, local=ours.remote, remote=ours.local),
    ):
        assert not is_about(changed, tunnel(version))
    assert not is_about(ours, tunnel(10 - version))


class Heard:
    """A learner that hears datagrams of a test, and what it believes."""

    def __init__(self, speaker: socket.socket) -> None:
        self.believed: list[tuple[object, ...]] = []
        self.learner = PathLearner(self._believe)
        self.speaker = speaker

    def _believe(self, *what: object) -> None:
        self.believed.append(what)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """As raw sockets need root, UDP carries what they would hear of ICMPv6."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as speaker,
    ):
        listener.bind(("::1", 0))
        listener.setblocking(False)
        speaker.connect(listener.getsockname())
        monkeypatch.setattr(path_learner, "open_sockets", lambda: {6: listener})
        yield Heard(speaker)


def packet_too_big(mtu: int, key: int = 77) -> bytes:
    local, remote = ENDS[6]
    header = b"\x60\0\0\0" + (1460).to_bytes(2, "big") + bytes([47, 64])
    gre = b"\x20\0\x08\0" + key.to_bytes(4, "big")
    return b"\2\0\0\0" + mtu.to_bytes(4, "big") + header + local.packed + remote.packed + gre


@pytest.mark.parametrize(
    ("mtu", "believed"),
    [(1400, 1400), (1281, 1281), (1280, 1280), (1279, 1280), (68, 1280), (0, 1280), (1500, None)],
)
def test_belief(heard: Heard, mtu: int, believed: int | None) -> None:
    """Duty 16: for ten minutes, and nothing below what every IPv6 path takes."""
    heard.learner.follow([tunnel(6, key=77)])
    heard.speaker.send(packet_too_big(mtu))
    heard.learner.hear(6)
    if believed is None:
        assert heard.believed == []
        return
    [(local, remote, found, until_s)] = heard.believed
    assert (local, remote, found) == (*ENDS[6], believed)
    assert isinstance(until_s, float)
    assert 590 < until_s - time.time() <= 600


def test_all_that_has_arrived_is_heard(heard: Heard) -> None:
    """Duty 16: garbage between reports hides none, and what is about others is not believed."""
    heard.learner.follow([tunnel(6, key=77)])
    for message in (b"", b"\2", packet_too_big(1400), packet_too_big(1390, key=5), bytes(60)):
        heard.speaker.send(message)
    heard.speaker.send(packet_too_big(1380))
    heard.learner.hear(6)
    assert [what[2] for what in heard.believed] == [1400, 1380]


def test_nobody_is_believed_without_tunnels(heard: Heard) -> None:
    """Duty 16: before a configuration is followed, and after its tunnels are gone."""
    heard.speaker.send(packet_too_big(1400))
    heard.learner.hear(6)
    heard.learner.follow([tunnel(6, key=77)])
    heard.learner.follow([])
    heard.speaker.send(packet_too_big(1400))
    heard.learner.hear(6)
    assert heard.believed == []


def test_the_same_again(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Duty 16: the same again is noted ten times a second; another MTU at once."""
    now = time.monotonic()
    heard.learner.follow([tunnel(6, key=77)])
    for later_s, mtu, noted in [
        (0.0, 1400, True),
        (0.0, 1400, False),
        (0.09, 1400, False),
        (0.09, 1390, True),
        (0.15, 1390, False),
        (0.2, 1390, True),
    ]:
        monkeypatch.setattr(time, "monotonic", lambda: now + later_s)  # noqa: B023 - this turn's
        heard.believed.clear()
        heard.speaker.send(packet_too_big(mtu))
        heard.learner.hear(6)
        assert [what[2] for what in heard.believed] == [mtu] * noted, later_s
