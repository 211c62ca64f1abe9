"""How far along a run is and how long it still takes, from its tasks' weights and history. Pure: no clock, no database.

The law: `progress = 100 · Σ weight·share / Σ weight` over the expected top-level task runs; a task called
inside a task is part of its caller's share. One unit of weight stands for 1000 ms. The shown value never falls and
is 100 only when the run completed. Times are seconds since the epoch, durations milliseconds, shares 0..1.

Numbers come from user code and from workers: one that is not finite, or is negative, counts as missing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from statistics import median, quantiles
from typing import Final

from runs.states import TASK_FINAL, TaskState

DEFAULT_WEIGHT: Final = 1.0
DEFAULT_MS: Final = 1000.0
LEAST_WEIGHT: Final = 0.001
MOST_WEIGHT: Final = 1e9  # thirty years in one task; keeps sums finite whatever was declared
LEAST_MS: Final = LEAST_WEIGHT * 1000
MOST_MS: Final = MOST_WEIGHT * 1000
MOST_CALLS: Final = 10_000
RUNNING_CAP: Final = 0.99  # the share of a task that has not said it is done
RUN_CAP: Final = 99.0
SLOWING_AT: Final = 0.9
FADE: Final = 0.8  # how much less a run counts than the next newer one
TRUSTED_SHARE: Final = 0.02  # below it, elapsed / reported says too little about the whole

_RUNNING: Final = TaskState.RUNNING


@dataclass(frozen=True)
class Expectation:
    """What history says of one task key: calls in a run, and the duration of one call (ms; None if never measured)."""

    calls: int
    ms: float | None


@dataclass(frozen=True)
class Item:
    """One expected or seen top-level task run."""

    weight: float | None = None  # declared
    estimated_ms: float | None = None  # declared
    learned_ms: float | None = None
    state: str = TaskState.PENDING
    reported: float | None = None  # 0..1, from progress(0.4)
    started_at: float | None = None


@dataclass(frozen=True)
class Planned:
    """A task call found in the flow's code."""

    key: str
    weight: float | None = None
    estimated_ms: float | None = None
    in_loop: bool = False


@dataclass(frozen=True)
class PlannedCall:
    """One call that a run is expected to make: the `index`-th (from 0) of its key."""

    key: str
    index: int
    weight: float | None = None
    estimated_ms: float | None = None
    learned_ms: float | None = None
    in_loop: bool = False


# --- one task --------------------------------------------------------------------------------------------------------


def weight_of(item: Item) -> float:
    """The declared weight; else the learned, else the estimated duration in seconds; else 1. At least 0.001."""
    weight = item.weight
    if weight is None or not 0 <= weight < math.inf:
        ms = _known_ms(item)
        return DEFAULT_WEIGHT if ms is None else ms / 1000
    return min(max(weight, LEAST_WEIGHT), MOST_WEIGHT)


def expected_ms(item: Item) -> float:
    """The learned duration; else the estimated one; else 1000. At least 1 ms."""
    ms = _known_ms(item)
    return DEFAULT_MS if ms is None else ms


def share(item: Item, now: float) -> float:
    """How much of a task is done: 1 when it ended (however it ended: there is nothing left to wait for), 0 before it
    starts and while it waits to be tried again, in between what it reports, else what its elapsed time suggests."""
    if item.state in TASK_FINAL:
        return 1.0
    if item.state != _RUNNING:
        return 0.0
    reported = _number(item.reported)
    if reported is not None:
        return min(reported, RUNNING_CAP)
    return _share_by_time(_elapsed_ms(item, now) / expected_ms(item))


def _share_by_time(ratio: float) -> float:
    """Linear up to 0.9 of the expected duration, then ever slower towards 0.99, without a kink where it bends."""
    if ratio <= SLOWING_AT:
        return ratio
    room, late = RUNNING_CAP - SLOWING_AT, ratio - SLOWING_AT
    return SLOWING_AT + room * (late / (late + room))


# --- the run ---------------------------------------------------------------------------------------------------------


def of(items: Sequence[Item], now: float, floor: float = 0.0, completed: bool = False) -> float:
    """The run's progress, 0..100: at least `floor` (what was shown before), at most 99 unless `completed`.

    A task that nobody expected enlarges the total, so the true value can fall; the floor is what keeps the shown one.
    """
    if completed:
        return 100.0
    least = min(_number(floor) or 0.0, RUN_CAP)
    weights = [weight_of(item) for item in items]
    if not weights:
        return least
    done = math.fsum(weight * share(item, now) for weight, item in zip(weights, items, strict=True))
    return max(least, min(100 * done / math.fsum(weights), RUN_CAP))


def remaining(
    items: Sequence[Item], now: float, parallelism: float = 1.0, spread: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Seconds left, as (low, high); None while nothing is known of any task that is left.

    What is left of all tasks is divided by the `parallelism` seen (tasks at once), but the longest of them cannot be
    shortened by it. `spread` is what `spread_of` found in past runs; without it both ends are equal.
    """
    left = [item for item in items if item.state not in TASK_FINAL]
    if not left:
        return (0.0, 0.0)
    if all(_known_ms(item) is None and _pace_ms(item, now) is None for item in left):
        return None
    each = [_left_ms(item, now) / 1000 for item in left]
    at_once = max(_number(parallelism) or 1.0, 1.0)
    seconds = max(math.fsum(each) / at_once, *each)
    low, high = spread or (1.0, 1.0)
    return seconds * min(_number(low) or 1.0, 1.0), seconds * max(_number(high) or 1.0, 1.0)


def _left_ms(item: Item, now: float) -> float:
    """By the learned or estimated duration, and more and more by the task's own pace as it reports progress."""
    done = share(item, now)
    pace, known = _pace_ms(item, now), _known_ms(item)
    if pace is None:
        return expected_ms(item) * (1 - done)
    return (pace if known is None else pace * done + known * (1 - done)) * (1 - done)


def _pace_ms(item: Item, now: float) -> float | None:
    """The whole duration that a running task's own reports suggest."""
    reported = _number(item.reported)
    elapsed = _elapsed_ms(item, now)
    if item.state != _RUNNING or reported is None or reported < TRUSTED_SHARE or not elapsed:
        return None
    return elapsed / min(reported, 1.0)


# --- history ---------------------------------------------------------------------------------------------------------


def learn(history: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Expectation]:
    """What the last completed runs (newest first; task key → durations of its calls in ms) teach.

    Calls are the median of the counts, where a run without the key counts 0, rounded half up. The duration is the
    median of all calls, where each run has one vote, shared by its calls and worth less the older the run is.
    """
    keys = dict.fromkeys(key for run in history for key in run)
    return {key: _expectation([run.get(key, ()) for run in history]) for key in keys}


def _expectation(runs: list[Sequence[float]]) -> Expectation:
    votes: list[tuple[float, float]] = []
    for age, durations in enumerate(runs):
        measured = [min(ms, MOST_MS) for ms in map(_number, durations) if ms is not None]
        votes.extend((ms, FADE**age / len(measured)) for ms in measured)
    return Expectation(math.floor(median(map(len, runs)) + 0.5), _weighted_median(votes))


def _weighted_median(votes: list[tuple[float, float]]) -> float | None:
    """The mean of the lower and the upper median, so that of two calls neither speaks for both."""
    if not votes:
        return None
    votes = sorted(votes)
    counted = list(accumulate(weight for _, weight in votes))
    lower, upper = (bisect_left(counted, counted[-1] / 2 * edge) for edge in (1 - 1e-9, 1 + 1e-9))
    return (votes[lower][0] + votes[upper][0]) / 2


def spread_of(durations: Iterable[float]) -> tuple[float, float] | None:
    """How far past runs (ms) lay around their median: the 10th and 90th percentile over it. None below 3 runs."""
    known = [min(ms, MOST_MS) for ms in map(_number, durations) if ms]
    if len(known) < 3:
        return None
    tenths, middle = quantiles(known, n=10, method="inclusive"), median(known)
    return min(tenths[0] / middle, 1.0), max(tenths[-1] / middle, 1.0)


def plan(declared: Sequence[Planned], learned: Mapping[str, Expectation]) -> list[PlannedCall]:
    """The task calls to expect, in the order of the code, at most 10,000.

    Without history each place in the code is one call. With history a key comes as often as it did, and keys that
    only history knows are appended. If history knows none of the keys in the code, the flow was rewritten, and
    history is left aside.
    """
    places = Counter(call.key for call in declared)
    if declared and not places.keys() & learned.keys():
        learned = {}
    first = {call.key: call for call in reversed(declared)}
    expected = {key: Expectation(0 if learned else places[key], None) for key in places} | dict(learned)
    calls = (
        _planned_call(first.get(key, Planned(key)), index, expectation.ms)
        for key, expectation in expected.items()
        for index in range(expectation.calls)
    )
    return list(islice(calls, MOST_CALLS))


def _planned_call(call: Planned, index: int, learned_ms: float | None) -> PlannedCall:
    return PlannedCall(call.key, index, call.weight, call.estimated_ms, learned_ms, call.in_loop)


# --- taming ----------------------------------------------------------------------------------------------------------


def _number(value: float | None) -> float | None:
    return value if value is not None and 0 <= value < math.inf else None  # NaN fails both comparisons


def _known_ms(item: Item) -> float | None:
    ms = item.learned_ms
    if ms is None or not 0 <= ms < math.inf:
        ms = item.estimated_ms
        if ms is None or not 0 <= ms < math.inf:
            return None
    return min(max(ms, LEAST_MS), MOST_MS)


def _elapsed_ms(item: Item, now: float) -> float:
    """Since the start; 0 when that is unknown or, by a worker's fast clock, still to come."""
    if item.started_at is None:
        return 0.0
    return min(_number((now - item.started_at) * 1000) or 0.0, MOST_MS)
