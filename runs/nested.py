"""Calls of flows inside a run that goes on: how far along each is now. Without such a call it costs nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from runs import history
from runs.models import Run, TaskRun
from runs.states import TaskState

LOOKED_INTO = 50  # sub-runs at once; of more, each counts as it stood at its last report


def live_rows(run: Run, rows: Iterable[Any], now: datetime) -> list[Any]:
    """The task runs of ``run``, each call of a flow with the progress of its own run at ``now`` as its share."""
    rows = list(rows)
    if not any(_is_open(row) for row in rows):
        return rows
    return _with(_shares(run.owner_id, now), rows)


def _is_open(row: Any) -> bool:
    return row.subrun is not None and row.state == TaskState.RUNNING


def _with(shares: dict[UUID, float], rows: Sequence[Any]) -> list[Any]:
    found = []
    for row in rows:
        share = max(row.share or 0.0, shares.get(row.subrun, 0.0)) if _is_open(row) else 0.0
        if not share:
            found.append(row)
        elif isinstance(row, TaskRun):
            row.share = share
            found.append(row)
        else:
            found.append(row._replace(share=share))
    return found


def _shares(root: UUID, now: datetime) -> dict[UUID, float]:
    """0–1 of each run that goes on below ``root``."""
    subs = list(Run.objects.held().select_related("flow").filter(root_id=root).order_by("pk")[: LOOKED_INTO + 1])
    if len(subs) > LOOKED_INTO:
        return {}
    rows: dict[UUID, list[Any]] = defaultdict(list)
    found = TaskRun.objects.filter(run__in=subs, parent=None).order_by("position", "pk")
    for row in found.values_list("run_id", *history.MOVING, named=True):
        rows[row.run_id].append(row)
    shares: dict[UUID, float] = {}
    for sub in reversed(subs):  # ids are made in order: the called before their callers
        inside = _with(shares, rows[sub.pk])
        shares[sub.pk] = (history.shown(sub, inside, now) if inside else sub.progress) / 100
    return shares
