"""What is accepted, what is refused with which sentence, and how a schedule is said in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from flows.schedules import BadSchedule, Cron, Every, Once, Timing, in_words, latest_due, next_after, parse, upcoming

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def first(text: str, count: int = 3) -> list[str]:
    return [f"{due:%m-%d %H:%M}" for due in upcoming(parse("cron", text), NEW_YEAR, count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 9 * JAN MON", ["01-05 09:00", "01-12 09:00", "01-19 09:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 5-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 * * FRI-MON", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 22-1 * * *", ["01-01 01:00", "01-01 22:00", "01-01 23:00"]),
        ("0 20-4/3 * * *", ["01-01 02:00", "01-01 20:00", "01-01 23:00"]),
        ("5-5 * * * *", ["01-01 00:05", "01-01 01:05", "01-01 02:05"]),
        ("50/5 0 * * *", ["01-01 00:50", "01-01 00:55", "01-02 00:50"]),
        ("0 0 1 * MON", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 */1 * MON", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 30 2 MON", ["02-02 00:00", "02-09 00:00", "02-16 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 1,L * ?", ["01-31 00:00", "02-01 00:00", "02-28 00:00"]),
        ("0 0 * * MON#1", ["01-05 00:00", "02-02 00:00", "03-02 00:00"]),
        ("0 0 * * L5", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 31W * *", ["01-30 00:00", "02-27 00:00", "03-31 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("@DAILY", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("@weekly", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("@monthly", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
        ("@annually", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("  0   0 * *\t* ", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
    ],
)
def test_a_cron_expression_fires_as_crontab_says(text: str, expected: list[str]) -> None:
    assert first(text) == expected


def test_a_leap_day_is_accepted_and_waits_for_its_year() -> None:
    assert next_after(parse("cron", "0 0 29 2 *"), NEW_YEAR) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        (" \t ", "empty"),
        ("* * * *", "five fields"),
        ("* * * * * *", "no.* seconds|none for seconds"),
        ("0 0 0 1 1 * 2030", "none for seconds and years"),
        ("* " * 70, "at most 128"),
        ("60 * * * *", "minute field: use 0-59"),
        ("0 24 * * *", "hour field: use 0-23"),
        ("0 0 0 * *", "day of month field: use 1-31"),
        ("0 0 * 13 *", "month field: use 1-12 or JAN-DEC"),
        ("0 0 * * 8", "day of week field: use 0-7 or SUN-SAT"),
        ("0 0 * MON *", "'MON' is not valid in the month field"),
        ("*/70 * * * *", "step /70 in the minute field"),
        ("*/0 * * * *", "step /0 in the minute field"),
        ("0 */24 * * *", "step /24 in the hour field"),
        ("0 0 * * */8", "step /8 in the day of week field"),
        ("R * * * *", "minute field"),
        ("R(0-5) * * * *", "minute field"),
        ("H H * * *", "minute field"),
        ("@reboot", "Unknown alias '@reboot'"),
        ("@every 5m", "Unknown alias"),
        ("1,,2 * * * *", "minute field"),
        ("1/ * * * *", "minute field"),
        ("-5 * * * *", "minute field"),
        ("*-5 * * * *", "minute field"),
        ("٣ * * * *", "minute field"),
        ("? * * * *", "minute field"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 1 * MON#1", "other day field"),
        ("0 0 15W,3 * *", "day of month field"),
        ("0 0 * * MON,FRI#2", "day of week field"),
        ("0 0 * * MON#6", "day of week field"),
    ],
)
def test_a_cron_expression_that_would_surprise_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(BadSchedule, match=sentence):
        parse("cron", text)


@pytest.mark.parametrize(
    ("zone", "sentence"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("berlin", "did you mean 'Europe/Berlin'"),
        ("new york", "did you mean 'America/New_York'"),
        ("../../etc/passwd", "Unknown time zone"),
        ("", "Unknown time zone ''; use a name such as"),
        ("x" * 10_000, "Unknown time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_one(zone: str, sentence: str) -> None:
    with pytest.raises(BadSchedule, match=sentence) as refused:
        parse("cron", "0 0 * * *", zone)

    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", ["0.5", "0", "-5", "nan", "inf", "1e3", "five", "5m", "99999999999", "9" * 128])
def test_an_interval_is_a_number_of_seconds_from_one_second_up(text: str) -> None:
    with pytest.raises(BadSchedule):
        parse("interval", text)


def test_an_interval_keeps_its_beat_from_the_anchor_before_and_after_it() -> None:
    anchor = datetime(2026, 1, 1, 0, 0, 7, tzinfo=timezone(timedelta(hours=1)))
    beat = parse("interval", "300", anchor=anchor)

    assert next_after(beat, NEW_YEAR) == NEW_YEAR + timedelta(seconds=7)
    assert next_after(beat, NEW_YEAR - timedelta(days=1)) == NEW_YEAR - timedelta(days=1, seconds=-7)
    assert next_after(beat, NEW_YEAR + timedelta(seconds=7)) == NEW_YEAR + timedelta(seconds=307)


def test_a_fractional_interval_does_not_drift() -> None:
    due = next_after(Every(1.1), NEW_YEAR)

    assert due is not None
    assert (due - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(seconds=1.1) == timedelta()


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-01-02 03:04", "UTC", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", "Europe/Berlin", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04", "Europe/Berlin", datetime(2026, 1, 2, 2, 4, tzinfo=UTC)),
        ("2026-03-29 02:30", "Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        ("2026-10-25 02:30", "Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_one_off_is_read_in_its_zone_and_fires_once(text: str, zone: str, expected: datetime) -> None:
    once = parse("once", text, zone)

    assert upcoming(once, datetime(2020, 1, 1, tzinfo=UTC)) == [expected]
    assert next_after(once, expected) is None


@pytest.mark.parametrize("text", ["soon", "2026-02-30", "2026-01-02 25:00", "0001-01-01 00:00+23:00"])
def test_a_one_off_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadSchedule, match="is not a date and time"):
        parse("once", text)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("GMT+2", "'Etc/GMT-2'"),
        ("UTC+2", "'Etc/GMT-2'"),
        ("utc +02:00", "'Etc/GMT-2'"),
        ("+0200", "'Etc/GMT-2'"),
        ("GMT-5", "'Etc/GMT+5'"),
        ("UTC−5", "'Etc/GMT+5'"),
        ("GMT+5:30", "a city"),
        ("GMT+15", "a city"),
    ],
)
def test_an_offset_is_never_answered_with_the_opposite_one(written: str, right: str) -> None:
    with pytest.raises(BadSchedule, match=re.escape(right)) as refused:
        parse("cron", "0 0 * * *", written)

    suggested = re.search(r"'(Etc/GMT[+-]\d+)'", str(refused.value))
    if suggested:
        hours = int(re.sub("[^0-9]", " ", written).split()[0][:2]) * (1 if "+" in written else -1)
        assert NEW_YEAR.astimezone(ZoneInfo(suggested[1])).utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize("written", ["Etc/GMT 2", "Etc/GMT+22", "GMT2", "CET+1"])
def test_no_name_with_the_reversed_sign_is_guessed(written: str) -> None:
    with pytest.raises(BadSchedule) as refused:
        parse("cron", "0 0 * * *", written)

    assert "Etc/GMT+" not in str(refused.value).replace(f"'{written}'", "")


def test_it_refuses_an_unknown_kind_and_times_without_a_zone() -> None:
    with pytest.raises(BadSchedule, match="use one of cron, interval, once"):
        parse("lunar", "full moon")
    with pytest.raises(BadSchedule, match="no time zone"):
        Once(datetime(2026, 1, 1))
    with pytest.raises(BadSchedule, match="no time zone"):
        Every(60, datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="aware"):
        next_after(Every(60), datetime(2026, 1, 1))


def test_a_timing_built_by_hand_is_checked_too() -> None:
    for build in (lambda: Cron("0 0 30 2 *"), lambda: Cron("0 0 * * *", "Mars/Olympus"), lambda: Every(0.5)):
        with pytest.raises(BadSchedule):
            build()


def test_it_ends_with_the_calendar() -> None:
    last_minute = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)

    for timing in (Cron("* * * * *"), Cron("0 0 1 1 *", "Europe/Berlin"), Every(60)):
        assert next_after(timing, last_minute) is None


def test_years_of_downtime_are_looked_through_without_walking() -> None:
    minutely = Cron("* * * * *")

    newest = latest_due(minutely, datetime(1990, 1, 1, tzinfo=UTC), NEW_YEAR + timedelta(seconds=30))

    assert newest == NEW_YEAR
    assert latest_due(Every(1), NEW_YEAR, NEW_YEAR + timedelta(seconds=2)) == NEW_YEAR + timedelta(seconds=2)
    assert latest_due(minutely, NEW_YEAR, NEW_YEAR + timedelta(seconds=30)) is None


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (Cron("0 0 * * *"), "00:00 daily"),
        (Cron("0 0 * * 0"), "Sunday 00:00"),
        (Cron("0 9 * * MON"), "Monday 09:00"),
        (Cron("0 9 * * 1-5"), "Monday to Friday 09:00"),
        (Cron("0 9 * * SAT,SUN"), "Saturday and Sunday 09:00"),
        (Cron("0 9,17 * * *"), "09:00 and 17:00 daily"),
        (Cron("* * * * *"), "every minute"),
        (Cron("*/5 * * * *"), "every 5 minutes"),
        (Cron("15 * * * *"), "hourly at :15"),
        (Cron("@hourly"), "hourly at :00"),
        (Cron("0 */2 * * *"), "every 2 hours"),
        (Cron("30 */6 * * *"), "every 6 hours at :30"),
        (Cron("0 6 1 * *"), "on day 1 of the month at 06:00"),
        (Cron("0 6 L * *"), "on the last day of the month at 06:00"),
        (Cron("0 0 29 2 *"), "on day 29 of February at 00:00"),
        (Cron("*/7 * * * *"), "*/7 * * * *"),
        (Cron("0 0 1 * MON"), "0 0 1 * MON"),
        (Cron("0 9 * * MON", "Europe/Berlin"), "Monday 09:00 (Europe/Berlin)"),
        (Every(30), "every 30 seconds"),
        (Every(60), "every minute"),
        (Every(300), "every 5 minutes"),
        (Every(5400), "every 90 minutes"),
        (Every(86400), "every day"),
        (Every(1.5), "every 1.5 seconds"),
        (Once(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)), "once, 2026-01-02 03:04 UTC"),
    ],
)
def test_it_says_a_schedule_in_words(timing: Timing, words: str) -> None:
    assert in_words(timing) == words
