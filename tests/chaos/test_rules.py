"""The judges of the chaos are judged: each rule sees its own violation, and the same seed makes the same plan."""

from __future__ import annotations

from typing import Any

import pytest

from . import verdict
from .ledger import Deeds, Entry
from .plan import KINDS, plan

RUN = "a" * 32


def row(state: str = "COMPLETED", **values: Any) -> dict[str, Any]:
    return {
        "id": RUN,
        "state": state,
        "state_reason": "",
        "root_id": None,
        "worker_name": "w0",
        "idempotency_key": "k1",
        **values,
    }


def code(how: str = "return", pid: int = 7, begun: float = 10.0, ended: float = 20.0) -> list[Entry]:
    start = {"run": RUN, "at": begun, "pid": pid, "start": True}
    return [start, {"run": RUN, "at": ended, "pid": pid, "end": True, "how": how}] if how else [start]


def deeds(**values: Any) -> Deeds:
    return Deeds(accepted={"k1": RUN}, asked={"k1"}, **values)


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_is_the_seeds_and_has_every_kind_once_before_any_comes_twice(seed: int) -> None:
    made = plan(seed, 600, servers=2, workers=2, possible=KINDS)

    assert made == plan(seed, 600, servers=2, workers=2, possible=set(KINDS))
    assert made != plan(seed + 1, 600, servers=2, workers=2, possible=KINDS)
    assert {fault.kind for fault in made[: len(KINDS)]} == set(KINDS)
    assert [fault.at for fault in made] == sorted(fault.at for fault in made) and made[-1].at < 600


def test_keys_that_hold() -> None:
    assert verdict.key_faults(deeds(), {RUN: row()}, 0) == []


@pytest.mark.parametrize(
    ("runs", "unanswered", "says"),
    [
        ({}, 0, "not in the database"),
        ({RUN: row(idempotency_key=None)}, 0, "not in the database"),
        ({RUN: row(), "b" * 32: row()}, 0, "has 2 runs"),
        ({RUN: row(), "b" * 32: row(idempotency_key="k2")}, 0, "never sent"),
        ({RUN: row()}, 3, "3 triggers got no answer"),
    ],
)
def test_keys_that_do_not_hold(runs: dict[str, Any], unanswered: int, says: str) -> None:
    (sentence,) = verdict.key_faults(deeds(), runs, unanswered)

    assert says in sentence


@pytest.mark.parametrize(
    ("state", "entries", "done"),
    [
        ("COMPLETED", code(), {}),
        ("FAILED", code("raise"), {}),
        ("CRASHED", code("vanish"), {}),
        ("CRASHED", code(""), {"killed": {7}}),
        ("CRASHED", code(""), {"ended": [(11.0, "w0")]}),
        ("CRASHED", [], {"ended": [(11.0, "w0")]}),
        ("CANCELLED", code(""), {"cancelled": {RUN}}),
        ("RUNNING", code(""), {}),  # another rule says that it should be final
    ],
)
def test_an_end_with_a_cause(state: str, entries: list[Entry], done: dict[str, Any]) -> None:
    assert verdict.cause_faults(deeds(**done), entries, {RUN: row(state)}) == []


@pytest.mark.parametrize(
    ("state", "entries", "done"),
    [
        ("COMPLETED", code(""), {}),
        ("COMPLETED", code("vanish"), {}),
        ("FAILED", code(), {}),
        ("CRASHED", code(), {}),
        ("CRASHED", code(), {"killed": {8}}),
        ("CRASHED", code(), {"ended": [(11.0, "w1")]}),
        ("CRASHED", code(), {"ended": [(9.0, "w0"), (26.0, "w0")]}),
        ("CANCELLED", code(), {}),
        ("SKIPPED", [], {}),
    ],
)
def test_an_end_without_a_cause(state: str, entries: list[Entry], done: dict[str, Any]) -> None:
    (sentence,) = verdict.cause_faults(deeds(**done), entries, {RUN: row(state)})

    assert "without a cause" in sentence


@pytest.mark.parametrize(
    ("kept", "lost", "state", "right"),
    [
        (["raw 0", "raw 1", "raw 2"], 0, "COMPLETED", True),
        (["raw 0", "raw 1"], 0, "COMPLETED", False),
        (["raw 0", "raw 1"], 0, "CRASHED", True),
        (["raw 0"], 0, "CRASHED", False),
        (["raw 0"], 1, "CRASHED", True),
        (["raw 0"], 2, "CRASHED", True),
        (["raw 0"], 3, "CRASHED", False),
        (["raw 1", "raw 0"], 1, "CRASHED", False),
        (["raw 0", "raw 0", "raw 1", "raw 2"], 0, "COMPLETED", False),
    ],
)
def test_raw_lines(kept: list[str], lost: int, state: str, right: bool) -> None:
    told = [{"run": RUN, "raw": f"raw {number}"} for number in range(3)]

    assert (verdict.raw_faults(Deeds(), told, {RUN: kept}, {RUN: lost}, {RUN: row(state)}) == []) == right


@pytest.mark.parametrize(
    ("times", "jumped", "right"),
    [
        ([0, 15, 30], False, True),
        ([0, 15, 15], True, False),
        ([0, 16], True, False),
        ([0, 30], False, False),
        ([0, 30], True, True),
    ],
)
def test_due_times(times: list[float], jumped: bool, right: bool) -> None:
    assert (verdict.schedule_faults({1: times}, 15, jumped) == []) == right


def test_what_is_left_is_seen() -> None:
    worker = {"name": "w0", "connected": True, "free": 4, "slots": 4}

    assert verdict.worker_faults([worker]) == []
    assert verdict.worker_faults([worker | {"free": 3}, worker | {"connected": False}, worker])[1:] != []
    assert verdict.api_faults({RUN: "COMPLETED"}, {RUN: row()}) == []
    assert verdict.api_faults({RUN: "RUNNING"}, {RUN: row()}) != [] != verdict.api_faults({}, {RUN: row()})
    assert verdict.size_faults({"server0": (120.0, 60, 20)}) == []
    assert len(verdict.size_faults({"a": (900.0, 1, 1), "b": (1.0, 900, 1), "c": (1.0, 1, 900)})) == 3
