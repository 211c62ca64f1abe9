"""``@flow`` and ``@task``: functions that stay functions, and can be described, found and run by a worker."""

from __future__ import annotations

import json
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Coroutine,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    TypeVar,
    Union,
    cast,
    overload,
)

from perfect_client.core import context, fast_path, importing, middleware
from perfect_client.core.context import Configuration
from perfect_client.core.schedules import Schedule, named
from perfect_client.engine import options
from perfect_client.engine.decorated import Decorated, H, P, R
from perfect_client.errors import MAX_NAME, ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Literal

    from perfect_client.core.states import State
    from perfect_client.engine.futures import PrefectFuture, PrefectFutureList

__tracebackhide__ = True  # pytest does not show our frames

T = TypeVar("T")
Hooks = Iterable[Callable[..., Any]]
# What every program's values mostly are: none of these holds a future.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


class Task(Decorated[P, R]):
    """A function whose calls inside a run are recorded. Made by ``@task``.

    ``lean``: it asks for nothing but to be recorded, so that the short way of ``fast_path`` does.
    """

    kind = "task"
    wire_kind = "task"
    options = options.OF_TASKS
    weight: Optional[float]
    estimated_time: Optional[float]
    crucial: bool
    task_run_name: Any
    retry_condition_fn: Optional[Callable[..., Any]]
    cache_policy: Any
    cache_key_fn: Optional[Callable[..., Any]]
    cache_expiration: Any
    refresh_cache: Optional[bool]
    result_storage_key: Optional[str]

    def __init__(self, fn: Callable[P, R], **given: Any) -> None:
        super().__init__(fn, given)
        self.key = str(getattr(self, "__qualname__", self.name)).replace("<locals>.", "")[:MAX_NAME]
        self._changed()

    def _changed(self) -> None:
        self.parts = middleware.make_middleware(self)
        asks = self.retry or self.timeout_seconds or self.hooks or self.parts or self.task_run_name or self.log_prints
        self.lean = not asks and self.crucial and not self.is_generator

    def on_commit(self, hook: H) -> H:
        """Decorator: call ``hook(transaction)`` when the transaction around a completed call is committed."""
        return self._add_hook("on_commit", hook)

    def on_rollback(self, hook: H) -> H:
        """Decorator: call ``hook(transaction)`` when the transaction around a completed call is rolled back."""
        return self._add_hook("on_rollback", hook)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if (
            not self.lean
            or (kwargs and ("return_state" in kwargs or "wait_for" in kwargs))
            or (context.stand_ins and not _all_plain(args, kwargs))
        ):
            return cast(R, self._call_in_full(args, kwargs))
        run = context.innermost.get() or context.active
        if run is None:
            if middleware.of_all:
                return cast(R, self._call_in_full(args, kwargs))
            value = self.fn(*args, **kwargs)
            return cast(R, fast_path.resolve_value(None, value)) if type(value) in context.special else value
        keeper = middleware.keeper(self) if middleware.keeper is not None else None
        if self.is_async:
            plain: Any = fast_path.call_async
            made = plain(run, self, args, kwargs) if keeper is None else self._call_in_full(args, kwargs)
            made.__qualname__ = self.key  # as Python's warning names a coroutine that nobody awaits
            return cast(R, made)
        if keeper is not None:
            return cast(R, fast_path.call_kept(run, self, keeper, args, kwargs))
        return cast(R, fast_path.call(run, self, args, kwargs))

    def _call_in_full(self, args: Any, kwargs: Any) -> Any:
        if self.is_generator:
            from perfect_client.engine.generators import generate_task  # heavy: most tasks generate nothing

            return generate_task(self, args, kwargs)
        from perfect_client.engine.task_calls import call_task  # heavy: most tasks ask for nothing special

        return call_task(self, args, kwargs)

    if TYPE_CHECKING:

        @overload
        def submit(self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any) -> State: ...
        @overload
        def submit(
            self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
        ) -> PrefectFuture[T]: ...
        @overload
        def submit(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> PrefectFuture[R]: ...

    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Have the task called at the same time as what follows; its future, or its state with ``return_state``.

        It begins when the futures among its arguments and in ``wait_for`` have ended.
        """
        from perfect_client.engine.submission import submit  # heavy: most programs call their tasks

        return submit(self, args, kwargs)

    if TYPE_CHECKING:

        @overload
        def map(
            self, /, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
        ) -> List[State]: ...
        @overload
        def map(
            self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, wait_for: Any = None, **kwargs: Any
        ) -> PrefectFutureList[T]: ...
        @overload
        def map(self, /, *args: Any, wait_for: Any = None, **kwargs: Any) -> PrefectFutureList[R]: ...

    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit the task once for each item of its arguments, which must be equally many; their futures.

        Texts and what cannot be iterated over are given to each call, as is ``unmapped(value)``. Raises
        ``MappingLengthMismatch``, ``MappingMissingIterable``, and ``ConfigurationError`` for ``deferred=True``.
        """
        from perfect_client.engine.submission import map_task  # heavy: most programs call their tasks

        return map_task(self, args, kwargs)


def _all_plain(args: Any, kwargs: Any) -> bool:
    return _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values()))


class Flow(Decorated[P, R]):
    """A function that a worker can run. Made by ``@flow``."""

    kind = "flow"
    wire_kind = "flow"
    options = options.OF_FLOWS
    weight: Optional[float] = None
    estimated_time: Optional[float] = None
    crucial = True
    flow_run_name: Any
    task_runner: Any
    validate_parameters: bool
    start: str

    def __init__(self, fn: Callable[P, R], **given: Any) -> None:
        super().__init__(fn, given)
        self.key = str(getattr(self, "__qualname__", self.name)).replace("<locals>.", "")[:MAX_NAME]
        self.configurations: Dict[str, Dict[str, Any]] = self._checked_configurations(given.get("configurations"))
        self.schedules: Dict[str, Schedule] = self._checked_schedules(given.get("schedule"))

    def _checked_configurations(self, given: Any) -> Dict[str, Dict[str, Any]]:
        wanted = self._error("configurations must be a dict of dicts or a list of names, not %.200r" % (given,))
        if isinstance(given, str) or not isinstance(given or {}, (Mapping, Sequence)):
            raise wanted
        pairs = given.items() if isinstance(given, Mapping) else [(name, {}) for name in given or ()]
        checked: Dict[str, Dict[str, Any]] = {}
        for name, values in pairs:
            if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
                raise self._error("a configuration's name is a string of 1 to %d characters, not %r" % (MAX_NAME, name))
            if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
                raise self._error("configuration %r must be a dict with strings as keys, not %.200r" % (name, values))
            try:
                json.dumps(values)
                checked[name] = dict(values)
            except (TypeError, ValueError, RecursionError) as wrong:
                raise self._error("configuration %r must hold JSON values: %s" % (name, wrong)) from None
        return checked

    def _checked_schedules(self, given: Any) -> Dict[str, Schedule]:
        listed = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
        for schedule in listed:
            if not isinstance(schedule, Schedule):
                hint = ': write CronSchedule("…")' if isinstance(schedule, str) else ""
                raise self._error("schedule must be a CronSchedule or an IntervalSchedule, not %r%s" % (schedule, hint))
            name = schedule.options["configuration"]
            if name and name not in self.configurations:
                known = ", ".join(self.configurations) or "none"
                raise self._error("a schedule names the configuration %r, but there is: %s" % (name, known))
        try:
            return named(listed)
        except ConfigurationError as wrong:
            raise self._error(str(wrong)) from None

    @property
    def parameters_schema(self) -> Dict[str, Any]:
        """The parameters as a JSON Schema of type object, in the signature's order."""
        from perfect_client.schema.signature import parameters_schema  # heavy: only a worker describes flows

        return parameters_schema(self.fn)

    def configuration(self, name: str = "") -> Configuration:
        """The configuration of that name, the first one without a name. Raises ``KeyError``."""
        name = name or next(iter(self.configurations), "")
        return Configuration(name, self.configurations[name] if name else None)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if importing.current is not None:
            return cast(R, importing.current.skip(self))
        if self.is_generator:
            from perfect_client.engine.generators import generate_flow  # heavy: most flows generate nothing

            return cast(R, generate_flow(self, args, kwargs))
        from perfect_client.engine.flow_calls import call_flow  # heavy: not needed to define flows

        return cast(R, call_flow(self, args, kwargs))


@overload
def task(fn: Callable[P, R]) -> Task[P, R]: ...
@overload
def task(
    *,
    name: Optional[str] = None,
    description: Optional[str] = None,
    tags: Iterable[str] = (),
    version: Optional[str] = None,
    retries: Optional[int] = None,
    retry_delay_seconds: Any = None,
    timeout_seconds: Optional[float] = None,
    log_prints: Optional[bool] = None,
    persist_result: Optional[bool] = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    cache_result_in_memory: bool = True,
    on_running: Optional[Hooks] = None,
    on_completion: Optional[Hooks] = None,
    on_failure: Optional[Hooks] = None,
    on_cancellation: Optional[Hooks] = None,
    on_crashed: Optional[Hooks] = None,
    weight: Optional[float] = None,
    estimated_time: Optional[float] = None,
    crucial: bool = True,
    task_run_name: Union[str, Callable[..., str], None] = None,
    retry_jitter_factor: Optional[float] = None,
    retry_condition_fn: Optional[Callable[..., Any]] = None,
    cache_policy: Any = None,
    cache_key_fn: Optional[Callable[..., Any]] = None,
    cache_expiration: Any = None,
    refresh_cache: Optional[bool] = None,
    result_storage_key: Optional[str] = None,
    viz_return_value: Any = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, **given: Any) -> Any:
    """Make a function a task: each of its calls inside a run is recorded, with its progress and outcome.

    ``weight`` is its share of the run's progress, ``estimated_time`` what it takes in milliseconds; both above 0.
    With ``crucial=False`` its failure does not fail the run. Raises ``ConfigurationError``.
    """

    def decorate(function: Any) -> Task[Any, Any]:
        return Task(function, **given)

    return decorate if fn is None else decorate(fn)


@overload
def flow(fn: Callable[P, R]) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: Optional[str] = None,
    description: Optional[str] = None,
    tags: Iterable[str] = (),
    version: Optional[str] = None,
    retries: Optional[int] = None,
    retry_delay_seconds: Any = None,
    timeout_seconds: Optional[float] = None,
    log_prints: Optional[bool] = None,
    persist_result: Optional[bool] = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    cache_result_in_memory: bool = True,
    on_running: Optional[Hooks] = None,
    on_completion: Optional[Hooks] = None,
    on_failure: Optional[Hooks] = None,
    on_cancellation: Optional[Hooks] = None,
    on_crashed: Optional[Hooks] = None,
    schedule: Union[Schedule, Sequence[Schedule], None] = None,
    configurations: Union[Mapping[str, Mapping[str, Any]], Sequence[str], None] = None,
    flow_run_name: Union[str, Callable[..., str], None] = None,
    task_runner: Any = None,
    validate_parameters: bool = True,
    start: Optional[str] = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Any = None, **given: Any) -> Any:
    """Make a function a flow: a worker can run it, on request or by ``schedule``.

    ``configurations`` are named sets of values; those that are named like a parameter are its defaults. ``start``
    says how the process of a run begins: ``"fork"``, ``"fresh"`` (a process that imports the file itself) or
    ``"auto"``: by a fork where the imports left nothing that two runs would share. Raises ``ConfigurationError``.
    """

    def decorate(function: Any) -> Flow[Any, Any]:
        return Flow(function, **given)

    return decorate if fn is None else decorate(fn)
