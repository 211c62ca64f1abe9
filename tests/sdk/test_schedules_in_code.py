"""Schedules as written in code: what is plainly wrong is refused at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from perfect_client import ConfigurationError, CronSchedule, IntervalSchedule


@pytest.mark.parametrize(
    "text",
    [
        "0 0 * * *",
        "*/5 * * * *",
        "0 9 * * MON",
        "0 9 * * mon-fri",
        "0,30 8-18/2 1,15 jan-mar 0-7",
        "59 23 31 12 7",
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 * * MON#2",
        "0 0 * * L5",
        "@daily",
        "@HOURLY",
    ],
)
def test_a_cron_text_is_accepted(text: str) -> None:
    assert CronSchedule(text).kind == "cron"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "0 0 * *",
        "0 0 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * FOO *",
        "* * * * 8",
        "*/0 * * * *",
        "a b c d e",
        "1;2 * * * *",
        "@never",
        "@daily 5",
        "* * * * *" * 30,
        "L * * * *",
        "-1 * * * *",
        "1- * * * *",
    ],
)
def test_a_cron_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        CronSchedule(text)


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(ConfigurationError, match="the hour '25' in the cron text '0 25 . . .' is not within 0-23"):
        CronSchedule("0 25 * * *")


def test_white_space_does_not_matter() -> None:
    assert CronSchedule(" 0  0 * * * ").expression == "0 0 * * *"


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        (IntervalSchedule(300), "300"),
        (IntervalSchedule(minutes=5), "300"),
        (IntervalSchedule(1.5), "1.5"),
        (IntervalSchedule(timedelta(hours=1)), "3600"),
        (IntervalSchedule(hours=1, minutes=30), "5400"),
        (IntervalSchedule(days=1), "86400"),
        (IntervalSchedule("90"), "90"),
        (IntervalSchedule(seconds=2), "2"),
    ],
)
def test_an_interval_is_told_in_seconds(made: IntervalSchedule, seconds: str) -> None:
    assert (made.kind, made.expression) == ("interval", seconds)


def test_a_cron_text_as_interval_is_a_cron_schedule() -> None:
    made = IntervalSchedule("*/5 * * * *", timezone="Europe/Berlin")

    assert (made.kind, made.expression, made.options["timezone"]) == ("cron", "*/5 * * * *", "Europe/Berlin")


@pytest.mark.parametrize("interval", [None, 0, 0.5, -1, float("nan"), float("inf"), 366 * 86400 + 1, True, [5], "x"])
def test_an_interval_out_of_range_is_refused(interval: Any) -> None:
    with pytest.raises(ConfigurationError):
        IntervalSchedule(interval)


def test_an_interval_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="given once"):
        IntervalSchedule(5, minutes=5)


@pytest.mark.parametrize(
    "options",
    [
        {"timezone": ""},
        {"timezone": 5},
        {"name": "x" * 201},
        {"catch_up": "some"},
        {"overlap": "kill"},
        {"parameters": [1]},
        {"parameters": {"x": object()}},
        {"configuration": 1},
    ],
)
def test_options_are_checked(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        CronSchedule("@daily", **options)


def test_equal_schedules_are_equal() -> None:
    assert CronSchedule("@daily") == CronSchedule("@daily")
    assert CronSchedule("@daily") != CronSchedule("@daily", timezone="Asia/Tokyo")
    assert len({CronSchedule("@daily"), CronSchedule("@daily")}) == 1
