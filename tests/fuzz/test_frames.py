"""Any frame whatever, many of them: ``--frames`` says how many, ``--seed`` which."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from fuzz.runner import Runner, running
from gre_xdp import reasons
from program.bench import UNRELATED
from program.invariants import NEVER

OUTCOMES = {UNRELATED, *reasons.FORWARDED.values()} | {
    f"{reason.verdict.value} {reason.name}" for reason in reasons.REASONS
} - {NEVER}
# One needs a kernel that lets the first piece of a frame be short, one many frames in a second, and
# one a shared device (tests/netns/test_shared_device.py).
NOT_EVERYWHERE = {"drop split_headers", "drop too_big_unanswered", "drop next_hop_unknown"}
# So many meet every outcome.
FRAMES_FOR_ALL = 40_000


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with running() as made:
        yield made


@pytest.mark.timeout(3600)
def test_any_frame(runner: Runner, pytestconfig: pytest.Config) -> None:
    """Never aborted, never sent back, and each frame in exactly one outcome."""
    frames = pytestconfig.getoption("--frames")
    report = runner.run(frames, pytestconfig.getoption("--seed"))
    sys.stdout.write(f"\n{report}\n")
    assert report.frames == report.outcomes.total() == frames
    assert report.outcomes.keys() <= OUTCOMES
    if frames >= FRAMES_FOR_ALL:
        assert report.outcomes.keys() >= OUTCOMES - NOT_EVERYWHERE


def test_a_seed_makes_the_same_frames(runner: Runner) -> None:
    """What has failed once can be had again."""
    first, second, other = (runner.run(1500, seed).outcomes for seed in (7, 7, 8))
    assert first == second != other
