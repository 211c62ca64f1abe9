"""Facts: what a worker reports becomes rows, each once and in order.

Per message one transaction: is the fence current (else the worker is told to drop the attempt)? a gap (it is asked
to send again)? seen (skipped)? malformed (that one is quarantined)? Then applied, the sequence number stored,
committed, and only then acknowledged.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet
from perfect_client.wire import messages
from perfect_client.wire.messages import Accept, Verdict, clean_text

from runs import events, notifications
from runs.ingest import dispatch
from runs.models import Attempt, Run, RunQuerySet, Worker
from runs.rules.states import HELD, RunState
from runs.services import offerings, questions
from runs.services.announcements import announce as announce_flows
from runs.services.closing import close

PROBLEMS_KEPT = 50
ALIVE = timedelta(seconds=15)  # a second worker of the same identity is refused while the first was heard this recently

OPEN_LINES = 20  # of one attempt
DEAD_TOLD = 20  # processes whose connections other servers close


class WorkerRefused(Exception):
    """The worker may not join; ``code`` is the close code, the text the sentence for its operator."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def begin() -> None:
    """A server begins. A worker that was killed together with the one before must not wait until that is forgotten."""
    _cut_off(_left_behind())


_missing: set[int] = set()  # servers that the last sweep did not find


def sweep() -> None:
    """Other servers may be gone. One look is not enough: a server whose connection was cut is back in a moment."""
    rows = _left_behind()
    gone = set(rows.values_list("server", flat=True))
    _cut_off(rows.filter(server__in=gone & _missing))
    _missing.clear()
    _missing.update(gone)


def _left_behind() -> QuerySet[Worker]:
    """Workers that count as connected, to a server process that is gone. With SQLite this one is the only one."""
    there = Worker.objects.exclude(connected=False, draining={})
    return there if connection.vendor == "sqlite" else there.exclude(server__in=notifications.living())


def _cut_off(workers: QuerySet[Worker]) -> None:
    if workers.update(connected=False, left_reason="the server ended", draining={}):
        events.publish(events.WORKERS, events.OVERVIEW)


def join(*, message: messages.Joined, now: datetime, token: int | None = None) -> Accept:
    """Take a worker in: note who it is, settle what became of its attempts. Raises ``WorkerRefused``.

    ``token`` is the key of the token that it came with. Of the processes of one worker, the newest is the one that the
    row describes. An older one that drains may be connected beside it; what that one holds is no business of the
    newest one's.
    """
    if message.protocol > messages.VERSION:
        raise WorkerRefused(
            f"this worker speaks protocol {message.protocol}, the server {messages.VERSION}; update the server",
            messages.TOO_OLD,
        )
    identity = identity_of(message)
    known = Worker.objects.select_related("token").filter(pk=identity).first()
    if known:
        _refuse_stranger(known, message, token, now)
    if known and known.boot != message.boot:
        if message.draining:
            return _join_beside(known, message, now)
        _refuse_double(known, message, now)
    if known is None and token is not None and not offerings.make_room(token=token, now=now):
        raise WorkerRefused(
            f"its token is used by {offerings.MOST_WORKERS:,} workers that are connected or have runs;"
            " make another with: manage.py createtoken NAME --scope worker",
            messages.FORBIDDEN,
        )
    draining = {boot: runs for boot, runs in (known.draining if known else {}).items() if boot in message.older}
    if message.draining:
        draining[message.boot[:64]] = len(message.held)
    Worker.objects.update_or_create(
        pk=identity,
        defaults={
            "name": clean_text(message.name, 200) or "worker",
            "boot": message.boot[:64],
            "host": message.host[:255],
            "pid": max(0, message.pid),
            "python": message.python[:32],
            "sdk": message.sdk[:32],
            "slots": max(0, message.slots),
            "pools": message.pools[:50],
            "connected": True,
            "joined_at": now,
            "last_seen_at": now,
            "left_reason": "",
            "forgotten_at": None,
            "draining": draining,
            "server": notifications.SERVER,
            "token_id": token,
        },
    )
    dispatch.forget(identity)
    dispatch.release(worker=identity, now=now, why="the worker came back and had not claimed it")
    _settle_missing(identity, {item.fence for item in message.held} | set(message.beside), now)
    return _accept(identity, message, now)


def _refuse_stranger(known: Worker, message: messages.Joined, token: int | None, now: datetime) -> None:
    """A worker's id can be read by many. With another token nobody takes its place, nor its runs, while the token that
    it joined with is valid; but for a process that knows the boot of the one before, as only the worker's disk does."""
    own = known.token
    if own is not None and own.pk != token and own.lives(now) and known.boot not in message.older:
        raise WorkerRefused(
            f"worker {known.name!r} joined with the token {own.name!r}, which is still valid, and this is another one;"
            " revoke that token, or forget the worker in the console, or start this one with another --name",
            messages.FORBIDDEN,
        )


def _refuse_double(known: Worker, message: messages.Joined, now: datetime) -> None:
    """Two processes with one identity would take each other's runs, unless the older one drains, or is dead: the end
    of its connection may be lost on the way. Its boot, and that its lock is free, only the worker's disk tells."""
    if (
        known.connected
        and now - known.last_seen_at < ALIVE
        and known.boot not in (*message.older, *message.dead, *known.draining)
        and (connection.vendor == "sqlite" or known.server in notifications.living())
    ):
        raise WorkerRefused(
            f"worker {known.name!r} is connected already, from host {known.host} with pid {known.pid};"
            " start this one with another --name",
            messages.OVERLOADED,
        )


def _join_beside(worker: Worker, message: messages.Joined, now: datetime) -> Accept:
    """A draining process is back. A newer one has joined since, and has said what is missing."""
    drains(worker=worker.pk, boot=message.boot, running=len(message.held), now=now)
    return _accept(worker.pk, message, now)


def _accept(worker: UUID, message: messages.Joined, now: datetime) -> Accept:
    questions.send_again(worker=worker)
    dispatch.tell_holds_again(worker=worker)
    events.publish(
        events.WORKERS,
        events.OVERVIEW,
        events.WORK,
        events.ANSWERS,
        *(events.joined_topic(worker, boot) for boot in (message.boot, *message.dead[:DEAD_TOLD])),
        *offerings.topics_of(worker),
    )
    verdicts = [_verdict(worker, item, now) for item in {item.fence: item for item in message.held}.values()]
    return Accept(server_time=now.timestamp(), attempts=verdicts, draining=True)


def drains(*, worker: UUID, boot: str, running: int | None, now: datetime) -> None:
    """A process of the worker takes no new run and waits for ``running`` runs; None: it is gone."""
    row = Worker.objects.select_for_update().filter(pk=worker).first()
    if row is None:
        return
    others = {known: runs for known, runs in row.draining.items() if known != boot[:64]}
    row.draining = others if running is None else {**others, boot[:64]: running}
    row.last_seen_at = now
    row.save(update_fields=["draining", "last_seen_at"])
    events.publish(events.WORKERS, events.OVERVIEW)


def identity_of(message: messages.Joined) -> UUID:
    """Raises ``WorkerRefused``."""
    try:
        return UUID(message.worker)
    except ValueError:
        raise WorkerRefused("Joined.worker must be a UUID", messages.MALFORMED) from None


def _settle_missing(worker: UUID, held: set[int], now: datetime) -> None:
    """A claimed attempt that its worker has no journal of will never report: it has crashed."""
    for run in Run.objects.held().filter(worker_id=worker).exclude(fence__in=held).select_related("flow"):
        Attempt.objects.filter(run=run, revoked_at=None).update(revoked_at=now)
        close(run, RunState.CRASHED, now=now, who="server", why="its worker came back without it")


def _verdict(worker: UUID, item: messages.Held, now: datetime) -> Verdict:
    attempt = Attempt.objects.select_related("run").filter(pk=item.fence).first()
    if attempt is None or str(attempt.run_id) != item.run:
        return Verdict(item.fence, "unknown")
    run = attempt.run
    if attempt.worker_id != worker or attempt.revoked_at is not None or run.fence != item.fence:
        return Verdict(item.fence, "stale")
    if run.state == RunState.LOST:
        _back(Run.objects.filter(pk=run.pk), now)
        events.publish(events.run_topic(run.pk), events.OVERVIEW)
    cancel = run.state in HELD and run.cancel_requested_at is not None
    return Verdict(item.fence, "current", attempt.facts_seq, attempt.output_seq, cancel)


def announce(*, worker: UUID, message: messages.FlowsAnnounced, now: datetime) -> list[str]:
    """The worker has these flows, and no others. Returns a sentence for all that was refused, for its terminal."""
    row = Worker.objects.select_related("token").filter(pk=worker).first()
    offers, refused = announce_flows(specs=message.flows, now=now, worker=row)
    if row is not None:
        offerings.replace(worker=row, offers=offers, now=now)
        dispatch.forget(worker)
        row.problems = [clean_text(problem, 2_000) for problem in [*message.problems, *refused]][:PROBLEMS_KEPT]
        row.save(update_fields=["problems"])
        events.publish(events.WORKERS, events.OVERVIEW, events.WORK)
    return [clean_text(sentence, 2_000) for sentence in refused[:PROBLEMS_KEPT]]


def beat(*, worker: UUID, now: datetime, boot: str = "") -> None:
    """The worker is alive, and so is every run of it that was given up for lost. ``boot`` is that of a process that
    drains: it may live on while the newest one is gone."""
    rows = Worker.objects.filter(pk=worker)
    if boot:
        rows.update(last_seen_at=now)
    (rows.filter(boot=boot[:64]) if boot else rows).update(last_seen_at=now, connected=True)
    lost = Run.objects.filter(worker_id=worker, state=RunState.LOST)
    if lost.exists():
        _back(lost, now)
        events.publish(events.OVERVIEW)


def _back(runs: RunQuerySet, now: datetime) -> None:
    """Runs that were given up for lost go on, or go on waiting for a person."""
    for run in runs.with_subruns().filter(state=RunState.LOST):
        run.move(questions.state_of_held(run), now=now, who="worker", why="its worker is back")
        events.publish(events.run_topic(run.pk))


def leave(*, worker: UUID, boot: str, now: datetime, why: str, joined: datetime | None = None) -> None:
    """The connection is gone. Its offers go back; its runs go on until it is back or too long silent.

    ``joined`` is when this connection joined: this may be written late, and another one counts that has joined since.
    """
    if Worker.objects.filter(pk=worker, draining__has_key=boot[:64]).exists():
        drains(worker=worker, boot=boot, running=None, now=now)
    mine = {"server": notifications.SERVER, **({"joined_at": joined} if joined else {})}  # it may be elsewhere by now
    gone = Worker.objects.filter(pk=worker, boot=boot[:64], **mine)
    if gone.update(connected=False, last_seen_at=now, left_reason=clean_text(why, 500)):
        dispatch.forget(worker)
        dispatch.release(worker=worker, now=now, why="the worker left before it claimed the run")
        events.publish(events.WORKERS, events.OVERVIEW, *offerings.topics_of(worker))


def show_open(*, worker: UUID, message: messages.LinesOpen) -> None:
    """What an attempt has written of lines that have not ended. No fact: it may be lost, and the last word counts."""
    lines = [
        [line.time, min(max(line.level, 0), 100), line.task, clean_text(line.message)]
        for line in message.lines[:OPEN_LINES]
    ]
    attempt = Attempt.objects.filter(pk=message.fence, worker_id=worker, revoked_at=None)
    if attempt.update(open_lines=lines):
        events.publish(*[events.log_topic(pk) for pk in attempt.values_list("run_id", flat=True)])
