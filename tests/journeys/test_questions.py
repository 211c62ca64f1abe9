"""Running code asks a real server: what it holds ends with it, and no restart makes it ask in vain."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .checker import rows
from .house import House, alive, until


def limit(house: House, name: str = "db", slots: int = 1, **more: float) -> None:
    status, answer = house.request("POST", "/api/limits", {"name": name, "slots": slots, **more})
    assert status == 201, answer


def taken(house: House) -> int:
    return sum(row["taken"] for row in house.get("/api/limits")["items"])


def go_on(house: House, run_id: str, **given: object) -> None:
    status, answer = house.request("POST", f"/api/runs/{run_id}/resume", {"input": given})
    assert (status, answer["state"]) == (200, "RUNNING"), answer


def test_a_person_answers_and_the_run_goes_on(calm_house: House) -> None:
    run_id = calm_house.trigger("asks-a-person")
    run = calm_house.wait(run_id, "PAUSED")
    assert run["state_reason"] == "waits for a person: Ship it?"
    assert run["pause"]["schema"]["required"] == ["ok"]

    status, refusal = calm_house.request("POST", f"/api/runs/{run_id}/resume", {"input": {"ok": "perhaps"}})
    assert (status, refusal["field"]) == (422, "ok")
    go_on(calm_house, run_id, ok=True)
    calm_house.wait(run_id, "PAUSED")
    go_on(calm_house, run_id)

    assert calm_house.wait(run_id)["result"] == "'True'"
    assert calm_house.lines(run_id) == ["ledger True because"]


def test_a_server_killed_in_the_middle_forgets_no_question_and_no_answer(house: House) -> None:
    limit(house)
    holder, waiter = house.trigger("holds-a-slot"), house.trigger("asks-a-person")
    until(lambda: taken(house) == 1, what="the slot taken")
    house.wait(waiter, "PAUSED")
    second = house.trigger("holds-a-slot")
    until(lambda: "waits for the limit db" in house.run(second)["state_reason"], what="the second one waiting")

    house.kill(house.server)
    house.gate.with_name("slot").touch()  # given back while there is no server
    until(lambda: any(e.get("end") for e in house.told()), what="the first one through without a server")
    house.start_server()

    assert house.wait(holder)["state"] == house.wait(second)["state"] == "COMPLETED"
    assert house.run(waiter)["state"] == "PAUSED"
    go_on(house, waiter, ok=False)
    house.wait(waiter, "PAUSED")
    go_on(house, waiter)
    assert house.wait(waiter)["result"] == "'False'"


def test_kill_9_of_a_run_frees_what_it_holds(house: House) -> None:
    limit(house)
    holder = house.trigger("holds-a-slot", parameters={"gate": "never"})
    until(lambda: taken(house) == 1, what="the slot taken")
    second = house.trigger("holds-a-slot")
    until(lambda: "waits for the limit" in house.run(second)["state_reason"], what="the second one waiting")

    os.kill(pid_of(house, holder), signal.SIGKILL)

    assert house.wait(holder)["state"] == "CRASHED"
    until(lambda: taken(house) == 1, what="the slot taken by the second one")
    house.gate.with_name("slot").touch()
    assert house.wait(second)["state"] == "COMPLETED"
    assert taken(house) == 0


def test_cancel_ends_a_wait_for_a_person_and_for_a_slot(calm_house: House) -> None:
    limit(calm_house, slots=0)
    paused, waiting = calm_house.trigger("asks-a-person"), calm_house.trigger("holds-a-slot")
    calm_house.wait(paused, "PAUSED")
    until(lambda: "waits for the limit" in calm_house.run(waiting)["state_reason"], what="the wait for a slot")

    for run_id in (paused, waiting):
        calm_house.request("POST", f"/api/runs/{run_id}/cancel")

    assert calm_house.wait(paused)["state"] == calm_house.wait(waiting)["state"] == "CANCELLED"


def test_a_worker_killed_while_its_run_waits_for_a_person(house: House) -> None:
    run_id = house.trigger("asks-a-person")
    house.wait(run_id, "PAUSED")

    house.kill(house.processes[1])
    house.start_worker()

    run = house.wait(run_id)
    assert run["state"] == "CRASHED" and "worker" in run["state_reason"]


def test_runs_share_variables_with_each_other_and_with_people(calm_house: House) -> None:
    assert calm_house.wait(calm_house.trigger("shares-a-variable", parameters={"number": 2}))["result"] == "2"
    status, _ = calm_house.request("PUT", "/api/variables/journey", {"value": 40})
    assert status == 200
    assert calm_house.wait(calm_house.trigger("shares-a-variable", parameters={"number": 2}))["result"] == "42"
    found = calm_house.get("/api/variables/journey")
    assert found["value"] == 42 and found["changed_by"].startswith("run ")
    assert calm_house.request("DELETE", "/api/variables/journey")[0] == 204
    assert calm_house.request("GET", "/api/variables/journey")[0] == 404


def stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def pid_of(house: House, run_id: str) -> int:
    def told() -> int | None:
        (found,) = rows(house.database, f"SELECT pid FROM runs_run WHERE id = '{run_id.replace('-', '')}'")
        return found["pid"]  # type: ignore[no-any-return]

    return until(told, what="the run's pid") or 0


def test_a_person_has_a_run_stand_still_through_a_restart_of_the_server(house: House) -> None:
    run_id = house.trigger("climb", parameters={"steps": 2})
    until(lambda: house.told()[-1:] and house.told()[-1].get("line") == "ledger step 0", what="the first step")
    pid = pid_of(house, run_id)

    assert house.request("POST", f"/api/runs/{run_id}/pause")[1]["state"] == "PAUSED"
    until(lambda: stands_still(pid), what="the process standing still")
    house.kill(house.server)
    house.start_server()
    for number in range(2):
        house.gate.with_name(f"climb-{number}").touch()
    house.ready("climb")
    assert stands_still(pid) and house.run(run_id)["state"] == "PAUSED"
    assert house.request("POST", f"/api/runs/{run_id}/resume")[0] == 200

    assert house.wait(run_id)["result"] == "2"


def test_cancel_ends_what_stands_still(calm_house: House) -> None:
    run_id = calm_house.trigger("c-loop")
    pid = pid_of(calm_house, run_id)
    calm_house.request("POST", f"/api/runs/{run_id}/pause")
    until(lambda: stands_still(pid), what="the process standing still")

    calm_house.request("POST", f"/api/runs/{run_id}/cancel")

    assert calm_house.wait(run_id, within=20)["state"] == "CANCELLED"
    assert not alive(pid)


def test_tasks_in_processes_ask_too(calm_house: House) -> None:
    calm_house.request("PATCH", "/api/limits/db", {"slots": 1})
    limit(calm_house, "api", slots=1, per_second=50)
    calm_house.request("PUT", "/api/variables/journey", {"value": 10})

    run = calm_house.wait(calm_house.trigger("asks-from-processes"))

    assert (run["state"], run["result"]) == ("COMPLETED", "36"), run["error"]
    assert taken(calm_house) == 0
