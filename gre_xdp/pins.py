"""Where our maps, programs and links live in bpffs: one directory per layout and namespace.

``/sys/fs/bpf/gre-xdp/v<N>/<namespace>/{maps,programs,links}``, 0700: whoever may open a pin may
change the data plane, so only root may.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from gre_xdp import abi, errors

BPFFS = Path("/sys/fs/bpf")
_BPFFS_MAGIC = 0xCAFE4A11
_MOUNTS = Path("/proc/self/mountinfo")
_NAMESPACES = Path("/run/netns")
_DIRECTORY_MODE = 0o700
# A kernel with CONFIG_BPF_PRELOAD puts these into every bpffs.
_KERNEL_FILES = frozenset({"maps.debug", "progs.debug"})


@dataclass(frozen=True, slots=True)
class Pins:
    """The pin paths of one network namespace."""

    root: Path

    @classmethod
    def of_namespace(cls, cookie: int) -> Pins:
        """The pins of the network namespace with this cookie."""
        return cls(BPFFS / "gre-xdp" / f"v{abi.PIN_VERSION}" / str(cookie))

    @property
    def maps(self) -> Path:
        """Directory of the maps, by map name."""
        return self.root / "maps"

    @property
    def programs(self) -> Path:
        """Directory of the programs, in one directory per digest of their source."""
        return self.root / "programs"

    @property
    def links(self) -> Path:
        """Directory of the attachments, by interface index (a name may change)."""
        return self.root / "links"

    def exists(self) -> bool:
        """Is there a data plane in this namespace? Raises ``HostError`` if it is not root's."""
        try:
            self._require_own()
            return self.maps.is_dir()
        except PermissionError as error:
            raise errors.PrivilegeError(
                f"reading {self.root}: permission denied",
                remedy="run it as root, for instance with sudo",
            ) from error

    def _require_own(self) -> None:
        """On a bpffs that others may write to, somebody may have been here before us."""
        trusted = (0, os.geteuid())
        for directory in (self.root, *list(self.root.parents)[:2]):
            is_strange = directory.exists() and directory.stat().st_uid not in trusted
            if directory.is_symlink() or is_strange:
                raise errors.HostError(
                    f"{directory} is not a directory of root's, so what it holds is not trusted",
                    remedy=f"find out who made it, and remove it; mount {BPFFS} with mode=0700",
                    where=str(directory),
                )

    def make(self) -> None:
        """Make the directories; raises ``OSError``, ``HostError``."""
        self._require_own()
        for directory in (self.maps, self.programs, self.links):
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        # parents=True ignores the mode for parents.
        for directory in (self.root, *list(self.root.parents)[:2]):
            directory.chmod(_DIRECTORY_MODE)

    def remove(self) -> None:
        """Remove everything below, and the parents that are empty then."""
        if self.root.is_dir():
            for path in sorted(self.root.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        for directory in (self.root, *list(self.root.parents)[:2]):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                break


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_uint8 * 256)]


def is_bpffs_mounted() -> bool:
    """Is ``/sys/fs/bpf`` a bpffs for this process? Raises ``OSError`` when that is not known."""
    buffer = _StatFs()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(BPFFS), ctypes.byref(buffer)):
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return False
        # A second bpffs on top of ours would hide all that runs.
        raise OSError(code, os.strerror(code), str(BPFFS))
    return bool(buffer.f_type == _BPFFS_MAGIC)


def require_shared_mounts() -> None:
    """Refuse to work where pins would vanish: ``ip netns exec`` gives its command a private /sys.

    Raises ``HostError`` that names ``--netns``.
    """
    if is_bpffs_mounted():
        return
    namespace = _owner_of_sys()
    if namespace is not None:
        raise errors.HostError(
            f"this command has a /sys of its own without bpffs on {BPFFS} (ip netns exec makes"
            " one): what gre-xdp pins there would die with it",
            remedy=f"run it outside of ip netns exec, with --netns {namespace}",
            where=str(BPFFS),
        )


def _owner_of_sys() -> str | None:
    """The network namespace that /sys was mounted for; ``ip netns exec`` names it as source."""
    source = None
    for line in _MOUNTS.read_text().splitlines():
        fields = line.split()
        if fields[4] == "/sys":
            source = fields[fields.index("-") + 2]
    return source if source and "/" not in source and (_NAMESPACES / source).exists() else None


def mount_bpffs() -> None:
    """Mount bpffs; raises ``HostError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(BPFFS), b"bpf", ctypes.c_ulong(0), b"mode=0700"):
        raise errors.HostError(
            f"mounting bpffs on {BPFFS}: {os.strerror(ctypes.get_errno())}",
            remedy=f"mount -t bpf bpf {BPFFS}",
            where=str(BPFFS),
        )


def unmount_bpffs_if_empty() -> bool:
    """Undo ``mount_bpffs`` when nobody has put anything there since."""
    if not is_bpffs_mounted():
        return False
    if any(path.name not in _KERNEL_FILES for path in BPFFS.iterdir()):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.umount2(os.fsencode(BPFFS), 0)) == 0
