"""What happens in a run, told as facts: ``Run`` is a run of a flow, ``TaskRun`` a call of a task in it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple

from perfect_client.core import context
from perfect_client.core.context import Configuration, current_task
from perfect_client.core.previews import error_text, is_interruption, safe_preview, shorten, traceback_text
from perfect_client.wire.messages import (
    MAX_LINE_BYTES,
    MAX_NAME,
    Logged,
    RunNamed,
    SubRunStarted,
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


def discard(fact: Any) -> None:
    """Where the facts of a run go that no worker executes."""


def no_keys(flow: Any) -> Dict[int, str]:
    """Where nobody has read a flow's plan."""
    return {}


class Throttle:
    """Passes on what it is called with, at most 20 times a second; what was last said always gets through."""

    __slots__ = ("_next", "_run", "_send", "_waiting")

    def __init__(self, run: Run, send: Callable[..., None]) -> None:
        self._run, self._send, self._next = run, send, 0.0
        self._waiting: Optional[Tuple[Any, ...]] = None

    def __call__(self, *said: Any) -> None:
        now = time.monotonic()
        if now >= self._next and self._waiting is None:
            self._next = now + PROGRESS_INTERVAL_S
            self._send(*said)
            return
        waiting, self._waiting = self._waiting, said
        if waiting is None:
            timer = threading.Timer(max(0.0, self._next - now), self.settle)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # no more threads can be had: better one fact too many than a failed task
                self.settle()

    def settle(self) -> None:
        """Send now what came too soon after what was said before."""
        with self._run.root._lock:  # whoever ends meanwhile what this is about would find nothing to tell
            waiting, self._waiting = self._waiting, None
            self._next = time.monotonic() + PROGRESS_INTERVAL_S
            if waiting is not None:
                self._send(*waiting)

    def drop(self) -> None:
        """What waits is not worth saying any more."""
        self._waiting = None


class TaskRun:
    """One call of a task. ``number`` counts an attempt's task runs from 1, ``call`` the calls of its key from 0."""

    __slots__ = (
        "began",
        "call",
        "details",
        "given_tags",
        "key",
        "number",
        "parent",
        "reports",
        "run",
        "run_count",
        "state",
        "task",
    )

    def __init__(self, run: Run, task: Any, number: int, key: str, call: int, parent: Optional[int]) -> None:
        self.run, self.task, self.number, self.key, self.call, self.parent = run, task, number, key, call, parent
        self.reports: Optional[Throttle] = None  # once it reports
        self.run_count = 1
        self.details: Any = None  # the ``middleware.TaskCall`` of a task with options
        self.state: Any = None  # the ``states.State`` that it came to, of a task with options
        self.given_tags = context.tags_here() if context.tagged else ()
        self.began = 0.0  # seconds since the epoch

    @property
    def tags(self) -> List[str]:
        """The task's own, and those of ``with tags(…)`` around its call."""
        return list(dict.fromkeys((*self.task.tags, *self.given_tags)))

    @property
    def flow_run_id(self) -> str:
        return self.run.id

    @property
    def start_time(self) -> datetime:
        return datetime.fromtimestamp(self.began, timezone.utc)

    @property
    def log_prints(self) -> bool:
        """As the task says, else as its flow does."""
        own = self.task.log_prints if self.task.kind == "task" else None
        return self.run.log_prints if own is None else bool(own)

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
        if self.reports is None:
            self.reports = Throttle(self.run, partial(self.run.progressed, self))
        self.reports(share, text)

    def forget_reports(self) -> None:
        """What was last reported is outdated: the task is tried again."""
        if self.reports is not None:
            self.reports.drop()


class Run:
    """A run of a flow: what code can ask about it, and the facts it leaves.

    ``guard`` watches deadlines from outside this process, where there is somebody to do so.
    """

    def __init__(
        self,
        *,
        id: str,
        flow_name: str,
        emit: Emit,
        clock: Callable[[], float] = time.time,
        attempt: int = 1,
        tags: Tuple[str, ...] = (),
        configuration: Optional[Configuration] = None,
        keys: Optional[Mapping[int, str]] = None,
        flow: Any = None,
        guard: Any = None,
        keys_of: Callable[[Any], Mapping[int, str]] = no_keys,
        scheduled_for: Optional[float] = None,
    ) -> None:
        self.root: Run = self
        self.scheduled_for = scheduled_for  # seconds since the epoch
        self.above: Optional[Run] = None
        self.guard = guard
        self.answers: Any = None  # where the server's answers come in, if there is a server
        self.clock = clock
        self._describe(id, flow_name, attempt, tags, configuration, flow)
        self._closed = False
        self.line_time = clock  # when a line is told, marked for the raw output before it
        self._told_errors: Deque[Tuple[int, str]] = deque(maxlen=32)  # whose tracebacks stand in the log
        self.artifact_updates: Any = None  # the ``artifacts.ArtifactUpdates``, once the code has shown something
        self._emit = emit
        self.heard = False
        self._lock = threading.RLock()  # reentrant: a signal handler may print while a fact is being written
        self._numbers = itertools.count(1)
        self._calls: Dict[str, int] = {}
        self._keys_of = keys_of
        self._keys = dict(keys or {})  # identity of a task's code → its key in this flow
        self._open: Dict[int, TaskRun] = {}
        self.runners: Dict[str, Any] = {}  # of this run and its sub-flows, by their ids
        self._held: List[Any] = []  # keeps the code alive whose identity is a key above
        self._ticks = 0  # of the last id that was given to a sub-run

    def _describe(
        self,
        id: str,
        flow_name: str,
        attempt: int,
        tags: Tuple[str, ...],
        configuration: Optional[Configuration],
        flow: Any,
    ) -> None:
        self.id, self.flow_name, self.attempt, self.flow = id, flow_name, attempt, flow
        self.tags = tuple(dict.fromkeys((*tags, *context.tags_here()))) if context.tagged else tags
        self.began = 0.0  # seconds since the epoch
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
    def is_told(self) -> bool:
        """Whether anybody hears its facts."""
        return self.root._emit is not discard

    @property
    def start_time(self) -> datetime:
        return datetime.fromtimestamp(self.began, timezone.utc)

    @property
    def due_time(self) -> datetime:
        """In UTC: when it was scheduled for, else when it began."""
        due = self.began if self.scheduled_for is None else self.scheduled_for
        return datetime.fromtimestamp(due, timezone.utc)

    @property
    def log_prints(self) -> bool:
        """As the flow says, else as the flow around it does."""
        own = None if self.flow is None else self.flow.log_prints
        return bool(own) if own is not None or self.above is None else self.above.log_prints

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

    def hear(self, emit: Emit) -> None:
        """Somebody listens to a run that no worker executes; nothing was told before."""
        self._emit, self.heard = emit, True

    def opened(self) -> Dict[str, int]:
        """How many calls of each task were made or submitted, by its key. For any thread."""
        return dict(self._calls)

    # ---------------------------------------------------------------------------------------------------- the facts

    def tell(self, fact: Any) -> None:
        """Emit one fact; nothing after the run's end."""
        with self._lock:
            if not self.root._closed:
                self._emit(fact)

    def tell_name(self) -> None:
        """``given_name`` is known."""
        if self.given_name:
            self.tell(RunNamed(self.clock(), clean_text(self.given_name, MAX_NAME)))

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
            opened.began = now = self.clock()
            self.tell(
                TaskStarted(
                    now,
                    opened.number,
                    opened.key,
                    name,
                    opened.call,
                    opened.parent,
                    task.weight,
                    task.estimated_time,
                    task.wire_kind,
                    task.crucial,
                )
            )

    def retry(self, failed: TaskRun, error: str, traceback: str, delay_s: float) -> None:
        """An attempt at a task failed, and there will be another after ``delay_s``."""
        with self._lock:
            failed.forget_reports()
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

    def end(
        self,
        ended: TaskRun,
        outcome: str = "COMPLETED",
        error: str = "",
        traceback: str = "",
        result: str = "",
        state: str = "",
        message: str = "",
    ) -> None:
        """A task came to its end; what it reported last is told before."""
        with self._lock:
            if ended.reports is not None:
                ended.reports.settle()
            if self._open.pop(ended.number, None) is not None:
                self.tell(TaskEnded(self.clock(), ended.number, outcome, error, traceback, result, state, message))

    def end_with(self, ended: TaskRun, value: Any, outcome: str = "COMPLETED") -> None:
        """A task has returned ``value``; what is to be shown of it is worked out only where somebody hears it."""
        told = value is not None and self.root._emit is not discard
        self.end(ended, outcome, "", "", safe_preview(value) if told else "")

    def fail(self, ended: TaskRun, error: BaseException) -> None:
        """A task came to its end by an exception: an interruption makes it CANCELLED, everything else FAILED."""
        if is_interruption(error):
            self.end(ended, "CANCELLED", error_text(error))
            return
        told, traceback = error_text(error), traceback_text(error)
        self.log_failure(ended, error, told, traceback)
        self.end(ended, "FAILED", told, traceback)

    def log_failure(self, what: Optional[TaskRun], error: Optional[BaseException], told: str, traceback: str) -> None:
        """An ERROR line where a task, or the flow (None), fails. A traceback that stands in the log already is not
        told again: an error that ends a task often ends its flow too."""
        if self.root._emit is discard or (what is not None and what.number not in self._open):
            return
        mark = (id(error), told)
        if error is None or mark in self.root._told_errors:
            traceback = ""
        else:
            self.root._told_errors.append(mark)
        kind, name = ("Flow", self.flow_name) if what is None else (what.task.kind.capitalize(), what.task.name)
        text = "%s %r failed: %s" % (kind, name, told)
        room = MAX_LINE_BYTES - len(text.encode("utf-8", "backslashreplace")) - 1
        if traceback:
            text += "\n" + shorten(traceback.rstrip("\n"), room)
        number = None if what is None else what.number
        self.tell(Logged(self.root.line_time(), clean_text(text), logging.ERROR, number))

    def end_open(self, error: str) -> None:
        """Close the task runs that are still open, newest first: their children come before them."""
        self.settle()
        with self._lock:
            for number in sorted(self._open, reverse=True):
                if self._has(self._open[number].run):
                    self.end(self._open[number], "CANCELLED", error)

    def _has(self, run: Run) -> bool:
        """Whether ``run`` is this one or was called in it."""
        return True

    def run_id(self) -> str:
        """The id of a sub-run: a UUIDv7 (RFC 9562 §5.7), whose 12 bits after the milliseconds count on (§6.2)."""
        with self._lock:
            self._ticks = max(int(max(self.clock(), 0.0) * 1000) << 12, self._ticks + 1)
            digits = "%012x7%03x" % (self._ticks >> 12 & 0xFFFFFFFFFFFF, self._ticks & 0xFFF)
        return "-".join((digits[:8], digits[8:12], digits[12:], new_id()[19:]))

    def settle(self) -> None:
        """Tell what artifacts still wait to say: their run ends."""
        if self.root.artifact_updates is not None:
            self.root.artifact_updates.settle()

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

    def log(self, message: str, level: int, at: Optional[float] = None, task_run_id: str = "") -> None:
        """A line of output, clean already, of the task that the calling code is in, else of the one named."""
        number = self.number_here()
        if number is None and task_run_id.startswith("%s:%d:" % (self.root.id, self.root.attempt)):
            number = int(task_run_id.rpartition(":")[2])
        self.tell(Logged(self.clock() if at is None else at, message, level, number))

    def number_here(self) -> Optional[int]:
        """The number of the task run that the calling code is in, if it is in one of this run's."""
        current = current_task()
        return current.number if current is not None and current.run.root is self.root else None


class SubRun(Run):
    """A flow called inside a run: a run of its own, whose facts are told in the stream of the run around it.

    Its tasks have the keys that they have in its own flow; numbers and calls are counted by the outermost run.
    """

    def __init__(self, above: Run, call: TaskRun, flow: Any) -> None:
        root = above.root
        tags = tuple(dict.fromkeys((*above.tags, *flow.tags)))
        self.root, self.above, self.call = root, above, call
        self.guard, self.clock, self._emit, self._lock = root.guard, root.clock, root._emit, root._lock
        self._describe(root.run_id(), flow.name, root.attempt, tags, flow.configuration(), flow)
        self._numbers, self._calls, self._keys = root._numbers, root._calls, dict(root._keys_of(flow))
        self._open, self._held = root._open, root._held
        self._over = False

    def tell_name(self) -> None:
        """It is told with the start."""

    def told(self, parameters: Dict[str, Any]) -> None:
        """Its function will be called: from here on it is a run to the server too."""
        flow, configuration = clean_text(self.flow_name, MAX_NAME), self.configuration.name
        self.tell(
            SubRunStarted(
                self.clock(),
                self.id,
                self.call.number,
                flow,
                parameters,
                list(self.tags),
                configuration,
                clean_text(self.given_name or "", MAX_NAME),
            )
        )

    def begin(self, opened: TaskRun, name: str) -> None:
        """After its end, code that was left behind tells nothing more of it."""
        with self._lock:
            if not self._over:
                super().begin(opened, name)

    def end_open(self, error: str) -> None:
        """The flow has come to its end, and so has what it left open."""
        with self._lock:
            self._over = True
            super().end_open(error)

    def _has(self, run: Run) -> bool:
        while run.above is not None and run is not self:
            run = run.above
        return run is self
