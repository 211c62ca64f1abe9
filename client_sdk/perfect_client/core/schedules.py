"""Schedules as written in code. Only what can be seen at a glance is checked here: the server is the law.

Cron: crontab(5), five fields, names and ``@daily`` and friends; each expression is read in its own time zone.
"""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Union

from perfect_client.errors import MAX_NAME, ConfigurationError

CATCH_UP = ("skip", "latest", "all")
OVERLAP = ("allow", "skip", "queue", "cancel_running")
ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
LONGEST_CRON = 128  # characters
LONGEST_INTERVAL = 366 * 24 * 3600.0  # seconds

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: Tuple[Tuple[str, int, int, Dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_RANGE = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_SPECIAL = re.compile(r"L[0-7]?|\d{1,2}W|\w{1,3}#[1-5]", re.ASCII | re.IGNORECASE)  # last day, nearest weekday, nth


def check_cron(text: object) -> str:
    """The cron text with single spaces. Raises ``ConfigurationError`` naming the field that is wrong."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError('a cron text is needed, as in "0 0 * * *", not %r' % (text,))
    if len(text) > LONGEST_CRON:
        raise ConfigurationError("a cron text may have %d characters, not %d" % (LONGEST_CRON, len(text)))
    parts = text.split()
    if parts[0].startswith("@"):
        if len(parts) > 1 or parts[0].lower() not in ALIASES:
            raise ConfigurationError("the cron text %r is unknown; there are %s" % (text, ", ".join(ALIASES)))
        return parts[0].lower()
    if len(parts) != 5:
        raise ConfigurationError(
            "the cron text %r has %d fields instead of 5 (minute, hour, day of month, month, day of week)"
            % (text, len(parts))
        )
    for part, (name, low, high, names) in zip(parts, _FIELDS):
        for item in part.split(","):
            if not (_SPECIAL.fullmatch(item) and name.startswith("day")) and not _item_fits(item, low, high, names):
                raise ConfigurationError(
                    "the %s %r in the cron text %r is not within %d-%d" % (name, part, text, low, high)
                )
    return " ".join(parts)


def _item_fits(item: str, low: int, high: int, names: Dict[str, int]) -> bool:
    found = _RANGE.fullmatch(item)
    if found is None:
        return False
    first, last, step = found.groups()
    if step is not None and int(step) == 0:
        return False
    numbers = [_number(text, names) for text in (first, last) if text is not None]
    return all(number is not None and low <= number <= high for number in numbers)


def _number(text: str, names: Dict[str, int]) -> Optional[int]:
    return int(text) if text.isdigit() else names.get(text.upper())


def _options(
    timezone: str, name: str, configuration: str, parameters: Optional[Mapping[str, Any]], catch_up: str, overlap: str
) -> Dict[str, Any]:
    for label, value in (("timezone", timezone), ("name", name), ("configuration", configuration)):
        if not isinstance(value, str) or len(value) > MAX_NAME:
            raise ConfigurationError("a schedule's %s must be a string of at most %d characters" % (label, MAX_NAME))
    if not timezone.strip():
        raise ConfigurationError('a schedule\'s timezone must be a name such as "UTC" or "Europe/Berlin"')
    for label, value, choices in (("catch_up", catch_up, CATCH_UP), ("overlap", overlap, OVERLAP)):
        if value not in choices:
            raise ConfigurationError("a schedule's %s must be one of %s, not %r" % (label, ", ".join(choices), value))
    if not isinstance(parameters or {}, Mapping):
        raise ConfigurationError("a schedule's parameters must be a dict, not %r" % (parameters,))
    try:
        json.dumps(parameters or {})
    except (TypeError, ValueError, RecursionError) as wrong:
        raise ConfigurationError("a schedule's parameters must be JSON values: %s" % wrong) from None
    return {
        "timezone": timezone,
        "name": name,
        "configuration": configuration,
        "parameters": dict(parameters or {}),
        "catch_up": catch_up,
        "overlap": overlap,
    }


class Schedule:
    """What both have in common: ``kind``, ``expression`` and ``options``, as ``messages.ScheduleSpec`` names them."""

    kind: str
    expression: str
    options: Dict[str, Any]

    def __repr__(self) -> str:
        return "%s(%r, timezone=%r)" % (type(self).__name__, self.expression, self.options["timezone"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and (self.kind, self.expression, self.options) == (
            other.kind,
            other.expression,
            other.options,
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.expression, self.options["timezone"]))


class CronSchedule(Schedule):
    """``CronSchedule("0 9 * * MON", timezone="Europe/Berlin")``. Raises ``ConfigurationError``."""

    def __init__(
        self,
        cron: str,
        timezone: str = "UTC",
        *,
        name: str = "",
        configuration: str = "",
        parameters: Optional[Mapping[str, Any]] = None,
        catch_up: str = "latest",
        overlap: str = "skip",
    ) -> None:
        self.kind, self.expression = "cron", check_cron(cron)
        self.options = _options(timezone, name, configuration, parameters, catch_up, overlap)


class IntervalSchedule(Schedule):
    """``IntervalSchedule(300)``, ``(minutes=5)``, ``(timedelta(hours=1))`` or a cron text; seconds, 1 s to 366 days.

    Raises ``ConfigurationError``.
    """

    def __init__(
        self,
        interval: Union[int, float, timedelta, str, None] = None,
        timezone: str = "UTC",
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        name: str = "",
        configuration: str = "",
        parameters: Optional[Mapping[str, Any]] = None,
        catch_up: str = "latest",
        overlap: str = "skip",
    ) -> None:
        self.options = _options(timezone, name, configuration, parameters, catch_up, overlap)
        parts = [("seconds", seconds), ("minutes", minutes), ("hours", hours), ("days", days)]
        if interval is not None and any(value for _, value in parts):
            raise ConfigurationError("an interval is given once, either as the first argument or by units")
        if isinstance(interval, str) and not _is_number(interval):
            self.kind, self.expression = "cron", check_cron(interval)
        else:
            total = (
                _seconds(interval)
                if interval is not None
                else sum(_seconds(value) * factor for (_, value), factor in zip(parts, (1, 60, 3600, 86400)))
            )
            self.kind, self.expression = "interval", _checked_interval(total)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ConfigurationError("an interval must be seconds or a timedelta, not %r" % (value,))
    return float(value)


def _checked_interval(seconds: float) -> str:
    if not (math.isfinite(seconds) and 1 <= seconds <= LONGEST_INTERVAL):
        raise ConfigurationError("an interval must be between 1 second and 366 days, not %s seconds" % seconds)
    return str(int(seconds)) if seconds == int(seconds) else repr(seconds)


def named(schedules: Sequence[Schedule]) -> Dict[str, Schedule]:
    """The schedules of a flow by their names, of which each is unique. Raises ``ConfigurationError`` on one twice."""
    given = [schedule.options["name"] for schedule in schedules if schedule.options["name"]]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError("two schedules are named %r" % twice)
    free = (name for name in _default_names() if name not in given)
    return {schedule.options["name"] or next(free): schedule for schedule in schedules}


def _default_names() -> Iterator[str]:
    yield "default"
    number = 2
    while True:
        yield "default-%d" % number
        number += 1
