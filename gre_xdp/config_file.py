"""The configuration file while it is edited: one editor at a time, replaced at once, put back.

The lock is on the file itself, so nothing is left beside it. Whoever waits for it finds that the
file has been replaced meanwhile, and opens the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gre_xdp import config, errors

_MARK = b"\xef\xbb\xbf"  # the byte order mark that some editors begin a file with


class ConfigFile:
    """A file that nobody else edits now; ``text`` is what it held when it was opened."""

    def __init__(self, path: Path, descriptor: int, locks: contextlib.ExitStack) -> None:
        self._path = path.resolve()  # the target of a symbolic link, which stays one
        self._locks = locks
        self._state = os.fstat(descriptor)
        self._former: Path | None = None
        raw = config.read(path)
        self._mark = _MARK if raw.startswith(_MARK) else b""
        self.text = config.decode(raw, config.shown(path))

    def replace(self, text: str) -> None:
        """Put a text in the file's place, with its owner and mode; readers see all or nothing.

        Raises ``HostError``, or ``PermissionError`` for somebody who may not.
        """
        try:
            with self._temporary() as (descriptor, temporary):
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(self._mark + text.encode())
                os.fsync(descriptor)
                self._require_unchanged()
                former = Path(f"{temporary}.former")
                os.link(self._path, former)
                self._former = former
                os.replace(temporary, self._path)
                self._sync_directory()
        except OSError as error:
            self.put_back()
            if isinstance(error, PermissionError) and os.geteuid() != 0:
                raise
            raise errors.HostError(
                f"the file cannot be replaced: {(error.strerror or str(error)).lower()}",
                remedy="see to it that its directory can be written, then run it again",
                where=str(self._path),
            ) from error
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Have the file again that was there before, if it was replaced."""
        if self._former is not None:
            os.replace(self._former, self._path)
            # Two names of one file both stay: it had not been replaced yet.
            self.forget_former()
            self._sync_directory()

    def forget_former(self) -> None:
        """Let the new file be all that there is."""
        if self._former is not None:
            self._former.unlink(missing_ok=True)
            self._former = None

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        """A new file beside it with its owner, mode and attributes, locked as long as it is."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._locks.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if (self._state.st_uid, self._state.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, self._state.st_uid, self._state.st_gid)
            with contextlib.suppress(OSError):  # a file system without attributes
                for attribute in os.listxattr(self._path):
                    # Access lists and labels, where we may set them.
                    with contextlib.suppress(OSError):
                        os.setxattr(descriptor, attribute, os.getxattr(self._path, attribute))
            os.fchmod(descriptor, self._state.st_mode & 0o7777)
            yield descriptor, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _require_unchanged(self) -> None:
        """Somebody with an editor knows of no lock."""
        now = self._path.stat()
        fields = ("st_ino", "st_dev", "st_size", "st_mtime_ns")
        if any(getattr(now, name) != getattr(self._state, name) for name in fields):
            raise errors.HostError(
                "somebody else has changed the file meanwhile",
                remedy="run it again",
                where=str(self._path),
            )

    def _sync_directory(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def editing(path: Path) -> Iterator[ConfigFile]:
    """The file, once nobody else edits it. Raises ``ConfigErrors`` when it cannot be read.

    When the block fails, the former file is back.
    """
    with contextlib.ExitStack() as locks:
        file = ConfigFile(path, _lock(path, locks), locks)
        try:
            yield file
        except BaseException:
            file.put_back()
            raise
        file.forget_former()


def _lock(path: Path, locks: contextlib.ExitStack) -> int:
    """A descriptor of the file, locked until ``locks`` are closed."""
    while True:
        if path.is_fifo():
            raise errors.HostError(
                "a pipe cannot be edited", remedy="name a file", where=config.shown(path)
            )
        config.read(path)  # says in its own words what cannot be read
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        locks.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
