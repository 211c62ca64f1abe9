"""Values of another type are refused everywhere alike, with a sentence that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from flows.models import Flow, Schedule
from runs.models import Limit, Run, Variable

NIGHTLY = {"flow": "daily-sales-etl", "kind": "cron", "expression": "0 6 * * *"}
TRIGGER, LIMITS, SCHEDULES = "/flows/daily-sales-etl/runs", "/limits", "/schedules"


@pytest.fixture
def ask(client: Client, make_token: Any, flow: Flow) -> Any:
    headers = {"Authorization": f"Bearer {make_token('admin')}"}

    def ask(method: str, path: str, body: Any = None) -> Any:
        text = body if isinstance(body, str) else json.dumps(body) if body is not None else ""
        return client.generic(method, f"/api{path}", text, content_type="application/json", headers=headers)

    return ask


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (LIMITS, {"name": "a", "slots": False}, "slots"),
        (LIMITS, {"name": "a", "slots": "2"}, "slots"),
        (LIMITS, {"name": "a", "slots": 2.5}, "slots"),
        (LIMITS, {"name": "a", "slots": 1 << 31}, "slots"),
        (LIMITS, {"name": "a", "slots": 1, "per_second": True}, "per_second"),
        (LIMITS, {"name": "a", "slots": 1, "per_second": 5e-324}, "per_second"),
        (LIMITS, {"name": "a", "slots": 1, "per_second": 0}, "per_second"),
        (LIMITS, '{"name": "a", "slots": 1, "per_second": NaN}', "per_second"),
        (LIMITS, '{"name": "a", "slots": 1, "per_second": 1e999}', "per_second"),
        (LIMITS, {"name": 7, "slots": 1}, "name"),
        (LIMITS, {"name": "a\0b", "slots": 1}, "name"),
        (SCHEDULES, {**NIGHTLY, "paused": 1}, "paused"),
        (SCHEDULES, {**NIGHTLY, "paused": "yes"}, "paused"),
        (SCHEDULES, {**NIGHTLY, "kind": "moon"}, "kind"),
        (SCHEDULES, {**NIGHTLY, "expression": 60}, "expression"),
        (SCHEDULES, {**NIGHTLY, "name": "a\0b"}, "name"),
        (TRIGGER, {"run_at": 0.5}, "run_at"),
        (TRIGGER, {"run_at": "0.5"}, "run_at"),
        (TRIGGER, {"run_at": True}, "run_at"),
        (TRIGGER, {"run_at": "9999-12-31T23:59:59-12:00"}, "run_at"),
        (TRIGGER, {"run_at": "0001-01-01T00:00:00Z"}, "run_at"),
        (TRIGGER, {"configuration": 1}, "configuration"),
        (TRIGGER, {"idempotency_key": 7}, "idempotency_key"),
        (TRIGGER, {"tags": "a"}, "tags"),
        (TRIGGER, {"tags": [True]}, "tags.0"),
        (TRIGGER, {"parameters": "a"}, "parameters"),
        ("/runs", {"items": {"flow": "daily-sales-etl"}}, "items"),
        ("/runs", {"items": [{"flow": "daily-sales-etl", "run_at": 1}]}, "items.0.run_at"),
    ],
)
def test_a_body_of_another_type_is_refused_by_field(ask: Any, path: str, body: Any, field: str) -> None:
    answer = ask("POST", path, body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert "value error" not in answer.json()["detail"].lower()
    assert not (Run.objects.exists() or Limit.objects.exists() or Schedule.objects.exists())


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/runs?until=0.5", "until"),
        ("/runs?since=1", "since"),
        ("/runs?since=9999-12-31T23:59:59Z", "since"),
        ("/runs?until=2026-01-01", "until"),
        ("/runs?limit=1.5", "limit"),
        ("/runs?limit=true", "limit"),
        ("/runs?q=%00", "q"),
        ("/runs?q=" + "x" * 201, "q"),
        ("/runs?tag=" + "x" * 201, "tag"),
        ("/runs?limt=1", "limt"),
        ("/flows?archived=2", "archived"),
        ("/schedules?flow=%00", "flow"),
        ("/limits?flow=x", "flow"),
    ],
)
def test_a_query_of_another_type_is_refused_by_name(ask: Any, path: str, field: str) -> None:
    answer = ask("GET", path)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


@pytest.mark.parametrize("body", [{"slots": True}, {"per_second": 5e-324}, {"per_second": "1"}, {"slots": -1}])
def test_a_change_is_as_strict_as_a_beginning(ask: Any, body: Any) -> None:
    ask("POST", LIMITS, {"name": "gpu", "slots": 2})

    assert ask("PATCH", "/limits/gpu", body).status_code == 422
    assert Limit.objects.values("slots", "per_second").get() == {"slots": 2, "per_second": None}


@pytest.mark.parametrize("rate", ["5e-324", "nan", "inf", "-1", "0", "1e10"])
def test_the_console_takes_no_rate_that_the_api_refuses(rate: str, client: Client, db: None) -> None:
    client.force_login(User.objects.create_superuser("root"))
    answer = client.post("/admin/runs/limit/add/", {"name": "gpu", "slots": "2", "per_second": rate})

    assert answer.context["adminform"].form.errors["per_second"]
    assert not Limit.objects.exists()


def test_what_is_right_is_taken(ask: Any) -> None:
    assert ask("POST", LIMITS, {"name": "gpu", "slots": 2, "per_second": 1}).status_code == 201
    assert (
        ask("POST", TRIGGER, {"run_at": "2100-01-01T00:00:00+02:00", "parameters": {"limit": "3"}}).status_code == 201
    )
    assert ask("PUT", "/variables/v", {"value": [True, 1.5, None]}).status_code == 200
    assert Variable.objects.get().value == [True, 1.5, None]
    assert ask("GET", "/runs?since=2020-01-01T00:00:00Z&limit=5").json()["items"][0]["parameters"] == {"limit": 3}


@pytest.mark.parametrize("path", ["/api/flows/%00", "/api/flows/a%00b/runs", "/flows/%00/", "/api/limits/%00"])
def test_a_name_with_nul_is_no_name(path: str, ask: Any, client: Client, viewer: User) -> None:
    if path.startswith("/api"):
        assert ask("POST" if path.endswith("runs") else "PATCH", path[4:], {}).status_code in (404, 422)
    else:
        client.force_login(viewer)
        assert client.get(path).status_code == 404
