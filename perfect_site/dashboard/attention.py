"""What wants a person, in a fixed number of queries: what went wrong last, whom nobody hears, what cannot start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef

from flows.models import Flow, Schedule
from perfect_site.dashboard.presenters import FlowPresenter, first_error
from runs.models import Offering, Run, Worker
from runs.rules.states import HELD
from runs.services import retention

SHOWN = 8
FAILED_FIRST = 4  # failed flows that stand before the other troubles, so that these are seen too
NAMED = 3  # flows in a sentence
LOOKED_AT = 200
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Trouble:
    """``word`` stands for the state's own where that would mislead."""

    state: str
    title: str
    url: str
    text: str
    at: datetime | None = None
    word: str = ""


def troubles(now: datetime, cards: Sequence[FlowPresenter]) -> list[Trouble]:
    """Flows whose last run went wrong, silent workers, flows that cannot start or run old code, files that do not
    load, dead schedules, history that is kept although it is over."""
    failed = [
        Trouble(bad["state"], card.flow.name, f"/runs/{bad['id']}/", bad["error"], bad["finished_at"])
        for card in cards
        if (bad := card.trouble)
    ]
    failed.sort(key=lambda trouble: trouble.at or now, reverse=True)
    others = [*_silent_workers(now), *_absent_flows(), *_old_code(), *_files(now), *_schedules(), *_history()]
    return [*failed[:FAILED_FIRST], *others, *failed[FAILED_FIRST:]]


def _silent_workers(now: datetime) -> Iterable[Trouble]:
    recent = Worker.objects.known().filter(last_seen_at__gte=now - WEEK)[:LOOKED_AT]
    busy = set(Run.objects.filter(state__in=sorted(HELD), worker__isnull=False).values_list("worker_id", flat=True))
    for worker in recent:
        if worker.silent_for(now) is not None and (worker.connected or worker.pk in busy):
            text = "no contact; its work may well go on"
            yield Trouble("LOST", f"worker {worker.name}", "/workers/", text, worker.last_seen_at)


def _absent_flows() -> Iterable[Trouble]:
    """Flows that would wait if somebody ran them now."""
    here = Offering.objects.filter(flow=OuterRef("pk"), worker__connected=True)
    rows = Flow.objects.filter(~Exists(here), archived=False).only("name", "slug", "resting_since")
    found = list(rows.order_by("name")[: LOOKED_AT + 1])
    for gone, text in ((True, "no worker has {it} any more"), (False, "no connected worker has {it}")):
        flows = [flow for flow in found if (flow.resting_since is not None) == gone]
        if flows:
            yield _of_flows(flows, "LOST", "No worker", text.format(it="it" if len(flows) == 1 else "them"))


def _old_code() -> Iterable[Trouble]:
    """By the problem: one file that does not import holds back all of its flows."""
    rows = Offering.objects.filter(worker__connected=True, flow__archived=False).exclude(problem="")
    flows: dict[str, dict[int, Flow]] = {}
    for row in rows.select_related("flow").order_by("flow__name")[:LOOKED_AT]:
        flows.setdefault(row.problem, {})[row.flow_id] = row.flow
    for problem, found in flows.items():
        yield _of_flows(list(found.values()), "FAILED", "Old code", first_error(problem))


def _of_flows(flows: Sequence[Flow], state: str, word: str, text: str) -> Trouble:
    if len(flows) == 1:
        return Trouble(state, flows[0].name, flows[0].get_absolute_url(), text, word=word)
    count = f"{len(flows)} flows" if len(flows) <= LOOKED_AT else f"more than {LOOKED_AT} flows"
    names = ", ".join(flow.name for flow in flows[:NAMED]) + (", …" if len(flows) > NAMED else "")
    return Trouble(state, count, "/flows/", f"{text}: {names}", word=word)


def _files(now: datetime) -> Iterable[Trouble]:
    """What its worker says of files that do not load, unless it says so of the flows in them."""
    told = Offering.objects.filter(worker__connected=True).exclude(problem="").values_list("worker_id", "problem")
    said = list(told[:LOOKED_AT])
    for worker in Worker.objects.filter(connected=True).exclude(problems=[])[:LOOKED_AT]:
        mine = [problem for pk, problem in said if pk == worker.pk]
        left = [text for text in worker.problems if not any(problem.startswith(text) for problem in mine)]
        if left:
            more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
            yield Trouble("FAILED", f"worker {worker.name}", "/workers/", first_error(left[0]) + more)


def _schedules() -> Iterable[Trouble]:
    for schedule in Schedule.objects.filter(flow__archived=False).exclude(problem="").select_related("flow")[:5]:
        title, url = f"schedule of {schedule.flow.name}", f"/schedules/{schedule.pk}/"
        yield Trouble("FAILED", title, url, schedule.problem)


def _history() -> Iterable[Trouble]:
    """As the clock of this process found it."""
    if retention.held_back:
        yield Trouble("LOST", "History is kept although it is over", "/runs/", retention.held_back, word="Clock?")
