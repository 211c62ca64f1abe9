"""The same behaviour with a server, without one, and with a server that is killed and restarted in the middle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.checker import faults
from tests.journeys.house import ROOT, House, opened, until

from .direct import PROGRAMS, Told, line

HERE = Path(__file__).parent
Told_of = dict[str, Told]


# ----------------------------------------------------------------------------------------------------- without a server


def _directly(how: str, home: Path) -> Told_of:
    """Each program in a fresh process."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERFECT_")}
    environ.update(PYTHONPATH=str(ROOT / "client_sdk"))

    def run(name: str) -> Told:
        done = subprocess.run(
            [sys.executable, str(HERE / "direct.py"), how, name],
            capture_output=True,
            text=True,
            timeout=120,
            env={**environ, "PERFECT_HOME": str(home / name)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told: Told = json.loads(done.stdout)
        return told

    names = [name for name, program in PROGRAMS.items() if how == "engine" or program.plain]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(run, names)))


# -------------------------------------------------------------------------------------------------------- with a server


def _accepted(house: House) -> dict[str, str]:
    """Trigger all programs; the runs' ids by the programs' names."""
    accepted = [program for program in PROGRAMS.values() if not program.refused]
    for program in accepted:
        house.ready(program.flow.name)
    items = [
        {"flow": one.flow.name, "parameters": one.parameters, "configuration": one.configuration} for one in accepted
    ]
    status, answer = house.request("POST", "/api/runs", {"items": items})
    assert status == 201, answer
    return {one.flow.name: item["id"] for one, item in zip(accepted, answer["items"])}


def _told(house: House, run_id: str) -> Told:
    """What the API shows of a final run, in the words of ``facts.told``."""
    run = house.wait(run_id, within=60)
    same = ("key", "name", "call", "state", "error", "note")
    tasks = [{**{name: row[name] for name in same}, "tries": row["attempt"]} for row in _rows(house, run_id, {})]
    lines = house.get(f"/api/runs/{run_id}/logs?limit=1000")["items"]
    return {
        "outcome": run["state"],
        "reason": run["state_reason"],
        "error": run["error"],
        "result": run["result"],
        "tasks": tasks,
        "lines": [line(one["level"], one["task"], one["message"]) for one in lines],
    }


def _rows(house: House, run_id: str, counts: dict[str, int]) -> list[Any]:
    """The task runs in the order of their calls, sub-flows' with them; calls are counted by the outermost run."""
    found = []
    for row in house.get(f"/api/runs/{run_id}/tasks")["items"]:
        if row["started_at"]:
            call = counts.get(row["key"], 0)
            counts[row["key"]] = call + 1
            found.append({**row, "call": call})
            found += _rows(house, row["subrun"], counts) if row["subrun"] else []
    return found


def _refusals(house: House) -> Told_of:
    found = {}
    for name, program in PROGRAMS.items():
        if program.refused:
            status, problem = house.request("POST", f"/api/flows/{name}/runs", {"parameters": program.parameters})
            assert status == 422
            found[name] = {"refused": problem["detail"]}
    return found


def _by_a_worker(how: str, home: Path) -> Told_of:
    with opened(home, worker=False) as house:
        gates = home / "gates"
        gates.mkdir()
        if how == "killed":
            house.env["MODES_GATES"] = str(gates)
        house.start_worker(HERE / "programs", slots=len(PROGRAMS))
        runs = _accepted(house)
        if how == "killed":
            _kill_again_and_again(house, gates, list(runs))
        told = {name: _told(house, run_id) for name, run_id in runs.items()}
        told.update(_refusals(house))
        assert faults(house.database) == []
        return told


def _kill_again_and_again(house: House, gates: Path, names: list[str]) -> None:
    """Kill the server in front of the programs' first gate, while they are reported, and while they end."""

    def all_at(number: int) -> Callable[[], bool]:
        return lambda: all((gates / f"{name}-{number}").exists() for name in names)

    until(all_at(1), within=60, what="all programs at their first gate")
    house.kill(house.server)
    (gates / "go-1").touch()
    until(all_at(2), within=60, what="all programs at their second gate, without a server")
    house.start_server()
    until(lambda: house.get("/api/workers")["items"][0]["connected"], within=60, what="the worker is back")
    house.kill(house.server)
    (gates / "go-2").touch()
    house.start_server()
    until(lambda: house.get("/api/runs?state=COMPLETED&limit=1")["items"], within=60, what="the first run has ended")
    house.kill(house.server)
    house.start_server()


# ------------------------------------------------------------------------------------------------------------ the test

MODES = {"plain": _directly, "engine": _directly, "worker": _by_a_worker, "killed": _by_a_worker}
_FAILURE = re.compile(r"(\[.*?\] )?ERROR (Task|Flow) '.*?' failed: ")  # a line for each, at its place
_LABELS = re.compile(r"^(\[.*?\] )?((WARNING|ERROR|CRITICAL) )?")
ALL = [(how, name) for how in MODES for name, program in PROGRAMS.items() if program.plain or how != "plain"]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Told_of]:
    """``said(mode)``: what all programs said in it. Each mode is lived through once, also one that fails."""
    lived: dict[str, Any] = {}

    def of(how: str) -> Told_of:
        if how not in lived:
            try:
                lived[how] = MODES[how](how, tmp_path_factory.mktemp(how))
            except Exception as wrong:
                lived[how] = wrong
        if isinstance(lived[how], Exception):
            raise lived[how]
        told: Told_of = lived[how]
        return told

    return of


def _in_order(told: Told) -> Told:
    return {**told, "tasks": sorted(told["tasks"], key=lambda task: (task["key"], task["call"]))}


@pytest.mark.parametrize(("how", "name"), ALL)
def test_a_program_says_the_same_in_every_mode(said: Callable[[str], Told_of], how: str, name: str) -> None:
    program, told = PROGRAMS[name], said(how)[name]

    if program.refused:
        assert program.refused in told.get("refused", told.get("reason", ""))
        return
    assert (told["outcome"], told["error"], told["result"]) == (program.outcome, program.error, program.result)
    if how == "plain":
        assert told["lines"] == [_LABELS.sub("", line) for line in program.lines]
        return
    failures = [line for line in told["lines"] if _FAILURE.match(line)]
    assert (told["reason"], [line for line in told["lines"] if line not in failures]) == (program.reason, program.lines)
    failed = sum(state in ("FAILED", "CRASHED") for _, state, _ in _calls(told)) + (told["outcome"] == "FAILED")
    assert len(failures) == failed, failures
    assert sorted(_calls(told)) == sorted(program.tasks)
    assert _in_order(told) == _in_order(said("engine")[name])


@pytest.mark.parametrize("name", PROGRAMS)
def test_its_tasks_are_called_in_the_order_that_it_says(said: Callable[[str], Told_of], name: str) -> None:
    assert _calls(said("engine")[name]) == PROGRAMS[name].tasks


def _calls(told: Told) -> list[tuple[str, str, int]]:
    return [(task["name"], task["state"], task["tries"]) for task in told["tasks"]]
