"""What was applied before, on disk: for each configuration file by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gre_xdp import history
from gre_xdp.history import History


@pytest.fixture
def past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(history, "STATE_DIRECTORY", tmp_path / "state")
    (tmp_path / "etc").mkdir()
    return History(tmp_path / "etc" / "config.toml")


def test_nothing_was_before_the_first(past: History) -> None:
    """A file that was never applied has no history, and reading that makes no directory."""
    assert (past.current, past.previous, past.pending, past.base()) == (None, None, None, None)
    assert not past.confirm()
    assert not past.claim()
    assert not history.STATE_DIRECTORY.exists()


def test_the_one_before_is_another_one(past: History) -> None:
    """Applying the same text again does not push out what was before it."""
    for text in ("a", "b", "b", "b"):
        past.note_applied(text)
    assert (past.previous, past.current) == ("a", "b")


def test_files_do_not_share_a_history(past: History, tmp_path: Path) -> None:
    """Two files of one name in two directories are two."""
    other = History(tmp_path / "config.toml")
    past.note_applied("a")
    other.note_applied("b")
    assert (past.current, other.current) == ("a", "b")


def test_a_change_is_decided_once(past: History) -> None:
    """Confirmed, it cannot be taken back; taken back, it cannot be confirmed."""
    past.note_applied("a")
    past.begin(60)
    assert past.confirm()
    assert not past.claim()
    past.begin(60)
    assert past.claim()
    assert not past.confirm()
    assert past.base() == "a"


def test_the_first_change_has_no_base(past: History) -> None:
    """Also when an older change had one."""
    past.note_applied("a")
    past.begin(60)
    (past._directory / "current.toml").unlink()
    past.begin(60)
    assert past.base() is None


@pytest.mark.parametrize(
    ("within_s", "boot_id", "is_over"),
    [(60, None, False), (-1, None, True), (60, "another boot", True)],
    ids=["waits", "late", "rebooted"],
)
def test_when_a_change_is_over(
    past: History, within_s: float, boot_id: str | None, is_over: bool
) -> None:
    """After its time, and after a reboot."""
    past.begin(within_s)
    path = past._directory / "pending.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | ({"boot_id": boot_id} if boot_id else {})))
    assert past.pending is not None
    assert past.pending.is_over is is_over


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 1, "until_s": "x", "boot_id": 2}'])
def test_garbage_is_no_pending_change(past: History, text: str) -> None:
    """A file that nobody of ours wrote is as good as none."""
    past.begin(60)
    (past._directory / "pending.json").write_text(text)
    assert past.pending is None


def test_the_file_keeps_its_owner_and_mode(past: History) -> None:
    """What it held is kept beside it; the same text again changes nothing."""
    past.path.write_text("new")
    past.path.chmod(0o640)
    kept = past.restore_file("old")
    assert kept is not None
    assert (past.path.read_text(), kept.read_text()) == ("old", "new")
    assert {path.stat().st_mode & 0o777 for path in (past.path, kept)} == {0o640}
    assert past.restore_file("old") is None
    assert sorted(path.name for path in past.path.parent.iterdir()) == [
        "config.toml",
        "config.toml.rolled-back",
    ]


def test_its_directory_is_for_root_alone(past: History) -> None:
    """Configurations hold keys."""
    past.note_applied("a")
    assert history.STATE_DIRECTORY.stat().st_mode & 0o777 == 0o700
    assert (past._directory / "current.toml").stat().st_mode & 0o777 == 0o600
