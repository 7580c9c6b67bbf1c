"""The bench runs to its end; what it measures is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_quick_bench_measures_every_case() -> None:
    """Each kind of packet got the verdict that its row says, and a time above nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "gre_xdp_cli.main", "-j", "bench", "--quick"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = json.loads(done.stdout)
    assert [row["verdict"] for row in rows] == ["pass"] * 2 + ["drop"] * 2 + ["redirect"] * 4
    assert all(row["median_ns"] > 0 for row in rows)
