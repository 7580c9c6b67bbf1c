"""Whose is it? Names the owner of somebody else's BPF program for an error message."""

from __future__ import annotations

from pathlib import Path

from gre_xdp import bpf


def program_owner(program_id: int) -> str:
    """Say ``program xdp_lb (id 17), held by katran (pid 123)``, as far as it can be found out."""
    name = bpf.prog_name(program_id) or "unknown"
    holder = _holder(program_id)
    return f"program {name} (id {program_id})" + (f", held by {holder}" if holder else "")


def _holder(program_id: int) -> str | None:
    """The first process with a descriptor of the program or of a link to it."""
    wanted = f"prog_id:\t{program_id}"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for info in (process / "fdinfo").iterdir():
                if wanted in info.read_text().splitlines():
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            # The process ended, or is not ours to look at.
            continue
    return None
