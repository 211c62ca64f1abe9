"""Pages of runs and of log lines, by keyset: page 10,000 costs what page 1 costs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, TextField
from django.db.models.functions import Cast

from flows.models import Flow
from perfect_site.api.problems import Problem
from runs.models import Run
from runs.rules.states import RunState
from runs.services.queries import level_name, log_of, task_names

QUERY = ("state", "flow", "q", "since", "until", "tag", "parent", "cursor", "limit")
ANY = "any"
LIMIT, LOG_LIMIT = 1_000, 10_000
FLOWS_LOOKED_AT = 500
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
CLOCKS_AGREE_WITHIN = timedelta(hours=1)
SHOWN = sorted(set(RunState) - {RunState.OFFERED})


@dataclass(frozen=True)
class Wanted:
    """A filter on runs; what is empty does not restrict."""

    states: frozenset[str] = field(default_factory=frozenset)
    flow: str = ""  # its slug
    q: str = ""
    since: datetime | None = None
    until: datetime | None = None
    tag: str = ""
    parent: UUID | str = ""  # the run that called them; ``ANY``: sub-runs too; empty: none of them
    cursor: UUID | None = None
    limit: int = 50


def states_of(text: str) -> frozenset[str]:
    """``running,failed`` → the states; PENDING includes OFFERED. Raises ``Problem``."""
    names = {name.strip().upper() for name in text.split(",") if name.strip()}
    for name in sorted(names):
        if name not in SHOWN:
            raise Problem(422, f"There is no state {name[:40]!r}. Known: {', '.join(SHOWN)}.", field="state")
    return frozenset(names | ({RunState.OFFERED} if RunState.PENDING in names else set()))


def cursor_of(text: str) -> UUID | None:
    """The id of the last run of the page before. Raises ``Problem``."""
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Problem(400, "The cursor is not one that this API gave out.", field="cursor") from None


def parent_of(text: str) -> UUID | str:
    """A run's id, ``any`` or nothing. Raises ``Problem``."""
    try:
        return text if text in ("", ANY) else UUID(text)
    except ValueError:
        raise Problem(422, f"The parent is the id of a run, or {ANY!r}, not {text[:40]!r}.", field="parent") from None


def level_of(text: str) -> int:
    """A level's name or number as in ``logging``; 0 for an empty text. Raises ``Problem``."""
    level = LEVELS.get(text.upper(), int(text) if text.isdecimal() and len(text) < 4 else 0 if not text else -1)
    if level < 0:
        raise Problem(422, f"There is no level {text[:40]!r}. Known: {', '.join(LEVELS)}.", field="level")
    return level


def page(wanted: Wanted) -> tuple[list[Run], str | None]:
    """Newest first, and the cursor of the page after, if there is one."""
    others = ("root__worker",) if wanted.parent or wanted.q else ()
    rows = Run.objects.select_related("flow", "worker", *others).filter(*_conditions(wanted)).order_by("-pk")
    runs = list(rows[: wanted.limit + 1])
    more = len(runs) > wanted.limit
    runs = runs[: wanted.limit]
    return runs, str(runs[-1].pk) if more else None


def _conditions(wanted: Wanted) -> Iterable[Q]:
    if wanted.parent != ANY and not _is_id(wanted.q):
        yield Q(parent=wanted.parent or None)
    if wanted.states:
        yield Q(state__in=sorted(wanted.states))
    if wanted.flow:
        yield Q(flow__slug=wanted.flow)
    if wanted.cursor:
        yield Q(pk__lt=wanted.cursor)
    # Ids begin with their time: the bounds on the id let the index skip what is far outside.
    if wanted.since:
        yield Q(created_at__gte=wanted.since, pk__gte=_first_id(wanted.since - CLOCKS_AGREE_WITHIN))
    if wanted.until:
        yield Q(created_at__lt=wanted.until, pk__lt=_first_id(wanted.until + CLOCKS_AGREE_WITHIN))
    if wanted.tag:
        yield Q(tags__icontains=json.dumps(wanted.tag, ensure_ascii=connection.vendor == "sqlite"))
    if wanted.q:
        yield _matches(wanted.q)


def _first_id(at: datetime) -> UUID:
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def _is_id(text: str) -> bool:
    try:
        return bool(UUID(text.strip()))
    except ValueError:
        return False


def _matches(text: str) -> Q:
    text = text.strip()
    if _is_id(text):
        return Q(pk=UUID(text))
    named = Flow.objects.filter(Q(name__icontains=text) | Q(slug__icontains=text))
    found = Q(flow__in=list(named.values_list("pk", flat=True)[:FLOWS_LOOKED_AT]))  # known first: no join to scan
    if len(text) >= 4 and all(letter in "0123456789abcdefABCDEF-" for letter in text):
        found |= Q(pk__in=Run.objects.annotate(_id=Cast("id", TextField())).filter(_id__iendswith=text).values("pk"))
    return found


def log_lines(
    run: Run, *, after: int = 0, level: int = 0, q: str = "", limit: int = 1_000
) -> tuple[list[dict[str, Any]], int | None]:
    """Lines as the API shows them, in order, and the number of the last one if there may be more.

    Built from plain tuples: 10,000 model objects would take most of the time.
    """
    rows = log_of(run).filter(seq__gt=after).order_by("seq")
    if level:
        rows = rows.filter(level__gte=level)
    if q:
        rows = rows.filter(message__icontains=q)
    found = list(
        rows.annotate(_time=Cast("time", TextField())).values_list(
            "seq", "_time", "level", "attempt", "task", "message", "dropped"
        )[: limit + 1]
    )
    more = len(found) > limit
    found = found[:limit]
    names = task_names(run, {task for *_, task, _, _ in found if task is not None})
    levels = {number: level_name(number) for number in {line[2] for line in found}}
    lines = [
        {
            "seq": seq,
            "time": f"{time[:10]}T{time[11:19]}.{time[20:23] if time[19:20] == '.' else '':0<3}Z",
            "level": levels[number],
            "task": names.get((attempt, task)) if task is not None else None,
            "message": message,
            **({"dropped": dropped} if dropped else {}),
        }
        for seq, time, number, attempt, task, message, dropped in found
    ]
    return lines, (found[-1][0] if more else None)
