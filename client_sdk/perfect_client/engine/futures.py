"""Futures: calls of tasks that were submitted, and what is to be known of them."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, Callable, Generic, Iterable, Iterator, List, NamedTuple, Optional, Set, TypeVar, cast

from perfect_client.core import context, states
from perfect_client.core.deadlines import waits
from perfect_client.core.run_logger import get_run_logger
from perfect_client.core.runs import TaskRun
from perfect_client.core.states import State
from perfect_client.engine import arguments

__tracebackhide__ = True  # pytest does not show our frames

R = TypeVar("R")
_lock = threading.Lock()  # of all futures: it is held for an assignment, and a lock each would outweigh a small task
_worker = threading.local()  # ``.pool`` in a thread that runs tasks, ``.loop`` in one with a loop


class PrefectFuture(Generic[R]):
    """A call of a task that was submitted. Made by ``submit`` and ``map``."""

    __slots__ = ("__weakref__", "_callbacks", "_state", "task_run")
    is_perfect_future = True

    def __init__(self, task_run: TaskRun) -> None:
        context.stand_ins = True
        self.task_run = task_run
        self._state: Optional[State] = None
        self._callbacks: Optional[List[Callable[[PrefectFuture[R]], None]]] = None

    @property
    def done(self) -> bool:
        """Whether the call has come to its final state."""
        return self._state is not None

    @property
    def name(self) -> str:
        return self.task_run.name

    @property
    def task_run_id(self) -> str:
        """The id of the task run, as ``runtime.task_run.id`` tells it inside."""
        return self.task_run.id

    @property
    def state(self) -> State:
        """The state as it is now."""
        if self._state is not None:
            return self._state
        return State(states.S.RUNNING if self.task_run.state is not None else states.S.PENDING)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Wait until the call has ended, at most ``timeout`` seconds."""
        if self._state is None:
            _wait_for([self], timeout)

    def result(self, timeout: Optional[float] = None, raise_on_failure: bool = True) -> R:
        """What the call returned. Raises what it raised, unless told not to: then that is returned.

        Raises ``TimeoutError`` when it has not ended in ``timeout`` seconds.
        """
        self.wait(timeout)
        if self._state is None:
            raise TimeoutError("Call timed out before task run '%s' completed." % self.name)
        return self._value(raise_on_failure)

    def _value(self, raise_on_failure: bool) -> R:
        state: Any = self._state
        return cast(R, None if state.tolerated else state.value(raise_on_failure))

    async def wait_async(self, timeout: Optional[float] = None) -> None:
        """``wait`` for asynchronous code: the loop goes on meanwhile."""
        import asyncio  # heavy: whoever comes here has loaded it

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def ring(_: Any) -> None:
            try:
                loop.call_soon_threadsafe(ended.set)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        self.add_done_callback(ring)
        try:
            await asyncio.wait_for(ended.wait(), timeout)
        except asyncio.TimeoutError:
            pass

    async def result_async(self, timeout: Optional[float] = None, raise_on_failure: bool = True) -> R:
        """``result`` for asynchronous code."""
        await self.wait_async(timeout)
        if self._state is None:
            raise TimeoutError("Call timed out before task run '%s' completed." % self.name)
        return self._value(raise_on_failure)

    aresult = result_async

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], None]) -> None:
        """Call ``fn(future)`` when the call has ended; at once if it has."""
        with _lock:
            if self._state is None:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(fn)
                return
        self._call_back(fn)

    def remove_done_callback(self, fn: Callable[[PrefectFuture[R]], None]) -> None:
        """Forget a callback, if it is still waiting."""
        with _lock:
            if self._callbacks and fn in self._callbacks:
                self._callbacks.remove(fn)

    def finish(self, state: State) -> bool:
        """For task runners: the call has come to this state. False if it had ended before."""
        with _lock:
            if self._state is not None:
                return False
            self._state, callbacks, self._callbacks = state, self._callbacks, None
        for callback in callbacks or ():
            self._call_back(callback)
        return True

    def _call_back(self, callback: Callable[[PrefectFuture[R]], None]) -> None:
        try:
            callback(self)
        except Exception:
            get_run_logger().exception("A callback of task run %r failed", self.name)

    def __repr__(self) -> str:
        return "PrefectFuture(%r, %s)" % (self.name, self.state.name)


context.special.add(PrefectFuture)


class PrefectFutureList(List[PrefectFuture[R]]):
    """The futures of a ``map``, in the order of its items."""

    def wait(self, timeout: Optional[float] = None) -> None:
        """Wait until all calls have ended, at most ``timeout`` seconds."""
        wait(self, timeout)

    def result(self, timeout: Optional[float] = None, raise_on_failure: bool = True) -> List[R]:
        """What each call returned. Raises what the first bad one raised, and ``TimeoutError``."""
        until = None if timeout is None else time.monotonic() + timeout
        return [future.result(_left(until), raise_on_failure) for future in self]


context.special.add(PrefectFutureList)
arguments.CONTAINERS[PrefectFutureList] = arguments.in_list


# ---------------------------------------------------------------------------------------------------------- waiting


def _left(until: Optional[float]) -> Optional[float]:
    return None if until is None else max(0.0, until - time.monotonic())


class _Gate:
    """Opens when so many futures have ended; an ``Event`` that costs a lock only."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._shut = threading.Lock()
        self._shut.acquire()

    def __call__(self, _: Any) -> None:
        with _lock:
            self._count -= 1
            opens = self._count == 0
        if opens:
            self._shut.release()

    @waits
    def wait(self, timeout: Optional[float]) -> None:
        self._shut.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))


def _wait_for(pending: List[PrefectFuture[Any]], timeout: Optional[float]) -> None:
    """Block until all of the futures have ended."""
    if getattr(_worker, "loop", False) and any(future.task_run.task.is_async for future in pending):
        raise RuntimeError("this would wait for itself: in an asynchronous task, await future.result_async()")
    gate = _Gate(len(pending))
    pool = getattr(_worker, "pool", None)
    for future in pending:
        future.add_done_callback(gate)
    if pool is not None:
        pool.blocked(1)  # this thread does nothing now: another may take its place, or tasks could wait for ever
    try:
        gate.wait(timeout)
    finally:
        if pool is not None:
            pool.blocked(-1)
        for future in pending:
            if not future.done:
                future.remove_done_callback(gate)


class DoneAndNotDoneFutures(NamedTuple):
    """What ``wait`` returns."""

    done: Set[PrefectFuture[Any]]
    not_done: Set[PrefectFuture[Any]]


def wait(futures: Iterable[PrefectFuture[Any]], timeout: Optional[float] = None) -> DoneAndNotDoneFutures:
    """Wait until all futures have ended, at most ``timeout`` seconds; which have, and which have not."""
    listed = list(futures)
    pending = [future for future in listed if not future.done]
    if pending:
        _wait_for(pending, timeout)
    done = {future for future in listed if future.done}
    return DoneAndNotDoneFutures(done, set(listed) - done)


def as_completed(
    futures: Iterable[PrefectFuture[Any]], timeout: Optional[float] = None
) -> Iterator[PrefectFuture[Any]]:
    """The futures in the order in which they end. Raises ``TimeoutError`` after ``timeout`` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    listed = list(dict.fromkeys(futures))
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    for future in listed:
        future.add_done_callback(ended.put)
    for number in range(len(listed)):
        try:
            future = _take(ended, _left(until))
        except Empty:
            raise TimeoutError("%d (of %d) futures unfinished" % (len(listed) - number, len(listed))) from None
        yield future


@waits
def _take(ended: SimpleQueue[PrefectFuture[Any]], timeout: Optional[float]) -> PrefectFuture[Any]:
    pool = getattr(_worker, "pool", None)
    if pool is None or not ended.empty():
        return ended.get(timeout=timeout)
    pool.blocked(1)
    try:
        return ended.get(timeout=timeout)
    finally:
        pool.blocked(-1)


# -------------------------------------------------------------------------------------------------------- resolving


def resolve_futures_to_states(expr: Any) -> Any:
    """The value with the final state of each future inside it in the future's place; waits for them."""
    wait(arguments.futures_in(expr))
    return arguments.to_states(expr)


def resolve_futures_to_results(expr: Any, raise_on_failure: bool = True) -> Any:
    """The value with the result of each future inside it in the future's place; waits for them."""
    return arguments.to_results(expr, raise_on_failure)
