"""What the overview says, each part with a fixed number of queries, however long the history is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, F, OuterRef, Prefetch, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from flows.models import Flow, Schedule
from perfect_site.dashboard.presenters import FlowPresenter, Reader, RunPresenter, first_error, id_at
from perfect_site.templatetags.perfect import dur
from runs.models import Offering, Run, Worker
from runs.rules.states import HELD, SHOWN, WAITING, RunState

LAST = 20  # runs in a flow's bars
RUNNING_SHOWN = 40
WAITING_SHOWN = 10
CARDS_SHOWN = 60
DAY, WEEK = timedelta(days=1), timedelta(days=7)
WEEK_KEPT = 60.0  # seconds; counting a week of a busy server is not for every push
_week: dict[str, tuple[float, float | None]] = {}


@dataclass(frozen=True)
class Tiles:
    running: int
    waiting: int
    day: int
    good: float | None  # percent completed of the ended, 24 h
    good_week: float | None
    bad: int
    used: int
    slots: int
    workers: int


def _count_by_state(since: datetime | None, states: Sequence[str]) -> dict[str, int]:
    # The states are listed even where all are wanted: each is then a range of the index (state, id).
    rows = Run.objects.asked_for().filter(state__in=states)
    if since is not None:
        rows = rows.filter(pk__gte=id_at(since))
    return dict(rows.order_by().values_list("state").annotate(Count("pk")))


def _good(counts: dict[str, int]) -> float | None:
    ended = sum(counts.get(state, 0) for state in ("COMPLETED", "FAILED", "CRASHED"))
    return 100 * counts.get("COMPLETED", 0) / ended if ended else None


def _good_of_the_week(now: datetime) -> float | None:
    kept = _week.get("good")
    if kept is None or not 0 <= time.monotonic() - kept[0] < WEEK_KEPT:
        kept = (time.monotonic(), _good(_count_by_state(now - WEEK, ["COMPLETED", "FAILED", "CRASHED"])))
        _week["good"] = kept
    return kept[1]


def tiles(now: datetime) -> Tiles:
    live = _count_by_state(None, sorted(HELD | WAITING))
    day = _count_by_state(now - DAY, sorted(RunState))
    connected = list(Worker.objects.filter(connected=True).values_list("slots", flat=True))
    held = sum(live.get(state, 0) for state in HELD)
    return Tiles(
        running=held,
        waiting=sum(live.get(state, 0) for state in WAITING),
        day=sum(day.values()),
        good=_good(day),
        good_week=_good_of_the_week(now),
        bad=day.get("FAILED", 0) + day.get("CRASHED", 0),
        used=held + live.get(RunState.OFFERED, 0),
        slots=sum(connected),
        workers=len(connected),
    )


@dataclass(frozen=True)
class Running:
    runs: list[RunPresenter]
    count: int
    more: int


def running(now: datetime, flow: Flow | None = None) -> Running:
    """What runs (newest first), then what waits for a slot (the one whose turn it is first), then what waits for its
    time."""
    runs = Run.objects.select_related("flow", "schedule", "worker").defer("traceback", "result")
    runs = runs.filter(flow=flow) if flow is not None else runs.filter(parent=None)
    held = _in_states(runs, sorted(HELD), RUNNING_SHOWN + 1, newest=True)
    waiting = _in_states(runs, sorted(WAITING - {RunState.SCHEDULED}), WAITING_SHOWN + 1, newest=False)
    later = list(runs.filter(state=RunState.SCHEDULED).order_by("scheduled_for")[:3]) if len(waiting) < 8 else []
    total = len(held) + len(waiting) + len(later)
    if len(held) > RUNNING_SHOWN or len(waiting) > WAITING_SHOWN or len(later) == 3:
        counted = Run.objects.filter(state__in=sorted(HELD | WAITING))
        total = (counted.filter(flow=flow) if flow is not None else counted.filter(parent=None)).count()
    shown = Reader(now).shown([*held[:RUNNING_SHOWN], *waiting[:WAITING_SHOWN], *later])
    return Running(shown, total, max(0, total - len(shown)))


def _in_states(runs: QuerySet[Run], states: Sequence[str], limit: int, *, newest: bool) -> list[Run]:
    """The newest or oldest runs in these states, state by state: a planner that is given several at once may rather
    walk through a flow's whole history in order."""
    order = "-pk" if newest else "pk"
    ids: list[UUID] = []
    for state in states:
        ids += runs.filter(state=state).order_by(order).values_list("pk", flat=True)[:limit]
    ids.sort(reverse=newest)
    return list(runs.filter(pk__in=ids[:limit]).order_by(order)) if ids else []


def _last_runs(flows: Sequence[Flow]) -> dict[int, list[dict[str, Any]]]:
    """The last runs of each flow, oldest first, in one query that reads only them."""
    oldest = Run.objects.filter(flow=OuterRef("pk")).order_by("-pk").values("pk")[LAST - 1 : LAST]
    rows = (
        Flow.objects.filter(pk__in=[flow.pk for flow in flows])
        .annotate(oldest=Coalesce(Subquery(oldest), Value(UUID(int=0), output_field=Run._meta.pk)))
        .filter(runs__pk__gte=F("oldest"))
        .order_by()
        .values_list(
            "pk", "runs__pk", "runs__state", "runs__started_at", "runs__finished_at", "runs__error", "runs__parent_id"
        )
    )
    found: dict[int, list[dict[str, Any]]] = {flow.pk: [] for flow in flows}
    for flow_id, pk, state, started, finished, error, parent in rows:
        seconds = (finished - started).total_seconds() if started and finished else None
        found[flow_id].append(
            {
                "id": pk,
                "state": str(state),
                "seconds": seconds,
                "finished_at": finished,
                "error": first_error(error),
                "called": parent is not None,
                "word": SHOWN[state][1],
                "took": dur(seconds) or "not ended" if finished is None else dur(seconds) or "–",
            }
        )
    for last in found.values():
        last.sort(key=lambda row: row["id"])
    return found


def library(flows: Sequence[Flow]) -> list[FlowPresenter]:
    """The flows (with ``tasks`` and ``schedules`` prefetched) and what their last runs say."""
    last, offers = _last_runs(flows), _offers_of(flows)
    return [FlowPresenter(flow, last[flow.pk], *_next_of(flow), offers[flow.pk]) for flow in flows]


def _offers_of(flows: Sequence[Flow]) -> dict[int, list[Offering]]:
    """Who offers each flow, the connected workers first."""
    found: dict[int, list[Offering]] = {flow.pk: [] for flow in flows}
    rows = Offering.objects.filter(flow__in=flows).select_related("worker").defer("worker__problems", "worker__pools")
    for row in rows.order_by("-worker__connected", "worker__name", "pk"):
        found[row.flow_id].append(row)
    return found


def _next_of(flow: Flow) -> tuple[datetime | None, str]:
    if (flow.archived or flow.resting_since is not None) and flow.schedules.all():
        return None, "rests"
    coming = [row for row in flow.schedules.all() if row.paused_at is None and row.next_at is not None]
    first = min(coming, key=lambda row: row.next_at or datetime.max, default=None)
    if first is not None:
        return first.next_at, first.words
    return None, "paused" if any(row.paused_at for row in flow.schedules.all()) else ""


def flows_of_the_library() -> list[Flow]:
    return list(Flow.objects.filter(archived=False).prefetch_related("tasks", "schedules")[: CARDS_SHOWN + 1])


def coming(count: int = 6) -> list[Schedule]:
    """The schedules that fire next."""
    return list(Schedule.objects.firing().select_related("flow").order_by("next_at")[:count])


@dataclass(frozen=True)
class WorkerShown:
    worker: Worker
    used: int
    offers: list[Offering]
    silent: timedelta | None

    @property
    def state(self) -> str:
        return "COMPLETED" if self.silent is None else "LOST" if self.used else "CANCELLED"

    @property
    def drains(self) -> str:
        """What its processes that take no new run wait for; empty without one."""
        count = self.worker.draining_runs
        return f"draining, {count} run{'' if count == 1 else 's'}" if self.worker.draining else ""

    @property
    def word(self) -> str:
        if self.silent is None:
            return "connected" if self.worker.takes_runs else self.drains
        return "no contact" if self.used or self.worker.connected else "gone"

    @property
    def can_go(self) -> bool:
        """Whether it may be forgotten."""
        return self.silent is not None and not self.used

    @property
    def remarks(self) -> list[Offering]:
        """The flows of which there is more to say than that runs start by a fork."""
        return [offer for offer in self.offers if offer.problem or offer.start_reason or offer.notes]


def _used(worker: Worker, held: int) -> int:
    """Slots in use of the process that the row describes: its own, beside what an older process still holds."""
    return max(0, held - worker.draining_runs) if worker.takes_runs else held


def workers(now: datetime, *, everyone: bool = False) -> list[WorkerShown]:
    """The workers that are here or were here in the last day (``everyone``: all that are known)."""
    rows = Worker.objects.known() if everyone else Worker.objects.known().filter(last_seen_at__gte=now - DAY)
    offers = Offering.objects.filter(flow__archived=False).select_related("flow").order_by("flow__name")
    found = list(
        rows.prefetch_related(Prefetch("offerings", offers)).order_by("-connected", "name")[: 200 if everyone else 12]
    )
    used = dict(
        Run.objects.filter(worker__in=found, state__in=sorted({*HELD, RunState.OFFERED}))
        .order_by()
        .values_list("worker")
        .annotate(Count("pk"))
    )
    return [
        WorkerShown(worker, _used(worker, used.get(worker.pk, 0)), list(worker.offerings.all()), worker.silent_for(now))
        for worker in found
    ]
