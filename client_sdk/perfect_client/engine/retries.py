"""When a failed call is tried again, and after how long."""

from __future__ import annotations

import random
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Union

Delay = Union[int, float, Sequence[float], Callable[[int], Sequence[float]], None]

MAX_DELAYS = 50


class Retries(NamedTuple):
    """``most`` further attempts; after the n-th failure ``delays[n]`` seconds pass, the last one again and again.

    ``jitter`` lengthens a delay by up to that part of it, at random.
    """

    most: int
    delays: List[float]
    jitter: float
    condition: Optional[Callable[..., Any]]

    def delay(self, attempt: int) -> Optional[float]:
        """Seconds from the failure of ``attempt`` (from 1) to the next, None when there is none."""
        if attempt > self.most:
            return None
        delay = self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0
        return delay * (1 + self.jitter * random.random()) if self.jitter else delay


def delays_of(retries: int, given: Delay) -> List[float]:
    """The delays that ``retry_delay_seconds`` stands for. Raises ``ValueError`` with what would be right."""
    if callable(given):
        given = given(retries)
    listed: Any = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    if not all(_is_number(delay) for delay in listed):
        raise ValueError("must be seconds, 0 or more, a list of them or a function that makes one, not %r" % (given,))
    if len(listed) > MAX_DELAYS:
        raise ValueError("may list %d delays, not %d" % (MAX_DELAYS, len(listed)))
    return [float(delay) for delay in listed]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def exponential_backoff(backoff_factor: float) -> Callable[[int], List[float]]:
    """For ``retry_delay_seconds``: each delay is twice the one before, the first is ``backoff_factor`` seconds."""
    if not _is_number(backoff_factor):
        raise ValueError("exponential_backoff() takes seconds, 0 or more, not %r" % (backoff_factor,))

    def delays(retries: int) -> List[float]:
        return [backoff_factor * max(0, 2**number) for number in range(min(retries, MAX_DELAYS))]

    return delays
