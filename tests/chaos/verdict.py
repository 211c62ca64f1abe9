"""What must be true after the healing, each rule a pure function of what was read: deeds, ledger, rows, processes.

The rules about rows and ledger alone are the journeys' (``tests.journeys.checker``).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping

from tests.journeys.checker import Row

from .ledger import Deeds, Entry

CRASHES = frozenset({"exit", "vanish", "die"})
LATE_S = 5.0  # a run that has told of its end still has to write it down
MOST_MIB, MOST_FILES, MOST_THREADS = 400, 400, 100


def key_faults(deeds: Deeds, runs: Mapping[str, Row], unanswered: int) -> list[str]:
    """Every accepted key has exactly one run, which is the one that was promised."""
    found = [f"{unanswered} triggers got no answer after the healing"] if unanswered else []
    by_key = Counter(run["idempotency_key"] for run in runs.values() if run["idempotency_key"] is not None)
    found += [f"the key {key} has {count} runs" for key, count in by_key.items() if count > 1]
    found += [f"the key {key} of a run was never sent" for key in sorted(set(by_key) - deeds.asked)]
    for key, run in deeds.accepted.items():
        row = runs.get(run.replace("-", ""))
        if row is None or row["idempotency_key"] != key:
            found.append(f"the trigger {key} was accepted as the run {run}, which is not in the database")
    return found


class Fates:
    """What became of the runs by their own account, and to which of them something was done."""

    def __init__(self, deeds: Deeds, entries: Iterable[Entry], runs: Mapping[str, Row]) -> None:
        self._deeds, self._runs = deeds, runs
        self._starts: dict[str, Entry] = {}
        self._ends: dict[str, Entry] = {}
        for entry in entries:
            kind = self._starts if entry.get("start") else self._ends if entry.get("end") else {}
            kind[entry["run"].replace("-", "")] = entry

    def told(self, pk: str) -> str:
        return str(self._ends[pk]["how"]) if pk in self._ends else "nothing"

    def was_hurt(self, pk: str) -> bool:
        """Whether it was killed, or its worker ended while it ran."""
        start = self._starts.get(pk)
        return (start is not None and start["pid"] in self._deeds.killed) or self._met(pk, self._deeds.ended)

    def lost_its_zygote(self, pk: str) -> bool:
        """Whether the process that had started it was killed while it ran."""
        return self._met(pk, self._deeds.zygotes)

    def _met(self, pk: str, deeds: Iterable[tuple[float, str]]) -> bool:
        start, end = self._starts.get(pk), self._ends.get(pk)
        return any(
            worker == self._runs[self._runs[pk]["root_id"] or pk]["worker_name"]
            and (start is None or start["at"] <= at)
            and (end is None or at <= end["at"] + LATE_S)
            for at, worker in deeds
        )


def cause_faults(deeds: Deeds, entries: Iterable[Entry], runs: Mapping[str, Row]) -> list[str]:
    """A run ends as its code says, unless somebody cancelled it, killed it, or ended its worker."""
    fates = Fates(deeds, entries, runs)
    cancelled = {run.replace("-", "") for run in deeds.cancelled}
    found = []
    for pk, run in runs.items():
        code, root = fates.told(pk), run["root_id"] or pk
        allowed = {
            "COMPLETED": code == "return",
            "FAILED": code == "raise",
            "CRASHED": fates.was_hurt(pk) or code in CRASHES or root in cancelled,
            "CANCELLED": root in cancelled,
            "SKIPPED": False,
        }
        if not allowed.get(run["state"], True):  # what is not final has a rule of its own
            found.append(f"run {pk} is {run['state']} ({run['state_reason']}) without a cause: its code told {code}")
    return found


def raw_faults(
    deeds: Deeds,
    entries: Iterable[Entry],
    stored: Mapping[str, list[str]],
    dropped: Mapping[str, int],
    runs: Mapping[str, Row],
) -> list[str]:
    """What was written past Python is there once and in order; the kill of a worker, which may have stood still for
    long, costs what was in the pipe, and the log says how many lines that were. Nobody can where the zygote was killed,
    too. The pipe is one for a run and its sub-runs: the lines are the root's."""
    entries = list(entries)
    fates = Fates(deeds, entries, runs)
    told: dict[str, list[str]] = {}
    for entry in entries:
        run = runs.get(entry["run"].replace("-", ""))
        if "raw" in entry and run is not None:
            told.setdefault(run["root_id"] or run["id"], []).append(entry["raw"])
    found = []
    for pk, lines in told.items():
        kept, rest = stored.get(pk, []), iter(lines)
        in_order = all(line in rest for line in kept)
        missing = len(lines) - len(kept) - dropped.get(pk, 0)
        # A line is told to the ledger just before it is written: a kill in between leaves the last one unwritten.
        short = runs[pk]["state"] in {"CRASHED", "CANCELLED"} or fates.was_hurt(pk)
        if not in_order or not (0 <= missing <= short or (short and fates.lost_its_zygote(pk))):
            found.append(
                f"run {pk} wrote {len(lines)} raw lines, {len(kept)} are kept, or in another order, "
                f"and {dropped.get(pk, 0)} are said to be lost"
            )
    return found


def schedule_faults(due: Mapping[int, list[float]], period: float, jumped: bool) -> list[str]:
    """Each due time (in seconds) once, on the schedule's grid, and none left out; over a jump the clock may leave out
    what it never showed."""
    found = []
    for schedule, times in due.items():
        ordered = sorted(times)
        steps = [round((after - before) / period, 6) for before, after in itertools.pairwise(ordered)]
        found += [f"schedule {schedule} fired twice for {at}" for at, step in zip(ordered, steps) if step == 0]
        found += [f"schedule {schedule} left its grid after {at}" for at, step in zip(ordered, steps) if step % 1]
        if not jumped:
            found += [f"schedule {schedule} missed a due time after {at}" for at, s in zip(ordered, steps) if s > 1]
    return found


def api_faults(listed: Mapping[str, str], runs: Mapping[str, Row]) -> list[str]:
    """The API tells of the same runs in the same states as the rows; ``listed``: run -> state."""
    rows = {pk: run["state"] for pk, run in runs.items() if run["root_id"] is None}
    told = {run.replace("-", ""): state for run, state in listed.items()}
    return [
        f"run {pk} is {rows.get(pk)}, the API says {told.get(pk)}"
        for pk in rows.keys() | told.keys()
        if rows.get(pk) != told.get(pk)
    ]


def worker_faults(workers: Iterable[Row]) -> list[str]:
    """The API's workers: all are there, and no slot is taken."""
    return [
        f"worker {worker['name']}: connected {worker['connected']}, {worker['free']} of {worker['slots']} slots free"
        for worker in workers
        if not worker["connected"] or worker["free"] != worker["slots"]
    ]


def size_faults(sizes: Mapping[str, tuple[float, int, int]]) -> list[str]:
    """``sizes``: name -> (MiB of proportional memory, open files, threads)."""
    return [
        f"{name} has {mib:.0f} MiB, {files} open files, {threads} threads"
        for name, (mib, files, threads) in sizes.items()
        if mib > MOST_MIB or files > MOST_FILES or threads > MOST_THREADS
    ]
