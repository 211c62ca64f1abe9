"""Coalescing, fan-out and catching up, without a socket and without waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from hypothesis import given
from hypothesis import strategies as st

from perfect_site.dashboard.topics import Rendering
from perfect_site.sockets import hub as hubs
from perfect_site.sockets.hub import FASTEST, SLOWEST, Hub, Pace
from perfect_site.sockets.pages import MAX_IN_FLIGHT, MAX_WAITING, STALLED, Mailbox
from runs import events
from runs.db import threads

RUN = "01a205bd-6a51-7000-953b-c49625bda659"


# ------------------------------------------------------------------------------------------------------- the pace


def test_the_first_bell_draws_at_once_and_the_next_ones_wait() -> None:
    pace = Pace()

    assert pace.ask(10.0) == 10.0
    assert pace.ask(10.0) is None
    pace.begin()
    assert pace.ask(10.01) is None
    assert pace.end(10.02, took=0.02) == pytest.approx(10.0 + FASTEST)


def test_an_idle_topic_costs_nothing() -> None:
    pace = Pace()
    pace.ask(1.0)
    pace.begin()

    assert pace.end(1.1, took=0.1) is None
    assert pace.ask(60.0) == 60.0


def test_an_expensive_drawing_slows_down_but_not_for_ever() -> None:
    pace = Pace()
    for took, until in [(0.1, 0.4), (30.0, SLOWEST)]:
        pace.ask(100.0)
        pace.begin()
        pace.ask(100.0)
        assert pace.end(100.0, took) == pytest.approx(100.0 + until)


@given(st.lists(st.floats(0, 3, allow_nan=False), max_size=100), st.floats(0.001, 0.15))
def test_whatever_rings_a_topic_is_drawn_at_most_five_times_a_second(gaps: list[float], took: float) -> None:
    pace, now, due, begun = Pace(), 0.0, None, []
    bells = []
    for gap in gaps:
        now += gap
        bells.append(now)
    while bells or due is not None:
        if due is not None and (not bells or due <= bells[0]):
            begun.append(due)
            pace.begin()
            while bells and bells[0] <= due + took:
                pace.ask(bells.pop(0))
            due = pace.end(due + took, took)
        else:
            at = bells.pop(0)
            asked = pace.ask(at)
            due = asked if asked is not None else due
    assert all(later - earlier >= FASTEST - 1e-9 for earlier, later in pairwise(begun))
    assert bool(begun) == bool(gaps)


# ---------------------------------------------------------------------------------------------------- the mailbox


def test_the_last_message_of_a_kind_counts() -> None:
    box = Mailbox()
    for number in range(3):
        box.put("p:1", json.dumps(number))
    box.put("html", '"x"')

    frame = json.loads(box.frame("now", 0.0) or "")

    assert frame == {"n": 1, "at": "now", "m": [2, "x"]}
    assert box.frame("now", 0.0) is None


def test_only_a_few_frames_are_under_way_until_the_page_acknowledges() -> None:
    box = Mailbox()
    for number in range(MAX_IN_FLIGHT):
        box.put("p", str(number))
        assert box.frame("", 0.0)
    box.put("p", "9")

    assert box.frame("", 0.0) is None and not box.has_room
    box.acknowledge(1, 1.0)
    assert box.frame("", 1.0)


def test_a_page_that_reads_nothing_overflows_or_stalls() -> None:
    box = Mailbox()
    for number in range(MAX_WAITING + 1):
        box.put(f"key {number}", "{}")
    assert box.overflows

    box = Mailbox()
    box.put("p", "1")
    box.frame("", 0.0)
    assert not box.stalled(STALLED) and box.stalled(STALLED + 1)
    box.acknowledge(1, STALLED)
    assert not box.stalled(10 * STALLED)


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="was not sent"):
        Mailbox().acknowledge(1, 0.0)


# --------------------------------------------------------------------------------------------------------- the hub


class Page:
    """A page that remembers what it got; ``roomy`` says whether it reads."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.roomy = True
        self.closed: int | None = None

    def put(self, key: str, text: str) -> None:
        self.got.append((key, json.loads(text)))

    def room(self) -> bool:
        return self.roomy

    async def close(self, code: int) -> None:
        self.closed = code


class Artist:
    """Draws what a test says, and counts."""

    def __init__(self) -> None:
        self.drawing = Rendering()
        self.calls: list[tuple[str, bool, int]] = []

    def __call__(self, name: str, memory: Any, *, whole: bool, since: int) -> Rendering:
        self.calls.append((name, whole, since))
        return self.drawing


@pytest.fixture
def artist(monkeypatch: pytest.MonkeyPatch) -> Artist:
    async def read(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    artist = Artist()
    monkeypatch.setattr(hubs, "render", artist)
    monkeypatch.setattr(threads, "read", read)
    return artist


async def until(done: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while not done():
        assert asyncio.get_running_loop().time() < deadline, "it never happened"
        await asyncio.sleep(0.005)


def with_hub(story: Callable[[Hub], Awaitable[None]]) -> None:
    async def run() -> None:
        hub = Hub()
        await story(hub)
        for page in list(hub.sockets):
            hub.leave(page)

    async_to_sync(run)()


def test_one_drawing_reaches_all_who_watch_and_nobody_else(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        here, there, elsewhere = Page(), Page(), Page()
        for page in (here, there, elsewhere):
            hub.enter(page)
        artist.drawing = Rendering([("p", {"pct": 1})])
        hub.subscribe(here, "overview", 0)
        hub.subscribe(there, "overview", 0)
        await until(lambda: bool(here.got and there.got))

        assert len(artist.calls) == 1 and here.got == there.got == [("p", {"pct": 1})] and not elsewhere.got

    with_hub(story)


def test_what_has_not_changed_is_not_sent_again_but_a_newcomer_gets_it(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        old, new = Page(), Page()
        hub.enter(old), hub.enter(new)
        artist.drawing = Rendering([("html", {"a": 1})])
        hub.subscribe(old, "workers", 0)
        await until(lambda: len(artist.calls) == 1)
        hub.subscribe(new, "workers", 0)
        await until(lambda: bool(new.got))

        assert len(old.got) == len(new.got) == 1

    with_hub(story)


def test_a_newcomer_gets_what_changed_while_its_page_was_on_the_way(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        old, new = Page(), Page()
        hub.enter(old), hub.enter(new)
        artist.drawing = Rendering([("#card", {"a": 1})])
        hub.subscribe(old, "overview", 0)
        await until(lambda: bool(old.got))
        artist.drawing = Rendering([("p:1", {"pct": 1})])
        hub.subscribe(new, "overview", 0)
        await until(lambda: len(new.got) == 2)

        assert new.got == [("#card", {"a": 1}), ("p:1", {"pct": 1})]

    with_hub(story)


def test_a_bell_from_another_thread_draws_only_what_is_watched(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        page = Page()
        hub.enter(page)
        hub.subscribe(page, f"run:{RUN}", 3)
        await until(lambda: len(artist.calls) == 1)

        await asyncio.to_thread(events.deliver, frozenset({f"run:{RUN}", "overview", "workers"}))
        await until(lambda: len(artist.calls) == 2)

        assert {name for name, _, _ in artist.calls} == {f"run:{RUN}"}

    with_hub(story)


def test_many_bells_are_one_drawing(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        page = Page()
        hub.enter(page)
        hub.subscribe(page, "overview", 0)
        await until(lambda: len(artist.calls) == 1)
        for _ in range(500):
            hub.ring({"overview"})
        await until(lambda: len(artist.calls) == 2)
        await asyncio.sleep(FASTEST / 2)

        assert len(artist.calls) == 2

    with_hub(story)


def test_lines_go_to_each_page_from_where_it_is_and_wait_while_it_does_not_read(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        behind, ahead, stuck = Page(), Page(), Page()
        stuck.roomy = False
        artist.drawing = Rendering(lines=[[1, "", "INFO", "", "a"], [2, "", "INFO", "", "b"]], run=RUN)
        for page, since in ((behind, 0), (ahead, 1), (stuck, 0)):
            hub.enter(page)
            hub.subscribe(page, f"run:{RUN}:log", since)
        await until(lambda: bool(behind.got and ahead.got))

        assert [line[0] for line in behind.got[0][1]["lines"]] == [1, 2]
        assert [line[0] for line in ahead.got[0][1]["lines"]] == [2]
        stuck.roomy = True
        hub.want(f"run:{RUN}:log")
        await until(lambda: bool(stuck.got))
        assert len(behind.got) == 1

    with_hub(story)


def test_a_failing_drawing_is_tried_again_at_the_next_bell(artist: Artist, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(hub: Hub) -> None:
        page = Page()
        hub.enter(page)
        with monkeypatch.context() as broken:
            broken.setattr(hubs, "render", None)
            hub.subscribe(page, "overview", 0)
            await until(lambda: not hub.topics["overview"].pace.waiting and not hub.topics["overview"].pace.drawing)
        artist.drawing = Rendering([("p", {})])
        hub.ring({"overview"})
        await until(lambda: bool(page.got))

    with_hub(story)


def test_nobody_watching_means_no_topic_no_listener_and_no_clock(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        listeners = len(events._listeners)
        page = Page()
        hub.enter(page)
        hub.subscribe(page, "overview", 0)
        hub.leave(page)

        assert not hub.topics and len(events._listeners) == listeners and hub._ticking is None

    with_hub(story)


def test_an_unknown_topic_is_refused_and_all_can_be_sent_away(artist: Artist) -> None:
    async def story(hub: Hub) -> None:
        page = Page()
        hub.enter(page)

        assert not hub.subscribe(page, "run:1", 0) and not hub.subscribe(page, "admin", 0)
        await hub.close_all(4012)
        assert page.closed == 4012

    with_hub(story)
