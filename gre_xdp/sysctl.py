"""Reading and writing network settings under /proc/sys/net of the current network namespace."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys/net")


def read(path: str) -> str | None:
    """The value of ``ipv4/conf/eth0/forwarding`` and the like; None if the kernel has none."""
    try:
        return (_ROOT / path).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: str, value: str) -> None:
    """Set a value; raises ``OSError``."""
    (_ROOT / path).write_text(value)


def devices(family: str) -> list[str]:
    """The devices that have settings in ``ipv4`` or ``ipv6`` (without ``all`` and ``default``)."""
    try:
        names = [path.name for path in (_ROOT / family / "conf").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name not in ("all", "default"))
