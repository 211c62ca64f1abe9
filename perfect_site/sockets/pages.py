"""The browsers' socket: who may listen to what. Drawing and fan-out are ``perfect_site.sockets.hub``'s.

Daphne buffers without limit what a client does not read, so a page acknowledges each frame and only a few are under
way; until then the last message of each kind waits here, and a page that never reads is sent away (4408).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user, get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver
from django.http import parse_cookie
from django.http.request import split_domain_port, validate_host
from django.utils import timezone

from perfect_site.dashboard.topics import permission_of
from perfect_site.sockets.hub import hub
from runs.db import threads
from runs.services.queries import iso

MALFORMED, SIGNED_OUT, FORBIDDEN, OVERFLOW, BROKEN = 4400, 4401, 4403, 4408, 4500
MAX_TOPICS = 8
MAX_IN_FLIGHT = 6  # frames
MAX_WAITING = 512  # kinds of message
MAX_WAITING_BYTES = 4 << 20
MAX_INCOMING = 4096  # bytes
BURST, PER_SECOND = 300, 100  # messages of a page: at once, and for long; it answers some 40 frames a second at most
BEAT = 20.0  # seconds between frames, so that a page knows a quiet server from a dead one
STALLED = 40.0  # seconds without an acknowledgement
CHECK_EVERY = 5.0  # seconds between looks whether the user is still here and may what they do
BELIEVED = 1.0  # seconds that a look is believed when a page asks for more
MAX_NUMBER = 1 << 53  # JavaScript counts no further
HIDDEN_PAUSE = 1.0

logger = logging.getLogger(__name__)
SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


class Mailbox:
    """What waits for one page: pure, the consumer does the sending. Messages are JSON texts."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._bytes = 0
        self.sent = 0
        self.acknowledged = 0
        self.last_news = 0.0

    def put(self, key: str, text: str) -> None:
        """The last message of a key counts, in the place of the first."""
        self._bytes += len(text) - len(self._waiting.get(key, ""))
        self._waiting[key] = text

    @property
    def overflows(self) -> bool:
        return len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES

    @property
    def in_flight(self) -> int:
        return self.sent - self.acknowledged

    @property
    def has_room(self) -> bool:
        return self.in_flight < MAX_IN_FLIGHT and self._bytes < MAX_WAITING_BYTES // 4

    def frame(self, at: str, now: float, *, empty: bool = False) -> str | None:
        """The next frame to send, numbered from 1; None while nothing waits or too many are under way."""
        if self.in_flight >= MAX_IN_FLIGHT or not (self._waiting or empty):
            return None
        if self.in_flight == 0:
            self.last_news = now
        self.sent += 1
        body = ",".join(self._waiting.values())
        self._waiting, self._bytes = {}, 0
        return f'{{"n":{self.sent},"at":"{at}","m":[{body}]}}'

    def acknowledge(self, number: int, now: float) -> None:
        """Raises ValueError for a number that was never sent."""
        if not self.acknowledged <= number <= self.sent:
            raise ValueError(f"frame {number} was not sent")
        self.acknowledged, self.last_news = number, now

    def stalled(self, now: float) -> bool:
        return self.in_flight > 0 and now - self.last_news > STALLED


@dataclass(frozen=True)
class Visitor:
    """Whom a session belongs to, and what they may do now: nothing without a valid session or an active user."""

    user: int | None = None
    permissions: frozenset[str] = frozenset()


def visitor_of(session: str) -> Visitor:
    if not session:
        return Visitor()
    user = get_user(SimpleNamespace(session=SessionStore(session)))  # type: ignore[arg-type]
    if not (user.is_authenticated and user.is_active):
        return Visitor()
    return Visitor(user.pk, frozenset(user.get_all_permissions()))


def is_same_origin(headers: dict[bytes, bytes], scheme: str) -> bool:
    """Whether a page of this very server opened the socket: same scheme, host and port (RFC 6454 §4)."""
    host = headers.get(b"host", b"").decode("latin-1")
    domain, _ = split_domain_port(host)
    allowed = settings.ALLOWED_HOSTS or [".localhost", "127.0.0.1", "[::1]"]
    if not domain or not validate_host(domain, allowed):
        return False
    trusted = getattr(settings, "SECURE_PROXY_SSL_HEADER", None)
    if trusted is not None:
        name = trusted[0].removeprefix("HTTP_").replace("_", "-").lower().encode()
        scheme = "https" if headers.get(name, b"").decode("latin-1") == trusted[1] else scheme
    origin = urlsplit(headers.get(b"origin", b"").decode("latin-1"))
    return origin.scheme == {"ws": "http", "wss": "https"}.get(scheme, scheme) and origin.netloc == host


class LiveConsumer(AsyncWebsocketConsumer):
    """One page. Messages in: ``{"sub": {topic: since}}``, ``{"ack": n}``, ``{"hidden": bool}``."""

    mailbox: Mailbox
    visitor = Visitor()
    session = ""
    credit, heard = float(BURST), 0.0  # messages that may still come, and when the last one came
    checked = 0.0  # when the visitor was looked at, by the loop's clock
    life: asyncio.Task[None] | None = None
    hidden = False
    gone = False

    async def dispatch(self, message: dict[str, Any]) -> None:
        # The inherited one hops through the one thread that all sockets share, even for messages without a query.
        await self._guarded(getattr(self, get_handler_name(message))(message))

    async def _guarded(self, step: Coroutine[Any, Any, None]) -> None:
        """A page whose socket failed is told so, and opens another: never a page that looks alive and is not."""
        try:
            await step
        except StopConsumer:
            raise
        except Exception:
            logger.exception("a live socket failed")
            await self.close(BROKEN)

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        cookies = parse_cookie(headers.get(b"cookie", b"").decode("latin-1"))
        self.session = cookies.get(settings.SESSION_COOKIE_NAME, "")
        self.loop = asyncio.get_running_loop()
        self.mailbox, self.topics, self.news = Mailbox(), set[str](), asyncio.Event()
        await self.accept()  # a close code reaches the page only after the handshake
        if not is_same_origin(headers, self.scope.get("scheme", "ws")):
            await self.close(FORBIDDEN)
            return
        hub.enter(self)  # before the look, so that a change after it is heard
        if not await self._still_welcome():
            return
        self.life = asyncio.create_task(self._guarded(self._live()))

    async def disconnect(self, code: int) -> None:
        self._end()

    def _end(self) -> None:
        self.gone = True
        hub.leave(self)
        if self.life is not None and self.life is not asyncio.current_task():
            self.life.cancel()

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        if not self.gone:
            self._end()
            await super().close(code, reason)

    # ---------------------------------------------------------------------------------------------- for the hub

    def put(self, key: str, text: str) -> None:
        self.mailbox.put(key, text)
        self.news.set()

    def room(self) -> bool:
        return self.mailbox.has_room

    def doubt(self) -> None:
        """Look again at once whether the visitor may be here."""
        self.checked = float("-inf")
        self.news.set()

    def sign_out(self) -> None:
        self.leaving = asyncio.ensure_future(self.close(SIGNED_OUT))

    # ------------------------------------------------------------------------------------------------- messages

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.gone:
            return
        if not self._has_credit(self.loop.time()):
            return await self.close(OVERFLOW)
        try:
            if text_data is None or len(text_data) > MAX_INCOMING:
                raise ValueError("too long, or not text")
            message = json.loads(text_data)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            for name in message if not self.gone else ():
                await _HANDLERS[name](self, message[name])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            await self.close(MALFORMED)

    def _has_credit(self, now: float) -> bool:
        """Each message costs the loop that all share some time: nobody may use it up."""
        self.credit = min(BURST, self.credit + (now - self.heard) * PER_SECOND) - 1
        self.heard = now
        return self.credit >= 0

    async def _subscribe(self, wanted: Any) -> None:
        if self.loop.time() - self.checked > BELIEVED and not await self._still_welcome():
            return
        for name, value in wanted.items():
            since, permission = _whole(value), permission_of(name)
            if permission is None or permission not in self.visitor.permissions:
                self.put(f"refused:{name[:80]}", json.dumps({"t": "refused", "topic": name[:80]}))
                continue
            self.topics.add(name)
            if len(self.topics) > MAX_TOPICS:
                raise ValueError("too many topics")
            hub.subscribe(self, name, since)

    async def _acknowledge(self, number: Any) -> None:
        self.mailbox.acknowledge(_whole(number), asyncio.get_running_loop().time())
        self.news.set()
        for name in self.topics:
            if name.endswith(":log"):  # lines wait in the rows while there is no room here
                hub.want(name, whole=False)

    async def _hide(self, hidden: Any) -> None:
        if not isinstance(hidden, bool):
            raise TypeError("hidden is true or false")
        self.hidden = hidden
        self.news.set()

    # ----------------------------------------------------------------------------------------------------- life

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        beaten = loop.time() - BEAT  # the first frame goes at once: it tells the page that it is live, and the time
        while not self.gone:
            now = loop.time()
            if self.mailbox.overflows or self.mailbox.stalled(now):
                return await self.close(OVERFLOW)
            if now - self.checked >= CHECK_EVERY and not await self._still_welcome():
                return None
            frame = self.mailbox.frame(iso(timezone.now()) or "", now, empty=now - beaten >= BEAT)
            if frame is not None:
                beaten = now
                await self.send(frame)
            if self.hidden:
                await asyncio.sleep(HIDDEN_PAUSE)
            try:
                await asyncio.wait_for(self.news.wait(), timeout=BEAT / 4)
            except TimeoutError:
                pass
            self.news.clear()
        return None

    async def _still_welcome(self) -> bool:
        """Sessions authenticate a socket only at its start: ask again whether the user is here and may what they do."""
        self.checked = self.loop.time()
        self.visitor = await threads.read(visitor_of, self.session)
        if not self.visitor.permissions:
            await self.close(SIGNED_OUT)
        elif not all(permission_of(name) in self.visitor.permissions for name in self.topics):
            await self.close(FORBIDDEN)
        return not self.gone


def _whole(number: Any) -> int:
    """A number as JavaScript counts, from 0. Raises ValueError."""
    if type(number) is not int or not 0 <= number <= MAX_NUMBER:
        raise ValueError("not a number from 0 to 2**53")
    return number


_HANDLERS = {"sub": LiveConsumer._subscribe, "ack": LiveConsumer._acknowledge, "hidden": LiveConsumer._hide}


async def close_all(code: int) -> None:
    """Send every page of this process away."""
    await hub.close_all(code)


# ------------------------------------------------------------------------------- what happens to people meanwhile
# Heard in the process where it happens; the others look every CHECK_EVERY seconds.


@receiver(user_logged_out)
def _signed_out(request: Any, **kwargs: Any) -> None:
    """The session is removed only after this signal, so its sockets are not asked but sent away."""
    session = request.session.session_key if request is not None else None
    for page in _pages():
        if session and page.session == session:
            page.loop.call_soon_threadsafe(page.sign_out)


@receiver([post_save, post_delete], sender=settings.AUTH_USER_MODEL)
def _user_changed(instance: Any, **kwargs: Any) -> None:
    transaction.on_commit(partial(_doubt, instance.pk))


@receiver(m2m_changed)
@receiver([post_save, post_delete], sender=Group)
def _rights_changed(sender: Any, **kwargs: Any) -> None:
    if sender is Group or sender in _rights():
        transaction.on_commit(partial(_doubt, None))


def _rights() -> list[Any]:
    people = get_user_model()
    return [people.groups.through, people.user_permissions.through, Group.permissions.through]


def _doubt(user: int | None) -> None:
    """Look again at the sockets of this user, or of all."""
    for page in _pages():
        if user is None or page.visitor.user == user:
            page.loop.call_soon_threadsafe(page.doubt)


def _pages() -> list[LiveConsumer]:
    return [socket for socket in list(hub.sockets) if isinstance(socket, LiveConsumer) and not socket.loop.is_closed()]
