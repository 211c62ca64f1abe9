"""What happens in a run, told as facts: ``Run`` is the run that this process executes, ``TaskRun`` a call of a task."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from perfect_client.context import Configuration, current_task
from perfect_client.failures import error_text, is_interruption, traceback_text
from perfect_client.protocol import Logged, TaskEnded, TaskProgressed, TaskStarted, clean_text

PROGRESS_INTERVAL_S = 0.05  # at most 20 facts a second for each task
MAX_PROGRESS_TEXT_BYTES = 1024

Emit = Callable[[Any], None]


class TaskRun:
    """One call of a task. ``number`` counts an attempt's task runs from 1, ``call`` the calls of its key from 0."""

    __slots__ = ("call", "key", "next_report", "number", "parent", "pending", "run", "task")

    def __init__(self, run: Run, task: Any, number: int, key: str, call: int, parent: Optional[int]) -> None:
        self.run, self.task, self.number, self.key, self.call, self.parent = run, task, number, key, call, parent
        self.pending: Optional[Tuple[float, str]] = None
        self.next_report = 0.0

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
        waiting, self.pending = self.pending, None
        self.next_report = time.monotonic() + PROGRESS_INTERVAL_S
        if waiting is not None:
            self.run.progressed(self, *waiting)


class Run:
    """The run that this process executes: what code can ask about it, and the facts it leaves."""

    def __init__(
        self, *, id: str, flow_name: str, emit: Emit, clock: Callable[[], float] = time.time, attempt: int = 1,
        tags: Tuple[str, ...] = (), configuration: Optional[Configuration] = None,
        keys: Optional[Mapping[int, str]] = None,
    ) -> None:  # fmt: skip
        self.id, self.flow_name, self.attempt, self.tags = id, flow_name, attempt, tags
        self.parameters: Mapping[str, Any] = {}
        self.configuration = configuration or Configuration()
        self.clock = clock
        self.closed = False
        self._emit = emit
        self._lock = threading.RLock()  # reentrant: a signal handler may print while a fact is being written
        self._numbers = itertools.count(1)
        self._calls: Dict[str, int] = {}
        self._keys = dict(keys or {})  # identity of a task's code → its key in this flow
        self._open: Dict[int, TaskRun] = {}
        self._held: List[Any] = []  # keeps the code alive whose identity is a key above

    # ---------------------------------------------------------------------------------------------------- the facts

    def tell(self, fact: Any) -> None:
        """Emit one fact; nothing after the run's end."""
        with self._lock:
            if not self.closed:
                self._emit(fact)

    def start(self, task: Any, parent: Optional[TaskRun]) -> TaskRun:
        """A task is being called."""
        with self._lock:
            key = self._keys.get(task.identity) or self._new_key(task)
            call = self._calls.get(key, 0)
            self._calls[key] = call + 1
            above = parent.number if parent is not None and parent.run is self else None
            started = TaskRun(self, task, next(self._numbers), key, call, above)
            self._open[started.number] = started
            self.tell(
                TaskStarted(self.clock(), started.number, key, task.name, call, above, task.weight, task.estimated_time)
            )
        return started

    def _new_key(self, task: Any) -> str:
        taken, key, number = set(self._keys.values()), str(task.key), 2
        while key in taken:
            key, number = "%s#%d" % (task.key, number), number + 1
        self._keys[task.identity] = key
        self._held.append(task.code)
        return key

    def end(self, ended: TaskRun, outcome: str = "COMPLETED", error: str = "", traceback: str = "") -> None:
        """A task came to its end."""
        with self._lock:
            ended.pending = None
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

    def progressed(self, task: TaskRun, share: float, text: str) -> None:
        """So much of a task is done."""
        with self._lock:
            if task.number in self._open:
                self.tell(TaskProgressed(self.clock(), task.number, share, clean_text(text, MAX_PROGRESS_TEXT_BYTES)))

    def log(self, message: str, level: int, at: Optional[float] = None) -> None:
        """A line of output, clean already, of the task that the calling code is in."""
        current = current_task()
        number = current.number if current is not None and current.run is self else None
        self.tell(Logged(self.clock() if at is None else at, message, level, number))
