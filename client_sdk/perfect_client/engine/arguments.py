"""Futures, states and annotations inside the arguments of a call: found in nested containers, and replaced."""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List, Optional, Tuple

from perfect_client.core.annotations import BaseAnnotation, allow_failure, opaque, quote
from perfect_client.core.states import State
from perfect_client.errors import UpstreamTaskError

__tracebackhide__ = True  # pytest does not show our frames

_ATOMS = frozenset({str, int, float, bool, bytes, type(None), complex})


def is_future(value: Any) -> bool:
    """Whether the value is one of our futures, without loading their module."""
    return getattr(type(value), "is_perfect_future", False) is True


def replace_futures(
    value: Any, replace: Callable[[Any, bool], Any], lenient: bool = False, seen: Tuple[int, ...] = ()
) -> Any:
    """The value with each future and state in it replaced by ``replace(it, lenient)``; itself where there is none.

    Looks into lists, dicts, tuples, sets and dataclasses (whose ``__post_init__`` is not called), and nowhere else.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, BaseAnnotation):
        if isinstance(value, (quote, opaque)):
            return value.value
        return replace_futures(value.value, replace, lenient or isinstance(value, allow_failure), seen)
    if isinstance(value, State) or is_future(value):
        return replace(value, lenient)
    look = CONTAINERS.get(kind) or (_in_dataclass if hasattr(kind, "__dataclass_fields__") else None)
    if look is None and isinstance(value, tuple) and hasattr(kind, "_fields"):
        look = _in_named_tuple
    if look is None or id(value) in seen:
        return value
    above = (*seen, id(value))
    return look(value, lambda inner: replace_futures(inner, replace, lenient, above))


def _each(values: Any, visit: Callable[[Any], Any]) -> Optional[List[Any]]:
    """The visited values, None when none of them changed."""
    changed, found = False, []
    for value in values:
        new = value if type(value) in _ATOMS else visit(value)
        changed = changed or new is not value
        found.append(new)
    return found if changed else None


def _in_sequence(value: Any, visit: Callable[[Any], Any]) -> Any:
    found = _each(value, visit)
    return value if found is None else type(value)(found)


def in_list(value: Any, visit: Callable[[Any], Any]) -> Any:
    """Of a kind of list that holds futures: a plain list of what takes their place."""
    found = _each(value, visit)
    return value if found is None else found


def _in_named_tuple(value: Any, visit: Callable[[Any], Any]) -> Any:
    found = _each(value, visit)
    return value if found is None else type(value)._make(found)


def _in_dict(value: Dict[Any, Any], visit: Callable[[Any], Any]) -> Any:
    keys, items = _each(value, visit), _each(value.values(), visit)
    return value if keys is None and items is None else dict(zip(keys or value, items or value.values()))


def _in_dataclass(value: Any, visit: Callable[[Any], Any]) -> Any:
    names = [name for name in value.__dataclass_fields__ if hasattr(value, name)]
    found = _each([getattr(value, name) for name in names], visit)
    if found is None:
        return value
    made = copy.copy(value)
    for name, new in zip(names, found):
        object.__setattr__(made, name, new)
    return made


CONTAINERS: Dict[type, Callable[[Any, Callable[[Any], Any]], Any]] = {
    list: _in_sequence,
    tuple: _in_sequence,
    set: _in_sequence,
    frozenset: _in_sequence,
    dict: _in_dict,
}


def futures_in(*values: Any) -> List[Any]:
    """The futures inside the values that are not done yet."""
    found: List[Any] = []

    def note(inner: Any, lenient: bool) -> Any:
        if is_future(inner) and not inner.done:
            found.append(inner)
        return inner

    for value in values:
        replace_futures(value, note)
    return found


def resolve_futures(
    args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """The arguments with results in place of futures, which must be done.

    Raises ``UpstreamTaskError`` when one of them, or of ``wait_for``, did not complete and is not allowed to fail.
    """
    if wait_for is not None:
        replace_futures(wait_for if isinstance(wait_for, (list, tuple, set)) else [wait_for], _result)
    return (
        tuple([replace_futures(value, _result) for value in args]),
        {name: replace_futures(value, _result) for name, value in kwargs.items()},
    )


def _result(future: Any, lenient: bool) -> Any:
    state: State = future if isinstance(future, State) else future.state
    if state.is_completed():
        return state.data
    if state.tolerated:
        return None
    if lenient and state.is_final():
        return state.value(raise_on_failure=False)
    name = state.task_run_id if isinstance(future, State) else future.name
    raise UpstreamTaskError("Upstream task run '%s' did not reach a 'COMPLETED' state." % (name or state.name))


def to_states(value: Any) -> Any:
    """The value with the state of each future in its place; they must be done."""
    return replace_futures(value, lambda found, lenient: found if isinstance(found, State) else found.state)


def to_results(value: Any, raise_on_failure: bool = True) -> Any:
    """The value with the result of each future in its place; waits for them."""

    def result(found: Any, lenient: bool) -> Any:
        return found if isinstance(found, State) else found.result(raise_on_failure=raise_on_failure)

    return replace_futures(value, result)
