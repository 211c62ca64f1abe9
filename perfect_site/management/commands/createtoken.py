"""``manage.py createtoken``: a token for a worker or a script."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from perfect_site.server import installation
from runs.access import Token


class Command(BaseCommand):
    help = "Create a token. It is shown this once, alone on the last line."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="what the token is for, as lists and events show it")
        parser.add_argument("--scope", required=True, choices=Token.Scope.values, help="what it may do")
        parser.add_argument("--expires", type=float, metavar="DAYS", help="after so many days; default: never")

    def handle(self, *, name: str, scope: str, expires: float | None, **options: Any) -> None:
        if not name.strip() or len(name) > 200:
            raise CommandError("Give the token a name of 1 to 200 characters.")
        if expires is not None and not 0 < expires <= 36_500:
            raise CommandError("--expires takes a number of days between 0 and 36500.")
        installation.prepare(settings.PERFECT_HOME)
        with transaction.atomic():
            row, secret = Token.objects.issue(name=name.strip(), scope=scope, now=timezone.now(), days=expires)
        until = f"until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "until it is revoked"
        self.stdout.write(f"Token {row.name!r}, {row.get_scope_display()}; valid {until}. It is shown this once:")
        self.stdout.write(secret)
