"""JSON of flows, schedules and workers as the API shows them; runs and their parts are ``runs.services.queries``'."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count

from flows.models import Flow, Schedule
from flows.parameters import masked, masked_schema
from runs.models import Limit, Offering, Run, Variable, Worker
from runs.rules.states import HELD, RunState
from runs.services.limits import held_of
from runs.services.queries import iso

OCCUPYING = sorted({*HELD, RunState.OFFERED})


def flow_json(flow: Flow) -> dict[str, Any]:
    return {
        "slug": flow.slug,
        "name": flow.name,
        "description": flow.description,
        "tags": flow.tags,
        "configurations": flow.configuration_names,
        "archived": flow.archived,
        "archived_by": flow.archived_by,
        "archived_at": iso(flow.archived_at),
        "resting_since": iso(flow.resting_since),
        "updated_at": iso(flow.updated_at),
        "url": flow.get_absolute_url(),
    }


def flow_detail_json(flow: Flow) -> dict[str, Any]:
    """With its parameters' schema, its plan, its schedules, its workers and what changed: four more queries."""
    offers = list(flow.offerings.select_related("worker").order_by("-worker__connected", "worker__name"))
    return {
        **flow_json(flow),
        "parameters": masked_schema(flow),
        "configurations": {name: masked(flow, values) for name, values in flow.configurations.items()},
        "file": flow.file,
        "line": flow.line,
        "tasks": [
            {
                "key": task.key,
                "name": task.name,
                "index": task.position,
                "weight": task.weight,
                "estimated_ms": task.estimated_ms,
                "in_loop": task.in_loop,
                "description": task.description,
            }
            for task in flow.tasks.all()
        ],
        "schedules": [schedule_json(schedule) for schedule in flow.schedules.select_related("flow")],
        "workers": [row.worker.name for row in offers if row.worker.connected],
        "offers": [
            {"worker": row.worker.name, "worker_id": str(row.worker_id), "connected": row.worker.connected, **said(row)}
            for row in offers
        ],
        "changes": [{"time": iso(row.time), "who": row.who, "what": row.what} for row in flow.changes.all()[:10]],
    }


def said(row: Offering) -> dict[str, Any]:
    """What a worker says of a flow's code: how its runs start and why so, why its newest code is not used, remarks."""
    return {"start": row.start, "start_reason": row.start_reason, "problem": row.problem, "notes": row.notes}


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
        "rests": row.rests,
        "next_at": iso(row.next_at),
        "last_at": iso(row.last_at),
        "problem": row.problem,
    }


def taken_slots() -> dict[UUID, int]:
    """How many slots are in use, by worker."""
    rows = Run.objects.filter(state__in=OCCUPYING, worker__isnull=False).order_by()
    return dict(rows.values_list("worker_id").annotate(count=Count("pk")))


def worker_json(worker: Worker, taken: int, now: datetime) -> dict[str, Any]:
    """With ``offerings__flow`` prefetched."""
    silent, offers = worker.silent_for(now), sorted(worker.offerings.all(), key=lambda row: row.flow.name)
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
        "flows": [row.flow.slug for row in offers],
        "offers": [{"flow": row.flow.slug, **said(row)} for row in offers],
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
