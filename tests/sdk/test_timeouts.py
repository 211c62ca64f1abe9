"""``timeout_seconds`` in this process; what needs a worker to end is told in tests/worker."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest
from perfect_client import flow, task
from perfect_client.caching import lineage
from perfect_client.errors import FlowRunTimeoutError, TaskRunTimeoutError
from perfect_client.storage.results import FolderStore

from tests.sdk.story import Story, execute_flow, python

Execute = Callable[..., Story]


@task(timeout_seconds=0.05)
def sleeps() -> None:
    time.sleep(60)


@task(timeout_seconds=0.05)
async def sleeps_later() -> None:
    await asyncio.sleep(60)


def quickly(function: Callable[[], Any]) -> Any:
    began = time.monotonic()
    found = function()
    assert time.monotonic() - began < 10
    return found


def test_a_blocking_task_on_the_main_thread_is_interrupted(execute: Execute) -> None:
    before = signal.getsignal(signal.SIGALRM)
    told = quickly(lambda: execute(flow(name="f")(lambda: sleeps())))

    assert told.ended.reason == "timed_out: Task 'sleeps' exceeded its timeout of 0.05 second(s)"
    assert [end.outcome for end in told.task_ends] == ["FAILED"]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_submitted_task_is_failed_though_its_thread_goes_on() -> None:
    go_on = threading.Event()

    @task(timeout_seconds=0.05)
    def waits() -> None:
        go_on.wait(60)

    state: Any = quickly(lambda: flow(name="f")(lambda: waits.submit(return_state=True).name)())
    go_on.set()

    assert state == "TimedOut"


def test_an_async_task_is_cancelled_at_its_deadline() -> None:
    tidied: List[str] = []

    @task(timeout_seconds=0.05)
    async def tidies() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tidied.append("yes")

    @flow
    async def parent() -> str:
        with pytest.raises(TaskRunTimeoutError):
            await tidies()
        return "went on"

    @flow
    def submits() -> Any:
        return sleeps_later.submit(return_state=True).name

    assert quickly(lambda: asyncio.run(parent())) == "went on"  # type: ignore[arg-type]
    assert tidied == ["yes"]
    assert quickly(submits) == "TimedOut"


def test_a_flow_is_interrupted_within_its_tasks_and_no_retry_holds_it_up(execute: Execute) -> None:
    tries: List[int] = []

    @task(retries=5, timeout_seconds=30)
    def long() -> None:
        tries.append(1)
        time.sleep(60)

    @flow(timeout_seconds=0.1)
    def short() -> None:
        long()

    told = quickly(lambda: execute(short))

    assert told.ended.reason == "timed_out: Flow 'short' exceeded its timeout of 0.1 second(s)"
    assert len(tries) == 1
    with pytest.raises(FlowRunTimeoutError):
        short()


def test_a_task_that_timed_out_can_be_tried_again() -> None:
    tries: List[int] = []

    @task(retries=1, timeout_seconds=0.05)
    def slow_at_first() -> str:
        tries.append(1)
        if len(tries) == 1:
            time.sleep(60)
        return "done"

    assert quickly(slow_at_first) == "done"


def test_a_flow_that_catches_its_tasks_deadline_goes_on(execute: Execute) -> None:
    @flow(timeout_seconds=30)
    def careful() -> str:
        try:
            sleeps()
        except TimeoutError:
            return "went on"
        return ""

    assert execute(careful).ended.result == "'went on'"


def test_an_async_flow_has_a_deadline_too(execute: Execute) -> None:
    @flow(timeout_seconds=0.05)
    async def long() -> None:
        await asyncio.sleep(60)

    assert quickly(lambda: execute(long)).ended.reason.startswith("timed_out: Flow 'long'")
    with pytest.raises(FlowRunTimeoutError):
        quickly(lambda: asyncio.run(long()))  # type: ignore[arg-type]


def test_a_deadline_covers_what_the_flow_submitted(execute: Execute) -> None:
    go_on = threading.Event()

    @task
    def waits() -> None:
        go_on.wait(60)

    @flow(timeout_seconds=0.1)
    def leaves() -> None:
        waits.submit()

    told = quickly(lambda: execute(leaves))
    go_on.set()

    assert told.ended.reason.startswith("timed_out: Flow 'leaves'")


def test_who_is_done_in_time_is_left_alone(execute: Execute) -> None:
    @task(timeout_seconds=5)
    def quick(number: int) -> int:
        return number

    @flow(timeout_seconds=5)
    def parent() -> Any:
        return [quick(1), quick.submit(2).result()]

    assert execute(parent).ended.result == "[1, 2]"


# ------------------------------------------------------------------------------------------------------------ stopping

INTERRUPTED = """if True:
    import _thread, os, signal, threading, time
    from perfect_client import flow, task

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it puts behind ignore it

    @task
    def spins(number):
        try:
            os.write(1, b"busy %d\\n" % number)  # print writes the end of a line by itself
            busy.append(number)
            while True:
                pass
        finally:
            os.write(1, b"tidied %d\\n" % number)

    @flow
    def whole():
        futures = spins.map([1, 2, 3])
        while len(busy) < 3:
            time.sleep(0.001)
        try:
            _thread.interrupt_main()
            time.sleep(60)
        finally:
            print("main", flush=True)

    busy = []
    try:
        whole()
    except KeyboardInterrupt:
        print("over")
"""


def test_an_interrupted_program_lets_its_threads_tidy_up() -> None:
    said = python("-c", INTERRUPTED).stdout.decode().split("\n")

    assert sorted(said[:3]) == ["busy 1", "busy 2", "busy 3"]
    assert said[3] == "main" and said[-2] == "over"
    assert sorted(said[4:-2]) == ["tidied 1", "tidied 2", "tidied 3"]


def test_a_deadline_ends_a_plain_task_whose_result_is_kept(tmp_path: Path) -> None:
    @task
    def plain() -> None:
        time.sleep(30)

    @flow(timeout_seconds=0.1)
    def whole() -> None:
        plain()

    lineage.begin("0123456789abcdef", [], FolderStore(tmp_path))
    try:
        began = time.monotonic()
        story = execute_flow(whole)
    finally:
        lineage.end()

    assert story.outcome == "FAILED" and story.ended.reason.startswith("timed_out")
    assert time.monotonic() - began < 5
