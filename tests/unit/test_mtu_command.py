"""``gre-xdp mtu``: what it reckons, for people and as JSON, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gre_xdp import errors, path_mtu, underlay
from gre_xdp.model import Tunnel
from gre_xdp.netlink import namespaces
from gre_xdp_cli.main import cli

CONFIG = """\
[[interface]]
name = "eth0"

[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "198.51.100.7"
key = 77
csum = true

[[tunnel]]
name = "tap1"
local = "2001:db8::1"
remote = "2001:db8::2"
payload = "ethernet"
okey = 0
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caller's settings, or the network of this machine."""
    for name in ("GRE_XDP_CONFIG", "GRE_XDP_JSON", "GRE_XDP_NETNS", "GRE_XDP_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(underlay, "current_mtu", unexpected)
    monkeypatch.setattr(path_mtu, "measure", unexpected)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The path of a configuration with two tunnels."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return str(path)


def unexpected(*_: object) -> Any:
    raise AssertionError("nobody asked for this")


def answering(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["mtu", *arguments])


def reckoned(*arguments: str) -> dict[str, Any]:
    """The JSON, which is all that there is."""
    result = run(*arguments, "-j")
    assert (result.exit_code, result.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def refused(*arguments: str, code: int) -> str:
    """What is said of a refusal; nothing else is said, as text or as JSON."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert "remedy: " in result.stderr
    in_json = run(*arguments, "-j")
    assert (in_json.exit_code, in_json.stdout) == (code, "")
    message: str = json.loads(in_json.stderr)["error"]["message"]
    assert message in result.stderr
    return message


def test_for_people() -> None:
    """Header by header down to the MSS, and what a transfer costs."""
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.rsplit(maxsplit=1) for line in result.stdout.splitlines()[1:7]]
    assert rows == [
        ["underlay MTU", "1500"],
        ["- outer IPv4", "20"],
        ["- GRE", "4"],
        ["= tunnel MTU", "1476"],
        ["TCP MSS, IPv4 (- 40)", "1436"],
        ["TCP MSS, IPv6 (- 60)", "1416"],
    ]
    assert "A TCP transfer of 150,000 bytes over IPv4:" in result.stdout
    without, through = (line.split() for line in result.stdout.splitlines()[-2:])
    assert without == ["without", "GRE", "103", "154,120"]
    assert through == ["with", "GRE", "105", "156,720"]


def test_in_json() -> None:
    """The same numbers, in bytes."""
    assert reckoned() == {
        "underlay_mtu": 1500,
        "headers": {"outer IPv4": 20, "GRE": 4},
        "overhead": 24,
        "tunnel_mtu": 1476,
        "mss": {"ipv4": 1436, "ipv6": 1416},
        "transfer": {
            "bytes": 150_000,
            "without_gre": {"packets": 103, "wire_bytes": 154_120},
            "with_gre": {"packets": 105, "wire_bytes": 156_720},
        },
    }


@pytest.mark.parametrize(
    ("arguments", "mtu"),
    [
        (["--key"], 1472),
        (["--csum"], 1472),
        (["--seq"], 1472),
        (["--key", "--csum", "--seq"], 1464),
        (["--payload", "ethernet"], 1462),
        (["--outer", "ipv6"], 1456),
        (["--outer", "ipv6", "--key", "--csum", "--seq", "--payload", "ethernet"], 1430),
        (["--underlay", "9000", "--outer", "ipv6", "--key"], 8952),
        (["--underlay", "1400"], 1376),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_option(arguments: list[str], mtu: int) -> None:
    """Duty 17: 1,500 - 24 or - 44, less 4 for each word, less 14 for a frame."""
    answer = reckoned(*arguments)
    assert answer["tunnel_mtu"] == mtu
    assert answer["mss"] == {"ipv4": mtu - 40, "ipv6": mtu - 60}
    assert answer["underlay_mtu"] - sum(answer["headers"].values()) == mtu
    assert f"= tunnel MTU {mtu}" in " ".join(run(*arguments).stdout.split())


def test_another_transfer() -> None:
    """One byte more than a segment takes a packet more."""
    packets = [
        reckoned("--bytes", size)["transfer"]["with_gre"]["packets"] for size in ("1436", "1437")
    ]
    assert packets == [1, 2]


@pytest.mark.parametrize(
    ("name", "headers", "mtu"),
    [
        ("fra1", {"outer IPv4": 20, "GRE": 4, "GRE checksum": 4, "GRE key": 4}, 1468),
        ("tap1", {"outer IPv6": 40, "GRE": 4, "GRE key": 4, "inner Ethernet": 14}, 1438),
    ],
)
def test_a_configured_tunnel(
    name: str, headers: dict[str, int], mtu: int, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says which headers, and the route to the remote how much the underlay takes."""
    asked: list[str] = []

    def of_route(tunnel: Tunnel) -> int:
        asked.append(tunnel.name)
        return 1400

    monkeypatch.setattr(underlay, "current_mtu", of_route)
    answer = reckoned(name, "-c", config)
    assert asked == [name]
    assert (answer["underlay_mtu"], answer["headers"]) == (1400, headers)
    assert answer["tunnel_mtu"] == mtu - 100


def test_a_tunnel_without_a_route(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``apply`` does, Ethernet's 1,500 bytes are assumed until there is one."""
    monkeypatch.setattr(underlay, "current_mtu", answering(None))
    assert reckoned("fra1", "-c", config)["underlay_mtu"] == 1500


def test_who_knows_the_underlay(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--underlay before what --path measures before the route; nothing is asked in vain."""
    assert reckoned("fra1", "-c", config, "--underlay", "1300")["underlay_mtu"] == 1300
    monkeypatch.setattr(path_mtu, "measure", answering(1350))
    assert reckoned("fra1", "-c", config, "--path", "198.51.100.7")["underlay_mtu"] == 1350
    answer = reckoned("--path", "198.51.100.7", "--underlay", "1300")
    assert (answer["underlay_mtu"], answer["path_mtu"]) == (1300, 1350)


@pytest.mark.parametrize("remote", ["198.51.100.7", "2001:db8::7"])
def test_a_measured_path(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back is the underlay."""
    asked: list[IPv4Address | IPv6Address] = []

    def measure(address: IPv4Address | IPv6Address) -> int:
        asked.append(address)
        return 1400

    monkeypatch.setattr(path_mtu, "measure", measure)
    answer = reckoned("--path", remote)
    assert asked == [ip_address(remote)]
    assert (answer["path_mtu"], answer["underlay_mtu"], answer["tunnel_mtu"]) == (1400, 1400, 1376)
    assert run("--path", remote).stdout.startswith(f"The path to {remote} takes 1400 bytes.\n")


def test_a_path_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, and nothing is reckoned."""

    def measure(_: object) -> int:
        raise errors.HostError("it does not answer", remedy="check that it is up")

    monkeypatch.setattr(path_mtu, "measure", measure)
    assert refused("--path", "198.51.100.7", code=1) == "it does not answer"


@pytest.mark.parametrize("address", ["", "fra1", "198.51.100", "198.51.100.7/24", "::g"])
def test_a_bad_path(address: str) -> None:
    """Only an address can be measured."""
    message = refused("--path", address, code=2)
    assert f"{address} is not an IP address" in message
    assert "--path" in message


@pytest.mark.parametrize(
    "option",
    [["--outer", "ipv4"], ["--key"], ["--csum"], ["--seq"], ["--payload", "ip"]],
    ids=lambda option: option[0],
)
def test_contradictions(option: list[str], config: str) -> None:
    """A tunnel of the file has its headers already, also where the option would agree."""
    message = refused("fra1", "-c", config, *option, code=2)
    assert message == f"{option[0]} contradicts tunnel fra1 of the file"


def test_an_unknown_tunnel(config: str) -> None:
    """The ones that there are are named."""
    assert refused("fra2", "-c", config, code=1) == "there is no tunnel fra2"
    assert "the tunnels are fra1, tap1" in run("fra2", "-c", config).stderr


def test_a_file_without_tunnels(tmp_path: Path) -> None:
    """Also where there are none."""
    path = tmp_path / "empty.toml"
    path.write_text('[[interface]]\nname = "eth0"\n')
    assert refused("fra1", "-c", str(path), code=1) == "there is no tunnel fra1"
    assert "the file has none" in run("fra1", "-c", str(path)).stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A tunnel needs one; reckoning without a tunnel does not."""
    missing = str(tmp_path / "missing.toml")
    refused("fra1", "-c", missing, code=1)
    assert missing in run("fra1", "-c", missing).stderr
    assert reckoned("-c", missing)["tunnel_mtu"] == 1476


@pytest.mark.parametrize(("underlay_mtu", "fits"), [("84", False), ("85", True), ("68", False)])
def test_too_small(underlay_mtu: str, fits: bool) -> None:
    """Where no TCP segment fits, nothing is reckoned."""
    if fits:
        assert reckoned("--underlay", underlay_mtu)["mss"] == {"ipv4": 21, "ipv6": 1}
    else:
        message = refused("--underlay", underlay_mtu, code=1)
        assert message.startswith(f"{underlay_mtu} bytes less 24 of overhead leave")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--underlay", "67"],
        ["--underlay", "65536"],
        ["--underlay", "wide"],
        ["--outer", "ipv5"],
        ["--payload", "mpls"],
        ["--bytes", "0"],
        ["fra1", "fra2"],
    ],
    ids=" ".join,
)
def test_usage_errors(arguments: list[str]) -> None:
    """Values that cannot be."""
    refused(*arguments, code=2)


@pytest.mark.parametrize(
    "arguments",
    [["--netns", "blue", "mtu"], ["mtu", "--netns", "blue"]],
    ids=["before", "behind"],
)
def test_in_a_network_namespace(
    arguments: list[str], config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is measured, and the route looked up, where --netns says."""
    happened: list[str] = []

    def note(what: str, value: Any = None) -> Callable[..., Any]:
        return lambda *_: happened.append(what) or value

    monkeypatch.setattr(namespaces, "enter", happened.append)
    monkeypatch.setattr(path_mtu, "measure", note("measured", 1400))
    monkeypatch.setattr(underlay, "current_mtu", note("looked", 1400))
    for more in (["--path", "198.51.100.7"], ["fra1", "-c", config]):
        assert CliRunner().invoke(cli, [*arguments, *more]).exit_code == 0
    assert happened == ["blue", "measured", "blue", "looked"]
