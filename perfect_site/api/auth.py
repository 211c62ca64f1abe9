"""Who may do what through the API: a bearer token with a scope, or a signed-in person with permissions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from flows.parameters import refuse_unknown
from perfect_site.api.problems import Problem
from runs.access import Token, digest_of
from runs.db import threads

REMEMBER = 5.0  # seconds that a token's row is believed; a revoked token works no longer than this
REMEMBER_COUNT = 1_000
NOTE_USE_EVERY = timedelta(minutes=1)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who asks: as it is written into events."""

    who: str


class Tokens:
    """Tokens by digest, believed for a few seconds; unknown secrets too, so that guessing asks no database."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Token | None, float]] = {}

    def clear(self) -> None:
        self._known.clear()

    async def find(self, secret: str, now: datetime) -> Token | None:
        digest = digest_of(secret)
        token, until = self._known.get(digest, (None, 0.0))
        if until < time.monotonic():
            token = await threads.read(_valid, secret, now)
            if len(self._known) >= REMEMBER_COUNT:
                self._known.clear()
            self._known[digest] = (token, time.monotonic() + REMEMBER)
        if token is not None and token.expires_at is not None and token.expires_at <= now:
            return None
        return token

    def note_use(self, token: Token, now: datetime) -> None:
        """At most one write a minute, which no request waits for."""
        if token.last_used_at is None or now - token.last_used_at >= NOTE_USE_EVERY:
            token.last_used_at = now
            threads.write_soon(_note_use, token.pk, now)


def _valid(secret: str, now: datetime) -> Token | None:
    token = Token.objects.valid(secret, now)
    if token is not None and token.user is not None and not token.user.is_active:
        return None
    return token


def _note_use(pk: int, now: datetime) -> None:
    Token.objects.filter(pk=pk).update(last_used_at=now)


tokens = Tokens()


class Gate(AuthBase):
    """Lets a token with ``scope`` pass, or a person who has all of ``permissions``; and only with known parameters."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, scope: str, *permissions: str, query: Iterable[str] = ()) -> None:
        super().__init__()
        self.scope, self.permissions, self.query = scope, permissions, frozenset(query)

    async def __call__(self, request: HttpRequest) -> Caller:
        kind, _, secret = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            caller = await self._token(secret.strip())
        else:
            caller = await self._person(request)
        refuse_unknown(request.GET, self.query)
        _refuse_other_than_json(request)
        return caller

    async def _token(self, secret: str) -> Caller:
        now = timezone.now()
        token = await tokens.find(secret, now)
        if token is None:
            raise Problem(401, "The token is unknown, revoked or expired.", headers={"WWW-Authenticate": "Bearer"})
        if not token.allows(self.scope):
            raise Problem(403, f"This needs a token of scope {self.scope!r}; this one has {token.scope!r}.")
        tokens.note_use(token, now)
        return Caller(f"token {token.name}")

    async def _person(self, request: HttpRequest) -> Caller:
        user = await request.auser() if hasattr(request, "auser") else None
        if user is None or not user.is_authenticated:
            raise Problem(401, headers={"WWW-Authenticate": "Bearer"})
        if request.method not in SAFE and check_csrf(request) is not None:
            raise Problem(403)
        for permission in self.permissions:
            if not await user.ahas_perm(permission):
                raise Problem(403, f"{user.get_username()} may not do this: permission {permission} is missing.")
        return Caller(user.get_username())


def _refuse_other_than_json(request: HttpRequest) -> None:
    if request.method not in SAFE and request.content_type != "application/json" and request.body:
        raise Problem(415)


def caller_of(request: HttpRequest) -> str:
    """The name that events of this request carry."""
    caller: Any = getattr(request, "auth", None)
    return caller.who if isinstance(caller, Caller) else ""
