"""How long history is kept: final runs older than the limit go, oldest first, a few at a time."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from runs.models import Artifact, Attempt, Event, LogLine, Quarantine, Run, TaskRun, Worker
from runs.rules.states import FINAL

BATCH = 100  # runs in one transaction: one big delete would hold the write lock for seconds
ROWS = 10_000  # as many log lines, and fewer of what is larger
COSTS = {LogLine: 1, TaskRun: 1, Event: 1, Attempt: 1, Artifact: 100}  # an artifact may have 2 MiB
STEADY = timedelta(days=1)

held_back = ""  # why history that is over is still there, for the overview; empty if it is not


def ended(*, now: datetime, keep: timedelta) -> QuerySet[Run]:
    """The runs that ended longer than ``keep`` ago. A run's id begins with the time of its making, so the oldest are
    found without reading the history."""
    border = uuid.UUID(int=max(0, int((now - keep).timestamp() * 1000)) << 80)
    return Run.objects.asked_for().filter(pk__lt=border, state__in=FINAL, finished_at__lt=now - keep)


def too_much(*, now: datetime, keep: timedelta, steady: float) -> str:
    """Why this may not go now, in a sentence; empty if it may.

    Who sets the clock ahead by years must not lose the history for it. So more than half of all runs go only when the
    clock has gone steadily for a day (``steady``: seconds).
    """
    if steady >= STEADY.total_seconds():
        return ""
    going = ended(now=now, keep=keep).count()
    if 2 * going <= Run.objects.asked_for().filter(state__in=FINAL).count():
        return ""
    wait = max(1, round((STEADY.total_seconds() - steady) / 3600))
    return (
        f"by the clock, {going} runs ended more than {keep.days} days ago, over half of the history. They are deleted"
        f" when the clock has gone steadily for a day, in about {wait} hours; is {now:%Y-%m-%d %H:%M} UTC right?"
    )


def prune(*, now: datetime, keep: timedelta) -> bool:
    """Delete a bounded part of what ended longer than ``keep`` ago. Call again while it returns True: there is more."""
    runs = list(ended(now=now, keep=keep).order_by("pk").values_list("pk", flat=True)[:BATCH])
    full = len(runs) == BATCH
    # What a run has called goes first: it may have called thousands.
    called = list(Run.objects.filter(root_id__in=runs).order_by("-pk").values_list("pk", flat=True)[:BATCH])
    with transaction.atomic():
        Worker.objects.filter(forgotten_at__lt=now - keep, runs=None, attempts=None).delete()  # nothing needs its name
        whole = not runs or _delete(called or runs)
    return full or bool(called) or not whole


def _delete(runs: list[uuid.UUID]) -> bool:
    """Delete these runs with all that belongs to them. False if it was too much: then a part of it is left."""
    room = ROWS
    Quarantine.objects.filter(attempt__run_id__in=runs).delete()
    for model, cost in COSTS.items():
        rows = model._base_manager.filter(run_id__in=runs)
        limit = max(1, room // cost)
        gone = model._base_manager.filter(pk__in=rows.values("pk")[:limit])._raw_delete("default")  # type: ignore[attr-defined]
        room -= gone * cost
        if gone == limit:
            return False
    Run.objects.filter(rerun_of_id__in=runs).update(rerun_of=None)
    Run.objects.filter(resume_of_id__in=runs).update(resume_of=None)
    Run.objects.filter(pk__in=runs)._raw_delete("default")  # type: ignore[attr-defined]
    return True
