"""What each topic sends: numbers for what moves, fragments for what changed shape, lines for the log.

A drawing is made once for all who watch, so nothing in it is anybody's own: no token, no permission, no local time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.template.loader import render_to_string
from django.utils import timezone

from flows.models import Flow
from perfect_site.dashboard import artifact_presenters, attention, logs, overview
from perfect_site.dashboard.flow_views import history_of, schedules_shown
from perfect_site.dashboard.presenters import Reader, RunPresenter
from perfect_site.dashboard.run_views import PARTS, hero_of, page_rows, pause_of, timeline_of
from runs.models import Run
from runs.rules.states import HELD

LINES_AT_ONCE = 500
LINES_BEHIND = 2_000  # a page that misses more gets the last ones, and says how many it skipped
REDRAWN_EVERY = 2.0  # seconds: the timeline of a running run, whose bars grow
REDRAWN_TASKS = 60
WALL_EVERY = 1.0  # seconds: the artifacts of a running run

Message = dict[str, Any]


@dataclass(frozen=True)
class Rendering:
    """Messages by key (the last one of a key counts), or lines; ``memory`` comes back with the next call."""

    messages: list[tuple[str, Message]] = field(default_factory=list)
    memory: Any = None
    moving: bool = False
    lines: list[list[Any]] | None = None
    run: str = ""
    more: bool = False
    version: int | None = None  # what everybody has now, where a topic counts its changes


def html(target: str, template: str, context: dict[str, Any]) -> tuple[str, Message]:
    """A fragment, and the element whose place it takes."""
    return target, {"t": "html", "target": target, "html": render_to_string(template, context).strip()}


def numbers(shown: RunPresenter) -> tuple[str, Message]:
    return f"p:{shown.run.pk}", shown.numbers()


def _overview(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    running = overview.running(now)
    shape = tuple(shown.shape for shown in running.runs)
    known, cards = memory or (None, {})
    messages = []
    if shape != known:
        messages.append(html("#running", "runs/_running.html", {"running": running}))
    if whole or shape != known:
        cold, cards = _cold_overview(now, cards)
        messages += cold
    messages += [numbers(shown) for shown in running.runs if shown.is_held]  # after the fragments: newer than they
    return Rendering(messages, (shape, cards), any(shown.is_held for shown in running.runs))


def _cold_overview(now: datetime, known: dict[int, object]) -> tuple[list[tuple[str, Message]], dict[int, object]]:
    """The other parts, and the cards that look different from what is ``known`` of them."""
    cards = overview.library(overview.flows_of_the_library())
    parts: dict[str, dict[str, Any]] = {
        name: read(now) for name, read in PARTS.items() if name not in {"running", "attention"}
    }
    parts["attention"] = {"troubles": attention.troubles(now, cards)[: attention.SHOWN]}
    drawn = [html(f"#{name}", f"runs/_{name}.html", context) for name, context in parts.items()]
    drawn += [
        html(f"#bars-{card.flow.pk}", "flows/_bars.html", {"card": card})
        for card in cards
        if card.shape != known.get(card.flow.pk)
    ]
    return drawn, {card.flow.pk: card.shape for card in cards}


def _runs(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    """The history: numbers of what runs; when a run came, went or moved, the page asks for its own list again."""
    rows = Run.objects.asked_for().select_related("flow", "schedule")
    shown = Reader(now).shown(rows.filter(state__in=sorted(HELD))[: overview.RUNNING_SHOWN])
    newest = Run.objects.order_by("-pk").values_list("pk", flat=True).first()
    shape = (newest, tuple((one.run.pk, one.run.state) for one in shown))
    changed = [("changed", {"t": "changed", "topic": "runs", "n": str(hash(shape))})] if memory != shape else []
    return Rendering([*map(numbers, shown), *(changed if memory is not None else [])], shape, bool(shown))


def _flow(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    flow = Flow.objects.prefetch_related("tasks", "schedules").filter(slug=match["slug"]).first()
    if flow is None:
        return Rendering()
    running = overview.running(now, flow)
    shape = tuple(shown.shape for shown in running.runs)
    messages = []
    if whole or shape != memory:
        context = history_of(flow, now)
        messages += [html(f"#flow-{part}", f"flows/_{part}.html", context) for part in ("history", "notices", "offers")]
    messages += [numbers(shown) for shown in running.runs if shown.is_held]
    return Rendering(messages, shape, any(shown.is_held for shown in running.runs))


def _run(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    run = page_rows().filter(pk=UUID(match["run"])).first()
    if run is None:
        return Rendering()
    shown = Reader(now).shown([run])[0]
    shape, drawn_at, hung, hung_at = memory or (None, 0.0, 0, 0.0)
    messages = []
    known = memory is None and run.version <= since  # the page was made from this very version
    changed = shown.shape != shape and not known
    missed = whole and since < run.version and not shown.is_held
    grown = shown.is_held and len(shown.tasks) <= REDRAWN_TASKS and time.monotonic() - drawn_at >= REDRAWN_EVERY
    if changed or missed:
        messages.append(html("#run-hero", "runs/_hero.html", hero_of(shown)))
        messages.append(html("#run-pause", "runs/_pause.html", pause_of(run)))
    if changed or grown:
        messages.append(html("#run-timeline", "runs/_timeline.html", timeline_of(shown)))
        drawn_at = time.monotonic()
    hung = run.artifact_writes if known else hung
    due = not shown.is_held or time.monotonic() - hung_at >= WALL_EVERY
    if run.artifact_writes and ((run.artifact_writes != hung and due) or missed):
        messages.append(
            html("#run-artifacts", "runs/_artifacts.html", {"run": run, "wall": artifact_presenters.panel_of(run)})
        )
        hung, hung_at = run.artifact_writes, time.monotonic()
    messages.append(numbers(shown))
    return Rendering(messages, (shown.shape, drawn_at, hung, hung_at), shown.is_held, version=run.version)


def _log(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    run = Run.objects.only("pk", "root", "log_count", "state", "fence").filter(pk=UUID(match["run"])).first()
    if run is None:
        return Rendering(lines=[], run=match["run"])
    unfinished = html("#log-open", "runs/_log_open.html", {"unfinished": logs.unfinished(run)})
    last = logs.last_of(run)
    if last <= since:
        return Rendering([unfinished], lines=[], run=match["run"])
    start = last - LINES_AT_ONCE if last - since > LINES_BEHIND else since
    lines = [line.as_row() for line in logs.since(run, start, LINES_AT_ONCE)]
    return Rendering([unfinished], lines=lines, run=match["run"], more=bool(lines) and lines[-1][0] < last)


def _workers(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    context = {"workers": overview.workers(now, everyone=True)}
    return Rendering([html("#worker-rows", "runs/_worker_rows.html", context)])


def _schedules(match: re.Match[str], memory: Any, whole: bool, since: int, now: datetime) -> Rendering:
    return Rendering([html("#schedule-rows", "flows/_schedules.html", {"schedules": schedules_shown(now)})])


Draw = Callable[[re.Match[str], Any, bool, int, datetime], Rendering]
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TOPICS: list[tuple[re.Pattern[str], str, Draw]] = [  # what it is called, who may watch, who draws
    (re.compile("overview"), "runs.view_run", _overview),
    (re.compile("runs"), "runs.view_run", _runs),
    (re.compile(r"flow:(?P<slug>[^/?#\s\0]{1,200})"), "flows.view_flow", _flow),
    (re.compile(rf"run:(?P<run>{_UUID})"), "runs.view_run", _run),
    (re.compile(rf"run:(?P<run>{_UUID}):log"), "runs.view_run", _log),
    (re.compile("workers"), "runs.view_worker", _workers),
    (re.compile("schedules"), "flows.view_schedule", _schedules),
]


def permission_of(name: str) -> str | None:
    """What it takes to watch a topic; None if there is no such topic."""
    return next((permission for pattern, permission, _ in TOPICS if pattern.fullmatch(name)), None)


def is_known(name: str) -> bool:
    return permission_of(name) is not None


def render(name: str, memory: Any, *, whole: bool, since: int) -> Rendering:
    """The topic as it is now, for a reader's thread."""
    pattern, _, drawn = next(topic for topic in TOPICS if topic[0].fullmatch(name))
    match = pattern.fullmatch(name)
    assert match is not None
    return drawn(match, memory, whole, since, timezone.now())
