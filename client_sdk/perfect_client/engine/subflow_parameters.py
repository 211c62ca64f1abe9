"""What a sub-flow was called with, as a fact tells it: small JSON values as they are, the others as previews.

No secret is in it: what is secret by its schema or name is ``***``, and no line of this process tells it from then on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping

from perfect_client.core.previews import preview
from perfect_client.schema.encoding import to_json
from perfect_client.schema.masking import mask, secrets_in
from perfect_client.schema.secrets import hide_all, of_this_process
from perfect_client.schema.signature import parameters
from perfect_client.wire.messages import MAX_NAME, clean_json, clean_text, dumps

MOST_BYTES = 64 * 1024  # of all parameters together
EACH = 8 * 1024  # characters of one, about
MOST_NAMES = 200
_DEEP = 20


class _TooMuch(Exception):
    """The value is too large or too deep to be told whole."""


def preview_parameters(flow: Any, values: Mapping[str, Any]) -> Dict[str, Any]:
    """The values by name; ``flow`` is the flow that was called with them."""
    told: Dict[str, Any] = {}
    previews: Dict[str, Any] = {}
    room, schema = MOST_BYTES, _schema(flow.fn)
    for name, value in list(values.items())[:MOST_NAMES]:
        key = clean_text(name, MAX_NAME * 4)
        try:
            said = clean_json(_json(value))
            hide_all(secrets_in({key: said}, schema))
            size = len(dumps({key: said}).encode("utf-8", "backslashreplace"))
            if size > room:
                raise _TooMuch
            told[key] = said
        except Exception as wrong:  # whatever a value does when it is looked at
            if not isinstance(wrong, _TooMuch):
                _hide(name, value, schema)
            previews[key] = preview(value)
            size = 4 * len(previews[key])
        room -= size
    told = of_this_process.clean(told)
    found: Dict[str, Any] = mask({**told, **previews}, schema)
    return found


def _hide(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    """What is secret in a value that is no JSON, as in a dataclass with a lock in it."""
    with contextlib.suppress(Exception):
        hide_all(secrets_in({name: value}, schema))


def _json(value: Any) -> Any:
    _weigh(value, [EACH], 0)
    return to_json(value)


def _weigh(value: Any, left: List[int], depth: int) -> None:
    """Raises ``_TooMuch`` before a large value is walked through."""
    if isinstance(value, (str, bytes)):
        left[0] -= len(value)
    elif isinstance(value, int):
        left[0] -= value.bit_length() // 3
    left[0] -= 4
    inside = _inside(value)
    if left[0] < len(inside) or depth > _DEEP:
        raise _TooMuch
    for item in inside:
        _weigh(item, left, depth + 1)


def _inside(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Pairs(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


class _Pairs:
    """The keys and values of a mapping, counted before they are copied."""

    def __init__(self, mapping: Mapping[Any, Any]) -> None:
        self._mapping = mapping

    def __len__(self) -> int:
        return len(self._mapping)

    def __iter__(self) -> Any:
        return (one for pair in self._mapping.items() for one in pair)


@lru_cache(maxsize=512)
def _of_function(fn: Callable[..., Any]) -> Dict[str, Any]:
    return {"properties": {name: known.hint.schema for name, known in parameters(fn).by_name.items()}}


def _schema(fn: Callable[..., Any]) -> Dict[str, Any]:
    try:
        return _of_function(fn)
    except TypeError:  # a callable object that cannot be hashed
        return {}
