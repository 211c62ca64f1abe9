"""What the API answers, as its description in OpenAPI tells it: a model of each answer, and the errors there may be."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from uuid import UUID

from ninja import NinjaAPI, Schema
from pydantic import ConfigDict, Field

from flows.models import Schedule as ScheduleRow
from perfect_site.api.problems import CONTENT_TYPE, SENTENCES
from runs.models import Run as RunRow
from runs.rules.states import RunState, TaskState

ItemType = TypeVar("ItemType")
REFUSALS = (400, 401, 403, 404, 422, 429, 500, 503)
REFUSED_WRITES = (*REFUSALS, 409, 413, 415, 507)
SEEN: Any = sorted(set(RunState) - {RunState.OFFERED})


class Document(Schema):
    model_config = ConfigDict(extra="forbid")


class Page(Document, Generic[ItemType]):
    items: list[ItemType]
    next_cursor: str | None


class Problem(Schema):
    """RFC 9457; ``field`` names what is wrong, where one thing is."""

    type: str
    title: str
    status: int
    detail: str
    field: str = ""


class Created(Document):
    id: UUID
    state: str = Field(json_schema_extra={"enum": SEEN})
    state_reason: str
    url: str


class Pause(Document):
    key: str | None
    description: str
    form: dict[str, Any] = Field(alias="schema")
    since: datetime
    until: datetime | None


class RunListed(Document):
    id: UUID
    flow: str
    name: str
    state: str = Field(json_schema_extra={"enum": SEEN})
    state_name: str
    state_reason: str
    code_problem: str | None
    progress: float = Field(ge=0, le=100)
    eta_seconds: float | None
    attempt: int
    parameters: dict[str, Any]
    configuration: str
    tags: list[str]
    trigger: RunRow.Trigger
    triggered_by: str
    scheduled_for: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    error: str
    result: str
    worker: str | None
    parent: UUID | None
    rerun_of: UUID | None
    resume_of: UUID | None
    resume_from: str | None
    cancel_requested_at: datetime | None
    pause: Pause | None
    url: str


class Run(RunListed):
    traceback: str


class TaskRun(Document):
    key: str
    name: str
    subrun: UUID | None
    index: int
    call: int
    state: TaskState
    progress: float = Field(ge=0, le=100)
    note: str
    weight: float
    estimated_ms: float
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    attempt: int
    error: str
    traceback: str
    state_name: str
    message: str
    result: str
    crucial: bool


class OpenLine(Document):
    time: datetime
    level: str
    task: str | None
    message: str


class LogLine(OpenLine):
    seq: int
    dropped: int = 0


class Log(Page[LogLine]):
    open: list[OpenLine]


class Artifact(Document):
    id: UUID
    kind: str
    key: str | None
    description: str
    task: str | None
    attempt: int
    created_at: datetime
    updated_at: datetime
    data: Any
    url: str


class Schedule(Document):
    id: int
    flow: str
    name: str
    kind: ScheduleRow.Kind
    expression: str
    timezone: str
    words: str
    parameters: dict[str, Any]
    configuration: str
    catch_up: ScheduleRow.CatchUp
    overlap: ScheduleRow.Overlap
    source: ScheduleRow.Source
    edited_by: str
    paused: bool
    paused_by: str
    paused_at: datetime | None
    rests: str
    next_at: datetime | None
    last_at: datetime | None
    problem: str


class Said(Document):
    start: str
    start_reason: str
    problem: str
    notes: list[str]


class OfferOfWorker(Said):
    worker: str
    worker_id: UUID
    connected: bool


class OfferOfFlow(Said):
    flow: str


class FlowBase(Document):
    slug: str
    name: str
    description: str
    tags: list[str]
    archived: bool
    archived_by: str
    archived_at: datetime | None
    resting_since: datetime | None
    updated_at: datetime
    url: str


class FlowListed(FlowBase):
    configurations: list[str]


class Task(Document):
    key: str
    name: str
    index: int
    weight: float | None
    estimated_ms: float | None
    in_loop: bool
    description: str


class Change(Document):
    time: datetime
    who: str
    what: str


class Flow(FlowBase):
    configurations: dict[str, dict[str, Any]]
    parameters: dict[str, Any]
    file: str
    line: int
    tasks: list[Task]
    schedules: list[Schedule]
    workers: list[str]
    offers: list[OfferOfWorker]
    changes: list[Change]


class Limit(Document):
    name: str
    slots: int
    taken: int
    per_second: float | None
    taken_by_rate: float


class Variable(Document):
    name: str
    value: Any
    tags: list[str]
    changed_at: datetime
    changed_by: str


class Worker(Document):
    id: UUID
    name: str
    connected: bool
    draining: int | None
    host: str
    pid: int
    python: str
    sdk: str
    slots: int
    free: int
    pools: list[str]
    problems: list[Any]
    joined_at: datetime
    last_seen_at: datetime
    silent_seconds: float | None
    left_reason: str
    flows: list[str]
    offers: list[OfferOfFlow]


class DescribedAPI(NinjaAPI):
    """Its description tells of every address the errors that may come, beside the answers that the view declares."""

    def get_openapi_schema(self, **options: Any) -> Any:
        schema = super().get_openapi_schema(**options)
        schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        for operations in schema["paths"].values():
            for method, operation in operations.items():
                for status in REFUSALS if method == "get" else REFUSED_WRITES:
                    operation["responses"].setdefault(status, _refusal(status))
        return schema


def _refusal(status: int) -> dict[str, Any]:
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": SENTENCES.get(status) or HTTPStatus(status).phrase, "content": {CONTENT_TYPE: reference}}
