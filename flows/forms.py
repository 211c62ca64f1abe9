"""A flow's parameters as a form: one field a property of the JSON Schema, and back to JSON values.

An empty field is not sent: then the configuration's value counts, else the default in the code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flows.models import Flow
from flows.parameters import Refused

PREFIX = "p-"
SECRET_WORDS = ("password", "passwd", "secret", "token", "api_key", "apikey", "private_key", "credential")


@dataclass(frozen=True)
class Option:
    value: str
    label: str
    chosen: bool


@dataclass(frozen=True)
class Field:
    """One parameter: ``kind`` is the control, ``default`` what counts if ``text`` stays empty."""

    name: str
    kind: str
    required: bool
    default: str
    text: str = ""
    choices: tuple[str, ...] = ()
    help: str = ""
    error: str = ""

    @property
    def id(self) -> str:
        return PREFIX + self.name

    @property
    def input_type(self) -> str:
        return {"integer": "number", "date": "date", "datetime": "datetime-local", "secret": "password"}.get(
            self.kind, "text"
        )

    @property
    def options(self) -> list[Option]:
        """The choices of a select, after an empty one that stands for the default."""
        empty = f"default ({_label(self.default)})" if self.default else "default" if not self.required else "choose…"
        return [
            Option("", empty, not self.text),
            *(Option(choice, _label(choice), choice == self.text) for choice in self.choices),
        ]

    @property
    def placeholder(self) -> str:
        return self.default if self.kind != "secret" else ("unchanged" if self.default else "")


def _label(choice: str) -> str:
    return str(json.loads(choice)) if choice.startswith('"') else choice


def is_secret(name: str, schema: Mapping[str, Any]) -> bool:
    """Whether the value must not be shown, by its type or by its name."""
    by_type = bool(schema.get("writeOnly")) or schema.get("format") == "password"
    return by_type or any(word in name.lower() for word in SECRET_WORDS)


def _kind(name: str, schema: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The control for a schema; of ``X | None`` it is X's."""
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    if len(options) == 1:
        schema = {**schema, **options[0]}
    kind = schema.get("type")
    if isinstance(kind, list):
        rest = [item for item in kind if item != "null"]
        kind = rest[0] if len(rest) == 1 else None
    if "enum" in schema:
        return "choice", schema
    if kind == "string":
        by_format = {"date": "date", "date-time": "datetime"}.get(str(schema.get("format")), "text")
        return "secret" if is_secret(name, schema) else by_format, schema
    return {"integer": "integer", "number": "number", "boolean": "boolean"}.get(str(kind), "json"), schema


def fields(flow: Flow, values: Mapping[str, Any] | None = None, configuration: str = "") -> list[Field]:
    """The form's fields in the signature's order, filled with ``values`` (secret ones never)."""
    required = set(flow.parameters.get("required", []))
    preset = flow.configurations.get(configuration or flow.default_configuration) or {}
    preset = preset if isinstance(preset, dict) else {}
    made = []
    for name, declared in flow.properties.items():
        kind, schema = _kind(name, declared)
        secret = kind == "secret"
        default = preset.get(name, declared.get("default"))
        known = name in preset or "default" in declared
        text = "" if secret or name not in (values or {}) else _text(kind, (values or {})[name])
        choices = tuple(_text("json", item) for item in schema.get("enum", ()))
        made.append(
            Field(
                name=name, kind=kind, required=name in required and name not in preset,
                default="" if not known else "•••" if secret else _text(kind, default),
                text=text, choices=("true", "false") if kind == "boolean" else choices,
                help=str(declared.get("description", "")),
            )
        )  # fmt: skip
    return made


def _text(kind: str, value: Any) -> str:
    """A value as it stands in its control; an empty text is written as two quotes, so that it can be told apart."""
    if isinstance(value, str) and kind in {"text", "date", "datetime", "secret"}:
        return value or '""'
    if isinstance(value, str) and kind == "choice":
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, (dict, list)) and value else None)


def _whole(name: str, text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        raise Refused(name, f"parameter {name!r} must be a whole number, not {text[:80]!r}") from None


def _number(name: str, text: str) -> Any:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise Refused(name, f"parameter {name!r} must be a number, not {text[:80]!r}") from None


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise Refused(name, f'parameter {name!r} must be JSON, such as {{"a": 1}} or [1, 2]: {wrong}') from None


def _plain(name: str, text: str) -> Any:
    return "" if text == '""' else text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "integer": _whole, "number": _number, "boolean": _json, "choice": _json, "json": _json,
}  # fmt: skip


def read(flow: Flow, data: Mapping[str, str]) -> dict[str, Any]:
    """The explicit parameters in a sent form. Raises ``Refused`` that names the field."""
    found = {}
    for field in fields(flow):
        text = data.get(field.id, "")
        text = text if field.kind in {"text", "secret"} else text.strip()
        if text:
            found[field.name] = _READERS.get(field.kind, _plain)(field.name, text)
    return found


def sent(flow: Flow, data: Mapping[str, str], refused: Refused) -> list[Field]:
    """The fields as they were sent, the refused one with its sentence."""
    made = fields(flow, configuration=data.get("configuration", ""))
    return [
        replace(field, text="" if field.kind == "secret" else data.get(field.id, ""),
                error=refused.sentence if field.name == refused.field else "")
        for field in made
    ]  # fmt: skip
