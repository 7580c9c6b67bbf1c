"""Running the commands that ``doctor`` has found to be safe: offload features and sysctls alone."""

from __future__ import annotations

import shlex
import subprocess

from gre_xdp import errors
from gre_xdp.doctor.finding import Command

_TIMEOUT_S = 30.0
_SAFE = (("ethtool", "-K"), ("sysctl", "-w"))
_PACKAGES = {"ethtool": "ethtool", "sysctl": "procps", "ip": "iproute2", "nsenter": "util-linux"}


def is_safe(command: Command) -> bool:
    """May it be run? In this network namespace or another, it sets a feature or a sysctl."""
    match command:
        case ("ip", "netns", "exec", _, *rest):
            return tuple(rest[:2]) in _SAFE
        case ("nsenter", namespace, *rest) if namespace.startswith("--net="):
            return tuple(rest[:2]) in _SAFE
    return command[:2] in _SAFE


def run(command: Command) -> None:
    """Run one, without a shell; raises ``HostError``, ``PackageError`` when it fails."""
    assert is_safe(command), command
    shown = shlex.join(command)
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise errors.PackageError(
            f"{command[0]} is not installed", remedy=f"install {_PACKAGES[command[0]]}", where=shown
        ) from error
    except subprocess.TimeoutExpired as error:
        raise errors.HostError(
            f"it did not end within {_TIMEOUT_S:.0f} s", remedy="run it by hand", where=shown
        ) from error
    except subprocess.CalledProcessError as error:
        words = " ".join((error.stderr or error.stdout).split()) or f"exit code {error.returncode}"
        raise errors.HostError(
            f"it failed: {words}", remedy="run it by hand, as root", where=shown
        ) from error
