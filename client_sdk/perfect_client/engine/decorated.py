"""What flows and tasks share: they stay functions, with a name, tags, checked options and hooks."""

from __future__ import annotations

import functools
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
    Optional,
    Tuple,
    TypeVar,
    cast,
    overload,
)

from perfect_client.engine import options
from perfect_client.errors import MAX_NAME, ConfigurationError, caller_place, function_place

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, Self

    P = ParamSpec("P")
    Q = ParamSpec("Q")
else:
    P, Q = TypeVar("P"), TypeVar("Q")

__tracebackhide__ = True  # pytest does not show our frames
R = TypeVar("R")
H = TypeVar("H", bound=Callable[..., Any])

# co_flags of a function's code, as the inspect module names them: it takes longer to load than all of this.
_COROUTINE = 0x80 | 0x100  # CO_COROUTINE, CO_ITERABLE_COROUTINE
_ASYNC_GENERATOR = 0x200  # CO_ASYNC_GENERATOR
_GENERATOR = 0x20 | _ASYNC_GENERATOR  # CO_GENERATOR
_PARAMETER_HEADS = frozenset({"Args:", "Arguments:", "Parameters:", "Parameters"})

MAX_TAGS = 50
MAX_DESCRIPTION = 4000  # characters


class Bound(Generic[P, R]):
    """A flow or task as a method of an object: what is called gets the object first."""

    __slots__ = ("__func__", "__self__")

    def __init__(self, function: Any, owner: Any) -> None:
        self.__func__, self.__self__ = function, owner

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self.__func__(self.__self__, *args, **kwargs))

    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """``Task.submit``, for this object."""
        return self.__func__.submit(self.__self__, *args, **kwargs)

    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """``Task.map``, for this object."""
        from perfect_client.core.annotations import unmapped  # heavy: few programs map methods

        return self.__func__.map(unmapped(self.__self__), *args, **kwargs)

    def with_options(self, **changes: Any) -> Bound[P, R]:
        """The same method with other options."""
        return Bound(self.__func__.with_options(**changes), self.__self__)

    @property
    def __signature__(self) -> Any:
        from inspect import signature  # heavy: whoever asks has loaded it

        whole = signature(self.__func__.fn)
        return whole.replace(parameters=list(whole.parameters.values())[1:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, self.__func__.__name__)

    def __repr__(self) -> str:
        return "<bound %r of %r>" % (self.__func__, self.__self__)


class Decorated(Generic[P, R]):
    """What flows and tasks share: a name, a description, and being the function that they decorate."""

    kind = ""
    fn: Callable[P, R]
    name: str
    description: str
    tags: Tuple[str, ...]
    is_async: bool

    options: Dict[str, Any] = {}  # every option of this kind, with its default
    version: Optional[str]
    retries: int
    timeout_seconds: Optional[float]
    log_prints: Optional[bool]
    persist_result: Optional[bool]

    def __init__(self, fn: Any, given: Dict[str, Any]) -> None:
        self._decorates, self._given = fn, given
        self._stands_for: Optional[str] = None  # the name of what ``with_options`` was called on
        self._changes: Dict[str, Any] = {}
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
        flags = _flags(innermost)
        self.is_generator = bool(flags & _GENERATOR)
        self.is_async = bool(flags & _COROUTINE) or bool(flags & _ASYNC_GENERATOR)
        self._refuse_what_cannot_run()
        self._take_options(given)

    def _take_options(self, given: Dict[str, Any]) -> None:
        for name in given:
            if name not in self.options:
                raise self._error(options.refusal(name, self.options))
        values = {**self.options, **given}
        self.name = self._checked_name(values.pop("name"))
        self.description = self._checked_description(values.pop("description"))
        self.tags = self._checked_tags(values.pop("tags"))
        for name, value in values.items():
            if name in options.CHECKS:
                value = values[name] = self._checked(name, options.CHECKS[name], value)
            if name not in options.EVENTS:
                setattr(self, name, value)
        self.hooks = self._checked("", options.hooks_of, values)
        self.retry = self._checked("retry_delay_seconds", options.retries_of, values)

    def _checked(self, name: str, check: Callable[[Any], Any], value: Any) -> Any:
        try:
            return check(value)
        except ConfigurationError as wrong:
            raise self._error(str(wrong)) from None
        except (ValueError, TypeError) as wrong:
            raise self._error(("%s %s" % (name, wrong)).strip()) from None

    def _refuse_what_cannot_run(self) -> None:
        if isinstance(self.fn, Decorated):
            raise self._error("a %s cannot be made a %s as well" % (self.fn.kind, self.kind))
        if isinstance(self.fn, type) or not callable(self.fn):
            raise self._error("@%s decorates a function, not %r" % (self.kind, self.fn))
        taken = [name for name in ("return_state", "wait_for") if name in _parameter_names(self.code)]
        if taken:
            raise self._error("a parameter cannot be named %s: that is for the call itself" % taken[0])

    def _error(self, sentence: str) -> ConfigurationError:
        place = function_place(self.fn)
        if not hasattr(_innermost(self.fn), "__code__"):  # no function of the user: it was written where we are called
            place = "%s, %s" % (place, caller_place())
        return ConfigurationError("%s (%s %s)" % (sentence, self.kind, place))

    def _checked_name(self, name: Optional[str]) -> str:
        if name is None:
            name = getattr(self.fn, "__name__", None) or type(_innermost(self.fn)).__name__
        if not isinstance(name, str) or not name.strip():
            raise self._error("name must be a non-empty string, not %r" % (name,))
        if len(name) > MAX_NAME:
            raise self._error("name may have %d characters, not %d" % (MAX_NAME, len(name)))
        return " ".join(name.split())

    def _checked_description(self, description: Optional[str]) -> str:
        if description is None:
            description = _summary(getattr(self.fn, "__doc__", None) or "")
        if not isinstance(description, str):
            raise self._error("description must be a string, not %r" % (description,))
        return description.strip()[:MAX_DESCRIPTION]

    def _checked_tags(self, tags: Iterable[str]) -> Tuple[str, ...]:
        listed = [tags] if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable) else list(tags)
        if isinstance(tags, (str, bytes)) or not all(isinstance(tag, str) and tag.strip() for tag in listed):
            raise self._error("tags must be a list of strings, not %r" % (tags,))
        if len(listed) > MAX_TAGS or any(len(tag) > MAX_NAME for tag in listed):
            raise self._error("at most %d tags of at most %d characters are possible" % (MAX_TAGS, MAX_NAME))
        return tuple(dict.fromkeys(tag.strip() for tag in listed))

    if TYPE_CHECKING:

        @overload
        def __get__(self: Self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(
            self: Decorated[Concatenate[Any, Q], R], instance: object, owner: Optional[type] = None
        ) -> Bound[Q, R]: ...

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        if self._bind_to == "classmethod":
            return Bound(self, owner or type(instance))
        return self if instance is None or self._bind_to else Bound(self, instance)

    def _add_hook(self, event: str, hook: H) -> H:
        if not callable(hook):
            raise self._error("%s takes a function, not %r" % (event, hook))
        self.hooks = {**self.hooks, event: [*self.hooks.get(event, ()), hook]}
        self._changed()
        return hook

    def _changed(self) -> None:
        """After a hook was added."""

    def on_running(self, hook: H) -> H:
        """Decorator: call ``hook(…, run, state)`` when a call begins."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: H) -> H:
        """Decorator: call ``hook(…, run, state)`` when a call has completed."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: H) -> H:
        """Decorator: call ``hook(…, run, state)`` when a call has failed."""
        return self._add_hook("on_failure", hook)

    def on_cancellation(self, hook: H) -> H:
        """Decorator: call ``hook(…, run, state)`` when a call was cancelled."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: H) -> H:
        """Decorator: call ``hook(…, run, state)`` when a call ended from outside."""
        return self._add_hook("on_crashed", hook)

    def with_options(self: Self, **changes: Any) -> Self:
        """The same function with other options. Raises ``ConfigurationError``."""
        made: Self = type(self)(self._decorates, **{**self._given, **changes})  # type: ignore[call-arg]
        made._stands_for = str(getattr(self, "__qualname__", self.name))
        made._changes = {**self._changes, **changes}
        made.hooks = {**{event: hooks for event, hooks in self.hooks.items() if event not in changes}, **made.hooks}
        made._changed()
        return made

    @property
    def _is_coroutine_mark(self) -> Any:
        """What ``inspect.iscoroutinefunction`` (3.12 and newer) looks for."""
        return getattr(sys.modules.get("inspect"), "_is_coroutine_mark", None) if self.is_async else None

    @property
    def _is_coroutine(self) -> Any:
        """What ``asyncio.iscoroutinefunction`` looks for."""
        return getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None) if self.is_async else None

    def __reduce__(self) -> Any:
        """Pickled by its name in its module, as functions are."""
        if self._stands_for is not None:
            original = getattr(self, "__module__", ""), self._stands_for
            return _with_options, (*original, self._changes)
        return str(getattr(self, "__qualname__", self.name))

    def __repr__(self) -> str:
        return "<%s %r>" % (self.kind, self.name)


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


def _parameter_names(code: Any) -> Tuple[str, ...]:
    if not hasattr(code, "co_varnames"):
        return ()
    return tuple(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _with_options(module: str, name: str, changes: Dict[str, Any]) -> Any:
    """Unpickle what ``with_options`` made."""
    found: Any = sys.modules.get(module) or __import__(module, fromlist=["_"])
    for part in name.split("."):
        found = getattr(found, part)
    return found.with_options(**changes)
