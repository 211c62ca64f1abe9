"""What happens because time passes: due schedules and runs, silent workers, unanswered offers.

Every step takes ``now`` and may be taken by any number of clocks: each change is a compare-and-swap, and
``UNIQUE(schedule, due_at)`` makes a schedule fire once per nominal time.

``now`` is the wall clock, which may jump. It says what is due, and nothing else: silence, patience and pauses are
measured in ``lived``, seconds of a clock that never goes back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction

from flows import schedules
from flows.models import Schedule
from flows.parameters import Refused
from flows.services import plan
from runs import events
from runs.db.outages import Sparing, log_failure
from runs.ingest import dispatch
from runs.models import Attempt, Run, Worker
from runs.rules.silence import Silence, Steadiness
from runs.rules.states import HELD, LIVE, OFFER_LASTS, RunState
from runs.services import limits, offerings, retention
from runs.services.announcements import follow_present
from runs.services.closing import close
from runs.services.requests import RunRequest, cancel, trigger_many

SWEEP = timedelta(seconds=5)
LOST_AFTER = timedelta(seconds=60)
CRASH_AFTER = timedelta(minutes=5)
ASLEEP = 15.0  # seconds between two steps after which this process counts as having been stopped
JUMP = 10.0  # seconds by which the wall clock may be set without a word
FOLLOW_EVERY = 30.0  # seconds
PRUNE_EVERY = 3600.0  # seconds
PRUNE_SHARE = 0.25  # of the writer's time, while there is a backlog
CHECKED = 50  # schedules in one step
CATCH_UP_LIMIT = 100
STANDING = (RunState.RUNNING, RunState.PAUSED)  # while their worker is heard
CATCH_UP_AGE = timedelta(days=7)

logger = logging.getLogger(__name__)
_sparing = Sparing()


class Clock:
    """One clock. ``served``: whether any server is there that workers could be heard by."""

    def __init__(self, started: float | None = None, served: Callable[[], bool] = lambda: True) -> None:
        self._lived = time.monotonic() if started is None else started
        self._served = served
        self._prune_at, self._prunes = self._lived + PRUNE_EVERY, False
        self._forget_at = self._lived + PRUNE_EVERY
        self._grant_at: datetime | None = None
        self._follow_at = self._lived + LOST_AFTER.total_seconds()  # until then workers may be on their way back
        self._checked = 0  # the schedule whose next time was looked at last
        self._check_all = True
        self._steadiness, self._steady = Steadiness(JUMP), 0.0
        self._words: Silence[UUID] = Silence(ASLEEP)
        self._offers: Silence[int] = Silence(ASLEEP)

    def step(self, now: datetime, lived: float | None = None) -> datetime:
        """Do all that is due; returns when to look again, at the latest after one sweep.

        ``lived``: seconds of a clock that never goes back, by default this machine's monotonic one.
        """
        self._lived = time.monotonic() if lived is None else lived
        self._steady = self._steadiness.look(now.timestamp(), self._lived)
        if not self._steady:  # the clock was set, or this machine was suspended
            self._check_all, self._prunes = True, False
        for part in (
            self.check_schedules,
            self.fire_schedules,
            self.release_scheduled,
            self.expire_offers,
            self.watch_workers,
            self.follow_versions,
            self.grant_limits,
            self.prune_history,
            self.forget_workers,
        ):
            _guarded(part, now)
        return min(at for at in (now + SWEEP, self._next_part(now), self._grant_at, *_next_times()) if at is not None)

    def _next_part(self, now: datetime) -> datetime | None:
        """When what is done in parts goes on, if there is more of it."""
        if self._check_all:
            return now
        return now + timedelta(seconds=self._prune_at - self._lived) if self._prunes else None

    def check_schedules(self, now: datetime) -> None:
        """Work out again the next times that a clock which went wrong has set too far ahead.

        All of them at the start and after a jump, else a few in turn: it may have been another machine's clock.
        """
        rows = Schedule.objects.firing().filter(next_at__gt=now, pk__gt=self._checked)
        found = list(rows.select_related("flow").order_by("pk")[:CHECKED])
        for schedule in found:
            _guarded(partial(_bring_back, schedule), now)
        if len(found) == CHECKED:
            self._checked = found[-1].pk
        else:
            self._checked, self._check_all = 0, False

    def fire_schedules(self, now: datetime) -> None:
        for schedule in Schedule.objects.firing().select_related("flow").filter(next_at__lte=now):
            _guarded(partial(fire, schedule), now)

    def release_scheduled(self, now: datetime) -> None:
        due = Run.objects.filter(state=RunState.SCHEDULED, scheduled_for__lte=now)
        if due.move(RunState.PENDING, now=now, who="clock", why=""):
            events.publish(events.WORK, events.OVERVIEW)

    def follow_versions(self, now: datetime) -> None:
        """Workers may have left, and with them the version of a flow that its row follows."""
        if self._lived >= self._follow_at:
            follow_present(now=now)
            self._follow_at = self._lived + FOLLOW_EVERY

    def expire_offers(self, now: datetime) -> None:
        standing = self._offers.look(dict.fromkeys(dispatch.unclaimed()), self._lived)
        old = [fence for fence, seconds in standing.items() if seconds >= OFFER_LASTS.total_seconds()]
        if old:
            dispatch.expire(fences=old, now=now)

    def grant_limits(self, now: datetime) -> None:
        """Slots of a rate have come back meanwhile."""
        self._grant_at = limits.settle(now=now, by_clock=True)

    def prune_history(self, now: datetime) -> None:
        """Let go of history that is older than the operator keeps; in small steps while there is more."""
        keep = timedelta(days=settings.PERFECT_RETENTION_DAYS)
        if self._lived < self._prune_at or not keep:
            return
        self._prune_at = self._lived + PRUNE_EVERY
        if not self._prunes:
            held_back = retention.too_much(now=now, keep=keep, steady=self._steady)
            if held_back and not retention.held_back:
                logger.warning("%s", held_back)
            retention.held_back = held_back
            self._prunes = not held_back
        if self._prunes:
            begun = time.monotonic()
            self._prunes = retention.prune(now=now, keep=keep)
            if self._prunes:
                self._prune_at = self._lived + (time.monotonic() - begun) / PRUNE_SHARE

    def forget_workers(self, now: datetime) -> None:
        """Let go of the workers that are long gone; in small steps while there are more."""
        if self._lived >= self._forget_at:
            self._forget_at = self._lived + PRUNE_EVERY
            known = self._steady >= PRUNE_EVERY / 2  # else the clock may have been set ahead just now
            if known and offerings.forget_gone(now=now) == offerings.FORGOTTEN_AT_ONCE:
                self._forget_at = self._lived

    def watch_workers(self, now: datetime) -> None:
        """A worker silent for a minute: its runs are LOST. Silent for ``CRASH_AFTER``: they count as crashed."""
        if not self._served():
            return self._words.forget()
        workers = list(Run.objects.filter(state__in=HELD).order_by().values_list("worker_id", flat=True).distinct())
        words = dict(Worker.objects.filter(pk__in=workers).values_list("pk", "last_seen_at")) if workers else {}
        silence = {pk: timedelta(seconds=seconds) for pk, seconds in self._words.look(words, self._lived).items()}
        silent = [pk for pk, quiet in silence.items() if quiet >= LOST_AFTER]
        if not silent:
            return
        runs = Run.objects.filter(state__in=HELD, worker__in=silent).select_related("flow", "worker")
        for run in runs:
            worker = run.worker
            assert worker is not None
            quiet = silence[worker.pk]
            if run.state in STANDING:
                why = f"no contact with worker {worker.name} for {round(quiet.total_seconds())} s; the work may go on"
                lost = Run.objects.filter(pk=run.pk).with_subruns()
                lost.filter(state__in=STANDING).move(RunState.LOST, now=now, who="clock", why=why)
                Worker.objects.filter(pk=worker.pk).update(connected=False)
                events.publish(events.OVERVIEW, events.WORKERS, events.run_topic(run.pk))
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
    except Exception as error:
        log_failure(logger, "a step of the clock failed", error)


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
    events.publish(events.SCHEDULES, events.OVERVIEW)


def _bring_back(schedule: Schedule, now: datetime) -> None:
    """Of a clock that is set by a few seconds nothing need be said: the time comes by itself."""
    before = schedule.next_at
    plan(schedule, now + timedelta(seconds=JUMP))
    if before is None or schedule.next_at is None or before <= schedule.next_at:
        return
    plan(schedule, now)
    if not Schedule.objects.filter(pk=schedule.pk, next_at=before).update(next_at=schedule.next_at):
        return
    events.publish(events.SCHEDULES, events.OVERVIEW)
    if (more := _sparing.ask()) is not None:  # two servers whose clocks differ put it right again and again
        logger.warning(
            "schedule %s of %s was to fire next at %s, later than it is due: the clock was wrong when that was set, or "
            "another server's is%s",
            schedule.name,
            schedule.flow.name,
            before,
            more,
        )


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
    wish = RunRequest(schedule.flow, schedule.parameters, schedule.configuration, schedule=schedule, due_at=due_at)
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
