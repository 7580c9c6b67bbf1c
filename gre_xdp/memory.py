"""What the kernel cannot remember for us: settings from before we changed them, and path MTUs.

One small JSON file per network namespace under /run/gre-xdp (0700), written atomically. Everything
else is read back from the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

RUN_DIRECTORY = Path("/run/gre-xdp")
_BPFFS_MARK = RUN_DIRECTORY / "bpffs-mounted"


@dataclass(slots=True)
class Memory:
    """Previous values of sysctls by path, in the order in which they were changed.

    ``path_mtus``: by local and remote, how many bytes the way between them takes, and until when
    that is believed (seconds since the epoch). ``probes``: by tunnel, the longest packet that came
    back, in bytes, and when that was; time 0 stands for a probe that has no answer yet.
    ``waiting``: what of the configuration is not in the kernel, and why. ``interfaces``: what
    devices of the configuration were called, by their index, when it was applied.
    """

    path: Path
    sysctls: dict[str, str] = field(default_factory=dict)
    path_mtus: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    probes: dict[str, tuple[int, float]] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    interfaces: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_namespace(cls, cookie: int) -> Memory:
        """Read what was remembered for a namespace; nothing if there is no file."""
        memory = cls(RUN_DIRECTORY / f"{cookie}.json")
        try:
            content = json.loads(memory.path.read_text())
        except (FileNotFoundError, ValueError):
            return memory
        if not isinstance(content, dict):
            return memory
        found = content.get("sysctls")
        if isinstance(found, dict):
            memory.sysctls = {str(path): str(value) for path, value in found.items()}
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            for local, remote, mtu, until_s in content.get("path_mtus", ()):
                if time.time() < until_s:
                    memory.path_mtus[local, remote] = (int(mtu), float(until_s))
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            for tunnel, largest, at_s in content.get("probes", ()):
                memory.probes[str(tunnel)] = (int(largest), float(at_s))
        found = content.get("waiting")
        if isinstance(found, dict):
            memory.waiting = {str(what): str(why) for what, why in found.items()}
        with contextlib.suppress(TypeError, ValueError):
            for ifindex, name in content.get("interfaces", ()):
                memory.interfaces[int(ifindex)] = str(name)
        return memory

    def remember(self, path: str, value: str) -> None:
        """Note a value before it is changed for the first time."""
        if path not in self.sysctls:
            self.sysctls[path] = value
            self._write()

    def forget(self, path: str) -> None:
        """Drop a note once its value is back."""
        if self.sysctls.pop(path, None) is not None:
            self._write()

    def path_mtu(self, local: object, remote: object) -> int | None:
        """What is believed of the way between two addresses, in bytes; None: nothing."""
        found = self.path_mtus.get((str(local), str(remote)))
        return found[0] if found else None

    def believe_path_mtu(self, local: object, remote: object, mtu: int, until_s: float) -> None:
        """Note what a router has said."""
        self.path_mtus[str(local), str(remote)] = (mtu, until_s)
        self._write()

    def note_probes(self, probes: dict[str, tuple[int, float]]) -> None:
        """Note how far probes come; replaces what was noted."""
        if probes != self.probes:
            self.probes = probes
            self._write()

    def note_applied(self, waiting: dict[str, str], interfaces: dict[int, str]) -> None:
        """Note what waits and why, and which devices are meant; replaces what was noted."""
        if (waiting, interfaces) != (self.waiting, self.interfaces):
            self.waiting, self.interfaces = waiting, interfaces
            self._write()

    def forget_all_but_sysctls(self) -> None:
        """Know nothing any more but what has to be given back."""
        if self.path_mtus or self.probes or self.waiting or self.interfaces:
            self.path_mtus.clear()
            self.probes.clear()
            self.waiting.clear()
            self.interfaces.clear()
            self._write()

    def drop_unfinished(self) -> None:
        """Remove what a writer has left that did not get to the end of noting something."""
        self._unfinished.unlink(missing_ok=True)

    @property
    def _unfinished(self) -> Path:
        return self.path.with_suffix(".new")

    def _write(self) -> None:
        notes = (self.sysctls, self.path_mtus, self.probes, self.waiting, self.interfaces)
        if not any(notes):
            self.path.unlink(missing_ok=True)
            remove_directory_if_empty()
            return
        make_directory()
        temporary = self._unfinished
        content = {
            "sysctls": self.sysctls,
            "path_mtus": [[*ends, *believed] for ends, believed in self.path_mtus.items()],
            "probes": [[tunnel, *found] for tunnel, found in self.probes.items()],
            "waiting": self.waiting,
            "interfaces": [*self.interfaces.items()],
        }
        try:
            temporary.write_text(json.dumps(content, indent=1))
            os.replace(temporary, self.path)
        except OSError:
            self.drop_unfinished()
            raise


def notes_by_namespace() -> dict[str, list[Path]]:
    """All files of namespaces below /run/gre-xdp, by the number of theirs."""
    found: dict[str, list[Path]] = {}
    for path in RUN_DIRECTORY.glob("*"):
        cookie = path.name.partition(".")[0]
        if cookie.isdecimal():
            found.setdefault(cookie, []).append(path)
    return found


def make_directory() -> None:
    """Make /run/gre-xdp, 0700."""
    RUN_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    RUN_DIRECTORY.chmod(0o700)


def remove_directory_if_empty() -> None:
    """Leave nothing behind."""
    try:
        RUN_DIRECTORY.rmdir()
    except OSError:
        return


def note_bpffs_mounted() -> None:
    """Remember that bpffs was mounted by us."""
    make_directory()
    _BPFFS_MARK.touch()


def was_bpffs_mounted_by_us() -> bool:
    """Was it?"""
    return _BPFFS_MARK.exists()


def forget_bpffs_mounted() -> None:
    """It is unmounted again."""
    _BPFFS_MARK.unlink(missing_ok=True)
    remove_directory_if_empty()
