"""Every address, message and topic of the sockets × every role and scope; what is not listed here fails."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client
from perfect_client.wire import messages as p

from perfect_site.dashboard import topics as drawings
from perfect_site.sockets import pages, workers
from perfect_site.sockets.hub import hub
from perfect_site.sockets.routing import websocket_urlpatterns
from runs.access import Token
from runs.models import Run

from .conftest import SPEC, FakeWorker
from .test_security_matrix import ADMIN, OPEN, ROLES, SCOPES, VIEWER, client_of, state_of_everything

pytestmark = pytest.mark.django_db

SOCKETS = {"ws/worker/", "ws/live/", "^.*$"}
TOPICS = {  # the least role that may watch it
    "overview": VIEWER,
    "runs": VIEWER,
    "flow:daily-sales-etl": VIEWER,
    "run:{run}": VIEWER,
    "run:{run}:log": VIEWER,
    "workers": VIEWER,
    "schedules": VIEWER,
}
NO_TOPICS = ("admin", "", "runs:", "run:1", "flow:", "overview ", "run:{run}:tasks", "tokens", "x" * 500)
PAGE_MESSAGES: dict[str, Any] = {"sub": {"overview": 0}, "ack": 0, "hidden": False}
RUN = "{run}"


def worker_messages(fence: int, run: str) -> dict[type, Any]:
    """One of each message of a worker; about that attempt, where it is about one."""
    at = 1.0
    return {
        p.Joined: p.Joined(str(uuid.uuid4()), "b-1", name="stranger", held=[]),
        p.FlowsAnnounced: p.FlowsAnnounced([p.FlowSpec("Daily Sales ETL", description="taken over")]),
        p.SlotsFreed: p.SlotsFreed(4),
        p.Draining: p.Draining([fence]),
        p.OfferClaimed: p.OfferClaimed(fence, run),
        p.OfferDeclined: p.OfferDeclined(fence, "no"),
        p.FactsRecorded: p.FactsRecorded(
            fence, run, 1, [{"type": "RunEnded", "time": at, "state": "COMPLETED"}], p.FACTS
        ),
        p.Beaten: p.Beaten(),
        p.LinesOpen: p.LinesOpen(fence, run, [p.LineOpen(at, "hello", 20, None)]),
        p.Left: p.Left("bye"),
    }


MESSAGES = sorted(worker_messages(0, ""), key=lambda kind: kind.__name__)


def socket(path: str, *, cookies: str = "", token: str = "", origin: str = "") -> WebsocketCommunicator:
    told = {"host": "testserver", "cookie": cookies, "origin": origin, "authorization": token and f"Bearer {token}"}
    headers = [(name.encode(), value.encode()) for name, value in told.items() if value]
    return WebsocketCommunicator(URLRouter(websocket_urlpatterns), path, headers=headers)


async def answers_of(wire: WebsocketCommunicator, *messages: str) -> tuple[list[Any], int]:
    """All that comes back for messages that are on the wire with the handshake already, and the close code."""
    await wire.send_input({"type": "websocket.connect"})
    for message in messages:
        await wire.send_input({"type": "websocket.receive", "text": message})
    found: list[Any] = []
    while True:
        event = await wire.receive_output(timeout=20)
        if event["type"] == "websocket.close":
            await wire.send_input({"type": "websocket.disconnect", "code": event["code"]})
            return found, int(event["code"])
        if event["type"] == "websocket.send":
            found.append(event["text"])


def cookies_of(client: Client) -> str:
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


@pytest.fixture(autouse=True)
def nobody_is_left() -> Any:
    yield
    for page in list(hub.sockets):
        hub.leave(page)
    workers.fleet.workers.clear()


def test_every_socket_message_and_topic_is_listed() -> None:
    assert {str(route.pattern) for route in websocket_urlpatterns} == SOCKETS
    assert set(pages._HANDLERS) == set(PAGE_MESSAGES)
    assert set(workers._HANDLERS) == set(MESSAGES)
    known = [topic.replace(RUN, str(uuid.uuid4())) for topic in TOPICS]
    assert all(any(pattern.fullmatch(topic) for topic in known) for pattern, _, _ in drawings.TOPICS)


@pytest.mark.parametrize("role", [role for role, level in ROLES.items() if level == OPEN])
def test_who_has_no_role_watches_nothing(role: str) -> None:
    sent = [json.dumps({name: value}) for name, value in PAGE_MESSAGES.items()]
    wire = socket("/ws/live/", cookies=cookies_of(client_of(role)), origin="http://testserver")

    assert async_to_sync(answers_of)(wire, *sent) == ([], pages.SIGNED_OUT)
    assert not hub.sockets


@pytest.mark.parametrize("role", [role for role, level in ROLES.items() if level > OPEN])
def test_a_page_watches_what_its_role_may_and_nothing_else(role: str, run: Run) -> None:
    cookies = cookies_of(client_of(role))
    topics = {topic.replace(RUN, str(run.pk)): ROLES[role] >= least for topic, least in TOPICS.items()}
    topics |= {topic.replace(RUN, str(run.pk)): False for topic in NO_TOPICS}

    async def story() -> None:
        wire = socket("/ws/live/", cookies=cookies, origin="http://testserver")
        assert (await wire.connect())[0]
        assert json.loads(await wire.receive_from(timeout=20))["n"] == 1  # it is let in
        await wire.send_to(text_data=json.dumps({"ack": 1}))
        (page,) = hub.sockets
        for number, (topic, allowed) in enumerate(topics.items()):
            await wire.send_to(text_data=json.dumps({"sub": {topic: 0, f"marker-{number}": 0}}))
            refused: list[str] = []
            while f"marker-{number}" not in refused:
                frame = json.loads(await wire.receive_from(timeout=20))
                await wire.send_to(text_data=json.dumps({"ack": frame["n"]}))
                refused += [message["topic"] for message in frame["m"] if message["t"] == "refused"]
            assert (topic in page.topics, topic[:80] in refused) == (allowed, not allowed), topic
        await wire.disconnect()

    async_to_sync(story)()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("origin", ["", "http://testserver", "http://elsewhere.invalid", "null"])
def test_a_token_opens_no_socket_of_pages(scope: str, origin: str, make_token: Callable[[str], str]) -> None:
    code = pages.SIGNED_OUT if origin == "http://testserver" else pages.FORBIDDEN
    wire = socket("/ws/live/", token=make_token(scope), origin=origin)
    assert async_to_sync(answers_of)(wire, '{"sub":{"overview":0}}') == ([], code)


def credentials(make_token: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """Everybody who is no worker."""
    tokens = {scope: {"token": make_token(scope)} for scope in SCOPES if scope != "worker"}
    people = {role: {"cookies": cookies_of(client_of(role))} for role in ROLES}
    revoked = make_token("worker")
    Token.objects.filter(scope="worker").update(revoked_at="2026-01-01T00:00:00Z")
    browsers = {"browser with a worker's token": {"token": make_token("worker"), "origin": "http://testserver"}}
    return {**tokens, **people, **browsers, "revoked": {"token": revoked}, "unknown": {"token": "pft_" + "x" * 43}}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_who_is_no_worker_is_refused_and_nothing_it_said_is_applied(
    kind: type, worker: FakeWorker, run: Run, make_token: Callable[[str], str]
) -> None:
    order = worker.take()
    everybody = credentials(make_token)
    before = state_of_everything()

    for name, shown in everybody.items():
        joined = p.Joined(str(worker.id), worker.boot, name="stranger")
        said = [p.encode(joined), p.encode(worker_messages(order.fence, order.run)[kind])]
        answers, code = async_to_sync(answers_of)(socket("/ws/worker/", **shown), *said)
        assert [type(p.decode(answer)) for answer in answers] == [p.Refuse], name
        assert code in (p.UNAUTHORISED, p.FORBIDDEN), name
        assert not workers.fleet.workers
    assert state_of_everything() == before


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind is not p.Joined], ids=lambda kind: kind.__name__)
def test_a_worker_says_nothing_before_it_has_joined(
    kind: type, worker: FakeWorker, run: Run, make_token: Callable[[str], str]
) -> None:
    order, secret = worker.take(), make_token("worker")
    before = state_of_everything()

    said = p.encode(worker_messages(order.fence, order.run)[kind])
    answers, code = async_to_sync(answers_of)(socket("/ws/worker/", token=secret), said)

    assert ([type(p.decode(answer)) for answer in answers], code) == ([p.Refuse], p.MALFORMED)
    assert state_of_everything() == before


ABOUT_RUNS = (
    "runs.Run",
    "runs.Attempt",
    "runs.TaskRun",
    "runs.LogLine",
    "runs.Event",
    "runs.Artifact",
    "runs.Question",
)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("claimed", [True, False])
def test_a_worker_changes_nothing_of_another_ones_run(
    kind: type, claimed: bool, worker: FakeWorker, run: Run, make_token: Callable[[str], str]
) -> None:
    order = worker.take() if claimed else worker.offers()[0]
    secret = make_token("worker")

    def about_runs() -> Any:
        found = state_of_everything()
        mine = [row for row in found["runs.Worker"] if row["id"] == worker.id]
        return [found[label] for label in ABOUT_RUNS], mine

    async def story() -> None:
        wire = socket("/ws/worker/", token=secret)
        assert (await wire.connect())[0]
        for said in (p.Joined(str(uuid.uuid4()), "b-2", name="other"), p.FlowsAnnounced([SPEC])):
            await wire.send_to(text_data=p.encode(said))
        assert isinstance(p.decode(await wire.receive_from(timeout=20)), p.Accept)
        before = await sync_to_async(about_runs)()
        await wire.send_to(text_data=p.encode(worker_messages(order.fence, order.run)[kind]))
        await wire.send_to(text_data=p.encode(p.Beaten()))
        while True:
            event = await wire.receive_output(timeout=20)
            if event["type"] == "websocket.close" or isinstance(p.decode(event["text"]), p.Echo):
                break
        await wire.disconnect()
        assert await sync_to_async(about_runs)() == before

    async_to_sync(story)()


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/live", "/ws/worker/x", "/ws/admin/", "/api/runs"])
def test_any_other_socket_is_closed(path: str) -> None:
    cookies = cookies_of(client_of("admin"))
    assert settings.SESSION_COOKIE_NAME in cookies and ROLES["admin"] == ADMIN
    wire = socket(path, cookies=cookies, origin="http://testserver")
    assert async_to_sync(answers_of)(wire, "{}") == ([], p.NO_ROUTE)
