"""Hand a waiting run to a free worker, exactly once: offer → claim → start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Case, QuerySet, When
from perfect_client.wire.messages import Ancestor, CancelRun, DropRun, HoldRun, OfferRun, StartRun

from flows import sealing, versions
from flows.models import Schedule, Version
from flows.statements import insert_one, swap
from runs import events
from runs.ingest.ledger import Ledger, ledgers
from runs.models import Attempt, Offering, Run
from runs.rules.states import HELD, LIVE, RunState
from runs.services import queue
from runs.services.closing import CANCELLED, cancel_reasons
from runs.services.reach import within

CANCEL_GRACE_S = 10.0
SKIP_LOCKED = " FOR NO KEY UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else ""
MAX_LINEAGE = 50


class Offered(NamedTuple):
    """What a worker says of a flow: why its newest code is not used there, or nothing; and which version it has."""

    problem: str
    version: int | None
    fingerprint: str | None


@dataclass(frozen=True)
class Offer:
    worker: UUID
    order: OfferRun


def offer(*, free: Mapping[UUID, int], now: datetime) -> list[Offer]:
    """Offer waiting runs, oldest first, to the connected workers that have their flow and a free slot.

    ``free`` are the slots that each worker connected to this process has left. The emptiest worker comes first, but
    for a run that resumes another one: the worker of that one has its results.
    """
    left = {pk: slots for pk, slots in free.items() if slots > 0}
    able: dict[int, list[UUID]] = {}
    for pk in left:
        for flow in _offered_by(pk):
            able.setdefault(flow, []).append(pk)
    offers: list[Offer] = []
    waiting = _waiting(list(able), sum(left.values()))
    for run in waiting:
        home = run.resume_of.worker_id if run.resume_of else None
        worker = max(
            (pk for pk in able[run.flow_id] if left[pk] > 0 and _takes(pk, run)),
            key=lambda pk: (pk == home, left[pk]),
            default=None,
        )
        if worker is not None and not _queued(run) and (made := _offer(run, worker, now)):
            left[worker] -= 1
            offers.append(made)
    if SKIP_LOCKED and 0 < len(offers) < len(waiting):
        events.publish(events.WORK)  # another server passed these by while they were locked, and may have room
    return offers


# What offering needs over and over, and what rarely changes. Both are only memories: without them it is read.
_offered: dict[UUID, dict[int, Offered]] = {}  # by the workers connected to this process
_specs: dict[int, dict[str, Any]] = {}  # of versions that are not their flow's newest
_unreadable: set[UUID] = set()  # waiting runs whose parameters this process has no key for; they hold nobody up


def forget(worker: UUID) -> None:
    """The worker's flows have changed, or it has gone."""
    _offered.pop(worker, None)
    _specs.clear()


def forget_all() -> None:
    """For tests, whose databases come and go."""
    _offered.clear()
    queue.forget_all()
    _unreadable.clear()


def _offered_by(worker: UUID) -> dict[int, Offered]:
    """The flows that it offers."""
    if worker not in _offered:
        rows = Offering.objects.filter(worker_id=worker)
        found = rows.values_list("flow_id", "problem", "version_id", "version__fingerprint")
        _offered[worker] = {flow: Offered(problem, version, mark) for flow, problem, version, mark in found}
    return _offered[worker]


def _takes(worker: UUID, run: Run) -> bool:
    """Whether the worker's version of the flow can be given the run's parameters: the newest one was asked."""
    offered = _offered_by(worker)[run.flow_id]
    if offered.version is None or offered.fingerprint == run.flow.fingerprint:
        return True
    if offered.version not in _specs:
        _specs.update(Version.objects.filter(pk=offered.version).values_list("pk", "spec"))
    return versions.takes(_specs.get(offered.version, {}), run.parameters, run.configuration)


def _waiting(flows: list[int], limit: int) -> list[Run]:
    """The oldest waiting runs of these flows whose parameters can be read. Servers that look at once find others."""
    if not flows:
        return []
    marks = ", ".join(["%s"] * len(flows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM runs_run WHERE state = %s AND flow_id IN ({marks}) ORDER BY id LIMIT %s{SKIP_LOCKED}",
            [RunState.PENDING, *flows, limit + len(_unreadable)],
        )
        found = [Run._meta.pk.to_python(key) for (key,) in cursor.fetchall()]
    keys = [key for key in found if key not in _unreadable][:limit]
    known = queue.take(keys)
    others = [key for key in keys if key not in known]
    if others:
        read = Run.objects.select_related("flow", "resume_of").in_bulk(others)
        locked = {key for key, run in read.items() if sealing.unreadable(run.parameters)}
        if locked:
            _unreadable.update(locked)
            queue.put_back(known)
            return _waiting(flows, limit)
        known.update(read)
    return [known[key] for key in keys if key in known]


def _queued(run: Run) -> bool:
    """Whether its schedule lets it wait for an earlier run that is not final yet."""
    if run.schedule is None or run.schedule.overlap != Schedule.Overlap.QUEUE:
        return False
    return Run.objects.filter(schedule=run.schedule, pk__lt=run.pk, state__in=LIVE).exists()


def _offer(run: Run, worker: UUID, now: datetime) -> Offer | None:
    attempt = Attempt(run=run, worker_id=worker, number=run.attempt + 1, offered_at=now)
    insert_one(attempt)
    if not run.move(RunState.OFFERED, now=now, who="server", fence=attempt.pk, worker_id=worker):
        attempt.delete()
        return None
    ledgers.put_back(Ledger(attempt))
    return Offer(
        worker,
        OfferRun(
            fence=attempt.pk,
            run=str(run.pk),
            flow=run.flow.name,
            parameters=run.parameters,
            configuration=run.configuration,
            tags=run.tags,
            attempt=run.attempt + 1,
            trigger=run.trigger,
            scheduled_for=run.scheduled_for.timestamp() if run.scheduled_for else None,
            lineage=_lineage(run),
        ),
    )


def _lineage(run: Run) -> list[Ancestor]:
    """The runs whose results this one may use, nearest first.

    Where a run repeats everything from some task on, the chain ends: what is older than it has been asked to go.
    """
    found: list[Ancestor] = []
    child: Run | None = run
    while child is not None and child.resume_of is not None and len(found) < MAX_LINEAGE:
        found.append(Ancestor(str(child.resume_of.pk), child.resume_before))
        child = None if child.resume_before else child.resume_of
    return found


def claim(*, worker: UUID, fence: int, run_id: str, now: datetime) -> StartRun | DropRun:
    """Commit that the attempt is this worker's. A repeated claim of the same attempt gets the same answer."""
    ledger = ledgers.take(fence)
    answer = _claim(ledger, worker, run_id, now) if ledger is not None else None
    if answer is None:  # the kept ledger was outdated
        ledger = ledgers.open(fence)
        answer = _claim(ledger, worker, run_id, now) if ledger is not None else None
    if ledger is not None:
        ledgers.put_back(ledger)
    return answer or DropRun(fence, "the offer was withdrawn")


def _claim(ledger: Ledger, worker: UUID, run_id: str, now: datetime) -> StartRun | DropRun | None:
    """None if the attempt is not this worker's to claim, as far as the ledger knows."""
    run, attempt = ledger.run, ledger.attempt
    if not ledger.belongs_to(worker, run_id):
        return None
    if run.state != RunState.OFFERED:
        return StartRun(attempt.pk) if run.state in HELD else DropRun(attempt.pk, f"the run is {run.state}")
    offered = _offered_by(worker).get(run.flow_id)
    problem = offered.problem if offered else ""
    claimed = {"claimed_at": now, **({"problem": problem} if problem else {})}
    # Whatever else happened to the run or the attempt since the offer, one of these two sees it.
    if not swap(Attempt, {"id": attempt.pk, "worker_id": worker, "revoked_at": None}, claimed):
        return None
    if not run.move(
        RunState.RUNNING,
        now=now,
        who="worker",
        why=f"not the newest code: {problem}" if problem else "",
        where={"fence": attempt.pk},
        started_at=run.started_at or now,
        attempt=attempt.number,
    ):
        return None
    attempt.claimed_at, attempt.problem = now, problem
    events.publish(events.OVERVIEW, events.run_topic(run.pk), events.flow_topic(run.flow.slug))
    return StartRun(attempt.pk)


def release(*, worker: UUID, now: datetime, why: str, fences: list[int] | None = None) -> int:
    """Take back offers that nobody claimed (all of the worker's, or those of ``fences``); no attempt is used up."""
    offered = Run.objects.filter(worker_id=worker, state=RunState.OFFERED)
    if fences is not None:
        offered = offered.filter(fence__in=fences)
    return _back(offered, now, why)


def unclaimed() -> list[int]:
    """The fences of the offers that wait for their claim; which of them wait too long says the clock."""
    fences = Run.objects.filter(state=RunState.OFFERED, fence__isnull=False).order_by().values_list("fence", flat=True)
    return [fence for fence in fences if fence is not None]


def expire(*, fences: Collection[int], now: datetime) -> int:
    """Take back these offers, which no worker claimed in time."""
    late = Run.objects.filter(state=RunState.OFFERED, fence__in=fences)
    workers = dict(late.order_by().values_list("worker_id", "worker__name"))
    return sum(
        _back(late.filter(worker_id=pk), now, f"worker {name} did not answer in time") for pk, name in workers.items()
    )


def _back(offered: QuerySet[Run], now: datetime, why: str) -> int:
    pks, fences = [], []
    for pk, fence in offered.values_list("pk", "fence"):
        pks.append(pk)
        fences.append(fence)
    moved = Run.objects.filter(pk__in=pks).move(
        RunState.PENDING, now=now, who="server", why=why, fence=None, worker_id=None
    )
    Attempt.objects.filter(pk__in=[fence for fence in fences if fence]).update(revoked_at=now)
    if moved:
        events.publish(events.WORK, events.OVERVIEW)
    return moved


def holds(
    *, workers: Collection[UUID], without: Collection[int] = (), besides: Collection[int] = ()
) -> list[tuple[UUID, HoldRun]]:
    """The orders for attempts that are to stand still, or to go on, as far as their worker does not know yet.

    ``without`` and ``besides`` as in ``reach``.
    """
    mine = within(workers, without, besides, worker="worker", fence="pk")
    rows = Attempt.objects.filter(mine, revoked_at=None, run__state__in=HELD)
    unknown = rows.filter(hold=True).exclude(hold_sent=True) | rows.filter(hold=False, hold_sent=True)
    found = list(unknown.values_list("worker_id", "pk", "hold"))
    for on in (True, False):
        Attempt.objects.filter(pk__in=[pk for _, pk, hold in found if hold is on]).update(hold_sent=on)
    return [(worker, HoldRun(pk, hold)) for worker, pk, hold in found if worker is not None]


def tell_holds_again(*, worker: UUID) -> None:
    """The worker is back: what it was told before may not have arrived."""
    told = Attempt.objects.filter(worker=worker, revoked_at=None, run__state__in=HELD, hold_sent__isnull=False)
    told.update(hold_sent=Case(When(hold=True, then=False), default=True))


def cancels(*, workers: list[UUID]) -> list[tuple[UUID, CancelRun]]:
    """The orders for these workers' runs that somebody wants ended; a worker does not mind one twice."""
    wanted = Run.objects.filter(
        state__in=HELD, worker_id__in=workers, fence__isnull=False, cancel_requested_at__isnull=False
    )
    found = list(wanted.values_list("pk", "worker_id", "fence", "cancel_requested_by"))
    reasons = cancel_reasons([pk for pk, _, _, _ in found]) if found else {}
    return [
        (worker, CancelRun(fence or 0, reasons.get(pk, f"{CANCELLED} by {who}"), CANCEL_GRACE_S))
        for pk, worker, fence, who in found
    ]
