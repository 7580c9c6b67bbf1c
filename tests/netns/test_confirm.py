"""Changes that have to be confirmed, and going back, with traffic running.

site-a ── gw-a ═══ underlay ═══ gw-b ── site-b
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_helpers import CLI, agent
from gre_xdp import history
from netns_helpers import Sites, config_for, ping, wait_until

GOOD = config_for("a")
# The other end has no key: this cuts the tunnel.
BAD = config_for("a", key="key = 9")


class Gateway:
    """gw-a, its file and its command line."""

    def __init__(self, sites: Sites, directory: Path) -> None:
        self.sites = sites
        self.path = directory / "config.toml"
        self.path.write_text(GOOD)
        self.history = history.History(self.path)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        netns = self.sites.gw_a.namespace.name
        return subprocess.run(
            [*CLI, "--netns", netns, *arguments, str(self.path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def is_good(self) -> bool:
        return self.sites.gw_a.tunnel().ikey is None and self.path.read_text() == GOOD

    def watchdogs(self) -> list[int]:
        """The processes that watch changes of the file."""
        found = subprocess.run(
            ["pgrep", "-f", f"gre_xdp.rollback {self.path}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def gateway(bare_sites: Sites, tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(bare_sites, tmp_path)
    bare_sites.gw_b.apply(config_for("b"))
    assert made.cli("apply").returncode == 0
    try:
        yield made
    finally:
        for pid in made.watchdogs():
            os.kill(pid, signal.SIGKILL)


def test_a_change_that_cuts_the_tunnel_is_taken_back(gateway: Gateway) -> None:
    """In time the former configuration is in force and in the file, with the new one beside it."""
    gateway.path.write_text(BAD)
    done = gateway.cli("apply", "--confirm-within", "2")
    assert done.returncode == 0, done.stderr
    assert "confirm" in done.stdout + done.stderr
    assert ping(gateway.sites.site_a, "10.2.0.2", "-W", "1", count=1) == 0
    assert wait_until(gateway.is_good, 10)
    assert wait_until(lambda: ping(gateway.sites.site_a, "10.2.0.2", count=1) == 1)
    assert gateway.path.with_name("config.toml.rolled-back").read_text() == BAD
    assert gateway.history.pending is None
    assert wait_until(lambda: not gateway.watchdogs())


def test_a_confirmed_change_stays(gateway: Gateway) -> None:
    """Confirm says so once; after the time nothing has changed, and the watchdog is gone."""
    gateway.path.write_text(BAD)
    assert gateway.cli("apply", "--confirm-within", "3").returncode == 0
    assert gateway.cli("confirm").returncode == 0
    assert wait_until(lambda: not gateway.watchdogs())
    assert gateway.sites.gw_a.tunnel().ikey == 9
    again = gateway.cli("confirm")
    assert again.returncode == 1
    assert "waits for confirmation" in again.stderr


def test_nothing_else_is_applied_meanwhile(gateway: Gateway) -> None:
    """A change that waits has to be decided before the next one."""
    gateway.path.write_text(BAD)
    assert gateway.cli("apply", "--confirm-within", "60").returncode == 0
    refused = gateway.cli("apply")
    assert refused.returncode == 1
    assert "gre-xdp confirm" in refused.stderr
    assert gateway.cli("rollback").returncode == 0
    assert gateway.is_good()
    assert gateway.cli("apply").returncode == 0


def test_a_change_that_fails_needs_no_confirmation(gateway: Gateway) -> None:
    """What was not applied is not taken back."""
    gateway.path.write_text(GOOD.replace('name = "eth0"', 'name = "eth9"'))
    assert gateway.cli("apply", "--confirm-within", "60").returncode == 1
    assert gateway.history.pending is None
    assert wait_until(lambda: not gateway.watchdogs())


def test_the_agent_takes_it_back_when_the_watchdog_has_died(
    gateway: Gateway, tmp_path: Path
) -> None:
    """Killed with -9, the process that watched is replaced by the agent."""
    with agent(gateway.sites.gw_a, tmp_path, GOOD):
        gateway.path.write_text(BAD)
        assert gateway.cli("apply", "--confirm-within", "3").returncode == 0
        for pid in gateway.watchdogs():
            os.kill(pid, signal.SIGKILL)
        assert gateway.sites.gw_a.tunnel().ikey == 9
        assert wait_until(gateway.is_good, 15)


def test_a_reboot_takes_it_back(gateway: Gateway) -> None:
    """Whoever reads the file first after a reboot finds the former text in it."""
    gateway.path.write_text(BAD)
    assert gateway.cli("apply", "--confirm-within", "600").returncode == 0
    for pid in gateway.watchdogs():
        os.kill(pid, signal.SIGKILL)
    gateway.sites.gw_a.down()
    pending = gateway.history._directory / "pending.json"
    content = json.loads(pending.read_text()) | {"boot_id": "of the boot before"}
    pending.write_text(json.dumps(content))
    done = gateway.cli("apply")
    assert done.returncode == 0, done.stderr
    assert "never confirmed" in done.stderr
    assert gateway.is_good()


def test_rollback_goes_back_and_forth(gateway: Gateway) -> None:
    """The former configuration comes back with one command, and the other one with the next."""
    nothing = gateway.cli("rollback")
    assert nothing.returncode == 1
    gateway.path.write_text(BAD)
    assert gateway.cli("apply").returncode == 0
    assert gateway.cli("rollback").returncode == 0
    assert gateway.is_good()
    assert gateway.cli("rollback").returncode == 0
    assert gateway.sites.gw_a.tunnel().ikey == 9
    assert gateway.path.read_text() == BAD


def test_taking_back_loses_nothing_of_other_tunnels(gateway: Gateway) -> None:
    """Only what had changed changes back: traffic that it does not concern goes on."""
    more = GOOD + (
        '[[tunnel]]\nname = "other"\nlocal = "192.0.2.1"\nremote = "192.0.2.2"\nkey = 5\n'
    )
    gateway.path.write_text(more)
    flow = gateway.sites.site_a.popen(
        ["ping", "-n", "-c", "200", "-i", "0.02", "-W", "1", "10.2.0.2"]
    )
    assert gateway.cli("apply", "--confirm-within", "1").returncode == 0
    assert wait_until(gateway.is_good, 10)
    assert flow.stdout is not None
    assert "200 received" in flow.stdout.read()
