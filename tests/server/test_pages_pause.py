"""The form of a paused run, on its page and through the API; limits and variables through the API and the console."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from perfect_client.wire import messages as p

from perfect_site.dashboard import topics
from runs.models import Limit, Question, Run, Variable

from .conftest import FakeWorker, seconds

pytestmark = pytest.mark.django_db
FORM = {
    "type": "object",
    "required": ["ok"],
    "additionalProperties": False,
    "properties": {
        "ok": {"type": "boolean"},
        "why": {"type": "string", "default": "because"},
        "api_token": {"type": "string", "default": "hush-hush"},
    },
}
HTMX = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture
def paused(worker: FakeWorker, run: Run) -> Run:
    order = worker.take()
    question = p.Asked(seconds(), 1, "pause", {"schema": FORM, "description": "<b>Ship</b> it?", "timeout": 60})
    worker.say(order, p.RunStarted(seconds(), 7), question)
    run.refresh_from_db()
    return run


@pytest.fixture
def act(client: Client, operator: Any) -> Client:
    client.force_login(operator)
    return client


@pytest.fixture
def keep(client: Client, administrator: Any) -> Client:
    client.force_login(administrator)
    return client


def answer(run: Run, **fields: str) -> dict[str, str]:
    return {"question": str(Question.objects.get().pk), **{f"p-{name}": value for name, value in fields.items()}}


def test_the_page_shows_the_form_and_no_secret(act: Client, paused: Run) -> None:
    page = act.get(f"/runs/{paused.pk}/").content.decode()

    assert "&lt;b&gt;Ship&lt;/b&gt; it?" in page and 'name="p-why"' in page and "Let it go on" in page
    assert "hush-hush" not in page


def test_the_form_is_drawn_for_all_who_watch(act: Client, paused: Run) -> None:
    drawn = topics.render(f"run:{paused.pk}", None, whole=True, since=0)

    (form,) = [message for key, message in drawn.messages if key == "#run-pause"]
    assert 'name="p-ok"' in form["html"] and "csrfmiddlewaretoken" not in form["html"]


def test_who_fills_it_in_lets_the_run_go_on(act: Client, paused: Run) -> None:
    said = act.post(f"/runs/{paused.pk}/go-on/", answer(paused, ok="true"), **HTMX)

    paused.refresh_from_db()
    assert (said.status_code, paused.state) == (200, "RUNNING")
    assert "hidden" in said.content.decode()
    assert Question.objects.get().answer == {"input": {"ok": True}}


def test_without_javascript_it_is_a_form_like_any_other(act: Client, paused: Run) -> None:
    wrong = act.post(f"/runs/{paused.pk}/go-on/", answer(paused, why="no"))
    assert wrong.status_code == 422 and "Parameter &#x27;ok&#x27; is missing" in wrong.content.decode()
    assert 'value="no"' in wrong.content.decode()

    right = act.post(f"/runs/{paused.pk}/go-on/", answer(paused, ok="true"))
    assert (right.status_code, right.headers["Location"]) == (302, f"/runs/{paused.pk}/")


def test_what_does_not_fit_comes_back_with_what_was_sent(act: Client, paused: Run) -> None:
    said = act.post(f"/runs/{paused.pk}/go-on/", answer(paused, why="no"), **HTMX)

    assert (said.status_code, said.headers["HX-Retarget"]) == (422, "#run-pause")
    assert 'value="no"' in said.content.decode()


def test_the_form_of_an_earlier_pause_answers_no_later_one(act: Client, paused: Run) -> None:
    said = act.post(f"/runs/{paused.pk}/go-on/", {**answer(paused, ok="true"), "question": "0"}, **HTMX)

    assert said.status_code == 409 and "look at what it waits for now" in said.content.decode()
    paused.refresh_from_db()
    assert paused.state == "PAUSED"


def test_the_api_tells_the_form_and_takes_the_answer(keep: Client, paused: Run) -> None:
    found = keep.get(f"/api/runs/{paused.pk}").json()["pause"]
    assert found["description"] == "<b>Ship</b> it?" and "hush-hush" not in str(found)

    said = keep.post(f"/api/runs/{paused.pk}/resume", {"input": {"ok": "perhaps"}}, content_type="application/json")
    assert (said.status_code, said.json()["field"]) == (422, "ok")
    said = keep.post(f"/api/runs/{paused.pk}/resume", {"input": {"ok": True}}, content_type="application/json")
    assert (said.status_code, said.json()["state"]) == (200, "RUNNING")
    said = keep.post(f"/api/runs/{paused.pk}/resume", {"input": {"ok": True}}, content_type="application/json")
    assert said.status_code == 409


def test_limits_through_the_api(keep: Client) -> None:
    def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        said = getattr(keep, method)(path, body, content_type="application/json")
        return said.status_code, said.json() if said.content else None

    assert send("post", "/api/limits", {"name": "db", "slots": 2})[0] == 201
    assert send("post", "/api/limits", {"name": "db", "slots": 2})[0] == 409
    assert send("post", "/api/limits", {"name": "x", "slots": -1})[0] == 422
    assert send("post", "/api/limits", {"name": "x", "slots": 1, "per_second": 0})[0] == 422
    assert send("patch", "/api/limits/db", {"slots": 5, "per_second": 2})[1]["per_second"] == 2
    assert send("patch", "/api/limits/db", {"per_second": None})[1] == {
        "name": "db",
        "slots": 5,
        "taken": 0,
        "per_second": None,
        "taken_by_rate": 0.0,
    }
    assert "Did you mean 'db'" in send("patch", "/api/limits/dbb", {"slots": 1})[1]["detail"]
    assert [row["name"] for row in keep.get("/api/limits").json()["items"]] == ["db"]
    assert send("delete", "/api/limits/db")[0] == 204


def test_variables_through_the_api(keep: Client) -> None:
    put = keep.put("/api/variables/x", {"value": [1, None], "tags": ["a"]}, content_type="application/json")
    assert (put.status_code, put.json()["value"], put.json()["tags"]) == (200, [1, None], ["a"])
    assert keep.get("/api/variables/x").json()["changed_by"]
    large = keep.put("/api/variables/x", {"value": "y" * 70_000}, content_type="application/json")
    assert (large.status_code, large.json()["field"]) == (422, "value")
    assert keep.put("/api/variables/" + "n" * 201, {"value": 1}, content_type="application/json").status_code == 422
    assert keep.delete("/api/variables/x").status_code == 204


def test_the_console_keeps_limits_and_variables(keep: Client) -> None:
    made = keep.post("/admin/runs/limit/add/", {"name": "db", "slots": "3", "per_second": ""})
    assert made.status_code == 302, made.content.decode()
    assert keep.get("/admin/runs/limit/").status_code == 200
    assert "nobody" in keep.get(f"/admin/runs/limit/{Limit.objects.get().pk}/change/").content.decode()
    made = keep.post("/admin/runs/variable/add/", {"name": "x", "value": '{"a": 1}', "tags": "[]"})
    assert made.status_code == 302, made.content.decode()
    row = Variable.objects.get()
    assert (row.value, row.changed_by) == ({"a": 1}, "admin")
    wrong = keep.post("/admin/runs/variable/add/", {"name": "y", "value": '"' + "y" * 70_000 + '"', "tags": "[]"})
    assert "bytes as JSON" in wrong.content.decode()
