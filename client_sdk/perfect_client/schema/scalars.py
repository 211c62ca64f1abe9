"""JSON values of simple types: how each is described, read, and named in a sentence.

Read the same by every Python from 3.8 on, whatever its own ``fromisoformat`` takes: the server and a worker of
another version must agree on what fits.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, Callable, Dict, NamedTuple, Type, cast
from uuid import UUID

Schema = Dict[str, Any]
MAX_DIGITS_BITS = 3322  # of an integer with 1,000 digits


class Wrong(ValueError):
    """A value does not fit. A text, if there is one, says why: it comes from a class that checks its own values."""


class Hint(NamedTuple):
    """A type hint: its JSON Schema, and how to read a JSON value. What is right in words, ``validation.words`` says."""

    schema: Schema
    read: Callable[[Any], Any]


ANYTHING = Hint({}, lambda value: value)

# --------------------------------------------------------------------------------------------------- single values

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_WHOLE = re.compile(r"\s*[+-]?\d{1,1000}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d{1,1000}\.?\d{0,1000}|\.\d{1,1000})([eE][+-]?\d{1,5})?\s*", re.ASCII)
_DATE = r"(\d{4})-(\d{2})-(\d{2})"
_TIME = r"(\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s?([Zz]|[+-]\d{2}:?\d{2})?"
_DAY = re.compile(_DATE, re.ASCII)
_CLOCK = re.compile(_TIME, re.ASCII)
_MOMENT = re.compile(_DATE + r"(?:[Tt ]" + _TIME + ")?", re.ASCII)
_PERIOD = re.compile(
    r"([+-])?P(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12}(?:\.\d{1,9})?)S)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Wrong


def read_whole(value: Any) -> int:
    if isinstance(value, bool):
        raise Wrong
    if isinstance(value, int) and value.bit_length() <= MAX_DIGITS_BITS:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, Integral) and not isinstance(value, int):
        return cast(int, value)  # numpy's, in a direct call: it stays what it is
    raise Wrong


def read_number(value: Any) -> float:
    if isinstance(value, (Real, Decimal)) and not isinstance(value, (int, float)):
        return cast(float, value)  # numpy's, a Decimal or a Fraction, in a direct call: it stays what it is
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Wrong
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise Wrong
    try:
        found = float(value)
    except OverflowError:
        raise Wrong from None
    if isinstance(value, str) and found in (float("inf"), float("-inf")):
        raise Wrong
    return found


def read_flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    small = isinstance(value, int) and value in (0, 1)
    word = str(value).strip().lower() if small or isinstance(value, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Wrong


def read_nothing(value: Any) -> None:
    if value is not None:
        raise Wrong


def _zone(text: str) -> timezone:
    if text in "Zz":
        return timezone.utc
    shift = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-shift if text[0] == "-" else shift)


def _clock(hour: str, minute: str, second: Any, fraction: Any, zone: Any) -> time:
    micros = int((fraction or "").ljust(6, "0")[:6] or 0)
    return time(int(hour), int(minute), int(second or 0), micros, _zone(zone) if zone else None)


def read_moment(value: Any) -> datetime:
    """A date and time by ISO 8601, a date alone as its midnight, or seconds since the epoch."""
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(seconds=value)
        found = _MOMENT.fullmatch(read_text(value).strip())
        if found is None:
            raise Wrong
        year, month, day, *clock = found.groups()
        at = _clock(*clock) if clock[0] else time()
        return datetime.combine(date(int(year), int(month), int(day)), at)
    except (ValueError, OverflowError):
        raise Wrong from None


def read_day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    moment = read_moment(value) if isinstance(value, (str, datetime)) else None
    if moment is None or moment.time() != time():
        raise Wrong
    return moment.date()


def read_time_of_day(value: Any) -> time:
    if isinstance(value, time):
        return value
    found = _CLOCK.fullmatch(read_text(value).strip())
    if found is None:
        raise Wrong
    try:
        return _clock(*found.groups())
    except ValueError:
        raise Wrong from None


def read_duration(value: Any) -> timedelta:
    """A number of seconds."""
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=read_number(value))
    except (OverflowError, ValueError):
        raise Wrong from None


def read_period(value: Any) -> timedelta:
    """A duration by ISO 8601, as pydantic's schemas describe it, or a number of seconds."""
    found = _PERIOD.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not any(found.groups()[1:]):
        return read_duration(value)
    sign, *parts = found.groups()
    weeks, days, hours, minutes, seconds = (float(part or 0) for part in parts)
    try:
        length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise Wrong from None
    return -length if sign == "-" else length


def read_decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise Wrong
    if isinstance(value, int) and value.bit_length() > MAX_DIGITS_BITS:
        raise Wrong
    try:
        return Decimal(str(value).strip())
    except InvalidOperation:
        raise Wrong from None


def read_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(read_text(value))
    except ValueError:
        raise Wrong from None


def read_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else read_text(value).encode("utf-8")


def path_of(cls: Type[PurePath]) -> Callable[[Any], PurePath]:
    return lambda value: value if isinstance(value, cls) else cls(read_text(value))


PLAIN: Dict[Any, Hint] = {
    str: Hint({"type": "string"}, read_text),
    int: Hint({"type": "integer"}, read_whole),
    float: Hint({"type": "number"}, read_number),
    bool: Hint({"type": "boolean"}, read_flag),
    None: Hint({"type": "null"}, read_nothing),
    type(None): Hint({"type": "null"}, read_nothing),
    date: Hint({"type": "string", "format": "date"}, read_day),
    datetime: Hint({"type": "string", "format": "date-time"}, read_moment),
    time: Hint({"type": "string", "format": "time"}, read_time_of_day),
    timedelta: Hint({"type": "number", "format": "duration-seconds"}, read_duration),
    Decimal: Hint({"anyOf": [{"type": "number"}, {"type": "string"}], "format": "decimal"}, read_decimal),
    UUID: Hint({"type": "string", "format": "uuid"}, read_uuid),
    bytes: Hint({"type": "string"}, read_bytes),
    Path: Hint({"type": "string", "format": "path"}, path_of(Path)),
    PurePath: Hint({"type": "string", "format": "path"}, path_of(PurePath)),
}
