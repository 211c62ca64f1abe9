"""From type hints to JSON Schema, and from JSON values to what the hints ask for.

The table is open at the end: a hint that is not known accepts every value and is described by ``{}``.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import sys
import typing
from pathlib import Path, PurePath
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Tuple, Union

from perfect_client.schema import enums, pydantic_models, records
from perfect_client.schema.encoding import to_json
from perfect_client.schema.fields import apply_limits, descriptions_in, limits_in
from perfect_client.schema.records import HintOf
from perfect_client.schema.scalars import ANYTHING, PLAIN, Hint, Schema, Wrong, path_of
from perfect_client.schema.secrets import Secret
from perfect_client.schema.validation import key_of

_Busy = FrozenSet[Any]


def hint_of(annotation: Any, busy: _Busy = frozenset()) -> Hint:
    """What is known of an annotation. ``busy``: the classes it stands in, which may refer to themselves."""
    try:
        plain = PLAIN.get(annotation)
    except TypeError:  # not hashable
        return ANYTHING
    if plain is not None:
        return plain
    origin = getattr(annotation, "__origin__", None)
    maker = _GENERIC.get(origin) or _GENERIC.get(annotation) or _GENERIC.get(type(annotation))
    if maker is not None:
        return maker(annotation, busy)
    if getattr(annotation, "__metadata__", None) is not None:
        return _annotated(annotation, busy)
    if getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly"):
        return hint_of(annotation.__args__[0], busy)
    if hasattr(annotation, "__supertype__"):  # NewType
        return hint_of(annotation.__supertype__, busy)
    if isinstance(annotation, typing.TypeVar):
        return hint_of(annotation.__bound__, busy) if annotation.__bound__ else ANYTHING
    return _class_hint(annotation, busy) if isinstance(annotation, type) else ANYTHING


def _class_hint(cls: Any, busy: _Busy) -> Hint:
    if cls in busy:
        return ANYTHING
    for fits, make in _CLASSES:
        if fits(cls):
            return make(cls, lambda annotation: hint_of(annotation, busy | {cls}))
    return ANYTHING


def _annotated(annotation: Any, busy: _Busy) -> Hint:
    """``Annotated[X, …]``: X within the limits that stand there. They are checked by the schema, not by ``read``."""
    return with_metadata(hint_of(annotation.__origin__, busy), annotation.__metadata__)


def with_metadata(hint: Hint, metadata: Tuple[Any, ...]) -> Hint:
    """The hint within the limits, and with the words, that ``Field`` and its like state."""
    limits = {name: _limit(value) for name, value in limits_in(metadata).items()}
    told = descriptions_in(metadata)
    if "examples" in told:
        told["examples"] = [_limit(example) for example in told["examples"]]
    if not limits and not told:
        return hint
    return Hint({**apply_limits(hint.schema, limits), **told}, hint.read)


def _limit(value: Any) -> Any:
    try:
        return to_json(value)
    except (TypeError, ValueError):
        return str(value)


def _arguments(annotation: Any) -> Tuple[Any, ...]:
    found = getattr(annotation, "__args__", None) or ()
    return () if any(isinstance(item, typing.TypeVar) for item in found) else tuple(found)  # bare List on 3.8


def _items(value: Any) -> List[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, collections.abc.Iterable):
        raise Wrong
    return list(value)


def _collection(make: Callable[[List[Any]], Any], unique: bool = False) -> Callable[[Any, _Busy], Hint]:
    def hint(annotation: Any, busy: _Busy) -> Hint:
        inner = hint_of((_arguments(annotation) or (Any,))[0], busy)
        schema: Schema = {"type": "array", "items": inner.schema}
        if unique:
            schema["uniqueItems"] = True
        return Hint(schema, lambda value: make([inner.read(item) for item in _items(value)]))

    return hint


def _tuple(annotation: Any, busy: _Busy) -> Hint:
    arguments = tuple(() if item == () else item for item in _arguments(annotation))
    if not arguments or arguments[-1] is Ellipsis:
        return _collection(tuple)(annotation if arguments else list, busy)
    hints = [] if arguments == ((),) else [hint_of(item, busy) for item in arguments]

    def read(value: Any) -> Any:
        items = _items(value)
        if len(items) != len(hints):
            raise Wrong
        return tuple(hint.read(item) for hint, item in zip(hints, items))

    schema = {
        "type": "array",
        "prefixItems": [hint.schema for hint in hints],
        "minItems": len(hints),
        "maxItems": len(hints),
    }
    return Hint(schema, read)


def _mapping(annotation: Any, busy: _Busy) -> Hint:
    arguments = _arguments(annotation)
    key, inner = (hint_of(item, busy) for item in (arguments if len(arguments) == 2 else (Any, Any)))

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Wrong
        return {_read_key(key, name): inner.read(item) for name, item in value.items()}

    schema: Schema = {"type": "object"}
    if key.schema and key.schema != {"type": "string"}:
        schema["x-keys"] = key.schema
    if inner is not ANYTHING:
        schema["additionalProperties"] = inner.schema
    return Hint(schema, read)


def _read_key(hint: Hint, name: Any) -> Any:
    """A key as its hint says; in JSON it is a string, whatever it stands for."""
    try:
        return hint.read(name)
    except Wrong:
        return hint.read(key_of(name))


def _union(annotation: Any, busy: _Busy) -> Hint:
    hints = [hint_of(item, busy) for item in annotation.__args__]

    def read(value: Any) -> Any:
        fitting = []
        for hint in hints:
            try:
                found = hint.read(value)
            except (ValueError, TypeError, OverflowError):
                continue
            if type(found) is type(value) and found == value:
                return found  # nothing had to be converted
            fitting.append(found)
        if not fitting:
            raise Wrong
        return fitting[0]

    if any(hint is ANYTHING for hint in hints):
        return ANYTHING
    return Hint({"anyOf": [hint.schema for hint in hints]}, read)


def optional(hint: Hint) -> Hint:
    """The hint of a parameter whose default is None, which allows null whether its annotation says so or not."""
    parts = hint.schema.get("anyOf", [hint.schema])
    if hint is ANYTHING or {"type": "null"} in parts:
        return hint
    return Hint(
        {**hint.schema, "anyOf": [*parts, {"type": "null"}]}
        if "anyOf" in hint.schema
        else {"anyOf": [hint.schema, {"type": "null"}]},
        lambda value: None if value is None else hint.read(value),
    )


_LIST = _collection(list)
_SET, _FROZEN = _collection(set, True), _collection(frozenset, True)
_GENERIC: Dict[Any, Callable[[Any, _Busy], Hint]] = {
    list: _LIST,
    collections.abc.Sequence: _LIST,
    collections.abc.MutableSequence: _LIST,
    collections.abc.Iterable: _LIST,
    collections.abc.Collection: _LIST,
    set: _SET,
    collections.abc.Set: _SET,
    collections.abc.MutableSet: _SET,
    frozenset: _FROZEN,
    tuple: _tuple,
    dict: _mapping,
    collections.abc.Mapping: _mapping,
    collections.abc.MutableMapping: _mapping,
    typing.Literal: lambda annotation, busy: enums.literal_hint(annotation),
    Union: _union,
}
if sys.version_info >= (3, 10):
    import types

    _GENERIC[types.UnionType] = _union

# --------------------------------------------------------------------------------------------------------- classes


def _secret(annotation: Any, busy: _Busy) -> Hint:
    """``Secret[X]``, and ``Secret`` alone for a string: X, never shown."""
    inner = hint_of((_arguments(annotation) or (str,))[0], busy)
    marks: Schema = {"writeOnly": True}
    if "format" not in inner.schema:
        marks["format"] = "password"
    return Hint(
        {**inner.schema, **marks}, lambda value: value if isinstance(value, Secret) else Secret(inner.read(value))
    )


_GENERIC[Secret] = _secret

_CLASSES: Tuple[Tuple[Callable[[Any], bool], Callable[[Any, HintOf], Hint]], ...] = (
    (lambda cls: issubclass(cls, enum.Enum), lambda cls, of: enums.enum_hint(cls)),
    (dataclasses.is_dataclass, records.dataclass_hint),
    (lambda cls: hasattr(cls, "__total__") and hasattr(cls, "__annotations__"), records.typed_dict_hint),
    (lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), records.named_tuple_hint),
    (pydantic_models.is_model, lambda cls, of: pydantic_models.model_hint(cls)),
    (pydantic_models.is_secret_class, lambda cls, of: pydantic_models.secret_class_hint(cls)),
    (lambda cls: issubclass(cls, PurePath), lambda cls, of: PLAIN[Path]._replace(read=path_of(cls))),
)
