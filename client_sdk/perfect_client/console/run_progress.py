"""What the facts of a run add up to while they come: its calls, its counts, how far it is, how long it still takes.

For runs that no server watches. The law is the server's without history: ``100 · Σ weight·share / Σ weight`` over the
calls that the code shows and those that were made or submitted beyond them; the value never falls. One unit of weight
stands for a second. Pure: times are those of the facts, or given.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from perfect_client.wire.messages import (
    RunEnded,
    RunStarted,
    TaskEnded,
    TaskProgressed,
    TaskRestarted,
    TaskRetrying,
    TaskSpec,
    TaskStarted,
)

TRUSTED_SHARE, TRUSTED_S = 0.05, 1.0  # below them the time that has passed says too little about the whole


class Call:
    """One call of a task. Times are seconds since the epoch; ``outcome`` is empty while it runs."""

    __slots__ = ("began", "ended", "error", "fact", "outcome", "share", "text", "tries", "waits")

    def __init__(self, fact: TaskStarted) -> None:
        self.fact, self.began = fact, fact.time
        self.ended: Optional[float] = None
        self.outcome = self.error = self.text = ""
        self.share, self.tries = 0.0, 1
        self.waits = False  # for its next attempt

    @property
    def label(self) -> str:
        """The name, with the number of the call from the second one on."""
        name = self.fact.name or self.fact.key
        return "%s #%d" % (name, self.fact.call + 1) if self.fact.call else name

    def seconds(self, now: float) -> float:
        return max(0.0, (now if self.ended is None else self.ended) - self.began)


class _Key:
    """The calls of one task: ``begun`` and ``ended`` count those that no other task made."""

    __slots__ = ("begun", "ended", "everywhere", "in_loop", "planned", "weight")

    def __init__(self, weight: float, planned: int = 0, in_loop: bool = False) -> None:
        self.weight, self.planned, self.in_loop = weight, planned, in_loop
        self.begun = self.ended = self.everywhere = 0


def weight_of(weight: Optional[float], estimated_ms: Optional[float]) -> float:
    """The declared weight, else the estimated time in seconds, else 1."""
    if weight is not None and math.isfinite(weight) and weight > 0:
        return weight
    known = estimated_ms is not None and math.isfinite(estimated_ms) and estimated_ms > 0
    return estimated_ms / 1000 if known and estimated_ms is not None else 1.0


class RunProgress:
    """``take`` every fact in order; then ask."""

    def __init__(self, plan: Sequence[TaskSpec] = ()) -> None:
        self.began = self.ended = None  # type: Optional[float]
        self.outcome = self.error = ""
        self.running: Dict[int, Call] = {}
        self.counts: Dict[str, int] = {}  # of ended calls, by their outcome
        self._keys: Dict[str, _Key] = {}
        self._shown = 0.0
        self.expect(plan)

    def expect(self, plan: Sequence[TaskSpec]) -> None:
        """The calls that the flow's code shows."""
        for spec in plan:
            key = self._keys.setdefault(spec.key, _Key(weight_of(spec.weight, spec.estimated_ms)))
            key.planned, key.in_loop = 1, spec.in_loop

    def take(self, fact: Any) -> Optional[Call]:
        """Count a fact; the call that it is about, if there is one."""
        take = _TAKERS.get(type(fact))
        return take(self, fact) if take is not None else None

    def _run_started(self, fact: RunStarted) -> None:
        self.began = fact.time

    def _run_ended(self, fact: RunEnded) -> None:
        self.ended, self.outcome, self.error = fact.time, fact.outcome, fact.error or fact.reason

    def _started(self, fact: TaskStarted) -> Call:
        call = self.running[fact.task] = Call(fact)
        key = self._keys.setdefault(fact.key, _Key(weight_of(fact.weight, fact.estimated_ms)))
        key.everywhere += 1
        key.begun += fact.parent is None
        return call

    def _ended(self, fact: TaskEnded) -> Optional[Call]:
        call = self.running.pop(fact.task, None)
        if call is not None:
            call.ended, call.outcome, call.error = fact.time, fact.outcome, fact.error or call.error
            self.counts[fact.outcome] = self.counts.get(fact.outcome, 0) + 1
            self._keys[call.fact.key].ended += call.fact.parent is None
        return call

    def _progressed(self, fact: TaskProgressed) -> Optional[Call]:
        call = self.running.get(fact.task)
        if call is not None:
            call.share, call.text = fact.share, fact.text
        return call

    def _retrying(self, fact: TaskRetrying) -> Optional[Call]:
        call = self.running.get(fact.task)
        if call is not None:
            call.error, call.waits, call.share, call.text = fact.error, True, 0.0, ""
        return call

    def _restarted(self, fact: TaskRestarted) -> Optional[Call]:
        call = self.running.get(fact.task)
        if call is not None:
            call.tries, call.waits = fact.tries, False
        return call

    # ------------------------------------------------------------------------------------------------------ questions

    @property
    def done(self) -> int:
        """How many calls have ended."""
        return sum(self.counts.values())

    def _coming(self, opened: Mapping[str, int]) -> Dict[str, int]:
        """The calls of each task that have not begun; ``opened``: how many were made or submitted, begun or not."""
        submitted = {name: max(0, opened.get(name, 0) - key.everywhere) for name, key in self._keys.items()}
        return {name: max(key.planned - key.begun, submitted[name]) for name, key in self._keys.items()}

    def coming(self, opened: Mapping[str, int]) -> int:
        """How many calls are known to come."""
        return sum(self._coming(opened).values())

    def progress(self, opened: Mapping[str, int]) -> float:
        """0–100; below 100 unless the run has completed. It never falls."""
        if self.outcome == "COMPLETED":
            return 100.0
        self._shown = max(self._shown, min(99.0, 100 * self._share(opened)))
        return self._shown

    def _share(self, opened: Mapping[str, int]) -> float:
        """What is done of what is expected as of now, 0–1."""
        coming, whole, done = self._coming(opened), 0.0, 0.0
        for name, key in self._keys.items():
            whole += key.weight * (key.begun + coming[name])
            done += key.weight * key.ended
        done += sum(self._keys[c.fact.key].weight * c.share for c in self.running.values() if c.fact.parent is None)
        return done / whole if whole else 0.0

    def seconds_left(self, opened: Mapping[str, int], now: float) -> Optional[float]:
        """By the pace so far; None while nobody can know: a loop may make any number of calls."""
        share, coming = self._share(opened), self._coming(opened)
        passed = now - self.began if self.began is not None else 0.0
        open_loops = any(key.in_loop and not coming[name] and not self._over(name) for name, key in self._keys.items())
        if open_loops or share < TRUSTED_SHARE or passed < TRUSTED_S or self.ended is not None:
            return None
        return passed * (1 - share) / share

    def _over(self, name: str) -> bool:
        """Whether a later task of the plan has begun, so that this one's loop is most likely over."""
        names = list(self._keys)
        return any(self._keys[later].begun for later in names[names.index(name) + 1 :])


_TAKERS: Dict[type, Callable[[RunProgress, Any], Optional[Call]]] = {
    RunStarted: RunProgress._run_started,  # type: ignore[dict-item]
    RunEnded: RunProgress._run_ended,  # type: ignore[dict-item]
    TaskStarted: RunProgress._started,
    TaskEnded: RunProgress._ended,
    TaskProgressed: RunProgress._progressed,
    TaskRetrying: RunProgress._retrying,
    TaskRestarted: RunProgress._restarted,
}


def span(seconds: float) -> str:
    """A duration as people say it: ``0.4 ms``, ``12 ms``, ``3.4 s``, ``2:05``, ``1:02:05``."""
    if seconds < 0.00995:
        return "%.1f ms" % (seconds * 1000)
    if seconds < 0.995:
        return "%d ms" % (seconds * 1000)
    if seconds < 59.95:
        return "%.1f s" % seconds
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return "%d:%02d:%02d" % (hours, minutes, rest) if hours else "%d:%02d" % (minutes, rest)


def describe_counts(counts: Mapping[str, int]) -> List[str]:
    """``12 done``, ``1 failed`` …: what ended well first."""
    well = sum(counts.get(outcome, 0) for outcome in ("COMPLETED", "CACHED"))
    said = ["%s done" % format(well, ",")] if well else []
    return said + [
        "%s %s" % (format(number, ","), outcome.lower())
        for outcome, number in counts.items()
        if outcome not in ("COMPLETED", "CACHED")
    ]
