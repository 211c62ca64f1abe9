"""``manage.py triggerflow``: queue a run from the shell, and follow it if wanted.

Exit codes: 0 queued or completed, 1 failed or crashed, 3 cancelled or skipped, 4 refused, 130 left with Ctrl+C while
the run goes on.
"""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand
from django.db import DatabaseError, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from flows import addresses
from flows.parameters import Refused
from runs import following, services
from runs.models import Run
from runs.queries import rest_of, run_json

REFUSED, DETACHED = 4, 130


class Command(BaseCommand):
    help = "Queue a run of a flow."
    requires_system_checks: list[str] = []  # a check would cost more than the deed

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="the flow's exact name, or its exact slug")
        parser.add_argument(
            "--resume", metavar="RUN", help="in place of a name: the id of a run to go on from where it failed"
        )
        parser.add_argument("--from-task", metavar="KEY", help="with --resume: run this task and all later ones again")
        parser.add_argument(
            "-p", "--parameter", action="append", default=[], metavar="KEY=JSON", dest="parameters",
            help="a parameter; what is not JSON is taken as text",
        )  # fmt: skip
        parser.add_argument("--config", metavar="NAME", help="the configuration to use")
        parser.add_argument("--at", metavar="ISO", help="not before this time, like 2026-03-01T06:00+01:00")
        parser.add_argument("--wait", action="store_true", help="wait for the end, and exit as the run ended")
        parser.add_argument("--follow", action="store_true", help="wait, and show log and progress")
        parser.add_argument("--json", action="store_true", help="print the run as JSON")

    def handle(self, *, json: bool, wait: bool, follow: bool, **options: Any) -> None:
        try:
            run = self._trigger(**options)
        except Refused as refused:
            self.stderr.write(refused.sentence)
            sys.exit(REFUSED)
        except DatabaseError as error:
            self.stderr.write(f"The database does not take the run: {error}. Is it prepared? manage.py migrate")
            sys.exit(REFUSED)
        if not json:
            rest = rest_of(run)
            self.stdout.write(f"Run {run.pk} of {run.flow.name} is {run.seen_state}{': ' + rest if rest else ''}.")
        if wait or follow:
            self._follow(run, log=follow and not json)
            run.refresh_from_db()
        if json:
            self.stdout.write(_dumps(run_json(run, timezone.now())))
        elif wait or follow:
            self.stdout.write(_last_word(run))
        if wait or follow:
            sys.exit(following.exit_code(run))

    def _trigger(self, *, resume: str | None, **options: Any) -> Run:
        return self._new(**options) if resume is None else self._resumed(resume, **options)

    def _resumed(
        self, run: str, *, name: str | None, parameters: list[str], config: str | None, at: str | None,
        from_task: str | None, **_: Any,
    ) -> Run:  # fmt: skip
        if name or parameters or config is not None or at:
            raise Refused("resume", "--resume takes flow, parameters and configuration from the run: give no others.")
        with transaction.atomic():
            return services.resume(
                run_id=read_id(run), now=timezone.now(), trigger=Run.Trigger.SHELL, who=_who(), from_task=from_task
            )

    def _new(
        self, *, name: str | None, parameters: list[str], config: str | None, at: str | None, from_task: str | None,
        **_: Any,
    ) -> Run:  # fmt: skip
        if not name or from_task is not None:
            raise Refused("name", "Name a flow, or a run to resume: triggerflow --resume RUN [--from-task KEY].")
        flow, now = addresses.named(name), timezone.now()
        with transaction.atomic():
            return services.trigger(
                flow=flow, now=now, trigger=Run.Trigger.SHELL, who=_who(), parameters=read_parameters(parameters),
                configuration=config, run_at=read_time(at) if at else None,
            )  # fmt: skip

    def _follow(self, run: Run, *, log: bool) -> None:
        screen = following.Screen(self.stdout, self.stderr)
        try:
            for moment, lines in following.moments(run.pk, log=log):
                if log:
                    screen.show(moment, lines)
        except KeyboardInterrupt:
            screen.close()
            self.stderr.write(f"Left. The run goes on: {run.get_absolute_url()}")
            sys.exit(DETACHED)
        screen.close()


def read_id(text: str) -> UUID:
    """A run's id. Raises ``Refused``."""
    try:
        return UUID(text)
    except ValueError:
        raise Refused("resume", f"--resume takes a run's whole id, as its page copies it, not {text!r}.") from None


def read_parameters(words: list[str]) -> dict[str, Any]:
    """``["n=3", "path=a b"]`` → ``{"n": 3, "path": "a b"}``. Raises ``Refused``."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise Refused("parameters", f"-p takes KEY=JSON, not {word!r}.")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def read_time(text: str) -> datetime:
    """A time without a zone is this machine's local time. Raises ``Refused``."""
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None:
        raise Refused("at", f"--at takes a time like 2026-03-01T06:00 or 2026-03-01T06:00+01:00, not {text!r}.")
    return at.astimezone()


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "shell"


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=2)


def _last_word(run: Run) -> str:
    duration = run.duration(timezone.now())
    took = f" after {duration.total_seconds():.1f} s" if duration else ""
    why = run.error or run.state_reason
    return f"Run {run.pk} {run.seen_state}{took}" + (f": {why}" if why else ".")
