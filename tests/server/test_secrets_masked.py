"""A secret is nowhere to be read: no page, no JSON, no console, no socket message, no search shows or tells it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from flows import timetable
from flows.models import Schedule
from flows.parameters import Refused, masked, masked_schema
from perfect_site.dashboard import topics
from runs.models import Run
from runs.services import requests
from tests.worker.leaking import leaks_of

from .pages import make_flow, make_run, make_worker
from .test_security_matrix import ALL, client_of

pytestmark = pytest.mark.django_db

DECLARED, NAMED, NESTED = "hunter2-declared", "hunter2-named", "hunter2-nested"
DEFAULT, CONFIGURED = "hunter2-default", "hunter2-config"
SCHEMA = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "writeOnly": True, "format": "password"},
        "db_password": {"type": "string", "default": DEFAULT},
        "options": {"type": "object", "default": {"authorization": DEFAULT}},
        "login": {
            "type": "object",
            "title": "Login",
            "properties": {"user": {"type": "string"}, "pin": {"type": "string", "writeOnly": True}},
        },
        "max_tokens": {"type": "integer", "default": 700},
    },
    "required": ["key"],
    "additionalProperties": False,
}
VALUES = {
    "key": DECLARED,
    "db_password": NAMED,
    "options": {"api_key": NESTED, "depth": 3},
    "login": {"user": "ana", "pin": NESTED},
    "max_tokens": 500,
}


@pytest.fixture
def run(db: None) -> Run:
    now = timezone.now()
    flow = make_flow(now, parameters=SCHEMA, configurations={"release": {"db_password": CONFIGURED, "key": CONFIGURED}})
    make_worker(flow, now)
    return make_run(flow, now, parameters=VALUES, configuration="release")


@pytest.fixture
def schedule(run: Run) -> Schedule:
    values = {"kind": "cron", "expression": "0 6 * * *", "parameters": VALUES}
    return timetable.create(flow=run.flow, values=values, now=timezone.now(), who="ana")


def pages(run: Run, schedule: Schedule) -> list[str]:
    values = {
        "<str:slug>": run.flow.slug,
        "<slug>": run.flow.slug,
        "<slug:name>": "running",
        "<int:pk>": schedule.pk,
        "<int:schedule_id>": schedule.pk,
        "<uuid:pk>": run.pk,
        "<run_id>": run.pk,
        "<logform:form>": "log",
        "<int:content_type_id>": 1,
        "<path:content_type_id>": 1,
        "<id>": 1,
    }
    found = [f"/flows/{run.flow.slug}/?from={run.pk}", f"/runs/{run.pk}/?tab=parameters", f"/runs/{run.pk}/?tab=events"]
    for route in ALL:
        key = run.flow.pk if "flows/flow/" in route else schedule.pk if "schedule/" in route else run.pk
        for pattern, value in {**values, "<path:object_id>": key}.items():
            route = route.replace(pattern, str(value))
        found.append("/" + route)
    return found


def root() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root-of-secrets"))
    return client


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "superuser"])
def test_no_address_shows_a_secret_to_anybody(run: Run, schedule: Schedule, role: str) -> None:
    client = root() if role == "superuser" else client_of(role)

    shown = 0
    for path in pages(run, schedule):
        answer = client.get(path, follow=True)
        assert answer.streaming or b"hunter2" not in answer.content, path  # what streams is the log alone
        shown += answer.status_code == 200
    assert shown > 20


def test_no_socket_message_shows_a_secret(run: Run) -> None:
    for topic in ("overview", "runs", "schedules", f"run:{run.pk}", f"flow:{run.flow.slug}", f"run:{run.pk}:log"):
        drawing = topics.render(topic, None, whole=True, since=0)
        assert "hunter2" not in repr(drawing), topic


def test_what_is_no_secret_is_shown_as_it_is(run: Run) -> None:
    assert masked(run.flow, VALUES) == {
        "key": "***",
        "db_password": "***",
        "options": {"api_key": "***", "depth": 3},
        "login": {"user": "ana", "pin": "***"},
        "max_tokens": 500,
    }
    told = masked_schema(run.flow)["properties"]
    assert (told["db_password"]["default"], told["options"]["default"]) == ("***", {"authorization": "***"})
    assert told["max_tokens"]["default"] == 700


@pytest.mark.parametrize(("text", "count"), [("hunter2", 0), ("hunter2-na", 0), ("ana", 1), ("depth", 1)])
def test_a_search_does_not_tell_what_a_secret_begins_with(run: Run, text: str, count: int) -> None:
    answer = client_of("viewer").get("/runs/", {"q": text})

    assert answer.content.decode().count(f'data-run="{run.pk}"') == count


def test_run_again_uses_the_real_values(run: Run) -> None:
    again = requests.retry(run_id=run.pk, now=timezone.now(), trigger="page", who="ana")

    assert again.parameters == VALUES


def test_who_edits_what_was_shown_keeps_the_secrets(run: Run) -> None:
    shown = {**masked(run.flow, VALUES), "max_tokens": 9}
    again = requests.retry(run_id=run.pk, now=timezone.now(), trigger="api", who="ana", parameters=shown)

    assert again.parameters == {**VALUES, "max_tokens": 9}


def test_a_mask_that_stands_for_nothing_is_refused(run: Run) -> None:
    with pytest.raises(Refused, match=r"Parameter 'key' is masked: give its value, or leave it out\."):
        requests.trigger(flow=run.flow, now=timezone.now(), trigger="page", who="a", parameters={"key": "***"})


def test_a_form_filled_from_a_run_keeps_its_secrets_without_showing_them(run: Run) -> None:
    client = client_of("operator")
    sent = {
        "form": "1",
        "again": str(run.pk),
        "configuration": "release",
        "p-key": "",
        "p-max_tokens": "12",
        "p-login": json.dumps({"user": "bob", "pin": "***"}),
    }

    answer = client.post(f"/flows/{run.flow.slug}/run/", sent)

    assert answer.status_code == 302, answer.content.decode()
    made = Run.objects.exclude(pk=run.pk).get().parameters
    assert made == {"key": DECLARED, "db_password": NAMED, "login": {"user": "bob", "pin": NESTED}, "max_tokens": 12}


def test_a_schedule_saved_in_the_console_keeps_its_secrets(run: Run, schedule: Schedule) -> None:
    client = root()
    address = f"/admin/flows/schedule/{schedule.pk}/change/"
    form = client.get(address).context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if value is not None}
    sent["parameters"] = json.dumps({**form.initial["parameters"], "max_tokens": 8})

    answer = client.post(address, sent)

    assert answer.status_code == 302, answer.content.decode()[:3000]
    schedule.refresh_from_db()
    assert schedule.parameters == {**VALUES, "max_tokens": 8}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"key": 5}, "Parameter 'key' must be a string; what was given is not shown."),
        ({"db_password": 5}, "Parameter 'db_password' must be a string; what was given is not shown."),
        ({"login": ["hunter2"]}, "Parameter 'login' must be an object with user, pin, not ['hunter2']."),
        ({"login": {"pin": 77}}, "Parameter 'login.pin' must be a string; what was given is not shown."),
    ],
)
def test_a_refusal_does_not_show_a_secret(run: Run, parameters: Any, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        requests.trigger(
            flow=run.flow, now=timezone.now(), trigger="api", who="a", parameters={"key": "k" * 8, **parameters}
        )

    assert refused.value.sentence == sentence


@pytest.mark.parametrize("secret", ["hunter2-declared", "p&ss <w\u00f6rd> 'it'"])
@pytest.mark.parametrize("around", ["%s", "https://u:%s@h/", "x" * 60 + "%s" * 3])
def test_a_refusal_does_not_show_a_secret_of_another_parameter(run: Run, secret: str, around: str) -> None:
    parameters = {"key": secret, "login": [around % ((secret,) * around.count("%s"))]}
    client = client_of("operator")

    answer = client.post(
        f"/api/flows/{run.flow.slug}/runs", {"parameters": parameters}, content_type="application/json"
    )

    assert answer.status_code == 422 and leaks_of(secret, [answer.content.decode(), answer.json()]) == []
    assert "***" in answer.content.decode()


def test_the_shell_prints_no_secret(run: Run) -> None:
    out = StringIO()

    call_command("triggerflow", run.flow.name, "-p", f"key={DECLARED}", "--json", stdout=out)

    assert json.loads(out.getvalue())["parameters"] == {"key": "***"}
    assert Run.objects.exclude(pk=run.pk).get().parameters == {"key": DECLARED}
