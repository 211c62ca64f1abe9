"""An idempotency key is for one request: the same one again gives the same run, another one is refused."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.models import Flow
from flows.parameters import Refused
from runs.access import Token
from runs.models import Run
from runs.services import requests

from .conftest import NOW, SPEC, FakeWorker

LATER = NOW + timedelta(hours=1)
LATER_THERE = LATER.astimezone(timezone(timedelta(hours=2)))


@pytest.fixture
def other(worker: FakeWorker) -> Flow:
    return Flow.objects.create(name="Other", slug="other", created_at=NOW, updated_at=NOW)


def wish(flow: Flow, **values: Any) -> requests.RunRequest:
    return requests.RunRequest(flow, **{"idempotency_key": "k", **values})


def trigger(*wishes: requests.RunRequest) -> list[Run]:
    return requests.trigger_many(items=wishes, now=NOW, trigger="api", who="ana")


REQUESTS = st.fixed_dictionaries(
    {
        "parameters": st.sampled_from([None, {}, {"limit": 1}, {"limit": 2}, {"path": "a"}, {"path": "a", "limit": 1}]),
        "configuration": st.sampled_from([None, "", "development", "release"]),
        "run_at": st.sampled_from([None, LATER, LATER_THERE, LATER + timedelta(hours=1)]),
        "tags": st.sampled_from([(), ["a"], ("a",), ["b"], ["a", "b"]]),
    }
)


def said(request: dict[str, Any]) -> tuple[Any, ...]:
    """What two requests that are one have in common."""
    return (request["parameters"] or {}, request["configuration"] or "", request["run_at"], list(request["tags"]))


@given(first=REQUESTS, second=REQUESTS, together=st.booleans())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_a_key_gives_its_run_to_the_same_request_alone(
    flow: Flow, first: dict[str, Any], second: dict[str, Any], together: bool
) -> None:
    Run.objects.all().delete()
    wishes = wish(flow, **first), wish(flow, **second)
    before = [] if together else trigger(wishes[0])

    if said(first) == said(second):
        assert len({run.pk for run in [*before, *trigger(*wishes)]}) == 1
    else:
        with pytest.raises(Refused, match="used for another request") as refused:
            trigger(*wishes)
        assert refused.value.field == "idempotency_key"
    assert Run.objects.count() == (1 if before or said(first) == said(second) else 0)


def test_the_refusal_says_what_the_key_was_used_for(flow: Flow, other: Flow) -> None:
    (run,) = trigger(wish(flow))

    with pytest.raises(Refused) as refused:
        trigger(wish(other))

    assert refused.value.sentence == (
        f"this idempotency key was used for another request (flow daily-sales-etl, run {run.pk})"
    )


def test_an_unknown_parameter_is_refused_before_the_key_answers(flow: Flow) -> None:
    trigger(wish(flow))
    with pytest.raises(Refused, match="Did you mean 'limit'") as refused:
        trigger(wish(flow, parameters={"limt": 1}))
    assert refused.value.field == "limt"


@pytest.mark.parametrize("odd", [float("nan"), 10**5_000, {"a": object()}, [[[]]]], ids=type)
def test_what_is_no_json_never_meets_a_key(flow: Flow, odd: Any) -> None:
    trigger(wish(flow))
    with pytest.raises(Refused) as refused:
        trigger(wish(flow, parameters={"limit": odd}))
    assert refused.value.field == "limit"


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x00b", "\ud800", 7])
def test_a_key_that_cannot_be_kept_is_refused(flow: Flow, key: Any) -> None:
    with pytest.raises(Refused, match="1 to 200") as refused:
        trigger(wish(flow, idempotency_key=key))
    assert refused.value.field == "idempotency_key"


def test_a_flow_that_changed_meanwhile_does_not_refuse_an_honest_repeat(flow: Flow, worker: FakeWorker) -> None:
    (run,) = trigger(wish(flow, parameters={"limit": "3"}))
    flow.parameters = {"type": "object", "properties": {"limit": {"type": "string", "default": "x"}}}
    flow.configurations, flow.tags = {"other": {}}, ["new"]
    flow.save()

    assert trigger(wish(Flow.objects.get(pk=flow.pk), parameters={"limit": "3"})) == [run]


def test_a_run_of_an_earlier_version_is_known_by_its_flow(flow: Flow, other: Flow) -> None:
    (run,) = trigger(wish(flow))
    Run.objects.update(request_digest="")

    assert trigger(wish(flow, parameters={"limit": 3})) == [run]
    with pytest.raises(Refused):
        trigger(wish(other))


def test_what_is_kept_of_a_request_does_not_tell_its_secrets(flow: Flow, settings: Any) -> None:
    trigger(wish(flow, parameters={"path": "pin-1234"}))
    kept = Run.objects.get().request_digest
    settings.SECRET_KEY = "another" * 10
    Run.objects.all().delete()
    trigger(wish(flow, parameters={"path": "pin-1234"}))

    assert len(kept) == 64
    assert Run.objects.get().request_digest != kept


def test_another_request_is_a_problem_of_its_key_by_the_api(flow: Flow, client: Client, make_token: Any) -> None:
    def post(path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {secret}"}
        return client.post(f"/api{path}", json.dumps(body), content_type="application/json", headers=headers)

    secret = make_token("run")
    first = post("/flows/daily-sales-etl/runs", {"idempotency_key": "k", "run_at": "2100-01-01T00:00:00Z"})
    again = post("/flows/daily-sales-etl/runs", {"run_at": "2100-01-01T02:00:00+02:00", "idempotency_key": "k"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()

    for path, body in (
        ("/flows/daily-sales-etl/runs", {"idempotency_key": "k"}),
        ("/runs", {"items": [{"flow": "daily-sales-etl", "idempotency_key": "k", "tags": ["x"]}]}),
        ("/runs", {"items": [{"flow": "daily-sales-etl", "idempotency_key": "n", "tags": [t]} for t in "xy"]}),
    ):
        refused = post(path, body)
        assert (refused.status_code, refused.json()["field"]) == (422, "idempotency_key")
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_requests_at_one_moment_are_one_run() -> None:
    FakeWorker(SPEC).join()
    secret = Token.objects.issue(name="t", scope="run", now=datetime.now(UTC))[1]
    answers: list[tuple[int, str]] = []
    together = threading.Barrier(6)

    def ask(tag: str) -> None:
        body = json.dumps({"idempotency_key": "k", "tags": [tag]})
        together.wait()
        try:
            answer = Client().post(
                "/api/flows/daily-sales-etl/runs",
                body,
                content_type="application/json",
                headers={"Authorization": f"Bearer {secret}"},
            )
            answers.append((answer.status_code, answer.json().get("id", "")))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(tag,)) for tag in "aaabbb"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    run = Run.objects.get()
    assert sorted(answers) == [(201, str(run.pk))] * 3 + [(422, "")] * 3
