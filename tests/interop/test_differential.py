"""Any GRE frame: our data plane and a stock kernel's tunnels make the same of it.

                 ┌─► gateway with our program ─┐
    each frame ──┤                             ├── compared: drop, or which octets go where
                 └─► kernel with ip_gre        ┘

Where they are known not to agree, differences.py says so, and each such case is shown here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from interop import judge, stand
from interop.cases import Generator, Made
from interop.differences import DIFFERENCES, Difference
from interop.judge import ACCEPTED, DIFFERENT, REFUSED, Verdict
from interop.stand import Kernel, Stand
from program.bench import Outcome

AT_LEAST = {ACCEPTED: 20_000, REFUSED: 20_000}
SHOWN = 2


class Comparison:
    """Both gateways, the generator whose numbers rise through all tests, and the tally."""

    def __init__(self, gateways: Stand) -> None:
        self._gateways = gateways
        self.generator = Generator(gateways.mac)
        self.tally: Counter[str] = Counter()

    def run(self, frames: list[bytes]) -> list[tuple[Outcome, Kernel]]:
        return list(zip(self._gateways.ours(frames), self._gateways.theirs(frames), strict=True))


@pytest.fixture(scope="module")
def comparison(request: pytest.FixtureRequest) -> Iterator[Comparison]:
    """One boot of the kernel; in the end the numbers are told."""
    with stand.up() as gateways:
        made = Comparison(gateways)
        yield made
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        _tell(request.config.pluginmanager.get_plugin("terminalreporter"), made.tally)


def _tell(terminal: pytest.TerminalReporter, tally: Counter[str]) -> None:
    terminal.write_line(f"\n{tally.total():8}  frames compared with a stock kernel")
    for name, count in tally.most_common():
        terminal.write_line(f"{count:8}  {name}")


@dataclass(frozen=True)
class Disagreement:
    """One that no listed difference explains."""

    made: Made
    ours: Outcome
    theirs: Kernel
    verdict: Verdict

    def __str__(self) -> str:
        return "\n  ".join(
            [
                f"{self.made.name}: {self.verdict.why}",
                f"frame {self.made.raw.hex()}",
                f"ours: {judge.our_words(self.ours)} {_hex(self.ours.frame)}",
                f"kernel: {judge.their_words(self.theirs)}"
                f"; seen: {' '.join(map(_hex, self.theirs.seen))}"
                f"; sent: {' '.join(map(_hex, self.theirs.sent))}",
            ]
        )


def _hex(octets: bytes, most: int = 100) -> str:
    return octets[:most].hex() + "..." * (len(octets) > most)


def test_every_frame(comparison: Comparison) -> None:
    """Both accept the same frames and send on the same octets, listed differences aside."""
    frames = list(comparison.generator.everything())
    open_ones: dict[tuple[str, ...], list[Disagreement]] = defaultdict(list)
    reasons: set[str] = set()
    for made, (ours, theirs) in zip(
        frames, comparison.run([made.raw for made in frames]), strict=True
    ):
        verdict = judge.judge(made.raw, ours, theirs)
        words = judge.our_words(ours)
        reasons.add(words)
        if verdict.kind != DIFFERENT:
            comparison.tally[f"{verdict.kind} by both"] += 1
            continue
        known = [d for d in DIFFERENCES if d.explains(made.raw, ours, theirs)]
        if known:
            comparison.tally[f"listed: {known[0].name}"] += 1
        else:
            comparison.tally["not listed"] += 1
            open_ones[verdict.why, words, judge.their_words(theirs)].append(
                Disagreement(made, ours, theirs, verdict)
            )
    if open_ones:
        pytest.fail(
            "\n".join(
                f"{len(found)} frames: {', '.join(what)}\n" + "\n".join(map(str, found[:SHOWN]))
                for what, found in open_ones.items()
            ),
            pytrace=False,
        )
    for kind, least in AT_LEAST.items():
        assert comparison.tally[f"{kind} by both"] >= least
    assert set(judge.HOLDS) <= reasons


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_a_listed_difference(comparison: Comparison, difference: Difference) -> None:
    """What is listed is so: of the example's last frame both make what the list says."""
    cases = difference.example(comparison.generator)
    frames = [comparison.generator.made(case).raw for case in cases]
    outcomes = comparison.run(frames)
    ours, theirs = outcomes[-1]
    assert judge.judge(frames[-1], ours, theirs).kind == DIFFERENT
    assert difference.is_seen(ours, theirs)
    assert difference.is_so is None or difference.explains(frames[-1], ours, theirs)


SEEN_THROUGH = {
    "drops a good packet": Outcome("drop", b"", {"drop gre_checksum": 1}),
    "hands over a good packet": Outcome("redirect", b"", {"pass for_this_host": 1}),
    "does not look at a good packet": Outcome("pass", b"", {"unrelated": 1}),
    "changes a good packet": Outcome("redirect", b"", {"decap": 1}),
}


@pytest.mark.parametrize("ours", SEEN_THROUGH.values(), ids=SEEN_THROUGH)
def test_a_gateway_with_a_fault_is_found_out(comparison: Comparison, ours: Outcome) -> None:
    """The comparison is none that everything passes: of a good packet, only the truth agrees."""
    made = comparison.generator.made(comparison.generator.case("plain4"))
    [(good, theirs)] = comparison.run([made.raw])
    assert judge.judge(made.raw, good, theirs) == Verdict(ACCEPTED)
    frame = {
        "decap": good.frame[:-1] + b"!",
        "pass for_this_host": good.frame[:14] + theirs.seen[0],
        "unrelated": made.raw,
    }.get(judge.our_words(ours), b"")
    verdict = judge.judge(made.raw, replace(ours, frame=frame), theirs)
    assert verdict.kind == DIFFERENT
    assert not any(d.explains(made.raw, replace(ours, frame=frame), theirs) for d in DIFFERENCES)
