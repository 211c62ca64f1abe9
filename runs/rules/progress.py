"""How far along a run is and how long it still takes, from its tasks' weights and history. Pure: no clock, no database.

The law: `progress = 100 · Σ weight·share / Σ weight` over the expected top-level task runs; a task called
inside a task is part of its caller's share. One unit of weight stands for 1000 ms. The shown value never falls and
is 100 only when the run completed. Times are seconds since the epoch, durations milliseconds, shares 0..1.

Where history has given the calls extents, a call weighs the time that it takes up: what it took once it ended, what
it is expected to take before. So the bar keeps pace with the clock, whatever weights the code declares.

Numbers come from user code and from workers: one that is not finite, or is negative, counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from runs.rules.states import TASK_FINAL, TaskState

DEFAULT_WEIGHT: Final = 1.0
DEFAULT_MS: Final = 1000.0
LEAST_WEIGHT: Final = 0.001
MOST_WEIGHT: Final = 1e9  # thirty years in one task; keeps sums finite whatever was declared
LEAST_MS: Final = LEAST_WEIGHT * 1000
MOST_MS: Final = MOST_WEIGHT * 1000
RUNNING_CAP: Final = 0.99  # the share of a task that has not said it is done
RUN_CAP: Final = 99.0
SLOWING_AT: Final = 0.9
TRUSTED_SHARE: Final = 0.02  # below it, elapsed / reported says too little about the whole
PASSED_AFTER: Final = 1.0  # seconds that a later task has run before what should have come first is given up
MORE_OF_A_LOOP: Final = 30  # calls that a loop of unknown length is thought to have before it, wherever it stands

_PENDING: Final = TaskState.PENDING
_RUNNING: Final = TaskState.RUNNING
_WORKED: Final = frozenset({TaskState.COMPLETED, TaskState.FAILED})  # they took what the work takes


@dataclass(slots=True)  # never changed, yet not frozen: a run has thousands, and frozen ones take twice as long to make
class Item:
    """One expected or seen top-level task run."""

    weight: float | None = None  # declared
    estimated_ms: float | None = None  # declared
    learned_ms: float | None = None
    state: str = TaskState.PENDING
    reported: float | None = None  # 0..1, from progress(0.4)
    started_at: float | None = None
    ended_at: float | None = None
    extent_ms: float | None = None  # learned: the elapsed time of the run that the call takes up
    key: str = ""
    rank: int | None = None  # a task of a higher rank begins when those of lower ranks are over; None if unknown
    in_loop: bool = False  # one of a loop whose length nobody knows
    guess_ms: float | None = None  # by the run's own pace, where nothing else is known: see `informed`


class Part(NamedTuple):
    """What a call adds to its run: what is ``done`` of it and what is ``left``, in units of weight."""

    done: float
    left: float

    @property
    def whole(self) -> float:
        return self.done + self.left


NOT_COMING: Final = Part(0.0, 0.0)


# --- one task --------------------------------------------------------------------------------------------------------


def weight_of(item: Item) -> float:
    """The declared weight; else the learned, else the estimated duration in seconds; else 1. At least 0.001."""
    weight = item.weight
    if weight is None or not 0 <= weight < math.inf:
        ms = _known_ms(item)
        return DEFAULT_WEIGHT if ms is None else ms / 1000
    return min(max(weight, LEAST_WEIGHT), MOST_WEIGHT)


def expected_ms(item: Item) -> float:
    """The learned duration; else the estimated one; else a guess by the run's own pace; else 1000. At least 1 ms."""
    ms = _known_ms(item)
    if ms is not None:
        return ms
    guess = _number(item.guess_ms)
    return DEFAULT_MS if guess is None else min(max(guess, LEAST_MS), MOST_MS)


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
    ratio = _elapsed_ms(item, now) / expected_ms(item)
    return _share_by_time(ratio) if _known_ms(item) is not None else min(ratio / (1 + ratio), RUNNING_CAP)


def _share_by_time(ratio: float) -> float:
    """Linear up to 0.9 of the expected duration, then ever slower towards 0.99, without a kink where it bends."""
    if ratio <= SLOWING_AT:
        return ratio
    room, late = RUNNING_CAP - SLOWING_AT, ratio - SLOWING_AT
    return SLOWING_AT + room * (late / (late + room))


def _weighed(item: Item, now: float) -> Part:
    """By the law's weight."""
    weight, done = weight_of(item), share(item, now)
    return Part(weight * done, weight * (1 - done))


def _timed(item: Item, now: float) -> Part:
    """By time: what the call has taken up of the run, and what it will. With time, ``done`` never falls and ``left``
    never grows, so that what is shown cannot fall while nothing happens."""
    extent = _extent_ms(item) / 1000
    ratio = _elapsed_ms(item, now) / expected_ms(item)
    if item.state in _WORKED and item.started_at is not None and item.ended_at is not None:
        return Part(max(ratio, LEAST_WEIGHT) * extent, 0.0)
    done = share(item, now)
    if item.state != _RUNNING or _number(item.reported) is not None:
        return Part(extent * done, extent * (1 - done))
    return Part(extent * ratio, extent * (1 - done))


def _extent_ms(item: Item) -> float:
    extent = _number(item.extent_ms)
    if extent is not None:
        return min(max(extent, LEAST_MS), MOST_MS)
    return weight_of(item) * 1000 if _known_ms(item) is None else expected_ms(item)


def with_guesses(items: Sequence[Item]) -> list[Item]:
    """The items, with a guess for those whose duration nobody knows: a unit of weight lasts as long as it has lasted so
    far in this run; while nothing has ended, 1000 ms."""
    ended = [item for item in items if item.state in _WORKED and item.started_at is not None and item.ended_at]
    spent = math.fsum(_elapsed_ms(item, 0.0) for item in ended)
    weight = math.fsum(weight_of(item) for item in ended)
    pace = spent / weight if spent and weight else DEFAULT_MS
    return [replace(item, guess_ms=weight_of(item) * pace) if _is_unknown(item) else item for item in items]


def _is_unknown(item: Item) -> bool:
    return item.state == _RUNNING and _known_ms(item) is None


# --- the run ---------------------------------------------------------------------------------------------------------


def run_progress(items: Sequence[Item], now: float, floor: float = 0.0, completed: bool = False) -> float:
    """The run's progress, 0..100: at least `floor` (what was shown before), at most 99 unless `completed`.

    A task that nobody expected enlarges the total, so the true value can fall; the floor is what keeps the shown one.
    """
    if completed:
        return 100.0
    least = min(_number(floor) or 0.0, RUN_CAP)
    found = parts(items, now)
    done, left = math.fsum(part.done for part in found), math.fsum(part.left for part in found)
    return max(least, min(100 * done / (done + left), RUN_CAP)) if done + left else least


def whole_percent(percent: float) -> int:
    """Rounded down, so that only what is done says 100; what sums of shares lose below a millionth does not count."""
    return math.floor(percent + 1e-6)


def parts(items: Sequence[Item], now: float) -> list[Part]:
    """What each call adds to the run, in order: by time where history has given extents, else by the law's weights."""
    coming = _coming(items, now)
    part_of = _timed if any(item.extent_ms is not None for item in items) else _weighed
    found = [part_of(item, now) if comes else NOT_COMING for item, comes in zip(items, coming, strict=True)]
    for indexes, more in _more_of_loops(items, coming):
        each = math.fsum(found[index].whole for index in indexes) / len(indexes)
        found[indexes[-1]] = Part(found[indexes[-1]].done, found[indexes[-1]].left + each * more)
    return found


def _coming(items: Sequence[Item], now: float) -> list[bool]:
    """Whether each call has come or may still come. A branch that the flow has passed, and the calls that a loop did
    not need, are given up once a task is under way that only begins after them, and none of their kind is at work."""
    passed = _passed(items, now)
    busy = {item.key for item in items if item.state not in TASK_FINAL and item.state != _PENDING}
    return [item.state != _PENDING or item.rank is None or item.rank >= passed or item.key in busy for item in items]


def _passed(items: Iterable[Item], now: float) -> float:
    """The highest rank under way."""
    under_way = (
        item.rank
        for item in items
        if item.rank is not None
        and item.state != _PENDING
        and (item.state in TASK_FINAL or _elapsed_ms(item, now) >= PASSED_AFTER * 1000)
    )
    return max(under_way, default=-math.inf)


def _more_of_loops(items: Sequence[Item], coming: Sequence[bool]) -> list[tuple[list[int], int]]:
    """For each loop of unknown length that may go on: where its calls stand, and how many more to expect."""
    loops: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if item.in_loop and item.learned_ms is None:
            loops.setdefault(item.key, []).append(index)
    passed = max((item.rank for item in items if item.rank is not None and item.state != _PENDING), default=-1)
    return [
        (indexes, MORE_OF_A_LOOP - min(sum(items[index].state == _PENDING for index in indexes), MORE_OF_A_LOOP))
        for indexes in loops.values()
        if any(coming[index] and passed <= _rank(items[index], passed) for index in indexes)
    ]


def _rank(item: Item, unknown: int) -> int:
    return unknown if item.rank is None else item.rank


def remaining(
    items: Sequence[Item], now: float, spread: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Seconds left, as (low, high); None while nothing is known of any task that is left, or a loop has no known end.

    Extents already tell what running at once saves; without them, what is left of all tasks is divided by how many
    run now. Either way the longest task left cannot be shortened. `spread` is what `learning.spread_of` found in past
    runs; without it both ends are equal.
    """
    coming = _coming(items, now)
    left = [item for item, comes in zip(items, coming, strict=True) if comes and item.state not in TASK_FINAL]
    if not left:
        return (0.0, 0.0)
    unknown = all(_known_ms(item) is None and _pace_ms(item, now) is None for item in left)
    if unknown or _more_of_loops(items, coming):
        return None
    each = [_left_ms(item, now) / 1000 for item in left]
    seconds = max(_together(left, each, now), *each)
    low, high = spread or (1.0, 1.0)
    return seconds * min(_number(low) or 1.0, 1.0), seconds * max(_number(high) or 1.0, 1.0)


def _together(left: Sequence[Item], each: Sequence[float], now: float) -> float:
    if any(item.extent_ms is not None for item in left):
        return math.fsum(
            seconds * _extent_ms(item) / expected_ms(item) for item, seconds in zip(left, each, strict=True)
        )
    return math.fsum(each) / max(sum(item.state == _RUNNING for item in left), 1)


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
    """From the start to the end or until now; 0 when that is unknown or, by a worker's fast clock, still to come."""
    if item.started_at is None:
        return 0.0
    end = now if item.ended_at is None else item.ended_at
    return min(_number((end - item.started_at) * 1000) or 0.0, MOST_MS)
