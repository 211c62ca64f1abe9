"""Which worker offers which flow, what it says of its code, and what becomes of a flow that nobody offers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from perfect_client.wire import messages as p

from flows import services as flow_services
from flows.models import Flow
from flows.parameters import Conflict
from runs import events
from runs.access import Token
from runs.clock.steps import Clock
from runs.ingest import reports
from runs.models import Attempt, Event, Offering, Run, Worker
from runs.services import offerings, requests
from runs.services.queries import run_json, waiting_reason

from .conftest import NOW, SPEC, FakeWorker, seconds

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
BROKEN = "etl.py:12 does not import: SyntaxError: invalid syntax; its last good code is used"
FRESH = replace(
    SPEC,
    fingerprint="1",
    start="fresh",
    start_reason="starts fresh: importing polars left 2 native threads",
    notes=["The default of 'day' is the moment of the import: date.today(). Use None and work it out in the flow."],
)


def said(flow: Flow) -> tuple[str, str, str, list[str]]:
    row = Offering.objects.get(flow=flow)
    return row.start, row.start_reason, row.problem, row.notes


@pytest.fixture
def call(make_token: Any) -> Any:
    secrets = {scope: make_token(scope) for scope in ("read", "run", "admin")}

    def call(method: str, path: str, body: Any = None, scope: str = "admin") -> Any:
        data = json.dumps(body) if body is not None else ""
        headers = {"Authorization": f"Bearer {secrets[scope]}"}
        answer = Client().generic(method, f"/api{path}", data, content_type="application/json", headers=headers)
        return answer.status_code, json.loads(answer.content) if answer.content else None

    return call


# ---------------------------------------------------------------------------------------------------- what workers say


def test_what_a_worker_says_of_a_flow_is_kept_for_this_worker():
    FakeWorker(FRESH).join()
    FakeWorker(replace(FRESH, start="fork", start_reason="", notes=[]), name="w2").join()

    rows = Offering.objects.order_by("worker__name").values_list("worker__name", "start", "start_reason", "notes")
    assert list(rows) == [("w1", "fresh", FRESH.start_reason, FRESH.notes), ("w2", "fork", "", [])]


def test_it_changes_although_the_code_of_the_flow_has_not(worker, flow):
    worker.specs = [replace(FRESH, problem=BROKEN)]
    worker.join()
    updated = Flow.objects.get().updated_at
    worker.specs = [replace(FRESH, start="fork", start_reason="", notes=[])]

    worker.join(now=NOW + MINUTE)

    assert said(flow) == ("fork", "", "", [])
    assert Flow.objects.get().updated_at == updated  # the flow's own row was left alone


def test_an_announcement_takes_as_many_queries_for_a_hundred_flows_as_for_one():
    def queries(count: int, **changes: Any) -> int:
        worker = FakeWorker(*[replace(FRESH, name=f"Flow {n}") for n in range(count)], name=f"w{count}")
        worker.join()
        worker.specs = [replace(spec, **changes) for spec in worker.specs]
        message = p.FlowsAnnounced(worker.specs)
        with CaptureQueriesContext(
            connection,
        ) as caught:
            reports.announce(worker=worker.id, message=message, now=NOW)
        return len(caught)

    assert queries(100) == queries(1) < 12
    assert queries(102, problem=BROKEN) == queries(2, problem=BROKEN) < 12


def test_a_flow_that_is_announced_no_more_is_offered_no_more(worker, flow):
    worker.specs = [replace(SPEC, name="Another")]
    worker.join()

    assert list(Offering.objects.values_list("flow__name", flat=True)) == ["Another"]
    assert worker.offers() == []


def test_the_api_says_it_by_flow_and_by_worker(call, flow, worker):
    worker.specs = [replace(FRESH, problem=BROKEN)]
    worker.join()
    expected = {"start": "fresh", "start_reason": FRESH.start_reason, "problem": BROKEN, "notes": FRESH.notes}

    (offer,) = call("GET", "/flows/daily-sales-etl")[1]["offers"]
    (row,) = call("GET", "/workers")[1]["items"]

    assert offer == {"worker": "w1", "worker_id": str(worker.id), "connected": True, **expected}
    assert row["offers"] == [{"flow": "daily-sales-etl", **expected}]
    assert row["flows"] == ["daily-sales-etl"]


def test_the_list_of_workers_takes_as_many_queries_for_many_as_for_one(call, worker):
    with CaptureQueriesContext(connection) as one:
        call("GET", "/workers")
    for number in range(2, 8):
        FakeWorker(SPEC, replace(SPEC, name=f"Only {number}"), name=f"w{number}").join()

    with CaptureQueriesContext(connection) as many:
        call("GET", "/workers")

    assert len(many) <= len(one)


def test_its_page_hears_of_it_by_the_bell(worker, flow, django_capture_on_commit_callbacks):
    heard: set[str] = set()
    stop = events.subscribe(heard.update)
    with django_capture_on_commit_callbacks(execute=True):
        reports.leave(worker=worker.id, boot=worker.boot, now=NOW, why="gone")
    stop()

    assert {events.OVERVIEW, events.WORKERS, events.flow_topic(flow.slug)} <= heard


# ------------------------------------------------------------------------------------------ runs of the last good code


def test_a_run_of_the_last_good_code_says_so(worker, run):
    worker.specs = [replace(SPEC, problem=BROKEN)]
    worker.join()

    worker.take()

    run.refresh_from_db()
    assert run.state_reason == f"not the newest code: {BROKEN}"
    assert Event.objects.get(run=run, after="RUNNING").why == run.state_reason
    assert run_json(run, NOW)["code_problem"] == BROKEN


def test_it_still_says_so_when_it_has_ended_and_the_code_is_good_again(worker, run):
    worker.specs = [replace(SPEC, problem=BROKEN)]
    worker.join()
    order = worker.take()
    worker.specs = [SPEC]
    worker.join(p.Held(order.fence, order.run, started=True))
    worker.say(order, p.RunStarted(seconds()), p.RunEnded(seconds(1), "COMPLETED"))

    run.refresh_from_db()
    assert (run.state, run_json(run, NOW)["code_problem"]) == ("COMPLETED", BROKEN)


def test_a_run_of_the_newest_code_says_nothing(worker, run):
    worker.take()

    run.refresh_from_db()
    assert (run.state_reason, run_json(run, NOW)["code_problem"], Attempt.objects.get().problem) == ("", None, "")


# ---------------------------------------------------------------------------------------------------------- what rests


@pytest.fixture
def schedule(flow):
    return flow.schedules.create(kind="cron", expression="*/5 * * * *", next_at=NOW + 5 * MINUTE, overlap="allow")


def withdrawn(worker: FakeWorker, after: timedelta = MINUTE) -> None:
    """The worker announces all but its flow."""
    specs, worker.specs = worker.specs, [replace(SPEC, name="Another")]
    worker.join(now=NOW + after)
    worker.specs = specs


def test_a_schedule_rests_when_no_worker_has_its_flow(worker, flow, schedule):
    withdrawn(worker)

    again = Clock().step(NOW + 60 * MINUTE)

    assert not Run.objects.exists()
    schedule.refresh_from_db()
    assert schedule.rests == "rests: no worker has this flow since 2026-03-02 12:01 UTC"
    assert again == NOW + 60 * MINUTE + timedelta(seconds=5)  # what rests does not hurry the clock


@pytest.mark.parametrize(
    ("rule", "due"), [("latest", [60]), ("skip", []), ("all", [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60])]
)
def test_it_goes_on_by_itself_and_catches_up_as_it_says(worker, flow, schedule, rule, due):
    flow.schedules.update(catch_up=rule)
    withdrawn(worker)
    Clock().step(NOW + 62 * MINUTE)
    worker.join(now=NOW + 62 * MINUTE)

    Clock().step(NOW + 62 * MINUTE)

    assert [(at - NOW) / MINUTE for at in Run.objects.order_by("due_at").values_list("due_at", flat=True)] == due
    schedule.refresh_from_db()
    assert (schedule.rests, schedule.next_at) == ("", NOW + 65 * MINUTE)


def test_a_worker_that_is_only_offline_keeps_its_flows(worker, flow, schedule):
    reports.leave(worker=worker.id, boot=worker.boot, now=NOW, why="gone")

    Clock().step(NOW + 5 * MINUTE)

    (run,) = Run.objects.all()
    assert run.state == "PENDING"
    assert waiting_reason(run).startswith("no connected worker has this flow; w1 had it")


def test_a_flow_that_another_worker_has_does_not_rest(worker, flow, schedule):
    FakeWorker(SPEC, name="w2").join()

    withdrawn(worker)

    flow.refresh_from_db()
    assert flow.resting_since is None


def test_a_wish_for_a_resting_flow_is_taken_and_told(call, worker, flow):
    withdrawn(worker)

    status, made = call("POST", "/flows/daily-sales-etl/runs", {})

    assert status == 201
    assert made["state_reason"].startswith("no worker has this flow since 2026-03-02 12:01 UTC; the run starts")
    assert call("GET", f"/runs/{made['id']}")[1]["state_reason"] == made["state_reason"]
    assert call("GET", "/runs")[1]["items"][0]["state_reason"] == made["state_reason"]
    worker.join()
    assert [order.run for order in worker.offers()] == [made["id"]]
    assert "no worker" not in call("GET", f"/runs/{made['id']}")[1]["state_reason"]


# ---------------------------------------------------------------------------------------------------- what is archived


def test_an_archived_flow_leaves_the_library_and_its_schedules_rest(call, flow, schedule):
    status, data = call("PATCH", "/flows/daily-sales-etl", {"archived": True})

    assert (status, data["archived"], data["archived_by"]) == (200, True, "token admin")
    assert call("GET", "/flows")[1]["items"] == []
    assert [item["slug"] for item in call("GET", "/flows?archived=true")[1]["items"]] == ["daily-sales-etl"]
    Clock().step(NOW + 60 * MINUTE)
    assert not Run.objects.exists()
    assert call("GET", "/schedules")[1]["items"][0]["rests"] == "rests: token admin archived the flow"


def test_what_a_person_archived_no_announcement_brings_back(worker, flow):
    flow_services.archive(flow_id=flow.pk, now=NOW, who="ana")
    worker.specs = [replace(SPEC, description="new", fingerprint="2")]

    worker.join()

    flow.refresh_from_db()
    assert (flow.archived, flow.archived_by, flow.description) == (True, "ana", "new")


def test_what_others_have_called_enters_the_library_when_it_is_announced(db):
    flow_services.flow_called(name="Daily Sales ETL", now=NOW)

    FakeWorker(SPEC).join()

    assert list(Flow.objects.values_list("archived", "slug")) == [(False, "daily-sales-etl")]


def test_unarchived_it_goes_on_from_now_and_catches_nothing_up(flow, schedule):
    flow_services.archive(flow_id=flow.pk, now=NOW, who="ana")

    flow_services.unarchive(flow_id=flow.pk, now=NOW + 61 * MINUTE, who="bo")
    Clock().step(NOW + 62 * MINUTE)

    assert not Run.objects.exists()
    schedule.refresh_from_db()
    flow.refresh_from_db()
    assert (schedule.next_at, flow.archived, flow.archived_by) == (NOW + 65 * MINUTE, False, "")


def test_the_second_wish_changes_nothing(flow):
    first = flow_services.archive(flow_id=flow.pk, now=NOW, who="ana")
    second = flow_services.archive(flow_id=flow.pk, now=NOW + MINUTE, who="bo")

    assert (second.archived_by, second.archived_at) == (first.archived_by, NOW) == ("ana", NOW)


def test_what_was_never_in_the_library_cannot_leave_it(db):
    flow = flow_services.flow_called(name="Inner", now=NOW)

    for deed in (flow_services.archive, flow_services.unarchive):
        with pytest.raises(Conflict, match="no worker has announced Inner"):
            deed(flow_id=flow.pk, now=NOW, who="ana")


@pytest.mark.parametrize("body", [{"archived": "yes"}, {"archived": None}, {}, {"archived": True, "name": "x"}])
def test_only_true_and_false_are_taken(call, flow, body):
    assert call("PATCH", "/flows/daily-sales-etl", body)[0] == 422


# --------------------------------------------------------------------------------------------------- what is forgotten


def gone(worker: FakeWorker) -> None:
    reports.leave(worker=worker.id, boot=worker.boot, now=NOW, why="it was stopped")


def test_a_worker_that_has_gone_can_be_forgotten(call, worker, flow):
    gone(worker)

    assert call("DELETE", f"/workers/{worker.id}") == (204, None)

    assert call("GET", "/workers")[1]["items"] == []
    assert not Offering.objects.exists()
    flow.refresh_from_db()
    assert flow.resting_since is not None
    assert call("DELETE", f"/workers/{worker.id}")[0] == 404


def test_its_runs_keep_its_name(call, worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()), p.RunEnded(seconds(1), "COMPLETED"))
    gone(worker)

    offerings.forget_worker(worker_id=worker.id, now=NOW, who="ana")

    assert call("GET", f"/runs/{run.pk}")[1]["worker"] == "w1"
    row = Worker.objects.get()
    assert (row.host, row.pid, row.problems, row.left_reason) == ("", 0, [], "forgotten by ana")


def test_a_connected_worker_is_not_forgotten(call, worker):
    Worker.objects.update(last_seen_at=timezone.now())

    status, data = call("DELETE", f"/workers/{worker.id}")

    assert (status, data["detail"]) == (409, "worker w1 is connected; stop it, then forget it")


def test_a_worker_whose_run_may_go_on_is_not_forgotten(call, worker, run):
    worker.take()
    gone(worker)

    status, data = call("DELETE", f"/workers/{worker.id}")

    assert (status, data["detail"]) == (409, "worker w1 has a run that may go on there; give up or wait first")
    assert Worker.objects.known().exists()


def test_one_that_comes_back_after_all_is_known_again(worker, flow):
    gone(worker)
    offerings.forget_worker(worker_id=worker.id, now=NOW, who="ana")

    worker.join(now=NOW + MINUTE)

    assert list(Worker.objects.known().values_list("name", "connected")) == [("w1", True)]
    flow.refresh_from_db()
    assert flow.resting_since is None


def test_what_a_forgotten_worker_did_meanwhile_arrives_when_it_is_back(worker, run):
    order = worker.take()
    gone(worker)
    Run.objects.filter(pk=run.pk).update(state="LOST")
    requests.give_up(run_id=run.pk, now=NOW, who="ana")
    offerings.forget_worker(worker_id=worker.id, now=NOW, who="ana")

    accept = worker.join(p.Held(order.fence, order.run, started=True), now=NOW + MINUTE)

    assert [verdict.verdict for verdict in accept.attempts] == ["stale"]


# ----------------------------------------------------------------------------------------------------- what is refused


def test_what_the_server_refuses_comes_back_as_sentences(worker):
    dead = replace(SPEC, name="Late", file="etl.py", line=9, schedules=[p.ScheduleSpec("cron", "61 * * * *")])
    worker.specs = [replace(SPEC, name=" ", file="etl.py", line=3), dead]

    refused = reports.announce(worker=worker.id, message=p.FlowsAnnounced(worker.specs), now=NOW)

    assert refused[0] == "flow '' (etl.py:3) is not served: a flow's name must have 1 to 200 characters"
    assert refused[1].startswith("schedule 'default' of flow 'Late' does not fire: ")
    assert len(refused) == 2


def test_problems_are_those_of_the_last_announcement(worker):
    for problems in (["etl.py:12 does not import: SyntaxError"], []):
        reports.announce(worker=worker.id, message=p.FlowsAnnounced(worker.specs, problems), now=NOW)
        assert Worker.objects.get().problems == problems


# ----------------------------------------------------------------------------------------------------------- migration


@pytest.mark.django_db(transaction=True)
def test_the_rows_of_before_survive_the_new_columns():
    executor = MigrationExecutor(connection)
    everything = executor.loader.graph.leaf_nodes()
    try:
        old = executor.migrate([("runs", "0008_ordered_json"), ("flows", "0002_ordered_json")]) and executor
        apps = old.loader.project_state([("runs", "0008_ordered_json"), ("flows", "0002_ordered_json")]).apps
        flows = apps.get_model("flows", "Flow").objects
        kept, alone = (flows.create(name=name, slug=name, created_at=NOW, updated_at=NOW) for name in ("kept", "alone"))
        worker = apps.get_model("runs", "Worker").objects.create(
            id="00000000-0000-7000-8000-000000000001", name="w1", boot="b", joined_at=NOW, last_seen_at=NOW
        )
        worker.flows.add(kept)
    finally:
        MigrationExecutor(connection).migrate(everything)

    assert list(Offering.objects.values_list("worker__name", "flow__name", "problem", "notes")) == [
        ("w1", "kept", "", [])
    ]
    resting = dict(Flow.objects.values_list("name", "resting_since"))
    assert resting["kept"] is None and resting["alone"] is not None
    Offering.objects.create(worker_id=worker.pk, flow_id=alone.pk)  # its key counts on


# ------------------------------------------------------------------------------------------------ who is gone for long


def joins(token: str, name: str, now=NOW) -> Worker:
    """A worker with a new identity comes and goes."""
    fake = FakeWorker(SPEC, name=name)
    key = Token.objects.get(name=token).pk
    message = p.Joined(str(fake.id), fake.boot, name=name, slots=1)
    reports.join(message=message, now=now, token=key)
    reports.announce(worker=fake.id, message=p.FlowsAnnounced(fake.specs), now=now)
    reports.leave(worker=fake.id, boot=fake.boot, now=now, why="cut")
    return Worker.objects.get(pk=fake.id)


def names() -> list[str]:
    return list(Worker.objects.known().order_by("joined_at").values_list("name", flat=True))


def test_one_token_makes_so_many_workers_and_then_the_one_that_is_gone_for_longest_goes(make_token, monkeypatch):
    monkeypatch.setattr(offerings, "MOST_WORKERS", 3)
    make_token("worker", "ours")
    make_token("worker", "theirs")
    joins("theirs", "other", NOW - MINUTE)

    for n in range(5):
        joins("ours", f"w{n}", NOW + n * MINUTE)

    assert names() == ["other", "w2", "w3", "w4"]
    assert Worker.objects.count() == 4


def test_a_worker_is_refused_where_all_of_its_token_are_there_or_hold_runs(make_token, monkeypatch):
    monkeypatch.setattr(offerings, "MOST_WORKERS", 2)
    make_token("worker", "ours")
    holds, there = joins("ours", "holds"), joins("ours", "there")
    Run.objects.create(
        flow=Flow.objects.get(), state="RUNNING", worker=holds, trigger="page", created_at=NOW, started_at=NOW
    )
    Worker.objects.filter(pk=there.pk).update(connected=True)

    with pytest.raises(reports.WorkerRefused, match="its token is used by 2 workers"):
        joins("ours", "third")
    assert set(names()) == {"holds", "there"}


def test_a_known_worker_comes_back_however_many_there_are(make_token, monkeypatch):
    make_token("worker", "ours")
    first = joins("ours", "first")
    joins("ours", "second", NOW - MINUTE)
    monkeypatch.setattr(offerings, "MOST_WORKERS", 1)

    key = Token.objects.get().pk
    reports.join(message=p.Joined(str(first.pk), "boot-2", name="first"), now=NOW + MINUTE, token=key)

    assert set(names()) == {"first", "second"}


@pytest.mark.parametrize("used", [False, True])
def test_a_worker_that_is_gone_for_long_is_forgotten_by_the_clock(make_token, worker, used):
    make_token("worker", "ours")
    gone = joins("ours", "gone")
    worker.join()
    if used:
        run = Run.objects.create(
            flow=Flow.objects.get(),
            state="COMPLETED",
            worker=gone,
            trigger="page",
            created_at=NOW,
            finished_at=NOW,
            progress=100,
        )
        Attempt.objects.create(run=run, worker=gone, number=1, offered_at=NOW, claimed_at=NOW)
    clock = Clock(0.0)
    kept_for = offerings.GONE_FOR if used else offerings.UNUSED_FOR

    def step(after: timedelta, lived: timedelta | None = None) -> None:
        clock.step(NOW + after, (lived or after).total_seconds())

    step(timedelta())
    step(kept_for - MINUTE)
    step(2 * kept_for, kept_for + 60 * MINUTE)  # the clock was set ahead
    assert set(names()) == {"gone", "w1"}
    step(2 * kept_for + 60 * MINUTE, kept_for + 120 * MINUTE)

    assert names() == ["w1"]  # it is connected
    assert Worker.objects.filter(name="gone").exists() is used  # the history of its run keeps the name
    assert not Offering.objects.filter(worker=gone).exists()
