"""Each mistake gets one clear error and changes nothing: the CLI as a user runs it.

peer ═══ gw ── lan
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gre_xdp import abi, bpf, pins
from gre_xdp.lab.topology import Link, Node, Topology
from gre_xdp.netlink import namespaces
from netns_helpers import Gateway, config_for

GOOD = config_for("a")
NODES = [
    Node("gw", {"eth0": ("192.0.2.1/24",), "eth1": ("10.1.0.1/24", "2001:db8:a::1/64")}),
    Node("peer", {"eth0": ("192.0.2.2/24",)}),
    Node("lan", {"eth0": ("10.1.0.2/24",)}),
]
LINKS = [Link("peer:eth0", "gw:eth0"), Link("lan:eth0", "gw:eth1")]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A gateway that nothing has been applied to."""
    with Topology(f"gxbad{os.getpid() % 10000}", NODES, LINKS) as network:
        found = Gateway(network.nodes["gw"])
        try:
            yield found
        finally:
            found.down()


@dataclass(frozen=True)
class Mistake:
    """A change to the good file, or to the host, and what the error has to say."""

    words: tuple[str, ...]
    old: str = ""
    new: str = ""
    host: tuple[str, ...] = ()


MISTAKES = {
    "unknown-key": Mistake(("remot", "remote", "config.toml:"), "remote =", "remot ="),
    "not-toml": Mistake(("config.toml:",), "[[tunnel]]", "[[tunnel"),
    "two-families": Mistake(("IPv4", "IPv6"), 'remote = "192.0.2.2"', 'remote = "2001:db8::2"'),
    "overlapping": Mistake(
        ("fra1", "fra2", "local and remote"),
        "[[tunnel]]",
        '[[tunnel]]\nname = "fra2"\nlocal = "192.0.2.1"\nremote = "192.0.2.2"\n\n[[tunnel]]',
    ),
    "underlay-not-in-the-file": Mistake(
        ("eth0", "not in the configuration"), 'name = "eth0"', 'name = "eth7"'
    ),
    "name-taken": Mistake(
        ("fra1", "exists already"),
        host=("ip", "link", "add", "fra1", "type", "veth", "peer", "name", "other"),
    ),
    "inner-name-taken": Mistake(
        ("gx-fra1", "exists already"),
        host=("ip", "link", "add", "gx-fra1", "type", "veth", "peer", "name", "other"),
    ),
    "through-itself": Mistake(
        ("192.0.2.2", "through tunnel fra1"), '"10.2.0.0/24"', '"192.0.2.0/24"'
    ),
    "remote-as-route": Mistake(("remote",), '"10.2.0.0/24"', '"192.0.2.2/32"'),
    "remote-on-link": Mistake(("remote",), "169.254.10.1/30", "192.0.2.9/24"),
    "remote-is-local": Mistake(
        ("192.0.2.1", "this host"),
        'local = "192.0.2.1"\nremote = "192.0.2.2"',
        'local = "192.0.2.77"\nremote = "192.0.2.1"',
    ),
    "route-taken": Mistake(
        ("10.2.0.0/24", "not ours"), host=("ip", "route", "add", "10.2.0.0/24", "via", "10.1.0.2")
    ),
    "egress-not-configured": Mistake(
        ("eth0", "[[interface]]"), '[[interface]]\nname = "eth0"\n', ""
    ),
    "mtu-too-large": Mistake(("1500", "24", "1476"), 'name = "fra1"', 'name = "fra1"\nmtu = 1480'),
    "mode-misspelt": Mistake(("mode", "native"), 'name = "eth1"', 'name = "eth1"\nmode = "driver"'),
    "key-too-large": Mistake(("key",), 'name = "fra1"', 'name = "fra1"\nkey = 4294967296'),
    "not-supported-yet": Mistake(
        ("backing", "not supported"), 'name = "fra1"', 'name = "fra1"\nbacking = "kernel"'
    ),
}


def gre_xdp(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gre_xdp_cli.main", "--netns", gateway.namespace.name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def host_state(gateway: Gateway) -> list[str]:
    commands = (
        ["ip", "-d", "link"],
        ["ip", "addr"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"],
        ["sysctl", "net.ipv4.conf", "net.ipv6.conf"],
    )
    cookie = gateway.call(namespaces.cookie)
    return [gateway.run(list(c)).stdout for c in commands] + [
        str(pins.Pins.of_namespace(cookie).root.exists())
    ]


def test_the_good_file_is_good(gateway: Gateway, tmp_path: Path) -> None:
    """What the mistakes below are changes of is right: it applies, and shows as up."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    assert gre_xdp(gateway, "check", str(path)).returncode == 0
    assert gre_xdp(gateway, "diff", str(path)).returncode == 1
    assert gre_xdp(gateway, "apply", str(path)).returncode == 0
    assert gre_xdp(gateway, "diff", str(path)).returncode == 0
    (tunnel,) = json.loads(gre_xdp(gateway, "show", "-s", "-j").stdout)
    assert (tunnel["name"], tunnel["state"], tunnel["mtu"]) == ("fra1", "up", 1476)
    assert tunnel["mss"] == {"ipv4": 1436, "ipv6": 1416}
    assert gre_xdp(gateway, "down", "--yes").returncode == 0
    assert gre_xdp(gateway, "show").returncode == 1


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_explained_and_changes_nothing(
    gateway: Gateway, tmp_path: Path, mistake: Mistake
) -> None:
    """Exit code 1, an error that names what is wrong and what to do, and the host as before."""
    text = GOOD.replace(mistake.old, mistake.new, 1)
    assert text != GOOD or mistake.host
    if mistake.host:
        gateway.run(list(mistake.host))
    path = tmp_path / "config.toml"
    path.write_text(text)
    before = host_state(gateway)
    done = gre_xdp(gateway, "apply", str(path))
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    for word in mistake.words:
        assert word in done.stderr
    assert done.stdout == ""
    as_json = gre_xdp(gateway, "-j", "diff", str(path))
    assert as_json.returncode == 2
    error = json.loads(as_json.stderr)["error"]
    assert error["message"]
    assert error["remedy"]
    assert host_state(gateway) == before


def test_a_foreign_program_is_named_and_left_alone(gateway: Gateway, tmp_path: Path) -> None:
    """Somebody else's XDP program on an interface stops apply, which says whose it is."""

    def attach() -> int:
        # r0 = XDP_PASS; exit
        program = bpf.prog_load(
            "somebody_elses", bytes.fromhex("b7000000020000009500000000000000"), []
        )
        with bpf.owned(program):
            return bpf.link_create(program, _ifindex(gateway, "eth1"), bpf.XDP_FLAGS_NATIVE)

    link = gateway.call(attach)
    try:
        path = tmp_path / "config.toml"
        path.write_text(GOOD)
        done = gre_xdp(gateway, "apply", str(path))
        assert done.returncode == 1
        for word in ("eth1", "somebody_elses", f"pid {os.getpid()}"):
            assert word in done.stderr
        assert bpf.link_info(link).ifindex == _ifindex(gateway, "eth1")
        assert "fra1" not in gateway.run(["ip", "link"]).stdout
    finally:
        os.close(link)


def _ifindex(gateway: Gateway, device: str) -> int:
    return int(json.loads(gateway.run(["ip", "-j", "link", "show", device]).stdout)[0]["ifindex"])


def test_a_bad_change_leaves_the_running_tunnel(gateway: Gateway, tmp_path: Path) -> None:
    """A file that is refused later leaves what the last good one made, counters included."""
    gateway.apply(GOOD)
    before = gateway.snapshot()
    path = tmp_path / "config.toml"
    path.write_text(GOOD.replace('name = "eth0"', 'name = "eth7"'))
    assert gre_xdp(gateway, "apply", str(path)).returncode == 1
    after = gateway.snapshot()
    assert after.interfaces == before.interfaces
    assert [t.ifindex for t in after.tunnels] == [t.ifindex for t in before.tunnels]
    assert gateway.diff(GOOD) == []


def test_a_failing_step_is_undone(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last step fails, all the others are taken back."""
    before = host_state(gateway)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gre_xdp.steps.routes.put", refuse)
        with pytest.raises(Exception, match="No space left on device"):
            gateway.apply(GOOD)
    assert host_state(gateway) == before
    assert gateway.apply(GOOD)


def test_an_ordinary_user_is_told_to_be_root(gateway: Gateway, tmp_path: Path) -> None:
    """Without privilege there is one sentence, and no traceback."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):  # noqa: S108 - pytest's own
            parent.chmod(0o755)
    for command in (["apply", str(path)], ["diff", str(path)], ["show"], ["down", "--yes"]):
        done = subprocess.run(
            [sys.executable, "-m", "gre_xdp_cli.main", *command],
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
            timeout=60,
        )
        assert done.returncode in (1, 2), done
        assert "root" in done.stderr
        assert "Traceback" not in done.stderr
    del gateway


def test_a_private_sys_is_noticed(gateway: Gateway, tmp_path: Path) -> None:
    """Under `ip netns exec`, where pins would vanish, apply refuses and names --netns."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    done = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            gateway.namespace.name,
            sys.executable,
            "-m",
            "gre_xdp_cli.main",
            "apply",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "--netns" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pinned_map_of_another_layout_is_refused(gateway: Gateway) -> None:
    """A map that another version made is never written with this one's layout."""
    gateway.apply(GOOD)
    place = pins.Pins.of_namespace(gateway.call(namespaces.cookie))
    spec = abi.MAPS[abi.MapIndex.DEVICES]
    path = place.maps / spec.name
    with bpf.owned(bpf.get(path)) as original:
        path.unlink()
        other = bpf.MapSpec(
            spec.name, spec.type, spec.key_size, spec.value_size + 8, 16, spec.flags
        )
        with bpf.owned(bpf.map_create(other)) as wrong:
            bpf.pin(wrong, path)
        try:
            with pytest.raises(Exception, match="another layout"):
                gateway.diff(GOOD)
        finally:
            path.unlink()
            bpf.pin(original, path)
