"""What past runs teach: how often a task is called, how long it takes, and what to expect of a new run. Pure.

A run of the past is told by one ``Calls`` a task: what a database sums up cheaply, however many calls there were.
Newer runs count more (``FADE``), and medians keep one odd run from spoiling the rest. Durations are in ms; moments
are ms since the run's start.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from statistics import median, quantiles
from typing import Final

MOST_CALLS: Final = 10_000
MOST_MS: Final = 1e12  # thirty years; keeps sums finite whatever was measured
FADE: Final = 0.8  # how much less a run counts than the next newer one
LIKELY: Final = 1 / 3  # a task is expected if at least this part of the runs called it: a bar rather jumps than stands
TRUSTED_RUNS: Final = 3  # from here on measured durations outvote declared weights; and runs have a spread


@dataclass(frozen=True)
class Calls:
    """One task's calls in one past run: how many, their durations together, when the first began and the last ended."""

    count: int
    spent_ms: float | None = None  # None if none of them was measured
    began_ms: float = 0.0
    ended_ms: float = 0.0


@dataclass(frozen=True)
class Expectation:
    """What history says of one task: calls in a run; the duration of one call; and its extent, which is how much of the
    run's elapsed time the call takes up: less than its duration where calls run at once. None if never measured."""

    calls: int
    ms: float | None
    extent_ms: float | None = None


@dataclass(frozen=True)
class Planned:
    """A task call found in the flow's code."""

    key: str
    weight: float | None = None
    estimated_ms: float | None = None
    in_loop: bool = False


@dataclass(frozen=True)
class PlannedCall:
    """One call that a run is expected to make: the ``index``-th (from 0) of its key."""

    key: str
    index: int
    weight: float | None = None
    estimated_ms: float | None = None
    learned_ms: float | None = None
    extent_ms: float | None = None
    in_loop: bool = False


Past = Mapping[str, Calls]  # one run


def learn(history: Sequence[Past]) -> dict[str, Expectation]:
    """What the last completed runs (newest first) teach of each task that any of them called."""
    keys = dict.fromkeys(key for run in history for key in run)
    shared = [extents(run) for run in history]
    return {key: _expectation([run.get(key) for run in history], [each.get(key) for each in shared]) for key in keys}


def _expectation(runs: list[Calls | None], shared: list[float | None]) -> Expectation:
    votes = [FADE**age for age in range(len(runs))]
    counts = [(float(run.count), vote) for run, vote in zip(runs, votes, strict=True) if run and run.count > 0]
    measured = [(_mean_ms(run), vote) for run, vote in zip(runs, votes, strict=True) if run]
    likely = sum(vote for _, vote in counts) >= LIKELY * sum(votes) * (1 - 1e-9)
    calls = math.floor((_weighted_median(counts) or 0.0) + 0.5) if likely else 0
    return Expectation(calls, _weighted_median(measured), _weighted_median(zip(shared, votes, strict=True)))


def _mean_ms(run: Calls) -> float | None:
    spent = _number(run.spent_ms)
    return None if spent is None or run.count < 1 else spent / run.count


def _weighted_median(votes: Iterable[tuple[float | None, float]]) -> float | None:
    """The mean of the lower and the upper median, so that of two equal votes neither speaks for both."""
    known = sorted((value, weight) for value, weight in votes if value is not None)
    if not known:
        return None
    counted = list(accumulate(weight for _, weight in known))
    lower, upper = (bisect_left(counted, counted[-1] / 2 * edge) for edge in (1 - 1e-9, 1 + 1e-9))
    return (known[lower][0] + known[upper][0]) / 2


def extents(run: Past) -> dict[str, float]:
    """How much of the run's elapsed time one call of each task took up, in ms.

    Each moment is shared by what runs in it: the longer a task still goes on, the more of the moment is its, since it
    is what the run waits for. A task's calls are taken to be spread evenly from its first start to its last end: exact
    where one call follows another and where equal calls run at once.
    """
    windows = {key: _window(calls) for key, calls in run.items() if calls.spent_ms is not None and calls.count > 0}
    edges = sorted({edge for began, ended, _ in windows.values() for edge in (began, ended)})
    taken = dict.fromkeys(windows, 0.0)
    for start, end in pairwise(edges):
        running = [key for key, (began, ended, _) in windows.items() if began <= start and end <= ended]
        share_of = _shares({key: windows[key][2] for key in running}, {key: windows[key][1] - start for key in running})
        for key, share in share_of.items():
            taken[key] += (end - start) * share
    return {key: spent / run[key].count for key, spent in taken.items()}


def _shares(rates: Mapping[str, float], left: Mapping[str, float]) -> dict[str, float]:
    """How a moment is shared by tasks with so many calls at once, that go on for so long."""
    if math.fsum(rates.values()) <= 1.0:
        return dict(rates)
    claims = {key: rate * left[key] for key, rate in rates.items()}
    whole = math.fsum(claims.values())
    return {key: claim / whole for key, claim in claims.items()}


def _window(calls: Calls) -> tuple[float, float, float]:
    """From when, until when, and how many of the calls at once on average."""
    spent, began = _number(calls.spent_ms) or 0.0, _number(calls.began_ms) or 0.0
    ended = max(_number(calls.ended_ms) or 0.0, began + 0.001)
    return began, ended, spent / (ended - began)


def spread_of(durations: Iterable[float]) -> tuple[float, float] | None:
    """How far past runs (ms) lay around their median: the 10th and 90th percentile over it. None below 3 runs."""
    known = [min(ms, MOST_MS) for ms in map(_number, durations) if ms]
    if len(known) < TRUSTED_RUNS:
        return None
    tenths, middle = quantiles(known, n=10, method="inclusive"), median(known)
    return min(tenths[0] / middle, 1.0), max(tenths[-1] / middle, 1.0)


# --- the order of tasks ----------------------------------------------------------------------------------------------


def order_seen(history: Sequence[Past]) -> dict[str, int]:
    """The rank of each task: whoever has a higher one began, in every run that called both, after the lower had ended.

    Tasks that ever ran at once, or in turn in a loop, share a rank.
    """
    before = _Before(history)
    groups: list[list[str]] = []
    for key in before.sorted_keys():
        joined = [key]
        while groups and not all(before.is_so(one, other) for one in groups[-1] for other in joined):
            joined = groups.pop() + joined
        groups.append(joined)
    return {key: rank for rank, group in enumerate(groups) for key in group}


class _Before:
    """Which task was over before which began, as far as runs that called both can tell."""

    def __init__(self, history: Sequence[Past]) -> None:
        self._runs: dict[str, list[tuple[int, Calls]]] = {}
        for number, run in enumerate(history):
            for key, calls in run.items():
                self._runs.setdefault(key, []).append((number, calls))

    def sorted_keys(self) -> list[str]:
        return sorted(self._runs, key=lambda key: (median(calls.began_ms for _, calls in self._runs[key]), key))

    def is_so(self, one: str, other: str) -> bool:
        later = dict(self._runs[other])
        return all(calls.ended_ms <= later[run].began_ms for run, calls in self._runs[one] if run in later)


def order_in_code(declared: Sequence[Planned]) -> dict[str, int]:
    """The rank of each task as the code has it; neighbours in a loop share one."""
    ranks: dict[str, int] = {}
    rank, loop = -1, False
    for call in declared:
        rank += not (loop and call.in_loop)
        loop = call.in_loop
        ranks.setdefault(call.key, rank)
    return ranks


# --- the plan --------------------------------------------------------------------------------------------------------


def plan(declared: Sequence[Planned], learned: Mapping[str, Expectation], runs: int = 0) -> list[PlannedCall]:
    """The task calls to expect, in the order of the code, at most 10,000.

    Without history each place in the code is one call. With history a task comes as often as it did, and tasks that
    only history knows are appended. If history knows none of the tasks in the code, the flow was rewritten, and
    history is left aside. Extents are given where they decide: not against declared weights before ``TRUSTED_RUNS``.
    """
    places = Counter(call.key for call in declared)
    if declared and not places.keys() & learned.keys():
        learned = {}
    timed = runs >= TRUSTED_RUNS or all(call.weight is None for call in declared)
    first = {call.key: call for call in reversed(declared)}
    expected = {key: Expectation(0 if learned else places[key], None) for key in places} | dict(learned)
    calls = (
        _planned_call(first.get(key, Planned(key)), index, expectation, timed)
        for key, expectation in expected.items()
        for index in range(expectation.calls)
    )
    return list(islice(calls, MOST_CALLS))


def _planned_call(call: Planned, index: int, expected: Expectation, timed: bool) -> PlannedCall:
    extent = expected.extent_ms if timed else None
    return PlannedCall(call.key, index, call.weight, call.estimated_ms, expected.ms, extent, call.in_loop)


def _number(value: float | None) -> float | None:
    return min(value, MOST_MS) if value is not None and 0 <= value < math.inf else None  # NaN fails both comparisons
