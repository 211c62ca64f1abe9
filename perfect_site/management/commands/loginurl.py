"""``manage.py loginurl``: a one-use sign-in link. Who can read PERFECT_HOME may sign in."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from perfect_site import accounts
from perfect_site.server import installation, local


class Command(BaseCommand):
    help = "Print a one-use link that signs in for the next 15 minutes; the link before it stops working."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", help="whom to sign in (default: the first administrator)")

    def handle(self, *, user: str, **options: Any) -> None:
        installation.prepare(settings.PERFECT_HOME)
        found = get_user_model()._default_manager.filter(username=user, is_active=True).first()
        found = found if user else accounts.first_admin()
        if found is None:
            raise CommandError(f"There is no active user {user!r}." if user else "There is no active administrator.")
        base = local.server_url(settings.PERFECT_HOME, settings.PERFECT_URL)
        self.stdout.write(accounts.sign_in_url(found, base, timezone.now()))
