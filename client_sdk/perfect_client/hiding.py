"""``Secret``: a value that does not show itself, and texts from which the secrets of this process are taken out."""

from __future__ import annotations

import json
from typing import Any, Dict, Generic, Iterable, Tuple, TypeVar

from perfect_client.masking import MASK, leaves

T = TypeVar("T")
MIN_HIDDEN = 4  # characters: a shorter value stands in too many innocent texts
MAX_HIDDEN = 1000  # texts that one process keeps out of its lines; the oldest step aside


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


class Hidden:
    """Texts that stand in no line: the secrets of a process, or of one run as its supervisor knows them."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self._texts: Dict[str, None] = {}
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        """From now on ``without`` takes this value's text out, if it is long enough to be told from others."""
        for text in _texts_of(value):
            for form in _forms(text):
                if len(form) >= MIN_HIDDEN:
                    self._texts.pop(form, None)
                    self._texts[form] = None
        while len(self._texts) > MAX_HIDDEN:
            del self._texts[next(iter(self._texts))]

    def without(self, text: str) -> str:
        """The text with ``***`` in place of each secret."""
        if not self._texts:
            return text
        for secret in sorted((known for known in list(self._texts) if known in text), key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    def __bool__(self) -> bool:
        return bool(self._texts)


def _texts_of(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, Secret):
            yield from _texts_of(leaf.get())
        elif isinstance(leaf, bytes):
            yield leaf.decode("utf-8", "backslashreplace")
        elif isinstance(leaf, (str, int, float)):
            yield str(leaf)


def _forms(text: str) -> Tuple[str, ...]:
    """A text as it is, as Python, JSON and XML write it, and line by line: a log knows only lines."""
    lines = [line.strip() for line in text.splitlines()] if "\n" in text else []
    xml = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], xml, *lines)


of_this_process = Hidden()


def hide(value: Any) -> None:
    """From now on no line, error or result that this process tells contains this value's text."""
    of_this_process.add(value)


def hide_all(values: Iterable[Any]) -> None:
    for value in values:
        hide(value)


def fact_without_secrets(fact: Any) -> Any:
    """The fact with no secret in its texts: a line, an error, a traceback, a result, a note."""
    if not of_this_process:
        return fact
    texts = {name: value for name, value in vars(fact).items() if type(value) in _TOLD and name not in _KEYS}
    clean = {name: _without_secrets(value) for name, value in texts.items()}
    return type(fact)(**{**vars(fact), **clean}) if clean != texts else fact


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return of_this_process.without(value)
    if isinstance(value, dict):
        return {_without_secrets(name): _without_secrets(item) for name, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


_TOLD = frozenset({str, dict, list})
# What the server goes by, base64, and a question: what the code hands over on purpose arrives as it is.
_KEYS = frozenset({"artifact", "body", "coded", "flow", "key", "kind", "outcome", "run"})
