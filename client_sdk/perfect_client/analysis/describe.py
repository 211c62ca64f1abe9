"""A flow as its worker describes it to the server."""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import replace
from typing import Any, Optional

from perfect_client.analysis import planner
from perfect_client.core import moments
from perfect_client.core.schedules import Schedule
from perfect_client.engine.decorators import Flow
from perfect_client.schema.masking import mask
from perfect_client.schema.secrets import of_this_process
from perfect_client.wire.messages import FlowSpec, ScheduleSpec, clean_json, clean_text, dumps, to_dict


def flow_spec(flow: Flow[Any, Any]) -> FlowSpec:
    """Everything the server needs to know. ``fingerprint`` changes with the function's source and description.

    Raises ``ProtocolError`` for what cannot travel, as a configuration that is nested too deeply.
    """
    schema = clean_json(flow.parameters_schema)
    spec = FlowSpec(
        name=clean_text(flow.name),
        description=_text(flow.description),
        tags=[_text(tag) for tag in flow.tags],
        parameters=_described(schema),
        # The runs take these values from the code: the server only shows them.
        configurations=of_this_process.clean(mask(clean_json(flow.configurations), {"additionalProperties": schema})),
        schedules=[_schedule_spec(name, schedule) for name, schedule in flow.schedules.items()],
        tasks=[
            replace(task, name=_text(task.name), description=_text(task.description))
            for task in planner.plan(flow).tasks
        ],
        file=os.path.abspath(flow.code.co_filename) if hasattr(flow.code, "co_filename") else "",
        line=getattr(flow.code, "co_firstlineno", 0),
    )
    described = dumps({**to_dict(spec), "file": "", "line": 0, "source": _source(flow)})
    digest = hashlib.sha256(described.encode("utf-8", "backslashreplace")).hexdigest()
    changed = _changed_at(spec.file)
    return replace(spec, fingerprint=digest[:32], start=flow.start, notes=moments.remarks(flow.fn), source_time=changed)


def _changed_at(file: str) -> Optional[float]:
    try:
        return os.stat(file).st_mtime
    except (OSError, ValueError):  # code that is in no file
        return None


def _text(text: str) -> str:
    return clean_text(of_this_process.without(text))


def _described(schema: Any) -> Any:
    """The schema without secrets in what it says to people; those in its defaults were left out."""
    if isinstance(schema, list):
        return [_described(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    words = {name: of_this_process.clean(schema[name]) for name in ("description", "examples") if name in schema}
    return {name: words.get(name) or _described(item) for name, item in schema.items()}


def _schedule_spec(name: str, schedule: Schedule) -> ScheduleSpec:
    options = clean_json({**schedule.options, "name": name})
    return ScheduleSpec(kind=schedule.kind, expression=schedule.expression, **options)


def _source(flow: Flow[Any, Any]) -> str:
    try:
        return inspect.getsource(flow.code)
    except (OSError, TypeError, IndexError, SyntaxError):
        return ""
