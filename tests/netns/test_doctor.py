"""The doctor on real hosts: what is broken is found, what can be mended is, and then it is quiet.

site-a ── gw-a ═══ underlay ═══ gw-b ── site-b
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_helpers import CLI
from gre_xdp import bpf, doctor, path_mtu
from gre_xdp.doctor import Finding
from gre_xdp.doctor import facts as doctor_facts
from gre_xdp.netlink import Netlink
from gre_xdp.netlink.links import list_links
from netns_helpers import Gateway, Sites, config_for, ping

PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit


def command(gateway: Gateway, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, with --netns."""
    return subprocess.run(
        [*CLI, "--netns", gateway.namespace.name, "doctor", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
        check=False,
    )


def shown(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What is not ok of its JSON."""
    return [each for each in json.loads(result.stdout)["findings"] if each["severity"] != "ok"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The path of gateway A's configuration."""
    path = tmp_path / "a.toml"
    path.write_text(config_for("a"))
    return str(path)


def findings(gateway: Gateway, path: str, **options: Any) -> list[Finding]:
    """What the library finds beside what is ok; programs are loaded once, in another test."""
    look = partial(
        doctor.examine,
        Path(path),
        is_required=True,
        netns=gateway.namespace.name,
        **({"build": False} | options),
    )
    return [each for each in gateway.call(look) if each.severity != "ok"]


def subjects(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.subject, each.severity) for each in found]


def test_a_good_gateway_is_quiet(bare_sites: Sites, file: str) -> None:
    """Before apply and after it, with the programs compiled, loaded and the path measured."""
    gateway = bare_sites.gw_a
    before = command(gateway, file, "--probe")
    assert (before.returncode, before.stderr) == (0, "")
    assert before.stdout.startswith("nothing to mend; ")
    assert before.stdout.count("\n") == 1
    gateway.apply(config_for("a"))
    after = command(gateway, file, "-v")
    assert after.returncode == 0
    assert "they compile, and this kernel takes them" in after.stdout
    assert "driver veth, native XDP" in after.stdout
    assert after.stdout.endswith("checks ok\n")


def test_looking_changes_nothing(bare_sites: Sites, file: str) -> None:
    """Nothing is attached, pinned, mounted or made."""
    gateway = bare_sites.gw_a
    look = ["ip", "-d", "link"]
    before = gateway.run(look).stdout, gateway.run(["ip", "route"]).stdout
    assert command(gateway, file, "--probe").returncode == 0
    assert (gateway.run(look).stdout, gateway.run(["ip", "route"]).stdout) == before
    assert gateway.run(["nft", "list", "ruleset"]).stdout == ""


def test_fix_mends_the_other_end_of_a_veth(bare_sites: Sites, file: str) -> None:
    """Pings die on a peer without NAPI; --fix brings them back, and then the doctor is quiet."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    assert ping(bare_sites.site_a, "10.2.0.2") == 3
    bare_sites.site_a.run(["ethtool", "-K", "eth0", "gro", "off", "tx", "on"])
    assert ping(bare_sites.site_a, "10.2.0.2") == 0
    found = shown(command(gateway, file, "-j", "--no-load"))
    where = f"nsenter --net={bare_sites.site_a.path} ethtool -K eth0"
    assert [(each["severity"], each["remedy"]) for each in found] == [
        ("error", f"{where} gro on"),
        ("warning", f"{where} tx off"),
    ]
    assert {each["subject"] for each in found} == {"interface eth1"}
    mended = command(gateway, file, "--no-load", "--fix", stdin="y\ny\n")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "nothing to mend" in mended.stdout
    assert ping(bare_sites.site_a, "10.2.0.2") == 3
    assert findings(gateway, file) == []


def test_fix_mends_settings(bare_sites: Sites, file: str) -> None:
    """Forwarding that somebody has switched off, and a strict rp_filter on the tunnel."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    gateway.namespace.set_sysctl("net/ipv4/conf/eth1/forwarding", 0)
    gateway.namespace.set_sysctl("net/ipv4/conf/fra1/rp_filter", 1)
    assert subjects(findings(gateway, file)) == [
        ("interface eth1", "error"),
        ("tunnel fra1", "warning"),
    ]
    # Declining changes nothing.
    assert command(gateway, file, "--no-load", "--fix", stdin="n\nn\n").returncode == 1
    assert len(findings(gateway, file)) == 2
    mended = command(gateway, file, "--no-load", "--fix", "--yes", "-j")
    assert mended.returncode == 0
    inside = f"ip netns exec {gateway.namespace.name} sysctl -w net.ipv4.conf"
    assert json.loads(mended.stdout)["fixed"] == [
        f"{inside}.eth1.forwarding=1",
        f"{inside}.fra1.rp_filter=2",
    ]
    assert shown(mended) == []
    assert gateway.diff(config_for("a")) == []


def test_a_strict_host_makes_strict_tunnels(bare_sites: Sites, file: str) -> None:
    """It is said before there is a device."""
    bare_sites.gw_a.namespace.set_sysctl("net/ipv4/conf/all/rp_filter", 1)
    (note,) = findings(bare_sites.gw_a, file)
    assert (note.subject, note.severity, note.fixes) == ("tunnel fra1", "note", ())


def test_the_way_to_the_remote(bare_sites: Sites, file: str) -> None:
    """A missing local, a missing route, and a next hop that does not answer."""
    gateway = bare_sites.gw_a
    gateway.run(["ip", "addr", "del", "192.0.2.1/24", "dev", "eth0"])
    local, route = findings(gateway, file)
    assert "does not have the address 192.0.2.1" in local.finding
    assert "no route to its remote 192.0.2.2" in route.finding
    gateway.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "eth0"])
    bare_sites.gw_b.run(["ip", "link", "set", "eth0", "down"])
    bare_sites.gw_b.run(["ip", "addr", "flush", "dev", "eth0"])
    bare_sites.gw_b.run(["ip", "link", "set", "eth0", "up"])
    (silent,) = findings(gateway, file, probe=True)[:1]
    assert ping(bare_sites.gw_a.namespace, "192.0.2.2", count=1) == 0
    (next_hop,) = findings(gateway, file)
    assert "does not answer" in silent.finding
    assert "the next hop to its remote, 192.0.2.2 on eth0, does not answer" in next_hop.finding
    gateway.run(["ip", "link", "set", "eth0", "down"])
    assert ("interface eth0", "warning") in subjects(findings(gateway, file))


def test_a_path_that_is_narrower_than_its_first_link(
    bare_sites: Sites, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--probe finds the MTU that no router tells of: longer echo requests get no answer."""
    monkeypatch.setattr(path_mtu, "measure", partial(path_mtu.measure, timeout_s=0.1))
    bare_sites.gw_b.run(["nft", "-f", "-"], stdin=ECHOES_UP_TO_1400)
    assert findings(bare_sites.gw_a, file) == []
    (found,) = findings(bare_sites.gw_a, file, probe=True)
    assert "takes 1400 bytes, and the tunnel sends up to 1500" in found.finding
    assert found.remedy == 'set mtu = 1376 for tunnel "fra1"'


ECHOES_UP_TO_1400 = """
table ip deaf {
  chain in { type filter hook input priority 0; ip protocol icmp meta length > 1400 drop; }
}
"""


def test_a_foreign_program_is_named(bare_sites: Sites, file: str) -> None:
    """Somebody else's XDP program is an error as long as it is there."""
    gateway = bare_sites.gw_a
    with bpf.owned(bpf.prog_load("stranger", PASS, [])) as program:

        def attach() -> int:
            with Netlink() as netlink:
                index = list_links(netlink)["eth0"].index
            return bpf.link_create(program, index, bpf.XDP_FLAGS_NATIVE)

        with bpf.owned(gateway.call(attach)):
            (found,) = findings(gateway, file)
            assert "eth0 already runs another XDP program: program stranger" in found.finding
            assert found.severity == "error"
    assert findings(gateway, file) == []


def test_our_own_program_is_not_foreign(bare_sites: Sites, file: str) -> None:
    """Also not for one who cannot see the pins."""
    bare_sites.gw_a.apply(config_for("a"))
    assert findings(bare_sites.gw_a, file) == []


WALLS = """
table inet fw {
  chain forward { type filter hook forward priority 0; policy drop; }
  chain early { type filter hook prerouting priority -300; ip saddr 203.0.113.0/24 drop; }
}
table ip nat {
  chain post { type nat hook postrouting priority 100; masquerade; }
}
"""


def test_firewalls_that_xdp_bypasses(bare_sites: Sites, file: str) -> None:
    """Forward chains refuse apply; NAT and others are told; bypass_firewall makes them notes."""
    gateway = bare_sites.gw_a
    gateway.run(["nft", "-f", "-"], stdin=WALLS)
    found = findings(gateway, file)
    assert sorted((each.severity, each.subject) for each in found) == [
        ("error", "firewall"),
        ("note", "firewall"),
        ("warning", "firewall"),
    ]
    words = " ".join(each.finding for each in found)
    for name in ("inet fw forward", "inet fw early", "ip nat post"):
        assert name in words
    # Never mended by itself.
    assert not any(each.fixes for each in found)
    Path(file).write_text(config_for("a", extra="bypass_firewall = true"))
    assert {each.severity for each in findings(gateway, file)} == {"note"}


def test_a_shaper_that_xdp_bypasses(bare_sites: Sites, file: str) -> None:
    """A queueing discipline that shapes is told, the usual ones are not."""
    gateway = bare_sites.gw_a
    limits = ["rate", "1mbit", "burst", "10k", "limit", "10k"]
    gateway.run(["tc", "qdisc", "add", "dev", "eth1", "clsact"])
    assert findings(gateway, file) == []
    gateway.run(["tc", "qdisc", "add", "dev", "eth1", "root", "tbf", *limits])
    (found,) = findings(gateway, file)
    assert (found.subject, found.severity) == ("interface eth1", "warning")
    assert "tbf" in found.finding


def test_a_broken_file_and_no_file(bare_sites: Sites, tmp_path: Path) -> None:
    """Mistakes are findings with their lines; without any file the host is looked at."""
    gateway = bare_sites.gw_a
    bad = tmp_path / "bad.toml"
    bad.write_text('colour = "red"\n')
    result = command(gateway, str(bad), "--no-load", "-j")
    (mistake,) = shown(result)
    assert result.returncode == 1
    assert mistake["finding"].startswith(f"{bad}:1: ")
    result = command(gateway, str(tmp_path / "none.toml"), "--no-load")
    assert result.returncode == 1
    assert "none.toml" in result.stdout
    assert command(gateway, "--no-load").returncode == 0


def test_a_private_sys_is_told(bare_sites: Sites, file: str) -> None:
    """Under ip netns exec pins would vanish, and --netns is the way."""
    name = bare_sites.gw_a.namespace.name
    result = subprocess.run(
        ["ip", "netns", "exec", name, *CLI, "doctor", file, "--no-load", "-j"],
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = shown(result)
    assert result.returncode == 1
    assert (found["subject"], found["severity"]) == ("pins", "error")
    assert f"--netns {name}" in found["remedy"]


def _is_open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in path.resolve().parents)


def test_an_ordinary_user_sees_what_can_be_seen(bare_sites: Sites, tmp_path: Path) -> None:
    """Interfaces and tunnels as root sees them, and a note on what is not looked at."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    if not all(map(_is_open_to_all, (Path(sys.executable), Path(doctor_facts.__file__)))):
        pytest.skip("needs a checkout that every user can read")
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    gateway.run(["nft", "-f", "-"], stdin=WALLS)
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = ["env", f"PATH={os.environ['PATH']}", "HOME=/", "TMPDIR=/tmp"]
    # A file of /tmp/pytest-of-root is not for everybody.
    config = Path("/tmp") / f"gre-xdp-doctor-{os.getpid()}.toml"  # noqa: S108 - read by another user
    config.write_text(config_for("a"))
    config.chmod(0o644)
    try:
        result = gateway.run([*user, *environment, *CLI, "doctor", str(config), "-j"], check=False)
    finally:
        config.unlink()
    assert result.returncode == 0, result.stdout + result.stderr
    (note,) = shown(result)
    assert (note["subject"], note["severity"]) == ("privileges", "note")
    seen = {each["subject"] for each in json.loads(result.stdout)["findings"]}
    assert {"kernel", "programs", "interface eth0", "interface eth1", "tunnel fra1"} <= seen
    assert "firewall" not in seen


@pytest.fixture(autouse=True)
def _no_walls_left(bare_sites: Sites) -> Iterator[None]:
    """What a test has put up does not keep the gateway's down from working."""
    yield
    bare_sites.gw_a.run(["nft", "flush", "ruleset"], check=False)
