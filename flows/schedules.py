"""When a schedule is due: cron, interval and one-off, each with the law at clock changes. Pure: no clock, no database.

The law (crontab(5) in the five fields; at clock changes as said below):

* A **fixed-time job** names its minutes and hours, with neither written `*` nor covering the whole field. Each of its
  local readings fires once: the first time on the day that repeats the hour, and at the first instant after the gap on
  the day that skips it. Several readings inside one gap are one run, as they fall due at one instant.
* A **wildcard job** (`*`, `*/n` or every value in the minute or the hour field) follows elapsed time. In the repeated
  hour it fires again where the unchanged clock would have fired too, so `*/30 * * * *` goes on every 30 real minutes
  and `0 */2 * * *` is not doubled. After a gap it goes on at once; a skipped reading that no later reading stands in
  for (`0 */2` at 02:00) is made up for at the first instant after the gap.
* Day of month and day of week, when both are restricted, are joined by *or*.

Every instant that leaves this module is an aware UTC datetime.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterError, croniter

LONGEST_EXPRESSION: Final = 128
LONGEST_INTERVAL: Final = 366 * 24 * 3600.0  # seconds
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
_PROBE: Final = datetime(2000, 1, 1)  # from here every date that exists comes within croniter's 50 years

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class BadSchedule(ValueError):
    """A schedule that cannot be used; the text is one sentence for the user: what is wrong and what would be right."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: dict[str, int]
    special: re.Pattern[str] | None  # what croniter adds to crontab(5): L, 15W, MON#2, L5

    @property
    def span(self) -> int:
        return 7 if self.high == 7 else self.high - self.low + 1  # on the eighth day it is Sunday again

    def wrapped(self, number: int) -> int:
        return self.low + (number - self.low) % self.span


_FIELDS: Final = (
    _Field("minute", 0, 59, {}, None),
    _Field("hour", 0, 23, {}, None),
    _Field("day of month", 1, 31, {}, re.compile(r"L|(0?[1-9]|[12]\d|3[01])W", re.ASCII)),
    _Field("month", 1, 12, {name[:3].upper(): number for number, name in enumerate(_MONTHS, 1)}, None),
    _Field(
        "day of week",
        0,
        7,
        {name[:3].upper(): number for number, name in enumerate(_WEEKDAYS)},
        re.compile(r"([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)#[1-5]|L[0-7]", re.ASCII),
    ),
)
_TOKEN: Final = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True)
class CronFields:
    """A cron text taken apart: each field canonical (`*`, numbers, or croniter's specials), times as sorted numbers."""

    fields: tuple[str, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    wildcard: bool
    engine: croniter  # never stepped itself: every search works on a copy

    def next_reading(self, reading: datetime) -> datetime | None:
        """The first matching reading of a clock on the wall (naive) after `reading`; None past the calendar's end."""
        engine = copy.copy(self.engine)
        try:
            return engine.get_next(datetime, start_time=reading)
        except (CroniterError, OverflowError, ValueError):
            return None

    def matches_too(self, reading: datetime, known: datetime) -> bool:
        """Whether `reading` matches as well as `known`, which is known to match."""
        if reading.date() == known.date():
            return reading.hour in self.hours and reading.minute in self.minutes
        return self.next_reading(reading - _MINUTE) == reading


@dataclass(frozen=True)
class Cron:
    """Five crontab(5) fields or an `@alias`, read on the clocks of an IANA time zone. Raises BadSchedule."""

    text: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        cron_fields(self.text)
        zone(self.timezone)


@dataclass(frozen=True)
class Every:
    """Every `seconds` (at least 1), counted in UTC from `anchor`, so that no restart shifts it. Raises BadSchedule."""

    seconds: float
    anchor: datetime = EPOCH

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 1 <= self.seconds <= LONGEST_INTERVAL):
            raise BadSchedule(f"The interval {self.seconds:g} is not between 1 second and 366 days (31622400 seconds).")
        object.__setattr__(self, "anchor", _aware(self.anchor, "anchor"))


@dataclass(frozen=True)
class Once:
    """One instant. Raises BadSchedule when it has no time zone."""

    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _aware(self.at, "time"))


Timing = Cron | Every | Once


def parse(kind: str, expression: str, timezone: str = "UTC", anchor: datetime | None = None) -> Timing:
    """The timing for "cron" (five fields), "interval" (seconds as text) or "once" (ISO 8601; without an offset it is
    read in `timezone`). Raises BadSchedule for everything that could not be kept."""
    reader = _READERS.get(kind)
    if reader is None:
        raise BadSchedule(f"Unknown kind of schedule {_quote(kind)}; use one of {', '.join(_READERS)}.")
    text = " ".join(expression.split(None)) if isinstance(expression, str) else ""
    if not text:
        raise BadSchedule(f"The {kind} expression is empty; write for example {_EXAMPLES[kind]!r}.")
    if len(expression) > LONGEST_EXPRESSION:
        raise BadSchedule(f"The {kind} expression has {len(expression)} characters; at most {LONGEST_EXPRESSION}.")
    zone(timezone)
    return reader(text, timezone, anchor)


def next_after(timing: Timing, after: datetime) -> datetime | None:
    """The first due time strictly after `after` (aware), in UTC; None when there is none."""
    if after.tzinfo is None:
        raise ValueError("after must be an aware datetime")
    return _SEARCHES[type(timing)](timing, after.astimezone(UTC))


def upcoming(timing: Timing, after: datetime, count: int = 20) -> list[datetime]:
    """The next `count` due times after `after`, oldest first."""
    return _take(timing, after, None, count)


def due_between(timing: Timing, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The first `limit` due times t with after < t <= until, oldest first."""
    return _take(timing, after, until, limit)


def latest_due(timing: Timing, after: datetime, until: datetime) -> datetime | None:
    """The newest due time t with after < t <= until, found without walking through all of them (long downtimes)."""
    found = next_after(timing, after)
    if found is None or found > until:
        return None
    too_late = until.astimezone(UTC)
    while too_late - found > _SECOND:
        middle = found + (too_late - found) / 2
        due = next_after(timing, middle)
        if due is None or due > until:
            too_late = middle
        else:
            found = due
    beside = next_after(timing, found)  # the search ends a second apart, and no two due times are closer
    return beside if beside is not None and beside <= until else found


def _take(timing: Timing, after: datetime, until: datetime | None, count: int) -> list[datetime]:
    times: list[datetime] = []
    due: datetime | None = after
    while len(times) < count and due is not None:
        due = next_after(timing, due)
        if due is None or (until is not None and due > until):
            break
        times.append(due)
    return times


# --- searching -------------------------------------------------------------------------------------------------------


def _next_cron(timing: Cron, after: datetime) -> datetime | None:
    fields = cron_fields(timing.text)
    search = _next_elapsed if fields.wildcard else _next_fixed
    try:
        return search(fields, zone(timing.timezone), after)
    except OverflowError:  # the year 9999 ends
        return None


def _next_every(timing: Every, after: datetime) -> datetime | None:
    step = timedelta(seconds=timing.seconds)  # whole microseconds: no drift, however far from the anchor
    try:
        return timing.anchor + ((after - timing.anchor) // step + 1) * step
    except OverflowError:
        return None


def _next_once(timing: Once, after: datetime) -> datetime | None:
    return timing.at if timing.at > after else None


_SEARCHES: Final[dict[type, Callable[..., datetime | None]]] = {
    Cron: _next_cron,
    Every: _next_every,
    Once: _next_once,
}


def _next_fixed(fields: CronFields, where: ZoneInfo, after: datetime) -> datetime | None:
    reading = after.astimezone(where).replace(tzinfo=None, fold=0)
    while (match := fields.next_reading(reading)) is not None:
        instant = instant_of(match, where)
        if instant > after:
            return instant
        reading = match
    return None


def _next_elapsed(fields: CronFields, where: ZoneInfo, after: datetime) -> datetime | None:
    """Walk through the stretches of constant offset; within one, readings and instants differ by a constant."""
    start, offset = after, _offset(after, where)
    reading = (start + offset).replace(tzinfo=None)
    while (match := fields.next_reading(reading)) is not None:
        instant = match.replace(tzinfo=UTC) - offset
        change = _first_change(where, start, instant)
        if change is None:
            if not _is_doubled(fields, where, match, instant):
                return instant
            start, reading = instant, match
        elif _is_lost(fields, match, change):
            return change.at
        else:
            start, offset = change.at, change.new
            reading = (start + offset).replace(tzinfo=None) - _MINUTE
    return None


def _is_doubled(fields: CronFields, where: ZoneInfo, match: datetime, instant: datetime) -> bool:
    """In the second pass of a repeated hour: would the unchanged clock not have fired now? Then it is a double."""
    local = instant.astimezone(where)
    if not local.fold:
        return False
    unchanged = match + ((local.replace(fold=0).utcoffset() or timedelta()) - (local.utcoffset() or timedelta()))
    return not fields.matches_too(unchanged, match)


def _is_lost(fields: CronFields, match: datetime | None, change: _Change) -> bool:
    """Whether a gap swallows a reading (from `match` on) that no reading of the changed clock stands in for."""
    opens, closes = ((change.at + offset).replace(tzinfo=None) for offset in (change.old, change.new))
    while match is not None and opens <= match < closes:
        if not fields.matches_too(match + (closes - opens), match):
            return True
        match = fields.next_reading(match)
    return False


# --- zones and their clock changes -----------------------------------------------------------------------------------


class _Change(NamedTuple):
    at: datetime  # the first instant with the new offset
    old: timedelta
    new: timedelta


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name. Raises BadSchedule with the nearest known name."""
    known = _zone_names()
    if name in known:
        return ZoneInfo(name)
    offset = _OFFSET.fullmatch(str(name)[:64].strip())
    if offset is not None:
        raise BadSchedule(f"Unknown time zone {_quote(name)}; {_zone_of(offset)}")
    cities = [full for full in sorted(known) if not full.startswith(("Etc/GMT+", "Etc/GMT-"))]
    spellings = {word.lower(): full for full in cities for word in (full.split("/")[-1], full)}
    near = get_close_matches(str(name)[:64].lower().replace(" ", "_"), spellings, n=1)
    hint = f"did you mean {spellings[near[0]]!r}?" if near else "use a name such as 'Europe/Berlin' or 'UTC'."
    raise BadSchedule(f"Unknown time zone {_quote(name)}; {hint}")


_OFFSET: Final = re.compile(
    r"(?:UTC|GMT|Z)?\s*(?P<sign>[+\-−])\s*(?P<hours>\d{1,2})(?::?(?P<minutes>\d\d))?", re.A | re.I
)


def _zone_of(offset: re.Match[str]) -> str:
    """What to write for ``GMT+2``. The names ``Etc/GMT±n`` have POSIX's sign, which counts westward."""
    ahead, hours, minutes = offset["sign"] == "+", int(offset["hours"]), int(offset["minutes"] or 0)
    fixed = f"Etc/GMT{'-' if ahead else '+'}{hours}"
    if minutes == 0 and fixed in _zone_names():
        how = f"{hours} hour{'s' if hours != 1 else ''} {'ahead of' if ahead else 'behind'} UTC"
        return f"for {how} the whole year write {fixed!r} (its sign is reversed), else a city such as 'Europe/Berlin'."
    return "write a city, such as 'Europe/Berlin' or 'Asia/Kolkata'."


def instant_of(reading: datetime, where: ZoneInfo) -> datetime:
    """The UTC instant of a naive reading: its first occurrence, or the first instant after the gap that skips it."""
    instant = reading.replace(tzinfo=where, fold=0).astimezone(UTC)
    if instant.astimezone(where).replace(tzinfo=None, fold=0) == reading:
        return instant
    return _change_between(where, reading.replace(tzinfo=where, fold=1).astimezone(UTC), instant).at


def _offset(instant: datetime, where: ZoneInfo) -> timedelta:
    return instant.astimezone(where).utcoffset() or timedelta()


def _change_between(where: ZoneInfo, before: datetime, after: datetime) -> _Change:
    old, new = _offset(before, where), _offset(after, where)
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if _offset(middle, where) == old:
            before = middle
        else:
            after = middle
    return _Change(after.replace(microsecond=0), old, new)


@lru_cache(maxsize=4096)
def _changes(where: ZoneInfo, year: int) -> tuple[_Change, ...]:
    """The clock changes of one UTC year. A change that is undone within a day would be missed; no zone has one."""
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(367 if year < 9999 else 365)]
    differing = (pair for pair in pairwise(days) if _offset(pair[0], where) != _offset(pair[1], where))
    found = (_change_between(where, *pair) for pair in differing)
    return tuple(change for change in found if change.at.year == year)


def _first_change(where: ZoneInfo, after: datetime, until: datetime) -> _Change | None:
    def between() -> Iterator[_Change]:
        for year in range(after.year, until.year + 1):
            yield from (change for change in _changes(where, year) if after < change.at <= until)

    return next(between(), None)


# --- reading ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def cron_fields(text: str) -> CronFields:
    """A cron text, taken apart and checked. Raises BadSchedule."""
    parts = _split(text)
    fields = tuple(_canonical(part, field) for part, field in zip(parts, _FIELDS, strict=True))
    if "*" not in fields[2::2] and re.search(r"W|#|L\d", f"{fields[2]} {fields[4]}"):
        raise BadSchedule(f"{_quote(text)} combines W, # or L with the other day field; leave that one `*`.")
    try:
        engine = croniter(" ".join(fields), _PROBE)
    except (CroniterError, ValueError) as error:
        raise BadSchedule(f"{_quote(text)} is not a cron expression; write for example '0 6 * * *'.") from error
    minutes, hours = (
        tuple(range(field.span)) if text == "*" else tuple(map(int, text.split(",")))
        for text, field in zip(fields[:2], _FIELDS[:2], strict=True)
    )
    wildcard = any("*" in part for part in (*parts[:2], *fields[:2]))
    cron = CronFields(fields, minutes, hours, wildcard, engine)
    if cron.next_reading(_PROBE) is None:
        raise BadSchedule(f"{_quote(text)} never fires: no month it names has that day; use a day that exists.")
    return cron


def _split(text: str) -> list[str]:
    if len(text) > LONGEST_EXPRESSION:
        raise BadSchedule(f"The cron expression has {len(text)} characters; at most {LONGEST_EXPRESSION}.")
    if text.startswith("@") and text.lower() not in ALIASES:
        raise BadSchedule(f"Unknown alias {_quote(text)}; use one of {', '.join(ALIASES)}.")
    parts = ALIASES.get(text.lower(), text).upper().split()
    if len(parts) != len(_FIELDS):
        seconds = " There are none for seconds and years: use an interval." if len(parts) in (6, 7) else ""
        raise BadSchedule(
            f"A cron expression has five fields (minute, hour, day of month, month, day of week), not {len(parts)}: "
            f"{_quote(text)}.{seconds}"
        )
    return parts


def _canonical(part: str, field: _Field) -> str:
    tokens = part.split(",")
    if {"*", "*/1"} & set(tokens) or (part == "?" and field.special):
        return "*"
    special = [token for token in tokens if field.special and field.special.fullmatch(token)]
    values = {value for token in tokens if token not in special for value in _values(token, part, field)}
    if special != ["L"] and special and (values or (len(tokens) > 1 and "W" in part)):
        raise BadSchedule(f"{_quote(part)} mixes two kinds of days in the {field.name} field; write one schedule each.")
    if len(values) == field.span and not field.special:
        return "*"  # not so for the two day fields, where `*` takes the field out of the *or*
    return ",".join([*map(str, sorted(values)), *special])


def _values(token: str, part: str, field: _Field) -> Iterator[int]:
    """The numbers of `n`, `a-b`, `*/n`, `a-b/n` or `a/n` (from a to the end); a range may wrap (`22-2`, `FRI-MON`)."""
    found = _TOKEN.fullmatch(token)
    if found is None or (found["first"] == "*" and found["last"]):
        raise _bad_field(part, field)
    step = int(found["step"] or 1)
    if not 1 <= step <= field.high:
        raise BadSchedule(f"The step /{step} in the {field.name} field {_quote(part)} is not from 1 to {field.high}.")
    first = field.low if found["first"] == "*" else _number(found["first"], part, field)
    last = _number(found["last"], part, field) if found["last"] else first
    if found["step"] and not found["last"]:
        first = field.wrapped(first)
        last = field.low + field.span - 1
    if last < first:
        last += field.span
    return map(field.wrapped, range(first, last + 1, step))


def _number(text: str, part: str, field: _Field) -> int:
    number = field.names.get(text, int(text) if text.isdigit() else -1)
    if not field.low <= number <= field.high:
        raise _bad_field(part, field)
    return number


def _bad_field(part: str, field: _Field) -> BadSchedule:
    names = f" or {next(iter(field.names))}-{list(field.names)[-1]}" if field.names else ""
    return BadSchedule(
        f"{_quote(part)} is not valid in the {field.name} field: use {field.low}-{field.high}{names}, alone or as "
        "a list `a,b`, a range `a-b`, a step `*/n`, or `*`."
    )


def _read_interval(text: str, timezone: str, anchor: datetime | None) -> Every:
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        raise BadSchedule(f"{_quote(text)} is not a number of seconds; write for example '300' for every five minutes.")
    return Every(float(text), EPOCH if anchor is None else anchor)


def _read_once(text: str, timezone: str, anchor: datetime | None) -> Once:
    try:
        at = datetime.fromisoformat(text)
        return Once(at if at.tzinfo else instant_of(at, zone(timezone)))
    except (ValueError, OverflowError) as error:
        raise BadSchedule(f"{_quote(text)} is not a date and time; write for example '2026-01-31 06:00'.") from error


_READERS: Final[dict[str, Callable[[str, str, datetime | None], Timing]]] = {
    "cron": lambda text, timezone, anchor: Cron(text, timezone),
    "interval": _read_interval,
    "once": _read_once,
}
_EXAMPLES: Final = {"cron": "0 6 * * *", "interval": "300", "once": "2026-01-31 06:00"}


def _aware(moment: datetime, what: str) -> datetime:
    if moment.tzinfo is None:
        raise BadSchedule(f"The {what} {moment.isoformat(' ')} has no time zone; add one, such as '+00:00'.")
    return moment.astimezone(UTC)


def _quote(text: object) -> str:
    shown = str(text)
    return repr(shown if len(shown) <= 64 else shown[:63] + "…")


# --- in words --------------------------------------------------------------------------------------------------------

_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(timing: Timing) -> str:
    """The timing as a person says it ("Monday 09:00 (Europe/Berlin)"); an unusual cron expression stays as it is."""
    return _WORDS[type(timing)](timing)


def _cron_in_words(timing: Cron) -> str:
    fields = cron_fields(timing.text)
    words = _times_in_words(fields) or " ".join(timing.text.split())
    return words if timing.timezone == "UTC" else f"{words} ({timing.timezone})"


def _times_in_words(fields: CronFields) -> str | None:
    _, hours, *days = fields.fields
    if days == ["*"] * 3 and (hours == "*" or len(fields.hours) > 3):
        return _rhythm_in_words(fields)
    clock = [f"{hour:02}:{minute:02}" for hour in fields.hours for minute in fields.minutes]
    if len(clock) > 3:
        return None
    times = _and(clock)
    day, month, weekday = days
    if days == ["*"] * 3:
        return f"{times} daily"
    if (day, month) == ("*", "*") and re.fullmatch(r"[0-6](,[0-6])*", weekday):
        return f"{_weekdays_in_words([int(number) for number in weekday.split(',')])} {times}"
    if weekday != "*" or not (day == "L" or day.isdigit()) or not (month == "*" or month.isdigit()):
        return None
    which = "the last day" if day == "L" else f"day {day}"
    return f"on {which} of {'the month' if month == '*' else _MONTHS[int(month) - 1]} at {times}"


def _rhythm_in_words(fields: CronFields) -> str | None:
    minutes, hours = fields.minutes, fields.hours
    if len(hours) == 24 and (step := _even_step(minutes, 60)):
        return _every(step * 60)
    if len(hours) == 24 and len(minutes) <= 3:
        return "hourly at " + _and([f":{minute:02}" for minute in minutes])
    if len(minutes) == 1 and (step := _even_step(hours, 24)):
        return _every(step * 3600) + (f" at :{minutes[0]:02}" if minutes[0] else "")
    return None


def _even_step(values: tuple[int, ...], span: int) -> int | None:
    """The step of `*/n` when it divides the span, so that "every n" is true across the end of it too."""
    step = span // len(values)
    return step if step < span and values == tuple(range(0, span, step)) else None


def _weekdays_in_words(numbers: list[int]) -> str:
    if numbers == [1, 2, 3, 4, 5]:
        return "Monday to Friday"
    return _and([_WEEKDAYS[number] for number in sorted(numbers, key=lambda number: (number - 1) % 7)])


def _every(seconds: float) -> str:
    size, unit = next((pair for pair in _UNITS if seconds % pair[0] == 0), _UNITS[-1])
    count = seconds / size
    return f"every {unit}" if count == 1 else f"every {count:.10g} {unit}s"


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


_WORDS: Final[dict[type, Callable[..., str]]] = {
    Cron: _cron_in_words,
    Every: lambda timing: _every(timing.seconds),
    Once: lambda timing: f"once, {timing.at:%Y-%m-%d %H:%M} UTC",
}
