"""The law at clock changes: fixed-time jobs once, wildcard jobs in elapsed time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flows.schedules import Cron, due_between, next_after, upcoming

BERLIN_GAP = ("Europe/Berlin", datetime(2026, 3, 29))  # 02:00 +01:00 → 03:00 +02:00
BERLIN_FOLD = ("Europe/Berlin", datetime(2026, 10, 25))  # 03:00 +02:00 → 02:00 +01:00
NEW_YORK_GAP = ("America/New_York", datetime(2026, 3, 8))  # 02:00 → 03:00
NEW_YORK_FOLD = ("America/New_York", datetime(2026, 11, 1))  # 02:00 → 01:00
LORD_HOWE_GAP = ("Australia/Lord_Howe", datetime(2026, 10, 4))  # 02:00 +10:30 → 02:30 +11:00
LORD_HOWE_FOLD = ("Australia/Lord_Howe", datetime(2026, 4, 5))  # 02:00 +11:00 → 01:30 +10:30
BEIRUT_GAP = ("Asia/Beirut", datetime(2026, 3, 29))  # 00:00 → 01:00: the day has no midnight
KOLKATA = ("Asia/Kolkata", datetime(2026, 3, 29))  # no clock change at all


def fires(text: str, place: tuple[str, datetime], hours: tuple[int, int] = (0, 24)) -> list[str]:
    """The readings (with offset) at which the job fires on that local day, within the given hours of the wall clock."""
    zone, day = place
    start = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(microseconds=1)
    due_times = due_between(Cron(text, zone), start, start + timedelta(days=2), 9999)
    times = [due.astimezone(ZoneInfo(zone)) for due in due_times]
    return [f"{due:%H:%M%z}"[:8] for due in times if due.date() == day.date() and hours[0] <= due.hour < hours[1]]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("30 2 * * *", BERLIN_GAP, ["03:00+02"]),
        ("0,30 2 * * *", BERLIN_GAP, ["03:00+02"]),
        ("0 2,3 * * *", BERLIN_GAP, ["03:00+02"]),
        ("30 1,2,3 * * *", BERLIN_GAP, ["01:30+01", "03:00+02", "03:30+02"]),
        ("30 2 * * *", NEW_YORK_GAP, ["03:00-04"]),
        ("15 2 * * *", LORD_HOWE_GAP, ["02:30+11"]),
        ("45 2 * * *", LORD_HOWE_GAP, ["02:45+11"]),
        ("0 0 * * *", BEIRUT_GAP, ["01:00+03"]),
        ("30 2 * * *", KOLKATA, ["02:30+05"]),
    ],
)
def test_a_fixed_time_that_the_gap_skips_runs_once_right_after_it(
    text: str, place: tuple[str, datetime], expected: list[str]
) -> None:
    assert fires(text, place) == expected


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("30 2 * * *", BERLIN_FOLD, ["02:30+02"]),
        ("0,30 2 * * *", BERLIN_FOLD, ["02:00+02", "02:30+02"]),
        ("0 1-3 * * *", BERLIN_FOLD, ["01:00+02", "02:00+02", "03:00+01"]),
        ("30 1 * * *", NEW_YORK_FOLD, ["01:30-04"]),
        ("45 1 * * *", LORD_HOWE_FOLD, ["01:45+11"]),
        ("15 1 * * *", LORD_HOWE_FOLD, ["01:15+11"]),
    ],
)
def test_a_fixed_time_in_the_repeated_hour_runs_once_the_first_time(
    text: str, place: tuple[str, datetime], expected: list[str]
) -> None:
    assert fires(text, place) == expected


@pytest.mark.parametrize(
    ("text", "place", "hours", "expected"),
    [
        ("*/30 * * * *", BERLIN_FOLD, (2, 3), ["02:00+02", "02:30+02", "02:00+01", "02:30+01"]),
        ("0 * * * *", BERLIN_FOLD, (1, 4), ["01:00+02", "02:00+02", "02:00+01", "03:00+01"]),
        ("*/30 1-4 * * *", BERLIN_FOLD, (2, 3), ["02:00+02", "02:30+02", "02:00+01", "02:30+01"]),
        ("*/30 1-3 * * *", BERLIN_FOLD, (2, 3), ["02:00+02", "02:30+02", "02:00+01", "02:30+01"]),
        ("0 0-23 * * *", BERLIN_FOLD, (2, 3), ["02:00+02", "02:00+01"]),
        ("0 * * * *", BERLIN_GAP, (1, 5), ["01:00+01", "03:00+02", "04:00+02"]),
        ("30 * * * *", BERLIN_GAP, (1, 5), ["01:30+01", "03:30+02", "04:30+02"]),
        ("*/30 * * * *", NEW_YORK_GAP, (1, 4), ["01:00-05", "01:30-05", "03:00-04", "03:30-04"]),
        ("*/30 * * * *", LORD_HOWE_GAP, (1, 3), ["01:00+10", "01:30+10", "02:30+11"]),
        ("*/30 * * * *", LORD_HOWE_FOLD, (1, 3), ["01:00+11", "01:30+11", "01:30+10", "02:00+10", "02:30+10"]),
    ],
)
def test_a_wildcard_job_follows_elapsed_time(
    text: str, place: tuple[str, datetime], hours: tuple[int, int], expected: list[str]
) -> None:
    assert fires(text, place, hours) == expected


@pytest.mark.parametrize(
    ("text", "place", "hours", "expected"),
    [
        ("0 */2 * * *", BERLIN_GAP, (0, 5), ["00:00+01", "03:00+02", "04:00+02"]),
        ("*/15 2 * * *", BERLIN_GAP, (0, 5), ["03:00+02"]),
        ("0 * * * *", LORD_HOWE_GAP, (1, 4), ["01:00+10", "02:30+11", "03:00+11"]),
    ],
)
def test_a_wildcard_job_makes_up_once_for_what_the_gap_took_for_good(
    text: str, place: tuple[str, datetime], hours: tuple[int, int], expected: list[str]
) -> None:
    assert fires(text, place, hours) == expected


@pytest.mark.parametrize(
    ("text", "place", "hours", "expected"),
    [
        ("0 */2 * * *", BERLIN_FOLD, (0, 5), ["00:00+02", "02:00+02", "04:00+01"]),
        ("*/30 2 * * *", BERLIN_FOLD, (0, 5), ["02:00+02", "02:30+02"]),
        ("45 * * * *", LORD_HOWE_FOLD, (1, 3), ["01:45+11", "02:45+10"]),
    ],
)
def test_a_wildcard_job_is_not_doubled_by_the_repeated_hour(
    text: str, place: tuple[str, datetime], hours: tuple[int, int], expected: list[str]
) -> None:
    assert fires(text, place, hours) == expected


def test_a_search_that_starts_in_the_second_pass_does_not_go_back_to_the_first() -> None:
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 +01:00

    assert next_after(Cron("30 2 * * *", "Europe/Berlin"), second_pass) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert next_after(Cron("*/30 * * * *", "Europe/Berlin"), second_pass) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_a_day_that_a_zone_left_out_is_made_up_for_when_the_next_one_begins() -> None:
    """Samoa had no 30 December 2011."""
    due = upcoming(Cron("0 12 * * *", "Pacific/Apia"), datetime(2011, 12, 29, tzinfo=UTC), 3)

    local = [time.astimezone(ZoneInfo("Pacific/Apia")) for time in due]
    assert [f"{time:%d %H:%M}" for time in local] == ["29 12:00", "31 00:00", "31 12:00"]


def test_the_end_of_the_gap_fires_once_wherever_the_asking_clock_stands() -> None:
    daily = Cron("30 2 * * *", "Europe/Berlin")
    gap_ends = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)

    assert next_after(daily, (gap_ends - timedelta(seconds=1)).astimezone(ZoneInfo("Asia/Tokyo"))) == gap_ends
    assert next_after(daily, gap_ends) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
