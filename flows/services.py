"""Deeds about flows: register what their code says; archive a flow; pause and resume a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from perfect_client.wire.messages import MAX_NAME, FlowSpec, ScheduleSpec, clean_text

from flows import addresses, schedules, versions
from flows.models import Flow, Schedule, Task
from flows.parameters import Conflict, Missing
from flows.signals import flow_changed
from flows.statements import find

ANNOUNCED = (
    "description",
    "tags",
    "parameters",
    "configurations",
    "file",
    "line",
    "fingerprint",
    "archived",
    "updated_at",
)


def flow_called(*, name: str, now: datetime) -> Flow:
    """The flow of this name, for a run that was called inside another. One that no worker has announced, such as a flow
    that is defined inside a function, gets a row outside the library. Raises ``ValueError`` for a name that is none."""
    name = clean_text(name.strip(), MAX_NAME)
    if not name:
        raise ValueError("a flow must have a name")
    flow = find(Flow, name=name)
    if flow is None:
        flow = addresses.insert(Flow(name=name, archived=True, created_at=now, updated_at=now))
    return flow


def register(flow: Flow, spec: FlowSpec, now: datetime, who: str, why: str = "") -> None:
    """Make the flow's rows say what its code says. What a person archived stays archived, whatever the code says."""
    fingerprint = versions.fingerprint_of(spec)
    if flow.fingerprint == fingerprint and not flow.is_codeless:
        return
    spec = versions.without_secrets(spec)
    if flow.fingerprint:
        versions.note_change(flow, spec, who, now, why)
    flow.description = clean_text(spec.description)
    flow.tags = [tag[:MAX_NAME] for tag in spec.tags]
    flow.parameters, flow.configurations = spec.parameters, spec.configurations
    flow.file, flow.line = spec.file[:1000], max(0, spec.line)
    flow.archived = flow.archived and not flow.is_codeless
    flow.fingerprint, flow.updated_at = fingerprint, now
    flow.save(update_fields=ANNOUNCED)
    _register_tasks(flow, spec)
    _register_schedules(flow, spec.schedules, now)


def _register_tasks(flow: Flow, spec: FlowSpec) -> None:
    flow.tasks.all().delete()
    first = {task.key: task for task in reversed(spec.tasks)}
    Task.objects.bulk_create(
        [
            Task(
                flow=flow,
                key=task.key[:MAX_NAME],
                name=task.name[:MAX_NAME],
                position=position,
                weight=task.weight,
                estimated_ms=task.estimated_ms,
                in_loop=task.in_loop,
                description=clean_text(task.description),
            )
            for position, task in enumerate(t for t in spec.tasks if first[t.key] is t)
        ]
    )


def _register_schedules(flow: Flow, specs: Sequence[ScheduleSpec], now: datetime) -> None:
    """Code updates what code declared; what a person changed in the console wins."""
    declared = {spec.name: spec for spec in specs}
    of_code = flow.schedules.filter(source=Schedule.Source.CODE, edited_by="")
    of_code.exclude(name__in=declared).delete()
    for name, spec in declared.items():
        row = flow.schedules.filter(name=name).first() or Schedule(flow=flow, name=name, source=Schedule.Source.CODE)
        if row.pk and (row.edited_by or row.source != Schedule.Source.CODE):
            continue
        before = (row.kind, row.expression, row.timezone)
        row.kind, row.expression, row.timezone = spec.kind, spec.expression[:128], spec.timezone[:64]
        row.parameters, row.configuration = spec.parameters, spec.configuration
        row.catch_up, row.overlap = spec.catch_up, spec.overlap
        if before != (row.kind, row.expression, row.timezone) or row.next_at is None:
            plan(row, now)
        row.save()


def plan(schedule: Schedule, now: datetime) -> None:
    """Set when the schedule fires next, or why it cannot; the caller saves the row."""
    try:
        schedule.next_at, schedule.problem = schedules.next_after(schedule.timing, now), ""
    except schedules.BadSchedule as bad:
        schedule.next_at, schedule.problem = None, str(bad)


def archive(*, flow_id: int, now: datetime, who: str) -> Flow:
    """Take the flow out of the library and let its schedules rest until somebody unarchives it; its history stays.

    A second wish changes nothing. Raises ``Missing``, and ``Conflict`` for a flow that was never in the library.
    """
    flow = _in_library(flow_id)
    if not flow.archived:
        flow.archived, flow.archived_by, flow.archived_at = True, clean_text(who, MAX_NAME) or "somebody", now
        _save_archived(flow)
    return flow


def unarchive(*, flow_id: int, now: datetime, who: str) -> Flow:
    """Put it back. Its schedules go on from now: what they missed on purpose is not caught up.

    Raises as ``archive`` does.
    """
    flow = _in_library(flow_id)
    if flow.archived:
        flow.archived, flow.archived_by, flow.archived_at = False, "", None
        _save_archived(flow)
        for schedule in flow.schedules.all():
            plan(schedule, now)
            schedule.save(update_fields=["next_at", "problem"])
    return flow


def _save_archived(flow: Flow) -> None:
    flow.save(update_fields=["archived", "archived_by", "archived_at"])
    flow_changed.send(Flow, slug=flow.slug)


def _in_library(flow_id: int) -> Flow:
    flow = Flow.objects.filter(pk=flow_id).first()
    if flow is None:
        raise Missing("flow", f"there is no flow {flow_id}")
    if flow.is_codeless:
        raise Conflict("archived", f"no worker has announced {flow.name}, so it is not in the library; it enters then")
    return flow


def pause(*, schedule_id: int, now: datetime, who: str) -> Schedule:
    """Let the schedule fire no more until somebody resumes it; a second pause changes nothing."""
    row = _schedule(schedule_id)
    if row.paused_at is None:
        row.paused_at, row.paused_by = now, who
        row.save(update_fields=["paused_at", "paused_by"])
        flow_changed.send(Flow, slug=row.flow.slug)
    return row


def resume(*, schedule_id: int, now: datetime, who: str) -> Schedule:
    """Let it fire again, from now on: what it missed while it was paused on purpose is not caught up."""
    row = _schedule(schedule_id)
    if row.paused_at is not None:
        row.paused_at, row.paused_by = None, ""
        plan(row, now)
        row.save(update_fields=["paused_at", "paused_by", "next_at", "problem"])
        flow_changed.send(Flow, slug=row.flow.slug)
    return row


def _schedule(schedule_id: int) -> Schedule:
    row = Schedule.objects.select_related("flow").filter(pk=schedule_id).first()
    if row is None:
        raise Missing("schedule", f"there is no schedule {schedule_id}")
    return row
