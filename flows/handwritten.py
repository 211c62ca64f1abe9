"""What an author wrote into a schema by hand, in keywords that ``perfect_client.schema.validation`` does not read.

``jsonschema`` reads them, and looks at the clock before each keyword. Nothing is fetched, and what this cannot
bound (other dialects, schemas with addresses of their own, ``unevaluated…``) is left to the run, as is what costs
too much.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jsonschema
import referencing
from jsonschema.exceptions import ValidationError
from perfect_client.schema.validation import Effort, TooCostly
from perfect_client.wire.messages import dumps

LEFT_TO_THE_RUN = (
    '"$schema"',
    '"$id"',
    '"$anchor"',
    '"$dynamicRef"',
    '"$dynamicAnchor"',
    '"$recursiveRef"',
    '"unevaluated',
)

# Keywords within keywords. Not Python's own limit: a library in Rust below jsonschema ends the thread when it meets it.
MAX_DEPTH = 100


class _Reading:
    """What one reading may still cost."""

    def __init__(self, effort: Effort) -> None:
        self.effort, self.depth = effort, 0

    def matches(self, pattern: Any, text: str) -> bool:
        found = self.effort.matches(pattern, text)
        if found is None:  # under "not" neither answer would be on the safe side
            raise TooCostly
        return found


_reading: ContextVar[_Reading] = ContextVar("reading")


def first_error(schema: Mapping[str, Any], value: Any, effort: Effort) -> ValidationError | None:
    """What the schema says against the value, if anything and if that can be found within ``effort``."""
    text = dumps(schema)
    if any(word in text for word in LEFT_TO_THE_RUN):
        return None
    before = _reading.set(_Reading(effort))
    try:
        return next(_validator(text).iter_errors(value), None)
    except (TooCostly, RecursionError, referencing.exceptions.Unresolvable):
        return None
    finally:
        _reading.reset(before)


def _paid(check: Any) -> Any:
    def pay_and_check(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        reading = _reading.get()
        reading.effort.look_at_the_clock()
        if reading.depth >= MAX_DEPTH:
            raise TooCostly
        reading.depth += 1
        try:
            yield from check(validator, said, value, schema) or ()
        finally:
            reading.depth -= 1

    return pay_and_check


def _pattern(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _reading.get().matches(said, value):
        yield ValidationError(f"{value!r} does not match {said!r}")


def _pattern_properties(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    for pattern, inner in said.items() if isinstance(value, dict) else ():
        for name in _named(pattern, value):
            yield from validator.descend(value[name], inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    matched = {name for pattern in schema.get("patternProperties") or () for name in _named(pattern, value)}
    for name in [name for name in value if name not in matched and name not in (schema.get("properties") or ())]:
        if said is False:
            yield ValidationError(f"Additional properties are not allowed ({name!r} was unexpected)")
        elif isinstance(said, dict):
            yield from validator.descend(value[name], said, path=name)


def _named(pattern: str, value: Mapping[str, Any]) -> list[str]:
    reading = _reading.get()
    return [name for name in value if reading.matches(pattern, name)]


def _unique_items(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if said and isinstance(value, list) and len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
        yield ValidationError(f"{value!r} has non-unique elements")


_OWN = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_KEYWORDS = {word: _paid(_OWN.get(word, check)) for word, check in jsonschema.Draft202012Validator.VALIDATORS.items()}
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, _KEYWORDS)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    return _Validator(json.loads(schema), registry=referencing.Registry())
