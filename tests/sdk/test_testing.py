"""``perfect_client.testing``: flows under test, without a server and without waiting."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from typing import Any, List

import pytest
from perfect_client import flow, get_run_logger, progress, task
from perfect_client.core import listeners
from perfect_client.engine import steps
from perfect_client.engine.task_runners import ProcessPoolTaskRunner
from perfect_client.storage.cache_policies import INPUTS
from perfect_client.testing import prefect_test_harness, recording, run
from perfect_client.testing.utilities import prefect_test_harness as by_prefects_name
from perfect_client.wire import messages

failures: List[int] = []


@task(weight=3)
def extract(n: int) -> List[int]:
    print("reading", n)
    progress(0.5, "half")
    return list(range(n))


@task(name="Load it")
def load(rows: List[int]) -> int:
    get_run_logger().warning("%d rows", len(rows))
    return len(rows)


@task(retries=3, retry_delay_seconds=[60, 3600])
def shaky() -> str:
    failures.append(1)
    if len(failures) < 3:
        raise ValueError("not yet %d" % len(failures))
    return "at last"


@flow
def nightly(n: int = 2) -> int:
    logging.getLogger("somebody").info("begins")
    return load(extract(n))


@flow
def patient() -> str:
    return shaky()


@flow
def broken() -> None:
    extract(1)
    raise RuntimeError("of the flow")


@flow
async def later(flow: str) -> str:
    load([1])
    return flow


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: Any) -> None:
    failures.clear()
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys)


def test_a_run_tells_its_state_tasks_logs_and_progress() -> None:
    told = run(nightly, 3)

    assert told.state.is_completed() and told.state.result() == 3
    assert [(t.name, t.key, t.state, t.tries) for t in told.tasks] == [
        ("extract", "extract", "COMPLETED", 1),
        ("Load it", "load", "COMPLETED", 1),
    ]
    assert told.task("extract").shares == [0.5] and 0 <= told.task("extract").duration < 5
    assert told.logs == [
        ("begins", logging.INFO, None),
        ("reading 3", logging.INFO, "extract"),
        ("3 rows", logging.WARNING, "Load it"),
    ]
    assert told.progress == 100
    assert [type(fact).__name__ for fact in told.facts][:2] == ["RunStarted", "Logged"]
    assert len(told.of(messages.TaskEnded)) == 2


def test_retries_do_not_wait_but_their_delays_count() -> None:
    begun = time.monotonic()

    told = run(patient)

    assert time.monotonic() - begun < 30
    only = told.task("shaky")
    assert (only.state, only.tries, only.delays) == ("COMPLETED", 3, [60.0, 3600.0])
    assert only.error == "ValueError: not yet 2"
    assert 3660 <= only.duration < 3700
    assert steps.sleep is time.sleep


def test_delays_can_be_waited_for() -> None:
    slow = patient.with_options(name="slow")
    quick = shaky.with_options(retry_delay_seconds=0.05)

    @flow
    def waits() -> str:
        return quick()

    with recording(real_time=True) as told:
        assert waits() == "at last"

    assert told.task("shaky").delays == [0.05, 0.05] and slow.name == "slow"


def test_a_failure_is_a_state_of_run_and_an_exception_in_a_recording() -> None:
    told = run(broken)

    assert told.state.is_failed() and 0 < told.progress < 100
    with pytest.raises(RuntimeError, match="of the flow"):
        told.state.result()
    with recording() as told, pytest.raises(RuntimeError, match="of the flow"):
        broken()
    assert told.state.is_failed() and "RuntimeError" in told.of(messages.RunEnded)[0].error


def test_asynchronous_flows_and_parameters_of_any_name() -> None:
    assert run(later, flow="x").state.result() == "x"
    with recording() as told:
        assert asyncio.run(later("y")) == "y"
    assert told.task("load").state == "COMPLETED"


def test_submitted_tasks_in_threads_are_told_with_their_lines() -> None:
    @flow
    def fans_out() -> List[int]:
        return load.map([[1], [1, 2], [1, 2, 3]]).result()

    told = run(fans_out)

    assert told.state.result() == [1, 2, 3]
    assert sorted(line.message for line in told.logs) == ["1 rows", "2 rows", "3 rows"]
    with pytest.raises(LookupError, match="task 'load' was called 3 times; tasks that were: Load it"):
        told.task("load")


def test_tasks_in_processes_are_told_as_well() -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def apart() -> int:
        return len(extract.submit(2).result())

    told = run(apart)

    assert told.state.result() == 2
    assert told.logs == [("reading 2", logging.INFO, "extract")]


def test_what_is_printed_is_still_printed(capsys: Any) -> None:
    run(nightly)

    assert "reading 2\n" in capsys.readouterr().out


def test_caches_are_the_tests_own(monkeypatch: Any) -> None:
    calls: List[int] = []

    @task(cache_policy=INPUTS)
    def dear(n: int) -> int:
        calls.append(n)
        return n

    @flow
    def twice() -> int:
        return dear(1) + dear(1)

    states = [task.state for task in (*run(twice).tasks, *run(twice).tasks)]

    assert states == ["COMPLETED", "CACHED"] * 2
    with prefect_test_harness():
        run(twice)
        assert [task.state for task in run(twice).tasks] == ["CACHED", "CACHED"]
    assert len(calls) == 3


def test_the_harness_has_a_home_of_its_own(monkeypatch: Any) -> None:
    monkeypatch.setenv("PERFECT_HOME", "/nowhere")

    with by_prefects_name():
        inside = os.environ["PERFECT_HOME"]
        assert os.listdir(inside) == []
        with recording():
            assert os.environ["PERFECT_HOME"] == inside

    assert os.environ["PERFECT_HOME"] == "/nowhere" and not os.path.exists(inside)


def test_recordings_nest_and_leave_no_trace() -> None:
    streams, level = (sys.stdout, sys.stderr), logging.getLogger().level
    with recording() as outer:
        nightly()
        with recording() as inner:
            nightly()
        nightly()

    assert (len(outer.runs), len(inner.runs)) == (2, 1)
    assert listeners.listener is None and (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().level == level
    with pytest.raises(LookupError, match="no flow was called"), recording() as empty:
        empty.state


def test_lines_of_threads_outside_the_run_are_not_its_own() -> None:
    @flow
    def alone() -> None:
        thread = threading.Thread(target=print, args=("from elsewhere",))
        thread.start()
        thread.join()

    assert run(alone).logs == []
