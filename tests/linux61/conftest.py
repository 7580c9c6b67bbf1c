"""gre-xdp itself on another kernel: Linux 6.1 with VLANs and GRE, in User-Mode Linux.

The programs are compiled, verified, attached and run there, by the very same checkout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gre_xdp.lab.uml import UmlKernel

# There the root is read-only, as on some routers.
CLI = f"STATE_DIRECTORY=/var/lib/gre-xdp {sys.executable} -m gre_xdp_cli.main"


class Machine:
    """A Linux 6.1 that runs gre-xdp."""

    def __init__(self, kernel: UmlKernel, directory: Path) -> None:
        self.kernel = kernel
        self.directory = directory  # the machine reads it, as it reads all of this host's files

    def run(self, command: str, timeout: float = 30.0) -> str:
        """What a shell command says; it must succeed."""
        status, output = self.kernel.run(command, timeout=timeout)
        assert status == 0, f"{command}\n{output}"
        return output

    def script(self, text: str, timeout: float = 60.0) -> str:
        """What a shell script of any length says; each of its commands must succeed."""
        path = self.directory / "script.sh"
        path.write_text("set -ex\n" + text)
        return self.run(f"sh {path}", timeout)

    def gre_xdp(self, netns: str, arguments: str, timeout: float = 120.0) -> str:
        return self.run(f"{CLI} --netns {netns} {arguments}", timeout)

    def json(self, netns: str, arguments: str) -> Any:
        return json.loads(self.gre_xdp(netns, f"{arguments} -j"))


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    kernel = UmlKernel.start(tmp_path_factory.mktemp("uml"))
    try:
        yield Machine(kernel, tmp_path_factory.mktemp("files"))
    finally:
        kernel.stop()
