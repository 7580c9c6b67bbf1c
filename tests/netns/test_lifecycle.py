"""Apply, again, change, agent, crash, down: what is there before and after, with traffic running.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent_helpers import CLI, agent
from gre_xdp import agent_counters, errors, memory, pins, reconcile
from gre_xdp.netlink import namespaces
from netns_helpers import Gateway, Sites, config_for, ping, wait_until

# Counters and timers that differ between two looks at an idle host.
_VOLATILE = re.compile(r"(valid_lft|preferred_lft|expires) \S+")


def fingerprint(gateway: Gateway) -> dict[str, object]:
    """Everything that `down` has to leave as it was."""

    def sysctls() -> dict[str, str]:
        found = {}
        for path in sorted(Path("/proc/sys/net").rglob("*")):
            if "/conf/" in str(path) and path.is_file():
                with suppress(OSError):
                    found[str(path)] = path.read_text()
        return found

    texts = {
        " ".join(command): _VOLATILE.sub("", gateway.run(command).stdout)
        for command in (
            ["ip", "-d", "link"],
            ["ip", "addr"],
            ["ip", "route", "show", "table", "all"],
            ["ip", "-6", "route", "show", "table", "all"],
            ["ip", "rule"],
        )
    }
    cookie = str(gateway.call(namespaces.cookie))
    return {
        **texts,
        **gateway.call(sysctls),
        "bpffs": sorted(map(str, pins.BPFFS.glob(f"gre-xdp/*/{cookie}"))),
        "mounted": pins.is_bpffs_mounted(),
        "run": sorted(map(str, memory.RUN_DIRECTORY.glob(f"{cookie}.*"))),
    }


def test_the_second_apply_changes_nothing(sites: Sites) -> None:
    """An applied configuration has an empty plan, and applying it again takes no step."""
    assert sites.gw_a.diff(config_for("a")) == []
    assert sites.gw_a.apply(config_for("a")) == []


def test_down_leaves_the_host_as_it_was(bare_sites: Sites) -> None:
    """Links, addresses, routes, rules, sysctls, pins and files are the same before and after."""
    before = fingerprint(bare_sites.gw_a)
    bare_sites.gw_a.apply(config_for("a"))
    assert fingerprint(bare_sites.gw_a) != before
    bare_sites.gw_a.down()
    assert fingerprint(bare_sites.gw_a) == before


def test_pins_are_for_root_alone(sites: Sites) -> None:
    """Every directory of pins is 0700."""
    cookie = sites.gw_a.call(namespaces.cookie)
    root = pins.Pins.of_namespace(cookie).root
    for directory in (root, *list(root.parents)[:2], *(p for p in root.rglob("*") if p.is_dir())):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_changed_key_touches_nothing_else(bare_sites: Sites) -> None:
    """One tunnel's key changes in one step; programs, devices and counters go on."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    assert ping(bare_sites.site_a, "10.2.0.2") == 3
    before = gateway.snapshot()
    steps = gateway.apply(config_for("a", key="key = 5"))
    # The key costs four bytes of MTU, which the device shows.
    assert [step.object for step in steps] == ["device fra1", "tunnel fra1"]
    bare_sites.gw_b.apply(config_for("b", key="key = 5"))
    assert ping(bare_sites.site_a, "10.2.0.2") == 3
    after = gateway.snapshot()
    assert after.interfaces == before.interfaces
    assert after.tunnels[0].ifindex == before.tunnels[0].ifindex
    assert after.tunnels[0].counters.tx_packets >= before.tunnels[0].counters.tx_packets + 3


def test_a_removed_tunnel_is_gone_and_its_name_starts_at_zero(bare_sites: Sites) -> None:
    """What the configuration no longer has is removed; a new tunnel of the name counts anew."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    assert ping(bare_sites.site_a, "10.2.0.2", count=20) == 20
    only_ports = '[[interface]]\nname = "eth0"\n[[interface]]\nname = "eth1"\n'
    gateway.apply(only_ports)
    assert gateway.snapshot().tunnels == []
    assert "fra1" not in gateway.run(["ip", "link"]).stdout
    gateway.apply(config_for("a"))
    # The device's own start (multicast of its kernel) is all that may have been counted.
    assert gateway.tunnel().counters.tx_packets < 10


@pytest.mark.parametrize(
    ("damage", "repaired"),
    [
        (["ip", "route", "del", "10.2.0.0/24"], "route 10.2.0.0/24"),
        (["ip", "addr", "del", "169.254.10.1/30", "dev", "fra1"], "address fra1 169.254.10.1/30"),
        (["ip", "link", "set", "fra1", "down"], "device fra1"),
        (["ip", "link", "set", "fra1", "mtu", "1300"], "device fra1"),
        (["ethtool", "-K", "fra1", "tx", "on"], "device fra1"),
        (["ip", "link", "del", "fra1"], "device fra1"),
        (["ip", "neigh", "flush", "dev", "eth0"], "neighbour eth0 192.0.2.2"),
        (["ip", "link", "set", "eth1", "address", "02:00:00:00:00:77"], "port eth1"),
        (["sysctl", "-q", "-w", "net.ipv4.conf.eth1.forwarding=0"], "sysctl"),
    ],
    ids=["route", "address", "down", "mtu", "checksum", "device", "neighbour", "mac", "sysctl"],
)
def test_damage_is_seen_and_repaired(bare_sites: Sites, damage: list[str], repaired: str) -> None:
    """Whatever somebody else took away shows in the plan, and apply brings it back."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    gateway.run(damage)
    assert any(step.object.startswith(repaired) for step in gateway.diff(config_for("a")))
    gateway.apply(config_for("a"))
    assert gateway.diff(config_for("a")) == []
    # site-a may still hold the gateway's former address.
    bare_sites.site_a.run(["ip", "neigh", "flush", "all"])
    assert wait_until(lambda: ping(bare_sites.site_a, "10.2.0.2", count=1) == 1)


def test_the_agent_brings_forwarding_back_within_a_second(
    bare_sites: Sites, tmp_path: Path
) -> None:
    """With both gateways' neighbours flushed under traffic, no more than a second is lost."""
    bare_sites.gw_b.apply(config_for("b"))
    with agent(bare_sites.gw_a, tmp_path, config_for("a")):
        assert ping(bare_sites.site_a, "10.2.0.2") == 3
        flow = bare_sites.site_a.popen(
            ["ping", "-n", "-c", "150", "-i", "0.02", "-W", "1", "10.2.0.2"]
        )
        assert flow.stdout is not None
        assert "icmp_seq=10 " in next(line for line in flow.stdout if "icmp_seq=10 " in line)
        for gateway in (bare_sites.gw_a, bare_sites.gw_b):
            gateway.run(["ip", "neigh", "flush", "all"])
        rest = flow.stdout.read()
        received = int(re.search(r"(\d+) received", rest)[1])  # type: ignore[index]
        assert received >= 150 - 50, rest


def test_kill_minus_nine_changes_nothing_for_traffic(bare_sites: Sites, tmp_path: Path) -> None:
    """Traffic and counters go on without the agent; a new one adopts all without re-attaching."""
    bare_sites.gw_b.apply(config_for("b"))
    gateway = bare_sites.gw_a
    with agent(gateway, tmp_path, config_for("a")) as process:
        assert ping(bare_sites.site_a, "10.2.0.2") == 3
        before = gateway.snapshot()
        links_before = _link_ids(gateway)
        process.kill()
        process.wait(10)
        assert ping(bare_sites.site_a, "10.2.0.2", count=50) == 50
        between = gateway.snapshot()
        gained = between.tunnels[0].counters.tx_packets - before.tunnels[0].counters.tx_packets
        assert gained >= 50
    with agent(gateway, tmp_path, config_for("a")):
        assert "applied" in (tmp_path / "agent.log").read_text()
        assert "0 changes" in (tmp_path / "agent.log").read_text()
        after = gateway.snapshot()
        assert after.interfaces == before.interfaces
        assert _link_ids(gateway) == links_before
        assert after.tunnels[0].counters.tx_packets >= between.tunnels[0].counters.tx_packets


def _link_ids(gateway: Gateway) -> list[tuple[str, int]]:
    """Names and inode numbers of the pinned links: a re-attach would make new ones."""
    root = pins.Pins.of_namespace(gateway.call(namespaces.cookie)).links
    return sorted((path.name, path.stat().st_ino) for path in root.iterdir())


def test_the_agent_reloads_and_keeps_the_old_file_when_the_new_is_bad(
    bare_sites: Sites, tmp_path: Path
) -> None:
    """SIGHUP loads the file; a bad one changes nothing and shows in the metrics."""
    toml = config_for("a").replace('exporter = ""', 'exporter = "127.0.0.1:9747"')
    gateway = bare_sites.gw_a
    with agent(gateway, tmp_path, toml) as process:
        (tmp_path / "config.toml").write_text(toml + 'rubbish = "yes"\n')
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: _metric(gateway, "config_last_reload_successful") == 0)
        assert gateway.diff(toml) == []
        (tmp_path / "config.toml").write_text(toml.replace('name = "fra1"', 'name = "ams1"'))
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: _metric(gateway, "config_last_reload_successful") == 1)
        assert [tunnel.name for tunnel in gateway.snapshot().tunnels] == ["ams1"]


def test_what_an_agent_has_counted_outlives_it(bare_sites: Sites, tmp_path: Path) -> None:
    """Also kill -9; down forgets it."""
    toml = config_for("a").replace('exporter = ""', 'exporter = "127.0.0.1:9747"')
    gateway = bare_sites.gw_a
    cookie = gateway.call(namespaces.cookie)
    with agent(gateway, tmp_path, toml) as process:
        gateway.run(["ip", "route", "del", "10.2.0.0/24", "dev", "fra1"])
        assert wait_until(lambda: _metric(gateway, "drift_repairs_total") > 0)
        before = _metric(gateway, "drift_repairs_total"), _metric(gateway, "reconciles_total")
        process.kill()
        process.wait()
    with agent(gateway, tmp_path, toml):
        assert _metric(gateway, "drift_repairs_total") >= before[0]
        assert _metric(gateway, "reconciles_total") >= before[1]
    assert agent_counters.path_of(cookie).exists()
    gateway.down()
    assert not agent_counters.path_of(cookie).exists()


def _metric(gateway: Gateway, name: str) -> float:
    text = gateway.call(_scrape)
    return float(re.search(rf"^gre_xdp_{name} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]


def _scrape() -> str:
    with socket.create_connection(("127.0.0.1", 9747), timeout=5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


def test_five_thousand_destinations_do_not_evict_the_next_hop(bare_sites: Sites) -> None:
    """Host traffic to more destinations than the neighbour table holds leaves the tunnel working.

    One of the routes is ours (one next hop for all), the other somebody's plain one.
    """
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    gateway.run(["ip", "route", "add", "10.64.0.0/16", "dev", "fra1"])
    assert ping(gateway.namespace, "10.2.0.2") == 3

    def send_to_all() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ipv4,
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ipv6,
        ):
            for number in range(5000):
                with suppress(OSError):  # the kernel's table may be full, that is the point
                    ipv4.sendto(b"x", (f"10.64.{number >> 8}.{number & 255}", 9))
                with suppress(OSError):
                    ipv6.sendto(b"x", (f"2001:db8:b::{number + 16:x}", 9))

    gateway.call(send_to_all)
    entries = json.loads(gateway.run(["ip", "-j", "neigh", "show", "dev", "eth0"]).stdout)
    assert any(e["dst"] == "192.0.2.2" and "REACHABLE" in e["state"] for e in entries)
    ours = json.loads(gateway.run(["ip", "-6", "-j", "neigh", "show", "dev", "fra1"]).stdout)
    assert len([e for e in ours if e["dst"].startswith("2001:db8:b::")]) == 0
    assert ping(gateway.namespace, "10.2.0.2") == 3
    assert ping(bare_sites.site_a, "10.2.0.2") == 3


def test_a_renamed_device_gets_its_name_back(bare_sites: Sites) -> None:
    """Apply repairs it, with the tunnel's traffic; down removes it under whatever name."""
    before = fingerprint(bare_sites.gw_a)
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    gateway.run(["ip", "link", "set", "fra1", "name", "foo1"])
    assert gateway.apply(config_for("a"))[0].object == "device fra1"
    assert wait_until(lambda: ping(bare_sites.site_a, "10.2.0.2", count=1) == 1)
    gateway.run(["ip", "link", "set", "fra1", "name", "foo1"])
    bare_sites.gw_b.down()
    gateway.down()
    assert fingerprint(gateway) == before


def test_an_empty_file_removes_nothing(bare_sites: Sites) -> None:
    """A file that configures nothing is refused while tunnels run: that is what down is for."""
    bare_sites.gw_a.apply(config_for("a"))
    with pytest.raises(errors.ConfigError, match="configures nothing") as refusal:
        bare_sites.gw_a.apply("")
    assert "gre-xdp down" in refusal.value.remedy
    assert bare_sites.gw_a.diff(config_for("a")) == []


def test_what_the_agent_cannot_repair_stops_nothing_else(bare_sites: Sites, tmp_path: Path) -> None:
    """While one thing is refused, next hops are still kept, and metrics and readiness say so."""
    toml = config_for("a").replace('exporter = ""', 'exporter = "127.0.0.1:9747"')
    gateway = bare_sites.gw_a
    bare_sites.gw_b.apply(config_for("b"))
    with agent(gateway, tmp_path, toml):
        assert _metric(gateway, "reconcile_successful") == 1
        gateway.run(["ip", "route", "replace", "10.2.0.0/24", "dev", "eth1"])
        assert wait_until(lambda: _metric(gateway, "reconcile_successful") == 0)
        gateway.run(["ip", "neigh", "flush", "dev", "eth0"])
        assert wait_until(lambda: ping(gateway.namespace, "169.254.10.2", count=1) == 1)
        gateway.run(["ip", "route", "del", "10.2.0.0/24", "dev", "eth1"])
        assert wait_until(lambda: _metric(gateway, "reconcile_successful") == 1)
    assert "there is a route to 10.2.0.0/24 already" in (tmp_path / "agent.log").read_text()


def test_nobody_works_against_a_running_agent(bare_sites: Sites, tmp_path: Path) -> None:
    """A second agent and another file are refused, the same file is reloaded, down stops it."""
    gateway = bare_sites.gw_a
    other = tmp_path / "other.toml"
    other.write_text(config_for("a", key="key = 9"))

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, "--netns", gateway.namespace.name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    with agent(gateway, tmp_path, config_for("a")) as process:
        for arguments in (["apply", str(other)], ["agent", str(other)]):
            refused = cli(*arguments)
            assert refused.returncode == 1
            assert f"pid {process.pid}" in refused.stderr
        (tmp_path / "config.toml").write_text(config_for("a", key="key = 5"))
        assert cli("apply", str(tmp_path / "config.toml")).returncode == 0
        assert gateway.tunnel().ikey == 5
        done = cli("down", "--yes")
        assert done.returncode == 0
        assert f"stopped the agent (pid {process.pid})" in done.stderr
        assert process.wait(10) == 0
    assert "fra1" not in gateway.run(["ip", "link"]).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_apply_that_is_told_to_end_undoes_its_steps(
    bare_sites: Sites, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, a stop and a lost terminal in the middle of apply leave the host as it was."""
    gateway = bare_sites.gw_a
    before = fingerprint(gateway)
    path = tmp_path / "config.toml"
    path.write_text(config_for("a"))
    process = subprocess.Popen([*CLI, "--netns", gateway.namespace.name, "apply", str(path)])
    # The device is made in the middle: settings and programs before it, routes after it.
    assert wait_until(lambda: "fra1" in gateway.run(["ip", "link"]).stdout, 20)
    process.send_signal(number)
    if process.wait(20) != 0:
        assert fingerprint(gateway) == before
    assert gateway.apply(config_for("a")) is not None
    assert gateway.diff(config_for("a")) == []


def test_many_writers_take_turns(bare_sites: Sites) -> None:
    """However many want to write at once, each gets its turn, and nobody waits for ever."""
    gateway = bare_sites.gw_a
    until_s = time.time() + 60

    def write(number: int) -> None:
        for _ in range(20):
            gateway.call(
                partial(
                    reconcile.believe_path_mtu,
                    *(ip_address("192.0.2.1"), ip_address(f"192.0.2.{number}")),
                    1400,
                    until_s,
                )
            )

    with ThreadPoolExecutor(8) as writers:
        done = [writers.submit(write, number) for number in range(2, 10)]
        for each in done:
            each.result(timeout=30)
    cookie = gateway.call(namespaces.cookie)
    assert len(memory.Memory.of_namespace(cookie).path_mtus) == 8
    assert not (memory.RUN_DIRECTORY / f"{cookie}.lock").exists()
