"""``manage.py serve``: dashboard, console, API, sockets and clock in one process, with local workers if asked."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
from argparse import ArgumentParser
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import DatabaseError
from django.utils import timezone
from django.utils.module_loading import import_string

from flows.models import Flow
from perfect_site import __version__, accounts, addresses, env
from perfect_site.server import installation, lifespan, local
from perfect_site.server.process import GOING_AWAY, Server
from perfect_site.sockets import pages, workers
from runs.access import SignInLinkQuerySet
from runs.db import outages, threads
from runs.models import Run

logger = logging.getLogger("perfect.server")

CLOSE_SOCKETS_WITHIN = 3.0  # seconds


class Command(BaseCommand):
    help = "Start Perfect: dashboard, console, API, worker sockets and the clock in one process."
    requires_system_checks: list[str] = []  # checks cost 0.3 s of each start

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", default=8700, type=int, help="port to listen on (default 8700; 0: any free one)")
        parser.add_argument(
            "--worker",
            action="append",
            default=[],
            nargs="+",
            metavar="TARGET",
            help="also run a local worker for these files, folders or modules",
        )
        parser.add_argument(
            "--new", action="store_true", help="begin with an empty database where the one before is gone"
        )
        parser.add_argument("--no-clock", action="store_true", help="leave due times to `manage.py runclock`")

    def handle(self, **options: Any) -> None:
        os.umask(0o077)
        for sentence in env.unknown(os.environ):
            logger.warning("%s", sentence)
        try:
            with installation.held(settings.PERFECT_HOME):
                self._serve(**options)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            where = error.filename or settings.PERFECT_HOME
            raise CommandError(f"{where} cannot be written: {error.strerror}. Make room, then start again.") from None

    def _serve(
        self, *, host: str, port: int, worker: list[list[str]], new: bool, no_clock: bool, **options: Any
    ) -> None:
        problem = local.why_not_bind(host, port)
        if problem:
            raise CommandError(problem)
        self._prepare(host, new)
        service = Service(self.stdout, [target for group in worker for target in group], clock=not no_clock)
        server = Server(
            import_string("perfect_site.asgi.application"),
            host=host,
            port=port,
            on_ready=service.begin,
            on_drain=[service.stop_workers, service.close_sockets],
            on_end=lifespan.stop,
        )
        server.run()
        local.forget_server(settings.PERFECT_HOME)
        if server.failure:
            raise CommandError(f"{host}:{port}: {server.failure}")

    def _prepare(self, host: str, new: bool) -> None:
        try:
            installation.prepare(settings.PERFECT_HOME, new=new, say=self.stdout.write)
            if not addresses.is_loopback(host):
                self._refuse_if_open(host)
            local.ensure_worker_token(settings.PERFECT_HOME, timezone.now())
        except DatabaseError as error:
            raise CommandError(outages.advice(error)) from None

    def _refuse_if_open(self, host: str) -> None:
        if settings.DEBUG:
            raise CommandError(f"PERFECT_DEBUG=1 shows secrets to whoever causes an error: not with --host {host}.")
        if not accounts.has_password_account():
            raise CommandError(
                f"--host {host} can be reached from other machines, and no account has a password yet. "
                f"Give one first: {sys.executable} manage.py changepassword admin"
            )
        if set(settings.ALLOWED_HOSTS) <= set(env.LOOPBACK_HOSTS):
            logger.warning("PERFECT_ALLOWED_HOSTS and PERFECT_URL are unset: other machines are answered with 400.")


class Service:
    """The parts that live as long as the server listens."""

    def __init__(self, out: OutputWrapper, targets: list[str], *, clock: bool) -> None:
        self._out, self._targets, self._clock = out, targets, clock
        self._workers: local.LocalWorkers | None = None

    async def begin(self, host: str, port: int) -> None:
        own = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        url = f"http://{own}:{port}"
        await lifespan.start(clock=self._clock)
        link = await threads.write(partial(_sign_in_link, settings.PERFECT_URL or url, timezone.now()))
        flows, runs = await threads.read(_counts)
        for line in banner(url=settings.PERFECT_URL or url, link=link, flows=flows, runs=runs, targets=self._targets):
            self._out.write(line)
        self._out.flush()
        local.announce_server(settings.PERFECT_HOME, url, settings.PERFECT_URL)
        if self._targets:
            self._workers = local.LocalWorkers(self._targets, home=settings.PERFECT_HOME, url=url)
            self._workers.start()

    async def stop_workers(self) -> None:
        """First, while their sockets are still open: what they have to say last is heard."""
        if self._workers is not None:
            await self._workers.stop()

    async def close_sockets(self) -> None:
        closing = asyncio.gather(workers.close_all(GOING_AWAY), pages.close_all(GOING_AWAY))
        await asyncio.wait_for(closing, CLOSE_SOCKETS_WITHIN)


def banner(*, url: str, link: str, flows: int, runs: int, targets: list[str]) -> list[str]:
    """At most 12 lines, each of use."""
    database = settings.DATABASES["default"]
    kind = "SQLite" if database["ENGINE"].endswith("sqlite3") else "PostgreSQL"
    minutes = int(SignInLinkQuerySet.LIFETIME.total_seconds() // 60)
    worker = f"local, for {', '.join(targets)}" if targets else "none here: manage.py runworker FILE starts one"
    return [
        f"Perfect {__version__} at {url}",
        f"  Sign in   {link}  (once, {minutes} min; again: manage.py loginurl)" if link else "  Sign in   /login/",
        f"  Database  {database['NAME']} ({kind}, {flows} flows, {runs:,} runs)",
        f"  Worker    {worker}",
        "  Next      open the link, choose a flow, press Run; or: manage.py triggerflow NAME --follow",
        "  Ctrl+C stops the server; runs of its local worker get 10 s to end.",
    ]


def _sign_in_link(base: str, now: datetime) -> str:
    user = accounts.first_admin()
    return accounts.sign_in_url(user, base, now) if user else ""


def _counts() -> tuple[int, int]:
    return Flow.objects.filter(archived=False).count(), Run.objects.count()
