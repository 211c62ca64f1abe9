"""Which worker offers which flow, and so which flows rest; and how a worker is forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from perfect_client.wire.messages import FlowSpec, clean_text

from flows import versions
from flows.models import Flow
from flows.parameters import Conflict, Missing
from runs import events
from runs.models import Offering, Run, Worker, WorkerQuerySet
from runs.rules.states import HELD, RunState

# A worker that is gone for so long is forgotten, without anybody's word; one that never had a run much sooner, since
# each new identity makes a row.
GONE_FOR = timedelta(days=30)
UNUSED_FOR = timedelta(days=7)
FORGOTTEN_AT_ONCE = 100
MOST_WORKERS = 5_000  # that one token may have made
SAID = ("version_id", "start", "start_reason", "problem", "notes")
NOTES_KEPT = 20
FORGOTTEN: dict[str, Any] = {
    "connected": False,
    "token": None,
    "host": "",
    "pid": 0,
    "python": "",
    "sdk": "",
    "pools": [],
    "problems": [],
}
OCCUPYING = sorted({*HELD, RunState.OFFERED})


def replace(*, worker: Worker, offers: Sequence[tuple[Flow, FlowSpec]], now: datetime) -> None:
    """The worker offers these flows, and no others; with a fixed number of queries.

    What it says of them may change although their fingerprints do not.
    """
    before = {row.flow_id: row for row in Offering.objects.filter(worker=worker)}
    seen = versions.known_of([flow for flow, _ in offers], [spec for _, spec in offers])
    new, changed = [], []
    for flow, spec in offers:
        version = seen.get((flow.pk, versions.fingerprint_of(spec)))
        said = {"version_id": version.pk if version else None, **_said(spec)}
        row = before.pop(flow.pk, None)
        if row is None:
            new.append(Offering(worker=worker, flow=flow, **said))
        elif any(getattr(row, name) != value for name, value in said.items()):
            changed.append(Offering(pk=row.pk, worker=worker, flow=flow, **said))
    Offering.objects.bulk_create(new)
    Offering.objects.bulk_update(changed, ("version", *SAID[1:]), batch_size=500)
    _wake([flow for flow, _ in offers if flow.resting_since is not None])
    _withdraw(Offering.objects.filter(pk__in=[row.pk for row in before.values()]), now)


def _said(spec: FlowSpec) -> dict[str, Any]:
    return {
        "start": spec.start[:20],
        "start_reason": clean_text(spec.start_reason, 2_000),
        "problem": clean_text(spec.problem, 2_000),
        "notes": [clean_text(note, 2_000) for note in spec.notes[:NOTES_KEPT]],
    }


def _wake(flows: Sequence[Flow]) -> None:
    """The schedules of these flows go on: what was due meanwhile is caught up as each of them says."""
    for flow in flows:
        flow.resting_since = None
    Flow.objects.filter(pk__in=[flow.pk for flow in flows]).update(resting_since=None)


def _withdraw(rows: Any, now: datetime) -> None:
    """Delete these offerings; the flows that nobody offers then come to rest."""
    found = list(rows.values_list("pk", "flow_id", "flow__slug"))
    if not found:
        return
    Offering.objects.filter(pk__in=[pk for pk, _, _ in found]).delete()
    flows = Flow.objects.filter(pk__in=[flow for _, flow, _ in found], resting_since=None)
    flows.filter(~Exists(Offering.objects.filter(flow=OuterRef("pk")))).update(resting_since=now)
    events.publish(events.OVERVIEW, events.SCHEDULES, *[events.flow_topic(slug) for _, _, slug in found])


def topics_of(worker: UUID) -> Collection[str]:
    """The topics of the flows that it offers: their pages say whether it is there."""
    return [
        events.flow_topic(slug) for slug in Offering.objects.filter(worker=worker).values_list("flow__slug", flat=True)
    ]


@transaction.atomic
def forget_worker(*, worker_id: UUID, now: datetime, who: str) -> Worker:
    """Let a worker go that does not come back: it offers nothing any more, and no list shows it. The history of its
    runs keeps its name. Should it come back after all, it is known again.

    Raises ``Missing``, and ``Conflict`` while it is connected or has runs that have not ended.
    """
    worker = Worker.objects.known().filter(pk=worker_id).first()
    if worker is None:
        raise Missing("worker", f"there is no worker {worker_id}")
    if worker.connected and not worker.silent_for(now):
        raise Conflict("connected", f"worker {worker.name} is connected; stop it, then forget it")
    left = Run.objects.filter(worker=worker, state__in=OCCUPYING).count()
    if left:
        raise Conflict("runs", f"worker {worker.name} has {_runs(left)} that may go on there; give up or wait first")
    forgotten = Worker.objects.filter(pk=worker.pk, joined_at=worker.joined_at).update(
        forgotten_at=now, left_reason=clean_text(f"forgotten by {who}", 500), **FORGOTTEN
    )
    if not forgotten:
        raise Conflict("connected", f"worker {worker.name} has just come back")
    _withdraw(worker.offerings.all(), now)
    events.publish(events.WORKERS, events.OVERVIEW)
    return worker


def forget_gone(*, now: datetime) -> int:
    """Forget workers that are long gone, at most ``FORGOTTEN_AT_ONCE``; returns how many."""
    old = Q(last_seen_at__lt=now - GONE_FOR) | Q(last_seen_at__lt=now - UNUSED_FOR, attempts=None)
    return _let_go(_gone().filter(old)[:FORGOTTEN_AT_ONCE], now)


def make_room(*, token: int, now: datetime) -> bool:
    """Whether the token may make one more worker; the one that is gone for longest is forgotten for it if need be."""
    known = Worker.objects.known().filter(token=token)
    return known.count() < MOST_WORKERS or _let_go(_gone().filter(token=token)[:1], now) > 0


def _gone() -> WorkerQuerySet:
    """Those that are not connected and have nothing to come back to, the ones that are gone for longest first."""
    busy = Run.objects.filter(worker=OuterRef("pk"), state__in=OCCUPYING)
    return Worker.objects.known().filter(~Exists(busy), connected=False, draining={}).order_by("last_seen_at")


def _let_go(workers: WorkerQuerySet, now: datetime) -> int:
    ids = list(workers.values_list("pk", flat=True))
    if not ids:
        return 0
    _withdraw(Offering.objects.filter(worker__in=ids), now)
    rows = Worker.objects.filter(pk__in=ids, connected=False)
    rows.filter(runs=None, attempts=None).delete()
    rows.update(forgotten_at=now, left_reason="gone for long", **FORGOTTEN)
    events.publish(events.WORKERS, events.OVERVIEW)
    return len(ids)


def _runs(count: int) -> str:
    return "a run" if count == 1 else f"{count:,} runs"
