"""What the tests of the pages share: a house full of runs in every state."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from flows.models import Flow, Schedule, Task
from flows.services import plan
from perfect_site.dashboard.presenters import id_at
from runs.models import Event, LogLine, Run, TaskRun, Worker
from runs.rules.states import FINAL, WAITING, RunState, TaskState

SCHEMA = {
    "type": "object",
    "properties": {
        "weeks": {"type": "integer", "default": 39},
        "ratio": {"type": "number", "default": 0.7},
        "dry": {"type": "boolean", "default": False},
        "mode": {"enum": ["fast", "exact"], "default": "fast"},
        "day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
        "options": {"type": "object", "default": {}},
        "source": {"type": "string"},
        "api_token": {"type": "string", "default": "hush"},
    },
    "required": ["source"],
    "additionalProperties": False,
}


def make_flow(now: datetime, name: str = "Churn Model", **values: Any) -> Flow:
    values.setdefault("configurations", {"development": {"source": "sample.csv"}, "release": {}})
    flow = Flow.objects.create(
        name=name,
        slug=name.lower().replace(" ", "-"),
        description="<b>bold</b> words",
        tags=["ml"],
        parameters=values.pop("parameters", {}),
        file="/srv/flows/churn.py",
        line=7,
        created_at=now,
        updated_at=now,
        **values,
    )
    for position, (key, weight) in enumerate([("load", 1), ("train", 6), ("keep", 1)]):
        Task.objects.create(flow=flow, key=key, name=key, position=position, weight=weight, estimated_ms=1000 * weight)
    return flow


def make_run(flow: Flow, at: datetime, state: str = "COMPLETED", **values: Any) -> Run:
    """A run made at ``at``, started a second later, ended a minute later if its state is final."""
    final, started = state in FINAL, state not in WAITING
    pk = uuid.UUID(int=id_at(at).int | uuid.uuid4().int >> 64)
    return Run.objects.create(
        id=pk,
        flow=flow,
        state=state,
        trigger=values.pop("trigger", "page"),
        created_at=at,
        started_at=at + timedelta(seconds=1) if started else None,
        finished_at=at + timedelta(seconds=61) if final else None,
        progress=100 if state == "COMPLETED" else 20 if started else 0,
        attempt=1 if started else 0,
        **values,
    )


def make_tasks(run: Run, *states: str) -> list[TaskRun]:
    start = run.started_at
    rows = []
    for position, (task, state) in enumerate(zip(run.flow.tasks.all(), states, strict=True)):
        begun = state not in {TaskState.PENDING, TaskState.SKIPPED}
        rows.append(
            TaskRun(
                run=run,
                attempt=1,
                key=task.key,
                name=task.name,
                position=position,
                number=position + 1 if begun else None,
                state=state,
                weight=task.weight,
                learned_ms=60_000,
                started_at=start if begun else None,
                finished_at=start + timedelta(seconds=5) if begun and start and state != TaskState.RUNNING else None,
            )
        )
    return TaskRun.objects.bulk_create(rows)


def make_lines(run: Run, count: int, message: str = "line {}", level: int = 20) -> None:
    first = run.log_count + 1
    LogLine.objects.bulk_create(
        LogLine(run=run, seq=seq, attempt=1, time=run.created_at, level=level, task=1, message=message.format(seq))
        for seq in range(first, first + count)
    )
    run.log_count += count
    run.save()


def make_worker(flow: Flow, now: datetime, **values: Any) -> Worker:
    values = {"name": "w1", "slots": 4, "connected": True, "last_seen_at": now, **values}
    worker = Worker.objects.create(id=uuid.uuid4(), boot="b", joined_at=now - timedelta(hours=1), **values)
    worker.flows.add(flow)
    return worker


def make_house(now: datetime) -> Flow:
    """One flow with runs in every state, tasks, lines, events, a schedule, and a worker that is not well."""
    flow = make_flow(now, parameters=SCHEMA)
    worker = make_worker(flow, now, problems=["broken.py:1: SyntaxError"])
    schedule = Schedule(flow=flow, kind="cron", expression="0 6 * * *", timezone="Europe/Berlin")
    plan(schedule, now)
    schedule.save()
    for number, state in enumerate(RunState):
        at = now - timedelta(minutes=90 - number)
        error = "ValueError: <script>alert(1)</script>\nmore" if state in {"FAILED", "CRASHED"} else ""
        run = make_run(
            flow,
            at,
            state,
            error=error,
            traceback=error,
            worker=worker,
            parameters={"api_token": "hush"},
            schedule=schedule if number % 2 else None,
        )
        Event.objects.create(run=run, time=at, after=state, who="ana", why="because")
        if run.started_at:
            middle = "FAILED" if error else "COMPLETED" if run.is_final else "RUNNING"
            make_tasks(run, "COMPLETED", middle, "SKIPPED")
            make_lines(run, 3, "\x1b[31mred {}\x1b[0m <i>")
    return flow
