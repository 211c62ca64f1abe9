"""History older than the limit goes, with all that belongs to it; what is live or younger stays."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from perfect_client import protocol as p

from runs import services
from runs.clock import Clock
from runs.models import Artifact, Attempt, Event, LogLine, Run, TaskRun
from runs.retention import prune

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db
KEEP = timedelta(days=90)


def aged(run: Run, age: timedelta) -> Run:
    """The same run, made and ended ``age`` ago."""
    at = NOW - age
    old = Run.objects.get(pk=run.pk)
    new_id = uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | (run.pk.int & 0xFFFFFF))
    old.pk, old.created_at = new_id, at
    old.finished_at = at if old.finished_at else None
    old.save(force_insert=True)
    for model in (LogLine, TaskRun, Artifact, Event, Attempt):
        model.objects.filter(run_id=run.pk).update(run_id=new_id)
    Run.objects.filter(pk=run.pk).delete()
    return old


def a_run(worker, flow) -> Run:
    run = services.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    order = worker.take()
    worker.say(
        order, p.RunStarted(seconds()), p.Logged(seconds(), "x"), p.TaskStarted(seconds(), 1, "extract"),
        p.TaskEnded(seconds(1), 1, "COMPLETED"),
        p.ArtifactWritten(seconds(1), str(uuid.uuid4()), "markdown", data="# x"), p.RunEnded(seconds(1), "COMPLETED"),
    )  # fmt: skip
    return run


def test_an_old_run_goes_with_all_that_belongs_to_it(worker, flow):
    old, young = aged(a_run(worker, flow), KEEP + timedelta(days=1)), a_run(worker, flow)
    Run.objects.filter(pk=young.pk).update(rerun_of=old.pk)

    assert prune(now=NOW, keep=KEEP) == 1

    assert list(Run.objects.values_list("pk", flat=True)) == [young.pk]
    for model in (LogLine, TaskRun, Artifact, Event, Attempt):
        assert not model.objects.exclude(run_id=young.pk).exists()


def test_what_is_live_or_young_stays(worker, flow, run):
    waiting = aged(run, KEEP * 2)
    aged(a_run_of(worker, flow), KEEP - timedelta(days=1))

    assert prune(now=NOW, keep=KEEP) == 0
    assert Run.objects.filter(pk=waiting.pk).exists()


def a_run_of(worker, flow) -> Run:
    done = services.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    services.cancel(run_id=done.pk, now=NOW, who="ana")
    return done


def test_the_clock_prunes_by_itself(worker, flow, settings):
    settings.PERFECT_RETENTION_DAYS = 7
    aged(a_run(worker, flow), timedelta(days=8))

    Clock(NOW - timedelta(hours=2)).step(NOW)

    assert not Run.objects.exists()
