"""How long history is kept: final runs older than the limit go, oldest first, a few at a time."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import transaction

from runs.models import Artifact, Attempt, Event, LogLine, Quarantine, Run, TaskRun, Worker
from runs.states import FINAL

BATCH = 100  # runs in one transaction: one big delete would hold the write lock for seconds


def prune(*, now: datetime, keep: timedelta) -> int:
    """Delete at most ``BATCH`` runs that ended longer than ``keep`` ago; returns how many. Call again while it is full.

    A run's id begins with the time of its making, so the oldest are found without reading the history.
    """
    border = uuid.UUID(int=int((now - keep).timestamp() * 1000) << 80)
    old = Run.objects.asked_for().filter(pk__lt=border, state__in=FINAL, finished_at__lt=now - keep)
    runs = list(old.order_by("pk").values_list("pk", flat=True)[:BATCH])
    # What a run has called goes first: it may have called thousands.
    called = Run.objects.filter(root_id__in=runs).order_by("-pk").values_list("pk", flat=True)
    runs = list(called[:BATCH]) or runs
    Worker.objects.filter(forgotten_at__lt=now - keep, runs=None, attempts=None).delete()  # nothing needs its name
    with transaction.atomic():
        Quarantine.objects.filter(attempt__run_id__in=runs).delete()
        for model in (LogLine, TaskRun, Artifact, Event, Attempt):
            model._base_manager.filter(run_id__in=runs)._raw_delete("default")  # type: ignore[attr-defined]
        Run.objects.filter(rerun_of_id__in=runs).update(rerun_of=None)
        Run.objects.filter(resume_of_id__in=runs).update(resume_of=None)
        Run.objects.filter(pk__in=runs)._raw_delete("default")  # type: ignore[attr-defined]
    return len(runs)
