"""Calls of flows inside a run that goes on: how far along each is now. Without such a call it costs nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from runs.models import Run, TaskRun
from runs.rules.states import TaskState
from runs.services import history

LOOKED_INTO = 50  # sub-runs at once; of more, each counts as it stood at its last report


def rows_with_live_subruns(run: Run, rows: Iterable[Any], now: datetime) -> list[Any]:
    """The task runs of ``run``, each call of a flow with the progress of its own run at ``now`` as its share."""
    rows = list(rows)
    if not any(_is_open(row) for row in rows):
        return rows
    return _with(_shares(run.owner_id, now), rows)


def _is_open(row: Any) -> bool:
    return row.subrun is not None and row.state == TaskState.RUNNING


def _with(shares: dict[UUID, float], rows: Sequence[Any]) -> list[Any]:
    return [_moved(row, shares[row.subrun]) if _is_open(row) and row.subrun in shares else row for row in rows]


def _moved(row: Any, share: float) -> Any:
    share = max(share, row.share or 0.0)
    if not isinstance(row, TaskRun):
        return row._replace(share=share)
    row.share = share
    return row


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
        if inside:  # without tasks it says nothing: the time that its call usually takes says more
            shares[sub.pk] = history.progress_of(sub, inside, now) / 100
    return shares
