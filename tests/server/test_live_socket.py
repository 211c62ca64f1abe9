"""The browsers' socket: who may come in, what it sends, and when it sends somebody away."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from perfect_site.dashboard.topics import render
from perfect_site.sockets import pages
from perfect_site.sockets.hub import hub
from perfect_site.sockets.pages import FORBIDDEN, MALFORMED, OVERFLOW, SIGNED_OUT, LiveConsumer
from runs import events
from runs.models import Run, TaskRun

from .pages import make_flow, make_house, make_lines, make_run, make_tasks

HOST = "testserver"


def cookies_of(user: Any) -> str:
    client = Client()
    client.force_login(user)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


class Tab:
    """A browser's tab: acknowledges each frame, collects the messages."""

    def __init__(self, cookies: str, origin: str = f"http://{HOST}", host: str = HOST) -> None:
        headers = [(b"host", host.encode()), (b"cookie", cookies.encode()), (b"origin", origin.encode())]
        self.wire = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live/", headers=headers)

    async def open(self, **topics: int) -> Tab:
        assert (await self.wire.connect())[0]
        if topics:
            await self.send({"sub": {name.replace("__", ":"): since for name, since in topics.items()}})
        return self

    async def send(self, message: Any) -> None:
        await self.wire.send_to(text_data=message if isinstance(message, str) else json.dumps(message))

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that is wanted."""
        while True:
            frame = json.loads(await self.wire.receive_from(timeout=5))
            await self.send({"ack": frame["n"]})
            for message in frame["m"]:
                if wanted(message):
                    found: dict[str, Any] = message
                    return found

    async def code(self) -> int:
        """The code that it was sent away with."""
        while True:
            event = await self.wire.receive_output(timeout=5)
            if event["type"] == "websocket.close":
                return int(event["code"])

    async def leave(self) -> None:
        await self.wire.disconnect()


def tell(story: Callable[[], Awaitable[None]]) -> None:
    try:
        async_to_sync(story)()
        assert not hub.sockets
    finally:
        for socket in list(hub.sockets):
            hub.leave(socket)


def of_kind(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["t"] == kind


@pytest.fixture
def pass_of(viewer: Any) -> str:
    return cookies_of(viewer)


# ------------------------------------------------------------------------------------------------------ who comes in


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("", HOST),
        ("http://evil.example", HOST),
        (f"http://{HOST}:9999", HOST),
        (f"https://{HOST}", HOST),
        ("http://evil.example", "evil.example"),
        ("null", HOST),
    ],
)
def test_a_page_of_another_origin_is_refused(pass_of: str, origin: str, host: str) -> None:
    async def story() -> None:
        tab = await Tab(pass_of, origin, host).open()
        assert await tab.code() == FORBIDDEN

    tell(story)


@pytest.mark.parametrize("cookies", ["", "perfect_session=nonsense", "other=1"])
def test_without_a_session_nothing_is_heard(db: None, cookies: str) -> None:
    async def story() -> None:
        tab = await Tab(cookies).open()
        assert await tab.code() == SIGNED_OUT

    tell(story)


def test_a_user_without_permissions_is_refused(make_user: Any) -> None:
    cookies = cookies_of(make_user("", "nobody"))

    async def story() -> None:
        assert await (await Tab(cookies).open()).code() == SIGNED_OUT

    tell(story)


def test_a_user_who_is_switched_off_hears_no_more(pass_of: str, viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CHECK_EVERY", 0.0)
    viewer.is_active = False

    async def story() -> None:
        tab = await Tab(pass_of).open()
        await sync_to_async(viewer.save)()
        await tab.send({"hidden": False})
        assert await tab.code() == SIGNED_OUT

    tell(story)


def sign_out(user: Any, cookies: str) -> None:
    client = Client()
    client.cookies.load(cookies)
    assert client.post("/logout/").status_code == 302


@pytest.mark.parametrize(
    "change",
    [
        sign_out,
        lambda user, _: (setattr(user, "is_active", False), user.save()),
        lambda user, _: (user.set_password("another-one"), user.save()),
        lambda user, _: user.groups.clear(),
        lambda user, _: Group.objects.get(name="viewer").permissions.clear(),
        lambda user, _: Group.objects.get(name="viewer").delete(),
        lambda user, _: user.delete(),
    ],
    ids=["signed out", "deactivated", "new password", "demoted", "group without rights", "no group", "deleted"],
)
def test_who_may_not_any_more_hears_no_more_at_once(
    viewer: Any, change: Any, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(pages, "CHECK_EVERY", 1e9)
    cookies = cookies_of(viewer)

    def act() -> None:
        with django_capture_on_commit_callbacks(execute=True):
            change(viewer, cookies)

    async def story() -> None:
        tab = await Tab(cookies).open(overview=0)
        await tab.until(lambda message: True)
        await sync_to_async(act)()
        assert await tab.code() == SIGNED_OUT

    tell(story)


def test_others_stay_when_somebody_leaves(viewer: Any, operator: Any, django_capture_on_commit_callbacks: Any) -> None:
    leaving = cookies_of(viewer)

    def act() -> None:
        with django_capture_on_commit_callbacks(execute=True):
            sign_out(viewer, leaving)

    async def story() -> None:
        tab = await Tab(cookies_of_operator).open()
        await sync_to_async(act)()
        await tab.send({"sub": {"admin": 0}})
        assert (await tab.until(of_kind("refused")))["topic"] == "admin"
        await tab.leave()

    cookies_of_operator = cookies_of(operator)
    tell(story)


def test_a_page_that_asks_for_more_is_looked_at_first(
    pass_of: str, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process changed is not heard here."""
    monkeypatch.setattr(pages, "CHECK_EVERY", 1e9)
    monkeypatch.setattr(pages, "BELIEVED", 0.0)

    async def story() -> None:
        tab = await Tab(pass_of).open()
        await sync_to_async(User.objects.update)(is_active=False)
        await tab.send({"sub": {"overview": 0}})
        assert await tab.code() == SIGNED_OUT

    tell(story)


def test_what_another_process_changed_is_found_in_seconds() -> None:
    assert pages.CHECK_EVERY <= 5


@pytest.mark.parametrize(
    "message",
    [
        '{"sub": {"overview": 1e400}}',
        '{"sub": {"overview": true}}',
        '{"sub": {"overview": 1e18}}',
        '{"ack": 1e400}',
        '{"ack": -1}',
        '{"ack": false}',
        '{"hidden": "no"}',
        '{"sub": {"overview": 9223372036854775808}}',
        "null",
        "{",
        "[]",
        '"x"',
        '{"nope": 1}',
        '{"sub": 1}',
        '{"sub": {"overview": "x"}}',
        '{"ack": 7}',
        '{"ack": "x"}',
        "x" * 5000,
        "[" * 4000,
    ],
)
def test_nonsense_ends_the_connection_without_an_error(
    pass_of: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        tab = await Tab(pass_of).open()
        await tab.send(message)
        assert await tab.code() == MALFORMED

    tell(story)
    assert not caplog.records


def test_a_page_that_never_stops_talking_is_sent_away(pass_of: str) -> None:
    async def story() -> None:
        tab = await Tab(pass_of).open()
        for _ in range(3_000):  # more than a slow machine can take in the time that earns credit for as many
            await tab.send({"hidden": False})
        assert await tab.code() == OVERFLOW

    tell(story)


def test_unknown_topics_are_refused_one_by_one_and_too_many_end_it(pass_of: str) -> None:
    async def story() -> None:
        tab = await Tab(pass_of).open()
        await tab.send({"sub": {"admin": 0, "run:1": 0, "run:x/../y": 0}})
        assert (await tab.until(of_kind("refused")))["topic"] == "admin"
        await tab.send({"sub": {f"flow:{number}": 0 for number in range(9)}})
        assert await tab.code() == MALFORMED

    tell(story)


# --------------------------------------------------------------------------------------------------------- what comes


def test_a_change_reaches_the_page_as_numbers_and_as_a_fragment(pass_of: str) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now() - timedelta(seconds=30), "RUNNING")
    _, training, _ = make_tasks(run, "COMPLETED", "RUNNING", "PENDING")

    def finish() -> None:
        TaskRun.objects.filter(pk=training.pk).update(state="COMPLETED", finished_at=timezone.now())
        Run.objects.filter(pk=run.pk).update(version=1)
        events.deliver(frozenset({events.run_topic(run.pk)}))

    async def story() -> None:
        tab = await Tab(pass_of).open(**{f"run__{run.pk}": 0})
        numbers = await tab.until(of_kind("p"))
        assert numbers["run"] == str(run.pk) and numbers["state"] == "RUNNING" and 0 < numbers["pct"] < 100
        assert [task[0] for task in numbers["tasks"]] == [training.pk]
        await sync_to_async(finish)()
        fragment = await tab.until(lambda message: message.get("target") == "#run-timeline")
        assert fragment["html"].startswith('<div id="run-timeline"') and fragment["html"].count("Completed") == 2
        await tab.leave()

    tell(story)


def test_a_page_that_comes_back_gets_the_lines_it_missed_and_only_those(pass_of: str) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now())
    make_lines(run, 5, "\x1b[31mline {}\x1b[0m")

    async def story() -> None:
        tab = await Tab(pass_of).open(**{f"run__{run.pk}__log": 3})
        lines = (await tab.until(of_kind("log")))["lines"]
        assert [line[0] for line in lines] == [4, 5]
        assert lines[0][4] == [["a31", "line 4"]]
        await tab.leave()

    tell(story)


def test_a_page_far_behind_gets_the_end_of_the_log(db: None) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now())
    make_lines(run, 3000)

    drawing = render(f"run:{run.pk}:log", None, whole=True, since=0)

    assert drawing.lines is not None and drawing.lines[0][0] == 2501 and drawing.lines[-1][0] == 3000


def test_every_topic_draws_and_nothing_in_it_is_anybodys_own(viewer: Any) -> None:
    flow = make_house(timezone.now())
    run = Run.objects.filter(state="RUNNING").get()

    for name in ["overview", "runs", f"flow:{flow.slug}", f"run:{run.pk}", "workers", "schedules", "flow:nope"]:
        drawing = render(name, None, whole=True, since=-1)
        text = json.dumps(drawing.messages)
        assert drawing.messages or name in {"runs", "flow:nope"}, name
        assert "csrf" not in text and viewer.username not in text and "hush" not in text


def test_nothing_new_means_no_new_fragment(db: None) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now(), "PAUSED")
    first = render(f"run:{run.pk}", None, whole=True, since=-1)

    again = render(f"run:{run.pk}", first.memory, whole=True, since=0)

    assert {key for key, _ in first.messages} >= {"#run-hero", "#run-timeline"}
    assert [key for key, _ in again.messages] == [f"p:{run.pk}"]


def test_the_page_that_was_just_made_is_not_drawn_again(db: None) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now(), version=7)

    assert [key for key, _ in render(f"run:{run.pk}", None, whole=True, since=7).messages] == [f"p:{run.pk}"]


def test_the_history_asks_for_its_list_only_when_a_run_came_or_moved(db: None) -> None:
    flow = make_flow(timezone.now())
    make_run(flow, timezone.now())
    first = render("runs", None, whole=True, since=0)
    same = render("runs", first.memory, whole=True, since=0)
    make_run(flow, timezone.now() + timedelta(seconds=1))

    assert first.messages == same.messages == []
    assert [key for key, _ in render("runs", first.memory, whole=True, since=0).messages] == ["changed"]
