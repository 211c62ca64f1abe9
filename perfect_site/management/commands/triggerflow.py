"""``manage.py triggerflow``: queue a run from the shell, and follow it if wanted.

Exit codes: 0 queued or completed, 1 failed or crashed, 3 cancelled or skipped, 4 refused, 130 left with Ctrl+C while
the run goes on. Where PERFECT_URL is another server's address, that one is asked by its API.
"""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from flows import addresses
from flows.parameters import Refused
from perfect_site.management import following, remote
from perfect_site.server import installation
from runs.models import Run
from runs.services import requests
from runs.services.queries import rest_of

REFUSED, DETACHED = 4, 130
ASK_EVERY = 0.5  # seconds between two looks at a run of a server elsewhere


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
            "-p",
            "--parameter",
            action="append",
            default=[],
            metavar="KEY=JSON",
            dest="parameters",
            help="a parameter; what is not JSON is taken as text",
        )
        parser.add_argument("--config", metavar="NAME", help="the configuration to use")
        parser.add_argument("--at", metavar="ISO", help="not before this time, like 2026-03-01T06:00+01:00")
        parser.add_argument("--wait", action="store_true", help="wait for the end, and exit as the run ended")
        parser.add_argument("--follow", action="store_true", help="wait, and show log and progress")
        parser.add_argument("--json", action="store_true", help="print the run as JSON")

    def handle(self, *, json: bool, wait: bool, follow: bool, **options: Any) -> None:
        try:
            there = remote.server()
            if there is None:
                installation.refuse_if_absent()
            queued = _trigger_here(**options) if there is None else _trigger_there(there, **options)
            look = following.look if there is None else there.look
            run = look(queued["id"], None)[0]
            if not json:
                reason = f": {queued['state_reason']}" if queued["state_reason"] else ""
                self.stdout.write(f"Run {run['id']} of {run['name']} is {queued['state']}{reason}.")
            if wait or follow:
                run = self._follow(
                    run, look, log=follow and not json, pause=following.LOOK_EVERY if there is None else ASK_EVERY
                )
        except Refused as refused:
            self._refuse(refused.sentence)
        except (CommandError, remote.Failed) as error:
            self._refuse(str(error))
        except DatabaseError as error:
            self._refuse(f"The database does not take the run: {error}. Is it prepared? manage.py migrate")
        if json:
            self.stdout.write(_dumps(run))
        elif wait or follow:
            self.stdout.write(_last_word(run))
        if wait or follow:
            sys.exit(following.exit_code(run))

    def _refuse(self, sentence: str) -> NoReturn:
        self.stderr.write(sentence)
        sys.exit(REFUSED)

    def _follow(self, run: dict[str, Any], look: following.Look, *, log: bool, pause: float) -> dict[str, Any]:
        """The run as it ended."""
        screen = following.Screen(self.stdout, self.stderr)
        try:
            for moment, lines in following.moments(run["id"], look, log=log, every=pause):
                run = moment
                if log:
                    screen.show(moment, lines)
        except KeyboardInterrupt:
            screen.close()
            self.stderr.write(f"Left. The run goes on: /runs/{run['id']}/")
            sys.exit(DETACHED)
        screen.close()
        return run


def _trigger_here(
    *,
    name: str | None,
    resume: str | None,
    from_task: str | None,
    parameters: list[str],
    config: str | None,
    at: str | None,
    **_: Any,
) -> dict[str, Any]:
    _check(name, resume, from_task, parameters, config, at)
    now = timezone.now()
    with transaction.atomic():
        if resume is not None:
            run = requests.resume(
                run_id=read_id(resume), now=now, trigger=Run.Trigger.SHELL, who=_who(), from_task=from_task
            )
        else:
            run = requests.trigger(
                flow=addresses.named(name or ""),
                now=now,
                trigger=Run.Trigger.SHELL,
                who=_who(),
                parameters=read_parameters(parameters),
                configuration=config,
                run_at=read_time(at) if at else None,
            )
    return {"id": str(run.pk), "state": run.seen_state, "state_reason": rest_of(run)}


def _trigger_there(
    there: remote.Server,
    *,
    name: str | None,
    resume: str | None,
    from_task: str | None,
    parameters: list[str],
    config: str | None,
    at: str | None,
    **_: Any,
) -> dict[str, Any]:
    _check(name, resume, from_task, parameters, config, at)
    if resume is not None:
        return there.resume(str(read_id(resume)), from_task)
    return there.trigger(
        flow=name,
        parameters=read_parameters(parameters),
        configuration=config,
        run_at=read_time(at).isoformat() if at else None,
    )


def _check(
    name: str | None,
    resume: str | None,
    from_task: str | None,
    parameters: list[str],
    config: str | None,
    at: str | None,
) -> None:
    """Raises ``Refused`` for options that do not go together."""
    if resume is not None and (name or parameters or config is not None or at):
        raise Refused("resume", "--resume takes flow, parameters and configuration from the run: give no others.")
    if resume is None and (not name or from_task is not None):
        raise Refused("name", "Name a flow, or a run to resume: triggerflow --resume RUN [--from-task KEY].")


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


def _last_word(run: dict[str, Any]) -> str:
    took = f" after {run['duration_ms'] / 1000:.1f} s" if run["duration_ms"] else ""
    why = run["error"] or run["state_reason"]
    return f"Run {run['id']} {run['state']}{took}" + (f": {why}" if why else ".")
