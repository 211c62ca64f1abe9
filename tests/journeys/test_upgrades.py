"""A worker is replaced by a newer process of the same name while a run goes on: it costs no run, whatever is killed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .checker import faults
from .house import FLOWS, House, opened, until

Old = tuple[subprocess.Popen[bytes], str]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server and a worker that drains after SIGTERM; afterwards every invariant must hold."""
    with opened(tmp_path, worker=False) as house:
        house.start_worker(FLOWS, "--drain", "600")
        house.ready("steady")
        yield house
        assert faults(house.database, house.ledger) == []


@pytest.fixture
def draining(house: House) -> Old:
    """The worker drains: it waits for a run that stands at the gate."""
    run_id = house.trigger("gated")
    until(lambda: any(e.get("line") == "ledger at the gate" for e in house.told()), what="the run at the gate")
    old = house.processes[1]
    old.send_signal(signal.SIGTERM)
    until(lambda: the_worker(house)["draining"] == 1, what="it drains")
    return old, run_id


def the_worker(house: House) -> dict[str, Any]:
    (worker,) = house.get("/api/workers")["items"]
    return dict(worker)


def start_newer(house: House) -> subprocess.Popen[bytes]:
    before = the_worker(house)["pid"]
    newer = house.start_worker(FLOWS, "--drain", "600")
    until(lambda: the_worker(house)["pid"] == newer.pid != before, what=f"the newer one; {house.log('w1')[-2000:]}")
    return newer


def test_an_upgrade_during_a_run_costs_no_run(house: House, draining: Old) -> None:
    old, run_id = draining
    newer = start_newer(house)

    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"
    assert house.run(run_id)["state"] == "RUNNING"
    assert the_worker(house)["draining"] == 1
    house.gate.touch()

    assert house.wait(run_id)["state"] == "COMPLETED"
    assert old.wait(timeout=20) == 0
    until(lambda: the_worker(house)["draining"] is None, what="nothing drains any more")
    assert the_worker(house)["connected"]
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"
    assert newer.poll() is None


def test_a_pause_and_a_cancel_reach_the_run_of_the_draining_one(house: House, draining: Old) -> None:
    old, run_id = draining
    start_newer(house)

    assert house.request("POST", f"/api/runs/{run_id}/pause")[0] == 200
    house.wait(run_id, "PAUSED")
    assert house.request("POST", f"/api/runs/{run_id}/resume", {})[0] == 200
    house.wait(run_id, "RUNNING")
    assert house.request("POST", f"/api/runs/{run_id}/cancel")[0] in (200, 202)

    assert house.wait(run_id)["state"] == "CANCELLED"
    assert old.wait(timeout=20) == 0


def test_kill_9_of_the_draining_one_is_told_by_the_newer_one(house: House, draining: Old) -> None:
    old, run_id = draining
    start_newer(house)

    house.kill(old)

    run = house.wait(run_id, within=5)
    assert (run["state"], run["state_reason"]) == ("CRASHED", "the worker process was killed")
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"


def test_kill_9_of_the_newer_one_leaves_the_draining_one_alone(house: House, draining: Old) -> None:
    old, run_id = draining
    newer = start_newer(house)

    house.kill(newer)
    start_newer(house)

    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"
    house.gate.touch()
    assert house.wait(run_id)["state"] == "COMPLETED"
    assert old.wait(timeout=20) == 0


def test_kill_9_of_the_server_during_an_upgrade(house: House, draining: Old) -> None:
    old, run_id = draining
    newer = start_newer(house)

    house.kill(house.server)
    house.start_server()

    until(lambda: the_worker(house)["draining"] == 1 and the_worker(house)["connected"], what="both are back")
    assert the_worker(house)["pid"] == newer.pid
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"
    house.gate.touch()
    assert house.wait(run_id)["state"] == "COMPLETED"
    assert old.wait(timeout=20) == 0


def test_the_server_may_be_away_for_the_whole_handover(house: House, draining: Old) -> None:
    old, run_id = draining
    house.kill(house.server)

    newer = house.start_worker(FLOWS, "--drain", "600")
    until(lambda: "no connection" in house.log("w1"), what="the newer one tries to connect")
    house.start_server()

    until(lambda: the_worker(house)["pid"] == newer.pid and the_worker(house)["draining"] == 1, what="both are there")
    assert house.run(run_id)["state"] == "RUNNING"
    house.gate.touch()
    assert house.wait(run_id)["state"] == "COMPLETED"
    assert old.wait(timeout=20) == 0
