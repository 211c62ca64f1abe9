"""kill -9 of anything in the middle of a run: nothing is lost, doubled or stuck; the checker has the last word."""

from __future__ import annotations

import base64
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .flows.ledger_flows import REPORT, noise
from .house import House, alive, until


@pytest.fixture
def at_the_gate(house: House) -> str:
    """A run in the middle of its work: twenty lines said, waiting for the gate."""
    run_id = house.trigger("gated")
    until(lambda: any(e.get("line") == "ledger at the gate" for e in house.told()), what="the run at the gate")
    return run_id


def child_of(house: House, run_id: str) -> int:
    """The pid of the run's process."""
    pid = until(lambda: _pid(house, run_id), what="the run's pid")
    return int(pid)


def _pid(house: House, run_id: str) -> int | None:
    from .checker import rows

    found = rows(house.database, f"SELECT pid FROM runs_run WHERE id = '{run_id.replace('-', '')}'")
    return found[0]["pid"] if found else None


def open_gate(house: House) -> None:
    house.gate.touch()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_kill_9_of_the_runs_process(house: House, at_the_gate: str) -> None:
    pid = child_of(house, at_the_gate)
    begun = time.monotonic()

    os.kill(pid, signal.SIGKILL)

    run = house.wait(at_the_gate, within=5)
    assert time.monotonic() - begun < 2  # "within a second", on a busy machine
    assert run["state"] == "CRASHED" and "signal 9" in run["state_reason"]
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"  # its slot is free again


def test_kill_9_of_the_zygote_leaves_the_run_alone(house: House, at_the_gate: str) -> None:
    zygote = parent_of(child_of(house, at_the_gate))
    assert zygote != house.processes[1].pid

    os.kill(zygote, signal.SIGKILL)
    until(lambda: not alive(zygote), what="the zygote is gone")
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"  # a new one starts runs
    open_gate(house)

    assert house.wait(at_the_gate)["state"] == "COMPLETED"


def test_kill_9_of_the_worker_ends_its_runs_and_says_so_when_it_is_back(house: House, at_the_gate: str) -> None:
    pid = child_of(house, at_the_gate)

    house.kill(house.processes[1])

    until(lambda: not alive(pid), within=2, what="the run's process is gone with its worker")
    house.start_worker()
    run = house.wait(at_the_gate, within=8)
    assert run["state"] == "CRASHED" and "killed" in run["state_reason"]
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"


def test_kill_9_of_the_server_hurts_no_run(house: House, at_the_gate: str) -> None:
    house.kill(house.server)
    open_gate(house)
    until(lambda: any(e.get("end") for e in house.told()), what="the flow ends without a server")

    house.start_server()

    run = house.wait(at_the_gate, within=45)
    assert run["state"] == "COMPLETED"
    assert len(house.lines(at_the_gate)) == 41


def test_what_a_run_shows_survives_kill_9_of_the_server(house: House) -> None:
    run_id = house.trigger("shows")
    until(lambda: any(e.get("line") == "ledger bars" for e in house.told()), what="the run at its gate")
    until(lambda: len(artifacts(house, run_id)) == 3, what="the first ones are there")

    house.kill(house.server)
    house.gate.with_name("shows").touch()
    until(lambda: any(e.get("end") for e in house.told()), what="the flow ends without a server")
    house.start_server()
    until(lambda: "noise" in artifacts(house, run_id) or house.run(run_id)["state"] == "COMPLETED")
    house.kill(house.server)
    house.start_server()

    assert house.wait(run_id, within=45)["state"] == "COMPLETED"
    kept = artifacts(house, run_id)
    assert list(kept) == ["report", "worst-customers", "rows", None, "curve", "noise", "elsewhere", "border"]
    assert kept["report"]["data"] == REPORT and kept["rows"]["data"] == 87.5
    assert len(kept["worst-customers"]["data"]["rows"]) == 5_000
    assert base64.b64decode(kept["noise"]["data"].partition(",")[2]) == noise(1_500_000)
    assert kept["border"]["data"] == "x" * (96 * 1024 - 9) + "*** is said on the border of two parts"
    assert not any(b"hunter" in path.read_bytes() for path in house.home.glob("flows.db*"))


def artifacts(house: House, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cursor = ""
    while True:
        page = house.get(f"/api/runs/{run_id}/artifacts?limit=100{cursor}")
        found.update({item["key"]: item for item in page["items"]})
        if not page["next_cursor"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_a_server_that_dies_again_and_again_loses_and_doubles_nothing(house: House) -> None:
    ids = [house.trigger("steady", parameters={"lines": 3_000}) for _ in range(4)]

    for _ in range(3):
        until(lambda: any(e.get("start") for e in house.told()), what="runs going")
        house.kill(house.server)
        house.start_server()

    for run_id in ids:
        run = house.wait(run_id, within=60)
        assert run["state"] == "COMPLETED"
        assert house.lines(run_id) == [f"ledger {n}" for n in range(3_000)]


def test_kill_9_of_worker_and_server_at_once(house: House, at_the_gate: str) -> None:
    house.kill(house.processes[1])
    house.kill(house.server)

    house.start_server()
    house.start_worker()

    assert house.wait(at_the_gate, within=10)["state"] == "CRASHED"  # "5 s after the worker is back"
    house.ready("steady")
    assert house.wait(house.trigger("steady"))["state"] == "COMPLETED"


def test_a_worker_that_is_stopped_politely_leaves_nothing_behind(house: House, at_the_gate: str) -> None:
    pid = child_of(house, at_the_gate)

    house.kill(house.processes[1], signal.SIGTERM)

    assert house.wait(at_the_gate, within=15)["state"] == "CRASHED"
    assert not alive(pid)
    assert not list((house.home / "worker").glob("*/runs/*"))


def test_a_worker_without_options_finds_the_server_of_its_home_on_any_port(house: House) -> None:
    del house.env["PERFECT_URL"]
    house.start_worker(name="w2")

    def connected() -> set[str]:
        return {worker["name"] for worker in house.get("/api/workers")["items"] if worker["connected"]}

    until(lambda: "w2" in connected(), what=f"w2 connects; {house.log('w2')[-2000:]}")


def test_a_wrong_token_is_told_in_one_sentence(house: House) -> None:
    worker = house.start_worker(Path(__file__).parent / "flows", "--token", "pft_wrong", name="w2")

    assert worker.wait(timeout=20) == 2
    assert "token" in house.log("w2") and "Traceback" not in house.log("w2")


def test_a_file_that_does_not_import_is_a_sentence_on_the_workers_page(house: House, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("from perfect_client import flow\nimport no_such_module_at_all\n")

    house.start_worker(broken, name="w2")

    def problems() -> str:
        workers = house.get("/api/workers")["items"]
        return " ".join(p for worker in workers for p in worker.get("problems", []))

    until(lambda: "no_such_module_at_all" in problems(), what="the problem is told")
    assert "broken.py" in problems()


def test_an_offer_and_the_end_of_the_server_that_a_stopped_worker_reads_at_once_cost_no_run(
    house: House, at_the_gate: str
) -> None:
    worker = house.processes[1]
    worker.send_signal(signal.SIGSTOP)
    waiting = house.trigger("steady")  # its offer lies in the worker's socket
    house.kill(house.server)
    worker.send_signal(signal.SIGCONT)
    until(lambda: "no connection to" in house.log("w1"), what="the worker has read both")
    house.start_server()
    open_gate(house)

    assert house.wait(at_the_gate)["state"] == "COMPLETED"
    assert house.wait(waiting)["state"] == "COMPLETED"
    assert worker.poll() is None and "an error in the worker" not in house.log("w1")
