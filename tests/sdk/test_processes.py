"""``ProcessPoolTaskRunner``: tasks in other processes, told as if they ran here."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Callable, List

import pytest
from perfect_client import flow, get_run_logger, progress, task
from perfect_client.engine.task_runners import ProcessPoolTaskRunner
from perfect_client.errors import CrashedRun

from tests.sdk.story import Story

Execute = Callable[..., Story]
seen: List[str] = []


def prepare(word: str) -> None:
    seen.append(word)


@task
def pid(number: int) -> int:
    return os.getpid()


@task
def inner(number: int) -> int:
    return number + 1


@task
def talks(number: int) -> Any:
    print("printed", number)
    get_run_logger().warning("logged %d", number)
    progress(0.5, "half")
    return inner(number), seen


@task
async def later(number: int) -> int:
    return number * 2


@task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def half_a_line() -> None:
    print("whole")
    print("half a ", end="")
    sys.stderr.write("bar 50%")
    os.kill(os.getpid(), signal.SIGKILL)


@task
def raises(kind: Any) -> None:
    raise kind("no good")


@task(timeout_seconds=0.2)
def hangs() -> None:
    time.sleep(60)


@pytest.fixture(autouse=True)
def _in_sys_modules(monkeypatch: Any) -> None:
    """Tests are imported by their files; what is pickled is found by its module."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys)


def processes(**options: Any) -> ProcessPoolTaskRunner:
    return ProcessPoolTaskRunner(max_workers=2, **options)


def test_tasks_run_in_other_processes() -> None:
    @flow(task_runner=processes())
    def parent() -> Any:
        return set(pid.map(range(6)).result()), later.map([1, 2]).result()

    pids, doubled = parent()

    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert doubled == [2, 4]


def test_what_happens_there_is_told_here(execute: Execute) -> None:
    @flow(task_runner=processes(initializer=prepare, initargs=("ready",)))
    def parent() -> Any:
        return [talks.submit(1).result()]

    told = execute(parent)

    assert told.ended.result == "[(2, ['ready'])]"
    assert [(line.message, line.level, line.task) for line in told.logged] == [
        ("printed 1", 20, 1),
        ("logged 1", 30, 1),
    ]
    assert [(s.name, s.task, s.parent) for s in told.started] == [("talks", 1, None), ("inner", 2, 1)]
    assert [(end.task, end.outcome) for end in told.task_ends] == [(2, "COMPLETED"), (1, "COMPLETED")]
    assert [(fact.task, fact.share) for fact in told.progress] == [(1, 0.5)]


def test_an_error_there_shows_where_it_was_raised(execute: Execute) -> None:
    @flow(task_runner=processes())
    def parent() -> None:
        raises.submit(ValueError).result()

    told = execute(parent)

    assert told.task_ends[0].error == "ValueError: no good"
    for traceback in (told.task_ends[0].traceback, told.ended.traceback):
        assert "in raises\n    raise kind(" in traceback
        assert "perfect_client/" not in traceback


def test_a_process_that_dies_fails_its_task_alone() -> None:
    @flow(task_runner=processes())
    def parent() -> Any:
        bad = dies.submit()
        with pytest.raises(CrashedRun, match="ended with signal 9"):
            bad.result()
        for wrong in (ValueError, FileNotFoundError):
            with pytest.raises(wrong, match="no good"):
                raises.submit(wrong).result()
        return pid.submit(1).result()

    assert parent() != os.getpid()


def test_a_task_that_overruns_is_killed() -> None:
    @flow(task_runner=processes())
    def parent() -> Any:
        return hangs.submit(return_state=True).name, pid.submit(1).result() > 0

    began = time.monotonic()

    assert parent() == ("TimedOut", True)
    assert time.monotonic() - began < 10


def test_what_cannot_be_pickled_is_said() -> None:
    @flow(task_runner=processes())
    def parent() -> None:
        inner.submit(lambda: None).result()  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="must be picklable"):
        parent()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the processes share no memory")
def test_the_last_words_of_a_process_that_dies_are_lines_of_its_task(execute: Execute) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def dying() -> None:
        half_a_line.submit().result(raise_on_failure=False)

    lines = [(line.message, line.level, line.task) for line in execute(dying).logged]

    assert lines[:3] == [("whole", 20, 1), ("half a ", 20, 1), ("bar 50%", 30, 1)]
