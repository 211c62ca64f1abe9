"""Deeds on schedules that people make: create, change, remove. What a person changed, code no longer overrides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perfect_client.wire.messages import MAX_NAME, clean_text

from flows import schedules
from flows.models import Flow, Schedule
from flows.parameters import Conflict, Missing, Refused, clean, configuration_of, nearest
from flows.services import plan
from flows.signals import flow_changed

TIMING = ("kind", "expression", "timezone")
EDITABLE = ("name", *TIMING, "parameters", "configuration", "catch_up", "overlap")
CHOICES = {"kind": Schedule.Kind, "catch_up": Schedule.CatchUp, "overlap": Schedule.Overlap}


def create(*, flow: Flow, values: Mapping[str, Any], now: datetime, who: str) -> Schedule:
    """A new schedule of ``flow``. Raises ``Refused`` naming the field, ``Conflict`` if its name is taken."""
    row = Schedule(flow=flow, source=Schedule.Source.CONSOLE, edited_by=clean_text(who, MAX_NAME))
    return _write(row, values, now)


def change(*, schedule_id: int, values: Mapping[str, Any], now: datetime, who: str) -> Schedule:
    """Change the fields that ``values`` names and leave the rest. Raises as ``create`` does."""
    row = find(schedule_id)
    row.edited_by = clean_text(who, MAX_NAME)
    return _write(row, values, now)


def remove(*, schedule_id: int, now: datetime, who: str) -> None:
    """Runs that it fired stay. One that code declares comes back with its worker, so it can only be paused."""
    row = find(schedule_id)
    if row.source == Schedule.Source.CODE:
        raise Conflict("schedule", "this schedule is declared in the flow's code; remove it there, or pause it here")
    slug = row.flow.slug
    row.delete()
    flow_changed.send(Flow, slug=slug)


def find(schedule_id: int) -> Schedule:
    row = Schedule.objects.select_related("flow").filter(pk=schedule_id).first()
    if row is None:
        raise Missing("schedule", f"there is no schedule {schedule_id}")
    return row


def _write(row: Schedule, values: Mapping[str, Any], now: datetime) -> Schedule:
    before, given = [getattr(row, name) for name in TIMING], row.parameters
    for name in EDITABLE:
        if name in values:
            setattr(row, name, values[name])
    check(row, given)
    if row.pk is None or before != [getattr(row, name) for name in TIMING]:
        plan(row, now)
    if row.next_at is None and row.paused_at is None:
        raise Refused("expression", row.problem or "this schedule never fires again: its time has passed")
    row.save()
    flow_changed.send(Flow, slug=row.flow.slug)
    return row


def check(row: Schedule, before: Mapping[str, Any] | None = None) -> None:
    """Raise ``Refused`` for the first field that cannot be. A masked secret counts as it was in ``before``."""
    row.name = clean_text(str(row.name).strip()) or "default"
    if len(row.name) > MAX_NAME:
        raise Refused("name", f"a schedule's name has at most {MAX_NAME} characters")
    for field, choices in CHOICES.items():
        if getattr(row, field) not in choices.values:
            raise Refused(field, f"{field} must be one of {', '.join(choices.values)}.")
    if len(str(row.expression)) > 128:
        raise Refused("expression", "an expression has at most 128 characters")
    try:
        schedules.zone(str(row.timezone))
    except schedules.BadSchedule as bad:
        raise Refused("timezone", str(bad)) from None
    try:
        schedules.parse(row.kind, row.expression, row.timezone)
    except schedules.BadSchedule as bad:
        raise Refused("expression", str(bad)) from None
    if row.configuration and row.configuration not in row.flow.configurations:
        hint = nearest(row.configuration, row.flow.configuration_names)
        raise Refused("configuration", f"{row.flow.name} has no configuration {row.configuration!r}.{hint}")
    row.parameters = clean(row.flow, row.parameters, configuration_of(row.flow, row.configuration), before)
    if Schedule.objects.filter(flow=row.flow, name=row.name).exclude(pk=row.pk).exists():
        raise Conflict("name", f"{row.flow.name} has a schedule named {row.name!r} already")
