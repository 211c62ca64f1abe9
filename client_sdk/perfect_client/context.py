"""Which run and which task this code is in.

One process executes at most one run at a time, so the run is a global that every thread sees; the task is a context
variable, so that threads and coroutines each have their own.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Optional, Tuple

from perfect_client.parts import Around

if TYPE_CHECKING:
    from perfect_client.recorder import Run, TaskRun  # at run time this module stays light: every program loads it


class Configuration(Mapping[str, Any]):
    """The named set of values that a run uses; read-only. ``name`` is empty when there is none."""

    __slots__ = ("_values", "name")

    def __init__(self, name: str = "", values: Optional[Mapping[str, Any]] = None) -> None:
        self.name = name
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Configuration(%r, %r)" % (self.name, self._values)


# ------------------------------------------------------------------------------------------------- where code stands

active: Optional[Run] = None
direct: ContextVar[Optional[Tuple[str, Configuration]]] = ContextVar("perfect_direct_flow", default=None)
_task: ContextVar[Optional[TaskRun]] = ContextVar("perfect_task", default=None)
_swap = threading.Lock()


def current_task() -> Optional[TaskRun]:
    """The innermost task that the calling code is in, if any."""
    return _task.get()


def activate(run: Run) -> None:
    """Make ``run`` the one that this process executes. Raises ``RuntimeError`` when it executes one already."""
    global active
    with _swap:
        if active is not None:
            raise RuntimeError("this process executes run %s already" % active.id)
        active = run


def deactivate() -> None:
    """The run is over."""
    global active
    active = None


def _leave_in_child() -> None:
    """A forked child is not the run: what it does is its own affair, and its numbers would collide with ours."""
    deactivate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)


# -------------------------------------------------------------------------------------------------- calls of a task


def call(run: Run, task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call a task's function, and say so."""
    above = _task.get()
    current = run.start(task, above)
    _task.set(current)
    try:
        around = Around(task, run, current, args, kwargs)
        hit = around.before()
        value = task.fn(*args, **kwargs) if hit is None else hit.value
        if hit is None:
            around.after(value)
    except BaseException as error:
        run.fail(current, error)
        raise
    finally:
        _task.set(above)
    run.end(current, "COMPLETED" if hit is None else "CACHED")
    return value


async def call_async(run: Run, task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """The same for a coroutine function; it starts when it is first awaited."""
    above = _task.get()
    current = run.start(task, above)
    _task.set(current)
    try:
        around = Around(task, run, current, args, kwargs)
        hit = around.before()
        value = await task.fn(*args, **kwargs) if hit is None else hit.value
        if hit is None:
            around.after(value)
    except BaseException as error:
        run.fail(current, error)
        raise
    finally:
        _task.set(above)
    run.end(current, "COMPLETED" if hit is None else "CACHED")
    return value
