"""Telling the service manager how the agent is: sd_notify(3), which is one datagram.

systemd says in ``NOTIFY_SOCKET`` where it listens, and in ``WATCHDOG_USEC`` how often it wants to
hear; without the first nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

# A manager that does not read must not hold up the agent for longer.
_SEND_TIMEOUT_S = 1.0

_log = logging.getLogger("gre_xdp.service_manager")


class ServiceManager:
    """The manager that has started this process, if there is one."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._watchdog_s = _watchdog_s(environment)

    def rest_s(self, longest_s: float) -> float:
        """How long one may rest between two ``alive``: half of what the watchdog waits for."""
        return min(longest_s, self._watchdog_s / 2) if self._watchdog_s else longest_s

    def ready(self, status: str) -> None:
        """The start, or a reload, is over."""
        self._send("READY=1", _status(status))

    def alive(self, status: str) -> None:
        """A round of work has been finished: the watchdog begins to wait anew."""
        self._send("WATCHDOG=1", _status(status))

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` follows, whether it is taken or not."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            _log.warning("the service manager does not take %s: %s", assignments[0], error)


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How long the watchdog of this process waits; None without one."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environment["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
