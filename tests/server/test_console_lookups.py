"""The lists of the console answer the queries that they offer, and no others: default deny for every model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import models
from django.http import QueryDict
from django.test import Client, RequestFactory
from django.urls import reverse

from flows.models import Flow, Schedule
from perfect_site.console.site import Console, OfferedQueries
from runs.models import Event, LogLine, Run, TaskRun

from .test_secrets_masked import run, schedule  # noqa: F401 - fixtures
from .test_security_matrix import client_of

pytestmark = pytest.mark.django_db

CONSOLE = sorted(admin.site._registry, key=lambda model: model._meta.label)
ROLES = ("viewer", "operator", "admin", "superuser")
VALUES = ("1", "(y+)+z", "9" * 199, "\x00", "x" * 999)


def list_of(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def columns(model: Any) -> Iterator[tuple[str, Any]]:
    """Every column and relation of the model, by its name in a lookup, backwards too."""
    for field in model._meta.get_fields(include_hidden=True):
        yield (field.name, field)
        if getattr(field, "attname", field.name) != field.name:
            yield (field.attname, field)


def paths(model: Any) -> Iterator[tuple[str, Any]]:
    """The columns of the model, and of each model that it is related to."""
    for name, field in columns(model):
        yield name, field
        if field.is_relation and field.related_model is not None:
            for inner, far in columns(field.related_model):
                yield f"{name}__{inner}", far


def lookups(field: Any) -> Iterator[str]:
    """What may follow a column's name: each lookup and transform that is registered for it, and a key of its JSON."""
    yield ""
    yield from (
        (f"__{name}" for name in field.get_lookups()) if hasattr(field, "get_lookups") else ("__exact", "__isnull")
    )
    if isinstance(field, models.JSONField):
        yield from ("__token", "__token__startswith", "__token__regex", "__0__icontains")


def signed_in(role: str) -> Client:
    if role != "superuser":
        return client_of(role)
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root-of-lookups"))
    return client


def test_no_list_is_registered_without_the_rule() -> None:
    site = Console("another")
    site.register(Run)
    site.register(Flow, list_display=("name",))

    assert all(
        isinstance(found, OfferedQueries) for found in [*admin.site._registry.values(), *site._registry.values()]
    )


@pytest.mark.parametrize("model", CONSOLE, ids=lambda model: model._meta.label)
def test_no_lookup_on_any_column_is_answered_unless_the_list_offers_it(model: Any) -> None:
    model_admin: Any = admin.site._registry[model]
    people = [signed_in(role).get("/admin/").wsgi_request.user for role in ROLES]
    request = RequestFactory().get(list_of(model))
    offered = model_admin.offered(request)

    tried = 0
    for request.user in people:
        if not model_admin.has_view_permission(request):
            continue
        for name in (path + lookup for path, field in paths(model) for lookup in lookups(field)):
            request.GET = QueryDict(f"{name}=c")
            if name not in offered:
                assert model_admin.changelist_view(request).status_code == 400, (name, request.user)
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("model", CONSOLE, ids=lambda model: model._meta.label)
def test_whatever_is_asked_of_an_offered_query_the_server_does_not_fail(model: Any, run: Run) -> None:  # noqa: F811
    viewer = signed_in("viewer")
    seen = viewer.get(list_of(model)).status_code == 200
    if not seen:
        assert viewer.get(list_of(model), {"q": "x", "pk__gt": "1"}).status_code == 403
    client = viewer if seen else signed_in("superuser")
    answer = client.get(list_of(model))

    links = set(re.findall(r'href="(\?[^"]+)"', answer.content.decode()))
    assert all(client.get(list_of(model) + unescape(link)).status_code == 200 for link in links)
    for name in admin.site._registry[model].offered(answer.wsgi_request):  # type: ignore[attr-defined]
        for value in VALUES:
            assert client.get(list_of(model), {name: value}).status_code in (200, 302, 400), (name, value)
    for name in ("_popup", "_to_field", "_changelist_filters"):
        assert client.get(list_of(model), {name: "1"}).status_code == 400


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "query",
    [
        "parameters__key__startswith=h",
        "parameters__key__regex=^h",
        "parameters__icontains=hunter2",
        "parameters=1",
        "flow__configurations__icontains=hunter2",
        "flow__parameters__contains=hunter2",
        "traceback__regex=(y%2B)%2Bz",
        "state=PENDING&parameters__key__startswith=h",
        "schedule__parameters__icontains=h",
        "no_such_column=1",
    ],
)
def test_a_secret_is_not_read_letter_by_letter(role: str, query: str, run: Run, schedule: Schedule) -> None:  # noqa: F811
    client = signed_in(role)
    for model in (Run, Schedule, Flow, TaskRun, Event, LogLine):
        answer = client.get(f"{list_of(model)}?{query}")
        assert answer.status_code == 400
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "This list is not narrowed by" in answer.content.decode()

        acted = client.post(f"{list_of(model)}?{query}", {"action": "cancel_runs", "_selected_action": [str(run.pk)]})
        assert acted.status_code == 400
    assert Run.objects.get().state == run.state


@pytest.mark.parametrize("text", ["hunter2", "hunter2-declared", "Traceback", "ValueError"])
def test_a_search_of_the_console_reads_no_parameters_and_no_tracebacks(text: str, run: Run, schedule: Schedule) -> None:  # noqa: F811
    Run.objects.update(traceback="Traceback: ValueError", error="ValueError: hunter2")
    client = signed_in("superuser")

    for model in (Run, Schedule, Flow):
        assert list(client.get(list_of(model), {"q": text}).context["cl"].result_list) == []


def test_rows_are_suggested_for_the_fields_of_forms_that_ask_for_it_alone(run: Run) -> None:  # noqa: F811
    viewer, root = signed_in("viewer"), signed_in("superuser")
    asked = {("Schedule", "flow")}
    for model in CONSOLE:
        for name, _ in columns(model):
            query = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": name}
            for client in (viewer, root):
                told = client.get("/admin/autocomplete/", {**query, "term": "a"})
                assert told.status_code == (200 if (model.__name__, name) in asked else 403), query
    query = {"app_label": "flows", "model_name": "schedule", "field_name": "flow"}
    for term in ("\x00", "x " * 5_000, "hunter2"):
        assert viewer.get("/admin/autocomplete/", {**query, "term": term}).json()["results"] == []


def test_a_row_is_found_by_its_key_and_by_no_other_column(run: Run, schedule: Schedule) -> None:  # noqa: F811
    client = signed_in("superuser")
    for model, row in ((Run, run), (Schedule, schedule), (Flow, run.flow)):
        for name, field in columns(model):
            address = reverse(
                f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=["hunter2-declared"]
            )
            found = client.get(address, {"_to_field": name, "_popup": "1"})
            assert found.status_code in (302, 400), name
            own = client.get(address.replace("hunter2-declared", str(row.pk)), {"_to_field": name})
            assert own.status_code == (200 if getattr(field, "primary_key", False) else 400), name


@pytest.mark.parametrize("chosen", ["x", "1", "9" * 30, "\x00", ""])
def test_actions_on_rows_that_cannot_be_are_refused(chosen: str, run: Run, schedule: Schedule) -> None:  # noqa: F811
    client = signed_in("superuser")
    for model in CONSOLE:
        for action in admin.site._registry[model].actions:
            body = {"action": action, "_selected_action": [chosen]}
            assert client.post(list_of(model), body).status_code in (200, 302, 400), (model, action)
