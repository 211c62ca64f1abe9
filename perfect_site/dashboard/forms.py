"""A flow's parameters as a form: one field a property of the JSON Schema, and back to JSON values.

An empty field is not sent: then the configuration's value counts, else the default in the code. What a string means,
``flows.parameters`` says, as it does for every other door; here only JSON is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from perfect_client.schema import sentences
from perfect_client.schema.masking import MASK, is_secret, mask

from flows.models import Flow
from flows.parameters import Refused

PREFIX = "p-"
NULL, ZONE = "-null", "-zone"  # what a field's own small controls are named after it
LINES = 3  # of a box for JSON
INPUT_TYPES = {
    "integer": "number",
    "number": "number",
    "date": "date",
    "datetime": "datetime-local",
    "time": "time",
    "secret": "password",
}
# What an input of the type can hold; a browser empties it of anything else, and what was typed would be lost.
HOLDS = {
    "number": re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "datetime-local": re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?"),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,3})?)?"),
}
KINDS = {"integer": "integer", "number": "number", "boolean": "boolean", "array": "json", "object": "json"}
FORMATS = {"date": "date", "date-time": "datetime", "time": "time"}

UNITS = {"duration-seconds": "seconds"}


@dataclass(frozen=True)
class Option:
    value: str
    label: str
    chosen: bool


@dataclass(frozen=True)
class Part:
    """One line of what a box for JSON takes: a name, what it must be, whether it may be left out."""

    name: str
    words: str
    required: bool
    default: str = ""


@dataclass(frozen=True)
class Field:
    """One parameter: ``kind`` is the control, ``default`` what counts if ``text`` stays empty."""

    name: str
    kind: str
    required: bool
    default: str
    text: str = ""
    choices: tuple[tuple[str, str], ...] = ()  # value as JSON, label
    help: str = ""
    error: str = ""
    words: str = ""
    parts: tuple[Part, ...] = ()
    low: str = ""
    high: str = ""
    step: str = ""
    unit: str = ""  # of a number that has one
    zone: str = ""  # "UTC" when the field's time is in UTC and is sent with it
    nullable: bool = False
    null: bool = False

    @property
    def id(self) -> str:
        return PREFIX + self.name

    @property
    def input_type(self) -> str:
        found = INPUT_TYPES.get(self.kind, "text")
        holds = HOLDS.get(found)
        return "text" if holds and self.text and not holds.fullmatch(self.text) else found

    @property
    def options(self) -> list[Option]:
        """The choices of a select, after an empty one that stands for the default."""
        label = next((label for value, label in self.choices if value == self.default), self.default)
        empty = f"default ({label})" if self.default else "choose…" if self.required else "default"
        made = [Option("", empty, not self.text and not self.null)]
        made += [Option(value, label, value == self.text and not self.null) for value, label in self.choices]
        return made

    @property
    def rows(self) -> int:
        """Lines of a box for JSON."""
        return max(LINES, min(12, 1 + max(self.text.count("\n"), self.placeholder.count("\n"))))

    @property
    def placeholder(self) -> str:
        if self.kind == "secret":
            return "leave empty to keep it" if self.default else ""
        return self.default

    @property
    def described_by(self) -> str:
        """The ids of what is said about the field, for those who hear the page."""
        return " ".join([f"{self.id}-error"] * bool(self.error) + [f"{self.id}-help"])

    @property
    def rule(self) -> str:
        """What an empty field means, and how a time or a string is taken."""
        said = RULES.get(self.kind, "")
        if self.kind == "datetime":
            said = "In UTC." if self.zone else "Without a time zone, as written."
        return " ".join(filter(None, [said, "" if self.required else self._empty]))

    @property
    def _empty(self) -> str:
        if self.kind == "secret":
            return "Empty: what the code or the configuration has." if not self.default else ""
        if self.kind in {"choice", "boolean"}:
            return ""
        shown = self.default if len(self.default) <= 40 and "\n" not in self.default else ""
        return f"Empty: {' '.join(filter(None, [shown, self.unit]))}." if shown else "Empty: the default."


RULES = {
    "json": "JSON.",
    "group": "JSON with these names:",
    "text": "",
    "integer": "",
    "number": "",
    "secret": "Never shown again.",
}


# --------------------------------------------------------------------------------------------------------- describing


def _plain(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema without ``null`` and references, and whether null is allowed."""
    schema = {**schema, **sentences.resolved(schema, defs)} if "$ref" in schema else schema
    options = schema.get("anyOf") or []
    rest = [option for option in options if option.get("type") != "null"]
    nullable = len(rest) < len(options) or schema.get("type") == "null"
    if len(rest) == 1:
        inner = sentences.resolved(rest[0], defs)
        return {**{k: v for k, v in schema.items() if k != "anyOf"}, **inner}, nullable
    kinds = schema.get("type")
    if isinstance(kinds, list):
        named = [kind for kind in kinds if kind != "null"]
        return {**schema, "type": named[0] if len(named) == 1 else None}, "null" in kinds
    return schema, nullable


def _kind(name: str, schema: Mapping[str, Any]) -> str:
    """The control for a schema."""
    kind = str(schema.get("type"))
    if is_secret(name, schema) and kind not in {"array", "object"}:
        return "secret"
    if "enum" in schema:
        return "choice"
    if schema.get("format") == "decimal":
        return "text"
    if kind == "string":
        return FORMATS.get(str(schema.get("format")), "text")
    if kind == "object" and schema.get("properties"):
        return "group"
    return KINDS.get(kind, "json")


def fields(flow: Flow, values: Mapping[str, Any] | None = None, configuration: str = "") -> list[Field]:
    """The form's fields in the signature's order, filled with ``values`` (secret ones never)."""
    preset = flow.configurations.get(configuration or flow.default_configuration) or {}
    preset = preset if isinstance(preset, dict) else {}
    required = set(flow.parameters.get("required", []))
    defs = flow.parameters.get("$defs") or {}
    shown = mask(dict(values or {}), flow.parameters)
    known = {**{n: s["default"] for n, s in flow.properties.items() if "default" in s}, **preset}
    known = mask(known, flow.parameters)
    return [
        _field(name, schema, defs, required=name in required and name not in preset, shown=shown, known=known)
        for name, schema in flow.properties.items()
    ]


def _field(
    name: str,
    declared: Mapping[str, Any],
    defs: Mapping[str, Any],
    *,
    required: bool,
    shown: Mapping[str, Any],
    known: Mapping[str, Any],
) -> Field:
    schema, nullable = _plain(declared, defs)
    kind = _kind(name, schema)
    null = nullable and name in shown and shown[name] is None
    value = None if kind == "secret" or null else shown.get(name)
    default = "" if name not in known else MASK if kind == "secret" else _text(kind, known[name])
    made = Field(
        name=name,
        kind=kind,
        required=required,
        default=default,
        null=null,
        text=_text(kind, value) if name in shown and kind != "secret" and not null else "",
        choices=_choices(kind, schema),
        help=_help(declared, schema),
        words=sentences.describe(schema, defs),
        parts=_parts(schema, defs) if kind == "group" else (),
        unit=UNITS.get(str(schema.get("format")), ""),
        nullable=nullable and not (name in known and known[name] is None),
        **_bounds(kind, schema),
    )
    return _in_utc(made) if kind == "datetime" else made


def _help(declared: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The words of the code, and the examples that it gives."""
    examples = declared.get("examples") or schema.get("examples") or []
    said = str(declared.get("description") or schema.get("description") or "").strip()
    if said and said[-1] not in ".!?:…":
        said += "."
    told = (
        f"For example {', '.join(json.dumps(item, ensure_ascii=False) for item in examples[:3])}." if examples else ""
    )
    return " ".join(filter(None, [said, told]))


def _choices(kind: str, schema: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if kind == "boolean":
        return (("true", "true"), ("false", "false"))
    if kind != "choice":
        return ()
    values, names = schema["enum"], schema.get("x-enum-varnames") or ()
    labels = names if len(names) == len(values) and not all(isinstance(v, str) for v in values) else ()
    told = [_text("json", value) for value in values]
    return tuple(
        (text, f"{labels[i]} ({_label(text)})" if labels and labels[i] != value else _label(text))
        for i, (text, value) in enumerate(zip(told, values, strict=True))
    )


def _label(choice: str) -> str:
    return str(json.loads(choice)) if choice.startswith('"') else choice


def _parts(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[Part, ...]:
    needed = set(schema.get("required") or ())
    return tuple(
        Part(
            name,
            sentences.describe(part, defs),
            name in needed,
            "" if "default" not in part or is_secret(name, part) else _text("json", part["default"], indent=None),
        )
        for name, part in schema["properties"].items()
    )


def _bounds(kind: str, schema: Mapping[str, Any]) -> dict[str, str]:
    """``min``, ``max`` and ``step`` of an input; an exclusive bound only of whole numbers."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "integer":
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        low = int(above) + 1 if low is None and above is not None else low
        high = int(below) - 1 if high is None and below is not None else high
    elif kind in {"date", "datetime", "time"}:
        low, high = schema.get("formatMinimum"), schema.get("formatMaximum")
    elif kind != "number":
        return {}
    # A browser counts steps from the minimum, JSON Schema from 0.
    step = schema.get("multipleOf") if low is None else None
    default = {"integer": "1", "number": "any", "datetime": "1", "time": "1"}.get(kind, "")
    said = {"low": low, "high": high, "step": default if step is None else step}
    return {name: "" if value is None else str(value) for name, value in said.items()}


def _in_utc(field: Field) -> Field:
    """A time with a zone is shown and sent in UTC: the control of a browser knows none."""
    text, default = _utc(field.text), _utc(field.default)
    if text is None and default is None:
        return field
    return replace(
        field,
        zone="UTC",
        text=text or field.text,
        default=default or field.default,
        low=_utc(field.low) or "",
        high=_utc(field.high) or "",
    )


def _utc(text: str) -> str | None:
    """The same moment in UTC, without saying so; None for a string that is no time with a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() if moment.tzinfo else None


def _text(kind: str, value: Any, indent: int | None = 2) -> str:
    """A value as it stands in its control; an empty text is written as two quotes, so that it can be told apart."""
    if isinstance(value, str) and kind in {"text", "date", "datetime", "time", "secret", "integer", "number"}:
        return value or '""'
    indent = indent if isinstance(value, dict | list) and value else None
    return json.dumps(value, ensure_ascii=False, indent=indent)


# ------------------------------------------------------------------------------------------------------------ reading


def _json(field: Field, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        if "a string" in field.words or field.words == "any value":
            return text
        reason = f"{wrong}"
    raise Refused(field.name, f"Parameter {field.name!r} must be JSON for {field.words}: {reason}.")


def _moment(field: Field, text: str) -> Any:
    known = HOLDS["datetime-local"].fullmatch(text)
    return text + "+00:00" if known and field.zone else text


def _as_written(field: Field, text: str) -> Any:
    return "" if text == '""' else text


_READERS: dict[str, Callable[[Field, str], Any]] = {
    "choice": _json,
    "json": _json,
    "group": _json,
    "datetime": _moment,
}


def read(flow: Flow, data: Mapping[str, str]) -> dict[str, Any]:
    """The explicit parameters in a sent form. Raises ``Refused`` that names the field."""
    found: dict[str, Any] = {}
    for field in fields(flow, configuration=data.get("configuration", "")):
        text = data.get(field.id, "").replace("\r\n", "\n")
        text = text if field.kind in {"text", "secret"} else text.strip()
        zone = replace(field, zone=data.get(field.id + ZONE, ""))
        if text:
            found[field.name] = _READERS.get(field.kind, _as_written)(zone, text)
        elif data.get(field.id + NULL):
            found[field.name] = None
    return found


def kept(flow: Flow, parameters: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was sent, and for each secret field that stayed empty the mask of the one that was there ``before``."""
    secrets = [field.name for field in fields(flow) if field.kind == "secret"]
    return {**{name: MASK for name in secrets if before.get(name) is not None}, **parameters}


def sent(flow: Flow, data: Mapping[str, str], refused: Refused) -> list[Field]:
    """The fields as they were sent, the refused one with its sentence."""
    made = fields(flow, configuration=data.get("configuration", ""))
    return [
        replace(
            field,
            text="" if field.kind == "secret" else data.get(field.id, ""),
            null=bool(data.get(field.id + NULL)) and not data.get(field.id),
            zone=data.get(field.id + ZONE, field.zone),
            error=refused.sentence if field.name == refused.field else "",
        )
        for field in made
    ]
