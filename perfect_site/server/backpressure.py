"""Fixed budgets for WebSockets: what waits to be read, what waits to be sent, and both over all sockets.

Daphne puts every message into a queue without end, and Twisted everything that is sent into a buffer without end. Here
reading stops until the consumer has caught up, a consumer that sends waits until the peer takes it, and a peer that
takes nothing is cut.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

from perfect_site.server.connection_slots import Seat, Seats

WORKERS = "/ws/worker/"
MAX_PAGE_MESSAGE = 16 << 10  # bytes; workers' may have Daphne's 1 MiB
MAX_HANDSHAKE = 64 << 10  # bytes before the socket is accepted
MIN_WAITING, MAX_WAITING = 64 << 10, 1 << 20  # bytes of one socket for its consumer; more is left in the network
MESSAGE_COST = 512  # bytes that a message costs beside its text
MAX_HELD = 40 << 20  # bytes of all sockets together, in both directions; half of it is shared out for waiting
PAUSED_FOR = 60.0  # seconds that a consumer may leave its messages waiting
SEND_WITHIN = 30.0  # seconds that a peer may take for what waits to be sent to it, 64 KiB or the last message

Receive = Callable[[], Awaitable[dict[str, Any]]]
Application = Callable[[dict[str, Any], Receive, Any], Awaitable[None]]

logger = logging.getLogger("perfect.server")


class Flow:
    """Whether the peer takes what is sent to it: a push producer that Twisted's transport pauses at 64 KiB."""

    _room: asyncio.Future[None] | None = None  # None: there is room

    def pauseProducing(self) -> None:
        if self._room is None:
            self._room = asyncio.get_event_loop().create_future()

    def resumeProducing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    stopProducing = resumeProducing

    async def has_room(self) -> bool:
        """Return once there is room; False if the peer took too long."""
        if self._room is None:
            return True
        done, _ = await asyncio.wait([self._room], timeout=SEND_WITHIN)
        return bool(done)


def unsent(transport: Any) -> int:
    """Bytes that wait in the transport, which has no public name for it."""
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen if transport is not None else 0


class LimitedSocket(Flow, WebSocketProtocol):
    seat: Seat | None = None
    counted = 0  # bytes that the factory has counted
    autoPingTimeoutCall: Any
    _waiting = 0  # bytes that wait for the consumer
    _full_since = 0.0  # monotonic; 0 while reading goes on

    def onConnect(self, request: Any) -> Any:
        self._sizes: deque[int] = deque()
        if request.path != WORKERS:
            self.maxFramePayloadSize = self.maxMessagePayloadSize = MAX_PAGE_MESSAGE
        self.transport.unregisterProducer()  # the HTTP channel that this connection began as
        self.transport.registerProducer(self, True)
        return super().onConnect(request)

    # --------------------------------------------------------------------------------------------------- what comes in

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.state == self.STATE_CONNECTING and len(self.data) > MAX_HANDSHAKE:
            self.cut()
        else:
            self.factory.settle(self)

    def processData(self) -> bool:
        if self._full_since and self.state == self.STATE_OPEN:
            return False
        return bool(super().processData())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:  # nobody reads any more
            return
        super().onMessage(payload, isBinary)
        self._sizes.append(len(payload) + MESSAGE_COST)
        self._waiting += self._sizes[-1]
        if self._waiting > self.factory.share and not self._full_since:
            self._full_since = time.monotonic()
            self.transport.pauseProducing()
            self._forget_ping()

    def taken(self) -> None:
        """The consumer has taken a message."""
        if self._sizes:  # else it was cut meanwhile
            self._waiting -= self._sizes.popleft()
        if self._full_since and self._waiting < self.factory.share / 2:
            self.read_on()
        self.factory.settle(self)

    def read_on(self) -> None:
        self._full_since = 0.0
        self.transport.resumeProducing()
        self.consumeData()

    def _forget_ping(self) -> None:
        """The answer to a ping may lie behind what is not read now."""
        if self.autoPingTimeoutCall is not None:
            self.autoPingTimeoutCall.cancel()
            self.autoPingTimeoutCall = self.autoPingPending = None

    def check_timeouts(self) -> None:
        if not self._full_since:
            super().check_timeouts()
        elif time.monotonic() - self._full_since > PAUSED_FOR:
            self.cut()

    def sendMessage(self, payload: bytes, *args: Any, **options: Any) -> None:
        """autobahn holds what is sent to the limit of what may come."""
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(payload, *args, **options)
        finally:
            self.maxMessagePayloadSize = limit

    # -------------------------------------------------------------------------------------------------------- the end

    def serverClose(self, code: int | None = None) -> None:
        super().serverClose(code)
        if self._full_since:  # the peer's own close frame lies behind what was not read
            self.read_on()

    def cut(self) -> None:
        """End the connection at once, and let nothing wait."""
        self.factory.forget(self)
        queue = getattr(self, "application_queue", None)
        while queue is not None and not queue.empty():
            queue.get_nowait()
        if hasattr(self, "_sizes"):
            self._sizes.clear()
            self._waiting = 0
        self._drop_what_came()
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.leave(self)
        super().connectionLost(reason)
        self._drop_what_came()

    def _drop_what_came(self) -> None:
        """Not left to the collector of cycles: it counts objects, and a megabyte is one."""
        self.data = b""
        self.frame_data, self.message_data = None, None

    def held(self) -> int:
        """Bytes of this process that the socket costs beside itself."""
        partial = self.message_data_total_length if getattr(self, "message_data", None) is not None else 0
        return self._waiting + len(self.data) + partial + unsent(self.transport)


class LimitedSockets(WebSocketFactory):
    """All WebSockets of the process and what they hold together."""

    protocol = LimitedSocket

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held = 0
        self.sockets: set[LimitedSocket] = set()
        self.seats: Seats | None = None

    @property
    def share(self) -> float:
        """Bytes that may wait for one consumer."""
        return max(MIN_WAITING, min(MAX_WAITING, MAX_HELD / 2 / max(1, len(self.sockets))))

    def settle(self, socket: LimitedSocket) -> None:
        """Count what the socket holds now; if all hold too much, cut those that hold most."""
        self._count(socket)
        if self.held > MAX_HELD:
            for each in self.sockets:
                self._count(each)
        while self.held > MAX_HELD:
            largest = max(self.sockets, key=lambda each: each.counted)
            logger.warning("a socket of %s was cut: all sockets together held too much", largest.peer)
            largest.cut()

    def _count(self, socket: LimitedSocket) -> None:
        now = socket.held()
        self.held += now - socket.counted
        socket.counted = now
        self.sockets.add(socket)

    def forget(self, socket: LimitedSocket) -> None:
        self.held -= socket.counted
        socket.counted = 0
        self.sockets.discard(socket)

    def leave(self, socket: LimitedSocket) -> None:
        self.forget(socket)
        if self.seats is not None and socket.seat is not None:
            self.seats.leave(socket.seat)


def counted(application: Application) -> Application:
    """The application; it tells each socket when it has taken a message."""

    async def run(scope: dict[str, Any], receive: Receive, send: Any) -> None:
        socket: LimitedSocket | None = scope.pop("perfect.socket", None)
        if socket is None:
            return await application(scope, receive, send)

        async def take() -> dict[str, Any]:
            message = await receive()
            if message["type"] == "websocket.receive":
                socket.taken()
            return message

        return await application(scope, take, send)

    return run
