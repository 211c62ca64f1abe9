"""A worker is killed behind a network that swallows its end: the next process tells the server that it is dead."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.network import Line, Network

from .checker import faults
from .house import House, opened, until


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.close()


@pytest.fixture
def house(tmp_path: Path, network: Network) -> Iterator[House]:
    with opened(tmp_path, worker=False) as house:
        token = house.manage("createtoken", "w1", "--scope", "worker", check=True).stdout.split()[-1]
        house.env["PERFECT_TOKEN"] = token
        yield house
        assert faults(house.database, house.ledger) == []


@pytest.fixture
def line(house: House, network: Network) -> Line:
    """The address through which the worker ``w1`` is connected; it is in the middle of a run."""
    line = network.line([house.port])
    house.env["PERFECT_URL"] = f"http://127.0.0.1:{line.port}"
    house.start_worker()
    house.ready("gated")
    return line


@pytest.fixture
def at_the_gate(house: House, line: Line) -> str:
    run_id = house.trigger("gated")
    until(lambda: any(e.get("line") == "ledger at the gate" for e in house.told()), what="the run at the gate")
    return run_id


def worker_pid(house: House) -> int:
    (worker,) = house.get("/api/workers")["items"]
    return int(worker["pid"]) if worker["connected"] else 0


def test_the_next_process_is_let_in_at_once_though_the_dead_one_looks_connected(
    house: House, line: Line, at_the_gate: str
) -> None:
    old = house.processes[-1]
    line.swallow()
    house.kill(old)
    assert worker_pid(house) == old.pid

    begun = time.monotonic()
    new = house.start_worker()
    until(lambda: worker_pid(house) == new.pid, within=5, what="the new process is let in")
    let_in = time.monotonic() - begun
    run = house.wait(at_the_gate, within=5)

    assert let_in < 3 and time.monotonic() - begun < 5  # two seconds to start, on a busy machine
    assert run["state"] == "CRASHED" and "killed" in run["state_reason"]
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"
    assert "is connected already" not in house.log("w1")


def test_a_copy_of_the_workers_folder_is_refused_while_the_worker_is_alive(
    house: House, line: Line, at_the_gate: str, tmp_path: Path
) -> None:
    pid = worker_pid(house)
    without_runs = shutil.ignore_patterns("runs")  # on this machine it would end their processes by their pids
    shutil.copytree(tmp_path / "worker", tmp_path / "elsewhere" / "worker", ignore=without_runs)
    house.env["PERFECT_HOME"] = str(tmp_path / "elsewhere")

    house.start_worker()

    until(lambda: "is connected already, from host" in house.log("w1"), what="the refusal")
    assert worker_pid(house) == pid
    house.gate.touch()
    assert house.wait(at_the_gate)["state"] == "COMPLETED"
