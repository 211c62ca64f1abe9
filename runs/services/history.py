"""What earlier runs teach: which calls to expect of a run, how long each takes, and how much runs differ.

A run's lessons are read when it starts and stay with it: the plan becomes its rows, the rest is kept in memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any
from uuid import UUID

from django.db.models import Count, F, FloatField, Func, Max, Min, Q, Sum
from django.db.models.base import ModelState
from perfect_client.wire.messages import dumps

from flows.models import Flow, Task
from runs.models import Run, TaskRun
from runs.rules import learning, progress
from runs.rules.states import HELD, RunState, TaskState

RUNS_LOOKED_AT = 10
LOOKED_THROUGH = 50  # completed runs among which those most like the new one are sought
A_FEW = 5
LEARN_EVERY = 2.0  # seconds
BROKEN = {TaskState.FAILED, TaskState.CRASHED, TaskState.CANCELLED}
KEPT = 2_000  # as many as a run may have of sub-runs at once, without reading the same again and again
# The columns that an item is made of.
MOVING = (
    "key",
    "parent",
    "weight",
    "estimated_ms",
    "learned_ms",
    "extent_ms",
    "state",
    "share",
    "started_at",
    "finished_at",
    "subrun",
)


@dataclass(frozen=True)
class Lessons:
    """``calls``: per task what to expect. ``order``: the ranks of tasks. ``usual_ms``: median duration of a run.
    ``spread``: how much runs differ, as ``progress.remaining`` takes it. ``runs``: how many runs taught this."""

    calls: Mapping[str, learning.Expectation] = field(default_factory=dict)
    order: Mapping[str, int] = field(default_factory=dict)
    usual_ms: float | None = None
    spread: tuple[float, float] | None = None
    runs: int = 0


@dataclass(frozen=True)
class _Kept:
    newest: UUID
    learned_at: float  # time.monotonic()
    lessons: Lessons


Kind = tuple[int, str, str]  # runs alike: of one flow, with one configuration and the same parameters
NOTHING = Lessons()
_kept: OrderedDict[Kind, _Kept] = OrderedDict()
_of_run: OrderedDict[UUID, Lessons] = OrderedDict()
_tasks: OrderedDict[int, tuple[object, list[Task]]] = OrderedDict()


def forget() -> None:
    """Learn everything anew; for tests, whose databases come and go."""
    _kept.clear()
    _of_run.clear()
    _tasks.clear()


def _keep(store: OrderedDict[Any, Any], key: object, value: object) -> None:
    store[key] = value
    while len(store) > KEPT:
        store.popitem(last=False)


def lessons_for(run: Run) -> Lessons:
    """What the run was started with. Costs no query but the first time that this process meets the run."""
    lessons = _of_run.get(run.pk)
    if lessons is None:
        lessons = learn_for(run)
        _keep(_of_run, run.pk, lessons)
    return lessons


def learn_for(run: Run) -> Lessons:
    """What the flow's last completed runs teach a run that starts now.

    Learned anew when another run has completed; once there are a few, at most every ``LEARN_EVERY`` seconds, since a
    flow that runs many times a second teaches nothing new each time.
    """
    kind = (run.flow_id, run.configuration, dumps(run.parameters))
    kept = _kept.get(kind)
    if kept is not None and kept.lessons.runs >= A_FEW and time.monotonic() - kept.learned_at < LEARN_EVERY:
        return kept.lessons
    # A run that resumed another one did a part of the work only.
    completed = Run.objects.filter(
        flow_id=run.flow_id, state=RunState.COMPLETED, started_at__isnull=False, resume_of__isnull=True
    )
    newest = completed.order_by("-pk").values_list("pk", flat=True).first()
    if newest is None:
        return NOTHING
    same = kept is not None and kept.newest == newest
    lessons = kept.lessons if kept is not None and same else _learn(_most_alike(run, completed.order_by("-pk")))
    _keep(_kept, kind, _Kept(newest, time.monotonic(), lessons))
    return lessons


def _most_alike(run: Run, completed: Any) -> list[dict[str, Any]]:
    """The last runs with the same configuration and parameters, if there are enough of them to learn from; else those
    with the same configuration; else any."""
    rows = list(completed.values("pk", "configuration", "parameters", "started_at", "finished_at")[:LOOKED_THROUGH])
    configured = [row for row in rows if row["configuration"] == run.configuration]
    alike = [row for row in configured if row["parameters"] == run.parameters]
    enough = (few for few in (alike, configured) if len(few) >= learning.TRUSTED_RUNS)
    return next(enough, rows)[:RUNS_LOOKED_AT]


def _learn(runs: Sequence[Mapping[str, Any]]) -> Lessons:
    past = _past({row["pk"]: row["started_at"] for row in runs})
    took = [_ms(row["finished_at"] - row["started_at"]) for row in runs]
    return Lessons(
        learning.learn(past), learning.order_seen(past), median(took), learning.spread_of(took), runs=len(runs)
    )


class _Milliseconds(Func):
    """From the second time to the first. Django's own difference calls Python for each row of SQLite."""

    output_field = FloatField()
    template, arg_joiner = "(EXTRACT(EPOCH FROM %(expressions)s) * 1000)", " - "

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """SQLite keeps times as text: whole seconds by its calendar, the digits after them as they stand."""
        end, start = (compiler.compile(source)[0] for source in self.source_expressions)
        seconds = f"(strftime('%%s', {end}) - strftime('%%s', {start}))"
        rest = f"(CAST('0.' || substr({end}, 21) AS REAL) - CAST('0.' || substr({start}, 21) AS REAL))"
        return f"(({seconds} + {rest}) * 1000)", []


def _past(runs: Mapping[UUID, datetime]) -> list[dict[str, learning.Calls]]:
    """Per run, newest first: what the flow's own calls of each task add up to. One query, a row a task and run."""
    found: dict[UUID, dict[str, learning.Calls]] = {pk: {} for pk in runs}
    measured = Q(state=TaskState.COMPLETED)
    rows = (
        TaskRun.objects.filter(run_id__in=runs, parent=None, started_at__isnull=False, finished_at__isnull=False)
        .filter(attempt=F("run__attempt"))
        .values("run_id", "key")
        .order_by()
        .annotate(
            calls=Count("pk"),
            measured=Count("pk", filter=measured),
            spent=Sum(_Milliseconds("finished_at", "started_at"), filter=measured),
            began=Min("started_at"),
            ended=Max("finished_at"),
        )
    )
    for row in rows:
        zero = runs[row["run_id"]]
        spent = row["spent"] / row["measured"] * row["calls"] if row["measured"] else None
        began, ended = _ms(row["began"] - zero), _ms(row["ended"] - zero)
        found[row["run_id"]][row["key"]] = learning.Calls(row["calls"], spent, max(began, 0.0), max(ended, 0.0))
    return list(found.values())


def _ms(length: timedelta) -> float:
    return length.total_seconds() * 1000


# --- the plan of a run ----------------------------------------------------------------------------------------------


def plan_of(run: Run) -> list[TaskRun]:
    """The calls to expect of a run that starts now, in order, as unsaved rows without a run."""
    lessons = learn_for(run)
    _keep(_of_run, run.pk, lessons)
    tasks = _tasks_of(run.flow)
    names = {task.key: task.name for task in tasks}
    return [
        _row(
            key=call.key,
            call=call.index,
            name=names.get(call.key, call.key),
            position=position,
            state=TaskState.PENDING,
            weight=call.weight,
            estimated_ms=call.estimated_ms,
            learned_ms=call.learned_ms,
            extent_ms=call.extent_ms,
        )
        for position, call in enumerate(learning.plan(_declared(tasks), lessons.calls, lessons.runs))
    ]


_BLANK = TaskRun().__dict__


def _row(**values: Any) -> TaskRun:
    """``TaskRun(**values)``, ten times as fast: there may be thousands in a run."""
    row = TaskRun.__new__(TaskRun)
    row.__dict__.update(_BLANK, _state=ModelState(), **values)
    return row


def unexpected(run: Run, key: str, call: int, like: TaskRun | None, position: int) -> TaskRun:
    """A call that was not in the plan, with what is known of its task: from its first call, else from history."""
    row = _row(key=key, call=call, name=key, position=position)
    if like is not None:
        row.learned_ms, row.extent_ms = like.learned_ms, like.extent_ms
    else:
        known = lessons_for(run).calls.get(key)
        row.learned_ms = known.ms if known is not None else None
    return row


def _declared(tasks: Iterable[Task]) -> list[learning.Planned]:
    return [learning.Planned(task.key, task.weight, task.estimated_ms, task.in_loop) for task in tasks]


def _tasks_of(flow: Flow) -> list[Task]:
    """The flow's tasks; ``flows.services`` rewrites them together with ``updated_at``."""
    kept = _tasks.get(flow.pk)
    if kept is None or kept[0] != (flow.updated_at, flow.fingerprint):
        kept = ((flow.updated_at, flow.fingerprint), list(flow.tasks.all()))
        _keep(_tasks, flow.pk, kept)
    return kept[1]


# --- a run as the rules of progress see it --------------------------------------------------------------------------


def items_of(run: Run, rows: Iterable[Any]) -> list[progress.Item]:
    """What progress is made of: the calls that the flow itself makes. ``rows`` have the attributes in ``MOVING``.

    A call that failed counts as done only once the flow has gone on after it; if it is what ends the run, the bar
    stops at what the call had reported.
    """
    top = [row for row in rows if row.parent is None]
    latest = max((row.started_at for row in top if row.started_at), default=None)
    ranks, loops = _course(run) if top and run.state in HELD else ({}, set())
    items = []
    for row in top:
        item = item_of(row, ranks.get(row.key), row.key in loops)
        failed = row.state in BROKEN and row.finished_at and latest and latest < row.finished_at
        if failed:
            item = replace(item, state=TaskState.RUNNING, reported=item.reported or 0.0)
        items.append(item)
    return progress.with_guesses(items)


def _course(run: Run) -> tuple[Mapping[str, int], set[str]]:
    """The order of the run's tasks, and which are called in loops."""
    tasks = _tasks_of(run.flow)
    order = lessons_for(run).order or learning.order_in_code(_declared(tasks))
    return order, {task.key for task in tasks if task.in_loop}


def progress_of(run: Run, rows: Iterable[Any], now: datetime) -> float:
    """The run's progress in 0–100 as pages show it at ``now``, never below what it was."""
    return progress.run_progress(items_of(run, rows), run.clock(now).timestamp(), floor=run.progress)


def item_of(row: Any, rank: int | None = None, in_loop: bool = False) -> progress.Item:
    """The row as the rule of progress sees it."""
    return progress.Item(
        weight=row.weight,
        estimated_ms=row.estimated_ms,
        learned_ms=row.learned_ms,
        state=row.state,
        reported=row.share,
        started_at=row.started_at.timestamp() if row.started_at else None,
        ended_at=row.finished_at.timestamp() if row.finished_at else None,
        extent_ms=row.extent_ms,
        key=row.key,
        rank=rank,
        in_loop=in_loop,
    )
