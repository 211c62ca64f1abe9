"""What earlier runs teach: which calls to expect of a flow, how long each takes, and how much runs differ."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from uuid import UUID

from django.db.models import Count, F, Max
from django.db.models.aggregates import Sum

from flows.models import Flow, Task
from runs import progress
from runs.models import Run, TaskRun
from runs.states import RunState, TaskState

RUNS_LOOKED_AT = 10
A_FEW = 5
LEARN_EVERY = 2.0  # seconds
BROKEN = {TaskState.FAILED, TaskState.CRASHED, TaskState.CANCELLED}
FLOWS_KEPT = 500


@dataclass(frozen=True)
class Lessons:
    """``calls``: per task key what to expect. ``usual_ms``: median duration of a run. ``spread``: how much runs differ,
    as ``progress.remaining`` takes it."""

    calls: dict[str, progress.Expectation]
    usual_ms: float | None
    spread: tuple[float, float] | None


@dataclass(frozen=True)
class _Kept:
    newest: object
    runs: int
    learned_at: float  # time.monotonic()
    lessons: Lessons


NOTHING = Lessons({}, None, None)
_kept: OrderedDict[int, _Kept] = OrderedDict()
_tasks: OrderedDict[int, tuple[object, list[Task]]] = OrderedDict()


def forget() -> None:
    """Learn everything anew; for tests, whose databases come and go."""
    _kept.clear()
    _tasks.clear()


def lessons_of(flow_id: int) -> Lessons:
    """What the flow's last completed runs teach.

    Learned anew when another run has completed; once there are a few, at most every ``LEARN_EVERY`` seconds, since a
    flow that runs many times a second teaches nothing new each time.
    """
    kept = _kept.get(flow_id)
    if kept is not None and kept.runs >= A_FEW and time.monotonic() - kept.learned_at < LEARN_EVERY:
        return kept.lessons
    # A run that resumed another one did a part of the work only.
    completed = Run.objects.filter(
        flow_id=flow_id, state=RunState.COMPLETED, started_at__isnull=False, resume_of__isnull=True
    )
    runs = list(completed.order_by("-pk").only("started_at", "finished_at")[:RUNS_LOOKED_AT])
    if not runs:
        return NOTHING
    if kept is None or kept.newest != runs[0].pk or kept.runs != len(runs):
        durations = [run.finished_at - run.started_at for run in runs if run.finished_at and run.started_at]
        learned = progress.learn(_calls([run.pk for run in runs]))
        took = [duration.total_seconds() * 1000 for duration in durations]
        lessons = Lessons(learned, median(took), progress.spread_of(took))
    else:
        lessons = kept.lessons
    _kept[flow_id] = _Kept(runs[0].pk, len(runs), time.monotonic(), lessons)
    while len(_kept) > FLOWS_KEPT:
        _kept.popitem(last=False)
    return lessons


def _calls(runs: list[UUID]) -> list[dict[str, list[float]]]:
    """Per run, newest first: the durations in ms of each task key's calls, each call at its key's mean."""
    per_run: dict[UUID, dict[str, list[float]]] = {pk: {} for pk in runs}
    rows = (
        TaskRun.objects.filter(run_id__in=runs, parent=None, state=TaskState.COMPLETED, finished_at__isnull=False)
        .values("run_id", "key")
        .annotate(calls=Count("pk"), spent=Sum(F("finished_at") - F("started_at")), last=Max("attempt"))
    )
    for row in rows:
        mean = row["spent"].total_seconds() * 1000 / row["calls"]
        per_run[row["run_id"]][row["key"]] = [mean] * min(row["calls"], 10_000)
    return list(per_run.values())


def plan_of(flow: Flow) -> list[TaskRun]:
    """The calls to expect of a new run, in order, as unsaved rows without a run."""
    tasks = _tasks_of(flow)
    names = {task.key: task.name for task in tasks}
    declared = [
        progress.Planned(key=task.key, weight=task.weight, estimated_ms=task.estimated_ms, in_loop=task.in_loop)
        for task in tasks
    ]
    return [
        TaskRun(
            key=call.key, call=call.index, name=names.get(call.key, call.key), position=position,
            state=TaskState.PENDING, weight=call.weight, estimated_ms=call.estimated_ms, learned_ms=call.learned_ms,
        )
        for position, call in enumerate(progress.plan(declared, lessons_of(flow.pk).calls))
    ]  # fmt: skip


def _tasks_of(flow: Flow) -> list[Task]:
    """The flow's tasks; ``flows.services`` rewrites them together with ``updated_at``."""
    kept = _tasks.get(flow.pk)
    if kept is None or kept[0] != (flow.updated_at, flow.fingerprint):
        kept = ((flow.updated_at, flow.fingerprint), list(flow.tasks.all()))
        _tasks[flow.pk] = kept
        while len(_tasks) > FLOWS_KEPT:
            _tasks.popitem(last=False)
    return kept[1]


def items_of(rows: Iterable[TaskRun]) -> list[progress.Item]:
    """What progress is made of: the calls that the flow itself makes.

    A call that failed counts as done only once the flow has gone on after it; if it is what ends the run, the bar
    stops at what the call had reported.
    """
    top = [row for row in rows if row.parent is None]
    latest = max((row.started_at for row in top if row.started_at), default=None)
    items = []
    for row in top:
        item = item_of(row)
        failed = row.state in BROKEN and row.finished_at and latest and latest < row.finished_at
        items.append(replace(item, state=TaskState.RUNNING, reported=item.reported or 0.0) if failed else item)
    return items


def shown(rows: Iterable[TaskRun], now: datetime, floor: float) -> float:
    """Progress in 0–100 as pages show it at ``now``, never below ``floor``."""
    return progress.of(items_of(rows), now.timestamp(), floor=floor)


def item_of(row: TaskRun) -> progress.Item:
    """The row as the rule of progress sees it."""
    return progress.Item(
        weight=row.weight,
        estimated_ms=row.estimated_ms,
        learned_ms=row.learned_ms,
        state=row.state,
        reported=row.share,
        started_at=row.started_at.timestamp() if row.started_at else None,
    )
