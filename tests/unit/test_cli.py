"""What the command line promises, whatever the library answers: words, exit codes and streams."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gre_xdp import abi, agent, errors, exporter, reconcile, status
from gre_xdp.datapath import MapUse
from gre_xdp.lab import lab
from gre_xdp.lab.lab import Lab
from gre_xdp.netlink import namespaces
from gre_xdp.netlink.firewall import ForwardChain
from gre_xdp.plan import Step
from gre_xdp.reasons import DROP_REASONS, PASS_REASONS
from gre_xdp.resources import Policy, TunnelDevice
from gre_xdp.status import InterfaceStatus, ReasonCount, Snapshot, TunnelStatus
from gre_xdp_cli.main import cli
from gre_xdp_cli.options import Options, asks_for_json

GOOD = """\
[[interface]]
name = "eth0"

[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "198.51.100.7"
"""
BAD = GOOD + 'ttl = 0\ncolour = "red"\n'

STEPS = [
    Step(None, TunnelDevice("fra1", 1476)),
    Step(Policy("drop"), Policy("pass")),
    Step(TunnelDevice("old[bold]1", 1400), None),
]
CHANGES = [step.as_dict() for step in STEPS]


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


COMMANDS = list(_commands(cli))


def _tunnel(name: str, ikey: int | None, okey: int | None, state: str) -> TunnelStatus:
    return TunnelStatus(
        name=name,
        local=IPv4Address("192.0.2.1"),
        remote=IPv4Address("198.51.100.7"),
        ikey=ikey,
        okey=okey,
        backing="veth",
        device=name,
        ifindex=7,
        mtu=1472,
        path_mtu=None,
        mss_ipv4=1432,
        mss_ipv6=1412,
        state=state,
        probe_mtu=None,
        counters=abi.Counters(rx_packets=11, rx_bytes=1100, tx_packets=12, tx_bytes=1200),
    )


SNAPSHOT = Snapshot(
    tunnels=[_tunnel("fra1", 77, 77, "up"), _tunnel("par[red]1", None, 0, "no_route")],
    interfaces=[InterfaceStatus("eth0", 3, "native", 195, True, "virtio_net", 9)],
    drops=[ReasonCount(r, 5 if r.name == "key_mismatch" else 0) for r in DROP_REASONS],
    passes=[ReasonCount(r, 0) for r in PASS_REASONS],
    maps=[MapUse("tunnels", 2, 32768)],
    unknown_gre="drop",
    digest="bf071930e206",
    waiting={"interface eth7": "there is no such interface yet"},
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caller's settings, or the kernel of this machine."""
    for name in ("GRE_XDP_CONFIG", "GRE_XDP_JSON", "GRE_XDP_NETNS", "GRE_XDP_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reconcile, "diff", lambda _: STEPS)
    monkeypatch.setattr(reconcile, "apply", lambda *_: STEPS)
    monkeypatch.setattr(reconcile, "down", lambda *_: STEPS)
    monkeypatch.setattr(reconcile, "bypassed_chains", list)
    monkeypatch.setattr(status, "snapshot", lambda: SNAPSHOT)


@pytest.fixture
def good(tmp_path: Path) -> str:
    """The path of a configuration without mistakes."""
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """The path of one with mistakes in lines 8 and 9."""
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    return str(path)


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The network namespaces that were entered."""
    names: list[str] = []
    monkeypatch.setattr(namespaces, "enter", names.append)
    return names


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), input=stdin)


def raising(problem: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise problem

    return fail


def error_of(result: Result) -> dict[str, Any]:
    """The error on stderr: one line of JSON and nothing else."""
    assert result.stderr.count("\n") == 1
    shown = json.loads(result.stderr)
    assert list(shown) == ["error"]
    found: dict[str, Any] = shown["error"]
    assert found.keys() >= {"code", "message", "remedy", "where"}
    assert found["message"]
    assert found["remedy"]
    return found


# --- help and usage -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_text_teaches_by_an_example(path: tuple[str, ...]) -> None:
    """Every help text ends in examples, and says who may run the command."""
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    text, examples = result.stdout.split("\nExamples:\n")
    assert "gre-xdp" in examples
    assert "Needs" in text or "eeds root" in text or not path


def test_root_help_shows_the_flow() -> None:
    """The first help text names the commands in the order in which they are used."""
    text = run("--help").stdout
    places = [text.index(f"\n  {verb} ") for verb in ("check", "diff", "apply", "show", "down")]
    assert places == sorted(places)


def test_examples_in_help_parse() -> None:
    """No example uses an option or a command that does not exist."""
    for path in COMMANDS:
        for line in run(*path, "--help").stdout.split("\nExamples:\n")[1].splitlines():
            command = line.split("#")[0].split(">")[0].split("||")[0].replace("'", "").split()
            if command[:1] == ["sudo"]:
                del command[0]
            if command[0] != "gre-xdp":
                continue
            assert run(*command[1:], "--help").exit_code == 0, line


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--bogus"],
        ["check", "--bogus"],
        ["check", "one", "two"],
        ["show", "bogus"],
        ["lab", "bogus"],
        ["lab", "up", "--peer", "cisco"],
        ["lab", "shell"],
        ["completion", "csh"],
        ["--netns", "x", "lab", "down"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    """A wrong command line exits with 2 and says so on stderr only, in JSON on request."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "remedy: gre-xdp" in result.stderr
    for as_json in (["-j", *arguments], [*arguments, "--json"]):
        result = run(*as_json)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert error_of(result)["code"] == "usage"


def test_no_command_is_answered_by_help() -> None:
    """Without a command the help text comes, on stderr, as that is a usage error."""
    for arguments in ((), ("lab",)):
        result = run(*arguments)
        assert result.exit_code in (0, 2)  # 0 with click 8.1
        assert "Examples:" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-j", "show"], True),
        (["show", "--json"], True),
        (["show", "-sj"], True),
        (["show", "-js"], True),
        (["show"], False),
        (["-cj.toml", "check"], False),
        (["--jsonl"], False),
        (["show", "tunnels", "--", "-j"], False),
    ],
)
def test_json_is_recognised_before_parsing(arguments: list[str], expected: bool) -> None:
    """-j counts wherever it stands, alone or among other flags, but not as a value."""
    assert asks_for_json(arguments) is expected


def test_version() -> None:
    """--version prints one line, or JSON."""
    assert run("--version").stdout.startswith("gre-xdp ")
    assert json.loads(run("--version", "-j").stdout)["version"]


# --- check, diff, apply, down ---------------------------------------------------------------------


def test_check_of_a_good_file(good: str) -> None:
    """A good file is counted and exits with 0."""
    result = run("check", good)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{good}: 1 interface, 1 tunnel, no mistakes\n"
    result = run("check", good, "-j")
    assert json.loads(result.stdout) == {
        "file": good,
        "interfaces": 1,
        "tunnels": 1,
        "errors": [],
    }


def test_check_tells_all_mistakes(bad: str) -> None:
    """All mistakes come at once, each with its line and remedy, on stderr."""
    result = run("check", bad)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("error: ") == result.stderr.count("  remedy: ") == 2
    assert f"  where: {bad}:8\n" in result.stderr
    assert f"  where: {bad}:9\n" in result.stderr


def test_check_tells_all_mistakes_in_json(bad: str) -> None:
    """In JSON they are in the object on stdout and in the error on stderr."""
    result = run("-j", "check", bad)
    assert result.exit_code == 1
    wheres = [f"{bad}:8", f"{bad}:9"]
    assert [e["where"] for e in json.loads(result.stdout)["errors"]] == wheres
    error = error_of(result)
    assert error["code"] == "config"
    assert error["where"] == wheres[0]
    assert error["message"] == error["errors"][0]["message"]
    assert [e["where"] for e in error["errors"]] == wheres


def test_check_needs_nothing(good: str, entered: list[str]) -> None:
    """Check enters no namespace, as it looks at nothing but the file."""
    assert run("--netns", "blue", "check", good).exit_code == 0
    assert entered == []


@pytest.mark.parametrize("command", ["check", "diff", "apply"])
def test_where_the_file_is_named(
    command: str, good: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FILE wins over -c, -c before or after the command over the environment."""
    monkeypatch.setattr(reconcile, "diff", lambda _: [])
    assert run("-c", good, command).exit_code == 0
    assert run(command, "-c", good).exit_code == 0
    assert run("-c", bad, command, good).exit_code == 0
    monkeypatch.setenv("GRE_XDP_CONFIG", good)
    assert run(command).exit_code == 0
    assert f"{bad}:8" in run("-c", bad, command).stderr


@pytest.mark.parametrize(
    ("steps", "code"), [([], 0), (STEPS, 1)], ids=["nothing to do", "something"]
)
def test_diff_exits_as_diff_does(
    steps: list[Step], code: int, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 without and 1 with differences."""
    monkeypatch.setattr(reconcile, "diff", lambda _: steps)
    result = run("diff", good)
    assert (result.exit_code, result.stderr) == (code, "")
    shown = run("diff", good, "-j")
    assert shown.exit_code == code
    assert json.loads(shown.stdout) == {"changes": [step.as_dict() for step in steps]}


@pytest.mark.parametrize(
    "problem",
    [errors.PrivilegeError("this needs root", remedy="run it with sudo"), RuntimeError("oops")],
)
def test_trouble_in_diff_is_2(
    problem: Exception, good: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 means differences, so that all trouble is 2."""
    monkeypatch.setattr(reconcile, "diff", raising(problem))
    assert run("diff", good).exit_code == 2
    assert run("diff", bad).exit_code == 2
    assert run("-j", "diff", good).exit_code == 2


def test_steps_are_one_line_each(good: str) -> None:
    """A plan is read at a glance; names are shown as they are, and no colours go into a pipe."""
    lines = run("diff", good).stdout.splitlines()
    assert [line[0] for line in lines] == ["+", "~", "-"]
    assert lines[0].split() == ["+", "device", "fra1", "fra1", "mtu", "1476"]
    assert lines[1].endswith("unknown_gre = drop -> unknown_gre = pass")
    assert "old[bold]1" in lines[2]


@pytest.mark.parametrize(
    ("command", "summary"),
    [(["apply", "GOOD"], "applied: 3 changes"), (["down", "--yes"], "down: 3 changes")],
)
def test_changes_are_summed_up(command: list[str], summary: str, good: str) -> None:
    """Apply and down tell what they did, and how much that was."""
    result = run(*(good if word == "GOOD" else word for word in command))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == summary
    assert len(result.stdout.splitlines()) == len(STEPS) + 1


@pytest.mark.parametrize("command", ["apply", "down", "diff"])
def test_nothing_to_do(command: str, good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is as it should be the commands say so and succeed."""
    monkeypatch.setattr(reconcile, command, lambda *_: [])
    result = run(command, *([] if command == "down" else [good]))
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")


def test_bypassed_firewall_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lets XDP go around the firewall is told which chains that concerns."""
    path = tmp_path / "bypass.toml"
    path.write_text("bypass_firewall = true\n" + GOOD)
    chains = [ForwardChain("inet filter forward", 3, True), ForwardChain("ip x forward", 1, False)]
    monkeypatch.setattr(reconcile, "bypassed_chains", lambda: chains)
    result = run("apply", str(path))
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == 2
    assert "inet filter forward, 3 rules, policy drop" in result.stderr
    result = run("apply", str(path), "-j")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "changes": CHANGES,
        "bypassed_firewall": ["inet filter forward", "ip x forward"],
    }


def test_firewall_is_not_read_unless_bypassed(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bypass_firewall there is nothing to warn of."""
    monkeypatch.setattr(reconcile, "bypassed_chains", raising(AssertionError()))
    assert run("apply", good).exit_code == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 130)])
def test_down_asks_on_a_terminal(
    answer: str, code: int, monkeypatch: pytest.MonkeyPatch, entered: list[str]
) -> None:
    """On a terminal it removes nothing before the answer is yes; the question spoils no stdout."""
    removed: list[bool] = []
    monkeypatch.setattr(reconcile, "down", lambda *_: removed.append(True) or STEPS)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    result = run("--netns", "blue", "down", "-j", stdin=answer)
    assert result.exit_code == code
    assert bool(removed) is (code == 0)
    assert "network namespace blue?" in result.stderr
    assert (json.loads(result.stdout) if code == 0 else result.stdout) == (
        {"changes": CHANGES} if code == 0 else ""
    )


# --- show -----------------------------------------------------------------------------------------

JSON_RESULTS: list[tuple[list[str], object]] = [
    (["show"], [t.as_dict(with_counters=False) for t in SNAPSHOT.tunnels]),
    (["show", "tunnels"], [t.as_dict(with_counters=False) for t in SNAPSHOT.tunnels]),
    (["show", "-s"], [t.as_dict(with_counters=True) for t in SNAPSHOT.tunnels]),
    (["show", "tunnels", "-s"], [t.as_dict(with_counters=True) for t in SNAPSHOT.tunnels]),
    (["show", "-s", "tunnels", "fra1"], [SNAPSHOT.tunnels[0].as_dict(with_counters=True)]),
    (["show", "interfaces"], [i.as_dict() for i in SNAPSHOT.interfaces]),
    (["show", "drops"], [c.as_dict() for c in SNAPSHOT.drops]),
    (["show", "passes"], [c.as_dict() for c in SNAPSHOT.passes]),
    (["show", "status"], SNAPSHOT.as_dict()),
    (
        ["show", "status", "-s"],
        SNAPSHOT.as_dict() | {"maps": [{"name": "tunnels", "entries": 2, "max_entries": 32768}]},
    ),
    (["down"], {"changes": CHANGES}),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), JSON_RESULTS, ids=[" ".join(a) for a, _ in JSON_RESULTS]
)
def test_json_is_all_there_is_on_stdout(arguments: list[str], expected: object) -> None:
    """-j gives one JSON value, the same wherever -j stands."""
    for with_json in (["-j", *arguments], [*arguments, "-j"], [arguments[0], "-j", *arguments[1:]]):
        result = run(*with_json)
        assert (result.exit_code, result.stderr) == (0, "")
        assert json.loads(result.stdout) == expected


def test_show_tunnels_for_people() -> None:
    """One line per tunnel, never wrapped when piped; keys that differ by direction say so."""
    header, first, second = run("show").stdout.splitlines()
    assert header.split()[:4] == ["NAME", "LOCAL", "REMOTE", "KEY"]
    assert first.split() == [
        "fra1",
        "192.0.2.1",
        "198.51.100.7",
        "77",
        "veth",
        "fra1",
        "1472",
        "up",
    ]
    assert "par[red]1" in second
    assert "in none out 0" in second
    assert "RX BYTES" not in header
    header, first, _ = run("show", "-s").stdout.splitlines()
    assert first.split()[-4:] == ["11", "1100", "12", "1200"]


def test_show_tunnels_of_an_unknown_name() -> None:
    """A tunnel that does not exist is an error, with the name that was probably meant."""
    result = run("show", "tunnels", "fra2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "fra2" in result.stderr
    assert "fra1" in result.stderr
    assert "fra2" in error_of(run("show", "tunnels", "fra2", "-j"))["message"]


def test_show_drops_for_people() -> None:
    """Only what happened is shown, with what to do; the zeros are counted, or shown by --all."""
    lines = run("show", "drops").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:3] == ["2", "key_mismatch", "5"]
    assert "Set the same key on both ends" in lines[1]
    assert lines[2] == f"{len(DROP_REASONS) - 1} other reasons: 0"
    assert len(run("show", "drops", "--all").stdout.splitlines()) == len(DROP_REASONS) + 1
    assert run("show", "passes").stdout == f"all {len(PASS_REASONS)} reasons: 0\n"


def test_show_where_nothing_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data plane every noun exits with 1 and tells what to do."""
    problem = errors.NotAppliedError("gre-xdp is not applied here", remedy="gre-xdp apply")
    monkeypatch.setattr(status, "snapshot", raising(problem))
    for noun in ([], ["tunnels"], ["interfaces"], ["drops"], ["passes"], ["status"]):
        result = run("show", *noun)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "error: gre-xdp is not applied here\n  remedy: gre-xdp apply\n"
        assert error_of(run("show", *noun, "-j"))["code"] == "not_applied"


# --- namespaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--netns", "blue", "show"],
        ["show", "--netns", "blue"],
        ["show", "--netns", "blue", "drops"],
        ["show", "drops", "--netns", "blue"],
        ["down", "--yes", "--netns", "blue"],
    ],
)
def test_netns_is_entered_first(
    arguments: list[str], entered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--netns works before and after the subcommand, once, before anything else is done."""
    monkeypatch.setattr(status, "snapshot", lambda: entered.append("looked") or SNAPSHOT)
    monkeypatch.setattr(reconcile, "down", lambda *_: entered.append("looked") or [])
    assert run(*arguments).exit_code == 0
    assert entered == ["blue", "looked"]


def test_netns_that_does_not_exist(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown namespace is an error of the command: 1, or 2 for diff."""
    problem = errors.HostError(
        "there is no such namespace", remedy="ip netns list", where="--netns"
    )
    monkeypatch.setattr(namespaces, "enter", raising(problem))
    assert error_of(run("-j", "--netns", "x", "show"))["where"] == "--netns"
    assert run("--netns", "x", "apply", good).exit_code == 1
    assert run("--netns", "x", "diff", good).exit_code == 2


# --- what goes wrong ------------------------------------------------------------------------------


def _error_classes(base: type[errors.GreXdpError]) -> Iterator[type[errors.GreXdpError]]:
    for found in base.__subclasses__():
        yield found
        yield from _error_classes(found)


@pytest.mark.parametrize(
    "error_class",
    [found for found in _error_classes(errors.GreXdpError) if found is not errors.ConfigErrors],
)
def test_every_error_is_one_block(
    error_class: type[errors.GreXdpError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Message, place and remedy of every class of errors reach the user, and the exit code is 1."""
    problem = error_class("it is broken", remedy="mend it", where="there")
    monkeypatch.setattr(status, "snapshot", raising(problem))
    result = run("show")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: it is broken\n  where: there\n  remedy: mend it\n"
    result = run("show", "-j")
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result) == {
        "code": error_class.code,
        "message": "it is broken",
        "remedy": "mend it",
        "where": "there",
    }


def test_no_traceback_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours is one sentence; --debug shows the traceback as well."""
    monkeypatch.setattr(status, "snapshot", raising(RuntimeError("two\nlines")))
    result = run("show")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "error: internal error: RuntimeError: two lines; run with --debug"
    )
    assert "Traceback" not in result.stderr
    for arguments in (["--debug", "show"], ["show", "--debug"]):
        assert "Traceback" in run(*arguments).stderr
    error = error_of(run("show", "-j", "--debug"))
    assert error["code"] == "internal"
    assert "Traceback" in error["traceback"]


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (PermissionError(13, "Permission denied", "/run/x"), "privilege", "/run/x"),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), "package", "rich"),
        (OSError(28, "No space left on device"), "host", "no space left"),
        (OSError(5, "Input/output error"), "internal", "OSError"),
    ],
)
def test_the_systems_own_errors(
    problem: Exception, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host lacks is no internal error, wherever it comes up."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(status, "snapshot", raising(problem))
    error = error_of(run("show", "-j"))
    assert error["code"] == code
    assert words in error["message"]


@pytest.mark.parametrize(
    ("problem", "exit_code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 1)]
)
def test_quiet_ends(
    problem: BaseException, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C and a reader that has gone need no words."""
    monkeypatch.setattr(status, "snapshot", raising(problem))
    result = run("show")
    assert (result.exit_code, result.output) == (exit_code, "")


@pytest.mark.parametrize("arguments", [["--help"], ["check", "GOOD"], ["completion", "zsh"]])
def test_heavy_libraries_load_late(arguments: list[str], good: str) -> None:
    """Help, completion and check load no netlink, no BCC and no rich: they answer at once."""
    program = (
        "import sys\n"
        "from gre_xdp_cli.main import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'pyroute2', 'bcc', 'rich', 'prometheus_client'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    words = [good if word == "GOOD" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stream", ["/dev/full", None])
def test_stdout_that_takes_nothing(stream: str | None, good: str) -> None:
    """A full disk is one sentence and a closed stdout none; neither ends in a traceback."""
    command = [sys.executable, "-m", "gre_xdp_cli.main", "check", good]
    if stream is None:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    with open(stream or "/dev/null", "w") as stdout:
        done = subprocess.run(
            command, check=False, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode == (1 if stream else 0)
    assert ("no space left" in done.stderr) is bool(stream)


# --- agent, exporter, lab, completion -------------------------------------------------------------


def run_logged(*arguments: str) -> Result:
    """Run with logging as it is in a fresh process, and put it back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("gre_xdp")
    before = root.handlers, root.level, ours.level
    root.handlers = []
    try:
        return run(*arguments)
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


@pytest.mark.parametrize("arguments", [["--log-format", "json"], ["-j"]])
def test_agent_logs_json(arguments: list[str], good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent gets the file's path, and its log is JSON lines on stderr."""
    paths: list[Path] = []

    def fake(path: Path) -> None:
        paths.append(path)
        logging.getLogger("gre_xdp.agent").info("applied %d", 3)
        logging.getLogger("gre_xdp.agent").debug("unheard")

    monkeypatch.setattr(agent, "run", fake)
    result = run_logged("agent", good, *arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert paths == [Path(good)]
    line = json.loads(result.stderr)
    assert (line["level"], line["logger"], line["message"]) == (
        "info",
        "gre_xdp.agent",
        "applied 3",
    )


def test_agent_is_verbose_on_request(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """-v shows every event, as text."""
    monkeypatch.setattr(agent, "run", lambda _: logging.getLogger("gre_xdp.x").debug("event"))
    assert run_logged("agent", "-v", good).stderr.endswith("DEBUG gre_xdp.x: event\n")


@pytest.mark.parametrize(
    ("arguments", "listen"), [([], "127.0.0.1:9747"), (["--listen", "[::1]:1"], "[::1]:1")]
)
def test_exporter_listens_where_it_is_told(
    arguments: list[str], listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody outside the host is served unless asked for."""
    addresses: list[str] = []
    monkeypatch.setattr(exporter, "serve", addresses.append)
    assert run_logged("exporter", *arguments).exit_code == 0
    assert addresses == [listen]


class FakeNetworks:
    """Labs that exist only in words, and the gre-xdp processes that were run for them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.commands: list[list[str]] = []
        self.removed: list[str] = []
        self.fails = False
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr(lab, "STATE_DIRECTORY", directory)
        monkeypatch.setattr(Lab, "up", self._up)
        monkeypatch.setattr(Lab, "remove", self.removed.append)
        monkeypatch.setattr(Lab, "down", lambda network: self.removed.append(network.prefix))
        monkeypatch.setattr(subprocess, "run", self._run)

    def _up(self, prefix: str, *, peer: str, **_: object) -> Lab:
        (self.directory / prefix).mkdir()
        return Lab(prefix, None if peer == "gre-xdp" else "host", None)

    def _run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command[command.index("--netns") + 1 :])
        error = {"error": errors.HostError("no eth0", remedy="make one", where="f:1").as_dict()}
        stderr = f"noise of a compiler\n{json.dumps(error)}\n" if self.fails else ""
        return subprocess.CompletedProcess(command, int(self.fails), "", stderr)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNetworks:
    """Stands in for the lab: no network namespace is made."""
    return FakeNetworks(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "gateways"),
    [(["--peer", "kernel"], ["gw-a"]), (["--peer", "gre-xdp"], ["gw-a", "gw-b"])],
)
def test_lab_up_applies_in_the_gateways(
    arguments: list[str], gateways: list[str], networks: FakeNetworks
) -> None:
    """Each gateway that runs gre-xdp gets its file, applied by a process of its own."""
    result = run("lab", "up", *arguments, "--name", "t")
    assert (result.exit_code, result.stderr) == (0, "")
    files = [networks.directory / "t" / f"{gateway}.toml" for gateway in gateways]
    assert networks.commands == [
        [f"t-{gateway}", "apply", str(file)] for gateway, file in zip(gateways, files, strict=True)
    ]
    for file in files:
        assert run("check", str(file)).exit_code == 0
    for words in ("site-a", "192.0.2.1", "10.2.0.2", "gre-xdp lab down --name t"):
        assert words in result.stdout
    assert max(map(len, result.stdout.split("Try:")[0].splitlines())) <= 80


def test_lab_up_in_json(networks: FakeNetworks) -> None:
    """Programs learn the names of namespaces and files."""
    shown = json.loads(run("lab", "up", "-j", "--name", "t").stdout)
    assert shown["namespaces"]["site-a"] == "t-site-a"
    assert shown["configs"] == {"gw-a": str(networks.directory / "t" / "gw-a.toml")}


def test_lab_up_undoes_what_fails(networks: FakeNetworks) -> None:
    """When gre-xdp cannot be applied the lab goes again, and the reason is told."""
    networks.fails = True
    result = run("lab", "up", "--name", "t")
    assert result.exit_code == 1
    assert networks.removed == ["t"]
    assert "error: gre-xdp apply in t-gw-a: no eth0\n  where: f:1\n  remedy: make one\n" in (
        result.stderr
    )


def test_lab_down_without_a_lab(networks: FakeNetworks) -> None:
    """Removing what is not there succeeds."""
    result = run("lab", "down", "--name", "nowhere")
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")
    assert networks.removed == []


def test_lab_shell_ends_as_the_shell_does(
    networks: FakeNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status of the shell is that of the command."""
    monkeypatch.setattr(Lab, "load", lambda prefix: Lab(prefix, "host", None))
    monkeypatch.setattr(Lab, "shell", lambda _, node: 7 if node == "gw-b" else 0)
    assert run("lab", "shell", "gw-b").exit_code == 7
    assert run("lab", "shell", "site-a").exit_code == 0


@pytest.mark.parametrize("command", [["up"], ["down"], ["shell", "gw-a"]])
def test_lab_needs_root(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user is told in one sentence."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert error_of(run("lab", *command, "-j"))["code"] == "privilege"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    """Every shell gets a script that asks gre-xdp itself."""
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_GRE_XDP_COMPLETE={shell}_complete" in result.stdout
    assert json.loads(run("completion", shell, "-j").stdout)["script"] in result.stdout


def test_completion_knows_the_nouns() -> None:
    """What the script asks for is answered with the subcommands."""
    settings = {
        "_GRE_XDP_COMPLETE": "bash_complete",
        "COMP_WORDS": "gre-xdp show ",
        "COMP_CWORD": "2",
    }
    result = CliRunner().invoke(cli, [], env=settings)
    assert result.stdout.split() == [
        f"plain,{noun}" for noun in ("tunnels", "interfaces", "drops", "passes", "status")
    ]


def test_options_start_with_the_default_file() -> None:
    """Without any option it is the file that the documentation names."""
    assert Options().config == Path("/etc/gre-xdp/config.toml")
