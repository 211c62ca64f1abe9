"""What checking a value against a flow's schema may cost a server: both come from others, who may mean harm.

Beyond the limits it is not known whether the value fits. It is then taken; the run's own process reads it by the
flow's own code before it starts.
"""

from __future__ import annotations

import importlib
import time
from functools import lru_cache
from typing import Any

from perfect_client.schema.validation import Effort, TooCostly

CHECKED_WITHIN = 0.4  # seconds of this thread's processor time
PATTERN_WITHIN = 0.05  # seconds of processor time, for one pattern in one text
PATTERNS_WITHIN = 0.25  # seconds, for all of them
PATTERN_LENGTH = 1_000  # characters; longer ones take too long to compile
SLOW_FOR = 60.0  # seconds that a pattern is not tried again
SLOW_KEPT = 1_000

_slow: dict[str, float] = {}  # patterns that took too long, and until when they are not tried


class Bounded(Effort):
    """The limits of one request; one object for all its values."""

    def __init__(self) -> None:
        self._until, self._seconds = time.thread_time() + CHECKED_WITHIN, PATTERNS_WITHIN

    def look_at_the_clock(self) -> None:
        if time.thread_time() > self._until:
            raise TooCostly

    def matches(self, pattern: Any, text: str) -> bool | None:
        if not isinstance(pattern, str) or len(pattern) > PATTERN_LENGTH or self._seconds <= 0:
            return None
        began = time.monotonic()
        if _slow.get(pattern, 0.0) > began:
            return None
        try:
            compiled = _compiled(pattern)
            return compiled and compiled.search(text, timeout=min(PATTERN_WITHIN, self._seconds)) is not None
        except (TimeoutError, MemoryError):
            _remember(pattern, began)
            return None
        finally:
            self._seconds -= time.monotonic() - began


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    """As ``re`` reads it, with a time limit when it is tried; None for what is written for another dialect."""
    regex = importlib.import_module("regex")  # 20 ms that no server start needs
    try:
        return regex.compile(pattern, regex.V0)
    except (regex.error, RecursionError, OverflowError, MemoryError):
        return None


def _remember(pattern: str, now: float) -> None:
    if len(_slow) >= SLOW_KEPT:
        _slow.clear()
    _slow[pattern] = now + SLOW_FOR
