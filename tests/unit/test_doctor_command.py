"""``gre-xdp doctor``: what it shows, what it asks before it mends, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gre_xdp import doctor, errors
from gre_xdp.doctor import Command, Finding
from gre_xdp.doctor import fixes as doctor_fixes
from gre_xdp.netlink import namespaces
from gre_xdp_cli.main import cli
from gre_xdp_cli.options import DEFAULT_CONFIG

GRO = ("ethtool", "-K", "lan0", "gro", "on")
RP_FILTER = ("sysctl", "-w", "net.ipv4.conf.fra1.rp_filter=2")
OK = Finding("kernel", "ok", "Linux 6.12")
NOTE = Finding("kernel", "note", "no IPv6", "tunnels carry IPv4 only", "another kernel")
ERROR = Finding("interface eth1", "error", "no NAPI", "lost [bold]", " ".join(GRO), (GRO,))
WARNING = Finding(
    "tunnel fra1", "warning", "rp_filter is strict", "lost", " ".join(RP_FILTER), (RP_FILTER,)
)
QUEUE = Finding("interface eth1", "warning", "one queue", "slow", "ethtool -L eth1 combined 8")


class Host:
    """What a made-up doctor finds, and what was asked of it."""

    def __init__(self) -> None:
        self.findings = [OK, NOTE, ERROR, QUEUE, WARNING]
        self.asked: list[tuple[Path, dict[str, Any]]] = []
        self.ran: list[Command] = []

    def examine(self, path: Path, **options: Any) -> list[Finding]:
        self.asked.append((path, options))
        return [each for each in self.findings if not set(each.fixes) & set(self.ran)]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """No test sees the caller's settings, or the kernel of this machine."""
    for name in ("GRE_XDP_CONFIG", "GRE_XDP_JSON", "GRE_XDP_NETNS", "GRE_XDP_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = Host()
    monkeypatch.setattr(doctor, "examine", found.examine)
    monkeypatch.setattr(doctor_fixes, "run", found.ran.append)
    return found


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], input=stdin)


SHOWN = """\
kernel
  note     no IPv6
           tunnels carry IPv4 only
           remedy: another kernel
interface eth1
  error    no NAPI
           lost [bold]
           remedy: ethtool -K lan0 gro on
  warning  one queue
           slow
           remedy: ethtool -L eth1 combined 8
tunnel fra1
  warning  rp_filter is strict
           lost
           remedy: sysctl -w net.ipv4.conf.fra1.rp_filter=2

1 error, 2 warnings, 1 note; 1 check ok
"""


def test_findings_are_grouped_by_subject() -> None:
    """What is not ok is shown with why it matters and what mends it; an error exits with 1."""
    result = run()
    assert (result.stdout, result.stderr, result.exit_code) == (SHOWN, "", 1)


def test_verbose_shows_what_is_as_it_should_be() -> None:
    """The same, and the ok findings among their subjects."""
    result = run("-v")
    assert result.stdout == SHOWN.replace("kernel\n", "kernel\n  ok       Linux 6.12\n", 1)


def test_nothing_to_mend(host: Host) -> None:
    """One line, and 0."""
    host.findings = [OK, OK]
    result = run()
    assert (result.stdout, result.exit_code) == ("nothing to mend; 2 checks ok\n", 0)


@pytest.mark.parametrize("found", [NOTE, WARNING], ids=lambda found: found.severity)
def test_only_errors_fail(host: Host, found: Finding) -> None:
    """Notes and warnings are no reason for a script to stop."""
    host.findings = [OK, found]
    assert run().exit_code == 0


def test_json_has_every_finding() -> None:
    """-j prints all findings, those that are ok as well, and nothing else."""
    result = run("-j")
    assert (result.exit_code, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert list(found) == ["findings"]
    assert [each["severity"] for each in found["findings"]] == [
        "ok",
        "note",
        "error",
        "warning",
        "warning",
    ]
    assert found["findings"][2] == {
        "subject": "interface eth1",
        "severity": "error",
        "finding": "no NAPI",
        "why": "lost [bold]",
        "remedy": "ethtool -K lan0 gro on",
    }


def test_a_file_that_was_named_must_exist(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default one need not, wherever it is named; options are handed on."""
    monkeypatch.setattr(namespaces, "enter", lambda _: None)
    run()
    run("site.toml", "--probe", "--no-load")
    run("-c", "other.toml", "--netns", "blue")
    assert host.asked == [
        (
            DEFAULT_CONFIG,
            {"is_required": False, "netns": None, "build": True, "probe": False},
        ),
        (
            Path("site.toml"),
            {"is_required": True, "netns": None, "build": False, "probe": True},
        ),
        (
            Path("other.toml"),
            {"is_required": True, "netns": "blue", "build": True, "probe": False},
        ),
    ]


# --- --fix ----------------------------------------------------------------------------------------


def test_fix_asks_for_each_command_and_looks_again(host: Host) -> None:
    """What is agreed to is run, the rest is left, and the answer is that of the second look."""
    result = run("--fix", stdin="y\nn\n")
    assert host.ran == [GRO]
    assert len(host.asked) == 2
    assert "interface eth1: no NAPI\nRun ethtool -K lan0 gro on? [y/N]: " in result.stderr
    assert "Run sysctl -w net.ipv4.conf.fra1.rp_filter=2? [y/N]: " in result.stderr
    assert result.stdout.startswith("ran ethtool -K lan0 gro on\n")
    assert result.stdout.endswith("2 warnings, 1 note; 1 check ok\n")
    assert result.exit_code == 0


def test_fix_with_yes_asks_nothing(host: Host) -> None:
    """And runs nothing that is not safe, like changing the number of queues."""
    result = run("--fix", "--yes")
    assert host.ran == [GRO, RP_FILTER]
    assert result.stderr == ""
    assert "one queue" in result.stdout


def test_fix_refused_changes_nothing(host: Host) -> None:
    """Enter alone means no; nothing has changed, so it is not looked again."""
    assert run("--fix", stdin="\n\n").exit_code == 1
    assert (host.ran, len(host.asked)) == ([], 1)


def test_fix_without_anybody_to_answer_is_a_wrong_usage(host: Host) -> None:
    """A script has to say --yes."""
    result = run("--fix", stdin="")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert host.ran == []


def test_fix_with_nothing_to_fix(host: Host) -> None:
    """That is said."""
    host.findings = [OK, NOTE]
    result = run("--fix")
    assert result.stdout.startswith("nothing that could be mended safely\n")
    assert result.exit_code == 0


def test_fix_and_json(host: Host) -> None:
    """What was run is told beside what is left; remarks go to stderr."""
    result = run("--fix", "-jy")
    answer = json.loads(result.stdout)
    assert answer["fixed"] == [" ".join(GRO), " ".join(RP_FILTER)]
    assert [each["finding"] for each in answer["findings"]] == [
        "Linux 6.12",
        "no IPv6",
        "one queue",
    ]
    assert "ran ethtool" in result.stderr


def test_a_fix_that_fails_does_not_stop_the_others(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and its finding stays."""

    def fail_first(command: Command) -> None:
        if command == GRO:
            raise errors.HostError("it failed: no", remedy="by hand", where=" ".join(command))
        host.ran.append(command)

    monkeypatch.setattr(doctor_fixes, "run", fail_first)
    result = run("--fix", "--yes")
    assert host.ran == [RP_FILTER]
    assert "error: it failed: no\n  where: ethtool -K lan0 gro on\n" in result.stderr
    assert "no NAPI" in result.stdout
    assert result.exit_code == 1


@pytest.mark.parametrize("option", ["--fix", "--probe"])
def test_what_changes_or_measures_needs_root(
    host: Host, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Looking does not."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("-v").exit_code == 1
    assert len(host.asked) == 1
    result = run(option, "-j")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["code"] == "privilege"
    assert len(host.asked) == 1
