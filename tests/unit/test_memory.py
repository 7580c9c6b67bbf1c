"""What is remembered between runs: the first value only, in one private file, and then nothing."""

from __future__ import annotations

import json
import stat
import time
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import pytest

from gre_xdp import memory
from gre_xdp.memory import Memory

COOKIE = 4711
FORWARDING = "ipv4/conf/eth0/forwarding"
ACCEPT_RA = "ipv6/conf/eth0/accept_ra"


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /run/gre-xdp, not made yet."""
    directory = tmp_path / "gre-xdp"
    monkeypatch.setattr(memory, "RUN_DIRECTORY", directory)
    monkeypatch.setattr(memory, "_BPFFS_MARK", directory / "bpffs-mounted")
    return directory


def read() -> Memory:
    return Memory.of_namespace(COOKIE)


def test_nothing_is_remembered_at_first_and_nothing_is_made(run_directory: Path) -> None:
    """Reading leaves no trace."""
    assert read().sysctls == {}
    assert not run_directory.exists()


def test_only_the_first_value_is_remembered() -> None:
    """The second one is ours already."""
    found = read()
    found.remember(FORWARDING, "0")
    found.remember(FORWARDING, "1")
    assert found.sysctls == {FORWARDING: "0"}
    assert read().sysctls == {FORWARDING: "0"}


def test_only_the_first_value_is_remembered_by_the_next_process() -> None:
    """Also when the first process is gone."""
    read().remember(FORWARDING, "0")
    read().remember(FORWARDING, "1")
    assert read().sysctls == {FORWARDING: "0"}


def test_the_order_of_changes_survives() -> None:
    """They are undone in the reverse."""
    found = read()
    for path in ("z", "a", "m"):
        found.remember(path, "0")
    assert list(read().sysctls) == ["z", "a", "m"]


def test_an_empty_value_is_a_value() -> None:
    """What was empty is remembered and forgotten like everything else."""
    read().remember(FORWARDING, "")
    assert read().sysctls == {FORWARDING: ""}
    read().forget(FORWARDING)
    assert read().sysctls == {}


def test_namespaces_do_not_share_their_memory() -> None:
    """Each has a file of its own."""
    read().remember(FORWARDING, "0")
    assert Memory.of_namespace(COOKIE + 1).sysctls == {}


def test_the_directory_is_private(run_directory: Path) -> None:
    """Only root may see and change what will be written back."""
    read().remember(FORWARDING, "0")
    assert stat.S_IMODE(run_directory.stat().st_mode) == 0o700


def test_writing_leaves_one_complete_file(run_directory: Path) -> None:
    """A temporary file takes the place of the old one at once."""
    found = read()
    found.remember(FORWARDING, "0")
    found.remember(ACCEPT_RA, "1")
    assert [path.name for path in run_directory.iterdir()] == [f"{COOKIE}.json"]


def test_forgetting_one_keeps_the_others() -> None:
    """Each value is forgotten when it is back, not before."""
    found = read()
    found.remember(FORWARDING, "0")
    found.remember(ACCEPT_RA, "1")
    found.forget(FORWARDING)
    assert read().sysctls == {ACCEPT_RA: "1"}


def test_forgetting_the_last_removes_file_and_directory(run_directory: Path) -> None:
    """Nothing is left behind."""
    read().remember(FORWARDING, "0")
    read().forget(FORWARDING)
    assert not run_directory.exists()


def test_the_directory_stays_while_another_namespace_needs_it(run_directory: Path) -> None:
    """Only an empty directory goes."""
    read().remember(FORWARDING, "0")
    Memory.of_namespace(COOKIE + 1).remember(FORWARDING, "0")
    read().forget(FORWARDING)
    assert [path.name for path in run_directory.iterdir()] == [f"{COOKIE + 1}.json"]


def test_forgetting_what_was_never_known_succeeds(run_directory: Path) -> None:
    """Forgetting twice is forgetting once."""
    read().forget(FORWARDING)
    assert not run_directory.exists()


LOCAL, REMOTE = ip_address("192.0.2.1"), ip_address("198.51.100.7")
LOCAL6, REMOTE6 = ip_address("2001:db8:f1::1"), ip_address("2001:db8:f2::7")


def later(seconds: float = 600.0) -> float:
    return time.time() + seconds


class TestPathMtus:
    """What routers have said of the way to a remote (duty 16)."""

    def test_read_back(self) -> None:
        """Duty 16: for this pair of ends, in this order, and of either family."""
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later())
        read().believe_path_mtu(LOCAL6, REMOTE6, 1300, later())
        found = read()
        assert found.path_mtu(LOCAL, REMOTE) == 1400
        assert found.path_mtu(LOCAL6, REMOTE6) == 1300
        assert found.path_mtu(REMOTE, LOCAL) is None
        assert found.path_mtu(LOCAL, REMOTE6) is None

    def test_the_last_word_counts(self) -> None:
        """Duty 16: also where it is a larger MTU, or a shorter time."""
        until_s = later(300)
        read().believe_path_mtu(LOCAL, REMOTE, 1300, later())
        read().believe_path_mtu(LOCAL, REMOTE, 1400, until_s)
        assert read().path_mtus == {(str(LOCAL), str(REMOTE)): (1400, until_s)}

    def test_expiry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Duty 16: soft state; each ends on its own."""
        now = time.time()
        read().believe_path_mtu(LOCAL, REMOTE, 1400, now + 600)
        read().believe_path_mtu(LOCAL6, REMOTE6, 1300, now + 1200)
        monkeypatch.setattr(time, "time", lambda: now + 599)
        assert len(read().path_mtus) == 2
        monkeypatch.setattr(time, "time", lambda: now + 601)
        assert list(read().path_mtus) == [(str(LOCAL6), str(REMOTE6))]
        monkeypatch.setattr(time, "time", lambda: now + 1201)
        assert read().path_mtus == {}

    def test_expired_ones_leave_the_file(self, run_directory: Path) -> None:
        """Duty 16: the next note forgets them for good."""
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later(-1))
        read().believe_path_mtu(LOCAL6, REMOTE6, 1300, later())
        content = json.loads((run_directory / f"{COOKIE}.json").read_text())
        assert [entry[:3] for entry in content["path_mtus"]] == [[str(LOCAL6), str(REMOTE6), 1300]]

    def test_with_settings(self) -> None:
        """Neither kind of note costs the other one anything."""
        read().remember(FORWARDING, "0")
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later())
        read().remember(ACCEPT_RA, "1")
        read().forget(FORWARDING)
        assert read().sysctls == {ACCEPT_RA: "1"}
        assert read().path_mtu(LOCAL, REMOTE) == 1400
        read().forget(ACCEPT_RA)
        assert read().path_mtu(LOCAL, REMOTE) == 1400

    def test_forgetting_keeps_settings(self) -> None:
        """Believing nothing any more is no reason to forget what to restore."""
        read().remember(FORWARDING, "0")
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later())
        read().forget_all_but_sysctls()
        assert (read().path_mtus, read().sysctls) == ({}, {FORWARDING: "0"})

    def test_alone(self, run_directory: Path) -> None:
        """A belief makes the private file, and the last one to go takes it along."""
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later())
        assert stat.S_IMODE(run_directory.stat().st_mode) == 0o700
        assert read().path_mtu(LOCAL, REMOTE) == 1400
        read().forget_all_but_sysctls()
        assert not run_directory.exists()
        read().forget_all_but_sysctls()
        assert not run_directory.exists()

    def test_namespaces_do_not_share_beliefs(self) -> None:
        """Each has its own way to the same remote."""
        read().believe_path_mtu(LOCAL, REMOTE, 1400, later())
        assert Memory.of_namespace(COOKIE + 1).path_mtu(LOCAL, REMOTE) is None

    GARBAGE: ClassVar = {
        "null": "null",
        "a number": "5",
        "text": '"abcd"',
        "an object": '{"abcd": 1}',
        "a list of numbers": "[1, 2]",
        "an empty entry": "[[]]",
        "too short": f'[["{LOCAL}", "{REMOTE}", 1400]]',
        "too long": f'[["{LOCAL}", "{REMOTE}", 1400, 9e9, 1]]',
        "mtu is text": f'[["{LOCAL}", "{REMOTE}", "wide", 9e9]]',
        "mtu is null": f'[["{LOCAL}", "{REMOTE}", null, 9e9]]',
        "mtu is infinite": f'[["{LOCAL}", "{REMOTE}", Infinity, 9e9]]',
        "mtu is no number": f'[["{LOCAL}", "{REMOTE}", NaN, 9e9]]',
        "end is text": f'[["{LOCAL}", "{REMOTE}", 1400, "soon"]]',
        "end is null": f'[["{LOCAL}", "{REMOTE}", 1400, null]]',
        "local is a list": f'[[["{LOCAL}"], "{REMOTE}", 1400, 9e9]]',
    }

    @pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
    def test_garbage(self, run_directory: Path, content: str) -> None:
        """It is as good as none, settings beside it are kept, and the next note replaces it."""
        run_directory.mkdir()
        (run_directory / f"{COOKIE}.json").write_text(
            f'{{"sysctls": {{"{FORWARDING}": "0"}}, "path_mtus": {content}}}'
        )
        found = read()
        assert (found.path_mtus, found.sysctls) == ({}, {FORWARDING: "0"})
        found.believe_path_mtu(LOCAL, REMOTE, 1400, later())
        assert read().path_mtu(LOCAL, REMOTE) == 1400
        assert read().sysctls == {FORWARDING: "0"}


CORRUPT: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"sysctls": {"ipv4/conf',
    "not text": b"\xff\xfe\x00",
    "another document": b'{"version": 2}',
    "a list": b"[]",
    "null": b"null",
    "sysctls are null": b'{"sysctls": null}',
    "sysctls are a number": b'{"sysctls": 5}',
    "sysctls are text": b'{"sysctls": "abc"}',
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_file_is_as_good_as_none(run_directory: Path, content: bytes) -> None:
    """It is read as empty, and the next note replaces it."""
    run_directory.mkdir()
    (run_directory / f"{COOKIE}.json").write_bytes(content)
    found = read()
    assert found.sysctls == {}
    found.remember(FORWARDING, "0")
    assert read().sysctls == {FORWARDING: "0"}


def test_the_mark_of_a_mounted_bpffs_comes_and_goes(run_directory: Path) -> None:
    """Only who mounted it unmounts it, and the mark goes with its directory."""
    assert not memory.was_bpffs_mounted_by_us()
    memory.note_bpffs_mounted()
    memory.note_bpffs_mounted()
    assert memory.was_bpffs_mounted_by_us()
    memory.forget_bpffs_mounted()
    memory.forget_bpffs_mounted()
    assert not memory.was_bpffs_mounted_by_us()
    assert not run_directory.exists()


def test_values_keep_the_directory_when_the_mark_goes() -> None:
    """Unmounting forgets no settings."""
    memory.note_bpffs_mounted()
    read().remember(FORWARDING, "0")
    memory.forget_bpffs_mounted()
    assert read().sysctls == {FORWARDING: "0"}
