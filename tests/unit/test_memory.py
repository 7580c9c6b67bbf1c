"""What is remembered between runs: the first value only, in one private file, and then nothing."""

from __future__ import annotations

import stat
from pathlib import Path

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
