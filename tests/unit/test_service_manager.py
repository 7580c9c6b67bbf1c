"""sd_notify(3): what is sent where, and when the watchdog wants to hear again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gre_xdp.service_manager import ServiceManager

MESSAGES: list[tuple[Callable[[ServiceManager], None], str]] = [
    (lambda manager: manager.ready("two\nlines"), "READY=1\nSTATUS=two lines"),
    (lambda manager: manager.alive("well"), "WATCHDOG=1\nSTATUS=well"),
    (lambda manager: manager.stopping(), "STOPPING=1"),
]


@pytest.mark.parametrize("is_abstract", [False, True])
@pytest.mark.parametrize(("send", "datagram"), MESSAGES)
def test_each_message_is_one_datagram(
    send: Callable[[ServiceManager], None], datagram: str, is_abstract: bool, tmp_path: Path
) -> None:
    """To a path, or to an abstract address, which is written with @."""
    name = f"@gre-xdp-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        send(ServiceManager({"NOTIFY_SOCKET": name}))
        assert manager.recv(100, socket.MSG_DONTWAIT).decode() == datagram


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
@pytest.mark.parametrize(("send", "_"), MESSAGES)
def test_nobody_has_to_listen(
    send: Callable[[ServiceManager], None], _: str, environment: dict[str, str]
) -> None:
    """Without a manager, or with one that has gone, nothing happens."""
    send(ServiceManager(environment))


@pytest.mark.parametrize(
    ("environment", "rest_s"),
    [
        ({}, 30.0),
        ({"WATCHDOG_USEC": "180000000"}, 30.0),
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 30.0),
        ({"WATCHDOG_USEC": "0"}, 30.0),
        ({"WATCHDOG_USEC": "soon"}, 30.0),
    ],
)
def test_the_watchdog_is_heard_of_twice_in_its_time(
    environment: dict[str, str], rest_s: float
) -> None:
    """Half of WATCHDOG_USEC, if it is for this process; else as long as one likes."""
    assert ServiceManager(environment).rest_s(30.0) == rest_s
