"""What the API takes as bodies: unknown fields are refused, so a misspelt one is never silently ignored."""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Schema
from pydantic import AwareDatetime, ConfigDict, Field, StrictBool


class Body(Schema):
    model_config = ConfigDict(extra="forbid")


class FlowChange(Body):
    archived: StrictBool


class RunIn(Body):
    parameters: dict[str, Any] | None = None
    configuration: str | None = None
    run_at: AwareDatetime | None = None
    idempotency_key: str | None = None
    tags: list[str] = []


class ItemIn(RunIn):
    flow: str


class RunsIn(Body):
    items: list[ItemIn]


class RunAllIn(Body):
    configuration: str | None = None


class RetryIn(Body):
    parameters: dict[str, Any] | None = None
    configuration: str | None = None


class ResumeIn(Body):
    from_task: str | None = None
    call: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    input: dict[str, Any] | None = None


class CancelIn(Body):
    reason: str = ""


class ScheduleChange(Body):
    name: str | None = None
    kind: str | None = None
    expression: str | None = None
    timezone: str | None = None
    parameters: dict[str, Any] | None = None
    configuration: str | None = None
    catch_up: str | None = None
    overlap: str | None = None
    paused: bool | None = None


class ScheduleIn(ScheduleChange):
    flow: str
    kind: str
    expression: str


class LimitChange(Body):
    slots: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    per_second: Annotated[float, Field(gt=0, lt=1e9)] | None = None


class LimitIn(LimitChange):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    slots: Annotated[int, Field(ge=0, lt=1 << 31)]


class VariableIn(Body):
    value: Any
    tags: list[str] = []
