"""Offer → claim → start: each waiting run goes to exactly one worker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from perfect_client.wire import messages as p

from runs.clock.steps import Clock
from runs.ingest import dispatch, reports
from runs.models import Run
from runs.services import requests

from .conftest import NOW, SPEC, FakeWorker, tick

pytestmark = pytest.mark.django_db


def trigger(flow, n=1):
    return [requests.trigger(flow=flow, now=NOW, trigger="page", who="ana") for _ in range(n)]


def test_it_offers_the_oldest_runs_up_to_the_free_slots(worker, flow):
    runs = trigger(flow, 3)

    offers = worker.offers(free=2)

    assert [o.run for o in offers] == [str(run.pk) for run in runs[:2]]
    assert Run.objects.get(pk=runs[2].pk).state == "PENDING"


def test_an_offer_says_what_to_run(worker, flow):
    requests.trigger(
        flow=flow, now=NOW, trigger="api", who="bot", parameters={"limit": 3}, configuration="release", tags=["x"]
    )

    (offer,) = worker.offers()

    assert (offer.flow, offer.parameters, offer.configuration, offer.tags, offer.attempt, offer.trigger) == (
        "Daily Sales ETL",
        {"limit": 3},
        "release",
        ["sales", "x"],
        1,
        "api",
    )


def test_a_run_is_offered_once(worker, run):
    worker.offers()

    assert worker.offers() == []


def test_the_emptiest_worker_gets_the_run(worker, flow):
    other = FakeWorker(SPEC, slots=5, name="w2")
    other.join()
    trigger(flow)

    (offer,) = dispatch.offer(free={worker.id: 1, other.id: 5}, now=NOW)

    assert offer.worker == other.id


def test_a_worker_without_the_flow_is_offered_nothing(worker, run):
    stranger = FakeWorker(name="stranger")
    stranger.join()

    assert stranger.offers() == []


def test_a_claim_is_answered_by_start_also_when_it_is_repeated(worker, run):
    (order,) = worker.offers()

    assert worker.claim(order) == p.StartRun(order.fence)
    assert worker.claim(order) == p.StartRun(order.fence)
    assert Run.objects.get(pk=run.pk).attempt == 1


def test_another_worker_cannot_claim_it(worker, run):
    (order,) = worker.offers()
    thief = FakeWorker(SPEC, name="thief")
    thief.join()

    assert isinstance(thief.claim(order), p.DropRun)
    assert Run.objects.get(pk=run.pk).state == "OFFERED"


def test_an_offer_that_nobody_claims_goes_back_without_using_up_an_attempt(worker, run):
    (order,) = worker.offers()

    tick(Clock(), NOW, NOW + timedelta(seconds=20))

    run.refresh_from_db()
    assert (run.state, run.attempt, run.fence) == ("PENDING", 0, None)
    assert isinstance(worker.claim(order), p.DropRun)


def test_an_offer_is_not_taken_back_too_early(worker, run):
    worker.offers()

    tick(Clock(), NOW, NOW + timedelta(seconds=19))

    run.refresh_from_db()
    assert run.state == "OFFERED"


def test_the_offers_of_a_worker_that_left_go_back(worker, run):
    worker.offers()

    reports.leave(worker=worker.id, boot=worker.boot, now=NOW, why="gone")

    run.refresh_from_db()
    assert (run.state, run.state_reason) == ("PENDING", "the worker left before it claimed the run")


def test_offers_that_nobody_claimed_go_back_and_name_their_worker(worker, flow):
    other = FakeWorker(SPEC, name="w2")
    other.join()
    trigger(flow, 2)
    offers = [*worker.offers(free=1), *other.offers()]

    assert len(offers) == 2
    dispatch.expire(fences=[offer.fence for offer in offers], now=NOW)

    assert set(Run.objects.values_list("state", "state_reason")) == {
        ("PENDING", "worker w1 did not answer in time"),
        ("PENDING", "worker w2 did not answer in time"),
    }


def test_fences_only_grow(worker, run):
    (first,) = worker.offers()
    dispatch.expire(fences=[first.fence], now=NOW)

    (second,) = worker.offers()

    assert second.fence > first.fence


def test_a_cancelled_offer_is_not_started(worker, run):
    (order,) = worker.offers()
    requests.cancel(run_id=run.pk, now=NOW, who="ana")

    assert isinstance(worker.claim(order), p.DropRun)


def test_a_cancel_becomes_an_order_for_the_worker_that_has_the_run(worker, run):
    order = worker.take()
    requests.cancel(run_id=run.pk, now=NOW, who="ana")

    assert dispatch.cancels(workers=[worker.id]) == [(worker.id, p.CancelRun(order.fence, "cancelled by ana", 10.0))]


def test_a_queueing_schedule_waits_for_its_earlier_run(worker, flow):
    schedule = flow.schedules.create(kind="cron", expression="* * * * *", overlap="queue")
    wishes = [requests.RunRequest(flow, schedule=schedule, due_at=NOW + timedelta(minutes=n)) for n in range(2)]
    requests.trigger_many(items=wishes, now=NOW, trigger="schedule", who="schedule")

    first = worker.offers()
    assert len(first) == 1
    worker.claim(first[0])
    worker.say(first[0], p.RunEnded(NOW.timestamp(), "COMPLETED"))

    assert len(worker.offers()) == 1
