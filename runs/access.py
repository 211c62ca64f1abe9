"""Who may come in: tokens of workers and scripts, and one-use sign-in links. Only digests are stored."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q

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
            name=name, scope=scope, digest=digest_of(secret), prefix=secret[:12],
            created_at=now, expires_at=expires, user=user,
        )  # fmt: skip
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
