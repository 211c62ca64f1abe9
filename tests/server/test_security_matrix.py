"""Every address × every role × every method, and every action of the console × every role.

Generated from the resolver and the registry, and closed by default: an address or an action that is not listed fails.
What the sockets take is in ``test_security_sockets``, what the console's lists answer in ``test_console_lookups``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from flows.models import Flow, Schedule
from runs.access import Token
from runs.models import Artifact, Event, Limit, Run, Variable, Worker
from runs.services import requests

OPEN, VIEWER, OPERATOR, ADMIN = range(4)
ROLES = {"anonymous": OPEN, "nobody": OPEN, "viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}
SCOPES = {"worker": OPEN, "read": VIEWER, "run": OPERATOR, "admin": ADMIN}

# Address: the least role for each method. Other methods must change nothing for anybody.
PAGES: dict[str, dict[str, int]] = {
    "healthz": {"GET": OPEN},
    "readyz": {"GET": OPEN},
    "metrics": {"GET": OPEN},  # from this machine; test_security says what others get
    "welcome/": {"GET": OPEN},
    "login/": {"GET": OPEN},
    "logout/": {"POST": VIEWER},
    "": {"GET": VIEWER},
    "_overview/<slug:name>/": {"GET": VIEWER},
    "flows/": {"GET": VIEWER},
    "flows/<str:slug>/": {"GET": VIEWER},
    "flows/<str:slug>/run/": {"POST": OPERATOR},
    "flows/<str:slug>/_history/": {"GET": VIEWER},
    "flows/<str:slug>/_bars/": {"GET": VIEWER},
    "flows/<str:slug>/_notices/": {"GET": VIEWER},
    "flows/<str:slug>/_offers/": {"GET": VIEWER},
    "flows/<str:slug>/archive/": {"POST": ADMIN},
    "flows/<str:slug>/unarchive/": {"POST": ADMIN},
    "run-all/": {"POST": OPERATOR},
    "schedules/": {"GET": VIEWER},
    "schedules/_rows/": {"GET": VIEWER},
    "schedules/<int:pk>/": {"GET": VIEWER},
    "schedules/<int:pk>/pause/": {"POST": OPERATOR},
    "schedules/<int:pk>/resume/": {"POST": OPERATOR},
    "runs/": {"GET": VIEWER},
    "runs/_list/": {"GET": VIEWER},
    "runs/<uuid:pk>/": {"GET": VIEWER},
    "runs/<uuid:pk>/_hero/": {"GET": VIEWER},
    "runs/<uuid:pk>/_pause/": {"GET": VIEWER},
    "runs/<uuid:pk>/_timeline/": {"GET": VIEWER},
    "runs/<uuid:pk>/_log/": {"GET": VIEWER},
    "runs/<uuid:pk>/_artifacts/": {"GET": VIEWER},
    "runs/<uuid:pk>/artifacts/": {"GET": VIEWER},
    "runs/<uuid:pk>/artifacts/<uuid:uid>/": {"GET": VIEWER},
    "runs/<uuid:pk>/artifacts/<uuid:uid>/<artifactform:form>": {"GET": VIEWER},
    "runs/<uuid:pk>/download.<logform:form>": {"GET": VIEWER},
    "runs/<uuid:pk>/cancel/": {"POST": OPERATOR},
    "runs/<uuid:pk>/retry/": {"POST": OPERATOR},
    "runs/<uuid:pk>/resume/": {"POST": OPERATOR},
    "runs/<uuid:pk>/pause/": {"POST": OPERATOR},
    "runs/<uuid:pk>/go-on/": {"POST": OPERATOR},
    "runs/<uuid:pk>/give-up/": {"POST": OPERATOR},
    "workers/": {"GET": VIEWER},
    "workers/_rows/": {"GET": VIEWER},
    "workers/<uuid:pk>/forget/": {"POST": ADMIN},
}
API: dict[str, dict[str, int]] = {
    "api/": {},
    "api/openapi.json": {"GET": VIEWER},
    "api/docs": {"GET": VIEWER},
    "api/flows": {"GET": VIEWER},
    "api/flows/run-all": {"POST": OPERATOR},
    "api/flows/<slug>": {"GET": VIEWER, "PATCH": ADMIN},
    "api/flows/<slug>/runs": {"POST": OPERATOR},
    "api/runs": {"GET": VIEWER, "POST": OPERATOR},
    "api/runs/<run_id>": {"GET": VIEWER},
    "api/runs/<run_id>/tasks": {"GET": VIEWER},
    "api/runs/<run_id>/logs": {"GET": VIEWER},
    "api/runs/<run_id>/artifacts": {"GET": VIEWER},
    "api/runs/<run_id>/cancel": {"POST": OPERATOR},
    "api/runs/<run_id>/retry": {"POST": OPERATOR},
    "api/runs/<run_id>/resume": {"POST": OPERATOR},
    "api/runs/<run_id>/pause": {"POST": OPERATOR},
    "api/schedules": {"GET": VIEWER, "POST": ADMIN},
    "api/schedules/<int:schedule_id>": {"PATCH": ADMIN, "DELETE": ADMIN},
    "api/limits": {"GET": VIEWER, "POST": ADMIN},
    "api/limits/<str:name>": {"PATCH": ADMIN, "DELETE": ADMIN},
    "api/variables": {"GET": VIEWER},
    "api/variables/<str:name>": {"GET": VIEWER, "PUT": ADMIN, "DELETE": ADMIN},
    "api/workers": {"GET": VIEWER},
    "api/workers/<worker_id>": {"DELETE": ADMIN},
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

# Action of the console: the least role that is offered it.
ACTIONS = {
    "runs.run.cancel_runs": OPERATOR,
    "runs.run.run_again": OPERATOR,
    "runs.run.resume_runs": OPERATOR,
    "runs.worker.forget": ADMIN,
    "runs.token.revoke": ADMIN,
    "runs.limit.delete_selected": ADMIN,
    "runs.variable.delete_selected": ADMIN,
    "flows.flow.run_now": OPERATOR,
    "flows.flow.archive": ADMIN,
    "flows.flow.unarchive": ADMIN,
    "flows.schedule.pause": OPERATOR,
    "flows.schedule.resume": OPERATOR,
    "auth.group.delete_selected": ADMIN,
}


def routes(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for entry in resolver.url_patterns:
        route = before + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield route
        else:
            yield from routes(entry, route)


ALL = list(routes(get_resolver()))
CONSOLE = [route for route in ALL if route.startswith("admin/")]
OPEN_CONSOLE = ("login/", "jsi18n/")  # the way to the site's own sign-in, and words for scripts


@pytest.fixture
def row(flow: Flow, now: Any) -> Schedule:
    return Schedule.objects.create(flow=flow, kind="cron", expression="0 6 * * *", next_at=now)


@pytest.fixture
def shown(run: Run, now: Any) -> Artifact:
    return Artifact.objects.create(
        run=run,
        attempt=1,
        uid=uuid.uuid4(),
        kind="plot",
        created_at=now,
        updated_at=now,
        parts_seen=1,
        content=b"<svg/>",
        media_type="image/svg+xml",
    )


@pytest.fixture
def path_of(run: Run, row: Schedule, shown: Artifact) -> Callable[[str], str]:
    def path_of(route: str) -> str:
        values = {
            "<str:slug>": run.flow.slug,
            "<slug>": run.flow.slug,
            "<slug:name>": "tiles",
            "<int:pk>": row.pk,
            "<int:schedule_id>": row.pk,
            "<uuid:pk>": run.pk,
            "<run_id>": run.pk,
            "<logform:form>": "log",
            "<worker_id>": uuid.uuid4(),
            "<uuid:uid>": shown.uid,
            "<artifactform:form>": "picture",
            "<path:object_id>": run.pk,
            "<int:content_type_id>": 1,
            "<path:content_type_id>": 1,
            "<id>": 1,
        }
        for pattern, value in values.items():
            route = route.replace(pattern, str(value))
        return "/" + route

    return path_of


def state_of_everything() -> dict[str, list[Any]]:
    """All rows but sessions, counts of sign-ins and last-use times: what a refused request must leave as it is."""
    skip = {"sessions.Session", "admin.LogEntry", "runs.SignInAttempts", "runs.Token", "auth.User"}
    models = [model for model in apps.get_models() if model._meta.label not in skip]
    found = {model._meta.label: list(model._default_manager.order_by("pk").values()) for model in models}
    found["users"] = list(User.objects.order_by("pk").values_list("username", "password", "is_superuser", "is_staff"))
    found["tokens"] = list(Token.objects.order_by("pk").values_list("pk", "name", "scope", "revoked_at"))
    return found


def client_of(role: str, *, csrf: bool = False) -> Client:
    client = Client(enforce_csrf_checks=csrf, raise_request_exception=False)
    if role != "anonymous":
        user = User.objects.create_user(f"{role}-of-the-matrix")
        user.groups.set(Group.objects.filter(name=role))
        client.force_login(user)
    return client


def is_refused(response: Any) -> bool:
    return response.status_code in (401, 403) or (
        response.status_code == 302 and response.headers["Location"].startswith(("/login/", "/admin/login/"))
    )


def address(path_of: Callable[[str], str], route: str) -> str:
    """The path of a route, one that catches all included."""
    return "/admin/anything" if "(?P" in route else path_of(route).replace("^", "").replace("$", "")


def test_every_address_is_listed() -> None:
    assert {route for route in ALL if not route.startswith("admin/")} == set(PAGES) | set(API)


@pytest.mark.parametrize("route", sorted(PAGES))
def test_a_page_is_for_those_with_the_role(route: str, path_of: Callable[[str], str], db: None) -> None:
    clients = {role: client_of(role) for role in ROLES}
    before = state_of_everything()
    for method in METHODS:
        least = PAGES[route].get(method)
        for role, level in ROLES.items():
            if least is None or level < least:
                response = clients[role].generic(method, path_of(route))
                refused = is_refused(response) or (least is None and response.status_code == 405)
                assert refused or PAGES[route] == {"GET": OPEN}, (method, role, response.status_code)
    assert state_of_everything() == before

    for method, least in PAGES[route].items():
        for role, level in ROLES.items():
            if level >= least and route != "logout/":
                response = clients[role].generic(method, path_of(route))
                assert not is_refused(response), (method, role, response.status_code)
                assert response.status_code < 500, (method, role)


@pytest.mark.parametrize("route", sorted(route for route, methods in PAGES.items() if methods == {"GET": VIEWER}))
def test_a_page_refuses_a_query_that_it_does_not_know(route: str, path_of: Callable[[str], str], db: None) -> None:
    """A misspelt filter that is passed over shows more than was asked for."""
    response = client_of("viewer").get(path_of(route), {"stat": "FAILED"})

    assert response.status_code == 422
    assert "There is no query parameter &#x27;stat&#x27; here." in response.content.decode()


def test_a_token_opens_no_page(path_of: Callable[[str], str], now: Any, db: None) -> None:
    client = Client(raise_request_exception=False)
    secrets = [Token.objects.issue(name=scope, scope=scope, now=now)[1] for scope in SCOPES]
    before = state_of_everything()
    for route in [*PAGES, *CONSOLE]:
        for secret in secrets if PAGES.get(route) != {"GET": OPEN} else ():
            for method in ("GET", "POST"):
                answer = client.generic(method, address(path_of, route), headers={"Authorization": f"Bearer {secret}"})
                assert is_refused(answer) or route.endswith(OPEN_CONSOLE), (route, method, answer.status_code)
    assert state_of_everything() == before


@pytest.mark.parametrize("route", sorted(API))
def test_the_api_is_for_those_with_the_scope(route: str, path_of: Callable[[str], str], now: Any, db: None) -> None:
    for method in METHODS:
        least = API[route].get(method)
        for scope, level in SCOPES.items():
            secret = Token.objects.issue(name=scope, scope=scope, now=now)[1]
            response = Client(raise_request_exception=False).generic(
                method,
                path_of(route),
                "{}",
                content_type="application/json",
                headers={"Authorization": f"Bearer {secret}"},
            )
            case = (method, scope, response.status_code)
            if least is None:
                assert response.status_code in (404, 405, 403), case
            elif level < least:
                assert response.status_code == 403, case
                assert Event.objects.filter(who=f"token {scope}").count() == 0
            else:
                assert response.status_code not in (401, 403, 500), case


@pytest.mark.parametrize("route", sorted(API))
def test_the_api_is_for_people_with_the_role(route: str, path_of: Callable[[str], str], db: None) -> None:
    clients = {role: client_of(role) for role in ROLES}
    for method, least in API[route].items():
        for role, level in ROLES.items():
            response = clients[role].generic(method, path_of(route), "{}", content_type="application/json")
            if level < least:
                assert response.status_code == (401 if role == "anonymous" else 403), (method, role)
            else:
                assert response.status_code not in (401, 403, 500), (method, role, response.content)


@pytest.mark.parametrize("route", sorted(r for r, methods in API.items() if set(methods) - {"GET"}))
def test_a_session_needs_its_csrf_token_in_the_api(route: str, path_of: Callable[[str], str], db: None) -> None:
    client = client_of("admin", csrf=True)
    for method in set(API[route]) - {"GET"}:
        response = client.generic(method, path_of(route), "{}", content_type="application/json")
        assert response.status_code == 403
        assert json.loads(response.content)["detail"]


@pytest.mark.parametrize("route", sorted(r for r, methods in PAGES.items() if "POST" in methods))
def test_a_form_needs_its_csrf_token(route: str, path_of: Callable[[str], str], db: None) -> None:
    assert client_of("admin", csrf=True).post(path_of(route)).status_code == 403


@pytest.mark.parametrize("route", CONSOLE)
def test_the_console_is_shown_to_those_with_a_role_and_lets_them_change_nothing_unasked(
    route: str, path_of: Callable[[str], str], db: None
) -> None:
    path, clients = address(path_of, route), {role: client_of(role) for role in ROLES}
    before = state_of_everything()

    for method in ("GET", "POST"):
        for role, level in ROLES.items():
            response = clients[role].generic(method, path)
            assert response.status_code < 500, (method, role, response.status_code)
            if level == OPEN and not route.endswith((*OPEN_CONSOLE, "logout/")):
                assert is_refused(response), (method, role, response.status_code)

    assert state_of_everything() == before


def actions_of(client: Client) -> set[str]:
    """The actions that the console offers, by model and name."""
    request: Any = client.get("/admin/").wsgi_request
    offered = {m._meta.label_lower: model_admin.get_actions(request) for m, model_admin in admin.site._registry.items()}
    return {f"{label}.{name}" for label, found in offered.items() for name in found}


@pytest.mark.parametrize("role", [role for role, level in ROLES.items() if level > OPEN])
def test_the_console_offers_the_actions_of_the_role_and_no_others(role: str, db: None) -> None:
    assert actions_of(client_of(role)) == {name for name, least in ACTIONS.items() if least <= ROLES[role]}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_of_the_console_is_for_those_with_the_role(
    name: str, run: Run, row: Schedule, now: Any, make_token: Any
) -> None:
    Limit.objects.create(name="gpu", slots=1)
    Variable.objects.create(name="v", changed_at=now, changed_by="ana")
    make_token("read")
    requests.cancel(run_id=requests.trigger(flow=run.flow, now=now, trigger="page", who="ana").pk, now=now, who="ana")
    flow = Flow.objects.create(
        name="Old", slug="old", archived=True, archived_by="ana", archived_at=now, created_at=now, updated_at=now
    )
    Schedule.objects.create(flow=flow, name="paused", kind="interval", expression="60", paused_at=now, paused_by="ana")
    Worker.objects.update(connected=False)
    label, action = name.rsplit(".", 1)
    model = apps.get_model(label)
    body = {"action": action, "_selected_action": [str(pk) for pk in model.objects.values_list("pk", flat=True)]}
    body["post"] = "yes"  # for those that ask once more
    path = reverse(f"admin:{label.replace('.', '_')}_changelist")
    clients = {role: client_of(role) for role in ROLES}
    before = state_of_everything()

    for role, level in ROLES.items():
        if level < ACTIONS[name]:
            clients[role].post(path, body)
            assert state_of_everything() == before, role
    assert clients["admin"].post(path, body).status_code < 400
    assert state_of_everything() != before
