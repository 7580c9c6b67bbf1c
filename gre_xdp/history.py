"""The configuration before this one, and a change that waits to be confirmed.

One directory for each configuration file under /var/lib/gre-xdp (0700), so that it outlives a
reboot: ``current.toml`` and ``previous.toml`` are what was applied, ``pending.json`` says until
when a change has to be confirmed, and ``base.toml`` what is returned to otherwise. Whoever unlinks
or renames ``pending.json`` decides: there is one, so it is either confirmed or taken back.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from gre_xdp import errors
from gre_xdp.netlink import namespaces

# Where systemd says (StateDirectory=), or where it would.
STATE_DIRECTORY = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/gre-xdp"))
KEPT_SUFFIX = ".rolled-back"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that is not confirmed yet."""

    id: str
    until_s: float  # seconds since the epoch
    boot_id: str

    @property
    def is_over(self) -> bool:
        """Was it not confirmed in time, or not before the machine started anew?"""
        return time.time() >= self.until_s or self.boot_id != _boot_id()


class History:
    """What was applied from one configuration file."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._directory = STATE_DIRECTORY / quote(str(self.path), safe="")

    @property
    def current(self) -> str | None:
        """The text that was applied last."""
        return self._read("current.toml")

    @property
    def previous(self) -> str | None:
        """The text that was applied before it."""
        return self._read("previous.toml")

    @property
    def pending(self) -> Pending | None:
        """The change that waits to be confirmed."""
        text = self._read("pending.json")
        try:
            found = json.loads(text or "")
            return Pending(str(found["id"]), float(found["until_s"]), str(found["boot_id"]))
        except (ValueError, KeyError, TypeError):
            return None

    def note_applied(self, text: str) -> None:
        """Remember a text that has been applied; what was applied before it is the previous one."""
        self._write("namespace", _namespace())
        current = self.current
        if current == text:
            return
        if current is not None:
            self._write("previous.toml", current)
        self._write("current.toml", text)

    def begin(self, within_s: float) -> Pending:
        """Before a change is applied: from now on it has to be confirmed, or it is taken back."""
        base = self.current
        if base is None:
            self._unlink("base.toml")
        else:
            self._write("base.toml", base)
        pending = Pending(secrets.token_hex(8), time.time() + within_s, _boot_id())
        self._write_pending(pending)
        return pending

    def count_from_now(self, pending: Pending, within_s: float) -> None:
        """The change has been applied: the time to confirm it begins."""
        present = self.pending
        if present is not None and present.id == pending.id:
            self._write_pending(replace(present, until_s=time.time() + within_s))

    def confirm(self) -> bool:
        """Let the change stay; False when there is none that waits."""
        return self._unlink("pending.json")

    def claim(self) -> bool:
        """Be the one who takes the pending change back; False when somebody else decided."""
        try:
            os.rename(self._directory / "pending.json", self._directory / "taken-back.json")
        except FileNotFoundError:
            return False
        return True

    def base(self) -> str | None:
        """What a pending change is taken back to; None: nothing was applied before it."""
        return self._read("base.toml")

    def restore_file(self, text: str) -> Path | None:
        """Write a text into the configuration file; returns where what was there is kept."""
        kept = None
        try:
            present = self.path.read_text()
        except (OSError, UnicodeDecodeError):
            present = None
        if present == text:
            return None
        if present is not None:
            kept = self.path.with_name(self.path.name + KEPT_SUFFIX)
            _replace(kept, present, like=self.path)
        _replace(self.path, text, like=self.path)
        return kept

    def forget(self) -> None:
        """Remove what is remembered of this file."""
        _remove(self._directory)

    def _write_pending(self, pending: Pending) -> None:
        content = {"id": pending.id, "until_s": pending.until_s, "boot_id": pending.boot_id}
        self._write("pending.json", json.dumps(content))

    def _read(self, name: str) -> str | None:
        try:
            return (self._directory / name).read_text()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise errors.PrivilegeError(
                f"reading {self._directory}: {error.strerror}", remedy="run it as root"
            ) from error

    def _write(self, name: str, text: str) -> None:
        STATE_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        _replace(self._directory / name, text)

    def _unlink(self, name: str) -> bool:
        try:
            (self._directory / name).unlink()
        except FileNotFoundError:
            return False
        return True


def forget_namespace() -> None:
    """Remove what is remembered of files that were applied in the current network namespace."""
    if STATE_DIRECTORY.is_dir():
        for directory in STATE_DIRECTORY.iterdir():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if (directory / "namespace").read_text() == _namespace():
                    _remove(directory)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        STATE_DIRECTORY.rmdir()


def _namespace() -> str:
    """Which network namespace this is; no other has the same until the next boot, nor then."""
    return f"{_boot_id()} {namespaces.cookie()}"


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _replace(path: Path, text: str, like: Path | None = None) -> None:
    """Write a file atomically and for good; with the owner and mode of another one, else 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            if like is not None:
                with contextlib.suppress(FileNotFoundError):
                    status = like.stat()
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                    os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
