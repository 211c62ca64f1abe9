"""A worker's line to its server: whatever comes in one read is handled once and in order, and the line comes back."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.system.loop import Loop
from perfect_client.wire import connect, messages
from perfect_client.wire.session import Session
from perfect_client.worker.uplink import Uplink

from tests.wire.frames_server_side import PING, TEXT, close, frame

ACCEPT = messages.Accept(server_time=1000.0)
DEADLINE_S = 5.0


def text(message: Any) -> bytes:
    return frame(TEXT, messages.encode(message).encode())


def offer(fence: int) -> bytes:
    return text(messages.OfferRun(fence=fence, run=f"run-{fence}", flow="plain", parameters={}))


class Line:
    """A wire over a real socket pair, and a supervisor that claims each offer at once, as the real one does."""

    def __init__(self, fails_at: int = 0) -> None:
        self.errors: list[Exception] = []
        self.taken: list[Any] = []  # offers by their fence, other orders by their name
        self.said: list[str] = []
        self.fails_at = fails_at  # this offer cannot be taken
        self.servers: list[socket.socket] = []  # our ends, the newest last
        self.ahead, self.lives = 0.0, 0
        self.loop = Loop(self.errors.append, lambda: self.ahead)
        self.session = Session(messages.Joined("w-1", "b-1", name="w1", slots=4))
        self.wire = Uplink(
            self.loop,
            lambda: ("http://127.0.0.1:1", "t"),
            self.session,
            lambda: [],
            self.obey,
            self.said.append,
            self.said.append,
        )

    def dial(self, *_: Any) -> tuple[socket.socket, bytes]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.servers.append(ours)
        return theirs, b""

    def obey(self, order: Any) -> None:
        if isinstance(order, messages.OfferRun):
            self.taken.append(order.fence)
            if order.fence == self.fails_at:
                raise OSError("no space left")
            self.session.claim(order.fence, order.run)
            self.wire.pump()
        else:
            self.taken.append(type(order).__name__)

    def connect(self) -> None:
        """Until the wire has opened its next connection and was accepted."""
        self.ahead += 60.0  # past every back-off
        self.lives += 1
        until = time.monotonic() + DEADLINE_S
        while len(self.servers) < self.lives or self.session.wakes_at == float("inf"):
            assert time.monotonic() < until, (self.lives, self.servers, self.said, self.errors)
            self.loop.turn(0.01)  # until the connecting thread rings
        self.hear(text(ACCEPT))
        assert self.wire.connected

    def turn(self) -> None:
        self.loop.turn(0)
        self.loop.guarded(self.wire.pump)

    def hear(self, data: bytes) -> None:
        if data:
            self.servers[-1].sendall(data)
        self.turn()

    def end(self, data: bytes) -> None:
        """Say this and be gone, so that the wire finds both in one read."""
        with contextlib.suppress(OSError):
            self.servers[-1].sendall(data)
        self.servers[-1].close()
        for _ in range(3):
            self.turn()


@contextlib.contextmanager
def line(**options: Any) -> Iterator[Line]:
    made = Line(**options)
    with mock.patch.object(connect, "dial", made.dial):
        made.wire.begin()
        made.connect()
        try:
            yield made
        finally:
            made.wire.abort()
            made.loop.close()
            for server in made.servers:
                server.close()


@pytest.mark.parametrize("goodbye", [b"", close(4012, b"restarting"), close(1000)], ids=["FIN", "restarting", "close"])
def test_an_offer_and_the_end_of_the_connection_in_one_read_end_the_connection_and_nothing_else(goodbye):
    with line() as worker:
        worker.end(offer(7) + goodbye)

        assert (worker.errors, worker.taken) == ([], ["Accept", 7])
        assert not worker.wire.connected and len(worker.said) == 2  # connected; no connection
        worker.connect()


EVENTS = st.sampled_from(["offer", "echo", "ping", "garbage"])


def written(events: list[str], fences: Iterator[int], told: list[Any]) -> bytes:
    said = b""
    for event in events:
        if event == "offer":
            told.append(next(fences))
            said += offer(told[-1])
        else:
            said += {
                "echo": text(messages.Echo(1.0)),
                "ping": frame(PING, b"x"),
                "garbage": frame(TEXT, json.dumps({"type": "OfferRun"}).encode()),
            }[event]
    return said


@given(
    lives=st.lists(
        st.tuples(st.lists(st.lists(EVENTS, max_size=4), max_size=3), st.sampled_from([b"", close(4012), close(1001)])),
        min_size=1,
        max_size=3,
    ),
    fails_at=st.integers(0, 5),
)
def test_whatever_is_read_at_once_is_handled_once_in_order_and_the_wire_comes_back(lives, fails_at):
    """Each life of the connection is some reads; the last of them ends with the connection."""
    fences = iter(range(1, 1000))
    with line(fails_at=fails_at) as worker:
        told: list[Any] = ["Accept"]
        for reads, goodbye in lives:
            for events in reads[:-1]:
                worker.hear(written(events, fences, told))
            worker.end(written(reads[-1] if reads else [], fences, told) + goodbye)
            assert worker.taken == told
            worker.connect()
            told.append("Accept")

        assert worker.taken == told
        assert [type(error) for error in worker.errors] == [OSError] * told.count(fails_at)
