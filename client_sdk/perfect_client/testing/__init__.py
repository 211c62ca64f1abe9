"""Run flows in tests: without a server, without waiting for retries, with everything that happened to be looked at.

``told = run(my_flow, 3, day="today")``, or ``with recording() as told: my_flow(3)``; then ``told.state``,
``told.tasks``, ``told.logs``, ``told.progress``, ``told.facts``. Results and caches are kept in a folder of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from perfect_client.analysis import planner
from perfect_client.console.run_progress import Call, RunProgress
from perfect_client.core import listeners, states
from perfect_client.core.runs import Emit, Run
from perfect_client.core.states import State
from perfect_client.engine import steps
from perfect_client.engine.decorators import Flow
from perfect_client.output.tee import tee_output
from perfect_client.wire.messages import Logged, RunEnded, TaskEnded, TaskProgressed, TaskRetrying, TaskStarted

__all__ = ["LogLine", "Recording", "TaskTold", "prefect_test_harness", "recording", "run"]


class LogLine(NamedTuple):
    """A line that was printed or logged. ``level`` as in ``logging``; ``task`` is the task's name, if it was one's."""

    message: str
    level: int
    task: Optional[str]


class TaskTold:
    """What happened in one call of a task.

    ``state`` is COMPLETED, FAILED, CANCELLED, CACHED, SKIPPED or CRASHED, and RUNNING before the end. ``tries`` counts
    the attempts, ``delays`` are the seconds between them, ``shares`` what was reported by ``progress``, each 0–1.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self.name, self.key, self.number, self.parent = call.fact.name, call.fact.key, call.fact.task, call.fact.parent
        self.traceback = ""
        self.delays: List[float] = []
        self.shares: List[float] = []

    @property
    def state(self) -> str:
        return self._call.outcome or "RUNNING"

    @property
    def tries(self) -> int:
        return self._call.tries

    @property
    def error(self) -> str:
        """``ValueError: the message`` of the last attempt that failed; empty when none did."""
        return self._call.error

    @property
    def duration(self) -> float:
        """Seconds from its begin to its end, delays included; 0 while it runs."""
        return self._call.seconds(self._call.began)

    def __repr__(self) -> str:
        return "<%s %s, %d tries>" % (self.name, self.state, self.tries)


class Recording:
    """Everything that was told while it was open. Where several flows were called, ``state`` is that of the last."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.facts: List[Any] = []  # of perfect_client.wire.messages, in order
        self.runs: List[Run] = []
        self.tasks: List[TaskTold] = []  # in the order in which they began
        self.logs: List[LogLine] = []
        self._run_progress = RunProgress()

    def _listen(self, run: Run) -> Emit:
        run_progress = self._run_progress = RunProgress(planner.plan(run.flow).tasks if run.flow is not None else ())
        run.clock = self._clock
        by_number: Dict[int, TaskTold] = {}

        def emit(fact: Any) -> None:
            with self._lock:
                self.facts.append(fact)
                call = run_progress.take(fact)
                if type(fact) is Logged:
                    of = by_number.get(fact.task or 0)
                    self.logs.append(LogLine(fact.message, fact.level, of.name if of is not None else None))
                elif type(fact) is TaskStarted and call is not None:
                    by_number[fact.task] = TaskTold(call)
                    self.tasks.append(by_number[fact.task])
                elif call is not None:
                    _note(by_number[fact.task], fact)

        self.runs.append(run)
        return emit

    @property
    def state(self) -> State:
        """The state that the flow came to. Raises ``LookupError`` when none was called."""
        if not self.runs:
            raise LookupError("no flow was called in this recording")
        state: Optional[State] = self.runs[-1].state
        if state is not None and state.is_final():
            return state
        ended = next((fact for fact in reversed(self.facts) if type(fact) is RunEnded), None)
        return State(states.StateType(ended.outcome if ended is not None else "RUNNING"))

    @property
    def progress(self) -> float:
        """0–100: how far the last flow came, by the weights of its tasks."""
        return self._run_progress.progress(self.runs[-1].opened() if self.runs else {})

    def task(self, name: str) -> TaskTold:
        """The only call of the task of this name. Raises ``LookupError``."""
        found = [task for task in self.tasks if name in (task.name, task.key)]
        if len(found) != 1:
            known = ", ".join(sorted({task.name for task in self.tasks})) or "none"
            raise LookupError("task %r was called %d times; tasks that were: %s" % (name, len(found), known))
        return found[0]

    def of(self, kind: type) -> List[Any]:
        """The facts of one kind, as ``messages.TaskStarted``."""
        return [fact for fact in self.facts if type(fact) is kind]


def _note(told: TaskTold, fact: Any) -> None:
    if type(fact) is TaskRetrying:
        told.delays.append(fact.delay_s)
    elif type(fact) is TaskProgressed:
        told.shares.append(fact.share)
    elif type(fact) is TaskEnded:
        told.traceback = fact.traceback


class _Clock:
    """The time of a test: it jumps where the engine would have waited."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return time.time() + self._ahead

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._ahead += seconds


@contextlib.contextmanager
def recording(*, real_time: bool = False) -> Iterator[Recording]:
    """Listen to every flow that is called inside; its exceptions come out as ever.

    Delays of retries are not waited for, but count in the times that are told; with ``real_time`` they are waited for.
    """
    clock = _Clock()
    told = Recording(clock)
    before: Tuple[Any, Any] = listeners.listener, steps.sleep
    with prefect_test_harness(), tee_output():
        listeners.listener = told._listen
        steps.sleep = before[1] if real_time else clock.sleep
        try:
            yield told
        finally:
            listeners.listener, steps.sleep = before


def run(flow: Flow[Any, Any], /, *args: Any, **parameters: Any) -> Recording:
    """Call the flow with these arguments and record it. Its failure is a state, not an exception."""
    with recording() as told:
        called: Any = flow(*args, return_state=True, **parameters)  # type: ignore[arg-type]
        if hasattr(called, "__await__"):
            asyncio.run(called)
    return told


_harness: List[str] = []  # the folders of those that are open


@contextlib.contextmanager
def prefect_test_harness(server_startup_timeout: Optional[int] = None) -> Iterator[None]:
    """``PERFECT_HOME`` is an empty folder inside it: nothing is found that was kept before, and nothing remains.

    Inside another one it changes nothing. The timeout is Prefect's; there is no server to start.
    """
    if _harness:
        yield
        return
    before = os.environ.get("PERFECT_HOME")
    with tempfile.TemporaryDirectory(prefix="perfect-test-") as folder:
        _harness.append(folder)
        os.environ["PERFECT_HOME"] = folder
        try:
            yield
        finally:
            _harness.pop()
            if before is None:
                os.environ.pop("PERFECT_HOME", None)
            else:
                os.environ["PERFECT_HOME"] = before
