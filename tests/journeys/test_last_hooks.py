"""Whoever asked to be told of a crash is told, once, and the run's log and page say what was said."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .checker import faults, rows
from .house import House, opened, until

WATCHED = Path(__file__).parent / "flows" / "watched_flows.py"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with opened(tmp_path, worker=False) as house:
        house.start_worker(WATCHED)
        house.ready("watched")
        yield house
        assert faults(house.database, house.ledger) == []


@pytest.fixture
def at_the_gate(house: House) -> str:
    run_id = house.trigger("watched")
    until(lambda: any(e.get("line") == "ledger at the gate" for e in house.told()), what="the run at the gate")
    return run_id


def told(house: House) -> list[dict[str, Any]]:
    return [entry for entry in house.told() if "told" in entry]


def expect(house: House, run_id: str, state: str, reason: str) -> None:
    """The page says so, the hook was told so once, and its line is in the log although the run had ended."""
    run = house.wait(run_id, within=15)
    assert run["state"] == state and reason in run["state_reason"]
    until(lambda: any(line.startswith("ledger told: ") for line in house.lines(run_id)), what="the hook's line")
    (entry,) = told(house)
    assert (entry["run"], entry["told"]) == (run_id, state)
    assert reason in entry["message"]


def pid_of(house: House, run_id: str) -> int:
    sql = f"SELECT pid FROM runs_run WHERE id = '{run_id.replace('-', '')}' AND pid IS NOT NULL"
    return int(until(lambda: rows(house.database, sql), what="the run's pid")[0]["pid"])


def test_kill_9_of_the_run(house: House, at_the_gate: str) -> None:
    os.kill(pid_of(house, at_the_gate), signal.SIGKILL)

    expect(house, at_the_gate, "CRASHED", "signal 9")


def test_kill_9_of_the_worker(house: House, at_the_gate: str) -> None:
    house.kill(house.processes[1])
    house.start_worker(WATCHED)

    expect(house, at_the_gate, "CRASHED", "the worker process was killed")


def test_a_stop_of_the_worker(house: House, at_the_gate: str) -> None:
    house.kill(house.processes[1], signal.SIGTERM)

    expect(house, at_the_gate, "CRASHED", "the worker was stopped")


def test_a_cancel(house: House, at_the_gate: str) -> None:
    house.request("POST", f"/api/runs/{at_the_gate}/cancel")

    assert house.wait(at_the_gate)["state"] == "CANCELLED"
    until(lambda: told(house), what="the hook")
    assert [entry["told"] for entry in told(house)] == ["CANCELLED"]
