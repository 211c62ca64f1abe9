"""The browsers' socket: who may listen to what. Drawing and fan-out are ``runs.hub``'s.

Daphne buffers without limit what a client does not read, so a page acknowledges each frame and only a few are under
way; until then the last message of each kind waits here, and a page that never reads is sent away (4408).
"""

from __future__ import annotations

import asyncio
import json
import logging
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.http import parse_cookie
from django.http.request import split_domain_port, validate_host
from django.utils import timezone

from runs import lanes
from runs.drawings import permission_of
from runs.hub import hub
from runs.queries import iso

MALFORMED, SIGNED_OUT, FORBIDDEN, OVERFLOW, BROKEN = 4400, 4401, 4403, 4408, 4500
MAX_TOPICS = 8
MAX_IN_FLIGHT = 6  # frames
MAX_WAITING = 512  # kinds of message
MAX_WAITING_BYTES = 4 << 20
MAX_INCOMING = 4096  # bytes
BEAT = 20.0  # seconds between frames, so that a page knows a quiet server from a dead one
STALLED = 40.0  # seconds without an acknowledgement
CHECK_EVERY = 60.0
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


def permissions_of(cookies: str) -> frozenset[str]:
    """What the session's user may do now; empty without a valid session or an active user."""
    key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return frozenset()
    user = get_user(SimpleNamespace(session=SessionStore(key)))  # type: ignore[arg-type]
    return frozenset(user.get_all_permissions()) if user.is_authenticated and user.is_active else frozenset()


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
    permissions: frozenset[str] = frozenset()
    life: asyncio.Task[None] | None = None
    hidden = False
    gone = False

    async def dispatch(self, message: dict[str, Any]) -> None:
        # The inherited one hops through the one thread that all sockets share, even for messages without a query.
        handler = getattr(self, get_handler_name(message))
        try:
            await handler(message)
        except StopConsumer:
            raise
        except Exception:
            logger.exception("a live socket failed")
            await self.close(BROKEN)

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        self.cookies = headers.get(b"cookie", b"").decode("latin-1")
        self.mailbox, self.topics, self.news = Mailbox(), set[str](), asyncio.Event()
        await self.accept()  # a close code reaches the page only after the handshake
        if not is_same_origin(headers, self.scope.get("scheme", "ws")):
            await self.close(FORBIDDEN)
            return
        self.permissions = await lanes.read(permissions_of, self.cookies)
        if not self.permissions:
            await self.close(SIGNED_OUT)
            return
        hub.enter(self)
        self.life = asyncio.create_task(self._live())

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

    # ------------------------------------------------------------------------------------------------- messages

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.gone:
            return
        try:
            if text_data is None or len(text_data) > MAX_INCOMING:
                raise ValueError("too long, or not text")
            message = json.loads(text_data)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            for name in message:
                await _HANDLERS[name](self, message[name])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            await self.close(MALFORMED)

    async def _subscribe(self, wanted: Any) -> None:
        for name, since in wanted.items():
            permission = permission_of(name)
            if permission is None or permission not in self.permissions:
                self.put(f"refused:{name[:80]}", json.dumps({"t": "refused", "topic": name[:80]}))
                continue
            self.topics.add(name)
            if len(self.topics) > MAX_TOPICS:
                raise ValueError("too many topics")
            hub.subscribe(self, name, max(0, int(since)))

    async def _acknowledge(self, number: Any) -> None:
        self.mailbox.acknowledge(int(number), asyncio.get_running_loop().time())
        self.news.set()
        for name in self.topics:
            if name.endswith(":log"):  # lines wait in the rows while there is no room here
                hub.want(name, whole=False)

    async def _hide(self, hidden: Any) -> None:
        self.hidden = bool(hidden)
        self.news.set()

    # ----------------------------------------------------------------------------------------------------- life

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        checked = loop.time()
        beaten = checked - BEAT  # the first frame goes at once: it tells the page that it is live, and the time
        while not self.gone:
            now = loop.time()
            if self.mailbox.overflows or self.mailbox.stalled(now):
                return await self.close(OVERFLOW)
            if now - checked >= CHECK_EVERY:
                checked = now
                if not await self._still_welcome():
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
        self.permissions = await lanes.read(permissions_of, self.cookies)
        if not self.permissions:
            await self.close(SIGNED_OUT)
        elif not all(permission_of(name) in self.permissions for name in self.topics):
            await self.close(FORBIDDEN)
        return not self.gone


_HANDLERS = {"sub": LiveConsumer._subscribe, "ack": LiveConsumer._acknowledge, "hidden": LiveConsumer._hide}


async def close_all(code: int) -> None:
    """Send every page of this process away."""
    await hub.close_all(code)
