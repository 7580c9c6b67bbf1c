"""Another version's data plane, with maps of another layout, is taken over under traffic.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from gre_xdp import abi, config, datapath, errors, memory, reconcile, steps
from gre_xdp.abi import MapIndex
from gre_xdp.lab.topology import Namespace
from gre_xdp.netlink import namespaces
from gre_xdp.pins import BPFFS
from netns_helpers import Gateway, Sites, config_for, wait_until

TUNNEL = "csum = true\nseq = true"


@contextlib.contextmanager
def version(number: int, **layout: int) -> Iterator[None]:
    """Let this process be another version of gre-xdp: maps named in ``layout`` have other sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abi, "PIN_VERSION", number)
        for name, entries in layout.items():
            index = MapIndex[name.upper()]
            patch.setitem(
                abi.MAPS, index, dataclasses.replace(abi.MAPS[index], max_entries=entries)
            )
        datapath.source_digest.cache_clear()
        try:
            yield
        finally:
            datapath.source_digest.cache_clear()


def layouts(gateway: Gateway) -> set[str]:
    """The layouts that are pinned for a gateway's namespace."""
    cookie = str(gateway.call(namespaces.cookie))
    return {path.parent.name for path in (BPFFS / "gre-xdp").glob(f"v*/{cookie}")}


def totals(gateway: Gateway) -> dict[str, int]:
    """Everything that counts up."""
    snapshot = gateway.snapshot()
    tunnels = {f"{t.name} rx": t.counters.rx_packets for t in snapshot.tunnels}
    tunnels |= {f"{t.name} tx": t.counters.tx_packets for t in snapshot.tunnels}
    return tunnels | {c.reason.name: c.count for c in [*snapshot.drops, *snapshot.passes]}


class Pinging:
    """Echo requests through the tunnel, every few milliseconds, while a block runs."""

    def __init__(self, sites: Sites) -> None:
        self._process = sites.site_a.popen(
            ["ping", "-i", "0.005", "-c", "100000", "-w", "60", "-q", "10.2.0.2"]
        )

    def stop(self) -> tuple[int, int]:
        """How many were sent, and how many lost."""
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=10)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        assert found is not None, output
        sent, received = map(int, found.groups())
        return sent, sent - received


@pytest.mark.parametrize(
    ("former", "latter"), [(abi.PIN_VERSION + 1, abi.PIN_VERSION), (abi.PIN_VERSION, 9)]
)
def test_another_layout_is_taken_over(bare_sites: Sites, former: int, latter: int) -> None:
    """Up and down a version: no packet is lost, counters and sequence numbers go on."""
    toml = config_for("a", key=TUNNEL)
    gateway = bare_sites.gw_a
    bare_sites.gw_b.apply(config_for("b", key=TUNNEL))
    with version(former, tunnels=40000, devices=50000):
        gateway.apply(toml)
        assert layouts(gateway) == {f"v{former}"}
    pinging = Pinging(bare_sites)
    with version(former, tunnels=40000, devices=50000):
        assert wait_until(lambda: gateway.tunnel().counters.rx_packets > 100)
        before = totals(gateway)
    with version(latter):
        steps_taken = gateway.apply(toml)
        assert gateway.diff(toml) == []
        assert layouts(gateway) == {f"v{latter}"}
        after = totals(gateway)
        assert all(after[name] >= count for name, count in before.items())
        count = gateway.tunnel().counters.rx_packets
        assert wait_until(lambda: gateway.tunnel().counters.rx_packets > count + 100)
        sent, lost = pinging.stop()
        assert (sent > 200, lost) == (True, 0)
        assert "gre_sequence" not in gateway.drops()
        gateway.down()
    assert "gre_sequence" not in bare_sites.gw_b.drops()
    assert {step.object for step in steps_taken if step.action == "update"} == {
        "attachment eth0",
        "attachment eth1",
        "attachment gx-fra1",
    }
    assert layouts(gateway) == set()


def test_a_takeover_that_fails_gives_everything_back(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other version's programs run on, on its own maps, and nothing of this one is left."""
    gateway = bare_sites.gw_a
    bare_sites.gw_b.apply(config_for("b"))
    with version(9):
        gateway.apply(config_for("a"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    more = config_for("a").replace("169.254.10.1/30", '169.254.10.1/30", "169.254.99.1/30')
    with monkeypatch.context() as patch:
        patch.setattr(steps.addresses, "add", refuse)
        with pytest.raises(errors.ApplyError):
            gateway.apply(more)
    assert layouts(gateway) == {"v9"}
    with version(9):
        assert gateway.diff(config_for("a")) == []


def test_counters_of_another_form_are_not_thrown_away(bare_sites: Sites) -> None:
    """The refusal says how to go on without them, and touches nothing."""
    gateway = bare_sites.gw_a
    with version(9, tunnel_counters=1024):
        gateway.apply(config_for("a"))
    with pytest.raises(
        errors.KernelError, match="keeps tunnel_counters in another form"
    ) as refusal:
        gateway.apply(config_for("a"))
    assert "gre-xdp down with that version" in refusal.value.remedy
    with version(9, tunnel_counters=1024):
        assert gateway.diff(config_for("a")) == []


def test_an_agent_does_not_fight_another_version(bare_sites: Sites) -> None:
    """What has taken over while it ran is not its own to take back."""
    gateway = bare_sites.gw_a
    wanted = config.parse(config_for("a"), "test.toml")
    with version(9):
        gateway.apply(config_for("a"))
    with pytest.raises(errors.HostError, match="another version") as refusal:
        gateway.call(partial(reconcile.keep, wanted))
    assert refusal.value.remedy == "restart the agent"
    gateway.call(partial(reconcile.keep, wanted, takes_over=True))
    assert gateway.diff(config_for("a")) == []


def test_down_removes_another_version_too(bare_sites: Sites) -> None:
    """Whatever made it."""
    gateway = bare_sites.gw_a
    with version(9):
        gateway.apply(config_for("a"))
    gateway.down()
    assert layouts(gateway) == set()
    assert "xdp" not in gateway.run(["ip", "link", "show", "eth0"]).stdout


def test_pins_of_a_namespace_that_is_gone_are_removed(bare_sites: Sites) -> None:
    """At the next apply anywhere on the host; those of the living stay."""
    gateway, other = bare_sites.gw_a, bare_sites.gw_b
    other.apply(config_for("b"))
    name = f"{gateway.namespace.name}-dead"
    subprocess.run(["ip", "netns", "add", name], check=True)
    dead = Gateway(Namespace(name))
    try:
        dead.apply('exporter = ""\n[[interface]]\nname = "eth0"\n')
        assert layouts(dead) == {f"v{abi.PIN_VERSION}"}
        cookie = str(dead.call(namespaces.cookie))
        gateway.apply(config_for("a"))
        assert list((BPFFS / "gre-xdp").glob(f"v*/{cookie}"))
        assert cookie in memory.notes_by_namespace()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    gateway.apply(config_for("a", key="key = 1"))
    assert not list((BPFFS / "gre-xdp").glob(f"v*/{cookie}"))
    assert cookie not in memory.notes_by_namespace()
    assert other.diff(config_for("b")) == []
