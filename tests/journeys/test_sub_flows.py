"""Flows that call flows, with a real server and worker: each is a run, and none outlives the run around it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from .checker import rows
from .house import House, until


def family(house: House, run_id: str) -> dict[str, list[dict[str, Any]]]:
    """What the run has called, and what that has called, by flow."""
    found: dict[str, list[dict[str, Any]]] = {}
    waiting = [run_id]
    while waiting:
        for sub in house.get(f"/api/runs?parent={waiting.pop()}")["items"]:
            found.setdefault(sub["flow"], []).append(sub)
            waiting.append(sub["id"])
    return found


def test_every_flow_that_is_called_is_a_run_with_its_own_tasks_and_lines(calm_house: House) -> None:
    run_id = calm_house.trigger("outer")
    assert calm_house.wait(run_id)["result"] == "5"

    called = family(calm_house, run_id)
    told = {entry["run"]: entry for entry in calm_house.told() if entry.get("start")}

    assert {flow: len(runs) for flow, runs in called.items()} == {"inner": 4, "middle": 1}
    for sub in [*called["inner"], *called["middle"]]:
        assert (sub["state"], sub["progress"], sub["trigger"]) == ("COMPLETED", 100, "flow")
        assert told[sub["id"]]["above"] == sub["parent"]
    (middle,) = called["middle"]
    (inner,) = [sub for sub in called["inner"] if sub["parent"] == middle["id"]]
    assert (inner["parameters"], inner["result"]) == ({"lines": 2, "gated": False}, "2")
    assert told[inner["id"]]["root"] == run_id
    assert calm_house.lines(inner["id"]) == ["ledger 0", "ledger 1"]
    assert calm_house.lines(middle["id"]) == ["ledger middle"]
    assert calm_house.lines(run_id) == [
        "ledger 0",
        "ledger 0",
        "ledger 1",
        "ledger outer",
        "ledger middle",
        "ledger 0",
        "ledger 1",
    ]
    tasks = calm_house.get(f"/api/runs/{run_id}/tasks")["items"]
    assert {(task["name"], task["state"]) for task in tasks} == {("Inner", "COMPLETED"), ("Middle", "COMPLETED")}
    assert [task["subrun"] for task in tasks if task["name"] == "Middle"] == [middle["id"]]
    assert [run["id"] for run in calm_house.get("/api/runs?limit=1")["items"]] == [run_id]


def test_the_shell_follows_the_whole_log(calm_house: House) -> None:
    told = calm_house.manage("triggerflow", "Outer", "-p", "times=1", "--follow")

    assert told.returncode == 0, told.stderr
    assert "talk: ledger 1" in told.stdout and "Middle: ledger middle" in told.stdout


@pytest.fixture
def inside(house: House) -> tuple[str, int]:
    """A run that waits in a sub-flow of a sub-flow, and the pid of its process."""
    run_id = house.trigger("outer", parameters={"gated": True})
    until(lambda: any(e.get("line") == "ledger at the gate" for e in house.told()), what="the run at the gate")
    until(lambda: len(family(house, run_id).get("inner", [])) == 4, what="the server knows")
    sql = f"SELECT pid FROM runs_run WHERE id = '{run_id.replace('-', '')}'"
    return run_id, until(lambda: rows(house.database, sql)[0]["pid"], what="its pid")


def states(house: House, run_id: str) -> list[str]:
    called = family(house, run_id)
    return sorted(sub["state"] for sub in [*called["inner"], *called["middle"]])


def test_kill_9_inside_a_sub_flow_crashes_all_that_was_open(house: House, inside: tuple[str, int]) -> None:
    run_id, pid = inside
    assert states(house, run_id) == ["COMPLETED"] * 3 + ["RUNNING"] * 2

    os.kill(pid, signal.SIGKILL)

    assert house.wait(run_id, within=5)["state"] == "CRASHED"
    assert states(house, run_id) == ["COMPLETED"] * 3 + ["CRASHED"] * 2
    (middle,) = family(house, run_id)["middle"]
    assert "signal 9" in middle["state_reason"]
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"


def test_a_cancel_ends_all_that_was_open_and_a_part_cannot_be_cancelled(house: House, inside: tuple[str, int]) -> None:
    run_id, _ = inside
    (middle,) = family(house, run_id)["middle"]

    status, refused = house.request("POST", f"/api/runs/{middle['id']}/cancel")
    assert (status, refused["detail"].count(run_id)) == (409, 1)
    house.request("POST", f"/api/runs/{run_id}/cancel")

    assert house.wait(run_id)["state"] == "CANCELLED"
    assert states(house, run_id) == ["CANCELLED"] * 2 + ["COMPLETED"] * 3


def test_a_server_that_dies_in_between_misses_nothing(house: House, inside: tuple[str, int]) -> None:
    run_id, _ = inside
    house.kill(house.server)
    house.gate.touch()
    until(lambda: sum(bool(e.get("end")) for e in house.told()) == 6, what="the flow ends without a server")

    house.start_server()

    assert house.wait(run_id, within=45)["result"] == "5"
    assert states(house, run_id) == ["COMPLETED"] * 5


def test_a_worker_that_dies_takes_all_with_it(house: House, inside: tuple[str, int]) -> None:
    run_id, _ = inside

    house.kill(house.processes[1])
    house.start_worker()

    assert house.wait(run_id, within=8)["state"] == "CRASHED"
    assert states(house, run_id) == ["COMPLETED"] * 3 + ["CRASHED"] * 2
