"""How honest the bar is: recorded runs are replayed through the real rules, and the bar is held against the clock.

The error is the mean distance, in percentage points, between what the bar shows and the share of the run's time that
has really passed, sampled evenly over the time of the run. Beside it stand two simpler bars: tasks done ÷ tasks, and
the declared weights alone. The recordings are made with fixed seeds: each duration varies log-normally by a factor of
its own (``SIGMA``) and one of its whole run (``RUN_SIGMA``: a busy machine, a larger input).

``python tests/bench/progress.py [--seeds N]`` runs alone in seconds.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from runs.rules import learning, progress
from runs.rules.learning import Calls, Planned
from runs.rules.progress import Item

SIGMA = 0.10
RUN_SIGMA = 0.08
SAMPLES = 50
LOOKED_AT = 10


# ---------------------------------------------------------------------------------------------------------- recordings


@dataclass(frozen=True)
class Call:
    """A call in a recorded run, in seconds since its start; ``top`` is False inside another task."""

    key: str
    start: float
    end: float
    reports: tuple[tuple[float, float], ...] = ()  # (when, share)
    top: bool = True


@dataclass
class Recording:
    """A run as it happened. ``then`` lets one call follow another; ``at_once`` a pool of ``workers`` do calls."""

    rng: random.Random
    factor: float
    calls: list[Call] = field(default_factory=list)
    clock: float = 0.0

    def took(self, seconds: float, sigma: float = SIGMA) -> float:
        return seconds * self.factor * self.rng.lognormvariate(0, sigma)

    def then(self, key: str, seconds: float, *, reports: int = 0, inside: str = "", sigma: float = SIGMA) -> None:
        took = self.took(seconds, sigma)
        said = tuple((self.clock + took * n / reports, n / reports) for n in range(1, reports))
        if inside:
            self.calls += [
                Call(inside, self.clock + took * n / 5, self.clock + took * (n + 1) / 5, top=False) for n in range(5)
            ]
        self.calls.append(Call(key, self.clock, self.clock + took, said))
        self.clock += took

    def at_once(self, keys: Sequence[tuple[str, float]], workers: int) -> None:
        free = [self.clock] * workers
        for key, seconds in keys:
            start = heapq.heappop(free)
            end = start + self.took(seconds)
            self.calls.append(Call(key, start, end))
            heapq.heappush(free, end)
        self.clock = max(free)

    def wait(self, seconds: float) -> None:
        """The flow's own code, outside of any task."""
        self.clock += self.took(seconds)


@dataclass(frozen=True)
class Scenario:
    """``act`` makes the ``number``-th run of a flow (the one that is measured has the highest number)."""

    name: str
    code: tuple[Planned, ...]
    act: Callable[[Recording, int], None]


def pipeline(run: Recording, number: int) -> None:
    for key, seconds in (("extract", 8), ("clean", 5), ("join", 12), ("load", 10), ("report", 3)):
        run.then(key, seconds)


def one_long(run: Recording, number: int) -> None:
    run.then("fetch", 3)
    run.then("train", 240)
    run.then("publish", 2)


def loop(run: Recording, number: int) -> None:
    run.then("list_files", 4)
    for _ in range(round(200 * run.rng.lognormvariate(0, 0.1))):
        run.then("convert", 0.5)
    run.then("upload", 6)


def pairs(run: Recording, number: int) -> None:
    for _ in range(run.rng.randint(15, 25)):
        run.then("download", 1.5)
        run.then("parse", 0.7)
    run.then("merge", 5)


def branch(run: Recording, number: int) -> None:
    run.then("check", 6)
    if run.rng.random() < 0.5:
        run.then("repair", 12)
    run.then("load", 20)
    run.then("report", 4)


def parallel(run: Recording, number: int) -> None:
    run.then("list_pages", 10)
    run.at_once([("fetch_page", 2.0)] * 60, workers=8)
    run.then("index", 15)


def side_by_side(run: Recording, number: int) -> None:
    run.then("prepare", 5)
    run.at_once([("images", 30), ("texts", 12), ("sounds", 20)], workers=3)
    run.then("bundle", 5)


def drift(run: Recording, number: int) -> None:
    run.then("extract", 10)
    run.then("aggregate", 10 * 1.15**number)
    run.then("load", 10)


def nested(run: Recording, number: int) -> None:
    run.then("read", 4)
    run.then("transform", 25, inside="transform_table")
    run.then("write", 8)


def subflow(run: Recording, number: int) -> None:
    run.then("setup", 2)
    run.then("ingest", 30, inside="ingest_part")
    run.wait(1)
    run.then("publish", 20, inside="publish_part")


def reporting(run: Recording, number: int) -> None:
    run.then("open", 2)
    run.then("encode", 90 * run.rng.lognormvariate(0, 0.3), reports=60)
    run.then("close", 2)


SCENARIOS = (
    Scenario(
        "steady pipeline, weights declared in proportion",
        (Planned("extract", 2), Planned("clean", 1), Planned("join", 3), Planned("load", 2), Planned("report", 1)),
        pipeline,
    ),
    Scenario(
        "the same, weights declared the wrong way round",
        (Planned("extract", 1), Planned("clean", 3), Planned("join", 1), Planned("load", 1), Planned("report", 3)),
        pipeline,
    ),
    Scenario(
        "the same, nothing declared", tuple(map(Planned, ("extract", "clean", "join", "load", "report"))), pipeline
    ),
    Scenario(
        "one long task, its time estimated too low by a quarter",
        (Planned("fetch"), Planned("train", None, 180_000), Planned("publish")),
        one_long,
    ),
    Scenario(
        "loop of 200 ± 20 items", (Planned("list_files"), Planned("convert", in_loop=True), Planned("upload")), loop
    ),
    Scenario(
        "two tasks in turn, 15–25 times",
        (Planned("download", in_loop=True), Planned("parse", in_loop=True), Planned("merge")),
        pairs,
    ),
    Scenario(
        "branch taken half of the time",
        (Planned("check", 1), Planned("repair", 2), Planned("load", 3), Planned("report", 1)),
        branch,
    ),
    Scenario(
        "parallel map, 60 calls by 8",
        (Planned("list_pages", None, 10_000), Planned("fetch_page", in_loop=True), Planned("index", None, 15_000)),
        parallel,
    ),
    Scenario(
        "three tasks side by side",
        (Planned("prepare", 1), Planned("images", 5), Planned("texts", 2), Planned("sounds", 3), Planned("bundle", 1)),
        side_by_side,
    ),
    Scenario(
        "a task that takes 15 % longer each time", (Planned("extract"), Planned("aggregate"), Planned("load")), drift
    ),
    Scenario("a task made of tasks", (Planned("read", 1), Planned("transform", 5), Planned("write", 2)), nested),
    Scenario(
        "sub-flows, and code outside of tasks",
        (Planned("setup", None, 2_000), Planned("ingest", None, 25_000), Planned("publish", None, 25_000)),
        subflow,
    ),
    Scenario(
        "a task that reports its own progress",
        (Planned("open", 1), Planned("encode", 20), Planned("close", 1)),
        reporting,
    ),
)


def record(scenario: Scenario, seed: int, number: int) -> Recording:
    rng = random.Random(f"{scenario.name} {seed} {number}")
    run = Recording(rng, rng.lognormvariate(0, RUN_SIGMA))
    scenario.act(run, number)
    return run


# -------------------------------------------------------------------------------------------------------------- replay


def summed(run: Recording) -> dict[str, Calls]:
    """As ``runs.services.history`` has the database sum up a run."""
    found: dict[str, Calls] = {}
    for call in (call for call in run.calls if call.top):
        old = found.get(call.key, Calls(0, 0.0, call.start * 1000, 0.0))
        found[call.key] = Calls(
            old.count + 1,
            (old.spent_ms or 0.0) + (call.end - call.start) * 1000,
            min(old.began_ms, call.start * 1000),
            max(old.ended_ms, call.end * 1000),
        )
    return found


def expected_items(scenario: Scenario, past: Sequence[dict[str, Calls]]) -> dict[tuple[str, int], Item]:
    learned = learning.learn(past)
    ranks = learning.order_seen(past) if past else learning.order_in_code(scenario.code)
    return {
        (call.key, call.index): Item(
            call.weight,
            call.estimated_ms,
            call.learned_ms,
            extent_ms=call.extent_ms,
            key=call.key,
            rank=ranks.get(call.key),
            in_loop=call.in_loop,
        )
        for call in learning.plan(scenario.code, learned, len(past))
    }


class Replay:
    """One recorded run, and what each bar shows of it at any moment."""

    def __init__(self, scenario: Scenario, run: Recording, past: Sequence[dict[str, Calls]]) -> None:
        self.scenario, self.run = scenario, run
        self.plan = expected_items(scenario, past)
        self.unexpected = learning.learn(past)
        self.ranks = learning.order_seen(past) if past else learning.order_in_code(scenario.code)
        self.declared = {call.key: call for call in scenario.code}

    def items(self, now: float) -> list[Item]:
        seen = dict(self.plan)
        counts: dict[str, int] = {}
        for call in sorted(self.run.calls, key=lambda call: call.start):
            if call.top and call.start <= now:
                index = counts[call.key] = counts.get(call.key, -1) + 1
                item = seen.get((call.key, index)) or self._unplanned(call.key)
                ended = call.end <= now
                said = [share for at, share in call.reports if at <= now]
                seen[call.key, index] = replace(
                    item,
                    state="COMPLETED" if ended else "RUNNING",
                    started_at=call.start,
                    ended_at=call.end if ended else None,
                    reported=said[-1] if said else None,
                )
        return progress.with_guesses(list(seen.values()))

    def _unplanned(self, key: str) -> Item:
        code, learned = self.declared.get(key, Planned(key)), self.unexpected.get(key)
        like = next((item for item in self.plan.values() if item.key == key), None)
        if like is not None:
            return replace(like, state="PENDING")
        return Item(
            code.weight,
            code.estimated_ms,
            learned.ms if learned else None,
            key=key,
            rank=self.ranks.get(key),
            in_loop=code.in_loop,
        )


def of_perfect(replay: Replay, items: Sequence[Item], now: float, floor: float) -> float:
    return progress.run_progress(items, now, floor=floor)


def of_counts(replay: Replay, items: Sequence[Item], now: float, floor: float) -> float:
    """Tasks done ÷ tasks found in the code or seen."""
    known = {(call.key, 0) for call in replay.scenario.code}
    seen = [item for item in items if item.state != "PENDING"]
    total = len(seen) + len({key for key, _ in known} - {item.key for item in seen})
    return max(floor, 100 * sum(item.state == "COMPLETED" for item in seen) / max(1, total))


def of_weights(replay: Replay, items: Sequence[Item], now: float, floor: float) -> float:
    """Declared weights (1 where none is) of what is done ÷ those of what is in the code or was seen."""
    seen = [item for item in items if item.state != "PENDING"]
    unseen = replay.declared.keys() - {item.key for item in seen}
    total = sum(item.weight or 1.0 for item in seen) + sum(replay.declared[key].weight or 1.0 for key in unseen)
    done = sum(item.weight or 1.0 for item in seen if item.state == "COMPLETED")
    return max(floor, 100 * done / total)


BARS = (of_perfect, of_counts, of_weights)


def errors(scenario: Scenario, seed: int, earlier: int) -> list[float]:
    """Mean absolute error in points of each of ``BARS`` over one run that had ``earlier`` ones."""
    past = [summed(record(scenario, seed, number)) for number in reversed(range(earlier))]
    run = record(scenario, seed, earlier)
    replay = Replay(scenario, run, past)
    shown = [0.0] * len(BARS)
    sums = [0.0] * len(BARS)
    for sample in range(SAMPLES):
        passed = (sample + 0.5) / SAMPLES
        items = replay.items(run.clock * passed)
        for index, bar in enumerate(BARS):
            shown[index] = bar(replay, items, run.clock * passed, shown[index])
            sums[index] += abs(shown[index] - 100 * passed)
    return [total / SAMPLES for total in sums]


@dataclass(frozen=True)
class Result:
    """Means over the seeds, per bar; and how far the seeds lie apart for Perfect's."""

    name: str
    earlier: int
    means: tuple[float, ...]
    worst: float  # the 90th percentile over the seeds


def measure(scenario: Scenario, earlier: int, seeds: range) -> Result:
    found = [errors(scenario, seed, earlier) for seed in seeds]
    of_ours = sorted(each[0] for each in found)
    return Result(
        scenario.name,
        earlier,
        tuple(statistics.fmean(column) for column in zip(*found, strict=True)),
        of_ours[min(len(of_ours) - 1, round(0.9 * (len(of_ours) - 1)))],
    )


def means(earlier: int, seeds: range) -> tuple[float, ...]:
    """Each bar's error over all scenarios, in points: Perfect's, tasks done ÷ tasks, declared weights alone."""
    results = [measure(scenario, earlier, seeds) for scenario in SCENARIOS]
    return tuple(statistics.fmean(column) for column in zip(*(result.means for result in results), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for earlier in (0, 5):
        results = [measure(scenario, earlier, range(options.seeds)) for scenario in SCENARIOS]
        print(f"\n{earlier} earlier runs{'':44}Perfect (p90)   done÷tasks   weights")
        for result in results:
            ours, counts, weights = result.means
            print(f"  {result.name:<58}{ours:5.1f} ({result.worst:4.1f}) {counts:10.1f} {weights:10.1f}")
        print(f"  {'mean':<58}{statistics.fmean(r.means[0] for r in results):5.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
