"""``task.submit`` and ``task.map``: calls that run at the same time as what follows."""

from __future__ import annotations

import atexit
import threading
from typing import Any, Dict, Tuple

from perfect_client.core import context
from perfect_client.core.annotations import BaseAnnotation, allow_failure, quote, unmapped
from perfect_client.core.middleware import TaskCall
from perfect_client.core.runs import Run
from perfect_client.engine import arguments, task_calls
from perfect_client.engine.futures import PrefectFuture, PrefectFutureList, wait
from perfect_client.engine.task_runners import Job, TaskRunner, ThreadPoolTaskRunner
from perfect_client.errors import ConfigurationError, MappingLengthMismatch, MappingMissingIterable, function_place

__tracebackhide__ = True  # pytest does not show our frames

_lock = threading.Lock()
_of_nobody: Dict[str, Any] = {}


def runner_of(run: Run) -> TaskRunner:
    """The run's task runner; made when something is submitted first."""
    with _lock:
        if run.runner is None:
            wanted = run.flow.task_runner if run.flow is not None else None
            run.runner = wanted.duplicate() if wanted is not None else ThreadPoolTaskRunner()
            run.runner.__enter__()
            run.root.runners[run.id] = run.runner
        runner: TaskRunner = run.runner
        return runner


def _run_of_nobody() -> Run:
    """What is submitted outside of any flow runs until the program ends."""
    with _lock:
        if "run" not in _of_nobody:
            _of_nobody["run"] = task_calls.make_detached_run()
            atexit.register(_end_of_program)
        run: Run = _of_nobody["run"]
        return run


def _end_of_program() -> None:
    run: Run = _of_nobody["run"]
    if run.runner is not None:
        wait(run.runner.unfinished())
        run.runner.shut()


def submit(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Submit one call; its future, or its final state with ``return_state``."""
    return_state = kwargs.pop("return_state", False)
    future = _submitted(task, args, kwargs, kwargs.pop("wait_for", None))
    if not return_state:
        return future
    future.wait()
    return future.state


def _submitted(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any) -> PrefectFuture[Any]:
    run = context.current_run() or _run_of_nobody()
    call = TaskCall(task, run, args, kwargs, True, wait_for)
    return runner_of(run).submit(Job(call, context.current_task()))


def map_task(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Submit a call for each item; the futures, or the final states with ``return_state``."""
    return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
    if kwargs.pop("deferred", False):
        raise ConfigurationError(
            "map(deferred=True) hands calls to background workers, which Perfect does not have: leave it out, and the "
            "calls run at the same time as what follows (task %s)" % function_place(task.fn)
        )
    given = [_items(value) for value in args]
    named = {name: _items(value) for name, value in kwargs.items()}
    count = _count(task, {**{"argument %d" % n: one for n, one in enumerate(given, 1)}, **named})
    futures: PrefectFutureList[Any] = PrefectFutureList()
    for index in range(count):
        futures.append(
            _submitted(
                task,
                tuple([one.at(index) for one in given]),
                {name: one.at(index) for name, one in named.items()},
                wait_for,
            )
        )
    if not return_state:
        return futures
    futures.wait()
    return [future.state for future in futures]


class _Items:
    """An argument of ``map``: one value for all calls, or an item for each."""

    __slots__ = ("annotation", "each", "value")

    def __init__(self, value: Any, each: bool, annotation: Any = None) -> None:
        self.value, self.each, self.annotation = value, each, annotation

    def at(self, index: int) -> Any:
        item = self.value[index] if self.each else self.value
        return item if self.annotation is None else self.annotation(item)


def _items(value: Any) -> _Items:
    annotation = None
    if isinstance(value, unmapped):
        return _Items(value.value, False)
    if isinstance(value, (allow_failure, quote)):
        annotation, value = type(value), value.value
    if isinstance(value, unmapped):
        return _Items(value.value, False, annotation)
    if arguments.is_future(value):
        value = value.result()
    if isinstance(value, (str, bytes, bytearray, BaseAnnotation)) or not hasattr(value, "__iter__"):
        return _Items(value, False, annotation)
    return _Items(value if isinstance(value, (list, tuple)) else list(value), True, annotation)


def _count(task: Any, given: Dict[str, _Items]) -> int:
    lengths = {name: len(one.value) for name, one in given.items() if one.each}
    place = "task %s" % function_place(task.fn)
    if not lengths:
        raise MappingMissingIterable(
            "No iterable parameters were received. Parameters for map must include at least one iterable. (%s)" % place
        )
    if len(set(lengths.values())) > 1:
        told = ", ".join("%s: %d" % pair for pair in lengths.items())
        raise MappingLengthMismatch(
            "Received iterable parameters with different lengths. Parameters for map must all be the same length. "
            "Got lengths: %s (%s)" % (told, place)
        )
    return next(iter(lengths.values()))
