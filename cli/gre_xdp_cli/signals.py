"""Being asked to end: SIGTERM and SIGHUP are treated as Ctrl-C, so that work is undone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """In this block nobody ends the process: its work is done but for what takes a moment."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """In this block SIGTERM and SIGHUP (a terminal that went away) raise ``KeyboardInterrupt``."""
    me = os.getpid()

    def interrupt(number: int, _: object) -> None:
        # pyroute2 forks helpers that inherit this; ending one must not run our clean-up in it.
        if os.getpid() != me:
            os._exit(128 + number)
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
