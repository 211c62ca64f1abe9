"""The worker's line to its server: one link after another, and the session that outlives them all."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

from perfect_client.system.loop import Loop, Timer
from perfect_client.wire import messages
from perfect_client.wire.connection import CONNECTING, GONE, OPEN, Backoff, Link
from perfect_client.wire.frames import Closed, Event, Text
from perfect_client.wire.session import Session

_QUEUED_BYTES = 1 << 20  # above that the socket is the bottleneck: ask the session for no more
_REFUSED_WAIT_S = 60.0  # after a refusal, while there are runs that must be told of
_SHORTEST_WAIT_S = 0.02
_STABLE_S = 5.0  # a connection that lived so long begins its back-off anew


class Uplink:
    """``server()`` gives address and token and is asked before each connection. ``on_order(message)`` gets the server's
    orders, ``on_refused(sentence)`` a word after which coming back will not help (called before the first acceptance
    ever), ``held()`` lists the attempts to join with."""

    def __init__(
        self,
        loop: Loop,
        server: Callable[[], Tuple[str, str]],
        session: Session,
        held: Callable[[], List[messages.Held]],
        on_order: Callable[[Any], None],
        on_refused: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._loop, self._server, self.session = loop, server, session
        self.url = server()[0]
        self._held, self._on_order, self._on_refused, self._say = held, on_order, on_refused, say
        self._backoff = Backoff()
        self._link: Optional[Link] = None
        self._fd = -1
        self._events: Deque[Event] = deque()  # of this link, read and not handled yet
        self._handling = False
        self._timer: Optional[Timer] = None
        self._wakes_at: Optional[float] = None
        self._refusal = ""
        self._told = ""  # the last trouble that was said
        self._closing = False
        self.ever_accepted = False
        self._opened_at = 0.0
        loop.on_wake(self._connected)

    def begin(self) -> None:
        """Connect. Raises ``ValueError`` when the address or the token cannot be right."""
        if self._closing:
            return
        self.url, token = self._server()
        link = Link(self.url, token)
        self._refusal = ""
        link.start(self._loop.wake)
        self._link = link

    def _begin_again(self) -> None:
        """Whatever fails here (no thread to be had, an address that cannot be right by now) is tried again later."""
        try:
            self.begin()
        except Exception as wrong:
            self._lost(GONE, str(wrong))

    def _connected(self) -> None:
        link = self._link
        if link is None or link.state == CONNECTING or self._fd >= 0:
            return
        if link.state == OPEN:
            try:
                held = self._held()
                self._fd = link.fileno()
                self._opened_at = self._loop.now
                self._loop.on_read(self._fd, self._readable)
                self.session.open(self._loop.now, held)
            except Exception:  # without a word of ours the server would wait, and nobody would come back
                link.abort()
                self._lost(GONE, "the worker could not say what it holds")
                raise
        self._readable()

    def _readable(self) -> None:
        if self._link is not None:
            self._digest(self._link.on_readable())

    def _writable(self) -> None:
        if self._link is not None:
            self._digest(self._link.on_writable())

    def _digest(self, events: List[Event]) -> None:
        """Handle events one after another. What is read while an order is carried out waits behind it; so does, for the
        next turn, what came after an order that failed."""
        self.session.heard(self._loop.now)
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Text):
                    self._receive(event)
                elif isinstance(event, Closed):
                    self._lost(event.code, event.reason)
        finally:
            self._handling = False
        self.pump()

    def _receive(self, text: Text) -> None:
        try:
            message = messages.decode(text.text)
        except messages.ProtocolError as wrong:
            self._say("the server sent what this worker cannot read: %s" % wrong)
            return
        for order in self.session.receive(message, self._loop.now):
            if isinstance(order, messages.Accept):
                self._accepted()
            elif isinstance(order, messages.Refuse):
                self._refusal = order.reason
                continue
            self._on_order(order)

    def _accepted(self) -> None:
        if self._told or not self.ever_accepted:
            self._say("connected to %s" % self.url)
        self.ever_accepted, self._told = True, ""

    # ---------------------------------------------------------------------------------------------------------- pump

    def pump(self) -> None:
        """Send what there is to say, as far as credit and the socket allow, and set the next deadline."""
        link = self._link
        if link is None or self._fd < 0:
            return
        if self._events and not self._handling:
            self._digest([])
            return
        while link.state == OPEN and link.queued_bytes < _QUEUED_BYTES:
            frame = self.session.next_frame(self._loop.now)
            if frame is None:
                break
            link.send_text(frame)
        for note in self.session.notes:
            self._say(note)
        self.session.notes.clear()
        if link.state == OPEN:
            if link.wants_write:
                self._loop.on_write(self._fd, self._writable)
            else:
                self._loop.no_write(self._fd)
        elif not self._handling:
            self._readable()
        self._schedule()

    def _schedule(self) -> None:
        wakes_at = max(self.session.wakes_at, self._loop.now + _SHORTEST_WAIT_S) if self._fd >= 0 else None
        if self._timer is not None and self._timer.callback is not None and wakes_at == self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = wakes_at
        self._timer = None if wakes_at is None else self._loop.at(wakes_at, self._tick)

    def _tick(self) -> None:
        if self._link is None or self._fd < 0:
            return
        if not self.session.tick(self._loop.now, time.time()):
            self._link.abort()
            self._lost(GONE, "the server was silent for too long")
            return
        self.pump()

    def join_again(self) -> None:
        """Join anew, since this worker holds other attempts than it did."""
        link = self._link
        if link is not None and self._fd >= 0 and not self._closing:  # else what it holds is told once it connects
            self._loop.forget(self._fd)
            self._link, self._fd = None, -1
            self._events.clear()
            self.session.closed()
            link.abort()
            self._schedule()
            self._begin_again()

    # ---------------------------------------------------------------------------------------------------------- ends

    def _lost(self, code: int, reason: str) -> None:
        link, self._link = self._link, None
        self._events.clear()
        if self._fd >= 0:
            self._loop.forget(self._fd)
            self._fd = -1
            self.session.closed(code)
        self._schedule()
        if self._closing:
            return
        sentence = self._refusal or (link.error if link is not None and link.error else reason)
        if self.ever_accepted and self._loop.now - self._opened_at > _STABLE_S:
            self._backoff.reset()
        wait = self._backoff.next(code)
        if wait is None:
            if not self.ever_accepted:
                self._on_refused(sentence)
                return
            wait = _REFUSED_WAIT_S
        if sentence != self._told:
            self._say("no connection to %s: %s; trying again" % (self.url, sentence))
            self._told = sentence
        self._loop.after(wait, self._begin_again)

    @property
    def connected(self) -> bool:
        return self.session.accepted

    def close(self, reason: str) -> None:
        """Say goodbye; what is not delivered waits for the next start."""
        self._closing = True
        if self._link is not None:
            if self._fd >= 0:
                self.session.leave(reason)
                self.pump()
            if self._link is not None:
                self._link.close()

    @property
    def closed(self) -> bool:
        return self._link is None

    def abort(self) -> None:
        self._closing = True
        if self._link is not None:
            self._link.abort()
            self._lost(GONE, "")
