"""JSON of flows, schedules and workers as the API shows them; runs and their parts are ``runs.queries``'."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count

from flows.models import Flow, Schedule
from flows.parameters import masked, masked_schema
from runs.models import Limit, Run, Variable, Worker
from runs.queries import iso
from runs.sharing import held_of
from runs.states import HELD, RunState

OCCUPYING = sorted({*HELD, RunState.OFFERED})


def flow_json(flow: Flow) -> dict[str, Any]:
    return {
        "slug": flow.slug,
        "name": flow.name,
        "description": flow.description,
        "tags": flow.tags,
        "configurations": flow.configuration_names,
        "archived": flow.archived,
        "updated_at": iso(flow.updated_at),
        "url": f"/flows/{flow.slug}/",
    }


def flow_detail_json(flow: Flow) -> dict[str, Any]:
    """With its parameters' schema, its plan and its schedules: three more queries."""
    return {
        **flow_json(flow),
        "parameters": masked_schema(flow),
        "configurations": {name: masked(flow, values) for name, values in flow.configurations.items()},
        "file": flow.file,
        "line": flow.line,
        "tasks": [
            {
                "key": task.key, "name": task.name, "index": task.position, "weight": task.weight,
                "estimated_ms": task.estimated_ms, "in_loop": task.in_loop, "description": task.description,
            }
            for task in flow.tasks.all()
        ],
        "schedules": [schedule_json(schedule) for schedule in flow.schedules.select_related("flow")],
        "workers": [worker.name for worker in flow.workers.filter(connected=True)],
    }  # fmt: skip


def schedule_json(row: Schedule) -> dict[str, Any]:
    return {
        "id": row.pk,
        "flow": row.flow.slug,
        "name": row.name,
        "kind": row.kind,
        "expression": row.expression,
        "timezone": row.timezone,
        "words": row.words,
        "parameters": masked(row.flow, row.parameters),
        "configuration": row.configuration,
        "catch_up": row.catch_up,
        "overlap": row.overlap,
        "source": row.source,
        "edited_by": row.edited_by,
        "paused": row.paused_at is not None,
        "paused_by": row.paused_by,
        "paused_at": iso(row.paused_at),
        "next_at": iso(row.next_at),
        "last_at": iso(row.last_at),
        "problem": row.problem,
    }


def taken_slots() -> dict[UUID, int]:
    """How many slots are in use, by worker."""
    rows = Run.objects.filter(state__in=OCCUPYING, worker__isnull=False).order_by()
    return dict(rows.values_list("worker_id").annotate(count=Count("pk")))


def worker_json(worker: Worker, taken: int, now: datetime) -> dict[str, Any]:
    silent = worker.silent_for(now)
    return {
        "id": str(worker.pk),
        "name": worker.name,
        "connected": worker.connected,
        "draining": worker.draining_runs if worker.draining else None,
        "host": worker.host,
        "pid": worker.pid,
        "python": worker.python,
        "sdk": worker.sdk,
        "slots": worker.slots,
        "free": max(0, worker.slots - taken),
        "pools": worker.pools,
        "problems": worker.problems,
        "joined_at": iso(worker.joined_at),
        "last_seen_at": iso(worker.last_seen_at),
        "silent_seconds": round(silent.total_seconds(), 1) if silent else None,
        "left_reason": worker.left_reason,
        "flows": [flow.slug for flow in worker.flows.all()],
    }


def limit_json(row: Limit, now: datetime) -> dict[str, Any]:
    return {
        "name": row.name,
        "slots": row.slots,
        "taken": held_of(row),
        "per_second": row.per_second,
        "taken_by_rate": round(row.taken_by_rate(now), 3),
    }


def variable_json(row: Variable) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": row.value,
        "tags": row.tags,
        "changed_at": iso(row.changed_at),
        "changed_by": row.changed_by,
    }
