"""``gre-xdp tunnel``: what its words ask for, and what is left of the file when something fails."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gre_xdp import agent_lock, config, config_file, errors, history, reconcile, writer_lock
from gre_xdp.agent_lock import RunningAgent
from gre_xdp.model import Config, Tunnel
from gre_xdp.plan import Step
from gre_xdp.resources import TunnelDevice
from gre_xdp_cli.main import cli

SITE = """\
# Frankfurt
[[interface]]
name = "eth0" # underlay

[[tunnel]]
name = "ams1"
local = "192.0.2.1"
remote = "198.51.100.7"
key = 77 # agreed
"""
ENDS = ("local", "192.0.2.1", "remote", "203.0.113.9")
STEPS = [Step(None, TunnelDevice("ber1", 1476))]
CHANGES = [step.as_dict() for step in STEPS]


class Kernel:
    """What would have been applied, and the file as it was then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.texts: list[str] = []
        self.problem: BaseException | None = None

    def apply(self, wanted: Config) -> list[Step]:
        self.texts.append(self.path.read_text())
        if self.problem is not None:
            raise self.problem
        self.applied.append(wanted)
        return STEPS


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration file with comments."""
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


@pytest.fixture(autouse=True)
def kernel(
    site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Kernel:
    """Stands in for this machine's; no agent runs."""
    found = Kernel(site)
    for name in ("GRE_XDP_CONFIG", "GRE_XDP_JSON", "GRE_XDP_NETNS", "GRE_XDP_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reconcile, "apply", found.apply)
    monkeypatch.setattr(reconcile, "diff", lambda _: STEPS)
    monkeypatch.setattr(writer_lock, "require_root", lambda: None)
    monkeypatch.setattr(reconcile, "bypassed_chains", list)
    monkeypatch.setattr(agent_lock, "running", lambda: None)
    monkeypatch.setattr(history, "STATE_DIRECTORY", tmp_path_factory.mktemp("history"))
    return found


@pytest.fixture
def run(site: Path) -> Callable[..., Result]:
    """Runs gre-xdp tunnel with the site's file."""
    return lambda *words: CliRunner().invoke(cli, ["tunnel", *words, "-c", str(site)])


def only_file(site: Path, text: str) -> None:
    """The file holds this, and nothing was left beside it."""
    assert site.read_bytes() == text.encode()
    assert os.listdir(site.parent) == [site.name]


def added(kernel: Kernel) -> Tunnel:
    return kernel.applied[-1].tunnels[-1]


# --- words ----------------------------------------------------------------------------------------

WORDS: list[tuple[str, dict[str, object]]] = [
    ("", {}),
    ("key 5", {"key": 5}),
    ("key 0x10", {"key": 16}),
    ("key 1.2.3.4", {"key": "1.2.3.4"}),
    ("ikey 5 okey 6", {"ikey": 5, "okey": 6}),
    ("csum iseq", {"csum": True, "iseq": True}),
    ("icsum oseq", {"icsum": True, "oseq": True}),
    ("ttl inherit tos 0x10", {"ttl": "inherit", "tos": 16}),
    ("hoplimit 9 tclass inherit", {"ttl": 9, "tos": "inherit"}),
    ("nopmtudisc", {"pmtudisc": False}),
    ("pmtudisc mtu auto mss_clamp on", {"pmtudisc": True, "mtu": "auto", "mss_clamp": True}),
    ("mtu 1400 mss_clamp off", {"mtu": 1400, "mss_clamp": False}),
    ("mss_clamp 1300", {"mss_clamp": 1300}),
    ("payload ethernet backing veth", {"payload": "ethernet", "backing": "veth"}),
    ("address fd00::1/64 mtu_probe on", {"addresses": ["fd00::1/64"], "mtu_probe": True}),
    ("address 10.0.0.1 address fd00::1/64", {"addresses": ["10.0.0.1", "fd00::1/64"]}),
    ("route 10.0.0.0/8 route ::/0", {"routes": ["10.0.0.0/8", "::/0"]}),
    ("allowed_source 10.0.0.0/8", {"allowed_sources": ["10.0.0.0/8"]}),
    ("nokey nocsum noseq", {}),
]


@pytest.mark.parametrize(("words", "keys"), WORDS, ids=[words for words, _ in WORDS])
def test_words_mean_what_the_keys_of_the_file_mean(
    words: str, keys: dict[str, object], run: Callable[..., Result], kernel: Kernel, site: Path
) -> None:
    """Each word becomes its key, numbers and booleans as TOML's own."""
    result = run("add", "ber1", *ENDS, *words.split())
    assert (result.exit_code, result.stderr) == (0, "")
    ends = {"name": "ber1", "local": "192.0.2.1", "remote": "203.0.113.9"}
    assert added(kernel) == Tunnel.model_validate({**ends, **keys})
    assert site.read_text().startswith(f'{SITE}\n[[tunnel]]\nname = "ber1"\n')
    data: dict[str, Any] = config.to_data(site.read_text(), "f")
    assert data["tunnel"][1] == {**ends, **keys}


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        ("key 78", "key = 77 #", "key = 78 #"),
        ("nokey", "key = 77 # agreed\n", ""),
        ("noikey", "key = 77", "okey = 77"),
        ("name fra1", '"ams1"', '"fra1"'),
        ("ttl 3 route 10.0.0.0/8", "agreed\n", 'agreed\nttl = 3\nroutes = ["10.0.0.0/8"]\n'),
        ("ikey 77 nocsum", "", ""),
    ],
)
def test_set_changes_what_is_named(
    words: str, old: str, new: str, run: Callable[..., Result], kernel: Kernel, site: Path
) -> None:
    """The rest of the file stays as it is; the new file is what is applied."""
    result = run("set", "ams1", *words.split())
    assert (result.exit_code, result.stderr) == (0, "")
    only_file(site, SITE.replace(old, new, 1) if old else SITE)
    assert kernel.applied == [config.parse(site.read_text(), "f")]
    assert result.stdout.splitlines()[-1] == "applied: 1 change"


def test_del_removes_what_add_has_added(run: Callable[..., Result], site: Path) -> None:
    """Both tell what changed as apply does."""
    result = run("add", "ber1", *ENDS, "-j")
    assert json.loads(result.stdout)["changes"] == CHANGES
    assert site.read_text() != SITE
    assert json.loads(run("del", "ber1", "-j").stdout)["changes"] == CHANGES
    only_file(site, SITE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "ber1"], "Missing argument"),
        (["set", "ams1"], "Missing argument"),
        (["set", "ams1", "colour", "red"], "the words are local, remote"),
        (["set", "ams1", "addresses", "10.0.0.1"], "did you mean address?"),
        (["set", "ams1", "key"], "key wants a value"),
        (["set", "ams1", "ttl", "5", "hoplimit", "6"], "hoplimit comes after ttl"),
        (["set", "ams1", "key", "5", "nookey"], "nookey comes after key"),
        (["set", "ams1", "iseq", "noseq"], "noseq comes after iseq"),
    ],
)
def test_words_that_cannot_be_understood(
    words: list[str], message: str, run: Callable[..., Result], site: Path, kernel: Kernel
) -> None:
    """They are usage errors, and nothing is looked at."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert json.loads(run(*words, "-j").stderr)["error"]["code"] == "usage"
    only_file(site, SITE)
    assert kernel.texts == []


@pytest.mark.parametrize(
    ("words", "message", "where"),
    [
        (["add", "ber1", "local", "192.0.2.1"], "remote is missing", ":11"),
        (["add", "ams1", *ENDS], 'a tunnel "ams1" already', ":5"),
        (["add", "eth0", *ENDS], "has this name already", ":12"),
        (["add", "ber1", *ENDS, "ttl", "0"], "neither a whole number from 1 to 255", ":15"),
        (["add", "ber1", *ENDS, "mtu", "9" * 400], "neither a whole number", ":15"),
        (["set", "ams1", "ikey", "x", "seq"], "a key is a whole number", ":9"),
        (["set", "ams1", "mtu_probe", "on"], "no IPv6 address", ":10"),
        (["set", "ams1", "noroute", "10.0.0.0/8"], "none of its routes", ":5"),
        (["set", "ams2", "seq"], 'no tunnel "ams2"', ""),
        (["del", "ams2"], 'no tunnel "ams2"', ""),
    ],
)
def test_a_mistake_changes_nothing(
    words: list[str],
    message: str,
    where: str,
    run: Callable[..., Result],
    site: Path,
    kernel: Kernel,
) -> None:
    """It is the error that check would give for the new file, with the line in that."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    shown = run(*words, "-j")
    assert shown.stderr.count("\n") == 1
    error = json.loads(shown.stderr)["error"]
    assert error["code"] == "config"
    assert error["where"] == f"{site}{where}"
    only_file(site, SITE)
    assert kernel.texts == []


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem",
    [errors.ApplyError("refused", remedy="try"), RuntimeError("oops"), KeyboardInterrupt()],
)
@pytest.mark.parametrize(
    "words", [["add", "ber1", *ENDS], ["set", "ams1", "nokey"], ["del", "ams1"]]
)
def test_a_failed_apply_puts_the_file_back(
    words: list[str],
    problem: BaseException,
    run: Callable[..., Result],
    site: Path,
    kernel: Kernel,
) -> None:
    """The very file that was there is there again, whatever went wrong."""
    kernel.problem = problem
    before = site.stat()
    result = run(*words)
    assert result.exit_code == (130 if isinstance(problem, KeyboardInterrupt) else 1)
    assert [text != SITE for text in kernel.texts] == [True]
    only_file(site, SITE)
    assert (site.stat().st_ino, site.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_file_stays_whose_and_what_it_was(run: Callable[..., Result], site: Path) -> None:
    """Mode, byte order mark and a symbolic link to it outlive an edit."""
    site.chmod(0o640)
    site.write_bytes(b"\xef\xbb\xbf" + SITE.encode())
    link = site.with_name("link.toml")
    link.symlink_to(site.name)
    assert run("set", "ams1", "key", "78", "-c", str(link)).exit_code == 0
    assert link.is_symlink()
    assert site.read_bytes() == b"\xef\xbb\xbf" + SITE.replace("77", "78").encode()
    assert stat.S_IMODE(site.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_file_stays_its_owners(run: Callable[..., Result], site: Path) -> None:
    """An edit by root leaves a user's file to the user."""
    os.chown(site, 1234, 4321)
    assert run("set", "ams1", "key", "78").exit_code == 0
    assert (site.stat().st_uid, site.stat().st_gid) == (1234, 4321)


def test_a_file_that_has_it_already_is_not_written(
    run: Callable[..., Result], site: Path, kernel: Kernel
) -> None:
    """But applied it is, since the kernel may have something else."""
    before = site.stat()
    assert run("set", "ams1", "key", "77").exit_code == 0
    assert site.stat().st_ino == before.st_ino
    assert len(kernel.applied) == 1
    result = run("set", "ams1", "key", "77", "--no-apply")
    assert result.stdout == "nothing to do\n"


def test_no_apply_edits_only(
    run: Callable[..., Result], site: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no root, and the kernel is not asked."""
    monkeypatch.setattr(writer_lock, "require_root", lambda: pytest.fail("asked for root"))
    result = run("set", "ams1", "key", "78", "--no-apply")
    assert (result.exit_code, kernel.texts) == (0, [])
    assert result.stdout == f"{site}: edited; gre-xdp apply makes the kernel match\n"
    assert json.loads(run("set", "ams1", "key", "79", "--no-apply", "-j").stdout) == {"changes": []}
    only_file(site, SITE.replace("77", "79"))


def test_a_dry_run_shows_both_and_changes_neither(
    run: Callable[..., Result], site: Path, kernel: Kernel
) -> None:
    """The lines of the file, then the steps of the plan."""
    shown = run("set", "ams1", "key", "78", "-n").stdout
    assert "\n-key = 77 # agreed\n+key = 78 # agreed\n+ device ber1 " in shown
    preview = json.loads(run("set", "ams1", "key", "78", "-nj").stdout)
    assert preview["changes"] == CHANGES
    assert "+key = 78 # agreed" in preview["edit"]
    assert run("set", "ams1", "key", "77", "-n", "--no-apply").stdout == "nothing to do\n"
    only_file(site, SITE)
    assert kernel.texts == []


def test_what_was_applied_is_remembered(run: Callable[..., Result], site: Path) -> None:
    """So that gre-xdp rollback returns to what was before the edit."""
    kept = history.History(site)
    assert run("set", "ams1", "key", "78").exit_code == 0
    assert run("set", "ams1", "key", "79").exit_code == 0
    assert kept.current == SITE.replace("77", "79")
    assert kept.previous == SITE.replace("77", "78")


def test_a_change_that_waits_for_confirmation_is_not_edited(
    run: Callable[..., Result], site: Path, kernel: Kernel
) -> None:
    """It may be taken back, and the edit would go with it."""
    history.History(site).begin(60)
    result = run("set", "ams1", "key", "78")
    assert result.exit_code == 1
    assert "waits for confirmation" in result.stderr
    only_file(site, SITE)
    assert kernel.texts == []


def test_an_ordinary_user_is_told_before_anything_is_written(
    run: Callable[..., Result], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root is needed to apply, so that a file is not written that cannot be applied."""
    problem = errors.PrivilegeError("this needs root", remedy="sudo")

    def refuse() -> None:
        raise problem

    monkeypatch.setattr(writer_lock, "require_root", refuse)
    assert run("del", "ams1").exit_code == 1
    only_file(site, SITE)


def test_a_file_that_cannot_be_replaced(
    run: Callable[..., Result], site: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a mount point is one sentence, and the file is as it was."""

    def fail(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        result = run("del", "ams1")
    assert result.exit_code == 1
    assert "cannot be replaced: device or resource busy" in result.stderr
    only_file(site, SITE)
    assert kernel.texts == []


def test_an_editor_that_knows_no_lock_loses_nothing(site: Path) -> None:
    """What was saved since the file was read is not overwritten."""
    with config_file.editing(site) as file:
        site.write_text(SITE + "# saved\n")
        with pytest.raises(errors.HostError, match="somebody else has changed"):
            file.replace(SITE)
    only_file(site, SITE + "# saved\n")


@pytest.mark.parametrize("name", ["missing.toml", "nowhere/missing.toml", "."])
def test_a_file_that_cannot_be_read(name: str, site: Path) -> None:
    """It is the error of check."""
    path = str(site.parent / name)
    result = CliRunner().invoke(cli, ["-c", path, "tunnel", "del", "x"])
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    only_file(site, SITE)


def test_edits_wait_for_each_other(site: Path, run: Callable[..., Result]) -> None:
    """Many at once all take effect, each on what the one before has left."""
    names = [f"t{number}" for number in range(12)]

    def add(name: str) -> None:
        words = ["local", "192.0.2.1", "remote", f"203.0.113.{10 + int(name[1:])}", "--no-apply"]
        command = [sys.executable, "-m", "gre_xdp_cli.main", "-c", str(site), "tunnel", "add"]
        subprocess.run([*command, name, *words], check=True, capture_output=True)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [tunnel.name for tunnel in config.load(site).tunnels]
    assert sorted(found) == sorted(["ams1", *names])
    for name in names:
        assert run("del", name, "--no-apply").exit_code == 0
    only_file(site, SITE)


def test_the_lock_lasts_until_the_file_is_final(
    run: Callable[..., Result], site: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one edit is applied, the next waits: its file may still be put back."""

    def apply(_: Config) -> list[Step]:
        with site.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return STEPS

    monkeypatch.setattr(reconcile, "apply", apply)
    assert run("set", "ams1", "key", "78").exit_code == 0
    with site.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- agent and completion -------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_a_running_agent_reads_the_file_that_stays(
    fails: bool,
    run: Callable[..., Result],
    site: Path,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told before the edit is applied, which it would undo else, and when that fails."""
    told: list[str] = []
    monkeypatch.setattr(agent_lock, "running", lambda: RunningAgent(1, site))
    monkeypatch.setattr(agent_lock, "reload", lambda _: told.append(site.read_text()))
    kernel.problem = errors.ApplyError("refused", remedy="try") if fails else None
    assert run("set", "ams1", "key", "78").exit_code == int(fails)
    assert told == [SITE.replace("77", "78"), *([SITE] if fails else [])]


def test_another_files_agent_is_not_worked_against(
    run: Callable[..., Result], site: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would undo the change, so the file is not even written."""
    monkeypatch.setattr(agent_lock, "running", lambda: RunningAgent(1, Path("/other.toml")))
    result = run("del", "ams1")
    assert result.exit_code == 1
    assert "/other.toml" in result.stderr
    only_file(site, SITE)
    assert kernel.texts == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("set ", ["ams1"]),
        ("del a", ["ams1"]),
        ("del b", []),
        ("set ams1 noi", ["noikey", "noicsum", "noiseq"]),
        ("set ams1 key 5 payload ", ["ip", "ethernet"]),
        ("add x ttl in", ["inherit"]),
        ("add x route ", []),
        ("", ["add", "set", "del"]),
    ],
)
def test_completion(line: str, offered: list[str], site: Path) -> None:
    """Tunnels come from the file that is named, words and their values from here."""
    words = f"gre-xdp -c {site} tunnel {line}"
    settings = {
        "_GRE_XDP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = CliRunner().invoke(cli, [], env=settings)
    assert result.stdout.split() == [f"plain,{word}" for word in offered]
