"""``State``: what became of a call, as a value; and how a return value decides it. Pure: no run, no clock but now."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from enum import Enum
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, List, Optional, Type, cast

from perfect_client.core import context
from perfect_client.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    PausedRun,
    PrefectException,
    TimedOut,
    UnfinishedRun,
    UpstreamTaskError,
)

__tracebackhide__ = True  # pytest does not show our frames


class StateType(str, Enum):
    """The kinds of state."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"

    def __str__(self) -> str:
        return self.value


S = StateType
FINAL_STATE_TYPES = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.CRASHED})
_BAD = frozenset({S.FAILED, S.CANCELLED, S.CRASHED})


class State:
    """``type`` and ``name`` say what it is, ``message`` why, ``data`` holds the result or the exception."""

    __slots__ = ("_at", "data", "message", "name", "task_run_id", "tolerated", "type")

    def __init__(
        self,
        type: StateType,
        name: Optional[str] = None,
        message: Optional[str] = None,
        data: Any = None,
        timestamp: Optional[datetime] = None,
        state_details: Any = None,
    ) -> None:
        self.type = StateType(type)
        self.name = name or self.type.value.capitalize()
        self.message, self.data = message, data
        self._at = time.time() if timestamp is None else timestamp.timestamp()
        self.task_run_id: Optional[str] = getattr(state_details, "task_run_id", None)
        self.tolerated = False  # a failure that fails nothing else: of a task with crucial=False

    @property
    def own_name(self) -> str:
        """The name, where it says more than the type."""
        return "" if self.name.upper() == self.type.value else self.name

    @property
    def timestamp(self) -> datetime:
        """When the state was made, in UTC."""
        return datetime.fromtimestamp(self._at, timezone.utc)

    @property
    def state_details(self) -> Any:
        """``task_run_id`` when a task run came to this state by itself, None when the state was made by hand."""
        return SimpleNamespace(task_run_id=self.task_run_id, flow_run_id=None)

    def is_scheduled(self) -> bool:
        return self.type is S.SCHEDULED

    def is_pending(self) -> bool:
        return self.type is S.PENDING

    def is_running(self) -> bool:
        return self.type is S.RUNNING

    def is_completed(self) -> bool:
        return self.type is S.COMPLETED

    def is_failed(self) -> bool:
        return self.type is S.FAILED

    def is_crashed(self) -> bool:
        return self.type is S.CRASHED

    def is_cancelled(self) -> bool:
        return self.type is S.CANCELLED

    def is_cancelling(self) -> bool:
        return self.type is S.CANCELLING

    def is_paused(self) -> bool:
        return self.type is S.PAUSED

    def is_final(self) -> bool:
        return self.type in FINAL_STATE_TYPES

    def result(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """The result; raises the exception of a state that is not COMPLETED, or returns it if not to raise.

        In asynchronous code it is a coroutine, as in Prefect: ``await state.result()``. Raises ``UnfinishedRun``.
        """
        if _in_asynchronous_code():
            return self.aresult(raise_on_failure)
        return self.value(raise_on_failure)

    async def aresult(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """``result`` for asynchronous code."""
        return self.value(raise_on_failure)

    def value(self, raise_on_failure: bool = True) -> Any:
        """``result`` that is a plain value everywhere."""
        if self.type in _BAD:
            error = exception_of(self)
            if raise_on_failure:
                raise error
            return error if self.data is None or isinstance(self.data, BaseException) else self.data
        if self.type is not S.COMPLETED:
            raise unfinished(self)
        return self.data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return (self.type, self.name, self.message, self.data) == (other.type, other.name, other.message, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        message = "message=%r, " % self.message if self.message else ""
        return "%s(%stype=%s)" % (self.name, message, self.type.value)


def _in_asynchronous_code() -> bool:
    """Whether the caller can await: a loop runs in this thread, and no synchronous task or flow lies in between."""
    events = sys.modules.get("asyncio.events")
    if events is None or events._get_running_loop() is None:
        return False
    task, run = context.current_task(), context.current_run()
    inner = task.task if task is not None else run.flow if run is not None else None
    return inner is None or bool(inner.is_async)


# ---------------------------------------------------------------------------------------------------- made by name


def _maker(type: StateType, name: str) -> Callable[..., State]:
    def make(cls: Type[State] = State, **options: Any) -> State:
        context.stand_ins = True
        return cls(type=type, **{"name": name, **options})

    make.__name__ = make.__qualname__ = name
    make.__doc__ = "A state of type %s named %s; takes ``message``, ``data`` and ``name``." % (type.value, name)
    return make


Scheduled = _maker(S.SCHEDULED, "Scheduled")
Late = _maker(S.SCHEDULED, "Late")
AwaitingRetry = _maker(S.SCHEDULED, "AwaitingRetry")
Pending = _maker(S.PENDING, "Pending")
NotReady = _maker(S.PENDING, "NotReady")
Running = _maker(S.RUNNING, "Running")
Retrying = _maker(S.RUNNING, "Retrying")
Completed = _maker(S.COMPLETED, "Completed")
Failed = _maker(S.FAILED, "Failed")
Crashed = _maker(S.CRASHED, "Crashed")
Cancelled = _maker(S.CANCELLED, "Cancelled")
Cancelling = _maker(S.CANCELLING, "Cancelling")
Paused = _maker(S.PAUSED, "Paused")
Suspended = _maker(S.PAUSED, "Suspended")


# ---------------------------------------------------------------------------------------------- states and exceptions

_WRAPPERS: Dict[StateType, Any] = {
    S.FAILED: (FailedRun, "Run failed."),
    S.CRASHED: (CrashedRun, "Run crashed."),
    S.CANCELLED: (CancelledRun, "Run cancelled."),
}


def exception_of(state: State) -> BaseException:
    """The exception of a FAILED, CRASHED or CANCELLED state: its own, that of the first bad state in it, or a new one.

    Raises ``ValueError`` for any other state.
    """
    if state.type not in _WRAPPERS:
        raise ValueError("Expected failed or crashed state got %r." % state)
    wrapper, otherwise = _WRAPPERS[state.type]
    data = state.data
    if isinstance(data, BaseException):
        return data
    if isinstance(data, State) and data.type in _BAD:
        return exception_of(data)
    if is_state_iterable(data):
        bad = [one for one in data if one.type in _BAD]
        if bad:
            return exception_of(bad[0])
    return cast(BaseException, wrapper(data if isinstance(data, str) else state.message or otherwise))


def unfinished(state: State) -> PrefectException:
    """What is raised when the result is asked of a state that has none."""
    if state.name == "NotReady":
        return UpstreamTaskError(state.message or "A task that it waits for did not complete.")
    kind = PausedRun if state.is_paused() else UnfinishedRun
    return kind("Run is in %s state, its result is not available." % state.type.value)


def get_state_exception(state: State) -> BaseException:
    """The exception of a FAILED, CRASHED or CANCELLED state. Raises ``ValueError`` for any other."""
    return exception_of(state)


def raise_state_exception(state: State) -> None:
    """Raise the exception of a state that is FAILED, CRASHED or CANCELLED; do nothing for any other."""
    if state.type in _BAD:
        raise exception_of(state)


def of_exception(error: BaseException) -> State:
    """The state of a call that raised."""
    if isinstance(error, TimedOut):
        return State(S.FAILED, "TimedOut", str(error), error)
    try:
        message = "%s: %s" % (type(error).__name__, error)
    except Exception:  # its own __str__ may fail
        message = type(error).__name__
    return State(S.FAILED, None, message, error)


# ----------------------------------------------------------------------------------------- what a return value means


def is_state_iterable(value: Any) -> bool:
    """Whether it is a list, tuple or set of states, and not empty."""
    return (
        isinstance(value, (list, tuple, set, frozenset))
        and len(value) > 0
        and all(isinstance(one, State) for one in value)
    )


def of_value(value: Any) -> State:
    """The state of a call that returned this: a state made by hand wins, states of runs are summed up."""
    if isinstance(value, State):
        return value if value.task_run_id is None else _sum([value], value)
    if is_state_iterable(value):
        return _sum(value, value)
    return State(S.COMPLETED, None, None, value)


def _sum(states: Iterable[State], data: Any) -> State:
    """COMPLETED if all are; else CANCELLED, PAUSED or FAILED."""
    listed: List[State] = list(states)
    total = len(listed)

    def count(*types: StateType) -> int:
        return sum(one.type in types for one in listed)

    if sum(one.is_completed() or one.tolerated for one in listed) == total:
        return State(S.COMPLETED, None, "All states completed.", data)
    if count(S.CANCELLED):
        return State(S.CANCELLED, None, "%d/%d states cancelled." % (count(S.CANCELLED), total), data)
    if count(S.PAUSED):
        return State(S.PAUSED, None, "%d/%d states paused." % (count(S.PAUSED), total), data)
    if count(S.FAILED, S.CRASHED):
        return State(S.FAILED, None, "%d/%d states failed." % (count(S.FAILED, S.CRASHED), total), data)
    waiting = total - count(*FINAL_STATE_TYPES)
    return State(S.FAILED, None, "%d/%d states are not final." % (waiting, total), data)


context.special.update((State, list, tuple, set))
