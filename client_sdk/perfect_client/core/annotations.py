"""How an argument is to be treated: ``unmapped(x)``, ``allow_failure(x)``, ``quote(x)``, ``opaque(x)``."""

from __future__ import annotations

from typing import Generic, TypeVar

from perfect_client.core import context

T = TypeVar("T")


class BaseAnnotation(Generic[T]):
    """A value with a word about how to treat it; tasks are given the value alone."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        return self.value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(getattr(other, "value", None) == self.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "%s(%r)" % (type(self).__name__, self.value)


class unmapped(BaseAnnotation[T]):
    """``map`` gives this value to every call as it is, also when it could be iterated over."""

    __slots__ = ()

    def __getitem__(self, _: object) -> T:
        return self.value  # like an endless list, as Prefect has it


class allow_failure(BaseAnnotation[T]):
    """The task runs although this future has failed; it is given the exception in place of the result."""

    __slots__ = ()


class quote(BaseAnnotation[T]):
    """The value is handed over as it is: no future is looked for inside it."""

    __slots__ = ()

    def unquote(self) -> T:
        return self.value


class opaque(BaseAnnotation[T]):
    """Like ``quote``: the value is handed over without a look inside."""

    __slots__ = ()


context.stand_ins = True  # whoever loads this module uses them
