"""The one place in the SDK that touches a network socket: a WebSocket link for a ``selectors`` loop, and its back-off.

A daemon thread connects (names, proxy, TCP, TLS, the opening handshake) because none of that can be done without
blocking; then the loop owns the socket, which never blocks again. Every failure ends as a sentence in ``Link.error``.
"""

from __future__ import annotations

import random as random_module
import socket
import ssl
import threading
from collections import deque
from typing import Callable, Deque, List, Optional, Union

from perfect_client.wire import connect
from perfect_client.wire.connect import Failure
from perfect_client.wire.frames import Closed, Event, Frames, Ping, ProtocolFault, Text
from perfect_client.wire.messages import GO_AWAY, MAX_FRAME_BYTES

CONNECTING, OPEN, CLOSED = "connecting", "open", "closed"
GONE = 1006  # RFC 6455 §7.1.5: the connection ended without a close frame

_RECEIVE_BYTES = 64 * 1024
_TURN_BYTES = 1 << 20  # read in one turn, so that a chatty server does not starve the loop
_SEND_BYTES = 256 * 1024
_LARGEST_MESSAGE = 4 * MAX_FRAME_BYTES


class Link:
    """One connection to a server, used once. Raises ``ValueError`` for an address or token that cannot be right.

    The loop calls ``start``; when ``on_wake`` was called (from the connecting thread: let it ring a pipe), ``state``
    is ``open`` or ``closed``. Open: register ``fileno()``, for writing too while ``wants_write``, and call
    ``on_readable`` once, for what came along with the handshake. Closed: ``on_readable`` tells why, too.
    ``on_readable`` and ``on_writable`` return events: ``Text``, and at the very end one ``Closed(code, reason)``, after
    which ``error`` is a sentence and the descriptor is closed already: unregister what you registered.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_file: Optional[str] = None,
        connect_timeout_s: float = 10.0,
        handshake_timeout_s: float = 10.0,
    ) -> None:
        self._target = connect.parse(url, token, ca_file)
        self._timeouts = (connect_timeout_s, handshake_timeout_s)
        self._frames = Frames(_LARGEST_MESSAGE)
        self._sock: Optional[Union[socket.socket, ssl.SSLSocket]] = None
        self._lock = threading.Lock()  # guards `state` and `_sock` between the connecting thread and the loop
        self._early = b""  # what the server sent right behind its handshake
        self._current = memoryview(b"")  # the frame that is being written
        self._pong: Optional[bytes] = None  # the answer to the newest ping, which jumps the queue
        self._queue: Deque[bytes] = deque()
        self._queued = 0  # bytes in `_queue`
        self._closing = False  # a close frame is queued: nothing may follow it (§5.5.1)
        self._write_failed = False
        self._write_waits_for_read = self._read_waits_for_write = False  # TLS only
        self._end: Optional[Closed] = None  # how it ended, until it was told
        self.state = CONNECTING
        self.error = ""

    # ---------------------------------------------------------------------------------------------------- connecting

    def start(self, on_wake: Callable[[], None]) -> None:
        """Connect in a thread; ``on_wake`` is called from it once, whatever comes of it."""
        threading.Thread(target=self._connect, args=(on_wake,), name="perfect-connect", daemon=True).start()

    def _connect(self, on_wake: Callable[[], None]) -> None:
        try:
            sock, self._early = connect.dial(self._target, *self._timeouts)
        except Failure as failure:
            with self._lock:
                self._finish(failure.code, str(failure))
        else:
            with self._lock:
                if self.state == CONNECTING:
                    self._sock, self.state = sock, OPEN
                else:  # aborted meanwhile
                    sock.close()
        on_wake()

    # ------------------------------------------------------------------------------------------------------- the loop

    def fileno(self) -> int:
        """-1 while there is no open socket."""
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def wants_write(self) -> bool:
        if self._read_waits_for_write:
            return True
        waiting = bool(self._current) or self._pong is not None or bool(self._queue)
        return waiting and not self._write_failed and not self._write_waits_for_read

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the socket; ask for no more batches above about 1 MiB."""
        return len(self._current) + self._queued

    def on_readable(self) -> List[Event]:
        """Read what is there. A failed write ends here too: the server's last words come first."""
        events: List[Event] = []
        if self.state == OPEN:
            self._write_waits_for_read = self._read_waits_for_write = False
            self._read(events)
            self._flush()
        if self.state == CLOSED and self._end is not None:
            events.append(self._end)
            self._end = None
        return events

    def on_writable(self) -> List[Event]:
        """Write what is queued. Events as from `on_readable`: TLS may have to write before it can read."""
        if self._read_waits_for_write:
            return self.on_readable()
        self._flush()
        return []

    def send_text(self, utf8: bytes) -> None:
        """Queue one text message and send what the socket takes now. Dropped when the link is not open."""
        if self.state == OPEN and not self._closing:
            self._put(self._frames.text_bytes(utf8))

    def ping(self, data: bytes = b"") -> None:
        if self.state == OPEN and not self._closing:
            self._put(self._frames.ping(data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye behind what is queued; the server's answer brings ``Closed``. `abort` ends at once."""
        if self.state == CONNECTING:
            self.abort()
        elif self.state == OPEN and not self._closing:
            self._put(self._frames.close(code, reason))
            self._closing = True

    def abort(self) -> None:
        """End now, without a word and without an event. Safe at any time, and more than once."""
        with self._lock:
            self._finish(GONE, self.error)
            self._end = None

    # -------------------------------------------------------------------------------------------------------- reading

    def _read(self, events: List[Event]) -> None:
        data: Optional[bytes] = self._early
        self._early = b""
        taken = 0
        while self.state == OPEN and data is not None:
            if data:
                self._digest(data, events)
            taken += len(data)
            if self.state == OPEN:
                data = self._receive() if taken < _TURN_BYTES or self._pending() else None

    def _receive(self) -> Optional[bytes]:
        """None: nothing more for now, or the end."""
        assert self._sock is not None
        try:
            data: bytes = self._sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            if self._write_failed:
                self._finish(GONE, "the connection to the server broke")
            return None
        except ssl.SSLWantWriteError:
            self._read_waits_for_write = True
            return None
        except OSError as wrong:
            self._finish(GONE, "the connection to the server broke (%s)" % connect.cause(wrong))
            return None
        if not data:
            self._finish(GONE, "the connection to the server ended without a goodbye")
            return None
        return data

    def _pending(self) -> bool:
        """Bytes that TLS has deciphered already: no selector tells of them."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _digest(self, data: bytes, events: List[Event]) -> None:
        try:
            arrived, fault = self._frames.feed(data), None
        except ProtocolFault as wrong:
            arrived, fault = wrong.events, wrong
        for event in arrived:
            if isinstance(event, Text):
                events.append(event)
            elif isinstance(event, Ping):
                self._pong = self._frames.pong(event.data)  # §5.5.3: answering the newest is enough
            elif isinstance(event, Closed):
                self._say_goodbye(event.code, event.reason)
                self._finish(event.code, connect.explain(event.code, event.reason), event.reason)
        if fault is not None and self.state == OPEN:
            self._say_goodbye(fault.code, str(fault))
            self._finish(1002, "the server broke the WebSocket protocol: %s" % fault)

    def _say_goodbye(self, code: int, reason: str) -> None:
        """§5.5.1: answer a close frame with one, if the socket takes it at once; what was queued is lost anyway."""
        if not self._closing:
            self._queue.clear()
            self._pong = None
            self._queue.append(self._frames.close(code, reason))
        self._flush()

    # -------------------------------------------------------------------------------------------------------- writing

    def _put(self, frame: bytes) -> None:
        self._queue.append(frame)
        self._queued += len(frame)
        self._flush()

    def _flush(self) -> None:
        while self._sock is not None and not self._write_failed and self._load():
            try:
                # The same bytes again after SSLWantRead or SSLWantWrite, as OpenSSL demands: `_current` stays.
                sent = self._sock.send(self._current[:_SEND_BYTES])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                return
            except ssl.SSLWantReadError:
                self._write_waits_for_read = True
                return
            except OSError:  # the reason, or the server's close frame, may still wait to be read
                self._write_failed = True
                return
            self._current = self._current[sent:]

    def _load(self) -> bool:
        """Take the next whole frame when none is being written; False when there is none."""
        if self._current:
            return True
        if self._pong is not None and not (self._closing and not self._queue):
            self._current, self._pong = memoryview(self._pong), None
        elif self._queue:
            frame = self._queue.popleft()
            self._queued = max(0, self._queued - len(frame))
            self._current = memoryview(frame)
        return bool(self._current)

    def _finish(self, code: int, error: str, reason: str = "") -> None:
        if self.state == CLOSED:
            return
        self.state, self.error = CLOSED, error
        self._end = Closed(code, reason or error)
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._current, self._pong = memoryview(b""), None
        self._queue.clear()
        self._queued = 0
        self._read_waits_for_write = False


class Backoff:
    """How long to wait before the next connection: doubling from ``floor_s`` to ``ceiling_s``, with jitter, so that
    a restarted server is not met by all its workers in the same instant."""

    def __init__(
        self, floor_s: float = 0.5, ceiling_s: float = 30.0, random: Callable[[], float] = random_module.random
    ) -> None:
        self._floor, self._ceiling, self._random = floor_s, ceiling_s, random
        self._reach = floor_s

    def next(self, code: int) -> Optional[float]:
        """Seconds to wait after a connection that ended with ``code``; None when coming back will not help."""
        if code in GO_AWAY:
            return None
        self._reach = min(self._ceiling, self._reach * 2)
        return self._floor + (self._reach - self._floor) * self._random()

    def reset(self) -> None:
        """The server accepted the worker: the next trouble is a new one."""
        self._reach = self._floor
