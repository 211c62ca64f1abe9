"""``@flow`` and ``@task``: functions that stay functions, and can be described, found and run by a worker."""

from __future__ import annotations

import functools
import json
import math
import sys
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
    cast,
    overload,
)

from perfect_client import context
from perfect_client.context import Configuration
from perfect_client.errors import MAX_NAME, ConfigurationError, function_place
from perfect_client.schedules import Schedule, named

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")
    Q = ParamSpec("Q")
else:
    P, Q = TypeVar("P"), TypeVar("Q")
R = TypeVar("R")

# co_flags of a function's code, as the inspect module names them: it takes longer to load than all of this.
_COROUTINE = 0x80 | 0x100  # CO_COROUTINE, CO_ITERABLE_COROUTINE
_GENERATOR = 0x20 | 0x200  # CO_GENERATOR, CO_ASYNC_GENERATOR
_PARAMETER_HEADS = frozenset({"Args:", "Arguments:", "Parameters:", "Parameters"})

MAX_TAGS = 50
MAX_DESCRIPTION = 4000  # characters


class _Decorated(Generic[P, R]):
    """What flows and tasks share: a name, a description, and being the function that they decorate."""

    kind = ""
    fn: Callable[P, R]
    name: str
    description: str
    tags: Tuple[str, ...]
    is_async: bool

    def __init__(self, fn: Any, name: Optional[str], description: Optional[str], tags: Iterable[str]) -> None:
        self._bind_to: Optional[str] = None
        if isinstance(fn, (staticmethod, classmethod)):
            self._bind_to = type(fn).__name__
            fn = fn.__func__
        functools.update_wrapper(cast(Any, self), fn)
        self.fn = fn
        innermost = _innermost(fn)
        # Nested functions are made anew by each call of the function around them; their code is always the same.
        self.code = getattr(innermost, "__code__", innermost)
        self.identity = id(self.code)
        self.is_async = bool(_flags(innermost) & _COROUTINE)
        self._refuse_what_cannot_run(innermost)
        self.name = self._checked_name(name)
        self.description = self._checked_description(description)
        self.tags = self._checked_tags(tags)

    def _refuse_what_cannot_run(self, innermost: Any) -> None:
        if isinstance(self.fn, _Decorated):
            raise self._error("a %s cannot be made a %s as well" % (self.fn.kind, self.kind))
        if isinstance(self.fn, type) or not callable(self.fn):
            raise self._error("@%s decorates a function, not %r" % (self.kind, self.fn))
        if _flags(innermost) & _GENERATOR:
            raise self._error("a generator function cannot be a %s: return a list instead of yielding" % self.kind)

    def _error(self, sentence: str) -> ConfigurationError:
        return ConfigurationError("%s (%s %s)" % (sentence, self.kind, function_place(self.fn)))

    def _checked_name(self, name: Optional[str]) -> str:
        if name is None:
            name = getattr(self.fn, "__name__", None) or type(_innermost(self.fn)).__name__
        if not isinstance(name, str) or not name.strip():
            raise self._error("name must be a text that is not empty, not %r" % (name,))
        if len(name) > MAX_NAME:
            raise self._error("name may have %d characters, not %d" % (MAX_NAME, len(name)))
        return " ".join(name.split())

    def _checked_description(self, description: Optional[str]) -> str:
        if description is None:
            description = _summary(getattr(self.fn, "__doc__", None) or "")
        if not isinstance(description, str):
            raise self._error("description must be a text, not %r" % (description,))
        return description.strip()[:MAX_DESCRIPTION]

    def _checked_tags(self, tags: Iterable[str]) -> Tuple[str, ...]:
        listed = [tags] if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable) else list(tags)
        if isinstance(tags, (str, bytes)) or not all(isinstance(tag, str) and tag.strip() for tag in listed):
            raise self._error("tags must be a list of texts, not %r" % (tags,))
        if len(listed) > MAX_TAGS or any(len(tag) > MAX_NAME for tag in listed):
            raise self._error("at most %d tags of at most %d characters are possible" % (MAX_TAGS, MAX_NAME))
        return tuple(dict.fromkeys(tag.strip() for tag in listed))

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> _Decorated[P, R]: ...
        @overload
        def __get__(
            self: _Decorated[Concatenate[Any, Q], R], instance: object, owner: Optional[type] = None
        ) -> Callable[Q, R]: ...

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        if self._bind_to == "classmethod":
            return MethodType(cast(Any, self), owner or type(instance))
        return self if instance is None or self._bind_to else MethodType(cast(Any, self), instance)

    @property
    def _is_coroutine_mark(self) -> Any:
        """What ``inspect.iscoroutinefunction`` (3.12 and newer) looks for."""
        return getattr(sys.modules.get("inspect"), "_is_coroutine_mark", None) if self.is_async else None

    @property
    def _is_coroutine(self) -> Any:
        """What ``asyncio.iscoroutinefunction`` looks for."""
        return getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None) if self.is_async else None

    def __reduce__(self) -> str:
        return str(getattr(self, "__qualname__", self.name))  # pickled by its name in its module, as functions are

    def __repr__(self) -> str:
        return "<%s %r>" % (self.kind, self.name)


class Task(_Decorated[P, R]):
    """A function whose calls inside a run are recorded. Made by ``@task``."""

    kind = "task"

    def __init__(
        self, fn: Callable[P, R], *, weight: Optional[float] = None, estimated_time: Optional[float] = None,
        name: Optional[str] = None, description: Optional[str] = None, tags: Iterable[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(fn, name, description, tags)
        self.weight = self._checked_number("weight", weight)
        self.estimated_time = self._checked_number("estimated_time", estimated_time)
        self.key = str(getattr(self, "__qualname__", self.name)).replace("<locals>.", "")[:MAX_NAME]

    def _checked_number(self, label: str, value: Optional[float]) -> Optional[float]:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            unit = " of milliseconds" if label == "estimated_time" else ""
            raise self._error("%s must be a finite number%s above 0, not %r" % (label, unit, value))
        return float(value)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        run = context.active
        if run is None:
            return self.fn(*args, **kwargs)
        record: Any = context.call_async if self.is_async else context.call
        return cast(R, record(run, self, args, kwargs))


class Flow(_Decorated[P, R]):
    """A function that a worker can run. Made by ``@flow``."""

    kind = "flow"

    def __init__(
        self, fn: Callable[P, R], *, name: Optional[str] = None, description: Optional[str] = None,
        schedule: Union[Schedule, Sequence[Schedule], None] = None,
        configurations: Union[Mapping[str, Mapping[str, Any]], Sequence[str], None] = None, tags: Iterable[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(fn, name, description, tags)
        self.configurations = self._checked_configurations(configurations)
        self.schedules = self._checked_schedules(schedule)

    def _checked_configurations(self, given: Any) -> Dict[str, Dict[str, Any]]:
        wanted = self._error("configurations must be a dict of dicts or a list of names, not %.200r" % (given,))
        if isinstance(given, str) or not isinstance(given or {}, (Mapping, Sequence)):
            raise wanted
        pairs = given.items() if isinstance(given, Mapping) else [(name, {}) for name in given or ()]
        checked: Dict[str, Dict[str, Any]] = {}
        for name, values in pairs:
            if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
                raise self._error("a configuration's name is a text of 1 to %d characters, not %r" % (MAX_NAME, name))
            if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
                raise self._error("configuration %r must be a dict with texts as keys, not %.200r" % (name, values))
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
        from perfect_client.signature import parameters_schema  # heavy: only a worker describes flows

        return parameters_schema(self.fn)

    def configuration(self, name: str = "") -> Configuration:
        """The configuration of that name, the first one without a name. Raises ``KeyError``."""
        name = name or next(iter(self.configurations), "")
        return Configuration(name, self.configurations[name] if name else None)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if context.active is not None:
            return self.fn(*args, **kwargs)
        if self.is_async:
            return cast(R, self._call_async(args, kwargs))
        token = context.direct.set((self.name, self.configuration()))
        try:
            return self.fn(*args, **kwargs)
        finally:
            context.direct.reset(token)

    async def _call_async(self, args: Any, kwargs: Any) -> Any:
        above = context.direct.get()
        context.direct.set((self.name, self.configuration()))
        try:
            return await cast(Any, self.fn)(*args, **kwargs)
        finally:
            context.direct.set(above)


def _innermost(fn: Any) -> Any:
    while isinstance(fn, (functools.partial, MethodType)):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    return fn


def _flags(fn: Any) -> int:
    code = getattr(fn, "__code__", None)
    if code is None:  # an object of a class with __call__
        code = getattr(vars(type(fn)).get("__call__"), "__code__", None)
    return int(code.co_flags) if code is not None else 0


def _summary(docstring: str) -> str:
    """The docstring up to where it comes to single parameters, without its indentation."""
    first, *others = docstring.expandtabs().splitlines() or [""]
    indent = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    lines: List[str] = []
    for line in [first.strip(), *(line[indent:].rstrip() for line in others)]:
        if line.strip() in _PARAMETER_HEADS or line.lstrip().startswith(":"):
            break
        lines.append(line)
    return "\n".join(lines).strip()


@overload
def task(fn: Callable[P, R]) -> Task[P, R]: ...
@overload
def task(
    *, weight: Optional[float] = None, estimated_time: Optional[float] = None, name: Optional[str] = None,
    description: Optional[str] = None, tags: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Task[P, R]]: ...  # fmt: skip
def task(
    fn: Any = None, *, weight: Optional[float] = None, estimated_time: Optional[float] = None,
    name: Optional[str] = None, description: Optional[str] = None, tags: Iterable[str] = (),
) -> Any:  # fmt: skip
    """Make a function a task: each of its calls inside a run is recorded, with its progress and outcome.

    ``weight`` is its share of the run's progress, ``estimated_time`` what it takes in milliseconds; both above 0.
    Raises ``ConfigurationError``.
    """

    def decorate(function: Any) -> Task[Any, Any]:
        return Task(
            function, weight=weight, estimated_time=estimated_time, name=name, description=description, tags=tags
        )

    return decorate if fn is None else decorate(fn)


@overload
def flow(fn: Callable[P, R]) -> Flow[P, R]: ...
@overload
def flow(
    *, name: Optional[str] = None, description: Optional[str] = None,
    schedule: Union[Schedule, Sequence[Schedule], None] = None,
    configurations: Union[Mapping[str, Mapping[str, Any]], Sequence[str], None] = None, tags: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...  # fmt: skip
def flow(
    fn: Any = None, *, name: Optional[str] = None, description: Optional[str] = None,
    schedule: Union[Schedule, Sequence[Schedule], None] = None,
    configurations: Union[Mapping[str, Mapping[str, Any]], Sequence[str], None] = None, tags: Iterable[str] = (),
) -> Any:  # fmt: skip
    """Make a function a flow: a worker can run it, on request or by ``schedule``.

    ``configurations`` are named sets of values; those that are named like a parameter are its defaults.
    Raises ``ConfigurationError``.
    """

    def decorate(function: Any) -> Flow[Any, Any]:
        return Flow(
            function, name=name, description=description, schedule=schedule, configurations=configurations, tags=tags
        )

    return decorate if fn is None else decorate(fn)
