"""Fixed budgets for what a client may send, kept below Django: Daphne itself has none for HTTP.

Without them a 200 MB POST to an address that does not exist, without any login, costs 200 MB of memory and of disk,
and headers that never end keep a connection for ever. WebSockets have theirs in ``perfect_site.server.backpressure``.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import time
from http import HTTPStatus
from typing import Any

from daphne import http_protocol
from django.conf import settings
from twisted.internet import reactor
from twisted.web.http import HTTPChannel

from perfect_site import addresses
from perfect_site.api.problems import CONTENT_TYPE, SENTENCES
from perfect_site.server.backpressure import WORKERS, Flow, LimitedSocket, unsent
from perfect_site.server.connection_slots import Phase, Seat, Seats

MAX_BODY = 4 << 20  # bytes
MAX_BODIES = 24 << 20  # bytes of all bodies under way together
SMALL_BODY = 64 << 10  # bytes; these find room in another quarter when large ones fill the budget
MAX_HEADERS = 100
SWEEP_EVERY = 1.0  # seconds
RETRY_AFTER = 5  # seconds
FLOOD, EBB = 8 << 20, 1 << 20  # bytes held; after the one comes down to the other, memory goes back to the system


def _refusal(status: int) -> bytes:
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": SENTENCES[status]}
    body = json.dumps(document).encode()
    again = f"Retry-After: {RETRY_AFTER}\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = f"HTTP/1.1 {status} {title}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n{again}"
    return head.encode() + b"Connection: close\r\n\r\n" + body


REFUSALS = {status: _refusal(status) for status in (413, 429, 503)}


class Bodies:
    """Bytes of all requests' bodies that this process holds, in memory or in files."""

    held = 0

    def take(self, size: int, *, small: bool) -> bool:
        """Whether there is room for ``size`` more bytes."""
        if self.held + size > MAX_BODIES * (1.25 if small else 1):
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        self.held -= size


class LimitedRequest(Flow, http_protocol.WebRequest):
    """A request whose body is counted as it comes, declared or chunked, and whose answer waits for who reads it."""

    content: Any
    _received = 0
    _counted = 0
    _small = False
    _refused = False

    def gotLength(self, length: int | None) -> None:
        too_large = length is not None and length > MAX_BODY
        self._small = length is not None and length <= SMALL_BODY
        super().gotLength(0 if too_large else length)
        if too_large:
            self._refuse(413)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refused:
            return
        if self._received > MAX_BODY:
            self._refuse(413)
        elif not self.channel.factory.bodies.take(len(data), small=self._small):
            self._refuse(503)
        else:
            self._counted += len(data)
            super().handleContentChunk(data)

    def process(self) -> Any:
        if self._refused:
            return None
        channel = self.channel
        upgrade = self.requestHeaders.getRawHeaders(b"Upgrade", [b""])[0].lower() == b"websocket"
        status = channel.admit(self, upgrade)
        if status:
            return self._refuse(status)
        transport, result = channel.transport, super().process()
        if upgrade and isinstance(transport.protocol, LimitedSocket):
            channel.hand_over(transport.protocol)
            self._release()
        return result

    def handle_reply(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and self.producer is None and self.channel is not None:
            self.registerProducer(self, True)
        self.request_start = time.time()  # Daphne's limit is for what makes no progress
        super().handle_reply(message)

    def finish(self) -> None:
        self.resumeProducing()
        if self.producer is not None:
            self.unregisterProducer()
        self._release()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        self.resumeProducing()
        self._release()
        super().connectionLost(reason)

    def cut(self) -> None:
        if self.channel is not None:
            self.channel.cut()

    def _release(self) -> None:
        if self.channel is not None:
            self.channel.factory.bodies.release(self._counted)
        self._counted = 0

    def _refuse(self, status: int) -> None:
        self._refused = True
        if self.content is not None:
            self.content.close()  # the connection may linger, what came over it must not
            self.content = io.BytesIO()
        self._release()
        self.channel.transport.write(REFUSALS[status])
        self.channel.close()


class LimitedChannel(HTTPChannel):
    """One connection; what it is at decides how long it may take."""

    maxHeaders = MAX_HEADERS
    seat: Seat

    def dataReceived(self, data: bytes) -> None:
        if self.seat.phase is Phase.IDLE:
            self._move(Phase.HEADERS)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self._move(Phase.BODY)
        super().allHeadersReceived()

    def requestDone(self, request: Any) -> None:
        self._move(Phase.IDLE)
        super().requestDone(request)

    def admit(self, request: Any, upgrade: bool) -> int:
        """0 if the request may be worked on or become a socket, else the status to refuse it with."""
        seats = self.factory.seats
        token = request.requestHeaders.getRawHeaders(b"Authorization", [b""])[0][:7].lower() == b"bearer "
        worker = upgrade and request.path == WORKERS.encode()
        if upgrade and not seats.belongs(self.seat, self._client_of(request)):
            return 429
        phase = Phase.WORKER if worker else Phase.PAGE if upgrade else Phase.ANSWER
        return 0 if seats.admit(self.seat, phase, self._now(), reserved=token) else 503

    def hand_over(self, socket: LimitedSocket) -> None:
        """The connection has become a socket."""
        socket.seat, self.seat.cut = self.seat, socket.cut

    def close(self) -> None:
        """End the connection once what was written is sent, or soon in any case."""
        self._move(Phase.CLOSING)
        self.loseConnection()

    def cut(self) -> None:
        if self.seat.phase is Phase.IDLE and not unsent(self.transport):
            self.loseConnection()  # a client that asks again at this moment may try again after a good end
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        self.factory.seats.leave(self.seat)
        super().connectionLost(reason)

    def _client_of(self, request: Any) -> str:
        hops = request.requestHeaders.getRawHeaders(b"X-Forwarded-For", [])
        forwarded = b",".join(hops).decode("latin-1")
        peer = self.transport.getPeer().host
        trusted = settings.PERFECT_TRUSTED_PROXIES
        return addresses.shared_by(addresses.client_of(peer, forwarded, trusted), trusted)

    def _move(self, phase: Phase) -> None:
        self.factory.seats.move(self.seat, phase, self._now())

    def _now(self) -> float:
        return time.monotonic()


class LimitedFactory(http_protocol.HTTPFactory):
    """All HTTP connections; those that overstay their time are cut."""

    protocol = LimitedChannel
    _sweeper: Any = None
    _flooded = False

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.timeOut = None  # Twisted's own begins anew with every byte
        self.bodies = Bodies()
        self.seats = Seats(_is_exempt)

    def buildProtocol(self, addr: Any) -> LimitedChannel | None:
        channel: LimitedChannel = super().buildProtocol(addr)
        channel.requestFactory = LimitedRequest
        seat = self.seats.take(
            addresses.shared_by(addr.host, settings.PERFECT_TRUSTED_PROXIES), channel.cut, time.monotonic()
        )
        if seat is None:
            return None
        channel.seat = seat
        return channel

    def startFactory(self) -> None:
        super().startFactory()
        self.server.ws_factory.seats = self.seats
        self._sweep()

    def stopFactory(self) -> None:
        if self._sweeper is not None and self._sweeper.active():
            self._sweeper.cancel()
        super().stopFactory()

    def _sweep(self) -> None:
        for seat in self.seats.overdue(time.monotonic()):
            seat.cut()
        self._give_memory_back(self.bodies.held + self.server.ws_factory.held)
        self._sweeper = reactor.callLater(SWEEP_EVERY, self._sweep)  # type: ignore[attr-defined]

    def _give_memory_back(self, held: int) -> None:
        """glibc keeps what a flood has freed below something that lives, until it is told to look."""
        if held > FLOOD:
            self._flooded = True
        elif self._flooded and held < EBB:
            self._flooded = False
            with contextlib.suppress(AttributeError, OSError):  # another C library
                ctypes.CDLL(None).malloc_trim(0)


def _is_exempt(address: str) -> bool:
    return addresses.speaks_for_many(address, settings.PERFECT_TRUSTED_PROXIES)
