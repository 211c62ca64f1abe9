"""Perfect's server process: Daphne with limits, the database lanes, the clock, local workers, a quiet end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import daphne.server
from autobahn.exception import Disconnected
from daphne.ws_protocol import WebSocketProtocol
from django.db import DatabaseError
from twisted.internet import reactor

from perfect_site.server.backpressure import LimitedSocket, LimitedSockets, counted
from perfect_site.server.connection_slots import MAX_CONNECTIONS
from perfect_site.server.request_limits import LimitedFactory
from runs.db import outages

GOING_AWAY = 4012  # autobahn sends only 1000 and 3000-4999, so 1012 "service restart" becomes 4012
FINISH_WITHIN = 5.0  # seconds for requests in flight
CANCEL_WITHIN = 2.0  # seconds for what waits for nothing any more
OPEN_HANDSHAKE_WITHIN = 5
# Seconds after which the interpreter changes threads when another waits. Python's 5 ms are a third of a run's whole
# start, and a thread of the database waits for the event loop, or it for them, several times in each.
SWITCH_AFTER = 0.0005
OTHER_FILES = 500  # descriptors beside the connections

logger = logging.getLogger("perfect.server")


class Server(daphne.server.Server):
    """Runs until SIGTERM or SIGINT, then drains: no new connection, sockets closed with 4012, answers finished.

    ``on_ready`` is awaited once the port listens and the loop runs, the steps of ``on_drain`` when the end begins,
    ``on_end`` when no request is left. A second signal ends the process without waiting.
    """

    def __init__(
        self,
        application: Any,
        *,
        host: str,
        port: int,
        on_ready: Callable[[str, int], Awaitable[None]],
        on_drain: Sequence[Callable[[], Awaitable[None]]],
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        interface = host.strip("[]").replace(":", r"\:")
        super().__init__(
            counted(application),
            endpoints=[f"tcp:port={port}:interface={interface}:backlog=512"],
            signal_handlers=False,
            websocket_timeout=-1,  # the default closes every socket once a day, by wall time
            websocket_handshake_timeout=OPEN_HANDSHAKE_WITHIN,
            # A second ping overwrites the first one's timer, so the timeout must not exceed the interval.
            ping_interval=20,
            ping_timeout=15,
            http_timeout=120,
            verbosity=0,
            ready_callable=self._ready,
            server_name="perfect",
        )
        self._on_ready, self._on_drain, self._on_end = on_ready, on_drain, on_end
        self._draining = False
        self.failure = ""

    def run(self) -> None:
        sys.setswitchinterval(SWITCH_AFTER)
        _allow_files(MAX_CONNECTIONS + OTHER_FILES)
        # The only seam: Server.run() makes the factories itself.
        daphne.server.HTTPFactory, daphne.server.WebSocketFactory = LimitedFactory, LimitedSockets
        super().run()

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        self._port = port

    def listen_error(self, failure: Any) -> None:
        self.failure = failure.getErrorMessage()
        self.stop()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if isinstance(protocol, LimitedSocket):
            scope["perfect.socket"] = protocol
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Return once the peer has room: who sends faster than the peer reads waits, or the peer is cut."""
        try:
            await super().handle_reply(protocol, message)
        except Disconnected:  # the client has just closed its socket
            return
        if not await protocol.has_room():
            protocol.cut()

    def kill_all_applications(self) -> None:
        """Daphne's own reads a key that a half-open request does not have."""
        for details in self.connections.values():
            details.setdefault("application_instance", _done())
        super().kill_all_applications()

    def _ready(self) -> None:
        loop = asyncio.get_event_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        self._task = loop.create_task(self._begin())

    async def _begin(self) -> None:
        if self.failure:
            return
        host, port = self.listening_addresses[0]
        try:
            await self._on_ready(host, port)
        except Exception as error:
            if isinstance(error, DatabaseError) and outages.of(error):
                self.failure = outages.advice(error)
            else:
                logger.exception("the server could not start")
                self.failure = f"the server could not start: {error}"
            self.stop()

    def _signalled(self) -> None:
        if self._draining:
            self.stop()
            return
        self._draining = True
        self._task = asyncio.get_event_loop().create_task(self._drain())

    async def _drain(self) -> None:
        self._port.stopListening()
        for step in self._on_drain:
            await _guarded(step)
        deadline = asyncio.get_event_loop().time() + FINISH_WITHIN
        while self._in_flight() and asyncio.get_event_loop().time() < deadline:
            await asyncio.sleep(0.02)
        await _guarded(self._on_end)
        await _guarded(_cancel_the_rest)
        self.stop()

    def _in_flight(self) -> int:
        """HTTP requests whose answer is not complete."""
        return sum(
            1
            for protocol, details in self.connections.items()
            if "application_instance" in details
            and not details["application_instance"].done()
            and not details.get("disconnected")
            and not isinstance(protocol, WebSocketProtocol)
        )

    def stop(self) -> None:
        if reactor.running:  # type: ignore[attr-defined]
            reactor.stop()  # type: ignore[attr-defined]
        else:
            self.abort_start = True


def _allow_files(count: int) -> None:
    """Without descriptors left for it, the database could not be opened: most systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


async def _cancel_the_rest() -> None:
    """Let every coroutine that still waits come to its end while there is a loop: what the interpreter finds waiting
    when it is torn down, it closes in the middle of collecting garbage, and CPython 3.11 has crashed in that."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=CANCEL_WITHIN)


async def _guarded(step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except Exception:
        logger.exception("a step of the shutdown failed")


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    future.set_result(None)
    return future
