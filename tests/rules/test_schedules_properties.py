"""What holds for every schedule, every start and every zone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.schedules import Cron, Every, Once, Timing, due_between, in_words, latest_due, next_after, upcoming

WHOLE_HOUR_ZONES = ["Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata", "UTC"]
ZONES = [*WHOLE_HOUR_ZONES, "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Beirut"]

instants = st.datetimes(datetime(2015, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))
near_changes = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from([datetime(2026, month, day, tzinfo=UTC) for month, day in [(3, 28), (10, 24), (10, 3), (4, 4)]]),
    st.integers(0, 3 * 1440),
)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.builds(lambda step: f"*/{step}", st.integers(1, high)),
        st.builds(lambda a, b: f"{min(a, b)}-{max(a, b)}", number, number),
        st.lists(number, min_size=1, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
    )


times = st.builds(lambda minute, hour: f"{minute} {hour}", field(0, 59), field(0, 23))
crons = st.builds(
    lambda time, day, weekday, zone: Cron(f"{time} {day} * {weekday}", zone),
    times,
    st.one_of(st.just("*"), field(1, 28)),
    st.one_of(st.just("*"), field(0, 6)),
    st.sampled_from(ZONES),
)
timings: st.SearchStrategy[Timing] = st.one_of(
    crons,
    st.builds(Every, st.one_of(st.integers(1, 10**6), st.floats(1, 10**5)), instants),
    st.builds(Once, instants),
)


@settings(deadline=None)
@given(timings, st.one_of(instants, near_changes))
def test_due_times_rise_strictly_and_lie_after_the_start(timing: Timing, after: datetime) -> None:
    due = upcoming(timing, after, 12)

    assert all(earlier < later for earlier, later in pairwise([after, *due]))
    assert all(time.tzinfo is UTC for time in due)
    assert in_words(timing)


@settings(deadline=None)
@given(timings, st.one_of(instants, near_changes), st.floats(0, 1))
def test_the_answer_is_the_same_from_everywhere_before_it(timing: Timing, after: datetime, share: float) -> None:
    due = next_after(timing, after)

    if due is not None:
        between = min(after + (due - after) * share, due - timedelta(microseconds=1))
        assert next_after(timing, between) == due


@settings(deadline=None)
@given(timings, st.one_of(instants, near_changes), st.integers(0, 20))
def test_a_list_is_what_asking_again_and_again_gives(timing: Timing, after: datetime, count: int) -> None:
    asked: list[datetime] = []
    due = next_after(timing, after)
    while due is not None and len(asked) < count:
        asked.append(due)
        due = next_after(timing, due)

    assert upcoming(timing, after, count) == asked


@settings(deadline=None)
@given(timings, st.one_of(instants, near_changes), st.integers(0, 10**6), st.integers(0, 15))
def test_due_between_is_the_upcoming_list_cut_at_the_end(
    timing: Timing, after: datetime, seconds: int, limit: int
) -> None:
    until = after + timedelta(seconds=seconds)

    found = due_between(timing, after, until, limit)

    assert found == [due for due in upcoming(timing, after, limit) if due <= until]


@settings(deadline=None)
@given(timings, st.one_of(instants, near_changes), st.integers(0, 40_000))
def test_the_latest_due_time_is_the_last_of_all(timing: Timing, after: datetime, seconds: int) -> None:
    until = after + timedelta(seconds=seconds)

    every = due_between(timing, after, until, 100_000)

    assert latest_due(timing, after, until) == (every[-1] if every else None)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(ZONES), st.integers(2018, 2030))
def test_a_daily_job_fires_exactly_once_on_every_local_date(minute: int, hour: int, zone: str, year: int) -> None:
    place = ZoneInfo(zone)
    start, end = datetime(year, 1, 1, tzinfo=place), datetime(year + 3, 1, 1, tzinfo=place)

    due = due_between(Cron(f"{minute} {hour} * * *", zone), start - timedelta(microseconds=1), end, 5000)

    fired = Counter(time.astimezone(place).date() for time in due)
    fired.pop(end.date(), None)  # midnight jobs reach the first instant of the next year
    every_day = {date(year, 1, 1) + timedelta(days=day) for day in range((end.date() - start.date()).days)}
    assert set(fired) == every_day
    assert set(fired.values()) == {1}


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 59), st.sampled_from(WHOLE_HOUR_ZONES), st.integers(2018, 2030))
def test_an_hourly_job_fires_every_3600_seconds_all_year(minute: int, zone: str, year: int) -> None:
    due = upcoming(Cron(f"{minute} * * * *", zone), datetime(year, 1, 1, tzinfo=UTC), 24 * 366)

    assert {(later - earlier).total_seconds() for earlier, later in pairwise(due)} == {3600.0}


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 5, 10, 15, 30]), st.sampled_from(ZONES), near_changes)
def test_a_job_every_few_minutes_follows_elapsed_time_through_every_change(
    step: int, zone: str, after: datetime
) -> None:
    due = upcoming(Cron(f"*/{step} * * * *", zone), after, 300)

    assert {(later - earlier).total_seconds() for earlier, later in pairwise(due)} == {60.0 * step}


@settings(deadline=None)
@given(times, field(1, 31), st.integers(1, 12), instants)
def test_without_clock_changes_it_fires_at_every_minute_that_matches(
    time: str, day: str, month: int, after: datetime
) -> None:
    """Against a second reading of the fields, minute by minute, over two days from the first of the month."""
    start = after.replace(month=month, day=1, hour=0, minute=0, second=0, microsecond=0)
    minutes = [start + timedelta(minutes=number) for number in range(1, 2 * 1440 + 1)]

    due = due_between(Cron(f"{time} {day} * *"), start, minutes[-1], 10_000)

    tested = [(fields, lows) for fields, lows in zip(f"{time} {day}".split(), (0, 0, 1), strict=True)]
    assert due == [
        minute
        for minute in minutes
        if all(matches(text, low, number) for (text, low), number in zip(tested, _numbers(minute), strict=True))
    ]


def _numbers(minute: datetime) -> tuple[int, int, int]:
    return minute.minute, minute.hour, minute.day


def matches(text: str, low: int, number: int) -> bool:
    head, _, step = text.partition("/")
    if step:
        return (number - low) % int(step) == 0
    ranges = [part.split("-") for part in head.split(",")]
    return head == "*" or any(int(ends[0]) <= number <= int(ends[-1]) for ends in ranges)
