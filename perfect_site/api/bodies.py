"""What the API takes: unknown names and values of another type are refused, so a mistake is never silently ignored."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from ninja import Schema
from perfect_client.wire.messages import MAX_NAME, clean_text
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from flows.models import Schedule
from runs.services.limits import LEAST_RATE, MOST_RATE

YEARS = range(1970, 9000)  # room at both ends for other time zones
AS_WRITTEN = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")  # RFC 3339; else pydantic reads numbers as seconds since 1970
NO_NUL = "^[^\\u0000]*$"


def _whole(text: str) -> str:
    """PostgreSQL keeps no NUL, and nothing keeps half of a character."""
    if text != clean_text(text, len(text) * 4 + 64):
        raise ValueError("must be text without NUL and lone surrogates")
    return text


def _as_written(value: Any) -> Any:
    if not isinstance(value, datetime) and not (isinstance(value, str) and AS_WRITTEN.match(value)):
        raise ValueError("must be a datetime with its timezone, as in 2026-03-01T06:00:00Z")
    return value


def _in_calendar(moment: datetime) -> datetime:
    if moment.year not in YEARS:
        raise ValueError(f"must be a datetime of the years {YEARS[0]} to {YEARS[-1]}")
    return moment


Text = Annotated[str, AfterValidator(_whole), Field(json_schema_extra={"pattern": NO_NUL})]
Name = Annotated[Text, Field(max_length=MAX_NAME)]
Given = Annotated[Name, Field(min_length=1)]
Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_in_calendar), BeforeValidator(_as_written)]
Slots = Annotated[int, Field(ge=0, lt=1 << 31)]
Rate = Annotated[float, Field(ge=LEAST_RATE, le=MOST_RATE)]


def one_of(choices: Any) -> Any:
    """Declared as an enumeration; the deed refuses what is none of it, with its own sentence."""
    return Field(json_schema_extra={"enum": [*choices.values]})


class Body(Schema):
    """Strict: ``true`` is no number, and ``"1"`` none either."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FlowChange(Body):
    archived: bool


class RunIn(Body):
    parameters: dict[str, Any] | None = None
    configuration: Name | None = None
    run_at: Moment | None = None
    idempotency_key: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME})] | None = None
    tags: list[Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME})]] = []


class ItemIn(RunIn):
    flow: Name


class RunsIn(Body):
    items: list[ItemIn]


class RunAllIn(Body):
    configuration: Name | None = None


class RetryIn(Body):
    parameters: dict[str, Any] | None = None
    configuration: Name | None = None


class ResumeIn(Body):
    from_task: Text | None = None
    call: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    input: dict[str, Any] | None = None


class CancelIn(Body):
    reason: Text = ""


class ScheduleChange(Body):
    name: Name | None = None
    kind: Annotated[str, one_of(Schedule.Kind)] | None = None
    expression: Annotated[Text, Field(max_length=128)] | None = None
    timezone: Annotated[Text, Field(max_length=64)] | None = None
    parameters: dict[str, Any] | None = None
    configuration: Name | None = None
    catch_up: Annotated[str, one_of(Schedule.CatchUp)] | None = None
    overlap: Annotated[str, one_of(Schedule.Overlap)] | None = None
    paused: bool | None = None


class ScheduleIn(ScheduleChange):
    flow: Name
    kind: Annotated[str, one_of(Schedule.Kind)]
    expression: Annotated[Text, Field(max_length=128)]


class LimitChange(Body):
    slots: Slots | None = None
    per_second: Rate | None = None


class LimitIn(LimitChange):
    name: Given
    slots: Slots


class VariableIn(Body):
    value: Any
    tags: list[Name] = []
