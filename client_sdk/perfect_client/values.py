"""JSON values of simple types: how each is described, read, and named in a sentence."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any, Callable, Dict, NamedTuple, Type
from uuid import UUID

Schema = Dict[str, Any]


class Wrong(ValueError):
    """A value does not fit; the text says what would be right, as in ``a whole number``."""


class Hint(NamedTuple):
    """A type hint: its JSON Schema, how to read a JSON value, and what is right in words."""

    schema: Schema
    read: Callable[[Any], Any]
    words: str


ANYTHING = Hint({}, lambda value: value, "any value")

# --------------------------------------------------------------------------------------------------- single values

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_FRACTION = re.compile(r"\.(\d+)")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Wrong


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise Wrong
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,1000}\s*", value, re.ASCII):
        return int(value)
    raise Wrong


def _number(value: Any) -> float:
    if isinstance(value, dict) and set(value) == {"$float"}:  # how clean_json writes NaN and the infinities
        value = value["$float"]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Wrong
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise Wrong from None


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Wrong


def _nothing(value: Any) -> None:
    if value is not None:
        raise Wrong


def _iso(text: str) -> str:
    """ISO 8601 as Python 3.8 reads it: no Z, six digits of a second's fraction."""
    text = text.strip()
    if text[-1:] in ("Z", "z"):
        text = text[:-1] + "+00:00"
    return _FRACTION.sub(lambda found: "." + (found.group(1) + "000000")[:6], text)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return datetime.fromtimestamp(value, timezone.utc)
    return datetime.fromisoformat(_iso(_text(value)))


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    moment = _moment(value) if isinstance(value, (str, datetime)) else None
    if moment is None or moment.time() != time():
        raise Wrong
    return moment.date()


def _time_of_day(value: Any) -> time:
    return value if isinstance(value, time) else time.fromisoformat(_iso(_text(value)))


def _duration(value: Any) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=_number(value))


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise Wrong
    try:
        return Decimal(str(value).strip())
    except InvalidOperation:
        raise Wrong from None


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(_text(value))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode("utf-8")


def path_of(cls: Type[PurePath]) -> Callable[[Any], PurePath]:
    return lambda value: value if isinstance(value, cls) else cls(_text(value))


PLAIN: Dict[Any, Hint] = {
    str: Hint({"type": "string"}, _text, "a text"),
    int: Hint({"type": "integer"}, _whole, "a whole number"),
    float: Hint({"type": "number"}, _number, "a number"),
    bool: Hint({"type": "boolean"}, _flag, "true or false"),
    None: Hint({"type": "null"}, _nothing, "null"),
    type(None): Hint({"type": "null"}, _nothing, "null"),
    date: Hint({"type": "string", "format": "date"}, _day, 'a date such as "2024-01-31"'),
    datetime: Hint({"type": "string", "format": "date-time"}, _moment, 'a time such as "2024-01-31T09:00:00+00:00"'),
    time: Hint({"type": "string", "format": "time"}, _time_of_day, 'a time of day such as "09:00:00"'),
    timedelta: Hint({"type": "number", "format": "duration-seconds"}, _duration, "a number of seconds"),
    Decimal: Hint(
        {"anyOf": [{"type": "number"}, {"type": "string"}], "format": "decimal"}, _decimal, "a decimal number"
    ),
    UUID: Hint({"type": "string", "format": "uuid"}, _uuid, "a UUID"),
    bytes: Hint({"type": "string"}, _bytes, "a text"),
    Path: Hint({"type": "string", "format": "path"}, path_of(Path), "a path"),
    PurePath: Hint({"type": "string", "format": "path"}, path_of(PurePath), "a path"),
}
