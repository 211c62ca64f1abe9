"""What happens because time passes: due schedules and runs, silent workers, unanswered offers.

Every step takes ``now`` and may be taken by any number of clocks: each change is a compare-and-swap, and
``UNIQUE(schedule, due_at)`` makes a schedule fire once per nominal time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction

from flows import schedules
from flows.models import Schedule
from flows.parameters import Refused
from flows.services import plan
from runs import dispatch, live, sharing
from runs.closing import close
from runs.models import Attempt, Run, Worker
from runs.retention import BATCH, prune
from runs.services import Wish, cancel, trigger_many
from runs.states import HELD, LIVE, RunState

SWEEP = timedelta(seconds=5)
LOST_AFTER = timedelta(seconds=60)
CRASH_AFTER = timedelta(minutes=5)
PRUNE_EVERY = timedelta(hours=1)
CATCH_UP_LIMIT = 100
STANDING = (RunState.RUNNING, RunState.PAUSED)  # while their worker is heard
CATCH_UP_AGE = timedelta(days=7)

logger = logging.getLogger(__name__)


class Clock:
    """One clock. ``started`` guards workers against a server that was away: their silence counts from then on."""

    def __init__(self, started: datetime) -> None:
        self.started = started
        self._prune_at = started + PRUNE_EVERY
        self._grant_at: datetime | None = None

    def step(self, now: datetime) -> datetime:
        """Do all that is due; returns when to look again, at the latest after one sweep."""
        for part in (
            self.fire_schedules,
            self.release_scheduled,
            self.expire_offers,
            self.watch_workers,
            self.grant_limits,
            self.prune_history,
        ):
            _guarded(part, now)
        return min(at for at in (now + SWEEP, self._grant_at, *_next_times()) if at is not None)

    def fire_schedules(self, now: datetime) -> None:
        for schedule in Schedule.objects.firing().select_related("flow").filter(next_at__lte=now):
            _guarded(partial(fire, schedule), now)

    def release_scheduled(self, now: datetime) -> None:
        due = Run.objects.filter(state=RunState.SCHEDULED, scheduled_for__lte=now)
        if due.move(RunState.PENDING, now=now, who="clock", why=""):
            live.touch(live.WORK, live.OVERVIEW)

    def expire_offers(self, now: datetime) -> None:
        dispatch.expire(now=now)

    def grant_limits(self, now: datetime) -> None:
        """Slots of a rate have come back meanwhile."""
        self._grant_at = sharing.settle(now=now)

    def prune_history(self, now: datetime) -> None:
        """Let go of history that is older than the operator keeps; in small steps while there is more."""
        if now >= self._prune_at:
            full = prune(now=now, keep=timedelta(days=settings.PERFECT_RETENTION_DAYS)) == BATCH
            self._prune_at = now if full else now + PRUNE_EVERY

    def watch_workers(self, now: datetime) -> None:
        """A worker silent for a minute: its runs are LOST. Silent for ``CRASH_AFTER``: they count as crashed."""
        if now - self.started < LOST_AFTER:
            return
        silent = Run.objects.filter(state__in=HELD, worker__last_seen_at__lte=now - LOST_AFTER).select_related("flow")
        for run in silent.select_related("worker"):
            worker = run.worker
            assert worker is not None
            quiet = now - max(worker.last_seen_at, self.started)
            if run.state in STANDING and quiet >= LOST_AFTER:
                why = f"no contact with worker {worker.name} for {round(quiet.total_seconds())} s; the work may go on"
                lost = Run.objects.filter(pk=run.pk).with_subruns()
                lost.filter(state__in=STANDING).move(RunState.LOST, now=now, who="clock", why=why)
                Worker.objects.filter(pk=worker.pk).update(connected=False)
                live.touch(live.OVERVIEW, live.WORKERS, live.run_topic(run.pk))
            elif run.state == RunState.LOST and quiet >= CRASH_AFTER:
                Attempt.objects.filter(run=run, revoked_at=None).update(revoked_at=now)
                minutes = round(quiet.total_seconds() / 60)
                why = f"its worker {worker.name} has been out of contact for {minutes} minutes"
                close(run, RunState.CRASHED, now=now, who="clock", why=why, error=why)


def _guarded(part: Callable[[datetime], None], now: datetime) -> None:
    """One failing schedule or part must not stop the others."""
    try:
        with transaction.atomic():
            part(now)
    except Exception:
        logger.exception("a step of the clock failed")


def _next_times() -> list[datetime]:
    first = Schedule.objects.firing().order_by("next_at").values_list("next_at", flat=True).first()
    waiting = Run.objects.filter(state=RunState.SCHEDULED).order_by("scheduled_for")
    soon = waiting.values_list("scheduled_for", flat=True).first()
    return [at for at in (first, soon) if at is not None]


def fire(schedule: Schedule, now: datetime) -> None:
    """Make a run for each due time that the catch-up rule keeps, and set the next one."""
    try:
        timing = schedule.timing
    except schedules.BadSchedule as bad:
        Schedule.objects.filter(pk=schedule.pk).update(next_at=None, problem=str(bad))
        return
    assert schedule.next_at is not None
    before = schedule.next_at
    complaint = ""
    for due_at in _kept(schedule, timing, now):
        complaint = _fire_once(schedule, due_at, now)
        schedule.last_at = due_at
    plan(schedule, now)
    # Compare-and-swap on next_at: another clock, or a person's edit, may have come first.
    Schedule.objects.filter(pk=schedule.pk, next_at=before).update(
        next_at=schedule.next_at, last_at=schedule.last_at, problem=complaint or schedule.problem
    )
    live.touch(live.SCHEDULES, live.OVERVIEW)


def _kept(schedule: Schedule, timing: schedules.Timing, now: datetime) -> list[datetime]:
    assert schedule.next_at is not None
    earliest = max(schedule.next_at, now - CATCH_UP_AGE) - timedelta(microseconds=1)
    due: list[datetime] = []
    while batch := schedules.due_between(timing, due[-1] if due else earliest, now, CATCH_UP_LIMIT):
        due = [*due, *batch][-CATCH_UP_LIMIT:]
    on_time = [at for at in due if now - at <= SWEEP * 2]
    rule = {
        Schedule.CatchUp.ALL: lambda: due,
        Schedule.CatchUp.LATEST: lambda: due[-1:],
        Schedule.CatchUp.SKIP: lambda: on_time[-1:],
    }
    return rule[Schedule.CatchUp(schedule.catch_up)]()


def _fire_once(schedule: Schedule, due_at: datetime, now: datetime) -> str:
    """Make the run of this due time unless it is there; returns why it could not be made, or nothing."""
    if Run.objects.filter(schedule=schedule, due_at=due_at).exists():
        return ""
    running = list(Run.objects.filter(schedule=schedule, state__in=LIVE).order_by("pk")[:100])
    wish = Wish(schedule.flow, schedule.parameters, schedule.configuration, schedule=schedule, due_at=due_at)
    try:
        with transaction.atomic():
            run = trigger_many(items=[wish], now=now, trigger=Run.Trigger.SCHEDULE, who=f"schedule {schedule.name}")[0]
    except Refused as refused:
        logger.warning("schedule %s of %s: %s", schedule.name, schedule.flow.name, refused.sentence)
        return refused.sentence
    except IntegrityError:  # another clock made it in between
        return ""
    if running:
        _OVERLAP[Schedule.Overlap(schedule.overlap)](run, running, now)
    return ""


def _skip(run: Run, running: list[Run], now: datetime) -> None:
    why = f"run {running[0].short_id} of the same schedule was still {running[0].seen_state.lower()}"
    close(run, RunState.SKIPPED, now=now, who="clock", why=why)


def _cancel_running(run: Run, running: list[Run], now: datetime) -> None:
    for old in running:
        cancel(run_id=old.pk, now=now, who="clock", why=f"run {run.short_id} of the same schedule is due")


def _leave(run: Run, running: list[Run], now: datetime) -> None:
    """ALLOW runs beside the others. QUEUE waits in ``dispatch`` until they are final."""


_OVERLAP: dict[Schedule.Overlap, Callable[[Run, list[Run], datetime], None]] = {
    Schedule.Overlap.ALLOW: _leave,
    Schedule.Overlap.QUEUE: _leave,
    Schedule.Overlap.SKIP: _skip,
    Schedule.Overlap.CANCEL_RUNNING: _cancel_running,
}
