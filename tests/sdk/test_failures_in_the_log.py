"""An error is a line of the log at its place; ``sys.exit(0)`` is none; errors of other processes arrive as they are."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List

import pytest
from perfect_client import flow, task
from perfect_client.engine.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from tests.sdk.story import Story

Execute = Callable[..., Story]


def firsts(told: Story) -> List[Any]:
    return [(line.message.split("\n")[0], line.level, line.task) for line in told.logged]


def test_an_error_of_a_task_is_told_at_its_place_with_its_traceback_and_once(execute: Execute) -> None:
    @task
    def load() -> None:
        print("loading")
        raise ValueError("no such file")

    @flow(name="Nightly")
    def nightly() -> None:
        print("before")
        load()

    told = execute(nightly)

    assert firsts(told) == [
        ("before", 20, None),
        ("loading", 20, 1),
        ("Task 'load' failed: ValueError: no such file", 40, 1),
        ("Flow 'Nightly' failed: ValueError: no such file", 40, None),
    ]
    traceback = told.lines[2].split("\n", 1)[1]
    assert traceback.startswith("Traceback") and 'raise ValueError("no such file")' in traceback
    assert "perfect_client" not in traceback
    assert traceback == told.task_ends[0].traceback.rstrip("\n")
    assert "\n" not in told.lines[3]


def test_a_flow_that_fails_by_itself_tells_its_traceback(execute: Execute) -> None:
    @task
    def load() -> None:
        raise ValueError("one")

    @flow
    def careful() -> None:
        try:
            load()
        except ValueError:
            raise KeyError("two") from None

    told = execute(careful)

    assert [line for line, _, _ in firsts(told)] == [
        "Task 'load' failed: ValueError: one",
        "Flow 'careful' failed: KeyError: 'two'",
    ]
    assert 'raise KeyError("two")' in told.lines[1]


def test_a_failed_try_is_a_warning_and_the_last_one_an_error(execute: Execute) -> None:
    @task(retries=1)
    def flaky() -> None:
        raise OSError("gone")

    @flow
    def tries() -> None:
        flaky()

    assert [(text.split(" failed")[0], level) for text, level, _ in firsts(execute(tries))] == [
        ("Task 'flaky'", 30),
        ("Task 'flaky'", 40),
        ("Flow 'tries'", 40),
    ]


def test_a_sub_flow_tells_its_error_once_too(execute: Execute) -> None:
    @flow
    def inner() -> None:
        raise ValueError("deep")

    @flow
    def outer() -> None:
        inner()

    told = execute(outer)

    assert [line for line, _, _ in firsts(told)] == [
        "Flow 'inner' failed: ValueError: deep",
        "Flow 'outer' failed: ValueError: deep",
    ]
    assert ["\n" in line for line in told.lines] == [True, False]


def test_a_long_traceback_keeps_the_error_and_its_end(execute: Execute) -> None:
    @flow
    def long() -> None:
        raise ValueError("x" * 3000 + "\n" + "y" * 30_000 + "the end")

    (line,) = execute(long).lines

    assert len(line.encode()) <= 16 * 1024
    assert line.startswith("Flow 'long' failed: ValueError: xxx") and line.endswith("the end")


# ------------------------------------------------------------------------------------------------------- sys.exit


@task
def leaves(code: Any = None) -> None:
    sys.exit(code)


@task(retries=2)
def leaves_in_full(code: Any = None) -> None:
    sys.exit(code)


@task
async def leaves_later(code: Any = None) -> None:
    await asyncio.sleep(0)
    sys.exit(code)


@task
def yields_and_leaves(code: Any = None) -> Iterator[int]:
    yield 1
    sys.exit(code)


@task
async def yields_later_and_leaves(code: Any = None) -> AsyncIterator[int]:
    yield 1
    sys.exit(code)


async def _consume(code: Any) -> List[int]:
    return [item async for item in yields_later_and_leaves(code)]


CALLS: Dict[str, Callable[[Any], Any]] = {
    "call": leaves,
    "in full": leaves_in_full,
    "async": lambda code: asyncio.run(leaves_later(code)),  # type: ignore[arg-type]
    "generator": lambda code: list(yields_and_leaves(code)),
    "async generator": lambda code: asyncio.run(_consume(code)),
    "submit": lambda code: leaves.submit(code).result(),
    "submit async": lambda code: leaves_later.submit(code).result(),
    "map": lambda code: leaves.map([code]).result(),
}


@pytest.mark.parametrize("code", [None, 0])
@pytest.mark.parametrize("way", sorted(CALLS))
def test_sys_exit_without_an_error_completes_a_task(execute: Execute, way: str, code: Any) -> None:
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def calls() -> str:
        CALLS[way](code)
        return "went on"

    told = execute(calls)

    assert (told.outcome, told.ended.result) == ("COMPLETED", "'went on'")
    assert [end.outcome for end in told.task_ends] == ["COMPLETED"]
    assert calls() == "went on"


@pytest.mark.parametrize("way", sorted(CALLS))
def test_sys_exit_with_an_error_fails_a_task(execute: Execute, way: str) -> None:
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def calls() -> None:
        CALLS[way](2)

    assert [end.outcome for end in execute(calls).task_ends] == ["FAILED"]


@pytest.mark.parametrize("code", [None, 0])
def test_sys_exit_without_an_error_completes_a_flow(execute: Execute, code: Any) -> None:
    @flow
    def plain() -> None:
        print("before")
        sys.exit(code)

    @flow
    async def later() -> None:
        await asyncio.sleep(0)
        sys.exit(code)

    assert execute(plain).outcome == "COMPLETED"
    assert execute(plain).lines == ["before"]
    assert execute(later).outcome == "COMPLETED"
    assert plain() is None
    assert asyncio.run(later()) is None  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- errors of other processes


class Picky(Exception):
    def __init__(self, code: int, detail: Any) -> None:
        super().__init__("code %s" % code)
        self.code, self.detail = code, detail


@task
def raises_picky(how: str) -> None:
    if how == "local":

        class Picky2(ValueError):
            pass

        raise Picky2("code 3")
    raise Picky(3, detail=threading.Lock() if how == "lock" else "row 17")


@pytest.mark.parametrize(
    ("how", "kind", "shown"),
    [("text", Picky, "Picky: code 3"), ("lock", Picky, "Picky: code 3"), ("local", ValueError, "Picky2: code 3")],
)
def test_an_error_that_does_not_survive_pickling_keeps_type_text_and_traceback(
    execute: Execute, how: str, kind: Any, shown: str
) -> None:
    caught: List[BaseException] = []

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def picky() -> None:
        try:
            raises_picky.submit(how).result()
        except kind as error:
            caught.append(error)
            raise

    told = execute(picky)

    assert told.ended.error.endswith(shown)
    assert told.task_ends[0].error.endswith(shown)
    assert "in raises_picky" in told.task_ends[0].traceback
    assert caught and (how == "local" or caught[0].code == 3)
    assert how != "text" or caught[0].detail == "row 17"


# --------------------------------------------------------------------------------------------------- never awaited


def test_a_coroutine_task_that_is_never_awaited_is_named(execute: Execute) -> None:
    @task
    async def forgotten() -> None:
        """Nothing."""

    @flow
    def returns_it() -> Any:
        return forgotten()

    (line,) = execute(returns_it).logged

    assert line.level == logging.WARNING
    assert "forgotten" in line.message and "never awaited" in line.message


@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_the_warning_of_python_names_the_task() -> None:
    @task
    async def forgotten() -> None:
        """Nothing."""

    @flow
    def drops_it() -> None:
        forgotten()  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning, match="forgotten"):
        drops_it()
