"""What happens in a run, told as facts: ``Run`` is a run of a flow, ``TaskRun`` a call of a task in it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from perfect_client.context import Configuration, current_task
from perfect_client.failures import error_text, is_interruption, traceback_text
from perfect_client.protocol import (
    Logged,
    TaskEnded,
    TaskProgressed,
    TaskRestarted,
    TaskRetrying,
    TaskStarted,
    clean_text,
)

PROGRESS_INTERVAL_S = 0.05  # at most 20 facts a second for each task
MAX_PROGRESS_TEXT_BYTES = 1024

Emit = Callable[[Any], None]


def new_id() -> str:
    """A random UUID as text; the module ``uuid`` takes longer to load than a small flow to run."""
    digits = os.urandom(16).hex()
    return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], "a" + digits[17:20], digits[20:]))


class TaskRun:
    """One call of a task. ``number`` counts an attempt's task runs from 1, ``call`` the calls of its key from 0."""

    __slots__ = (
        "call", "details", "key", "next_report", "number", "parent", "pending", "run", "run_count", "state", "task",
    )  # fmt: skip

    def __init__(self, run: Run, task: Any, number: int, key: str, call: int, parent: Optional[int]) -> None:
        self.run, self.task, self.number, self.key, self.call, self.parent = run, task, number, key, call, parent
        self.pending: Optional[Tuple[float, str]] = None
        self.next_report = 0.0
        self.run_count = 1
        self.details: Any = None  # the ``parts.TaskCall`` of a task with options
        self.state: Any = None  # the ``states.State`` that it came to, of a task with options

    @property
    def id(self) -> str:
        """Unique: the run's id, its attempt and the number of this task run in it."""
        root = self.run.root
        return "%s:%d:%d" % (root.id, root.attempt, self.number)

    @property
    def name(self) -> str:
        """From ``task_run_name``, else the task's name and the number of this call of it in the run, from 0."""
        given = self.details.name if self.details is not None else None
        return str(given) if given else "%s-%d" % (self.task.name, self.call)

    @property
    def parameters(self) -> Dict[str, Any]:
        """The arguments by name; empty for a task without options, which does not keep them."""
        return dict(self.details.parameters) if self.details is not None else {}

    def report(self, share: float, text: str) -> None:
        """``share`` (0–1) of the work is done. At most 20 facts a second; the last value always gets through."""
        now = time.monotonic()
        if now >= self.next_report and self.pending is None:
            self.next_report = now + PROGRESS_INTERVAL_S
            self.run.progressed(self, share, text)
            return
        waiting, self.pending = self.pending, (share, text)
        if waiting is None:
            timer = threading.Timer(max(0.0, self.next_report - now), self.report_pending)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # no more threads can be had: better one fact too many than a failed task
                self.report_pending()

    def report_pending(self) -> None:
        """Send the value that came too soon after the one before."""
        with self.run._lock:  # whoever ends the task meanwhile would find nothing to tell
            waiting, self.pending = self.pending, None
            self.next_report = time.monotonic() + PROGRESS_INTERVAL_S
            if waiting is not None:
                self.run.progressed(self, *waiting)


class Run:
    """A run of a flow: what code can ask about it, and the facts it leaves.

    ``guard`` watches deadlines from outside this process, where there is somebody to do so.
    """

    def __init__(
        self, *, id: str, flow_name: str, emit: Emit, clock: Callable[[], float] = time.time, attempt: int = 1,
        tags: Tuple[str, ...] = (), configuration: Optional[Configuration] = None,
        keys: Optional[Mapping[int, str]] = None, flow: Any = None, guard: Any = None,
    ) -> None:  # fmt: skip
        self._describe(id, flow_name, attempt, tags, configuration, flow)
        self.root: Run = self
        self.guard = guard
        self.clock = clock
        self._closed = False
        self._emit = emit
        self._lock = threading.RLock()  # reentrant: a signal handler may print while a fact is being written
        self._numbers = itertools.count(1)
        self._calls: Dict[str, int] = {}
        self._keys = dict(keys or {})  # identity of a task's code → its key in this flow
        self._open: Dict[int, TaskRun] = {}
        self._held: List[Any] = []  # keeps the code alive whose identity is a key above

    def _describe(
        self, id: str, flow_name: str, attempt: int, tags: Tuple[str, ...], configuration: Optional[Configuration],
        flow: Any,
    ) -> None:  # fmt: skip
        self.id, self.flow_name, self.attempt, self.tags, self.flow = id, flow_name, attempt, tags, flow
        self.parameters: Mapping[str, Any] = {}
        self.configuration = configuration or Configuration()
        self.given_name: Optional[str] = None
        self.run_count = 1
        self.state: Any = None  # the ``states.State`` that it came to
        self.runner: Any = None  # the task runner, once something is submitted

    @property
    def name(self) -> str:
        """From ``flow_run_name``, else the flow's name and the first letters of the run's id."""
        return self.given_name or "%s %s" % (self.flow_name, self.id[:8])

    @property
    def closed(self) -> bool:
        """Whether the run is over: nothing is told any more."""
        return self.root._closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self.root._closed = value

    def leave(self) -> None:
        """In a forked child: whoever still holds this run tells nothing, and waits for no lock of another thread."""
        self._lock = self.root._lock = threading.RLock()
        self.root._closed = True

    # ---------------------------------------------------------------------------------------------------- the facts

    def tell(self, fact: Any) -> None:
        """Emit one fact; nothing after the run's end."""
        with self._lock:
            if not self.root._closed:
                self._emit(fact)

    def start(self, task: Any, parent: Optional[TaskRun]) -> TaskRun:
        """A task is being called."""
        with self._lock:
            started = self.open(task, parent)
            self.begin(started, task.name)
        return started

    def open(self, task: Any, parent: Optional[TaskRun]) -> TaskRun:
        """A task will be called: it has its number, but nothing is told before it begins."""
        with self._lock:
            key = self._keys.get(task.identity) or self._new_key(task)
            call = self._calls.get(key, 0)
            self._calls[key] = call + 1
            above = parent.number if parent is not None and parent.run.root is self.root else None
            return TaskRun(self, task, next(self._numbers), key, call, above)

    def begin(self, opened: TaskRun, name: str) -> None:
        """An opened task run starts."""
        task = opened.task
        with self._lock:
            self._open[opened.number] = opened
            self.tell(
                TaskStarted(
                    self.clock(), opened.number, opened.key, name, opened.call, opened.parent, task.weight,
                    task.estimated_time, task.wire_kind,
                )
            )  # fmt: skip

    def retry(self, failed: TaskRun, error: str, traceback: str, delay_s: float) -> None:
        """An attempt at a task failed, and there will be another after ``delay_s``."""
        with self._lock:
            failed.pending = None
            if failed.number in self._open:
                self.tell(TaskRetrying(self.clock(), failed.number, failed.run_count, delay_s, error, traceback))

    def restart(self, again: TaskRun) -> None:
        """The next attempt at a task begins."""
        with self._lock:
            again.run_count += 1
            if again.number in self._open:
                self.tell(TaskRestarted(self.clock(), again.number, again.run_count))

    def _new_key(self, task: Any) -> str:
        taken, key, number = set(self._keys.values()), str(task.key), 2
        while key in taken:
            key, number = "%s#%d" % (task.key, number), number + 1
        self._keys[task.identity] = key
        self._held.append(task.code)
        return key

    def end(self, ended: TaskRun, outcome: str = "COMPLETED", error: str = "", traceback: str = "") -> None:
        """A task came to its end; what it reported last is told before."""
        with self._lock:
            waiting, ended.pending = ended.pending, None
            if waiting is not None:
                self.progressed(ended, *waiting)
            if self._open.pop(ended.number, None) is not None:
                self.tell(TaskEnded(self.clock(), ended.number, outcome, error, traceback))

    def fail(self, ended: TaskRun, error: BaseException) -> None:
        """A task came to its end by an exception: an interruption makes it CANCELLED, everything else FAILED."""
        if is_interruption(error):
            self.end(ended, "CANCELLED", error_text(error))
        else:
            self.end(ended, "FAILED", error_text(error), traceback_text(error))

    def end_open(self, error: str) -> None:
        """Close the task runs that are still open, newest first: their children come before them."""
        with self._lock:
            for number in sorted(self._open, reverse=True):
                self.end(self._open[number], "CANCELLED", error)

    def retell(self, fact: Any, numbers: Dict[int, int]) -> None:
        """Tell a fact of another process; ``numbers`` are ours by its, and 1 is the task that runs there."""
        with self._lock:
            if isinstance(fact, TaskStarted):
                if fact.task == 1:
                    return
                call = self._calls.get(fact.key, 0)
                self._calls[fact.key] = call + 1
                numbers[fact.task] = next(self._numbers)
                above = None if fact.parent is None else numbers[fact.parent]
                self.tell(replace(fact, task=numbers[fact.task], call=call, parent=above))
            elif isinstance(fact, TaskEnded):
                if fact.task != 1:
                    self.tell(replace(fact, task=numbers.pop(fact.task)))
            else:
                self.tell(replace(fact, task=numbers.get(fact.task or 1)))

    def progressed(self, task: TaskRun, share: float, text: str) -> None:
        """So much of a task is done."""
        with self._lock:
            if task.number in self._open:
                self.tell(TaskProgressed(self.clock(), task.number, share, clean_text(text, MAX_PROGRESS_TEXT_BYTES)))

    def log(self, message: str, level: int, at: Optional[float] = None) -> None:
        """A line of output, clean already, of the task that the calling code is in."""
        current = current_task()
        number = current.number if current is not None and current.run.root is self.root else None
        self.tell(Logged(self.clock() if at is None else at, message, level, number))


class SubRun(Run):
    """A flow called inside a run: with its own id and parameters, while its facts are told by the run around it."""

    def __init__(self, above: Run, call: TaskRun, flow: Any) -> None:
        root = above.root
        tags = tuple(dict.fromkeys((*above.tags, *flow.tags)))
        self._describe(new_id(), flow.name, root.attempt, tags, flow.configuration(), flow)
        self.root, self.above, self.call = root, above, call
        self.guard, self.clock, self._emit, self._lock = root.guard, root.clock, root._emit, root._lock
        self._numbers, self._calls, self._keys = root._numbers, root._calls, root._keys
        self._open, self._held = root._open, root._held
