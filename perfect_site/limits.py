"""Fixed budgets for what a client may send, kept below Django: Daphne itself has none for HTTP.

Without them a 200 MB POST to an address that does not exist, without any login, costs 200 MB of memory and of disk.
"""

from __future__ import annotations

import json
from typing import Any

from daphne import http_protocol
from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall

from runs.problems import CONTENT_TYPE, SENTENCES

MAX_BODY = 4 << 20  # bytes
MAX_HEADERS = 100
MAX_CONNECTIONS = 2_000
HEADERS_WITHIN = 10.0  # seconds from connecting to the end of the first request's headers, however they dribble
BODY_WITHIN = 60.0  # seconds from the headers to the end of the body

_document = json.dumps(
    {"type": "about:blank", "title": "Content Too Large", "status": 413, "detail": SENTENCES[413]}
).encode()
TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (CONTENT_TYPE.encode(), len(_document), _document)
)


def _later(seconds: float, call: Any, *args: Any) -> IDelayedCall:
    timer: IDelayedCall = reactor.callLater(seconds, call, *args)  # type: ignore[attr-defined]
    return timer


class LimitedRequest(http_protocol.WebRequest):
    """A request whose body is counted as it comes, declared or chunked."""

    _received = 0
    _refused = False
    _timer: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        self.channel.headers_came = True
        super().gotLength(0 if length is not None and length > MAX_BODY else length)
        if length is not None and length > MAX_BODY:
            self._refuse()
        else:
            self._timer = _later(BODY_WITHIN, self._too_slow)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refused:
            return
        if self._received > MAX_BODY:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def process(self) -> Any:
        self._stop_timer()
        return None if self._refused else super().process()

    def connectionLost(self, reason: Any) -> None:
        self._stop_timer()
        super().connectionLost(reason)

    def _refuse(self) -> None:
        self._refused = True
        self._stop_timer()
        self.channel.transport.write(TOO_LARGE)
        self.channel.transport.loseConnection()

    def _too_slow(self) -> None:
        self._timer = None
        self.channel.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class LimitedFactory(http_protocol.HTTPFactory):
    """Connections beyond the limit are closed at once; one that never finishes its headers is cut."""

    open_connections = 0

    def buildProtocol(self, addr: Any) -> Any:
        if self.open_connections >= MAX_CONNECTIONS:
            return None
        protocol = super().buildProtocol(addr)
        channel = protocol._channel
        channel.requestFactory = LimitedRequest
        protocol.requestFactory = LimitedRequest
        channel.maxHeaders = MAX_HEADERS
        channel.headers_came = False
        timer = _later(HEADERS_WITHIN, _cut_if_idle, channel)
        self._count(protocol, timer)
        return protocol

    def _count(self, protocol: Any, timer: IDelayedCall) -> None:
        self.open_connections += 1
        lost = protocol.connectionLost

        def connection_lost(reason: Any) -> None:
            self.open_connections -= 1
            if timer.active():
                timer.cancel()
            lost(reason)

        protocol.connectionLost = connection_lost


def _cut_if_idle(channel: Any) -> None:
    if not channel.headers_came and channel.transport is not None:
        channel.transport.abortConnection()
