"""``gre-xdp tunnel`` on real gateways: traffic goes on, and file and kernel say the same.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from agent_helpers import CLI, agent
from gre_xdp.history import STATE_DIRECTORY
from netns_helpers import Sites, config_for, ping, wait_until


class Editor:
    """gre-xdp tunnel, run on gw-a's file."""

    def __init__(self, sites: Sites, path: Path) -> None:
        self.path = path
        self.command = [*CLI, "--netns", sites.gw_a.namespace.name, "-c", str(path)]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, "tunnel", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def objects(self, *words: str) -> list[str]:
        """What an edit that succeeds has changed."""
        done = self(*words, "-j")
        assert done.returncode == 0, done.stderr
        return [change["object"] for change in json.loads(done.stdout)["changes"]]


@pytest.fixture
def edit(bare_sites: Sites, tmp_path: Path) -> Iterator[Editor]:
    """The two sites joined by fra1."""
    path = tmp_path / "config.toml"
    path.write_text("# gw-a\n" + config_for("a"))
    editor = Editor(bare_sites, path)
    bare_sites.gw_a.apply(path.read_text())
    bare_sites.gw_b.apply(config_for("b"))
    yield editor
    shutil.rmtree(STATE_DIRECTORY / quote(str(path), safe=""), ignore_errors=True)


SECOND = ("local", "192.0.2.1", "remote", "192.0.2.2", "key", "7")


def test_a_tunnel_comes_changes_and_goes_while_another_carries_traffic(
    bare_sites: Sites, edit: Editor
) -> None:
    """Packets pass the new tunnel; the other loses none, and keeps device and counters."""
    gateway, before = bare_sites.gw_a, edit.path.read_bytes()
    old = gateway.tunnel("fra1")
    flow = bare_sites.site_a.popen(["ping", "-n", "-i", "0.01", "-W", "1", "10.2.0.2"])
    assert flow.stdout is not None
    next(line for line in flow.stdout if "icmp_seq=5 " in line)
    objects = edit.objects("add", "fra2", *SECOND, "address", "169.254.20.1/30")
    assert {"device fra2", "tunnel fra2", "address fra2 169.254.20.1/30"} <= set(objects)
    assert not any("fra1" in name for name in objects)
    there = config_for("b") + (
        '[[tunnel]]\nname = "fra2"\nlocal = "192.0.2.2"\nremote = "192.0.2.1"\nkey = {}\n'
        'addresses = ["169.254.20.2/30"]\n'
    )
    bare_sites.gw_b.apply(there.format(7))
    assert ping(gateway.namespace, "169.254.20.2") == 3
    assert edit.objects("set", "fra2", "key", "8") == ["tunnel fra2"]
    assert ping(gateway.namespace, "169.254.20.2", "-W", "0.2", count=1) == 0
    bare_sites.gw_b.apply(there.format(8))
    assert ping(gateway.namespace, "169.254.20.2") == 3
    assert "device fra2" in edit.objects("del", "fra2")
    flow.send_signal(2)
    summary = re.search(r"(\d+) packets transmitted, (\d+) received", flow.stdout.read())
    flow.wait()
    assert summary is not None
    # The one that is under way when it ends may be missing.
    assert int(summary[2]) >= int(summary[1]) - 1 > 50
    assert edit.path.read_bytes() == before
    assert gateway.diff(before.decode()) == []
    new = gateway.tunnel("fra1")
    assert new.ifindex == old.ifindex
    assert new.counters.tx_packets >= old.counters.tx_packets + int(summary[2])


def test_an_edit_that_cannot_be_applied_leaves_file_and_kernel(
    bare_sites: Sites, edit: Editor
) -> None:
    """A device of that name that is somebody else's refuses the tunnel; nothing is different."""
    gateway, before = bare_sites.gw_a, edit.path.read_bytes()
    gateway.run(["ip", "link", "add", "fra2", "type", "bridge"])
    gateway.apply(before.decode())
    inode = edit.path.stat().st_ino
    for words in (["add", "fra2", *SECOND], ["set", "fra1", "name", "fra2", "ttl", "9"]):
        done = edit(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "fra2" in done.stderr
        assert (edit.path.read_bytes(), edit.path.stat().st_ino) == (before, inode)
        assert gateway.diff(before.decode()) == []
        assert os.listdir(edit.path.parent) == [edit.path.name]
    assert ping(bare_sites.site_a, "10.2.0.2") == 3


def test_a_step_that_fails_leaves_file_and_kernel(bare_sites: Sites, edit: Editor) -> None:
    """What the kernel refuses in the middle of the plan is undone, and the file put back."""
    gateway, before = bare_sites.gw_a, edit.path.read_bytes()
    # Nobody's route to a tunnel, so it is not looked for, but in the way of one.
    gateway.run(["ip", "route", "add", "blackhole", "10.77.0.0/16"])
    done = edit("add", "fra2", *SECOND, "address", "169.254.20.1/30", "route", "10.77.0.0/16")
    assert "create route 10.77.0.0/16 failed" in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert edit.path.read_bytes() == before
    assert gateway.diff(before.decode()) == []
    assert "fra2" not in gateway.run(["ip", "link"]).stdout


def test_edits_at_the_same_time_all_take_effect(bare_sites: Sites, edit: Editor) -> None:
    """One waits for the other: file and kernel have both, and then neither."""
    gateway, before = bare_sites.gw_a, edit.path.read_bytes()
    names = ["fra2", "fra3", "fra4"]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda n: edit("add", n, *SECOND[:-1], n[-1]), names))
    assert [one.returncode for one in done] == [0, 0, 0], done
    assert gateway.diff(edit.path.read_text()) == []
    assert {t.name for t in gateway.snapshot().tunnels} == {"fra1", *names}
    with ThreadPoolExecutor() as pool:
        assert [one.returncode for one in pool.map(lambda n: edit("del", n), names)] == [0, 0, 0]
    assert edit.path.read_bytes() == before
    assert gateway.diff(edit.path.read_text()) == []


def test_a_running_agent_follows(bare_sites: Sites, edit: Editor, tmp_path: Path) -> None:
    """It reads the edited file, keeps the kernel so, and never brings back what was there."""
    gateway, toml = bare_sites.gw_a, edit.path.read_text()
    log = tmp_path / "agent.log"
    with agent(gateway, tmp_path, toml):
        assert "tunnel fra2" in edit.objects("add", "fra2", *SECOND)
        assert wait_until(lambda: "loaded" in log.read_text())
        gateway.run(["ip", "link", "del", "fra2"])
        assert wait_until(lambda: "fra2" in gateway.run(["ip", "link"]).stdout)
        assert wait_until(lambda: gateway.diff(edit.path.read_text()) == [])
        assert edit("del", "fra2").returncode == 0
        assert wait_until(lambda: log.read_text().count("loaded") >= 2)
        # Refused: the agent reads the file that was put back.
        gateway.run(["ip", "link", "add", "fra3", "type", "bridge"])
        assert edit("add", "fra3", *SECOND).returncode == 1
        gateway.run(["ip", "link", "del", "fra3"])
        gateway.run(["ip", "link", "set", "fra1", "down"])
        assert wait_until(lambda: gateway.diff(toml) == [])
    assert edit.path.read_text() == toml
    text = log.read_text()
    assert "repaired: delete tunnel fra2" not in text
    assert "repaired: create tunnel fra3" not in text
    assert "fra3" not in gateway.run(["ip", "link"]).stdout
