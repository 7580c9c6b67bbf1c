"""Any frame whatever on Linux 6.1: the same programs, another verifier, another BPF_PROG_RUN."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from fuzz.runner import Report
from linux61.conftest import Machine

TESTS = Path(__file__).parents[1]
# The BPF interpreter is slow: for so many frames on this host's kernel, one on that.
SHARE = 50
FRAMES_MIN = 5000
TIMEOUT_S = 600


@pytest.mark.timeout(TIMEOUT_S)
def test_any_frame(machine: Machine, pytestconfig: pytest.Config) -> None:
    """Never aborted, never sent back, and each frame in exactly one outcome."""
    frames = max(FRAMES_MIN, pytestconfig.getoption("--frames") // SHARE)
    seed = pytestconfig.getoption("--seed")
    again = "" if seed is None else f" --seed {seed}"
    command = f"PYTHONPATH={TESTS} {sys.executable} -m fuzz.runner --frames {frames} --json{again}"
    report = json.loads(machine.run(command, timeout=TIMEOUT_S).splitlines()[-1])
    report["outcomes"] = Counter(report["outcomes"])
    sys.stdout.write(f"\n{Report(**report)}\n")
    assert report["frames"] == report["outcomes"].total() == frames
    assert {"decap", "encap", "relay"} <= report["outcomes"].keys()
