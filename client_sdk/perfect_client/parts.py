"""Small parts around every call of a task that asked for them; the engine's main path does not know them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

if TYPE_CHECKING:
    from perfect_client.recorder import Run, TaskRun


class TaskCall:
    """One call of a task: ``parameters`` are its arguments by name, defaults included."""

    __slots__ = ("parameters", "run", "task", "task_run")

    def __init__(self, task: Any, run: Run, task_run: TaskRun, parameters: Dict[str, Any]) -> None:
        self.task, self.run, self.task_run, self.parameters = task, run, task_run, parameters


class Hit(NamedTuple):
    """The call is answered by this value, without the task's code."""

    value: Any


class Part:
    """Around one task's calls, in whatever threads they happen."""

    def before(self, call: TaskCall) -> Optional[Hit]:
        """The code is about to be called; a ``Hit`` answers in its place, and the task ends CACHED."""

    def after(self, call: TaskCall, value: Any) -> None:
        """The code has returned ``value``."""


FACTORIES: List[Callable[[Any], Optional[Part]]] = []  # from a Task to the part it asked for, if any


def parts_of(task: Any) -> Tuple[Part, ...]:
    """The parts of a task, made at its first call in a run."""
    made: Optional[Tuple[Part, ...]] = task.__dict__.get("_parts")
    if made is None:
        found = (make(task) for make in FACTORIES)
        made = task.__dict__["_parts"] = tuple(part for part in found if part is not None)
    return made


class Around:
    """One call with its parts."""

    __slots__ = ("_call", "_parts")

    def __init__(self, task: Any, run: Run, task_run: TaskRun, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        self._parts = parts_of(task)
        self._call = TaskCall(task, run, task_run, _bound(task, args, kwargs) if self._parts else {})

    def before(self) -> Optional[Hit]:
        for part in self._parts:
            hit = part.before(self._call)
            if hit is not None:
                return hit
        return None

    def after(self, value: Any) -> None:
        for part in self._parts:
            part.after(self._call, value)


def _bound(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Dict[str, Any]:
    known = task.__dict__.get("_signature")
    if known is None:
        import inspect  # heavy, and only calls inside a run need it

        known = task.__dict__["_signature"] = inspect.signature(task.fn)
    bound = known.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
