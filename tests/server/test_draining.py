"""Two processes of one worker: the older one drains and keeps its runs, the newer one takes the new runs."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone
from perfect_client.wire import messages as p

from flows.models import Flow
from perfect_site.dashboard.overview import workers
from runs import events
from runs.ingest import dispatch, reports
from runs.models import Question, Run, Worker
from runs.services import queries, questions, requests

from .conftest import NOW, SPEC, FakeWorker, seconds

LATER = NOW + timedelta(seconds=2)


def newer(worker: FakeWorker, beside: list[int], older: str = "boot-1", now=LATER) -> p.Accept:
    """A second process of the worker joins, which knows from its disk what the older one holds."""
    message = p.Joined(str(worker.id), "boot-2", name="w1", slots=2, pid=2, older=[older], beside=beside)
    return reports.join(message=message, now=now)


@pytest.fixture
def order(worker: FakeWorker, run: Run) -> p.OfferRun:
    """A run that the older process holds while it drains."""
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    reports.drains(worker=worker.id, boot="boot-1", running=1, now=NOW)
    return order


def test_a_newer_process_is_let_in_and_its_join_crashes_nothing(worker, order):
    accept = newer(worker, [order.fence])

    assert accept.draining
    row = Worker.objects.get()
    assert (row.boot, row.pid, row.connected, row.draining) == ("boot-2", 2, True, {"boot-1": 1})
    assert Run.objects.get().state == "RUNNING"
    assert worker.say(order, p.Logged(seconds(), "on"), first=2) == p.Acknowledge(order.fence, 2)


def test_it_is_let_in_before_the_server_has_heard_that_the_older_one_drains(worker, run):
    order = worker.take()

    newer(worker, [order.fence])

    assert Worker.objects.get().boot == "boot-2"
    assert Run.objects.get().state == "RUNNING"


def test_a_run_that_no_process_of_it_holds_has_crashed(worker, order):
    newer(worker, [])

    assert Run.objects.get().state == "CRASHED"


def test_the_draining_process_comes_back_beside_the_newer_one(worker, order, flow):
    newer(worker, [order.fence])
    other = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    mine = worker.take(LATER)
    offered = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    worker.offers(free=1, now=LATER)
    reports.leave(worker=worker.id, boot="boot-1", now=LATER, why="cut")
    assert Worker.objects.get().draining == {} and Worker.objects.get().connected

    held = [p.Held(order.fence, order.run, facts=1, started=True)]
    message = p.Joined(str(worker.id), "boot-1", name="old name", draining=True, held=held)
    accept = reports.join(message=message, now=LATER)

    assert accept.attempts == [p.Verdict(order.fence, "current", facts=1)]
    row = Worker.objects.get()
    assert (row.boot, row.name, row.draining) == ("boot-2", "w1", {"boot-1": 1})
    other.refresh_from_db()
    offered.refresh_from_db()
    assert (other.state, other.fence, offered.state) == ("RUNNING", mine.fence, "OFFERED")


def test_the_newer_one_comes_back_without_forgetting_the_draining_one(worker, order):
    newer(worker, [order.fence])
    reports.leave(worker=worker.id, boot="boot-2", now=LATER, why="cut")
    reports.beat(worker=worker.id, now=LATER, boot="boot-1")
    assert not Worker.objects.get().connected

    newer(worker, [order.fence])

    assert Worker.objects.get().draining == {"boot-1": 1}
    assert Run.objects.get().state == "RUNNING"


def test_the_end_of_the_draining_one_leaves_the_newer_one_connected(worker, order):
    newer(worker, [order.fence])

    reports.leave(worker=worker.id, boot="boot-1", now=LATER, why="it was stopped")

    row = Worker.objects.get()
    assert (row.connected, row.draining, row.left_reason) == (True, {}, "")


def test_a_process_that_drains_alone_is_connected_and_takes_no_runs(worker, order, flow):
    row = Worker.objects.get()

    assert row.connected and not row.takes_runs
    waiting = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    assert queries.waiting_reason(waiting) == "every worker with this flow is draining and takes no new run: w1"
    assert [shown.word for shown in workers(NOW)] == ["draining, 1 run"]
    reports.leave(worker=worker.id, boot="boot-1", now=NOW, why="it was stopped")
    assert not Worker.objects.get().connected and Worker.objects.get().draining == {}


def test_the_slots_of_the_newer_one_are_counted_without_what_the_older_one_holds(worker, order, flow, run):
    newer(worker, [order.fence])

    (shown,) = workers(LATER)

    assert (shown.word, shown.drains, shown.used) == ("connected", "draining, 1 run", 0)
    reports.announce(worker=worker.id, message=p.FlowsAnnounced([SPEC]), now=LATER)
    assert queries.flow_waits_for(Flow.objects.get()) == "about to be offered to a worker"


def test_the_workers_page_and_the_api_say_that_it_drains(worker, order, client, viewer, make_token):
    newer(worker, [order.fence])
    Worker.objects.update(last_seen_at=timezone.now())
    client.force_login(viewer)

    assert "An older process of it is draining, 1 run." in client.get("/workers/").content.decode()
    headers = {"authorization": f"Bearer {make_token('read')}"}
    assert client.get("/api/workers", headers=headers).json()["items"][0]["draining"] == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="another server may be connected to them")
def test_a_server_that_begins_knows_of_no_draining_process(worker, order):
    reports.begin()

    assert Worker.objects.get().draining == {}


def test_a_process_whose_end_was_lost_on_the_way_is_closed_wherever_it_is_connected(worker, run, monkeypatch):
    worker.take()
    rung: list[str] = []
    monkeypatch.setattr(events, "publish", lambda *topics: rung.extend(topics))

    reports.join(message=p.Joined(str(worker.id), "boot-2", dead=["boot-1"]), now=LATER)

    assert {events.joined_topic(worker.id, "boot-1"), events.joined_topic(worker.id, "boot-2")} <= set(rung)
    assert Run.objects.get().state == "CRASHED"


def test_a_third_process_is_refused_while_the_newest_one_is_alive(serving, worker, order):
    newer(worker, [order.fence])
    worker.boot = "boot-3"

    with pytest.raises(reports.WorkerRefused, match="connected already"):
        worker.join(now=LATER)


# ---------------------------------------------------------------------- several server processes, each with one of them


@pytest.fixture
def told(worker: FakeWorker, order: p.OfferRun) -> UUID:
    """The older process is to stand still, and has an answer to hear."""
    newer(worker, [order.fence])
    run = Run.objects.get()
    requests.pause(run_id=run.pk, now=LATER, who="ana")
    Question.objects.create(
        attempt_id=order.fence, number=1, kind="variable.get", body={}, asked_at=LATER, answer={"value": 1}
    )
    return worker.id


def test_who_has_only_the_newer_one_leaves_the_words_to_the_older_one_unsaid(told, order):
    assert dispatch.holds(workers=[told], without=[order.fence]) == []
    assert questions.due(workers=[told], now=LATER, without=[order.fence]) == []

    assert dispatch.holds(workers=[], besides=[order.fence]) == [(told, p.HoldRun(order.fence))]
    assert questions.due(workers=[], now=LATER, besides=[order.fence]) == [
        (told, p.Answer(order.fence, 1, {"value": 1}))
    ]


def test_who_has_both_says_them_once(told, order):
    assert dispatch.holds(workers=[told], besides=[order.fence]) == [(told, p.HoldRun(order.fence))]
    assert dispatch.holds(workers=[told], besides=[order.fence]) == []
