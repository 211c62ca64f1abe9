"""Which run and which task this code is in.

A worker's process executes one run, so that run is a global that every thread sees. A flow that is called directly,
and a flow called inside a run, is a context variable, as the task is: threads and coroutines each have their own.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Optional, Set

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
innermost: ContextVar[Optional[Run]] = ContextVar("perfect_run", default=None)  # of a direct call or a sub-flow
task: ContextVar[Optional[TaskRun]] = ContextVar("perfect_task", default=None)
_swap = threading.Lock()

# Types of values that are more than a value: futures, states, generators … Their modules add them when they are
# loaded, so that a program that uses none of them does not pay for looking.
special: Set[type] = {type(_ for _ in ())}
stand_ins = False  # whether futures, states or annotations were made that might be given to a task


def current_run() -> Optional[Run]:
    """The innermost run of a flow that the calling code is in, if any."""
    return innermost.get() or active


def current_task() -> Optional[TaskRun]:
    """The innermost task that the calling code is in, if any."""
    return task.get()


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
    for run in (active, innermost.get()):
        if run is not None:
            run.leave()
    deactivate()
    innermost.set(None)
    task.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)
