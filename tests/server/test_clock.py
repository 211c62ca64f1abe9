"""What time does: schedules fire once per due time, silence becomes LOST and then CRASHED."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from perfect_client import protocol as p

from flows import services as flow_services
from flows.models import Schedule
from runs import dispatch
from runs.clock import CRASH_AFTER, LOST_AFTER, Clock
from runs.models import Run, Worker

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def schedule(flow):
    return flow.schedules.create(kind="cron", expression="*/5 * * * *", next_at=NOW + 5 * MINUTE)


def test_nothing_fires_before_its_time(schedule):
    Clock(NOW).step(NOW + 4 * MINUTE)

    assert not Run.objects.exists()


def test_it_fires_once_per_due_time_whatever_the_number_of_clocks(schedule):
    at = NOW + 5 * MINUTE
    for _ in range(3):
        Clock(NOW).step(at)

    assert list(Run.objects.values_list("due_at", "trigger", "state")) == [(at, "schedule", "PENDING")]
    schedule.refresh_from_db()
    assert (schedule.next_at, schedule.last_at) == (at + 5 * MINUTE, at)


def test_a_clock_that_jumps_back_fires_nothing_again(schedule):
    Clock(NOW).step(NOW + 5 * MINUTE)
    Schedule.objects.update(next_at=NOW + 5 * MINUTE)

    Clock(NOW).step(NOW + 5 * MINUTE)

    assert Run.objects.count() == 1


def test_a_paused_schedule_does_not_fire_and_catches_nothing_up(schedule):
    flow_services.pause(schedule_id=schedule.pk, now=NOW, who="ana")
    Clock(NOW).step(NOW + 60 * MINUTE)
    flow_services.resume(schedule_id=schedule.pk, now=NOW + 61 * MINUTE, who="ana")

    Clock(NOW).step(NOW + 62 * MINUTE)

    assert not Run.objects.exists()
    schedule.refresh_from_db()
    assert schedule.next_at == NOW + 65 * MINUTE


@pytest.mark.parametrize(
    ("rule", "late_by", "expected"),
    [("latest", 62, [65]), ("skip", 62, []), ("skip", 60, [65]), ("all", 27, [5, 10, 15, 20, 25, 30])],
)
def test_after_downtime_the_catch_up_rule_decides(schedule, rule, late_by, expected):
    Schedule.objects.update(catch_up=rule, overlap="allow")

    Clock(NOW).step(NOW + (5 + late_by) * MINUTE)

    assert [(at - NOW) / MINUTE for at in Run.objects.order_by("due_at").values_list("due_at", flat=True)] == expected


def test_a_week_of_downtime_is_one_run_and_not_ten_thousand(schedule):
    Clock(NOW).step(NOW + timedelta(days=8))

    assert Run.objects.count() == 1


def test_an_overlapping_run_is_skipped_and_says_why(schedule):
    clock = Clock(NOW)
    clock.step(NOW + 5 * MINUTE)

    clock.step(NOW + 10 * MINUTE)

    skipped = Run.objects.get(due_at=NOW + 10 * MINUTE)
    assert skipped.state == "SKIPPED"
    assert "of the same schedule was still pending" in skipped.state_reason


def test_cancel_running_ends_the_older_run(schedule):
    Schedule.objects.update(overlap="cancel_running")
    clock = Clock(NOW)
    clock.step(NOW + 5 * MINUTE)

    clock.step(NOW + 10 * MINUTE)

    assert list(Run.objects.order_by("due_at").values_list("state", flat=True)) == ["CANCELLED", "PENDING"]


@pytest.mark.parametrize("told", ["as it was ordered", "by who alone", "nothing"])
def test_a_run_that_cancel_running_ended_says_once_why(schedule, worker, told):
    Schedule.objects.update(overlap="cancel_running")
    clock = Clock(NOW)
    clock.step(NOW + 5 * MINUTE)
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    clock.step(NOW + 10 * MINUTE)

    ((_, cancel),) = dispatch.cancels(workers=[worker.id])
    said = {"as it was ordered": cancel.reason, "by who alone": "cancelled by clock", "nothing": ""}[told]
    worker.say(order, p.RunEnded(seconds(1), "CANCELLED", said), first=2)

    old, new = Run.objects.order_by("due_at")
    assert old.state_reason == f"cancelled by clock: run {new.short_id} of the same schedule is due"


def test_a_schedule_whose_parameters_no_longer_fit_says_so_and_harms_no_other(schedule, flow):
    Schedule.objects.update(parameters={"gone": 1})
    flow.schedules.create(name="b", kind="interval", expression="300", next_at=NOW + 5 * MINUTE)

    Clock(NOW).step(NOW + 5 * MINUTE)

    assert Run.objects.get().schedule.name == "b"
    schedule.refresh_from_db()
    assert "no parameter 'gone'" in schedule.problem and schedule.next_at == NOW + 10 * MINUTE


def test_the_daily_job_of_berlin_runs_once_on_the_night_the_clock_goes_back(flow):
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    schedule = flow.schedules.create(
        kind="cron", expression="30 2 * * *", timezone="Europe/Berlin", overlap="allow", catch_up="all"
    )
    flow_services.plan(schedule, start)
    schedule.save()
    clock = Clock(start)

    for minute in range(0, 24 * 60, 10):
        clock.step(start + minute * MINUTE)

    assert [run.due_at for run in Run.objects.all()] == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


def test_the_step_says_when_to_look_again(schedule):
    assert Clock(NOW).step(NOW + 5 * MINUTE - timedelta(seconds=2)) == NOW + 5 * MINUTE
    assert Clock(NOW).step(NOW) == NOW + timedelta(seconds=5)


# ------------------------------------------------------------------------------------------------------------- silence


@pytest.fixture
def running(worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    return run


def test_a_minute_of_silence_is_lost_and_keeps_the_run(running):
    clock = Clock(NOW - timedelta(hours=1))

    clock.step(NOW + LOST_AFTER - timedelta(seconds=1))
    assert Run.objects.get().state == "RUNNING"
    clock.step(NOW + LOST_AFTER)

    run = Run.objects.get()
    assert run.state == "LOST" and "no contact with worker w1 for 60 s" in run.state_reason


def test_five_minutes_of_silence_are_a_crash_and_the_attempt_is_stale(worker, running):
    clock = Clock(NOW - timedelta(hours=1))
    clock.step(NOW + LOST_AFTER)

    clock.step(NOW + CRASH_AFTER)

    running.refresh_from_db()
    assert running.state == "CRASHED"
    accept = worker.join(p.Held(running.fence, str(running.pk)), now=NOW + CRASH_AFTER)
    assert accept.attempts[0].verdict == "stale"


def test_a_server_that_was_away_does_not_blame_the_workers(running):
    clock = Clock(NOW + timedelta(hours=5))

    clock.step(NOW + timedelta(hours=5, seconds=59))

    assert Run.objects.get().state == "RUNNING"


def test_a_heartbeat_brings_a_lost_run_back(worker, running):
    from runs import ingest

    Clock(NOW - timedelta(hours=1)).step(NOW + LOST_AFTER)

    ingest.beat(worker=worker.id, now=NOW + LOST_AFTER)

    assert Run.objects.get().state == "RUNNING"
    assert Worker.objects.get().connected
