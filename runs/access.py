"""Who may come in: tokens of workers and scripts, one-use sign-in links, and who guesses. Only digests are stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q

PREFIX = "pft_"


def digest_of(secret: str) -> str:
    """SHA-256: a secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenQuerySet(models.QuerySet["Token"]):
    def issue(
        self, *, name: str, scope: str, now: datetime, days: float | None = None, user: models.Model | None = None
    ) -> tuple[Token, str]:
        """A new token and its secret, which is shown once and not stored."""
        secret = PREFIX + secrets.token_urlsafe(32)
        expires = now + timedelta(days=days) if days else None
        row = self.create(
            name=name,
            scope=scope,
            digest=digest_of(secret),
            prefix=secret[:12],
            created_at=now,
            expires_at=expires,
            user=user,
        )
        return row, secret

    def valid(self, secret: str, now: datetime) -> Token | None:
        """The token of this secret, unless it is unknown, revoked or expired."""
        alive = self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
        return alive.filter(digest=digest_of(secret)).first()


class Token(models.Model):
    class Scope(models.TextChoices):
        WORKER = "worker", "worker: report as a worker"
        READ = "read", "read: see everything"
        RUN = "run", "run: see, trigger, cancel"
        ADMIN = "admin", "admin: everything"

    name = models.CharField(max_length=200)
    scope = models.CharField(max_length=10, choices=Scope)
    prefix = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def lives(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def allows(self, scope: str) -> bool:
        """An admin token may all but report as a worker; run includes read; worker stands alone."""
        return scope in {
            Token.Scope.WORKER: {"worker"},
            Token.Scope.READ: {"read"},
            Token.Scope.RUN: {"read", "run"},
            Token.Scope.ADMIN: {"read", "run", "admin"},
        }.get(Token.Scope(self.scope), set())


class SignInLinkQuerySet(models.QuerySet["SignInLink"]):
    LIFETIME = timedelta(minutes=15)

    def issue(self, *, user: models.Model, now: datetime) -> str:
        """The secret of a new one-use link for ``user``; older unused links of that user die with it."""
        secret = secrets.token_urlsafe(32)
        self.filter(user=user, used_at=None).delete()
        self.create(user=user, digest=digest_of(secret), created_at=now, expires_at=now + self.LIFETIME)
        return secret

    def redeem(self, secret: str, now: datetime) -> SignInLink | None:
        """Use the link up; None if it is unknown, used or expired. Two redeemers race for one row, one wins."""
        mine = self.filter(digest=digest_of(secret), used_at=None, expires_at__gt=now)
        return self.get(digest=digest_of(secret)) if mine.update(used_at=now) else None


class SignInLink(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    objects = SignInLinkQuerySet.as_manager()


@dataclass(frozen=True)
class Patience:
    """How many attempts are free, and the longest delay, in seconds, that the ones after them come to."""

    free: int
    longest: float
    FIRST = 15.0

    def delay(self, count: int) -> float:
        """Seconds from attempt ``count`` to the next: doubled with each one that is not free."""
        return min(self.longest, self.FIRST * 2 ** min(count - self.free, 20)) if count >= self.free else 0.0


class SignInAttemptsQuerySet(models.QuerySet["SignInAttempts"]):
    FORGOTTEN_AFTER = timedelta(hours=1)
    MAX_ROWS = 10_000

    def begin(self, keys: Mapping[str, Patience], now: datetime) -> float:
        """Count an attempt under each key before it is made, so that many at once count as many.

        Returns 0, or the seconds to wait: then nothing was counted.
        """
        with transaction.atomic():
            # First they are there, then they are locked: two processes that begin with the same one count two.
            self.bulk_create([self.model(key=key, count=0, last_at=now) for key in keys], ignore_conflicts=True)
            rows = list(self.filter(key__in=list(keys)).select_for_update().order_by("key"))
            wait = max(row.wait(keys[row.key], now) for row in rows)
            if wait == 0:
                for row in rows:
                    count = 1 if row.is_forgotten(now) else row.count + 1
                    self.filter(pk=row.pk).update(count=count, last_at=now)
                self._forget(now)
        return wait

    def succeeded(self, mine: str, shared: str | None) -> None:
        """The attempt was right: nothing is held against its own key, and one less against a shared one."""
        self.filter(key=mine).delete()
        self.filter(key=shared, count__gt=0).update(count=F("count") - 1)

    def _forget(self, now: datetime) -> None:
        """The table stays small whoever guesses: the oldest go, also those of an attack from everywhere."""
        self.filter(last_at__lte=now - self.FORGOTTEN_AFTER).delete()
        if self.count() > self.MAX_ROWS:
            oldest = self.order_by("last_at").values_list("pk", flat=True)[: self.MAX_ROWS // 10]
            self.filter(pk__in=list(oldest)).delete()


class SignInAttempts(models.Model):
    """Attempts to sign in since the last right one, by who made them."""

    key = models.CharField(max_length=64, unique=True)
    count = models.PositiveIntegerField()
    last_at = models.DateTimeField(db_index=True)

    objects = SignInAttemptsQuerySet.as_manager()

    def wait(self, patience: Patience, now: datetime) -> float:
        """Seconds until the next attempt; a clock that was set back makes nobody wait longer than a delay."""
        if self.is_forgotten(now):
            return 0.0
        delay = patience.delay(self.count)
        return min(delay, max(0.0, delay - (now - self.last_at).total_seconds()))

    def is_forgotten(self, now: datetime) -> bool:
        return now - self.last_at >= SignInAttemptsQuerySet.FORGOTTEN_AFTER
