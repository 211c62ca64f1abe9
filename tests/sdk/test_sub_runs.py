"""A flow called inside a run tells that it is a run of its own: whose, with what, and when it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, Callable, Dict, List, Optional
from uuid import UUID

import pytest
from perfect_client import Secret, flow, task
from perfect_client.core import runtime
from perfect_client.engine.task_runners import ProcessPoolTaskRunner
from perfect_client.schema.secrets import fact_without_secrets
from perfect_client.wire import messages

from tests.sdk.story import Story

Execute = Callable[..., Story]


@task
def step(number: int = 0) -> int:
    return number


@flow(name="Child", tags=["nightly"])
def child(number: int = 1) -> int:
    return step(number)


@task
def calls_a_flow(number: int) -> Any:
    return child(number), runtime.flow_run.flow_name


def runs_of(told: Story) -> List[messages.SubRunStarted]:
    return told.of(messages.SubRunStarted)


def owners(told: Story) -> Dict[int, Optional[str]]:
    """The sub-run of each task run, as the server tells it from the facts alone: by who called it."""
    run_of: Dict[int, str] = {}
    inside: Dict[int, Optional[str]] = {}
    for fact in told.facts:
        if isinstance(fact, messages.SubRunStarted):
            run_of[fact.task] = fact.run
        elif isinstance(fact, messages.TaskStarted):
            above = fact.parent
            inside[fact.task] = None if above is None else run_of.get(above, inside[above])
    return inside


def test_a_sub_flow_tells_its_run_before_anything_happens_in_it(execute: Execute) -> None:
    seen: List[Any] = []

    @flow(name="Inner")
    def inner(number: int, word: str = "x") -> str:
        run = runtime.flow_run
        seen.append((run.id, run.parent_flow_run_id, run.root_flow_run_id))
        return word

    @flow(tags=["daily"])
    def outer() -> None:
        seen.append((runtime.flow_run.id, runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id))
        inner(2)

    told = execute(outer)

    (sub,) = runs_of(told)
    assert [type(fact).__name__ for fact in told.facts] == [
        "RunStarted",
        "TaskStarted",
        "SubRunStarted",
        "TaskEnded",
        "RunEnded",
    ]
    assert (sub.flow, sub.task, sub.parameters) == ("Inner", 1, {"number": 2, "word": "x"})
    assert sub.tags == ["daily", "from-order"]
    assert UUID(sub.run).version == 7
    assert seen == [("0123456789abcdef", None, "0123456789abcdef"), (sub.run, "0123456789abcdef", "0123456789abcdef")]
    assert told.task_ends[0].result == "'x'"


def test_ids_are_ordered_as_the_calls_were(execute: Execute) -> None:
    @flow
    def outer() -> None:
        for number in range(50):
            child(number)

    ids = [sub.run for sub in runs_of(execute(outer))]

    assert ids == sorted(set(ids)) and len(ids) == 50


def test_a_sub_flow_in_a_sub_flow_knows_both(execute: Execute) -> None:
    seen: List[Any] = []

    @flow(name="Lower")
    def lower() -> None:
        step()
        seen.append((runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id))

    @flow(name="Middle")
    def middle() -> None:
        lower()

    told = execute(flow(lambda: middle(), name="outer"))

    first, second = runs_of(told)
    assert (first.flow, second.flow) == ("Middle", "Lower")
    assert seen == [(first.run, "0123456789abcdef")]
    assert owners(told) == {1: None, 2: first.run, 3: second.run}


def test_sub_flows_at_once_keep_their_tasks_apart_in_a_loop_and_in_threads(execute: Execute) -> None:
    @task
    async def work(number: int) -> str:
        await asyncio.sleep(0.01 * (3 - number))
        return str(runtime.flow_run.id)

    @flow(name="Together")
    async def together(number: int) -> str:
        return await work(number)

    @flow
    async def gathering() -> List[str]:
        return list(await asyncio.gather(*(together(number) for number in range(3))))

    @flow
    def threading_(found: List[str]) -> None:
        import contextvars

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(lambda: found.append(str(child_id())),))
            for _ in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    @flow(name="Child id")
    def child_id() -> Any:
        step()
        return runtime.flow_run.id

    told = execute(gathering)
    inside = owners(told)
    starts = {fact.task: fact for fact in told.started}
    assert {inside[n] for n, fact in starts.items() if fact.kind == "task"} == {sub.run for sub in runs_of(told)}
    assert told.ended.result == repr([sub.run for sub in runs_of(told)])

    found: List[str] = []
    told = execute(flow(lambda: threading_.fn(found), name="x"))
    assert sorted(found) == sorted(sub.run for sub in runs_of(told))
    assert len({owners(told)[fact.task] for fact in told.started if fact.kind == "task"}) == 4


def test_a_sub_flow_inside_a_task_and_inside_a_process(execute: Execute) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def outer() -> Any:
        return calls_a_flow(1), calls_a_flow.submit(2).result()

    told = execute(outer)

    first, second = runs_of(told)
    assert told.ended.result == "((1, 'outer'), (2, 'outer'))"
    assert [(s.key, s.parent, owners(told)[s.task]) for s in told.started] == [
        ("calls_a_flow", None, None),
        ("child", 1, None),
        ("step", 2, first.run),
        ("calls_a_flow", None, None),
        ("child", 4, None),
        ("step", 5, second.run),
    ]
    assert [second.task, second.parameters] == [5, {"number": 2}]


def test_a_failed_sub_flow_ends_its_run_with_its_error_and_nothing_open(execute: Execute) -> None:
    @flow(name="Bad")
    def bad() -> None:
        raise ValueError("no good")

    @flow
    def outer() -> str:
        try:
            bad()
        except ValueError:
            return "went on"
        return ""

    told = execute(outer)

    assert [(end.task, end.outcome, end.error, end.result) for end in told.task_ends] == [
        (1, "FAILED", "ValueError: no good", "")
    ]
    assert told.outcome == "COMPLETED"


def test_what_a_sub_flow_leaves_behind_ends_with_it_and_tells_nothing_more(execute: Execute) -> None:
    import contextvars

    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    @task
    def lingers() -> None:
        begun.set()
        release.wait(10)

    def behind() -> None:
        lingers()
        step(5)
        done.set()

    @flow(name="Leaves")
    def leaves() -> None:
        threading.Thread(target=contextvars.copy_context().run, args=(behind,)).start()
        begun.wait(10)

    @flow
    def outer() -> None:
        leaves()
        release.set()
        done.wait(10)

    told = execute(outer)

    assert [fact.key.rpartition(".")[2] for fact in told.started] == ["leaves", "lingers"]
    assert [(end.task, end.outcome) for end in told.task_ends] == [(2, "CANCELLED"), (1, "COMPLETED")]


def test_a_flow_that_is_tried_again_is_one_run(execute: Execute) -> None:
    tries: List[Any] = []

    @flow(name="Flaky", retries=1)
    def flaky() -> str:
        tries.append(runtime.flow_run.id)
        step()
        if len(tries) == 1:
            raise ValueError("not yet")
        return "done"

    told = execute(flow(lambda: flaky(), name="outer"))

    (sub,) = runs_of(told)
    assert tries == [sub.run] * 2
    assert [s.key for s in told.started if s.kind == "task"] == ["step", "step"]


def test_a_sub_flow_that_waits_for_what_failed_never_is_a_run(execute: Execute) -> None:
    @task
    def fails() -> None:
        raise ValueError("no")

    @flow
    def outer() -> Any:
        return child(wait_for=[fails.submit()], return_state=True).name

    told = execute(outer)

    assert told.ended.result == "'NotReady'"
    assert runs_of(told) == []


def test_its_tasks_have_the_keys_that_they_have_in_its_own_flow(execute: Execute) -> None:
    from tests.sdk import planned, planned_elsewhere

    @flow
    def one() -> None:
        planned.extract()

    @flow
    def other() -> None:
        planned_elsewhere.extract()

    @flow
    def outer() -> None:
        one()
        other()

    told = execute(outer)

    assert [(s.key, s.call) for s in told.started if s.kind == "task"] == [("extract", 0), ("extract", 1)]


# ----------------------------------------------------------------------------------------------------------- parameters


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@flow(name="Takes")
def takes(value: Any = None, password: str = "", key: Optional[Secret[str]] = None) -> None:
    print("got", password)


def told_of(execute: Execute, **values: Any) -> Dict[str, Any]:
    (sub,) = runs_of(execute(flow(lambda: takes(**values), name="outer")))
    json.dumps(sub.parameters, allow_nan=False)
    return sub.parameters


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        (Odd(), "<odd>"),
        (float("nan"), "nan"),
        ([Odd()], "[<odd>]"),
        ({1: (2, 3)}, {"1": [2, 3]}),
    ],
)
def test_small_json_values_are_told_as_they_are_and_others_by_a_preview(
    execute: Execute, value: Any, told: Any
) -> None:
    assert told_of(execute, value=value)["value"] == told


class Walked(List[int]):
    def __iter__(self) -> Any:
        raise AssertionError("a large value was walked through")


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, list(range(100_000)), 10**100_000, [[["x" * 9_000]]]],
    ids=["text", "list", "number", "deep"],
)
def test_large_values_are_previews(execute: Execute, value: Any) -> None:
    assert len(json.dumps(told_of(execute, value=value))) < 2_000


def test_values_that_bite_are_told_by_what_can_be_said(execute: Execute) -> None:
    class Bites:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    endless: List[Any] = []
    endless.append(endless)

    assert "Bites" in told_of(execute, value=Bites())["value"]
    assert told_of(execute, value=endless)["value"].startswith("[[")
    assert told_of(execute, value=Walked([1]))["value"]


def test_all_together_are_bounded(execute: Execute) -> None:
    @flow(name="Wide")
    def wide(**values: Any) -> None: ...

    @flow
    def outer() -> None:
        wide(**{"v%d" % n: "x" * 7_000 for n in range(150)})

    (sub,) = runs_of(execute(outer))

    assert len(messages.encode_fact(sub)) < 200_000


def test_secrets_are_told_by_nobody(execute: Execute) -> None:
    told = execute(flow(lambda: takes({"token": "tttt1"}, "pppp1", Secret("kkkk1")), name="outer"))

    (sub,) = runs_of(told)
    assert sub.parameters == {"value": {"token": "***"}, "password": "***", "key": "***"}
    (line,) = [fact_without_secrets(fact) for fact in told.logged]
    assert line.message == "got ***"  # as what leaves the process is cleaned
    other = messages.SubRunStarted(1.0, "run-pppp1", 1, "flow pppp1", {"x": ["a pppp1"], "pppp1": 1}, ["pppp1"])
    assert fact_without_secrets(other) == messages.SubRunStarted(
        1.0, "run-pppp1", 1, "flow pppp1", {"x": ["a ***"], "***": 1}, ["***"]
    )


def test_called_directly_nothing_of_it_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from perfect_client.engine import subflow_parameters

    monkeypatch.setattr(subflow_parameters, "preview_parameters", lambda *_: pytest.fail("nobody hears it"))

    assert flow(lambda: child(3), name="outer")() == 3
