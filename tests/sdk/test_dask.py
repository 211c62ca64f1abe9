"""``DaskTaskRunner``: tasks on a real cluster, told as if they ran here."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from perfect_client import ConfigurationError, flow
from perfect_client.core.runs import Run
from perfect_client.engine import dask
from perfect_client.engine.task_runners import DaskTaskRunner
from perfect_client.errors import CrashedRun
from perfect_client.testing import run
from perfect_client.wire import messages

from tests.sdk import dask_tasks
from tests.sdk.story import Story, python
from tests.sdk.terminals import piped

distributed = pytest.importorskip("distributed", reason="Dask is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # its own are not ours to mend

Execute = Callable[..., Story]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """One cluster of two processes for all tests here."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


def test_tasks_run_in_the_workers(address: str) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> Any:
        return set(dask_tasks.pid.map(range(20)).result()), dask_tasks.later.map([1, 2]).result()

    pids, doubled = parent()

    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert doubled == [2, 4]


def test_what_happens_there_is_told_here(address: str, execute: Execute) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> Any:
        return dask_tasks.talks.submit(1).result()

    told = execute(parent)

    assert told.ended.result == "2"
    assert [(line.message, line.level, line.task) for line in told.logged if line.task] == [
        ("printed 1", 20, 1),
        ("logged 1", 30, 1),
    ]
    assert [(s.name, s.task, s.parent) for s in told.started] == [("talks", 1, None), ("inner", 2, 1)]
    assert [(end.task, end.outcome) for end in told.task_ends] == [(2, "COMPLETED"), (1, "COMPLETED")]
    assert [(fact.task, fact.share) for fact in told.progress] == [(1, 0.5)]


def test_lines_of_tasks_that_run_at_once_are_each_their_own(address: str) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> Any:
        return dask_tasks.talks.map(range(12)).result()

    told = run(parent)

    assert told.state.result() == list(range(1, 13))
    assert sorted(line.message for line in told.logs if line.level == 20) == sorted("printed %d" % n for n in range(12))
    assert {line.task for line in told.logs} == {"talks"}


def test_retries_and_deadlines(address: str, tmp_path: Path) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> Any:
        return dask_tasks.fails_once.submit(str(tmp_path / "marker")), dask_tasks.hangs.submit()

    told = run(parent)

    assert [(t.name, t.state, t.tries) for t in told.tasks] == [("fails_once", "COMPLETED", 2), ("hangs", "FAILED", 1)]
    assert told.task("hangs").error.startswith("TaskRunTimeoutError: Task 'hangs' exceeded its timeout of 0.2")


def test_errors_come_home(address: str) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> None:
        with pytest.raises(ValueError, match="no good"):
            dask_tasks.raises.submit().result()
        with pytest.raises(TypeError, match="value of a task on Dask cannot be pickled"):
            dask_tasks.returns_a_lock.submit().result()
        with pytest.raises(TypeError, match="a task on Dask, and its arguments, must be picklable"):
            dask_tasks.inner.submit(threading.Lock()).result()

    parent()


def test_an_error_there_shows_where_it_was_raised(address: str) -> None:
    @flow(task_runner=DaskTaskRunner(address))
    def parent() -> None:
        dask_tasks.raises.submit()

    traceback = run(parent).task("raises").traceback

    assert "dask_tasks.py" in traceback and "perfect_client/" not in traceback


def test_workers_that_are_threads_of_this_process() -> None:
    @flow(
        task_runner=DaskTaskRunner(
            cluster_kwargs={"processes": False, "n_workers": 1, "dashboard_address": "127.0.0.1:0"}
        )
    )
    def parent() -> Any:
        return dask_tasks.talks.submit(1).result(), dask_tasks.pid.submit(1).result(), dask_tasks.raises.submit()

    told = run(parent)

    assert told.tasks[1].state == "COMPLETED" and told.tasks[-1].error == "ValueError: no good"
    assert [(line.message.split("\n")[0], line.task) for line in told.logs] == [
        ("printed 1", "talks"),
        ("logged 1", "talks"),
        ("Task 'raises' failed: ValueError: no good", "raises"),
    ]


def test_a_cluster_of_the_runs_own_tells_its_lines_once_and_nothing_of_itself(execute: Execute, capfd: Any) -> None:
    @flow(
        task_runner=DaskTaskRunner(
            cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        )
    )
    def parent() -> Any:
        return dask_tasks.talks.submit(1).result()

    told = execute(parent)

    assert [line.message for line in told.logged if line.level == 20 or line.task] == ["printed 1", "logged 1"]
    assert "printed 1" not in capfd.readouterr().out  # which a worker would take for lines of the run, too


def test_a_worker_that_dies_fails_its_task_alone_and_once(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @flow(
        task_runner=DaskTaskRunner(
            cluster_class="distributed.LocalCluster",
            cluster_kwargs={
                "n_workers": 1,
                "threads_per_worker": 1,
                "dashboard_address": "127.0.0.1:0",
                "host": "127.0.0.1",
            },
        )
    )
    def parent() -> Any:
        with pytest.raises(CrashedRun, match="The Dask worker of the task died"):
            dask_tasks.dies.submit(str(log)).result()
        return dask_tasks.inner.submit(1).result()

    assert parent() == 2
    assert log.read_text() == "started\n"


def test_a_flow_that_fails_gives_its_calls_back(address: str, tmp_path: Path) -> None:
    seen = str(tmp_path / "seen")

    @flow(task_runner=DaskTaskRunner(address), timeout_seconds=1.5)
    def parent() -> None:
        dask_tasks.waits.submit(seen)
        time.sleep(60)

    told = run(parent)

    assert told.state.is_failed()
    assert [(t.name, t.state) for t in told.tasks] == [("waits", "CANCELLED")]
    with distributed.Client(address, set_as_default=False) as client:
        until = time.monotonic() + 10
        while client.processing() and any(client.processing().values()):
            assert time.monotonic() < until
            time.sleep(0.05)
        for worker in seen_pids(tmp_path):  # its endless loop cannot be stopped by Dask: the nanny starts another
            os.kill(worker, signal.SIGKILL)


def seen_pids(folder: Path) -> Iterator[int]:
    return (int(path.name[len("seen") :]) for path in folder.glob("seen*"))


PROGRAM = """
from perfect_client import flow, task
from perfect_client.core.runs import Run
from perfect_client.engine.task_runners import DaskTaskRunner

@task
def inner(n):
    return n + 1

@task
def outer(n):
    print("in", n)
    return inner(n)

@flow(task_runner=DaskTaskRunner({address!r}))
def own():
    return sum(outer.map(range(3)).result())

if __name__ == "__main__":
    print("result", own())
"""


def test_tasks_of_a_program_go_along(address: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(PROGRAM.format(address=address))

    out, err, code = piped(str(path))

    assert (out, code) == ("result 6\n", 0), err
    assert "own completed in" in err and "6 done" in err


def test_what_is_still_on_its_way_is_waited_for_and_what_is_lost_is_said(monkeypatch: Any) -> None:
    facts: List[Any] = []
    whole = Run(id="r", flow_name="f", emit=facts.append)
    opened = dask._Open(whole.start(dask_tasks.inner, None))
    answer = pickle.dumps(("value", 42))
    late = threading.Timer(0.1, opened.take, [messages.Logged(1.0, "late", 20, 1)])
    late.start()

    assert opened.received(answer, 1) == 42
    assert [type(fact) for fact in facts] == [messages.TaskStarted, messages.Logged]
    monkeypatch.setattr(dask, "EVENTS_S", 0.01)
    assert opened.received(answer, 4) == 42
    assert facts[-1].dropped == 3 and facts[-1].message == "3 facts of a task on Dask did not arrive"


def test_a_missing_dask_is_one_sentence(monkeypatch: Any) -> None:
    monkeypatch.setattr("perfect_client.engine.dask.find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match=r"^DaskTaskRunner needs Dask: pip install 'perfect-client\[dask\]'$"):
        DaskTaskRunner()


def test_an_address_and_a_cluster_are_not_both_taken() -> None:
    with pytest.raises(ConfigurationError, match="takes an address, or what a cluster is to be made of, not both"):
        DaskTaskRunner("tcp://x", cluster_kwargs={"n_workers": 1})


def test_dask_is_not_loaded_before_it_is_used() -> None:
    code = (
        "import sys; from perfect_client import flow; from perfect_client.engine.task_runners import DaskTaskRunner\n"
        "flow(task_runner=DaskTaskRunner('tcp://x'))(len); print('distributed' in sys.modules, 'dask' in sys.modules)"
    )

    assert python("-c", code).stdout.split() == [b"False", b"False"]
