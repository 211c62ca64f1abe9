"""Whatever comes on a socket is taken or refused with a code of the protocol: never a traceback, never silence."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from perfect_client.wire import messages as p

from perfect_site.sockets.hub import hub
from perfect_site.sockets.pages import LiveConsumer
from perfect_site.sockets.workers import WorkerConsumer

from .test_live_socket import HOST, cookies_of

DRAWN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
HUGE = st.sampled_from([1 << 63, -(1 << 63) - 1, 1 << 5000, 1e308, -1e308, 0.5])
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["\0", "\ud800", "x" * 3000, str(uuid.UUID(int=1)), "facts", "overview"])
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), HUGE, TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
DEEP = st.integers(50, 900).map(lambda depth: json.loads("[" * depth + "]" * depth))
ANYTHING = VALUES | DEEP


def text_of(message: Any) -> str:
    """JSON as a hostile client writes it: infinities as numbers too large, and not-a-number as Python has it."""
    return json.dumps(message).replace("Infinity", "1e400")


def answer_to(wire: WebsocketCommunicator, texts: list[str], last: str) -> list[Any]:
    """What is sent until the answer to ``last``, or the code that the socket is closed with."""

    async def story() -> list[Any]:
        assert (await wire.connect())[0]
        for text in [*texts, last]:
            await wire.send_to(text_data=text)
        heard: list[Any] = []
        while True:
            event = await wire.receive_output(timeout=20)
            if event["type"] == "websocket.close":
                heard.append(event["code"])
                await wire.disconnect()
                return heard
            heard.append(event["text"])
            if "refused" in event["text"] or "Echo" in event["text"]:
                await wire.disconnect()
                return heard

    return async_to_sync(story)()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Errors in the log. Without the lanes orders are handed out on the loop's own thread, where Django refuses."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    caplog.clear()
    return [text for text in found if not text.startswith("handing out orders failed")]


@pytest.fixture(autouse=True)
def _one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """All draws of a test share its database connection, which Channels would close at the end of each socket."""

    async def stay() -> None:
        pass

    monkeypatch.setattr("channels.generic.websocket.aclose_old_connections", stay)


MESSAGES = st.dictionaries(st.sampled_from(["sub", "ack", "hidden", "other"]), ANYTHING, max_size=3)
TOPICS = TEXTS | st.sampled_from(["overview", "runs", "flow:x", "run:1:log"])
SUBSCRIPTIONS = st.dictionaries(TOPICS, ANYTHING, max_size=4)


@DRAWN
@example([{"sub": {"overview": float("inf")}}])
@example([{"sub": {"overview": 1 << 63}}])
@given(st.lists(ANYTHING | MESSAGES | st.builds(lambda topics: {"sub": topics}, SUBSCRIPTIONS), max_size=3))
def test_a_page_may_say_anything(pass_of: str, caplog: pytest.LogCaptureFixture, messages: list[Any]) -> None:
    headers = [(b"host", HOST.encode()), (b"cookie", pass_of.encode()), (b"origin", f"http://{HOST}".encode())]
    wire = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live/", headers=headers)

    heard = answer_to(wire, [text_of(message) for message in messages], '{"sub": {"nothing": 0}}')

    assert not isinstance(heard[-1], int) or heard[-1] == 4400, heard
    assert not complaints(caplog) and not hub.sockets


@pytest.fixture
def pass_of(viewer: Any) -> str:
    return cookies_of(viewer)


NAMES = sorted(p.TYPES)
FIELDS = {name: sorted(cls.__dataclass_fields__) for name, cls in p.TYPES.items()}


@st.composite
def said(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(NAMES))
    fields = draw(st.dictionaries(st.sampled_from(FIELDS[name] or ["none"]), ANYTHING, max_size=5))
    return {**fields, "type": name}


@DRAWN
@given(st.lists(said() | ANYTHING, max_size=3))
def test_a_worker_may_say_anything(make_token: Any, caplog: pytest.LogCaptureFixture, messages: list[Any]) -> None:
    headers = [(b"authorization", f"Bearer {make_token('worker')}".encode())]
    wire = WebsocketCommunicator(WorkerConsumer.as_asgi(), "/ws/worker/", headers=headers)
    joined = p.encode(p.Joined(str(uuid.uuid4()), "b-1", name="w1"))

    heard = answer_to(wire, [joined, *(text_of(message) for message in messages)], p.encode(p.Beaten()))

    assert not isinstance(heard[-1], int) or 4400 <= heard[-1] <= 4426, heard
    assert not complaints(caplog)
