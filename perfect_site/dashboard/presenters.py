"""What the pages show of runs: a run with its tasks as they stand at ``now``, read with few queries."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import F
from perfect_client.wire.messages import dumps

from flows.models import Flow
from runs.models import Offering, Run, TaskRun, Worker
from runs.rules import geometry, progress
from runs.rules.states import HELD, TASK_DONE, WAITING, RunState, TaskState
from runs.services import history, queries, questions, subruns

Eta = tuple[float, float]  # seconds left, low and high
TASKS_DRAWN = 200  # rows of a timeline; beyond them the finished ones step aside
LONGER = 1.25  # times the usual duration, while runs have not yet shown how much they differ


def id_at(moment: datetime) -> UUID:
    """The smallest run id that can have been made at ``moment`` or later: ids are UUIDv7, so time is a range of ids."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return UUID(int=milliseconds << 80)


def as_id(text: str) -> UUID | None:
    """The run id in ``text``, with or without dashes; None if it is none."""
    bare = text.replace("-", "").lower()
    return UUID(bare) if re.fullmatch("[0-9a-f]{32}", bare) else None


@dataclass(frozen=True)
class TaskPresenter:
    """A task run as it stands now: ``share`` is 0–1 of its work, ``weight`` as the law has it, ``part`` what it adds to
    the run (None inside another task), times in seconds."""

    row: TaskRun
    weight: float
    share: float
    usual: float | None
    took: float | None
    lane: geometry.Lane | None = None
    part: progress.Part | None = None

    @property
    def pk(self) -> int:
        return self.row.pk

    @property
    def label(self) -> str:
        return f"{self.row.name}, weight {self.weight:.3g}, {self.state.lower()}"

    @property
    def state(self) -> str:
        return self.row.state

    @property
    def percent(self) -> int | None:
        """0–100, 100 only when completed; None where a share means nothing: not started, or ended badly unreported."""
        if self.state in TASK_DONE:
            return 100 if self.state != TaskState.SKIPPED else None
        share = self.share if self.is_running else self.row.share
        return None if share is None or self.row.started_at is None else min(99, progress.whole_percent(share * 100))

    @property
    def is_running(self) -> bool:
        return self.state == TaskState.RUNNING

    @property
    def is_tolerated(self) -> bool:
        """Whether it ended badly and nothing hung on it."""
        return not self.row.crucial and self.state in {TaskState.FAILED, TaskState.CRASHED, TaskState.CANCELLED}

    @property
    def where(self) -> dict[str, Any]:
        """What names this call in the wish to run again from it."""
        return {"from_task": self.row.key, "call": self.row.call}


@dataclass(frozen=True)
class BarSegment:
    """A task's place in the bar: as wide as what it adds to the run, so that the bar is filled as far as the number
    says. That is its weight, and once history is trusted, its time."""

    pk: int
    label: str
    weight: float
    share: float
    state: str


@dataclass(frozen=True)
class RunPresenter:
    """A run with its tasks. ``percent`` is 0–100 now, ``eta`` the seconds left, ``waits`` why it does not run yet or
    what its code waits for, ``usual`` how many seconds such a run takes and ``longest`` how many it may take and still
    be called usual."""

    run: Run
    now: datetime
    percent: float
    eta: Eta | None = None
    tasks: Sequence[TaskPresenter] = field(default_factory=tuple)
    waits: str = ""
    span: float = 0.0
    usual: float | None = None
    longest: float | None = None

    @property
    def shown_percent(self) -> int:
        return progress.whole_percent(self.percent)

    @property
    def is_held(self) -> bool:
        return self.run.state in HELD

    @property
    def is_waiting(self) -> bool:
        return self.run.state in WAITING

    @property
    def current(self) -> TaskPresenter | None:
        """The task that the run is at: the one that started last."""
        running = [task for task in self.tasks if task.is_running]
        return max(running, key=lambda task: task.row.number or 0, default=None)

    @property
    def doing(self) -> str:
        """What it does now, in a few words; empty while no task runs."""
        task = self.current
        if task is None or not self.is_held:
            return self.waits if self.is_held else ""
        others = sum(other.is_running for other in self.tasks) - 1
        more = f"and {others} more" if others else ""
        words = [f"{task.row.name} · {task.percent} %", self.waits or task.row.note, more]
        return " · ".join(filter(None, words))

    @cached_property
    def segments(self) -> list[geometry.Segment]:
        return geometry.segments(
            [
                BarSegment(task.pk, task.label, task.part.whole, task.part.done / task.part.whole, task.state)
                for task in self.tasks
                if task.part is not None and task.part.whole > 0
            ]
        )

    @property
    def is_longer(self) -> bool:
        """Whether it runs longer than such runs usually do."""
        return (
            self.is_held
            and self.duration is not None
            and self.longest is not None
            and (self.duration.total_seconds() > self.longest)
        )

    @property
    def duration(self) -> timedelta | None:
        return self.run.duration(self.now)

    @property
    def waited(self) -> timedelta | None:
        asked = max(filter(None, [self.run.created_at, self.run.scheduled_for]))
        return max(self.run.started_at - asked, timedelta()) if self.run.started_at else None

    @property
    def origin(self) -> str:
        """Who or what asked for the run."""
        run = self.run
        if run.parent_id is not None:
            return f"called by {run.triggered_by}"
        if run.schedule is not None:
            return f"schedule, {run.schedule.words}"
        label = Run.Trigger(run.trigger).label if run.trigger in Run.Trigger else run.trigger
        return f"{run.triggered_by}, {label}" if run.triggered_by else label

    @property
    def shape(self) -> tuple[object, ...]:
        """What a drawing of the run depends on besides its numbers; equal shapes need no new drawing."""
        run = self.run
        widths = tuple(round(segment.width) for segment in self.segments if segment.state == TaskState.RUNNING)
        return (
            run.pk,
            run.state,
            run.name,
            run.attempt,
            run.cancel_requested_at,
            self.waits,
            self.is_longer,
            widths,
            tuple((task.pk, task.state, task.row.subrun) for task in self.tasks),
        )

    def numbers(self) -> dict[str, Any]:
        """The hot message: what moves while nothing happens."""
        eta = [round(self.eta[0], 1), round(self.eta[1], 1)] if self.eta else None
        running = {task.pk for task in self.tasks if task.is_running}
        return {
            "t": "p",
            "run": str(self.run.pk),
            "seq": self.run.version,
            "pct": round(self.percent, 2),
            "eta": eta,
            "state": self.run.seen_state,
            "name": self.run.title,
            "note": self.doing,
            "log": [self.run.log_count, self.run.warning_count, self.run.error_count],
            "tasks": [[task.pk, task.percent, task.state, task.row.note] for task in self.tasks if task.is_running],
            "segs": [[seg.pk, round(seg.filled, 2)] for seg in self.segments if seg.pk in running],
        }


class Reader:
    """Reads runs for one drawing; what several runs of a flow share is read once."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._reasons: dict[int, str] = {}
        self._waiting: dict[int, str] = {}  # for a limit, by the attempt

    def shown(self, runs: Iterable[Run], *, tasks: bool = True) -> list[RunPresenter]:
        found = list(runs)
        rows = self._task_runs(found) if tasks else {}
        if tasks:
            self._waiting = questions.waiting([run.fence for run in found if run.state == RunState.RUNNING])
        return [self.one(run, rows.get(run.pk, [])) for run in found]

    def one(self, run: Run, rows: Sequence[TaskRun]) -> RunPresenter:
        """The run with these task runs of its last attempt."""
        percent, eta = run.progress, None
        if run.state in HELD and rows:
            rows = subruns.rows_with_live_subruns(run, rows, self.now)
            percent, eta = queries.progress_now(run, rows, self.now)
        eta = eta if run.state == RunState.RUNNING else None
        tasks, span = _on_an_axis(run, self._tasks(run, rows))
        usual, longest = _usual(history.lessons_for(run)) if run.state in HELD and rows else (None, None)
        return RunPresenter(run, self.now, percent, eta, tasks, self._waits(run), span, usual, longest)

    def _tasks(self, run: Run, rows: Sequence[TaskRun]) -> list[TaskPresenter]:
        top = [row for row in rows if row.parent is None]
        at = (run.finished_at or run.clock(self.now)).timestamp()
        items = dict(zip([row.pk for row in top], history.items_of(run, top), strict=True))
        parts = dict(zip(items, progress.parts(list(items.values()), at), strict=True))
        return [self._task(run, row, items.get(row.pk) or history.item_of(row), parts.get(row.pk)) for row in rows]

    def _task(self, run: Run, row: TaskRun, item: progress.Item, part: progress.Part | None) -> TaskPresenter:
        took = row.duration(run.finished_at or self.now)
        known = row.learned_ms is not None or row.estimated_ms is not None
        return TaskPresenter(
            row,
            weight=progress.weight_of(item),
            share=progress.share(item, run.clock(self.now).timestamp()),
            usual=progress.expected_ms(item) / 1000 if known else None,
            took=took.total_seconds() if took is not None else None,
            part=part,
        )

    def _task_runs(self, runs: Sequence[Run]) -> dict[UUID, list[TaskRun]]:
        found: dict[UUID, list[TaskRun]] = defaultdict(list)
        wanted = [run.pk for run in runs if run.attempt]
        if wanted:
            rows = TaskRun.objects.filter(run__in=wanted, attempt=F("run__attempt")).defer("traceback")
            for row in rows.order_by("position", "pk"):
                found[row.run_id].append(row)
        for run in runs:
            if not run.attempt and run.state in WAITING:
                found[run.pk] = self._plan(run)
        return found

    def _plan(self, run: Run) -> list[TaskRun]:
        """What a run that waits will do, as far as the code says."""
        return [
            TaskRun(
                pk=-task.pk,
                run=run,
                attempt=0,
                key=task.key,
                name=task.name,
                position=task.position,
                state=TaskState.PENDING,
                weight=task.weight,
                estimated_ms=task.estimated_ms,
            )
            for task in run.flow.tasks.all()
        ]

    def _waits(self, run: Run) -> str:
        if run.state == RunState.RUNNING:
            return self._waiting.get(run.fence or 0, "")
        if run.state != RunState.PENDING:
            return queries.waiting_reason(run)
        if run.flow_id not in self._reasons:
            self._reasons[run.flow_id] = queries.waiting_reason(run)
        return queries.rest_of(run) or run.state_reason or self._reasons[run.flow_id]


def _usual(lessons: history.Lessons) -> tuple[float | None, float | None]:
    """How many seconds a run takes by its history, and up to how many that is still usual."""
    if lessons.usual_ms is None:
        return None, None
    most = max(lessons.spread[1] if lessons.spread else LONGER, 1.1)
    return lessons.usual_ms / 1000, lessons.usual_ms / 1000 * most


def _on_an_axis(run: Run, tasks: list[TaskPresenter]) -> tuple[list[TaskPresenter], float]:
    """Place the tasks on a common axis that starts with the run; returns its length in seconds too."""
    zero = run.started_at
    if zero is None:
        return tasks, 0.0
    starts = [(task.row.started_at - zero).total_seconds() if task.row.started_at else None for task in tasks]
    lengths = [max(task.took or 0, (task.usual or 0) if task.is_running else 0) for task in tasks]
    span = geometry.span_of(start + length for start, length in zip(starts, lengths, strict=True) if start is not None)
    placed = [
        replace(task, lane=geometry.lane(start, task.took, task.usual, span))
        for task, start in zip(tasks, starts, strict=True)
    ]
    return placed, span


def choose_drawn(tasks: Sequence[TaskPresenter]) -> tuple[list[TaskPresenter], int]:
    """The rows of a timeline, and how many finished ones are left out when there are very many."""
    if len(tasks) <= TASKS_DRAWN:
        return list(tasks), 0
    rank = {TaskState.FAILED: 0, TaskState.CRASHED: 0, TaskState.RUNNING: 1, TaskState.RETRYING: 1}
    kept = sorted(
        sorted(tasks, key=lambda task: rank.get(TaskState(task.state), 2))[:TASKS_DRAWN],
        key=lambda task: (task.row.position, task.pk),
    )
    return kept, len(tasks) - TASKS_DRAWN


def in_words(value: Any) -> str:
    """A parameter's value as it is written in JSON."""
    return dumps(value)


def first_error(error: str) -> str:
    """The first line of an error: what went wrong, in the exception's own words."""
    return error.strip().split("\n", 1)[0]


@dataclass(frozen=True)
class FlowPresenter:
    """A flow with its last runs (oldest first) and what they say: bars, how many went well, how long one takes; and
    which workers offer it, the connected ones first."""

    flow: Flow
    last: list[dict[str, Any]]
    next_at: datetime | None
    when: str
    offers: Sequence[Offering] = ()

    @property
    def is_absent(self) -> bool:
        """Whether a run would have to wait for a worker that is not there."""
        return not self.flow.is_codeless and not any(offer.worker.connected for offer in self.offers)

    @property
    def last_worker(self) -> Worker | None:
        """Who of those that offer it was heard last."""
        return max((offer.worker for offer in self.offers), key=lambda worker: worker.last_seen_at, default=None)

    @property
    def problems(self) -> list[str]:
        """Why its newest code is not used, where it could run now."""
        told = [offer.problem for offer in self.offers if offer.problem and offer.worker.connected]
        return list(dict.fromkeys(told))

    @property
    def bars(self) -> list[geometry.Bar]:
        return geometry.bars(
            [
                (row["state"], row["seconds"], f"{row['word']}, {row['took']}", f"/runs/{row['id']}/")
                for row in self.last
            ]
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What a drawing of the card depends on; equal shapes need no new drawing."""
        runs = tuple((row["id"], row["state"]) for row in self.last)
        return (self.flow.updated_at, self.next_at, self.when, runs, self.is_absent, *self.problems)

    @property
    def ended(self) -> list[dict[str, Any]]:
        return [row for row in self.last if row["state"] in {"COMPLETED", "FAILED", "CRASHED"}]

    @property
    def good(self) -> int:
        return sum(row["state"] == "COMPLETED" for row in self.ended)

    @property
    def usual(self) -> float | None:
        """Median duration in seconds of the completed ones."""
        took = sorted(row["seconds"] for row in self.last if row["state"] == "COMPLETED" and row["seconds"] is not None)
        return took[len(took) // 2] if took else None

    @property
    def trouble(self) -> dict[str, Any] | None:
        """The last ended run, if it failed or crashed; a sub-run's trouble is its caller's."""
        ended = [row for row in self.ended if not row["called"]]
        return ended[-1] if ended and ended[-1]["state"] != "COMPLETED" else None

    @property
    def shares(self) -> list[geometry.Segment]:
        return geometry.segments(self.planned)

    @cached_property
    def planned(self) -> list[TaskPresenter]:
        """The tasks found in the code, with the weight each has in a run."""
        tasks = list(self.flow.tasks.all())
        rows = [
            TaskRun(
                pk=task.pk,
                key=task.key,
                name=task.name,
                position=task.position,
                state=TaskState.PENDING,
                weight=task.weight,
                estimated_ms=task.estimated_ms,
            )
            for task in tasks
        ]
        return [
            TaskPresenter(row, progress.weight_of(history.item_of(row)), 0.0, _estimated(row), None) for row in rows
        ]


def _estimated(row: TaskRun) -> float | None:
    return None if row.estimated_ms is None else row.estimated_ms / 1000
