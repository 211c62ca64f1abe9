"""A server whose wall clock jumps, by libfaketime: its worker's run goes on, its schedules too, its history stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.needs import missing

from .checker import faults, rows
from .house import House, until

pytestmark = pytest.mark.sqlite  # the clock is what is tried

LIBRARIES = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib").glob("faketime/*MT.so.1")]
YEARS = timedelta(days=3650)


def set_clock(house: House, ahead: timedelta) -> None:
    """At once, as a person or NTP does."""
    file = house.home / "clock.new"
    file.write_text(f"{ahead.total_seconds():+.0f}\n")
    file.rename(house.home / "clock")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """The server's wall clock is a file's; its monotonic clock, and the worker's clocks, are the machine's."""
    if not LIBRARIES:
        missing("no libfaketime here: apt-get install libfaketime")
    house = House(tmp_path)
    set_clock(house, timedelta())
    own = dict(house.env)
    house.env.update(
        LD_PRELOAD=str(LIBRARIES[0]),
        FAKETIME_TIMESTAMP_FILE=str(tmp_path / "clock"),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        FAKETIME_FORCE_MONOTONIC_FIX="0",
    )
    try:
        house.start_server()
        house.env = {**own, "PERFECT_URL": house.env["PERFECT_URL"]}
        house.start_worker(slots=2)
        house.ready("steady", within=60)
        yield house
        house.stop()
        assert faults(house.database, house.ledger) == []
    finally:
        house.stop()


def due_near(house: House, moment: datetime) -> int:
    """How many runs of schedules were due within ten minutes of it."""
    dues = [row["due_at"] for row in rows(house.database, "SELECT due_at FROM runs_run WHERE due_at IS NOT NULL")]
    found = [datetime.fromisoformat(due).replace(tzinfo=UTC) for due in dues]
    return sum(abs(due - moment) < timedelta(minutes=10) for due in found)


def test_a_wall_clock_that_jumps_by_years_ends_no_run_and_stops_no_schedule(house: House) -> None:
    run = house.trigger("gated")
    until(lambda: any(entry.get("line") == "ledger at the gate" for entry in house.told()), within=60)
    wish = {"flow": "steady", "kind": "interval", "expression": "2", "parameters": {"lines": 1}}
    status, schedule = house.request("POST", "/api/schedules", wish)
    assert status == 201, schedule

    for ahead in (timedelta(), YEARS, timedelta(), timedelta(hours=-2)):
        set_clock(house, ahead)
        known = due_near(house, datetime.now(UTC) + ahead)
        until(
            lambda ahead=ahead, known=known: due_near(house, datetime.now(UTC) + ahead) > known,
            within=60,
            what=f"the schedule going on {ahead} from now",
            every=0.1,
        )

    assert house.request("PATCH", f"/api/schedules/{schedule['id']}", {"paused": True})[0] == 200
    house.gate.touch()
    assert house.wait(run, within=60)["state"] == "COMPLETED"
    until(
        lambda: not rows(house.database, "SELECT 1 FROM runs_run WHERE finished_at IS NULL"),
        within=60,
        what="all runs are over",
        every=0.1,
    )
    told = rows(house.database, f"SELECT after FROM runs_event WHERE run_id = '{run.replace('-', '')}' ORDER BY id")
    assert [row["after"] for row in told] == ["PENDING", "OFFERED", "RUNNING", "COMPLETED"]
    twice = rows(house.database, "SELECT 1 FROM runs_run GROUP BY schedule_id, due_at HAVING count(due_at) > 1")
    assert not twice
