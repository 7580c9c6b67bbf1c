"""Runs any number of odd frames through the programs: ``python -m fuzz.runner --frames 1000000``.

Batches of frames go through as fast as they can; then the counters must account for each of them.
Some batches go frame by frame instead, and what leaves is read as well. So does a batch that did
not add up, to find the frame. A batch depends on its number and the seed alone.
"""

from __future__ import annotations

import argparse
import ctypes as ct
import json
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from fuzz.corpus import corpus
from fuzz.mutations import FRAME_BYTES_MAX, FRAME_BYTES_MIN, Case, Mutator
from gre_xdp import bpf
from gre_xdp.resources import Program
from program import gateway, vlans
from program.bench import UNRELATED, Bench, Outcome
from program.invariants import NEVER, VERDICTS, check

LINK_MTU = 9000
BATCH = 1000
CAREFUL_EVERY = 40
FORWARDED = ("decap", "encap", "relay")
NUMBERED = [name for name, keys in gateway.ALL_TUNNELS.items() if "seq = true" in keys]
PROGRAMS: tuple[Program, ...] = ("port", "inner")


class FrameError(AssertionError):
    """Something that never may happen, and how to have it again."""


class Batch(NamedTuple):
    """Which frames of all that there are."""

    seed: int
    number: int

    def __str__(self) -> str:
        return f"seed {self.seed}, batch {self.number}"


@dataclass
class Report:
    """What became of how many frames."""

    seed: int
    frames: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0
        lines = [f"{self.frames} frames, {rate:.0f} a second, seed {self.seed}"]
        lines += [f"{count:>9}  {name}" for name, count in self.outcomes.most_common()]
        return "\n".join(lines)


class Runner:
    """The programs of one gateway, and buffers that every frame uses again."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._corpus = corpus()
        self._room = (ct.c_uint8 * FRAME_BYTES_MAX)()
        self._context = bpf._XdpMd()
        self._options = bpf._TestRunOpts(
            sz=ct.sizeof(bpf._TestRunOpts),
            data_in=ct.addressof(self._room),
            ctx_in=ct.addressof(self._context),
            ctx_size_in=ct.sizeof(self._context),
            repeat=1,
        )
        whole = bytes(2 * FRAME_BYTES_MIN)
        self._may_split = bench.in_pieces("port", whole, "eth0", FRAME_BYTES_MIN) is not None

    def run(self, frames: int, seed: int | None = None) -> Report:
        """So many frames, without a seed others each time; raises ``FrameError``."""
        report = Report(secrets.randbits(32) if seed is None else seed)
        started = time.perf_counter()
        for number in range((frames + BATCH - 1) // BATCH):
            batch = Batch(report.seed, number)
            cases = self._cases(batch, min(BATCH, frames - report.frames))
            run = self._run_all if number % CAREFUL_EVERY else self._run_each
            report.outcomes += run(batch, cases)
            report.frames += len(cases)
        report.seconds = time.perf_counter() - started
        return report

    def replay(self, batch: Batch) -> Report:
        """One batch, frame by frame; raises ``FrameError``."""
        return Report(batch.seed, BATCH, outcomes=self._run_each(batch, self._cases(batch)))

    def _cases(self, batch: Batch, frames: int = BATCH) -> list[Case]:
        mutator = Mutator(self._corpus, Random(str(batch)))  # noqa: S311 - no secret
        cases = [mutator.case(i) for i in range(frames)]
        return cases if self._may_split else [case._replace(first=0) for case in cases]

    @contextmanager
    def _fresh(self, batch: Batch) -> Iterator[None]:
        """The state in which each batch begins; every other one may pass GRE of strangers."""
        self._bench.reset_sequences(*NUMBERED)
        self._bench.moved()
        with self._bench.unknown_gre("pass" if batch.number % 2 else "drop"):
            yield

    def _run_all(self, batch: Batch, cases: list[Case]) -> Counter[str]:
        """A batch at full speed."""
        with self._fresh(batch):
            try:
                verdicts = self._verdicts(cases)
                reasons, tunnels = map(Counter, self._bench.moved())
                _account(verdicts, reasons, tunnels, len(cases))
            except (AssertionError, LookupError) as error:
                self._run_each(batch, cases)
                raise FrameError(f"{batch}: {error}") from error
        return reasons

    def _verdicts(self, cases: list[Case]) -> Counter[str]:
        """How often the programs said what."""
        # Bound once: this loop is where the time goes.
        view = memoryview(self._room).cast("B")
        context, options = self._context, self._options
        pointer, run = ct.byref(options), bpf._libbpf().bpf_prog_test_run_opts
        found = {program: [0] * len(bpf.VERDICTS) for program in PROGRAMS}
        fds = {program: self._bench.program_fd(program) for program in PROGRAMS}
        indices = {name: self._bench.ifindex(name) for name in {case.interface for case in cases}}
        for program, interface, frame, first in cases:
            length = len(frame)
            view[:length] = frame
            options.data_size_in = length
            context.data_end = first or length
            options.data_size_out = 0  # the kernel has put a length there, and would mind it
            context.ingress_ifindex = indices[interface]
            error = run(fds[program], pointer)
            assert not error, error
            found[program][options.retval] += 1
        for program, counts in found.items():
            said = {bpf.VERDICTS[i] for i, count in enumerate(counts) if count}
            assert said <= {*VERDICTS[program]}, (program, said)
        return Counter(
            {
                verdict: sum(counts[i] for counts in found.values())
                for i, verdict in enumerate(bpf.VERDICTS)
            }
        )

    def _run_each(self, batch: Batch, cases: list[Case]) -> Counter[str]:
        """A batch frame by frame, of which each is checked on its own."""
        outcomes: Counter[str] = Counter()
        with self._fresh(batch):
            for i, case in enumerate(cases):
                outcome = None
                try:
                    outcome = self._outcome(case)
                    check(outcome, case.frame, case.program)
                except (AssertionError, LookupError, OSError, ValueError) as error:
                    [*_, place] = traceback.extract_tb(error.__traceback__)
                    raise FrameError(
                        f"{batch}, frame {i}\n{case}\n{outcome}\nnot so: {place.line} {error}"
                    ) from error
                outcomes.update(outcome.reasons)
        return outcomes

    def _outcome(self, case: Case) -> Outcome:
        program, interface, frame, first = case
        if first:
            outcome = self._bench.in_pieces(program, bytes(frame), interface, first)
            assert outcome is not None
            return outcome
        run = self._bench.port if program == "port" else self._bench.inner
        return run(bytes(frame), interface)


def _account(
    verdicts: Counter[str], reasons: Counter[str], tunnels: Counter[str], frames: int
) -> None:
    """Every frame in exactly one outcome, and outcomes, verdicts and tunnels tell the same."""
    drops, passes = (
        sum(count for name, count in reasons.items() if name.startswith(f"{kind} "))
        for kind in ("drop", "pass")
    )
    decaps, encaps, relays = (reasons[name] for name in FORWARDED)
    received, transmitted = (
        sum(count for name, count in tunnels.items() if name.endswith(f"{direction}_packets"))
        for direction in ("rx", "tx")
    )
    delivered = verdicts["redirect"] - decaps - encaps - relays
    facts = f"{dict(verdicts)} {dict(reasons)} {dict(tunnels)}"
    assert drops + passes + reasons[UNRELATED] + decaps + encaps + relays == frames, facts
    assert reasons.total() == frames, facts
    assert NEVER not in reasons, facts
    assert verdicts["drop"] == drops, facts
    assert verdicts["pass"] == reasons[UNRELATED] + passes - delivered, facts
    assert 0 <= delivered <= passes, facts
    assert received == decaps + relays + delivered, facts
    assert transmitted == encaps + relays, facts


@contextmanager
def running() -> Iterator[Runner]:
    """A runner on a gateway with tunnels and VLANs of all kinds, made for the time of a block."""
    tunnels = tuple(gateway.ALL_TUNNELS)
    with gateway.running(tunnels, LINK_MTU) as bench, vlans.made(bench):
        yield Runner(bench)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="fuzz.runner", description=__doc__)
    parser.add_argument("--frames", type=int, default=40_000)
    parser.add_argument("--seed", type=int, help="of an earlier run (default: a new one)")
    parser.add_argument("--batch", type=int, help="only this one, frame by frame; with --seed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with running() as runner:
        if asked.batch is None:
            report = runner.run(asked.frames, asked.seed)
        else:
            report = runner.replay(Batch(asked.seed, asked.batch))
    text = json.dumps(vars(report)) if asked.json else str(report)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
