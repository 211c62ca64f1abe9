"""What time does: schedules fire once per due time, silence becomes LOST and then CRASHED."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from perfect_client.wire import messages as p

from flows import services as flow_services
from flows.models import Schedule
from runs.clock.steps import CRASH_AFTER, LOST_AFTER, Clock
from runs.ingest import dispatch, reports
from runs.models import Limit, Run, Worker
from runs.services import limits

from .conftest import NOW, seconds, tick

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def schedule(flow):
    return flow.schedules.create(kind="cron", expression="*/5 * * * *", next_at=NOW + 5 * MINUTE)


def test_nothing_fires_before_its_time(schedule):
    Clock().step(NOW + 4 * MINUTE)

    assert not Run.objects.exists()


def test_it_fires_once_per_due_time_whatever_the_number_of_clocks(schedule):
    at = NOW + 5 * MINUTE
    for _ in range(3):
        Clock().step(at)

    assert list(Run.objects.values_list("due_at", "trigger", "state")) == [(at, "schedule", "PENDING")]
    schedule.refresh_from_db()
    assert (schedule.next_at, schedule.last_at) == (at + 5 * MINUTE, at)


def test_a_clock_that_jumps_back_fires_nothing_again(schedule):
    Clock().step(NOW + 5 * MINUTE)
    Schedule.objects.update(next_at=NOW + 5 * MINUTE)

    Clock().step(NOW + 5 * MINUTE)

    assert Run.objects.count() == 1


def test_a_paused_schedule_does_not_fire_and_catches_nothing_up(schedule):
    flow_services.pause(schedule_id=schedule.pk, now=NOW, who="ana")
    Clock().step(NOW + 60 * MINUTE)
    flow_services.resume(schedule_id=schedule.pk, now=NOW + 61 * MINUTE, who="ana")

    Clock().step(NOW + 62 * MINUTE)

    assert not Run.objects.exists()
    schedule.refresh_from_db()
    assert schedule.next_at == NOW + 65 * MINUTE


@pytest.mark.parametrize(
    ("rule", "late_by", "expected"),
    [("latest", 62, [65]), ("skip", 62, []), ("skip", 60, [65]), ("all", 27, [5, 10, 15, 20, 25, 30])],
)
def test_after_downtime_the_catch_up_rule_decides(schedule, rule, late_by, expected):
    Schedule.objects.update(catch_up=rule, overlap="allow")

    Clock().step(NOW + (5 + late_by) * MINUTE)

    assert [(at - NOW) / MINUTE for at in Run.objects.order_by("due_at").values_list("due_at", flat=True)] == expected


def test_a_week_of_downtime_is_one_run_and_not_ten_thousand(schedule):
    Clock().step(NOW + timedelta(days=8))

    assert Run.objects.count() == 1


def test_an_overlapping_run_is_skipped_and_says_why(schedule):
    clock = Clock()
    clock.step(NOW + 5 * MINUTE)

    clock.step(NOW + 10 * MINUTE)

    skipped = Run.objects.get(due_at=NOW + 10 * MINUTE)
    assert skipped.state == "SKIPPED"
    assert "of the same schedule was still pending" in skipped.state_reason


def test_cancel_running_ends_the_older_run(schedule):
    Schedule.objects.update(overlap="cancel_running")
    clock = Clock()
    clock.step(NOW + 5 * MINUTE)

    clock.step(NOW + 10 * MINUTE)

    assert list(Run.objects.order_by("due_at").values_list("state", flat=True)) == ["CANCELLED", "PENDING"]


@pytest.mark.parametrize("told", ["as it was ordered", "by who alone", "nothing"])
def test_a_run_that_cancel_running_ended_says_once_why(schedule, worker, told):
    Schedule.objects.update(overlap="cancel_running")
    clock = Clock()
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

    Clock().step(NOW + 5 * MINUTE)

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
    clock = Clock()

    for minute in range(0, 24 * 60, 10):
        clock.step(start + minute * MINUTE)

    assert [run.due_at for run in Run.objects.all()] == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


def test_the_step_says_when_to_look_again(schedule):
    assert Clock().step(NOW + 5 * MINUTE - timedelta(seconds=2)) == NOW + 5 * MINUTE
    assert Clock().step(NOW) == NOW + timedelta(seconds=5)


# ------------------------------------------------------------------------------------------------------------- silence


@pytest.fixture
def running(worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    return run


def test_a_minute_of_silence_is_lost_and_keeps_the_run(running):
    clock = Clock()

    tick(clock, NOW, NOW + LOST_AFTER - timedelta(seconds=1))
    assert Run.objects.get().state == "RUNNING"
    tick(clock, NOW + LOST_AFTER, NOW + LOST_AFTER)

    run = Run.objects.get()
    assert run.state == "LOST" and "no contact with worker w1 for 60 s" in run.state_reason


def test_five_minutes_of_silence_are_a_crash_and_the_attempt_is_stale(worker, running):
    tick(Clock(), NOW, NOW + CRASH_AFTER)

    running.refresh_from_db()
    assert running.state == "CRASHED" and "out of contact for 5 minutes" in running.state_reason
    accept = worker.join(p.Held(running.fence, str(running.pk)), now=NOW + CRASH_AFTER)
    assert accept.attempts[0].verdict == "stale"


def test_a_server_that_was_away_does_not_blame_the_workers(running):
    tick(Clock(), NOW + timedelta(hours=5), NOW + timedelta(hours=5, seconds=59))

    assert Run.objects.get().state == "RUNNING"


def test_a_heartbeat_brings_a_lost_run_back(worker, running):
    tick(Clock(), NOW, NOW + LOST_AFTER)
    assert Run.objects.get().state == "LOST"

    reports.beat(worker=worker.id, now=NOW + LOST_AFTER)

    assert Run.objects.get().state == "RUNNING"
    assert Worker.objects.get().connected


# ------------------------------------------------------------------------------------------------ clocks that are wrong


@pytest.mark.parametrize("jump", [10 * MINUTE, timedelta(days=3650), -10 * MINUTE, timedelta(days=-365)])
def test_a_jump_of_the_wall_clock_ends_no_run(worker, running, jump):
    clock, at = Clock(), NOW
    for second in range(0, 120, 5):
        at = NOW + timedelta(seconds=second) + (jump if second > 30 else timedelta())
        if second % 10 == 0 and second != 40:
            reports.beat(worker=worker.id, now=at)
        clock.step(at, second)
        assert Run.objects.get().state == "RUNNING"

    reports.beat(worker=worker.id, now=at)
    for second in range(120, 185, 5):
        clock.step(at + timedelta(seconds=second - 120), second)
    assert Run.objects.get().state == "LOST"  # the silence that is real is seen under a wrong clock too


@pytest.mark.parametrize("asleep", [30, 325, 86_400])
def test_a_server_that_was_stopped_counts_no_silence_that_it_could_not_have_heard(worker, running, asleep):
    clock = Clock()
    tick(clock, NOW, NOW + timedelta(seconds=50))
    woken = NOW + timedelta(seconds=50 + asleep)

    tick(clock, woken, woken + LOST_AFTER - timedelta(seconds=1))

    assert Run.objects.get().state == "RUNNING"


def test_while_there_is_no_server_a_clock_alone_blames_no_worker(running):
    served = False
    clock = Clock(served=lambda: served)
    tick(clock, NOW, NOW + CRASH_AFTER)
    assert Run.objects.get().state == "RUNNING"

    served, since = True, NOW + CRASH_AFTER
    tick(clock, since, since + LOST_AFTER - timedelta(seconds=1))
    assert Run.objects.get().state == "RUNNING"
    tick(clock, since + LOST_AFTER, since + LOST_AFTER)
    assert Run.objects.get().state == "LOST"


def test_an_offer_is_taken_back_in_time_although_the_clock_was_set_back(worker, run):
    clock = Clock()
    worker.offers()

    for second in range(0, 25, 5):
        clock.step(NOW + timedelta(seconds=second) - (timedelta(hours=2) if second else timedelta()), second)

    run.refresh_from_db()
    assert run.state == "PENDING"


TIMINGS = [("interval", "10"), ("cron", "* * * * *")]


def due_times(schedule) -> list[datetime]:
    return list(Run.objects.filter(schedule=schedule).order_by("due_at").values_list("due_at", flat=True))


@pytest.mark.parametrize(
    ("kind", "expression", "catch_up", "restarted"),
    [
        (*TIMINGS[0], "all", False),
        (*TIMINGS[0], "latest", True),
        (*TIMINGS[1], "all", True),
        (*TIMINGS[1], "skip", False),
    ],
)
def test_after_years_ahead_and_back_a_schedule_goes_on_at_once(
    flow, kind, expression, catch_up, restarted, monkeypatch
):
    monkeypatch.setattr("runs.clock.steps.CATCH_UP_LIMIT", 3)
    schedule = flow.schedules.create(kind=kind, expression=expression, catch_up=catch_up, overlap="allow", next_at=NOW)
    clock = Clock()
    clock.step(NOW, 0.0)
    clock.step(NOW + timedelta(days=3650), 5.0)
    before = set(due_times(schedule))

    clock = Clock() if restarted else clock
    back = NOW + timedelta(seconds=10)
    for second in range(0, 70, 5):
        clock.step(back + timedelta(seconds=second), 10.0 + second)

    every = timedelta(seconds=10) if kind == "interval" else MINUTE
    new = [at for at in due_times(schedule) if at not in before]
    assert new == [NOW + every * n for n in range(1, 1 + timedelta(seconds=75) // every)][-len(new) :] and new
    schedule.refresh_from_db()
    assert schedule.next_at <= back + timedelta(seconds=70) + every


@pytest.mark.parametrize(("kind", "expression"), TIMINGS)
def test_after_two_hours_back_a_schedule_goes_on_at_once_and_fires_no_due_time_twice(flow, kind, expression):
    schedule = flow.schedules.create(kind=kind, expression=expression, overlap="allow", next_at=NOW)
    clock, lived = Clock(), 0.0
    for start in (NOW, NOW - timedelta(hours=2), NOW - timedelta(hours=2, minutes=1)):
        known = len(due_times(schedule))
        for second in range(0, 125, 5):
            lived += 5.0
            clock.step(start + timedelta(seconds=second), lived)
        assert len(due_times(schedule)) > known

    assert len(due_times(schedule)) == len(set(due_times(schedule)))


def test_a_next_time_that_another_machine_set_wrong_is_found_by_and_by(flow):
    clock = Clock()
    clock.step(NOW, 0.0)
    for number in range(120):
        flow.schedules.create(name=f"s{number}", kind="interval", expression="60", next_at=NOW + timedelta(days=3650))

    for second in range(5, 30, 5):
        clock.step(NOW + timedelta(seconds=second), second)

    assert not Schedule.objects.filter(next_at__gt=NOW + timedelta(minutes=2)).exists()


def test_after_a_jump_all_schedules_are_looked_at_in_bounded_steps_at_once(flow):
    clock, back = Clock(), NOW - timedelta(hours=2)
    clock.step(NOW, 0.0)
    for number in range(120):
        flow.schedules.create(name=f"s{number}", kind="interval", expression="60", next_at=NOW)

    assert [clock.step(back, 5.0) == back for _ in range(3)] == [True, True, False]

    assert not Schedule.objects.exclude(next_at=back + timedelta(minutes=1)).exists()


def test_a_one_off_time_and_a_rare_one_stay_where_they_are(flow):
    once = flow.schedules.create(kind="once", expression="2031-01-01 00:00", name="once")
    rare = flow.schedules.create(kind="cron", expression="0 0 29 2 *", name="rare")
    for schedule in (once, rare):
        flow_services.plan(schedule, NOW)
        schedule.save()

    Clock().step(NOW + MINUTE, 0.0)

    assert {row.next_at for row in Schedule.objects.all()} == {once.next_at, rare.next_at}


def test_a_rate_goes_on_at_once_although_the_clock_was_set_back(flow):
    limits.create_limit(name="api", slots=2, per_second=1.0, now=NOW)
    Limit.objects.update(level=2.0, level_at=NOW)
    back = NOW - timedelta(hours=2)

    limits._Limits(back)

    assert Limit.objects.get().taken_by_rate(back + timedelta(seconds=2)) == 0.0
