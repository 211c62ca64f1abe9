"""Trigger, cancel, run again, give up: what is refused, and that nothing half-done remains."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from perfect_client.wire import messages as p

from flows.models import Flow
from flows.parameters import Conflict, Missing, Refused
from runs.clock.steps import Clock
from runs.ingest import reports
from runs.models import Event, Run, Worker
from runs.services import requests

from .conftest import NOW, SPEC, FakeWorker, seconds

pytestmark = pytest.mark.django_db


def trigger(flow, **wish):
    return requests.trigger(flow=flow, now=NOW, trigger="page", who="ana", **wish)


def test_a_trigger_is_a_waiting_run_with_the_event_that_explains_it(flow):
    run = trigger(flow, parameters={"limit": 3}, tags=["nightly"])

    run.refresh_from_db()
    assert (run.state, run.parameters, run.configuration, run.tags) == (
        "PENDING",
        {"limit": 3},
        "development",
        ["sales", "nightly"],
    )
    assert list(run.events.values_list("after", "who", "why")) == [("PENDING", "ana", "triggered from the page")]


def test_a_run_for_later_waits_for_its_time(flow):
    run = trigger(flow, run_at=NOW + timedelta(hours=1))
    clock = Clock()

    clock.step(NOW)
    assert Run.objects.get().state == "SCHEDULED"
    clock.step(NOW + timedelta(hours=1))

    run.refresh_from_db()
    assert (run.state, run.scheduled_for) == ("PENDING", NOW + timedelta(hours=1))


def test_a_time_in_the_past_means_now(flow):
    assert trigger(flow, run_at=NOW - timedelta(days=1)).state == "PENDING"


def test_the_same_idempotency_key_is_the_same_run(flow):
    assert trigger(flow, idempotency_key="k").pk == trigger(flow, idempotency_key="k").pk
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("wish", "field", "words"),
    [
        ({"parameters": {"limt": 3}}, "limt", "Did you mean 'limit'?"),
        ({"parameters": {"limit": "many"}}, "limit", "must be a whole number, not 'many'"),
        ({"parameters": {"limit": float("nan")}}, "limit", "must be a whole number"),
        ({"parameters": {"path": 5}}, "path", "must be a string, not 5"),
        ({"parameters": {"path": "a\x00b"}}, "path", "Parameter 'path' holds a NUL character"),
        ({"parameters": {"path": "\ud800"}}, "path", "Parameter 'path' holds half of a character (a lone surrogate)"),
        ({"parameters": {"limit": float("inf")}}, "limit", "must be a whole number, not inf"),
        ({"parameters": {"limit": 10**5000}}, "limit", "too many digits"),
        ({"parameters": {"limit": 10**1001}}, "limit", "must be a whole number"),
        ({"parameters": {"limit": True}}, "limit", "must be a whole number, not True"),
        ({"parameters": [1]}, "parameters", "must be an object"),
        ({"parameters": {"path": "x" * 300_000}}, "parameters", "262,144 are allowed"),
        ({"parameters": {"path": object()}}, "path", "cannot be written as JSON"),
        ({"configuration": "relase"}, "configuration", "Did you mean 'release'?"),
        ({"tags": [""]}, "tags", "a tag must be"),
        ({"tags": [5]}, "tags", "a tag must be"),
        ({"tags": ["x"] * 51}, "tags", "too many"),
        ({"idempotency_key": ""}, "idempotency_key", "1 to 200"),
        ({"idempotency_key": "x" * 201}, "idempotency_key", "1 to 200"),
    ],
)
def test_a_bad_wish_is_refused_with_the_field_and_what_would_be_right(flow, wish, field, words):
    with pytest.raises(Refused) as refused:
        trigger(flow, **wish)

    assert refused.value.field == field
    assert words in refused.value.sentence
    assert not Run.objects.exists()


def test_deep_nesting_is_refused_in_a_sentence(flow):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(Refused, match="nested deeper than 64"):
        trigger(flow, parameters={"path": deep})


def test_a_missing_parameter_is_named_with_its_kind(db):
    spec = p.FlowSpec(
        "Needs",
        parameters={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        configurations={"none": {}, "given": {"n": 5}},
    )
    FakeWorker(spec).join()
    flow = Flow.objects.get()

    with pytest.raises(Refused, match="Parameter 'n' is missing: it must be a whole number."):
        trigger(flow)
    assert trigger(flow, configuration="given").state == "PENDING"


def test_many_are_all_or_none(flow):
    good, bad = requests.RunRequest(flow), requests.RunRequest(flow, parameters={"nope": 1})

    with pytest.raises(Refused):
        requests.trigger_many(items=[good, bad], now=NOW, trigger="api", who="bot")

    assert not Run.objects.exists()
    assert not Event.objects.exists()


def test_a_thousand_at_once_are_the_limit(flow):
    with pytest.raises(Refused, match=r"1,001 runs at once are too many; 1,000 are allowed"):
        requests.trigger_many(items=[requests.RunRequest(flow)] * 1001, now=NOW, trigger="api", who="bot")


def test_run_all_takes_each_flow_that_needs_nothing(flow):
    needs = p.FlowSpec("Needs", parameters={"type": "object", "properties": {"n": {}}, "required": ["n"]})
    FakeWorker(needs, p.FlowSpec("Other")).join()

    runs = requests.trigger_all(now=NOW, trigger="page", who="ana", configuration="release")

    assert [(run.flow.name, run.configuration) for run in runs] == [("Daily Sales ETL", "release"), ("Other", "")]


def test_a_waiting_run_is_cancelled_at_once(run):
    requests.cancel(run_id=run.pk, now=NOW, who="ana", why="not today")

    run.refresh_from_db()
    assert (run.state, run.state_reason, run.finished_at) == ("CANCELLED", "cancelled by ana: not today", NOW)


def test_cancelling_twice_is_one_request(worker, run):
    worker.take()

    requests.cancel(run_id=run.pk, now=NOW, who="ana")
    requests.cancel(run_id=run.pk, now=NOW + timedelta(seconds=1), who="bob")

    run.refresh_from_db()
    assert (run.state, run.cancel_requested_by, run.cancel_requested_at) == ("RUNNING", "ana", NOW)


def test_a_final_run_cannot_be_cancelled(run):
    requests.cancel(run_id=run.pk, now=NOW, who="ana")

    with pytest.raises(Conflict, match="CANCELLED already"):
        requests.cancel(run_id=run.pk, now=NOW, who="ana")


def test_run_again_is_a_new_run_like_the_old_one(flow):
    old = trigger(flow, parameters={"limit": 3}, configuration="release", tags=["x"])
    requests.cancel(run_id=old.pk, now=NOW, who="ana")

    new = requests.retry(run_id=old.pk, now=NOW, trigger="page", who="bob")

    assert (new.rerun_of_id, new.parameters, new.configuration, new.tags) == (
        old.pk,
        {"limit": 3},
        "release",
        ["sales", "x"],
    )
    assert Run.objects.get(pk=old.pk).state == "CANCELLED"


def test_a_live_run_cannot_be_run_again(run):
    with pytest.raises(Conflict, match="cancel it first"):
        requests.retry(run_id=run.pk, now=NOW, trigger="page", who="ana")


def test_what_is_not_there_is_said(db):
    missing = uuid4()
    with pytest.raises(Missing, match=str(missing)):
        requests.cancel(run_id=missing, now=NOW, who="ana")


def test_only_a_lost_run_can_be_given_up_and_its_attempt_is_stale_from_then_on(worker, run):
    order = worker.take()
    with pytest.raises(Conflict):
        requests.give_up(run_id=run.pk, now=NOW, who="ana")
    Run.objects.filter(pk=run.pk).move("LOST", now=NOW, who="clock")

    requests.give_up(run_id=run.pk, now=NOW, who="ana")

    run.refresh_from_db()
    assert run.state == "CRASHED"
    assert isinstance(worker.say(order, p.RunEnded(seconds(), "COMPLETED")), p.DropRun)


@pytest.mark.parametrize(
    "change", [{"state": "COMPLETED"}, {"state": "WHATEVER"}, {"progress": 100.0}, {"progress": -1.0}]
)
def test_the_database_itself_refuses_what_must_not_be(run, change):
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(**change)


def test_the_law_of_moves_holds_for_every_pair_of_states(flow):
    from runs.rules.states import FINAL, MOVES, RunState

    for before in RunState:
        for after in RunState:
            rows = Run.objects.filter(pk__in=[trigger(flow).pk, trigger(flow).pk])
            rows.update(state=before, finished_at=NOW if before in FINAL else None)
            one, other = rows

            moved = one.move(after, now=NOW, who="test"), rows.filter(pk=other.pk).move(after, now=NOW, who="test") == 1

            assert moved == ((before, after) in MOVES,) * 2, (before, after)


@pytest.mark.parametrize("name", ["", "   ", "x" * 201])
def test_a_flow_without_a_usable_name_is_a_problem_of_its_worker(db, name):
    worker = FakeWorker(p.FlowSpec(name))

    worker.join()

    from runs.models import Worker

    assert not Flow.objects.exists()
    assert len(Worker.objects.get().problems) == 1


def test_new_code_changes_the_plan_but_not_what_a_person_changed(worker, flow):
    from dataclasses import replace

    schedule = p.ScheduleSpec("cron", "0 0 * * *")
    worker.specs = [replace(SPEC, schedules=[schedule], fingerprint="1")]
    worker.join()
    row = flow.schedules.get()
    row.expression, row.edited_by = "0 5 * * *", "ana"
    row.save()

    worker.specs = [
        replace(SPEC, tasks=SPEC.tasks[:1], schedules=[replace(schedule, expression="0 7 * * *")], fingerprint="2")
    ]
    worker.join()

    assert flow.tasks.count() == 1
    assert flow.schedules.get().expression == "0 5 * * *"


def test_a_schedule_that_never_fires_says_so_on_its_row(worker, flow):
    from dataclasses import replace

    worker.specs = [replace(SPEC, schedules=[p.ScheduleSpec("cron", "0 0 30 2 *")], fingerprint="1")]

    worker.join()

    row = flow.schedules.get()
    assert row.next_at is None and row.problem


def test_an_unclaimed_journal_of_another_database_is_unknown(worker):
    accept = worker.join(p.Held(99, str(uuid4())))

    assert accept.attempts == [p.Verdict(99, "unknown")]


def test_a_worker_that_comes_back_without_its_run_has_crashed_it(worker, run):
    worker.take()

    worker.join()

    run.refresh_from_db()
    assert (run.state, run.state_reason) == ("CRASHED", "its worker came back without it")


def test_a_worker_that_comes_back_with_its_run_goes_on(worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    Run.objects.filter(pk=run.pk).move("LOST", now=NOW, who="clock")

    accept = worker.join(p.Held(order.fence, order.run, facts=5))

    assert accept.attempts == [p.Verdict(order.fence, "current", facts=1)]
    assert Run.objects.get().state == "RUNNING"


def test_a_second_live_worker_of_the_same_identity_is_refused(serving, worker):
    worker.boot = "boot-2"

    with pytest.raises(reports.WorkerRefused, match="connected already"):
        worker.join(now=NOW + timedelta(seconds=5))
    worker.join(now=NOW + timedelta(seconds=16))


def test_a_worker_that_was_killed_together_with_its_server_is_let_in_at_once(worker):
    worker.boot = "boot-2"
    reports.begin()

    worker.join(now=NOW + timedelta(seconds=1))

    assert Worker.objects.get().connected


def test_a_newer_protocol_is_refused_in_a_sentence(db):
    with pytest.raises(reports.WorkerRefused, match="update the server"):
        reports.join(message=p.Joined(str(uuid4()), "b", protocol=99), now=NOW)


def test_ids_are_version_7_and_in_the_order_of_their_making():
    from runs.models import uuid7

    made = [uuid7() for _ in range(10_000)]

    assert made == sorted(made) and len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}
