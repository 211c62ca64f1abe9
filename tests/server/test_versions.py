"""Whose flow is it: a flow is what the newest code says of the workers that are there, and a change is an event."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import flow as as_flow
from perfect_client.analysis.describe import flow_spec
from perfect_client.wire import messages as p

from flows.models import Change, Flow, Version
from runs.clock.steps import Clock
from runs.ingest import dispatch, reports
from runs.models import Run, Worker
from runs.services import requests
from runs.services.announcements import follow_present
from runs.services.queries import waiting_reason

from .conftest import NOW, FakeWorker
from .test_security_matrix import client_of
from .test_worker_identity import Socket

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
INTEGER: dict[str, Any] = {"type": "integer", "default": 1}
T0 = NOW.timestamp() - 10_000


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


OLD = p.FlowSpec("Plain", fingerprint="old", parameters=schema(seconds=INTEGER, word=INTEGER), source_time=T0)
NEW = replace(OLD, fingerprint="new", parameters=schema(seconds=INTEGER, mode={"type": "string"}), source_time=T0 + 100)


def names() -> list[str]:
    return sorted(Flow.objects.get(name="Plain").properties)


def joined(spec: p.FlowSpec, name: str) -> FakeWorker:
    worker = FakeWorker(spec, name=name)
    worker.join()
    return worker


def left(worker: FakeWorker) -> None:
    reports.leave(worker=worker.id, boot=worker.boot, now=NOW, why="stopped")


# ---------------------------------------------------------------------------------------------------- by real sockets


@pytest.mark.parametrize("order", [[OLD, NEW], [NEW, OLD]], ids=["new-last", "old-last"])
def test_in_a_rolling_update_the_newest_source_counts_whoever_comes_last(make_token: Any, order: Any) -> None:
    secrets = [make_token("worker", "rack-1"), make_token("worker", "rack-2")]

    async def story() -> None:
        async with Socket(secrets[0]) as first, Socket(secrets[1]) as second:
            for socket, spec in zip((first, second), order, strict=True):
                await socket.join(worker=str(uuid.uuid4()), name=f"w-{spec.fingerprint}")
                await socket.announce(spec)
            await (first if order[0] is OLD else second).announce(OLD)  # the old one says it again, as after a restart

    async_to_sync(story)()

    assert names() == ["mode", "seconds"]
    changes = list(Change.objects.values_list("who", "what"))
    told = ("worker w-new, token rack-2", "parameters added: mode; parameters removed: word")
    assert changes == ([told] if order[0] is OLD else [])


def test_a_token_of_another_worker_does_not_take_a_flow_over(make_token: Any) -> None:
    own, other = make_token("worker", "rack-1"), make_token("worker", "stranger")

    async def story() -> None:
        async with Socket(own) as honest, Socket(other) as stranger:
            await honest.join(worker=str(uuid.uuid4()))
            await honest.announce(OLD)
            await stranger.join(worker=str(uuid.uuid4()), name="x")
            await stranger.announce(p.FlowSpec("Plain", description="taken over"), p.FlowSpec("Mine"))

    async_to_sync(story)()

    flow = Flow.objects.get(name="Plain")
    assert (names(), flow.description) == (["seconds", "word"], "")
    assert Flow.objects.filter(name="Mine").exists()
    requests.trigger(flow=flow, now=timezone.now(), trigger="api", who="ana", parameters={"seconds": 1})


# ------------------------------------------------------------------------------------------------------------ the rule


def test_what_a_worker_alone_serves_it_changes_to_older_code_too():
    worker = joined(NEW, "w1")
    worker.specs = [OLD]
    worker.join()

    assert names() == ["seconds", "word"]


def test_who_claims_the_newest_source_is_named_and_loses_the_flow_when_it_leaves():
    joined(OLD, "honest")
    stranger = joined(p.FlowSpec("Plain", source_time=T0 * 3), "stranger")
    assert names() == []
    assert Change.objects.get().what == "parameters removed: seconds, word"

    left(stranger)
    Worker.objects.filter(name="stranger").update(last_seen_at=NOW - MINUTE)
    Clock(started=0.0).step(NOW, lived=61.0)

    assert names() == ["seconds", "word"]
    change = Change.objects.first()
    assert change is not None and change.who == "worker honest"
    assert change.what == "parameters added: seconds, word (no worker that is there has the version before)"


def test_a_worker_that_is_away_for_a_moment_keeps_its_version():
    joined(OLD, "old")
    left(joined(NEW, "new"))

    follow_present(now=NOW + MINUTE / 2)
    assert names() == ["mode", "seconds"]
    Worker.objects.filter(name="old").update(last_seen_at=NOW + 2 * MINUTE)
    follow_present(now=NOW + 2 * MINUTE)
    assert names() == ["seconds", "word"]


def test_all_workers_that_go_back_to_older_code_are_followed():
    one, two = joined(OLD, "w1"), joined(OLD, "w2")
    for worker in (one, two):
        worker.specs = [NEW]
        worker.join()
    one.specs = [OLD]
    one.join()
    assert names() == ["mode", "seconds"]  # one of them still has the newer code
    two.specs = [OLD]
    two.join()

    assert names() == ["seconds", "word"]


def test_of_sources_of_the_same_age_the_one_that_was_seen_last_counts_for_good():
    joined(replace(OLD, source_time=None), "old")
    joined(replace(NEW, source_time=None), "new")
    joined(replace(OLD, source_time=None), "old-again")

    assert names() == ["mode", "seconds"]


def test_a_clock_that_is_ahead_does_not_keep_newer_code_out():
    joined(replace(OLD, source_time=T0 + 10**9), "ahead")
    new = FakeWorker(replace(NEW, source_time=NOW.timestamp() + 20), name="new")
    new.join(now=NOW + MINUTE)

    assert names() == ["mode", "seconds"]


def test_only_the_newest_versions_are_kept():
    worker = joined(OLD, "w1")
    for number in range(16):
        worker.specs = [replace(OLD, fingerprint=f"f{number}", source_time=T0 + number)]
        worker.join()

    assert Version.objects.count() <= 12
    assert Flow.objects.get().fingerprint == "f15"


MOVES = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 3)), max_size=8)


@settings(max_examples=30, deadline=None)
@given(MOVES, st.lists(st.none() | st.integers(0, 3), min_size=4, max_size=4))
def test_the_flow_is_always_the_newest_version_that_is_there(moves: Any, ages: Any) -> None:
    name, workers = uuid.uuid4().hex, [FakeWorker(name=f"w{number}") for number in range(3)]
    there: dict[int, int] = {}
    seen: list[int] = []
    for number, (who, version) in enumerate(moves):
        at, worker = NOW + number * 5 * MINUTE, workers[who]
        if version < 0:
            reports.leave(worker=worker.id, boot=worker.boot, now=at - 2 * MINUTE, why="")
            there.pop(who, None)
        else:
            age = ages[version]
            source = None if age is None else T0 + age
            worker.specs = [p.FlowSpec(name, fingerprint=f"v{version}", source_time=source)]
            worker.join(now=at)
            there[who] = version
            seen += [] if version in seen else [version]
        follow_present(now=at)
        if there:
            age_of = {v: (-1 if ages[v] is None else ages[v], seen.index(v)) for v in there.values()}
            newest = max(there.values(), key=lambda v: age_of[v])
            assert Flow.objects.get(name=name).fingerprint == f"v{newest}"


# ------------------------------------------------------------------------------------------------- runs find their code


def test_a_run_goes_to_a_worker_whose_version_takes_its_parameters():
    old, new = joined(OLD, "old"), joined(NEW, "new")
    flow = Flow.objects.get()
    for parameters in ({"mode": "fast"}, {"seconds": 2}, {"mode": "slow"}):
        requests.trigger(flow=flow, now=NOW, trigger="api", who="ana", parameters=parameters)

    offers = dispatch.offer(free={old.id: 5, new.id: 1}, now=NOW)

    assert [(offer.worker, offer.order.parameters) for offer in offers] == [
        (new.id, {"mode": "fast"}),
        (old.id, {"seconds": 2}),
    ]
    left(new)
    reason = waiting_reason(Run.objects.get(state="PENDING", attempts=None))
    assert reason == "its parameters are for another version of the flow than the connected workers have: old"


# ----------------------------------------------------------------------------------------------------- where it is seen


def test_a_change_is_on_the_page_in_the_api_and_in_the_console():
    joined(OLD, "old")
    joined(NEW, "new")
    flow, client = Flow.objects.get(), client_of("admin")

    for path in (f"/flows/{flow.slug}/", f"/api/flows/{flow.slug}", f"/admin/flows/flow/{flow.pk}/change/"):
        text = client.get(path).content.decode()
        assert "parameters added: mode; parameters removed: word" in text and "worker new" in text, path


def test_a_worker_tells_when_the_file_of_a_flow_was_changed() -> None:
    spec = flow_spec(as_flow(name="here")(lambda: None))

    assert spec.source_time == os.stat(__file__).st_mtime
    assert p.from_dict(p.FlowSpec, p.to_dict(spec)) == spec
