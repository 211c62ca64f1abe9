"""Executing a flow: the facts tell what happened, in order, whatever the code does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Callable, List

import pytest
from perfect_client import Cancelled, flow, task
from perfect_client.core import context, runs
from perfect_client.execution import executor
from perfect_client.wire import messages

from tests.sdk.story import Story

Execute = Callable[..., Story]


@task(weight=3, estimated_time=200)
def step(value: int = 1) -> int:
    return value + 1


@task(name="Outer")
def outer() -> int:
    return step(1) + step(2)


@task
def failing() -> None:
    raise ValueError("no good")


# ------------------------------------------------------------------------------------------------ plain runs


def test_a_run_is_told_from_start_to_end(execute: Execute) -> None:
    @flow
    def once() -> int:
        return step(4)

    told = execute(once)

    assert [type(fact).__name__ for fact in told.facts] == ["RunStarted", "TaskStarted", "TaskEnded", "RunEnded"]
    assert told.facts[0].pid == os.getpid()
    assert told.outcome == "COMPLETED"
    assert told.ended.result == "5"
    assert told.started[0] == messages.TaskStarted(told.started[0].time, 1, "step", "step", 0, None, 3.0, 200.0)


def test_times_come_from_the_clock_and_never_go_back() -> None:
    ticks = iter(range(100, 200))
    facts: List[Any] = []

    @flow
    def once() -> None:
        step()

    executor.execute(once, messages.OfferRun(1, "r", "once"), facts.append, clock=lambda: float(next(ticks)))

    assert [fact.time for fact in facts] == sorted(fact.time for fact in facts)
    assert facts[0].time == 100.0


def test_calls_of_one_task_are_numbered(execute: Execute) -> None:
    @flow
    def thrice() -> None:
        step()
        outer()
        step()

    told = execute(thrice)

    assert [(s.task, s.key, s.call, s.parent) for s in told.started] == [
        (1, "step", 0, None),
        (2, "outer", 0, None),
        (3, "step", 1, 2),
        (4, "step", 2, 2),
        (5, "step", 3, None),
    ]


def test_a_flow_that_returns_nothing_has_no_result(execute: Execute) -> None:
    assert execute(flow(lambda: None)).ended.result == ""


def test_a_long_result_is_cut(execute: Execute) -> None:
    told = execute(flow(name="long")(lambda: "x" * 10_000))
    assert len(told.ended.result) <= 500


def test_parameters_are_bound_and_converted(execute: Execute) -> None:
    @flow
    def typed(n: int, names: "List[str]") -> Any:
        return [n, names]

    assert execute(typed, {"n": "3", "names": ["a"]}).ended.result == "[3, ['a']]"


def test_positional_only_parameters_are_given(execute: Execute) -> None:
    space: Any = {}
    exec("def f(a, /, b, *rest, c=3, **others): return (a, b, rest, c, others)", space)

    assert execute(flow(space["f"]), {"a": 1, "b": 2, "z": 9}).ended.result == "(1, 2, (), 3, {'z': 9})"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "Parameter 'n' is missing: it must be a whole number."),
        ({"n": "many"}, "Parameter 'n' must be a whole number, not 'many'."),
        ({"n": 1, "nam": "x"}, "There is no parameter 'nam'. Did you mean 'name'?"),
    ],
)
def test_a_bad_parameter_fails_the_run_with_a_sentence(execute: Execute, parameters: Any, sentence: str) -> None:
    called = []

    @flow
    def typed(n: int, name: str = "") -> None:
        called.append(n)

    told = execute(typed, parameters)

    assert (told.outcome, told.ended.reason) == ("FAILED", sentence)
    assert called == []


def test_an_unknown_configuration_fails_the_run_with_a_sentence(execute: Execute) -> None:
    configured = flow(name="c", configurations={"release": {}, "debug": {}})(lambda: None)

    told = execute(configured, configuration="relase")

    assert told.outcome == "FAILED"
    assert told.ended.reason == "The flow has no configuration 'relase': did you mean 'release'?"


def test_a_nested_flow_is_part_of_the_run(execute: Execute) -> None:
    @flow
    def inner() -> int:
        return step(1)

    @flow
    def parent() -> int:
        return inner()

    told = execute(parent)

    assert told.ended.result == "2"
    assert [(s.kind, s.name, s.parent) for s in told.started] == [("flow", "inner", None), ("task", "step", 1)]
    assert [end.outcome for end in told.task_ends] == ["COMPLETED", "COMPLETED"]


# --------------------------------------------------------------------------------------------------- failures


def test_an_exception_fails_the_task_and_the_run(execute: Execute) -> None:
    @flow
    def bad() -> None:
        failing()

    told = execute(bad)

    assert told.task_ends[0].outcome == "FAILED"
    assert told.task_ends[0].error == "ValueError: no good"
    assert (told.outcome, told.ended.error) == ("FAILED", "ValueError: no good")


def test_a_traceback_shows_the_users_frames_alone(execute: Execute) -> None:
    @flow
    def bad() -> None:
        failing()

    told = execute(bad).ended.traceback

    assert 'raise ValueError("no good")' in told
    assert "in failing" in told and "in bad" in told
    assert "perfect_client" + os.sep not in told


def test_a_caught_failure_of_a_task_does_not_fail_the_run(execute: Execute) -> None:
    @flow
    def careful() -> str:
        try:
            failing()
        except ValueError:
            return "went on"
        return ""

    told = execute(careful)

    assert told.outcome == "COMPLETED"
    assert told.task_ends[0].outcome == "FAILED"


@pytest.mark.parametrize(("argument", "shown"), [("3", "3"), ("'gone'", "'gone'")])
def test_sys_exit_is_a_failure_that_says_so(execute: Execute, argument: str, shown: str) -> None:
    @flow
    def leaving() -> None:
        exec("import sys; sys.exit(%s)" % argument)

    told = execute(leaving)

    assert told.outcome == "FAILED"
    assert told.ended.error == "SystemExit: the code called sys.exit(%s)" % shown


def test_an_exception_that_cannot_be_shown_is_survived(execute: Execute) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    @flow
    def bad() -> None:
        raise Nasty

    told = execute(bad)

    assert told.outcome == "FAILED"
    assert told.ended.error == (
        "test_an_exception_that_cannot_be_shown_is_survived.<locals>.Nasty: <its message cannot be shown>"
    )


def test_deep_recursion_is_a_failure_of_bounded_size(execute: Execute) -> None:
    @flow
    def deep() -> None:
        deep()

    told = execute(deep)

    assert told.ended.error.startswith("RecursionError")
    assert len(told.ended.traceback.encode()) <= 16 * 1024


def test_a_result_that_cannot_be_shown_is_survived(execute: Execute) -> None:
    class Nasty:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    told = execute(flow(name="n")(lambda: Nasty()))

    assert told.outcome == "COMPLETED"
    assert "Nasty" in told.ended.result


# ------------------------------------------------------------------------------------------------- being stopped


@pytest.mark.parametrize("stop", [Cancelled, KeyboardInterrupt])
def test_a_stop_cancels_the_open_tasks_and_the_run(execute: Execute, stop: Any) -> None:
    @task
    def long() -> None:
        raise stop("the run was stopped")

    @task
    def around() -> None:
        long()

    @flow
    def stopped() -> None:
        around()

    told = execute(stopped)

    assert told.outcome == "CANCELLED"
    assert [(end.task, end.outcome) for end in told.task_ends] == [(2, "CANCELLED"), (1, "CANCELLED")]
    assert told.ended.reason == "the run was stopped"
    assert type(told.facts[-1]) is messages.RunEnded


def test_a_task_left_open_in_a_thread_is_closed_with_the_run(execute: Execute) -> None:
    go_on, begun = threading.Event(), threading.Event()

    @task
    def waiting() -> None:
        begun.set()
        go_on.wait(10)

    @flow
    def leaves() -> None:
        threading.Thread(target=waiting, daemon=True).start()
        begun.wait(10)

    told = execute(leaves)
    count = len(told.facts)
    go_on.set()

    assert told.outcome == "COMPLETED"
    assert [(end.outcome, end.error) for end in told.task_ends] == [("CANCELLED", "The flow ended before this task.")]
    assert len(told.facts) == count  # nothing comes after the end


def test_open_tasks_are_closed_from_the_inside_out(execute: Execute) -> None:
    go_on, begun = threading.Event(), threading.Event()

    @task
    def inside() -> None:
        begun.set()
        go_on.wait(10)

    @task
    def outside() -> None:
        inside()

    @flow
    def leaves() -> None:
        threading.Thread(target=outside, daemon=True).start()
        begun.wait(10)

    told = execute(leaves)
    go_on.set()

    assert [end.task for end in told.task_ends] == [2, 1]


def test_nothing_is_told_after_the_end() -> None:
    facts: List[Any] = []
    run = runs.Run(id="r", flow_name="x", emit=facts.append)
    running = run.start(step, None)
    run.end(running)
    count = len(facts)

    run.progressed(running, 0.5, "")
    run.end(running)
    run.closed = True
    run.log("late", 20)
    run.start(step, None)

    assert len(facts) == count == 2


def test_a_stop_that_comes_too_late_does_not_lose_the_outcome() -> None:
    facts: List[Any] = []

    def emit(fact: Any) -> None:
        facts.append(fact)
        if type(fact) is messages.RunEnded and len(facts) == 2:
            raise Cancelled("too late")

    outcome = executor.execute(flow(name="x")(lambda: None), messages.OfferRun(1, "r", "x"), emit)

    assert outcome == "COMPLETED"
    assert type(facts[-1]) is messages.RunEnded


def test_a_second_run_at_the_same_time_is_refused() -> None:
    errors: List[str] = []

    @flow
    def runs_another() -> None:
        try:
            executor.execute(runs_another, messages.OfferRun(2, "other", "x"), print)
        except RuntimeError as wrong:
            errors.append(str(wrong))

    executor.execute(runs_another, messages.OfferRun(1, "this", "x"), lambda fact: None)

    assert errors == ["this process executes run this already"]
    assert context.active is None


def test_everything_is_put_back_after_a_run(execute: Execute) -> None:
    before = (sys.stdout, sys.stderr, logging.getLogger().level, list(logging.getLogger().handlers))

    execute(flow(name="x")(lambda: 1 / 0))

    assert (sys.stdout, sys.stderr, logging.getLogger().level, list(logging.getLogger().handlers)) == before
    assert context.active is None


def test_an_error_of_emit_leaves_the_process_usable(execute: Execute) -> None:
    def emit(fact: Any) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        executor.execute(flow(name="x")(lambda: None), messages.OfferRun(1, "r", "x"), emit)

    assert execute(flow(name="y")(lambda: 1)).outcome == "COMPLETED"


# ------------------------------------------------------------------------------------------------------- threads


def test_tasks_called_in_threads_are_recorded(execute: Execute) -> None:
    @flow
    def many() -> int:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(step, range(50)))

    told = execute(many)

    assert sorted(s.task for s in told.started) == list(range(1, 51))
    assert sorted(s.call for s in told.started) == list(range(50))
    assert {end.outcome for end in told.task_ends} == {"COMPLETED"}


def test_a_thread_with_its_parents_context_knows_its_parent(execute: Execute) -> None:
    @task
    def spreads() -> None:
        for run in (copy_context().run, lambda call: call()):
            thread = threading.Thread(target=run, args=(step,))
            thread.start()
            thread.join()

    @flow
    def parent() -> None:
        spreads()

    parents = [s.parent for s in execute(parent).started if s.key == "step"]

    assert parents[0] == 1
    if not getattr(sys.flags, "thread_inherit_context", False):
        assert parents[1] is None


# --------------------------------------------------------------------------------------------------------- async


@task
async def fetch(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def test_an_async_flow_runs_to_its_end(execute: Execute) -> None:
    @flow
    async def gathers() -> int:
        return sum(await asyncio.gather(*(fetch(n) for n in range(5))))

    told = execute(gathers)

    assert told.ended.result == "20"
    assert [s.call for s in told.started] == [0, 1, 2, 3, 4]
    assert {end.outcome for end in told.task_ends} == {"COMPLETED"}


def test_an_async_task_is_recorded_when_it_is_awaited(execute: Execute) -> None:
    @flow
    async def forgets() -> None:
        coroutine = fetch(1)
        coroutine.close()  # type: ignore[attr-defined]

    assert execute(forgets).started == []


def test_async_tasks_know_their_own_parent(execute: Execute) -> None:
    @task
    async def above(number: int) -> int:
        await asyncio.sleep(0.001 * number)
        return await fetch(number)

    @flow
    async def gathers() -> None:
        await asyncio.gather(above(2), above(1))

    told = execute(gathers)

    aboves = [s.task for s in told.started if s.key.endswith("above")]
    assert sorted(s.parent for s in told.started if s.key == "fetch") == sorted(aboves)


def test_a_cancelled_async_task_is_cancelled(execute: Execute) -> None:
    @task
    async def forever() -> None:
        await asyncio.sleep(60)

    @flow
    async def impatient() -> str:
        try:
            await asyncio.wait_for(forever(), 0.01)
        except asyncio.TimeoutError:
            return "gave up"
        return ""

    told = execute(impatient)

    assert told.outcome == "COMPLETED"
    assert [end.outcome for end in told.task_ends] == ["CANCELLED"]


def test_a_failing_async_task_fails(execute: Execute) -> None:
    @task
    async def bad() -> None:
        raise ValueError("async")

    @flow
    async def parent() -> None:
        await bad()

    told = execute(parent)

    assert [end.error for end in told.task_ends] == ["ValueError: async"]
    assert told.outcome == "FAILED"


def test_a_sync_task_works_in_an_async_flow(execute: Execute) -> None:
    @flow
    async def mixed() -> int:
        return step(1) + await fetch(2)

    assert execute(mixed).ended.result == "6"


# --------------------------------------------------------------------------------------------------------- keys


def test_tasks_made_by_each_call_have_one_key(execute: Execute) -> None:
    @flow
    def makes() -> None:
        for _ in range(3):

            @task
            def inner() -> None: ...

            inner()

    keys = {s.key for s in execute(makes).started}

    assert keys == {"test_tasks_made_by_each_call_have_one_key.makes.inner"}


def test_two_tasks_of_one_name_have_two_keys(execute: Execute) -> None:
    def make(number: int) -> Any:
        space: Any = {"task": task}
        exec("@task\ndef load(): return %d" % number, space)
        return space["load"]

    first, second = make(1), make(2)

    @flow
    def both() -> None:
        first()
        second()
        first()

    assert [s.key for s in execute(both).started] == ["load", "load#2", "load"]


# ------------------------------------------------------------------------------------------------------ forking


def test_a_forked_child_is_not_the_run(execute: Execute) -> None:
    @flow
    def forks() -> int:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            step(1)  # would be task 1 of the run
            print("in the child", flush=True)
            os.write(write, b"none" if context.active is None else b"run")
            os._exit(0)
        os.waitpid(pid, 0)
        told = os.read(read, 10)
        os.close(read)
        os.close(write)
        return len(told) if told == b"none" else -1

    if sys.version_info >= (3, 12):
        pytest.importorskip("warnings").simplefilter("ignore", DeprecationWarning)
    told = execute(forks)

    assert told.ended.result == "4"
    assert told.started == []
    assert told.lines == []


def test_a_parameter_that_explodes_while_it_is_read_fails_the_run(execute: Execute) -> None:
    class Exploding:
        @classmethod
        def model_validate(cls, value: Any) -> Any:
            raise KeyError("boom")

    def fn(a: Any) -> None: ...

    fn.__annotations__ = {"a": Exploding}

    told = execute(flow(fn), {"a": 1})

    assert (told.outcome, told.ended.error) == ("FAILED", "KeyError: 'boom'")


def test_a_parameter_may_be_named_self(execute: Execute) -> None:
    space: Any = {}
    exec("def fn(self, task=1, run=2): return [self, task, run]", space)
    inner = task(space["fn"])

    assert inner(self=5) == [5, 1, 2]
    assert execute(flow(lambda: inner(self=5, run=6))).ended.result == "[5, 1, 6]"
