"""Deadlines that really end code: an alarm on the main thread, a helper thread elsewhere, cancellation in a loop.

Where the code does not listen (a C loop, a thread that sleeps), the run's guard ends the whole process from outside.
"""

from __future__ import annotations

import signal
import threading
import time
from contextvars import copy_context
from types import CodeType, FrameType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Type, TypeVar

from perfect_client.core import fast_path
from perfect_client.errors import PACKAGE, TimedOut

__tracebackhide__ = True  # pytest does not show our frames

AGAIN_S = 10.0  # code that swallowed its deadline hears of it again after so long: its cleanup had this grace
_NOT_NOW_S = 0.005  # while a fact is being written
_LOOP_SLACK_S = 1.0  # a loop that does not cancel its coroutine by then is blocked

F = TypeVar("F", bound=Callable[..., Any])
_calls: Set[CodeType] = {way.__code__ for way in (fast_path.call, fast_path.call_kept, fast_path.call_async)}
_waits: Set[CodeType] = set()


def calls_user_code(function: F) -> F:
    """Mark a function of ours: what it calls may be interrupted."""
    _calls.add(function.__code__)  # type: ignore[attr-defined]
    return function


def waits(function: F) -> F:
    """Mark a function of ours that only waits: it may be interrupted itself."""
    _waits.add(function.__code__)  # type: ignore[attr-defined]
    return function


class Limit(NamedTuple):
    """``sentence`` says whose time was over; ``guard`` watches from outside the process, if there is one."""

    seconds: float
    error: Type[TimedOut]
    sentence: str
    guard: Any = None

    def missed(self) -> TimedOut:
        return self.error(self.sentence)


def is_own(error: BaseException) -> bool:
    """False for the deadline of somebody further out, which no retry and no state may hold up."""
    return not (isinstance(error, TimedOut) and error.underway)


class _Guarded:
    """Context manager: the guard is on watch inside it."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit

    def __enter__(self) -> _Guarded:
        if self._limit.guard is not None:
            self._limit.guard.watch(self, self._limit.seconds, self._limit.sentence)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._limit.guard is not None:
            self._limit.guard.rest(self)


# ------------------------------------------------------------------------------------------------------ main thread

_alarms: List[_Alarm] = []
_previous: List[Any] = []


class _Alarm:
    """Context manager, main thread only: raises the limit's error inside it when the time is over. They nest."""

    def __init__(self, limit: Limit, slack: float = 0.0) -> None:
        self.error = limit.missed()
        self.error.underway = True
        self.due = time.monotonic() + limit.seconds + slack

    def __enter__(self) -> _Alarm:
        if not _alarms:
            _previous.append(signal.signal(signal.SIGALRM, _ring))
        _alarms.append(self)
        _set_timer()
        return self

    def __exit__(self, *exc: object) -> None:
        self.error.underway = False  # from here on it is a failure like any other
        _alarms.remove(self)
        _set_timer()
        if not _alarms:
            signal.signal(signal.SIGALRM, _previous.pop())


def _set_timer() -> None:
    nearest = min((alarm.due for alarm in _alarms), default=None)
    signal.setitimer(signal.ITIMER_REAL, 0.0 if nearest is None else max(1e-6, nearest - time.monotonic()))


def _ring(number: int, frame: Optional[FrameType]) -> None:
    if not may_interrupt(frame):
        signal.setitimer(signal.ITIMER_REAL, _NOT_NOW_S)
        return
    now = time.monotonic()
    due = next((alarm for alarm in _alarms if alarm.due <= now), None)  # the outermost, which ends those inside it
    if due is not None:
        due.due = now + AGAIN_S
    _set_timer()
    if due is not None:
        raise due.error


def may_interrupt(frame: Optional[FrameType]) -> bool:
    """Of a thread that stands there: whether user code runs, or a wait; our own code would be left half done."""
    at = frame
    while at is not None:
        if at.f_code.co_filename.startswith(PACKAGE):
            return at.f_code in _waits or (at.f_code in _calls and at is not frame)
        at = at.f_back
    return True


# ----------------------------------------------------------------------------------------------------- other threads


_helpers: Dict[int, int] = {}  # thread that waits → the one that works for it


def helper_of(thread: int) -> int:
    """The thread that does the work that this one waits for; itself where there is none."""
    while thread in _helpers:
        thread = _helpers[thread]
    return thread


class _Box:
    """What a helper thread came to."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.error: Optional[BaseException] = None


@calls_user_code
def _work(box: _Box, guarded: _Guarded, fn: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
    try:
        box.value = fn(*args, **kwargs)
    except BaseException as error:
        box.error = error
    finally:
        guarded.__exit__()
        box.done.set()


def _in_helper(
    limit: Limit, fn: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any], slack: float
) -> Any:
    """Call it in a thread of its own, and do not wait longer than the limit. The thread cannot be stopped."""
    box, guarded = _Box(), _Guarded(limit).__enter__()
    name = threading.current_thread().name
    work = (copy_context().run, (_work, box, guarded, fn, args, kwargs))
    helper = threading.Thread(target=work[0], args=work[1], name=name, daemon=True)
    helper.start()
    me = threading.get_ident()
    _helpers[me] = helper.ident or 0
    in_time = box.done.wait(limit.seconds + slack)
    del _helpers[me]
    if not in_time:
        raise limit.missed()
    if box.error is not None:
        raise box.error
    return box.value


@calls_user_code
def bounded(
    limit: Limit, fn: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any], slack: float = 0.0
) -> Any:
    """Call it within the limit, and ``slack`` seconds more. Raises the limit's error."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return _in_helper(limit, fn, args, kwargs, slack)
    with _Guarded(limit):
        with _Alarm(limit, slack):
            return fn(*args, **kwargs)


# --------------------------------------------------------------------------------------------------------- in a loop


async def bounded_later(limit: Limit, coroutine: Any) -> Any:
    """Await it within the limit: it is cancelled when its time is over. Raises the limit's error."""
    import asyncio  # heavy: whoever comes here has loaded it

    task: Any = asyncio.current_task()
    expired: List[bool] = []

    def expire() -> None:
        expired.append(True)
        task.cancel()

    with _Guarded(limit):
        timer = asyncio.get_running_loop().call_later(limit.seconds, expire)
        try:
            return await coroutine
        except asyncio.CancelledError:
            if not expired:
                raise
            getattr(task, "uncancel", int)()  # since Python 3.11 a task counts its cancellations
            raise limit.missed() from None
        finally:
            timer.cancel()


def run_coroutine(limit: Optional[Limit], make: Callable[[], Any]) -> Any:
    """Run the coroutine that ``make`` gives in a loop of its own; a loop that is blocked is interrupted."""
    import asyncio  # heavy, and most flows are not coroutines

    if limit is None:
        return asyncio.run(make())
    whole = limit

    async def within() -> Any:
        return await bounded_later(whole, make())

    return bounded(whole, _run_loop, (within,), {}, _LOOP_SLACK_S)


@calls_user_code
def _run_loop(make: Callable[[], Any]) -> Any:
    import asyncio  # heavy, and most flows are not coroutines

    return asyncio.run(make())
