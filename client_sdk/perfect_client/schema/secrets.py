"""``Secret``: a value that does not show itself, and texts from which the secrets of this process are taken out."""

from __future__ import annotations

from typing import Any, Callable, Generic, Iterable, List, Tuple, TypeVar

from perfect_client.schema.masking import MASK
from perfect_client.schema.redaction import Hidden
from perfect_client.schema.spellings import Written

T = TypeVar("T")
Tell = Callable[[List[Written]], None]


class Secret(Generic[T]):
    """A value that ``repr``, ``str``, formatting and logging show as ``***``; ``get()`` gives the value.

    As a hint, ``key: Secret[str]``, it makes a parameter secret: masked on every page, in the API and in the log.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value
        hide(value)

    def get(self) -> T:
        """The value itself."""
        return self._value

    def get_secret_value(self) -> T:
        """The same, under the name that pydantic's secrets have for it."""
        return self._value

    def __reduce__(self) -> Tuple[Any, ...]:
        """Whoever unpickles it, in another process or from a kept result, hides it too."""
        return type(self), (self._value,)

    def __repr__(self) -> str:
        return "Secret(%r)" % MASK

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)


of_this_process = Hidden()
_listeners: List[Tell] = []


def hide(value: Any) -> None:
    """From now on no line, error or result that this process tells contains this value's text.

    Whoever is to know (``tell_new_secrets``) knows it before this returns, and so before it can be printed.
    """
    new = of_this_process.new_in(value)
    if new:
        for tell in list(_listeners):
            tell(new)
        of_this_process.add(new)


def hide_all(values: Iterable[Any]) -> None:
    for value in values:
        hide(value)


def tell_new_secrets(tell: Tell, known: bool = True) -> None:
    """Have ``tell`` called with each new secret of this process, and with those that are ``known`` already."""
    _listeners.append(tell)
    if known and of_this_process:
        tell(of_this_process.all)


def fact_without_secrets(fact: Any) -> Any:
    """The fact with no secret of this process in its texts: a line, an error, a traceback, a result, a note."""
    return fact_without(of_this_process, fact) if of_this_process else fact


def fact_without(hidden: Hidden, fact: Any) -> Any:
    """The fact with nothing in its texts that is hidden."""
    texts = {name: value for name, value in vars(fact).items() if type(value) in _TOLD and name not in _KEYS}
    clean = {name: hidden.clean(value) for name, value in texts.items()}
    return type(fact)(**{**vars(fact), **clean}) if clean != texts else fact


_TOLD = frozenset({str, dict, list})
# What the server goes by, base64, and a question: what the code hands over on purpose arrives as it is.
_KEYS = frozenset({"artifact", "body", "coded", "flow", "key", "kind", "outcome", "run"})
