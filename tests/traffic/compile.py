"""Compiles traffic.c as gre-xdp compiles its own programs: run in a child process."""

from __future__ import annotations

import sys
from pathlib import Path

from gre_xdp import compiler

PROGRAMS = ("traffic_source", "traffic_sink")


def main() -> int:
    """Answer like the compiler's own child, with these programs in the place of its own."""
    compiler.PROGRAMS = PROGRAMS
    compiler.MAIN_SOURCE = "traffic.c"
    compiler.source_dir = lambda: Path(__file__).resolve().parent
    return compiler._child_main()


if __name__ == "__main__":
    sys.exit(main())
