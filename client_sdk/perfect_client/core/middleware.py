"""Small parts around the calls of tasks that asked for them: the engine knows none of them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar, Union

if TYPE_CHECKING:
    from inspect import BoundArguments
    from typing import Protocol

    from perfect_client.core.runs import Run, TaskRun

    class TaskLike(Protocol):
        """What a call asks of its task: the decorated function, which stands above the core."""

        name: str
        fn: Callable[..., Any]
        parts: Tuple[Middleware, ...]
        is_async: bool
        crucial: bool
        log_prints: Optional[bool]
        task_run_name: Optional[Union[str, Callable[..., str]]]


V = TypeVar("V")


class Hit(Generic[V]):
    """The call is answered without running the function: its task ends CACHED, with this value."""

    __slots__ = ("value",)

    def __init__(self, value: V) -> None:
        self.value = value


class TaskCall:
    """One call of a task, as its parts see it."""

    __slots__ = ("_bound", "args", "kwargs", "name", "parts", "return_state", "run", "task", "task_run", "wait_for")

    def __init__(
        self,
        task: TaskLike,
        run: Run,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        return_state: bool = False,
        wait_for: Any = None,
    ) -> None:
        self.task, self.run, self.args, self.kwargs = task, run, args, kwargs
        self.return_state, self.wait_for = return_state, wait_for
        self.task_run: TaskRun
        self.name: Optional[str] = None  # from a template, else it is the task's
        self.parts = _around(task)
        self._bound: Optional[Dict[str, Any]] = None

    @property
    def parameters(self) -> Dict[str, Any]:
        """The arguments by name, defaults included, futures resolved. Raises ``TypeError`` when they do not fit."""
        if self._bound is None:
            self._bound = bound_arguments(self.task, self.args, self.kwargs)
        return self._bound


class Middleware:
    """A small part around every call of a task that asked for it. What it raises fails the call."""

    def before(self, call: TaskCall) -> Optional[Hit[Any]]:
        """Before the function is called, once a call: the attempts of a call share it."""

    def after(self, call: TaskCall, value: Any) -> None:
        """The call succeeded with this value."""

    def over(self, call: TaskCall) -> None:
        """The call is over, whatever became of it; also where ``before`` was not asked, as another part answered."""


# Asked once for each task, when it is decorated; None: the task does not need the part.
FACTORIES: List[Callable[["TaskLike"], Optional[Middleware]]] = []


class ResultMiddleware(Middleware):
    """The part that keeps results in a run that may be resumed, also of tasks that ask for nothing: the short way."""

    def take(self, run: Run, current: TaskRun, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Taken:
        """Where the result of this call belongs (None: nowhere), and the result if an earlier run has left it."""
        raise NotImplementedError

    def leave(self, run: Run, current: TaskRun, slot: bytes, value: Any) -> None:
        """The call has returned ``value``."""


Taken = Tuple[Optional[bytes], Optional[Hit[Any]]]
# While a run's results are kept: the keeper of a task, if it has one. Else None, and a call costs nothing for it.
keeper: Optional[Callable[["TaskLike"], Optional[ResultMiddleware]]] = None
of_all = False  # whether the keeper is also for tasks that have parts of their own, and for calls outside of runs


def _around(task: TaskLike) -> Tuple[Middleware, ...]:
    kept = keeper(task) if keeper is not None and (of_all or not task.parts) else None
    return task.parts if kept is None else (kept, *task.parts)


def make_middleware(task: TaskLike) -> Tuple[Middleware, ...]:
    """What the factories say to a task."""
    found = [make(task) for make in FACTORIES]
    return tuple(part for part in found if part is not None)


def bound_arguments(decorated: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """A call's arguments by the names of the parameters, defaults included. Raises ``TypeError``."""
    found = bind_arguments(decorated, args, kwargs)
    found.apply_defaults()
    return dict(found.arguments)


def bind_arguments(decorated: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> BoundArguments:
    """A call's arguments by the names of the parameters. Raises ``TypeError``."""
    signature = decorated.__dict__.get("_signature")
    if signature is None:
        from inspect import signature as signature_of  # heavy: most programs never ask

        signature = decorated.__dict__["_signature"] = signature_of(decorated.fn)
    made: BoundArguments = signature.bind(*args, **kwargs)
    return made
