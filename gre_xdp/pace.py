"""How often the agent looks: at once where it was quiet, and never more than half of the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Events come in bursts: wait a moment, then look once.
DEBOUNCE_S = 0.05
# Where messages were lost, more are on their way.
_OVERRUN_S = 1.0
# What fails is tried again, less and less often.
_FAILURE_S = 0.5
_FAILURE_MAX_S = 5.0


class Pace:
    """Knows how long the last look took, and how it ended; times in seconds."""

    def __init__(self) -> None:
        self._not_before_s = 0.0
        self._failures = 0
        self._overruns = 0

    def wait_s(self) -> float:
        """How long to wait now, with a reason to look at hand."""
        return max(DEBOUNCE_S, self._not_before_s - time.monotonic())

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around a look."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            ended_s = time.monotonic()
            self._not_before_s = ended_s + (ended_s - started_s)

    def note_failure(self) -> None:
        """The look, which is over, has failed."""
        rest_s = min(_FAILURE_MAX_S, _FAILURE_S * 2**self._failures)
        self._failures += 1
        self._rest(rest_s)

    def note_success(self) -> None:
        """It has not."""
        self._failures = 0

    def note_overruns(self, overruns: int) -> None:
        """So many times messages have been lost until now; the look that this led to is over."""
        if overruns != self._overruns:
            self._overruns = overruns
            self._rest(_OVERRUN_S)

    def _rest(self, rest_s: float) -> None:
        self._not_before_s = max(self._not_before_s, time.monotonic() + rest_s)
