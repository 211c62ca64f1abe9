"""The end of a run: its state, its open task runs and the bells, in one transaction, from whatever side it ends."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from runs.events import OVERVIEW, WORK, flow_topic, log_topic, publish, run_topic
from runs.models import Event, Run, TaskRun
from runs.rules.states import HELD, LEFT_OPEN, TASK_FINAL, RunState, TaskState, left_open
from runs.services import history, questions, subruns


def close(run: Run, to: RunState, *, now: datetime, who: str, why: str, **values: Any) -> bool:
    """Move ``run`` to the final state ``to`` and close what it left open. False if it may not move there."""
    with transaction.atomic(savepoint=False):
        held = run.state in HELD
        if held:  # a bad end takes nothing back: what time alone has moved stays shown
            seen = TaskRun.objects.filter(run_id=run.pk, attempt=run.attempt).order_by("position", "pk")
            values.setdefault("progress", history.progress_of(run, subruns.rows_with_live_subruns(run, seen, now), now))
        if not end(run, to, now=now, who=who, why=why, **values):
            return False
        started, never_started = LEFT_OPEN[to]
        rows = TaskRun.objects.filter(run_id=run.pk).exclude(state__in=TASK_FINAL)
        rows.filter(state=TaskState.PENDING).update(state=never_started)
        rows.update(state=started, finished_at=now)
        questions.forget(run=run, now=now)
        if held and run.root_id is None:
            for sub in Run.objects.held().filter(root_id=run.pk).select_related("flow"):
                close(sub, left_open(to), now=now, who=who, why=around(to, why))
    return True


CANCELLED, REQUESTED = "cancelled", "cancel requested"


def request_of(reason: str) -> str:
    """``cancelled by ana: wrong day`` as the event that asks for it says it."""
    return reason.replace(CANCELLED, REQUESTED, 1)


def cancel_reasons(runs: Collection[UUID]) -> dict[UUID, str]:
    """``cancelled by ana: wrong day``, by the run, from the events that asked for it; the first one counts."""
    events = Event.objects.filter(run__in=runs, why__startswith=REQUESTED).order_by("-pk")
    return {run: why.replace(REQUESTED, CANCELLED, 1) for run, why in events.values_list("run_id", "why")}


def around(to: RunState, why: str) -> str:
    """Why a sub-run ends with the run around it."""
    return f"the run around it is {to.lower()}" + (f": {why}" if why else "")


def end(run: Run, to: RunState, *, now: datetime, who: str, why: str, **values: Any) -> bool:
    """The move and the bells alone, for a caller that closes the task runs itself."""
    if not run.move(to, now=now, who=who, why=why, **values):
        return False
    # A queueing schedule's next run may start now; a free slot is the worker's to announce.
    after = [WORK] if run.schedule_id else []
    publish(*after, OVERVIEW, run_topic(run.pk), log_topic(run.pk), flow_topic(run.flow.slug))
    return True
