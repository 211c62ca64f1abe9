"""How long something has stood still, by the time that the process which judges it has lived through. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Silence(Generic[K]):
    """What one process has seen of some marks: a worker's last word, an offer that waits for its claim.

    Wall clocks jump, and those of two machines differ, so a mark is compared with nothing but what it was at an earlier
    look. Between two looks further apart than ``gap`` seconds the process was stopped, or held up: what was said
    meanwhile may still wait to be written, so all silence begins anew.
    """

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._looked: float | None = None
        self._since: dict[K, tuple[object, float]] = {}

    def look(self, marks: Mapping[K, object], now: float) -> dict[K, float]:
        """For how many seconds each mark has been the same. ``now``: seconds of a clock that never goes back."""
        if self._looked is None or now - self._looked > self._gap:
            self.forget()
        self._looked = now
        before = self._since
        self._since = {
            key: before[key] if key in before and before[key][0] == mark else (mark, now) for key, mark in marks.items()
        }
        return {key: now - since for key, (_, since) in self._since.items()}

    def forget(self) -> None:
        """Nobody could have said anything: begin anew."""
        self._since = {}


class Steadiness:
    """For how long the wall clock has gone along with the monotonic one: since the last jump, suspend, or start."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed  # seconds by which they may differ between two looks
        self._last: tuple[float, float] | None = None
        self._since = 0.0

    def look(self, wall: float, now: float) -> float:
        """Seconds. ``wall``: seconds since the epoch; ``now``: of a clock that never goes back."""
        if self._last is None or abs((wall - self._last[0]) - (now - self._last[1])) > self._allowed:
            self._since = now
        self._last = (wall, now)
        return now - self._since
