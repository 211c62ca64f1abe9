"""The REST API through Django's test client: what it gives, what it refuses, and in which words."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from perfect_client.wire import messages

from flows.models import Flow, Schedule
from runs.access import Token
from runs.ingest import reports
from runs.models import LogLine, Run
from runs.services import requests

Call = Callable[..., Any]
PROBLEM = "application/problem+json"


@pytest.fixture
def call(client: Client, make_token: Callable[..., str]) -> Call:
    """``call("GET", "/runs")`` with an admin token; the answer has ``.data``."""
    secret = make_token("admin")

    def call(method: str, path: str, body: Any = None, token: str = secret, **more: Any) -> Any:
        data = body if isinstance(body, str | bytes) else json.dumps(body) if body is not None else ""
        more.setdefault("content_type", "application/json")
        response = client.generic(method, f"/api{path}", data, headers={"Authorization": f"Bearer {token}"}, **more)
        response.data = json.loads(response.content) if response.content else None
        return response

    return call


def refused(response: Any, status: int, field: str = "") -> str:
    """The sentence of a problem document that is as RFC 9457 wants it."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == PROBLEM
    assert {"type", "title", "status", "detail"} <= set(response.data)
    assert response.data["status"] == status
    assert response.data.get("field", "") == field
    return str(response.data["detail"])


def trigger(flow: Flow, **wish: Any) -> Run:
    return requests.trigger(flow=flow, now=timezone.now(), trigger="page", who="ana", **wish)


def test_it_lists_the_library(call: Call, flow: Flow) -> None:
    assert [item["slug"] for item in call("GET", "/flows").data["items"]] == ["daily-sales-etl"]


def test_a_flow_comes_with_its_schema_plan_and_configurations(call: Call, flow: Flow) -> None:
    data = call("GET", "/flows/daily-sales-etl").data

    assert list(data["configurations"]) == ["development", "release"]
    assert data["parameters"]["properties"]["limit"]["type"] == "integer"
    assert [task["key"] for task in data["tasks"]] == ["extract", "load"]


def test_an_unknown_flow_is_refused_with_the_nearest(call: Call, flow: Flow) -> None:
    assert "Did you mean 'daily-sales-etl'?" in refused(call("POST", "/flows/daily-sale-etl/runs", {}), 404, "flow")


def test_a_trigger_becomes_a_waiting_run(call: Call, flow: Flow) -> None:
    response = call("POST", "/flows/daily-sales-etl/runs", {"parameters": {"limit": 3}, "tags": ["mine"]})

    assert response.status_code == 201
    run = Run.objects.get(pk=response.data["id"])
    assert (run.parameters, run.state, run.trigger, run.triggered_by) == ({"limit": 3}, "PENDING", "api", "token admin")
    assert response.data == {"id": str(run.pk), "state": "PENDING", "state_reason": "", "url": f"/runs/{run.pk}/"}
    assert run.tags == ["sales", "mine"]


def test_a_trigger_needs_no_body(call: Call, flow: Flow) -> None:
    assert call("POST", "/flows/daily-sales-etl/runs").status_code == 201


def test_a_run_for_later_waits_for_its_time(call: Call, flow: Flow) -> None:
    at = timezone.now() + timedelta(hours=1)
    assert call("POST", "/flows/daily-sales-etl/runs", {"run_at": at.isoformat()}).data["state"] == "SCHEDULED"


def test_the_same_idempotency_key_gives_the_same_run(call: Call, flow: Flow) -> None:
    first, second = (call("POST", "/flows/daily-sales-etl/runs", {"idempotency_key": "k"}) for _ in range(2))

    assert first.data == second.data
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("wish", "field", "word"),
    [
        ({"parameters": {"limit": "x"}}, "limit", "a whole number"),
        ({"parameters": {"limt": 1}}, "limt", "Did you mean 'limit'?"),
        ({"parameters": []}, "parameters", "dictionary"),
        ({"configuration": "devel"}, "configuration", "Did you mean 'development'?"),
        ({"run_at": "tomorrow"}, "run_at", "datetime"),
        ({"run_at": "2026-01-01T00:00"}, "run_at", "timezone"),
        ({"tags": [1]}, "tags.0", "string"),
        ({"paramters": {}}, "paramters", "not permitted"),
        ({"idempotency_key": ""}, "idempotency_key", "1 to 200"),
        ({"parameters": {"path": "x" * 300_000}}, "parameters", "262,144 are allowed"),
    ],
)
def test_a_bad_wish_is_refused_by_field(call: Call, flow: Flow, wish: Any, field: str, word: str) -> None:
    assert word in refused(call("POST", "/flows/daily-sales-etl/runs", wish), 422, field)
    assert not Run.objects.exists()


def test_a_size_too_large_is_named(call: Call, flow: Flow) -> None:
    wish = {"parameters": {"path": "x" * 300_000}}
    assert "300,0" in refused(call("POST", "/flows/daily-sales-etl/runs", wish), 422, "parameters")


@pytest.mark.parametrize("body", ["{", '{"a":', "\x00", '"text"x'])
def test_malformed_json_is_refused(call: Call, flow: Flow, body: str) -> None:
    assert refused(call("POST", "/flows/daily-sales-etl/runs", body), 400) == "The body is not JSON."


@pytest.mark.parametrize("body", ["[]", "1", '"text"'])
def test_json_that_is_no_object_is_refused(call: Call, flow: Flow, body: str) -> None:
    refused(call("POST", "/flows/daily-sales-etl/runs", body), 422, "body")


def test_a_form_is_not_json(call: Call, flow: Flow) -> None:
    refused(call("POST", "/flows/daily-sales-etl/runs", "a=1", content_type="application/x-www-form-urlencoded"), 415)


def test_bulk_runs_are_all_or_nothing(call: Call, flow: Flow) -> None:
    good = {"flow": flow.slug}
    refused(call("POST", "/runs", {"items": [good, {**good, "parameters": {"limit": "x"}}]}), 422, "limit")
    assert not Run.objects.exists()

    response = call("POST", "/runs", {"items": [good] * 1_000})
    assert response.status_code == 201
    assert len(response.data["items"]) == Run.objects.count() == 1_000


def test_more_than_a_thousand_at_once_are_refused(call: Call, flow: Flow) -> None:
    assert "1,001" in refused(call("POST", "/runs", {"items": [{"flow": flow.slug}] * 1_001}), 422, "items")


def test_run_all_starts_each_flow_that_needs_no_parameters(call: Call, flow: Flow) -> None:
    response = call("POST", "/flows/run-all", {"configuration": "release"})

    assert response.status_code == 201
    assert [Run.objects.get(pk=item["id"]).configuration for item in response.data["items"]] == ["release"]


def test_pages_of_runs_hang_together(call: Call, flow: Flow) -> None:
    made = [str(trigger(flow).pk) for _ in range(5)]

    first = call("GET", "/runs?limit=2").data
    second = call("GET", f"/runs?limit=2&cursor={first['next_cursor']}").data
    third = call("GET", f"/runs?limit=2&cursor={second['next_cursor']}").data

    assert [r["id"] for page in (first, second, third) for r in page["items"]] == sorted(made, reverse=True)
    assert third["next_cursor"] is None


def test_runs_are_found_by_each_filter(call: Call, flow: Flow) -> None:
    run = trigger(flow, tags=["büro", "a_b"])
    other = requests.cancel(run_id=trigger(flow).pk, now=timezone.now(), who="ana")
    hour = timedelta(hours=1)

    def found(query: str) -> set[str]:
        return {item["id"] for item in call("GET", f"/runs?{query}").data["items"]}

    both = {str(run.pk), str(other.pk)}
    assert found("state=cancelled") == {str(other.pk)}
    assert found("state=pending,cancelled") == both
    assert found("flow=daily-sales-etl") == both
    assert found("q=sales") == both
    assert found(f"q={run.pk}") == {str(run.pk)}
    assert found(f"q={run.short_id}") == {str(run.pk)}
    assert found("q=nothing") == set()
    assert found("tag=b%C3%BCro") == {str(run.pk)}
    assert found("tag=axb") == set()
    assert found("since=" + (timezone.now() - hour).strftime("%Y-%m-%dT%H:%M:%SZ")) == both
    assert found("until=" + (timezone.now() - hour).strftime("%Y-%m-%dT%H:%M:%SZ")) == set()


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("state=BOGUS", 422, "state"),
        ("stat=FAILED", 422, "stat"),
        ("limit=0", 422, "limit"),
        ("limit=1001", 422, "limit"),
        ("limit=x", 422, "limit"),
        ("cursor=x", 400, "cursor"),
        ("since=yesterday", 422, "since"),
        ("flow=nope", 404, "flow"),
    ],
)
def test_a_bad_query_is_refused(call: Call, flow: Flow, query: str, status: int, field: str) -> None:
    refused(call("GET", f"/runs?{query}"), status, field)


@pytest.mark.parametrize("path", ["", "/tasks", "/logs", "/artifacts"])
def test_a_run_that_is_not_there_is_404(call: Call, path: str) -> None:
    refused(call("GET", f"/runs/{uuid.uuid4()}{path}"), 404, "run")
    refused(call("GET", f"/runs/not-an-id{path}"), 404)


def test_a_run_has_the_promised_fields(call: Call, run: Run) -> None:
    promised = (
        "id flow name state state_reason progress eta_seconds attempt parameters configuration tags trigger"
        " scheduled_for created_at started_at finished_at duration_ms error worker"
    )
    assert set(promised.split()) <= set(call("GET", f"/runs/{run.pk}").data)


def test_a_secret_is_masked(call: Call, flow: Flow) -> None:
    flow.parameters["properties"]["api_key"] = {"type": "string"}
    flow.configurations = {"release": {"api_key": "s3cret-one"}}
    flow.save()
    pk = call("POST", f"/flows/{flow.slug}/runs", {"parameters": {"api_key": "s3cret-two"}}).data["id"]

    texts = [call("GET", path).content for path in (f"/runs/{pk}", "/runs", f"/flows/{flow.slug}")]

    assert Run.objects.get().parameters == {"api_key": "s3cret-two"}
    assert not any(b"s3cret" in text for text in texts)


def test_tasks_and_logs_of_a_run_have_the_promised_fields(call: Call, worker: Any, run: Run) -> None:
    order = worker.take()
    at = timezone.now().timestamp()
    worker.say(order, messages.RunStarted(at, pid=1))
    worker.say(order, messages.Logged(at, "careful", level=30), stream=messages.OUTPUT)

    task = call("GET", f"/runs/{run.pk}/tasks").data["items"][0]
    line = call("GET", f"/runs/{run.pk}/logs").data["items"][0]

    promised = "key name index state progress weight estimated_ms started_at finished_at duration_ms attempt error"
    assert set(promised.split()) <= set(task)
    assert set(line) == {"seq", "time", "level", "task", "message"}
    assert (line["seq"], line["level"], line["message"]) == (1, "WARNING", "careful")


def test_a_run_and_its_tasks_tell_their_tracebacks(call: Call, worker: Any, run: Run) -> None:
    order, at = worker.take(), timezone.now().timestamp()
    worker.say(
        order,
        messages.RunStarted(at, pid=1),
        messages.TaskStarted(at, 1, "load"),
        messages.TaskEnded(at, 1, "FAILED", "ValueError: no", "Traceback: load"),
        messages.RunEnded(at, "FAILED", error="ValueError: no", traceback="Traceback: flow"),
    )

    assert call("GET", f"/runs/{run.pk}").data["traceback"] == "Traceback: flow"
    tasks = {task["key"]: task for task in call("GET", f"/runs/{run.pk}/tasks").data["items"]}
    assert tasks["load"]["traceback"] == "Traceback: load"
    assert "traceback" not in call("GET", "/runs").data["items"][0]


def test_lines_that_have_not_ended_are_told_beside_the_log_while_the_run_runs(
    call: Call, worker: Any, run: Run
) -> None:
    order, at = worker.take(), timezone.now().timestamp()
    worker.say(order, messages.RunStarted(at, pid=1), messages.TaskStarted(at, 1, "load"))
    said = messages.LinesOpen(order.fence, order.run, [messages.LineOpen(at, "loading... ", 20, 1)])
    reports.show_open(worker=worker.id, message=said)

    log = call("GET", f"/runs/{run.pk}/logs").data
    assert log["items"] == []
    assert [(line["level"], line["task"], line["message"]) for line in log["open"]] == [("INFO", "load", "loading... ")]
    reports.show_open(worker=uuid.uuid4(), message=replace(said, lines=[]))
    assert len(call("GET", f"/runs/{run.pk}/logs").data["open"]) == 1

    worker.say(order, messages.Logged(at, "loading... done", 20, 1), messages.RunEnded(at, "COMPLETED"), first=3)
    log = call("GET", f"/runs/{run.pk}/logs").data
    assert [line["message"] for line in log["items"]] == ["loading... done"]
    assert log["open"] == []


@pytest.fixture
def long_log(run: Run) -> Run:
    now = timezone.now().replace(microsecond=0)
    LogLine.objects.bulk_create(
        LogLine(
            run=run,
            seq=n,
            attempt=1,
            time=now + timedelta(microseconds=n * 1000),
            message=f"line {n}",
            level=30 if n % 100 == 0 else 20,
        )
        for n in range(1, 10_002)
    )
    return run


def test_ten_thousand_lines_are_read_at_once_and_quickly(call: Call, long_log: Run) -> None:
    call("GET", f"/runs/{long_log.pk}/logs?limit=1")

    began = time.perf_counter()
    data = call("GET", f"/runs/{long_log.pk}/logs?limit=10000").data
    took = time.perf_counter() - began

    assert [line["seq"] for line in data["items"]] == list(range(1, 10_001))
    assert data["next_cursor"] == "10000"
    assert took < 0.5  # 0.1 s on an idle machine


def test_a_log_is_read_on_from_where_it_was_left(call: Call, long_log: Run) -> None:
    data = call("GET", f"/runs/{long_log.pk}/logs?after=9999").data
    assert [line["seq"] for line in data["items"]] == [10_000, 10_001]
    assert data["next_cursor"] is None


def test_a_log_is_filtered_by_level_and_text(call: Call, long_log: Run) -> None:
    assert len(call("GET", f"/runs/{long_log.pk}/logs?level=warning&limit=10000").data["items"]) == 100
    assert [x["seq"] for x in call("GET", f"/runs/{long_log.pk}/logs?q=LINE 77&level=30").data["items"]] == [7700]
    refused(call("GET", f"/runs/{long_log.pk}/logs?level=loud"), 422, "level")
    refused(call("GET", f"/runs/{long_log.pk}/logs?after=-1"), 422, "after")


def test_times_are_iso_with_milliseconds_in_utc(call: Call, long_log: Run) -> None:
    first, second = call("GET", f"/runs/{long_log.pk}/logs?limit=2").data["items"]
    line = LogLine.objects.get(run=long_log, seq=2)
    assert second["time"] == line.time.strftime("%Y-%m-%dT%H:%M:%S.002Z")
    assert first["time"].endswith(".001Z")


def test_cancel_ends_a_waiting_run_once(call: Call, run: Run) -> None:
    response = call("POST", f"/runs/{run.pk}/cancel", {"reason": "wrong day"})

    assert response.data["state"] == "CANCELLED"
    assert "wrong day" in Run.objects.get(pk=run.pk).state_reason
    assert "CANCELLED already" in refused(call("POST", f"/runs/{run.pk}/cancel"), 409, "state")


def test_retry_makes_a_new_run_of_a_final_one(call: Call, run: Run) -> None:
    refused(call("POST", f"/runs/{run.pk}/retry"), 409, "state")
    call("POST", f"/runs/{run.pk}/cancel")

    response = call("POST", f"/runs/{run.pk}/retry", {"parameters": {"limit": 1}})

    again = Run.objects.get(pk=response.data["id"])
    assert (response.status_code, again.rerun_of_id, again.parameters) == (201, run.pk, {"limit": 1})


def test_resume_makes_a_new_run_that_knows_what_it_resumes(call: Call, run: Run) -> None:
    refused(call("POST", f"/runs/{run.pk}/resume"), 409, "state")
    call("POST", f"/runs/{run.pk}/cancel")

    response = call("POST", f"/runs/{run.pk}/resume")

    assert (response.status_code, response.data["state"]) == (201, "PENDING")
    shown = call("GET", f"/runs/{response.data['id']}").data
    assert (shown["resume_of"], shown["resume_from"], shown["trigger"]) == (str(run.pk), None, "api")


def test_resume_refuses_a_task_that_was_not_called_and_a_body_that_it_does_not_know(call: Call, run: Run) -> None:
    call("POST", f"/runs/{run.pk}/cancel")

    assert "no call 0 of a task 'load'" in refused(
        call("POST", f"/runs/{run.pk}/resume", {"from_task": "load"}), 422, "from_task"
    )
    assert call("POST", f"/runs/{run.pk}/resume", {"from": "load"}).status_code == 422
    assert call("POST", f"/runs/{run.pk}/resume", {"from_task": "load", "call": -1}).status_code == 422
    assert Run.objects.count() == 1


def test_a_run_that_waits_cannot_be_paused(call: Call, run: Run) -> None:
    assert "only a running run can be paused" in refused(call("POST", f"/runs/{run.pk}/pause"), 409, "state")


def test_a_schedule_lives(call: Call, flow: Flow) -> None:
    wish = {"flow": flow.slug, "kind": "cron", "expression": "0 6 * * *", "timezone": "Europe/Berlin"}
    response = call("POST", "/schedules", wish)
    assert response.status_code == 201
    assert (response.data["next_at"] is not None, response.data["edited_by"]) == (True, "token admin")
    path = f"/schedules/{response.data['id']}"

    changed = call("PATCH", path, {"expression": "0 7 * * *", "overlap": "queue"}).data
    assert (changed["expression"], changed["overlap"], changed["timezone"]) == ("0 7 * * *", "queue", "Europe/Berlin")
    assert changed["next_at"] != response.data["next_at"]
    assert call("PATCH", path, {"paused": True}).data["paused_by"] == "token admin"
    assert call("PATCH", path, {"paused": False}).data["paused"] is False
    assert [item["id"] for item in call("GET", f"/schedules?flow={flow.slug}").data["items"]] == [changed["id"]]

    assert call("DELETE", path).status_code == 204
    refused(call("DELETE", path), 404, "schedule")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"expression": "61 * * * *"}, "expression"),
        ({"expression": "0 0 30 2 *"}, "expression"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"kind": "moon"}, "kind"),
        ({"kind": "once", "expression": "2001-01-01T00:00:00"}, "expression"),
        ({"overlap": "maybe"}, "overlap"),
        ({"parameters": {"limit": "x"}}, "limit"),
        ({"configuration": "nope"}, "configuration"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_schedule_is_refused_by_field(call: Call, flow: Flow, wish: Any, field: str) -> None:
    good = {"flow": flow.slug, "kind": "cron", "expression": "0 6 * * *"}

    refused(call("POST", "/schedules", {**good, **wish}), 422, field)

    assert not Schedule.objects.exists()


def test_two_schedules_of_a_flow_cannot_have_one_name(call: Call, flow: Flow) -> None:
    wish = {"flow": flow.slug, "kind": "interval", "expression": "60"}
    call("POST", "/schedules", wish)
    refused(call("POST", "/schedules", wish), 409, "name")


def test_workers_tell_their_slots_in_use(call: Call, worker: Any, run: Run) -> None:
    worker.take()
    (item,) = call("GET", "/workers").data["items"]
    assert (item["name"], item["slots"], item["free"], item["flows"]) == ("w1", 2, 1, ["daily-sales-etl"])


def test_an_address_that_is_not_there_is_a_problem_document(call: Call) -> None:
    refused(call("GET", "/nothing"), 404)
    refused(call("GET", "/"), 404)


def test_a_method_that_is_not_there_is_a_problem_document(call: Call) -> None:
    response = call("PUT", "/runs")
    refused(response, 405)
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == {"GET", "POST"}


def test_the_documentation_names_every_address_and_loads_nothing_from_elsewhere(call: Call, client: Client) -> None:
    paths = call("GET", "/openapi.json").data["paths"]
    assert {"/api/flows", "/api/runs/{run_id}/logs", "/api/schedules/{schedule_id}"} <= set(paths)

    secret = Token.objects.issue(name="d", scope="read", now=timezone.now())[1]
    page = client.get("/api/docs", headers={"Authorization": f"Bearer {secret}"})
    assert page.status_code == 200
    assert b"https://" not in page.content


def test_a_failure_inside_is_a_problem_document_without_details(
    call: Call, monkeypatch: pytest.MonkeyPatch, flow: Flow
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr("perfect_site.api.pagination.page", fail)
    assert "42" not in refused(call("GET", "/runs"), 500)
