"""What a service manager hears from the agent, and how it turns the agent's log up and down.

The manager is a datagram socket, as systemd's is; tests/service has systemd itself.
"""

from __future__ import annotations

import fcntl
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent_helpers import agent
from gre_xdp import memory
from gre_xdp.netlink import namespaces
from netns_helpers import Sites, config_for, wait_until

WATCHDOG_S = 0.4
OVERDUE_S = 3 * WATCHDOG_S
KEPT = "STATUS=tunnels: 1, interfaces: 2"


class Manager:
    """Hears what is sent to it; each message is its lines."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self.environment = {
            "NOTIFY_SOCKET": str(directory / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        self.close = self._socket.close

    def next(self, timeout_s: float = 20.0) -> list[str]:
        """The next message; raises ``TimeoutError``."""
        self._socket.settimeout(timeout_s)
        return self._socket.recv(4096).decode().split("\n")

    def until(self, first: str) -> list[str]:
        """The next message that begins so; before it there are only signs of life."""
        while not (message := self.next())[0].startswith(first):
            assert message[0] == "WATCHDOG=1"
        return message

    def is_silent(self) -> bool:
        """Does the watchdog run out from now on?"""
        self._drain()
        try:
            self.next(OVERDUE_S)
        except TimeoutError:
            return True
        return False

    def end_of_round(self) -> None:
        """Wait for the end of the agent's present round, or of the next one."""
        self._drain()
        self.until("WATCHDOG=1")

    def _drain(self) -> None:
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(4096)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path)
    yield found
    found.close()


def test_the_manager_hears_of_start_reload_and_end(
    bare_sites: Sites, tmp_path: Path, manager: Manager
) -> None:
    """Ready with the tunnels, alive, reloading and ready whether the file is good or bad, stopping.

    The bad file is named in the status with its line, until a good one is read.
    """
    gateway = bare_sites.gw_a
    toml = config_for("a")
    path = tmp_path / "config.toml"
    with agent(gateway, tmp_path, toml, manager.environment) as process:
        assert manager.next() == ["READY=1", KEPT]
        assert gateway.diff(toml) == []
        assert manager.next() == ["WATCHDOG=1", KEPT]
        path.write_text(toml + 'rubbish = "yes"\n')
        process.send_signal(signal.SIGHUP)
        _, sent_us = manager.until("RELOADING=1")
        age_s = time.clock_gettime(time.CLOCK_MONOTONIC) - int(sent_us.split("=")[1]) / 1e6
        assert 0 <= age_s < 10
        ready, status = manager.next()
        line = len(path.read_text().splitlines())
        assert ready == "READY=1"
        assert status.startswith(f"{KEPT}; the old configuration stays: {path}:{line}: ")
        assert manager.until("WATCHDOG=1")[1] == status
        assert gateway.diff(toml) == []
        path.write_text(toml)
        process.send_signal(signal.SIGHUP)
        manager.until("RELOADING=1")
        assert manager.next() == ["READY=1", KEPT]
        process.send_signal(signal.SIGTERM)
        assert manager.until("STOPPING=1") == ["STOPPING=1"]
        assert process.wait(10) == 0
    assert manager.is_silent()
    assert [tunnel.name for tunnel in gateway.snapshot().tunnels] == ["fra1"]


def test_a_round_that_does_not_end_lets_the_watchdog_run_out(
    bare_sites: Sites, tmp_path: Path, manager: Manager
) -> None:
    """While its reconcile waits for ever the agent sends no sign of life; its loop is none."""
    gateway = bare_sites.gw_a
    with agent(gateway, tmp_path, config_for("a"), manager.environment):
        manager.until("READY=1")
        lock = memory.RUN_DIRECTORY / f"{gateway.call(namespaces.cookie)}.lock"
        with lock.open("w") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            # The round that was under way when we took it has been heard, too.
            assert wait_until(manager.is_silent, 10)
        assert manager.next() == ["WATCHDOG=1", KEPT]


def test_what_cannot_be_repaired_is_in_the_status(
    bare_sites: Sites, tmp_path: Path, manager: Manager
) -> None:
    """An agent that waits for a device, or fails, is alive, and says so for as long as it is."""
    gateway = bare_sites.gw_a
    with agent(gateway, tmp_path, config_for("a"), manager.environment):
        gateway.run(["ip", "link", "set", "eth1", "name", "lan9"])
        assert wait_until(lambda: manager.next()[-1] == f"{KEPT}, pending: 1")
        gateway.run(["ip", "link", "set", "lan9", "name", "eth1"])
        assert wait_until(lambda: manager.next()[-1] == KEPT)
        gateway.run(["nft", "add", "table", "inet", "guard"])
        chain = "{ type filter hook forward priority 0; policy drop; }"
        gateway.run(["nft", "add", "chain", "inet", "guard", "forward", chain])
        assert wait_until(lambda: "bypass_firewall" in manager.next()[-1])
        gateway.run(["nft", "delete", "table", "inet", "guard"])
        assert wait_until(lambda: manager.next()[-1] == KEPT)


def test_signals_turn_the_log_up_and_down(
    bare_sites: Sites, tmp_path: Path, manager: Manager
) -> None:
    """SIGUSR1 shows every event, SIGUSR2 hides them again, and what is only information, too."""
    gateway = bare_sites.gw_a
    log = tmp_path / "agent.log"
    with agent(gateway, tmp_path, config_for("a"), manager.environment) as process:

        def told(number: signal.Signals, level: str) -> None:
            before = log.stat().st_size
            process.send_signal(number)
            assert wait_until(lambda: f"the log level is {level}" in log.read_text()[before:])

        def said_of_a_lost_route() -> str:
            before = log.stat().st_size
            gateway.run(["ip", "route", "del", "10.2.0.0/24"])
            assert wait_until(lambda: gateway.diff(config_for("a")) == [])
            manager.end_of_round()
            return log.read_text()[before:]

        assert "repaired: create route 10.2.0.0/24" in said_of_a_lost_route()
        told(signal.SIGUSR1, "debug")
        assert " DEBUG gre_xdp.agent: event RTM_DELROUTE" in said_of_a_lost_route()
        told(signal.SIGUSR2, "info")
        told(signal.SIGUSR2, "warning")
        assert said_of_a_lost_route() == ""
        told(signal.SIGUSR2, "error")
        told(signal.SIGUSR2, "error")
        told(signal.SIGUSR1, "warning")
