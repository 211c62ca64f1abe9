"""History older than the limit goes, with all that belongs to it; what is live or younger stays."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from perfect_client.wire import messages as p

from perfect_site.dashboard.attention import troubles
from runs.clock.steps import PRUNE_SHARE, SWEEP, Clock
from runs.models import Artifact, Attempt, Event, LogLine, Run, TaskRun
from runs.services import requests, retention
from runs.services.retention import prune

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
    run = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    order = worker.take()
    worker.say(
        order,
        p.RunStarted(seconds()),
        p.Logged(seconds(), "x"),
        p.TaskStarted(seconds(), 1, "extract"),
        p.TaskEnded(seconds(1), 1, "COMPLETED"),
        p.ArtifactWritten(seconds(1), str(uuid.uuid4()), "markdown", data="# x"),
        p.RunEnded(seconds(1), "COMPLETED"),
    )
    return run


def test_an_old_run_goes_with_all_that_belongs_to_it(worker, flow):
    old, young = aged(a_run(worker, flow), KEEP + timedelta(days=1)), a_run(worker, flow)
    Run.objects.filter(pk=young.pk).update(rerun_of=old.pk)

    while prune(now=NOW, keep=KEEP):
        pass

    assert list(Run.objects.values_list("pk", flat=True)) == [young.pk]
    for model in (LogLine, TaskRun, Artifact, Event, Attempt):
        assert not model.objects.exclude(run_id=young.pk).exists()


def test_what_is_live_or_young_stays(worker, flow, run):
    waiting = aged(run, KEEP * 2)
    aged(a_run_of(worker, flow), KEEP - timedelta(days=1))

    assert not prune(now=NOW, keep=KEEP)
    assert Run.objects.filter(pk=waiting.pk).exists()


def a_run_of(worker, flow) -> Run:
    done = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    requests.cancel(run_id=done.pk, now=NOW, who="ana")
    return done


def test_the_clock_prunes_by_itself(worker, flow, settings):
    settings.PERFECT_RETENTION_DAYS = 7
    aged(a_run(worker, flow), timedelta(days=8))
    young = a_run(worker, flow)

    Clock(started=0.0).step(NOW, 3600.0)

    assert Run.objects.get() == young


HOUR = 3600.0


@pytest.mark.parametrize("days", [0.0, 0])
def test_no_days_mean_that_everything_is_kept(worker, flow, settings, days):
    settings.PERFECT_RETENTION_DAYS = days
    aged(a_run(worker, flow), timedelta(days=8))
    a_run(worker, flow)
    clock = Clock(started=0.0)

    for hour in range(1, 60):
        clock.step(NOW + timedelta(hours=hour), hour * HOUR)

    assert Run.objects.count() == 2


def lines_of(run: Run, count: int) -> None:
    LogLine.objects.filter(run=run).delete()
    LogLine.objects.bulk_create(
        LogLine(run=run, seq=number, attempt=1, time=NOW, level=20, message="x") for number in range(1, count + 1)
    )


def test_a_long_run_is_deleted_in_bounded_steps(worker, flow, monkeypatch):
    """No statement of any step takes more rows than a step may."""
    monkeypatch.setattr(retention, "ROWS", 1_000)
    old = aged(a_run(worker, flow), KEEP + timedelta(days=1))
    lines_of(old, 3_500)
    left = [LogLine.objects.count()]

    while prune(now=NOW, keep=KEEP):
        left.append(LogLine.objects.count())
        assert Run.objects.exists()

    assert left == [3_500, 2_500, 1_500, 500]
    assert not Run.objects.exists() and not LogLine.objects.exists() and not Event.objects.exists()


def test_while_there_is_more_the_steps_follow_each_other_and_leave_the_writer_most_of_its_time(
    worker, flow, settings, monkeypatch
):
    settings.PERFECT_RETENTION_DAYS = 7
    monkeypatch.setattr(retention, "ROWS", 1)
    aged(a_run(worker, flow), timedelta(days=8))
    a_run(worker, flow)
    clock, lived, steps = Clock(started=0.0), HOUR, 0
    begun = time.monotonic()

    again = clock.step(NOW, lived)
    while Run.objects.count() == 2:
        steps += 1
        assert NOW <= again < NOW + SWEEP
        lived += (again - NOW).total_seconds() + 1e-6  # of which a datetime knows no parts
        again = clock.step(NOW, lived)

    took = time.monotonic() - begun
    assert steps > 5 and lived - HOUR < took / PRUNE_SHARE + 1


@pytest.fixture
def history(worker, flow, settings):
    """Two runs of last week and one of today; a month is kept."""
    settings.PERFECT_RETENTION_DAYS = 30
    for days in (7, 8):
        aged(a_run(worker, flow), timedelta(days=days))
    a_run(worker, flow)
    yield
    retention.held_back = ""


def test_a_clock_that_jumps_ahead_deletes_no_history_and_it_is_said(history, caplog):
    clock = Clock(started=0.0)
    for hour in range(40):  # steady, for more than a day
        clock.step(NOW + timedelta(hours=hour), hour * HOUR)

    for hour in range(40, 50):
        clock.step(NOW + timedelta(days=3650, hours=hour), hour * HOUR)

    assert Run.objects.count() == 3
    assert caplog.text.count("over half of the history") == 1
    told = [trouble.text for trouble in troubles(NOW, [])]
    assert any("3 runs ended more than 30 days ago" in text and "is 2036-" in text for text in told)
    clock.step(NOW + timedelta(hours=51), 51 * HOUR)
    assert not any("over half" in trouble.text for trouble in troubles(NOW, []))


def test_a_clock_that_jumps_while_history_is_deleted_in_parts_stops_that(worker, flow, settings, monkeypatch):
    settings.PERFECT_RETENTION_DAYS = 30
    monkeypatch.setattr(retention, "BATCH", 1)
    for days in (40, 41):
        aged(a_run(worker, flow), timedelta(days=days))
    young = [a_run(worker, flow) for _ in range(3)]
    clock = Clock(started=0.0)
    clock.step(NOW, HOUR)
    assert Run.objects.count() == 4

    for second in range(1, 60):
        clock.step(NOW + timedelta(days=3650, seconds=second), HOUR + second)

    assert set(Run.objects.all()) >= set(young)
    retention.held_back = ""


def test_a_clock_that_is_wrong_from_the_start_deletes_no_history_for_a_day(history):
    clock, ahead = Clock(started=0.0), NOW + timedelta(days=3650)

    for hour in range(24):
        clock.step(ahead + timedelta(hours=hour), hour * HOUR)
    assert Run.objects.count() == 3

    for hour in range(24, 27):
        clock.step(ahead + timedelta(hours=hour), hour * HOUR)
    assert not Run.objects.exists()


def test_what_grows_old_day_by_day_goes_although_the_clock_was_just_set(history):
    """Less than half of the history."""
    Clock(started=0.0).step(NOW + timedelta(days=22, hours=12), HOUR)

    assert Run.objects.count() == 2
