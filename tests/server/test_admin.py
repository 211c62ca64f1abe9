"""The console: history is looked at and never edited, actions are the deeds of the pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from flows.models import Flow, Schedule
from perfect_site.console.readonly import COUNT_LIMIT, CappedPaginator
from runs.access import Token
from runs.models import Event, LogLine, Run, TaskRun
from runs.services import requests

HISTORY = ("runs.run", "runs.taskrun", "runs.event", "runs.logline", "runs.worker", "runs.quarantine", "flows.flow")


@pytest.fixture
def root(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def page(model: str, what: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_{what}", args=args)


def act(client: Client, model: str, action: str, *rows: Any) -> list[str]:
    client.cookies.pop("messages", None)
    response = client.post(page(model), {"action": action, "_selected_action": [str(row.pk) for row in rows]})
    return [str(message) for message in messages.get_messages(response.wsgi_request)]


def test_the_index_puts_what_happens_first(root: Client, run: Run) -> None:
    text = root.get("/admin/").content.decode()
    assert text.index("/admin/runs/run/") < text.index("/admin/flows/flow/") < text.index("/admin/auth/user/")


@pytest.mark.parametrize("model", HISTORY)
def test_every_list_and_row_opens_for_a_viewer(client: Client, viewer: User, run: Run, worker: Any, model: str) -> None:
    worker.take()
    LogLine.objects.create(run=run, seq=1, attempt=1, time=run.created_at, level=20, message="<b>bold</b>")
    client.force_login(viewer)

    response = client.get(page(model))
    assert response.status_code == 200
    assert b"<b>bold</b>" not in response.content
    for link in re.findall(rf'href="({page(model)}[^"?]+/change/)', response.content.decode())[:1]:
        assert client.get(link).status_code == 200


@pytest.mark.parametrize("model", HISTORY)
def test_nobody_can_edit_add_or_delete_history(root: Client, run: Run, model: str) -> None:
    model_admin = admin.site._registry[{m._meta.label_lower: m for m in admin.site._registry}[model]]
    request: Any = root.get("/admin/").wsgi_request
    assert not model_admin.has_add_permission(request)
    assert not model_admin.has_change_permission(request)
    assert not model_admin.has_delete_permission(request)
    assert "delete_selected" not in model_admin.get_actions(request)
    assert root.get(page(model, "add")).status_code == 403


def test_a_run_shows_all_its_fields_and_the_way_to_its_parts(root: Client, run: Run) -> None:
    text = root.get(page("runs.run", "change", run.pk)).content.decode()
    for field in Run._meta.fields:
        name = "given" if field.name == "parameters" else field.name
        assert f"field-{name}" in text, name
    assert f"?run__id__exact={run.pk}" in text


def test_the_parts_of_one_run_are_listed(root: Client, run: Run) -> None:
    other = requests.trigger(flow=run.flow, now=timezone.now(), trigger="page", who="ben")
    text = root.get(page("runs.event") + f"?run__id__exact={run.pk}").content.decode()
    assert "ana" in text and "ben" not in text
    assert Event.objects.filter(run=other).exists()


@pytest.mark.parametrize(
    "query",
    ["state=PENDING", "window=24h", "trigger__exact=page", "flow=daily-sales-etl", "q=sales", "q={id}", "q={short}"],
)
def test_runs_are_found(root: Client, flow: Flow, query: str) -> None:
    run = requests.trigger(flow=flow, now=timezone.now(), trigger="page", who="ana")
    requests.trigger(flow=flow, now=timezone.now(), trigger="page", who="ana")
    response = root.get(page("runs.run") + "?" + query.format(id=run.pk, short=run.short_id))
    found = [row.pk for row in response.context["cl"].result_list]
    assert run.pk in found
    assert len(found) == (1 if "{" in query else 2)


@pytest.mark.parametrize("query", ["state=FAILED", "window=1h", "q=nothing", "q=ffffffff"])
def test_runs_that_do_not_match_are_left_out(root: Client, run: Run, query: str) -> None:
    assert list(root.get(page("runs.run") + "?" + query).context["cl"].result_list) == []


def test_a_list_of_runs_costs_the_same_for_one_and_for_fifty(
    root: Client, run: Run, django_assert_max_num_queries: Any
) -> None:
    requests.trigger_many(items=[requests.RunRequest(run.flow)] * 49, now=timezone.now(), trigger="page", who="ana")
    with django_assert_max_num_queries(9):
        assert root.get(page("runs.run")).context["cl"].result_count == 50


def test_counting_stops_where_it_gets_dear(run: Run) -> None:
    assert CappedPaginator(Run.objects.all(), 50).count == 1
    sql = str(Run.objects.order_by()[: COUNT_LIMIT + 1].query)
    assert "LIMIT 10001" in sql


def test_run_now_is_a_trigger_from_the_console(root: Client, flow: Flow) -> None:
    assert act(root, "flows.flow", "run_now", flow) == ["1 triggered."]
    run = Run.objects.get()
    assert (run.trigger, run.triggered_by) == ("console", "root")


def test_run_now_says_why_a_flow_cannot(root: Client, flow: Flow) -> None:
    flow.parameters["required"] = ["limit"]
    flow.configurations = {}
    flow.save()
    (text,) = act(root, "flows.flow", "run_now", flow)
    assert "1 not triggered" in text and "'limit' is missing" in text


def test_cancel_and_run_again_call_the_deeds(root: Client, run: Run) -> None:
    assert act(root, "runs.run", "cancel_runs", run) == ["1 asked to cancel."]
    assert Run.objects.get(pk=run.pk).state == "CANCELLED"
    assert "1 not asked to cancel" in act(root, "runs.run", "cancel_runs", run)[0]

    assert act(root, "runs.run", "run_again", run) == ["1 run again."]
    assert Run.objects.get(rerun_of=run).trigger == "console"


def test_what_failed_is_resumed_and_the_rest_is_refused_with_its_reason(root: Client, run: Run, worker: Any) -> None:
    assert "cancel it first" in act(root, "runs.run", "resume_runs", run)[0]
    requests.cancel(run_id=run.pk, now=run.created_at, who="ana")

    assert act(root, "runs.run", "resume_runs", run) == ["1 resumed."]
    assert Run.objects.get(resume_of=run).trigger == "console"


def test_a_schedule_is_paused_and_resumed(root: Client, flow: Flow) -> None:
    row = Schedule.objects.create(flow=flow, kind="interval", expression="60", next_at=timezone.now())
    assert act(root, "flows.schedule", "pause", row) == ["1 paused."]
    assert Schedule.objects.get().paused_by == "root"
    assert act(root, "flows.schedule", "resume", row) == ["1 resumed."]
    assert Schedule.objects.get().paused_at is None


SCHEDULE = {
    "name": "nightly",
    "kind": "cron",
    "expression": "0 2 * * *",
    "timezone": "UTC",
    "parameters": "{}",
    "configuration": "",
    "catch_up": "latest",
    "overlap": "skip",
}


def test_a_schedule_is_added_and_planned(root: Client, flow: Flow) -> None:
    root.post(page("flows.schedule", "add"), {**SCHEDULE, "flow": flow.pk})
    row = Schedule.objects.get()
    assert row.next_at is not None
    assert (row.edited_by, row.source) == ("root", "console")


def test_what_a_person_changed_says_so(root: Client, flow: Flow) -> None:
    row = Schedule.objects.create(
        flow=flow, name="nightly", kind="cron", expression="0 1 * * *", source="code", next_at=timezone.now()
    )
    root.post(page("flows.schedule", "change", row.pk), SCHEDULE)
    changed = Schedule.objects.get()
    assert (changed.expression, changed.edited_by, changed.source) == ("0 2 * * *", "root", "code")
    assert changed.next_at != row.next_at


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"expression": "0 0 31 2 *"}, "expression"),
        ({"timezone": "Mars"}, "timezone"),
        ({"parameters": '{"limit": "x"}'}, "whole number"),
        ({"configuration": "nope"}, "no configuration"),
    ],
)
def test_a_bad_schedule_is_refused_at_its_field(root: Client, flow: Flow, wrong: dict[str, str], word: str) -> None:
    response = root.post(page("flows.schedule", "add"), {**SCHEDULE, **wrong, "flow": flow.pk})
    assert response.status_code == 200
    assert word in str(response.context["adminform"].form.errors)
    assert not Schedule.objects.exists()


def test_a_token_is_shown_once(root: Client) -> None:
    response = root.post(page("runs.token", "add"), {"name": "ci", "scope": "run", "days": "2"}, follow=True)
    secret = re.findall(r"pft_[\w-]{43}", response.content.decode())[0]

    token = Token.objects.valid(secret, timezone.now())
    assert token is not None and (token.name, token.scope, token.user.username) == ("ci", "run", "root")
    assert token.expires_at is not None
    assert secret not in root.get(page("runs.token")).content.decode()
    assert secret not in root.get(page("runs.token", "change", token.pk)).content.decode()


def test_a_token_is_revoked_and_never_edited(root: Client) -> None:
    token, secret = Token.objects.issue(name="x", scope="read", now=timezone.now())
    assert act(root, "runs.token", "revoke", token) == ["1 revoked."]
    assert Token.objects.valid(secret, timezone.now()) is None
    root.post(page("runs.token", "change", token.pk), {"name": "y", "scope": "admin"})
    assert Token.objects.get().name == "x"


def test_every_action_asks_for_a_permission() -> None:
    for model, model_admin in admin.site._registry.items():
        for name in model_admin.actions:
            action = getattr(model_admin, name)
            assert getattr(action, "allowed_permissions", ()), f"{model.__name__}.{name}"


def test_a_viewer_is_offered_no_action(client: Client, viewer: User, run: Run) -> None:
    client.force_login(viewer)
    for model in ("runs.run", "flows.flow", "flows.schedule"):
        response = client.get(page(model))
        form = response.context["action_form"]
        assert form is None or not [name for name, _ in form.fields["action"].choices if name]
    act(client, "runs.run", "cancel_runs", run)
    assert Run.objects.get().state == "PENDING"


def test_an_operator_acts_but_does_not_configure(client: Client, operator: User, run: Run) -> None:
    client.force_login(operator)
    act(client, "runs.run", "cancel_runs", run)
    assert Run.objects.get().state == "CANCELLED"
    assert client.get(page("runs.token")).status_code == 403
    assert client.get(page("auth.user")).status_code == 403


def test_an_admin_keeps_people_and_groups(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    assert client.get(page("auth.user")).status_code == 200
    assert client.get(page("auth.group")).status_code == 200


def test_an_admin_cannot_make_a_superuser_nor_change_one(client: Client, administrator: User) -> None:
    root = User.objects.create_superuser("root", password="before")
    client.force_login(administrator)
    form = {
        "username": "admin",
        "is_superuser": "on",
        "is_active": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
    }

    client.post(page("auth.user", "change", administrator.pk), form)
    client.post(f"/admin/auth/user/{root.pk}/password/", {"password1": "taken-over-1", "password2": "taken-over-1"})
    client.post(page("auth.user", "delete", root.pk), {"post": "yes"})

    administrator.refresh_from_db()
    assert not administrator.is_superuser
    assert User.objects.get(username="root").check_password("before")


def test_user_text_is_escaped(root: Client, run: Run) -> None:
    nasty = "<script>alert(1)</script>"
    Run.objects.update(error=nasty, state_reason=nasty)
    TaskRun.objects.create(run=run, attempt=1, key="k", name=nasty, position=0, state="PENDING")
    for path in (page("runs.run", "change", run.pk), page("runs.run"), page("runs.taskrun")):
        assert nasty not in root.get(path).content.decode()
