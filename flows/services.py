"""Deeds about flows: register what a worker announces; pause and resume a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from perfect_client.protocol import MAX_NAME, FlowSpec, ScheduleSpec, clean_text

from flows import schedules
from flows.models import Flow, Schedule, Task, slug_of
from flows.parameters import Missing
from runs import live
from runs.statements import find


def announce(*, specs: Sequence[FlowSpec], now: datetime) -> tuple[list[Flow], list[str]]:
    """Make the rows say what the code says. Returns the flows, and a sentence for each one that was refused."""
    flows: list[Flow] = []
    problems: list[str] = []
    for spec in specs:
        problem = _fault(spec)
        if problem:
            problems.append(problem)
        else:
            flows.append(_register(spec, now))
    if flows:
        live.touch(live.OVERVIEW, live.SCHEDULES, live.WORK, *[live.flow_topic(flow.slug) for flow in flows])
    return flows, problems


def _fault(spec: FlowSpec) -> str:
    name = spec.name.strip()
    where = f" ({spec.file}:{spec.line})" if spec.file else ""
    if not name or len(name) > MAX_NAME:
        return f"a flow's name must have 1 to {MAX_NAME} characters{where}"
    slug = slug_of(name)
    if not slug:
        return f"flow {name!r} needs a letter or a digit in its name, for its address{where}"
    other = Flow.objects.filter(slug=slug).exclude(name=name).first()
    if other is not None:
        return f"flow {name!r} would have the same address as {other.name!r} ({slug}); rename one of them{where}"
    return ""


def flow_called(*, name: str, now: datetime) -> Flow:
    """The flow of this name, for a run that was called inside another. One that no worker has announced, such as a flow
    that is defined inside a function, gets a row outside the library. Raises ``ValueError`` for a name that is none."""
    name = clean_text(name.strip(), MAX_NAME)
    if not name:
        raise ValueError("a flow must have a name")
    flow = find(Flow, name=name)
    if flow is None:
        # An address that no announced flow can want: one of this name gets its own when it is announced.
        slug = f"{slug_of(name)[:150] or 'flow'}-{sha256(name.encode()).hexdigest()[:12]}"
        flow = Flow.objects.create(name=name, slug=slug, archived=True, created_at=now, updated_at=now)
    return flow


def _register(spec: FlowSpec, now: datetime) -> Flow:
    name = spec.name.strip()
    flow = Flow.objects.filter(name=name).first() or Flow(name=name, slug=slug_of(name), created_at=now)
    if flow.pk and flow.fingerprint == spec.fingerprint and spec.fingerprint and not flow.archived:
        return flow
    flow.slug, flow.description = slug_of(name), clean_text(spec.description)
    flow.tags = [tag[:MAX_NAME] for tag in spec.tags]
    flow.parameters = spec.parameters
    flow.configurations = spec.configurations
    flow.file, flow.line = spec.file[:1000], max(0, spec.line)
    flow.fingerprint, flow.archived, flow.updated_at = spec.fingerprint[:64], False, now
    flow.save()
    _register_tasks(flow, spec)
    _register_schedules(flow, spec.schedules, now)
    return flow


def _register_tasks(flow: Flow, spec: FlowSpec) -> None:
    flow.tasks.all().delete()
    first = {task.key: task for task in reversed(spec.tasks)}
    Task.objects.bulk_create(
        [
            Task(
                flow=flow, key=task.key[:MAX_NAME], name=task.name[:MAX_NAME], position=position, weight=task.weight,
                estimated_ms=task.estimated_ms, in_loop=task.in_loop, description=clean_text(task.description),
            )
            for position, task in enumerate(t for t in spec.tasks if first[t.key] is t)
        ]
    )  # fmt: skip


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


def pause(*, schedule_id: int, now: datetime, who: str) -> Schedule:
    """Let the schedule fire no more until somebody resumes it; a second pause changes nothing."""
    row = _schedule(schedule_id)
    if row.paused_at is None:
        row.paused_at, row.paused_by = now, who
        row.save(update_fields=["paused_at", "paused_by"])
        live.touch(live.SCHEDULES, live.OVERVIEW, live.flow_topic(row.flow.slug))
    return row


def resume(*, schedule_id: int, now: datetime, who: str) -> Schedule:
    """Let it fire again, from now on: what it missed while it was paused on purpose is not caught up."""
    row = _schedule(schedule_id)
    if row.paused_at is not None:
        row.paused_at, row.paused_by = None, ""
        plan(row, now)
        row.save(update_fields=["paused_at", "paused_by", "next_at", "problem"])
        live.touch(live.SCHEDULES, live.OVERVIEW, live.flow_topic(row.flow.slug))
    return row


def _schedule(schedule_id: int) -> Schedule:
    row = Schedule.objects.select_related("flow").filter(pk=schedule_id).first()
    if row is None:
        raise Missing("schedule", f"there is no schedule {schedule_id}")
    return row
