"""Which tests can run here: the data path needs root and BPF, and says so when it is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gre_xdp import abi, bpf, errors

HERE = Path(__file__).parent
NEED_BPF = (HERE / "program", HERE / "netns", HERE / "interop")


def what_is_missing() -> str | None:
    """Why no program can be loaded here; None if one can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces and BPF"
    try:
        os.close(bpf.map_create(abi.MAPS[abi.MapIndex.SETTINGS]))
    except (OSError, errors.GreXdpError) as error:
        return f"needs bpf(2), which is refused here ({error})"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the data path's tests, with the reason, where they cannot run."""
    reason = what_is_missing()
    if reason is None:
        return
    for item in items:
        if any(folder in item.path.parents for folder in NEED_BPF):
            item.add_marker(pytest.mark.skip(reason=reason))
