"""The guardian: what a killed writer had begun is undone, and nobody waits for it in vain.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent_helpers import CLI, agent
from gre_xdp import config, guardian, memory, pins
from gre_xdp.netlink import namespaces
from netns_helpers import Gateway, Sites, config_for, ping, wait_until

_START_S = 20.0
_PROCESSES = Path("/proc")


def _many_routes() -> str:
    """A tunnel whose routes alone take a while: when its device is there, most is to be done."""
    routes = ", ".join(f'"10.{net}.{part}.0/24"' for net in range(100, 104) for part in range(100))
    return config_for("a").replace('routes = ["10.2.0.0/24"', f'routes = ["10.2.0.0/24", {routes}')


def _guardians(gateway: Gateway) -> list[int]:
    """The guardians in a gateway's namespace, zombies too."""
    here = gateway.namespace.path.stat().st_ino
    found = []
    for process in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):
            is_here = (process / "ns/net").stat().st_ino == here
            if is_here and b"gre_xdp.guardian" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _zombies() -> list[str]:
    """Children of this process that have ended and were not waited for."""
    found = []
    for process in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(process.name)
    return found


def _state(gateway: Gateway) -> dict[str, object]:
    """What a half change would show in."""
    cookie = str(gateway.call(namespaces.cookie))
    commands = (
        ["ip", "-br", "link"],
        ["ip", "route"],
        ["ip", "-6", "route"],
        ["ip", "-br", "addr"],
    )
    return {
        **{" ".join(command): gateway.run(command).stdout for command in commands},
        "forwarding": gateway.run(["sysctl", "net.ipv4.conf.eth0.forwarding"]).stdout,
        "pins": sorted(map(str, pins.BPFFS.glob(f"gre-xdp/*/{cookie}"))),
        "files": sorted(map(str, memory.RUN_DIRECTORY.glob(f"{cookie}.*"))),
    }


def _has_device(gateway: Gateway, name: str) -> bool:
    return f"{name}@" in gateway.run(["ip", "link"]).stdout


def _start(gateway: Gateway, path: Path, toml: str) -> subprocess.Popen[bytes]:
    path.write_text(toml)
    return subprocess.Popen(
        [*CLI, "--netns", gateway.namespace.name, "apply", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def _stopped_half_way(gateway: Gateway, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A first apply that stands still in the middle; it is dead at the end of the block."""
    process = _start(gateway, path, _many_routes())
    try:
        assert wait_until(lambda: _has_device(gateway, "fra1"), _START_S)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_what_a_killed_apply_had_begun_is_undone(bare_sites: Sites, tmp_path: Path) -> None:
    """After kill -9 in the middle everything is as before, by itself, and a new apply succeeds."""
    gateway = bare_sites.gw_a
    before = _state(gateway)
    with _stopped_half_way(gateway, tmp_path / "config.toml") as process:
        assert _state(gateway) != before
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    assert wait_until(lambda: _guardians(gateway) == [], _START_S)
    assert _state(gateway) == before
    gateway.apply(config_for("a"))
    assert gateway.diff(config_for("a")) == []


def test_a_guardian_that_is_told_to_end_undoes_first(bare_sites: Sites, tmp_path: Path) -> None:
    """As systemd does when a service's main process has died: SIGTERM to all that is left."""
    gateway = bare_sites.gw_a
    before = _state(gateway)
    with _stopped_half_way(gateway, tmp_path / "config.toml") as process:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(_guardians(gateway)[0], number)
        process.kill()
    assert wait_until(lambda: _guardians(gateway) == [], _START_S)
    assert _state(gateway) == before


def test_without_its_guardian_the_next_apply_gets_there(bare_sites: Sites, tmp_path: Path) -> None:
    """Both killed at once leave half a change, which the next apply completes."""
    gateway = bare_sites.gw_a
    with _stopped_half_way(gateway, tmp_path / "config.toml") as process:
        os.kill(_guardians(gateway)[0], signal.SIGKILL)
        process.kill()
    assert gateway.diff(config_for("a")) != []
    gateway.apply(config_for("a"))
    assert gateway.diff(config_for("a")) == []


def test_the_next_writer_waits_for_the_guardian(bare_sites: Sites, tmp_path: Path) -> None:
    """An apply that comes while the guardian is at work waits for it, and then does its own."""
    gateway = bare_sites.gw_a
    with _stopped_half_way(gateway, tmp_path / "config.toml") as process:
        (watching,) = _guardians(gateway)
        os.kill(watching, signal.SIGSTOP)
        process.kill()
    second = _start(gateway, tmp_path / "second.toml", config_for("a"))
    try:
        assert wait_until(lambda: _waits_for_a_lock(second.pid), _START_S)
        assert _has_device(gateway, "fra1")
        os.kill(watching, signal.SIGCONT)
        assert second.wait(30) == 0
    finally:
        second.kill()
        second.wait(10)
    assert gateway.diff(config_for("a")) == []
    assert wait_until(lambda: _guardians(gateway) == [])


def _waits_for_a_lock(pid: int) -> bool:
    waiting = (
        line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line
    )
    return any(fields[2] == "FLOCK" and int(fields[5]) == pid for fields in waiting)


def test_a_killed_agent_leaves_no_half_change(bare_sites: Sites, tmp_path: Path) -> None:
    """Killed while it loads another file: the old state comes back, traffic never stops."""
    gateway = bare_sites.gw_a
    gateway_b = bare_sites.gw_b
    gateway_b.apply(config_for("b"))
    second = _many_routes().split("[[tunnel]]")[1].replace("fra1", "ams1")
    second = second.replace("192.0.2.2", "192.0.2.7").replace("10.2.0.0/24", "10.99.0.0/24")
    second = second.replace("169.254.10.1/30", "169.254.11.1/30").replace(
        "fd00:10::1", "fd00:11::1"
    )
    second = second.replace("2001:db8:b::/64", "2001:db8:99::/64")
    with agent(gateway, tmp_path, config_for("a")) as process:
        assert ping(bare_sites.site_a, "10.2.0.2") == 3
        (tmp_path / "config.toml").write_text(config_for("a") + "[[tunnel]]" + second)
        config.load(tmp_path / "config.toml")
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: _has_device(gateway, "ams1"), _START_S)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        assert ping(bare_sites.site_a, "10.2.0.2", count=20) == 20
    assert wait_until(lambda: _guardians(gateway) == [], _START_S)
    assert gateway.diff(config_for("a")) == []
    assert ping(bare_sites.site_a, "10.2.0.2") == 3


def test_a_guardian_ends_with_its_change(bare_sites: Sites) -> None:
    """After a normal end it is gone in a moment, and no zombie stays in a process that lives on."""
    gateway = bare_sites.gw_a
    for toml in (config_for("a"), config_for("a", key="key = 5")):
        assert gateway.apply(toml)
        assert wait_until(lambda: _guardians(gateway) == [] and _zombies() == [])


def test_where_nothing_is_to_be_done_nobody_watches(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An apply without steps starts no process."""
    bare_sites.gw_a.apply(config_for("a"))

    def refuse(*_: object) -> None:
        raise OSError(11, "no process is to be started")

    monkeypatch.setattr(guardian, "start", refuse)
    assert bare_sites.gw_a.apply(config_for("a")) == []
