"""What a run may be given: refuse at the door, in one sentence that names the field and what would be right.

The schema is the worker's description of the function's signature; ``perfect_client.signature`` writes it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from perfect_client.protocol import MAX_PARAMETERS_BYTES, ProtocolError, clean_json, dumps

from flows.models import Flow

KIND_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class Refused(ValueError):
    """A wish that cannot be granted. ``field`` names what is wrong, ``sentence`` says it to a person."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field, self.sentence = field, sentence


class Missing(Refused):
    """There is no such flow, run or schedule."""


class Conflict(Refused):
    """The wish comes too late or too early for the state that the run is in."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, `` Known: a, b.`` or nothing, to end a sentence with."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(sorted(names)[:10])}." if names else ""


def configuration_of(flow: Flow, wanted: str | None) -> str:
    """The name of the configuration to use; the flow's first if none is wanted."""
    if not wanted:
        return flow.default_configuration
    if not isinstance(wanted, str) or wanted not in flow.configurations:
        raise Refused(
            "configuration",
            f"{flow.name} has no configuration {wanted!r}.{nearest(str(wanted), flow.configuration_names)}",
        )
    return wanted


def clean(flow: Flow, parameters: Mapping[str, Any] | None, configuration: str) -> dict[str, Any]:
    """The explicit parameters as JSON that the flow's schema allows. Raises ``Refused``.

    A required parameter may also come from the configuration's values; those stay on the worker's side.
    """
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, Mapping):
        raise Refused("parameters", "parameters must be an object: names and values")
    values = _as_json(parameters)
    _check_names(flow, values, configuration)
    if values:
        _check_values(flow, values)
    return values


def _as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    for name in parameters:
        if not isinstance(name, str) or not name:
            raise Refused("parameters", "a parameter's name must be a text")
    try:
        values: dict[str, Any] = clean_json(dict(parameters))
        size = len(dumps(values).encode("utf-8", "backslashreplace"))
    except (ProtocolError, RecursionError) as wrong:
        raise Refused("parameters", f"the parameters cannot be used: {wrong}") from None
    if size > MAX_PARAMETERS_BYTES:
        raise Refused(
            "parameters",
            f"the parameters take {size:,} bytes as JSON; {MAX_PARAMETERS_BYTES:,} are allowed."
            " Pass a path or an address to large data instead.",
        )
    return values


def _check_names(flow: Flow, values: Mapping[str, Any], configuration: str) -> None:
    schema = flow.parameters
    known = flow.properties
    if schema.get("additionalProperties", False) is False:
        for name in values:
            if name not in known:
                raise Refused(name[:200], f"{flow.name} has no parameter {name[:200]!r}.{nearest(name, known)}")
    given = set(values) | set(flow.configurations.get(configuration) or {})
    for name in schema.get("required", []):
        if name not in given:
            kind = KIND_WORDS.get(str(known.get(name, {}).get("type", "")), "a value")
            raise Refused(name, f"parameter {name!r} is missing: it has no default, give {kind}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    # jsonschema takes 0.2 s to import: not for a server start, nor for a run without parameters
    library = importlib.import_module("jsonschema")
    return library.Draft202012Validator(importlib.import_module("json").loads(schema))


def _check_values(flow: Flow, values: Mapping[str, Any]) -> None:
    relevant = {"type": "object", "properties": flow.properties, "$defs": flow.parameters.get("$defs", {})}
    for error in _validator(dumps(relevant)).iter_errors(values):
        path = [str(part) for part in error.absolute_path]
        where = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).lstrip(".")
        raise Refused(path[0] if path else "parameters", f"parameter {where!r} {_complaint(error)}")


def _complaint(error: Any) -> str:
    got = repr(error.instance)
    got = got if len(got) <= 80 else got[:77] + "…"
    say = _COMPLAINTS.get(error.validator)
    return f"{say(error.validator_value)}, not {got}" if say else str(error.message)[:300]


def _kinds(value: Any) -> str:
    kinds = value if isinstance(value, list) else [value]
    return "must be " + " or ".join(KIND_WORDS.get(kind, str(kind)) for kind in kinds)


def _any_of(options: Any) -> str:
    kinds = [option.get("type") for option in options if isinstance(option, dict)]
    return _kinds([kind for kind in kinds if isinstance(kind, str)]) if all(kinds) else "fits none of its types"


_COMPLAINTS: dict[str, Any] = {
    "type": _kinds,
    "anyOf": _any_of,
    "enum": lambda value: "must be one of " + ", ".join(repr(item) for item in value[:20]),
    "const": lambda value: f"must be {value!r}",
    "minimum": lambda value: f"must be at least {value}",
    "maximum": lambda value: f"must be at most {value}",
}
