"""Agents that run in the namespaces of tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from netns_helpers import Gateway, wait_until

CLI = [sys.executable, "-m", "gre_xdp_cli.main"]


@contextmanager
def agent(
    gateway: Gateway,
    directory: Path,
    toml: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = CLI,
) -> Iterator[subprocess.Popen[bytes]]:
    """An agent in the gateway's namespace, once it has applied its configuration."""
    path = directory / "config.toml"
    path.write_text(toml)
    log = directory / "agent.log"
    with log.open("ab") as sink:
        start = log.stat().st_size
        process = subprocess.Popen(
            [*command, "--netns", gateway.namespace.name, "agent", str(path)],
            stdout=sink,
            stderr=sink,
            # One that does not end when asked to is made to say what it waits for.
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})},
        )
    try:
        assert wait_until(lambda: "applied" in log.read_text()[start:], 20), log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(10)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                status = process.wait(10)
            assert status == 0, log.read_text()
