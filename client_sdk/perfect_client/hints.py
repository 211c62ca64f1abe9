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
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Tuple, Type, Union

from perfect_client.jsonable import to_json
from perfect_client.values import ANYTHING, PLAIN, Hint, Schema, Wrong, path_of

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
    if getattr(annotation, "__metadata__", None) is not None:  # Annotated
        return hint_of(origin, busy)
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
            return make(cls, busy | {cls})
    return ANYTHING


def _arguments(annotation: Any) -> Tuple[Any, ...]:
    found = getattr(annotation, "__args__", None) or ()
    return () if any(isinstance(item, typing.TypeVar) for item in found) else tuple(found)  # bare List on 3.8


def _items(value: Any) -> List[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, collections.abc.Iterable):
        raise Wrong
    return list(value)


def _each(items: List[Any], hint: Hint) -> List[Any]:
    return [_read_in(hint, item, "item %d" % number) for number, item in enumerate(items, 1)]


def _read_in(hint: Hint, value: Any, where: str) -> Any:
    try:
        return hint.read(value)
    except (ValueError, TypeError, OverflowError) as wrong:
        inner = str(wrong) if isinstance(wrong, Wrong) and str(wrong) else hint.words
        raise Wrong("%s (%s)" % (inner, where) if "(" not in inner else inner) from None


def _collection(make: Callable[[List[Any]], Any], words: str, unique: bool = False) -> Callable[[Any, _Busy], Hint]:
    def hint(annotation: Any, busy: _Busy) -> Hint:
        inner = hint_of((_arguments(annotation) or (Any,))[0], busy)
        schema: Schema = {"type": "array", "items": inner.schema}
        if unique:
            schema["uniqueItems"] = True
        of = " of which each is %s" % inner.words if inner is not ANYTHING else ""
        return Hint(schema, lambda value: make(_each(_items(value), inner)), words + of)

    return hint


def _tuple(annotation: Any, busy: _Busy) -> Hint:
    arguments = tuple(() if item == () else item for item in _arguments(annotation))
    if not arguments or arguments[-1] is Ellipsis:
        return _collection(tuple, "a list")(annotation if arguments else list, busy)
    hints = [] if arguments == ((),) else [hint_of(item, busy) for item in arguments]

    def read(value: Any) -> Any:
        items = _items(value)
        if len(items) != len(hints):
            raise Wrong
        return tuple(_read_in(h, item, "item %d" % n) for n, (h, item) in enumerate(zip(hints, items), 1))

    schema = {
        "type": "array", "prefixItems": [hint.schema for hint in hints],
        "minItems": len(hints), "maxItems": len(hints),
    }  # fmt: skip
    return Hint(schema, read, "a list of %d items" % len(hints))


def _mapping(annotation: Any, busy: _Busy) -> Hint:
    arguments = _arguments(annotation)
    key, inner = (hint_of(item, busy) for item in (arguments if len(arguments) == 2 else (Any, Any)))

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Wrong
        return {_read_in(key, k, "a key"): _read_in(inner, v, "under %r" % (k,)) for k, v in value.items()}

    schema: Schema = {"type": "object"}
    if inner is not ANYTHING:
        schema["additionalProperties"] = inner.schema
    return Hint(schema, read, "an object")


def _literal(annotation: Any, busy: _Busy) -> Hint:
    choices = [(choice, to_json(choice)) for choice in annotation.__args__]

    def read(value: Any) -> Any:
        for choice, told in choices:
            if any(known == value and type(known) is type(value) for known in (choice, told)):
                return choice
        raise Wrong

    return Hint({"enum": [told for _, told in choices]}, read, "one of %s" % ", ".join(repr(t) for _, t in choices))


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

    words = " or ".join(dict.fromkeys(hint.words for hint in hints))
    if any(hint is ANYTHING for hint in hints):
        return ANYTHING
    return Hint({"anyOf": [hint.schema for hint in hints]}, read, words)


def optional(hint: Hint) -> Hint:
    """The hint of a parameter whose default is None, which allows null whether its annotation says so or not."""
    parts = hint.schema.get("anyOf", [hint.schema])
    if hint is ANYTHING or {"type": "null"} in parts:
        return hint
    return Hint(
        {**hint.schema, "anyOf": [*parts, {"type": "null"}]} if "anyOf" in hint.schema
        else {"anyOf": [hint.schema, {"type": "null"}]},
        lambda value: None if value is None else hint.read(value),
        hint.words + " or null",
    )  # fmt: skip


_LIST = _collection(list, "a list")
_SET, _FROZEN = _collection(set, "a list", True), _collection(frozenset, "a list", True)
_GENERIC: Dict[Any, Callable[[Any, _Busy], Hint]] = {
    list: _LIST, collections.abc.Sequence: _LIST, collections.abc.MutableSequence: _LIST,
    collections.abc.Iterable: _LIST, collections.abc.Collection: _LIST,
    set: _SET, collections.abc.Set: _SET, collections.abc.MutableSet: _SET, frozenset: _FROZEN,
    tuple: _tuple, dict: _mapping, collections.abc.Mapping: _mapping, collections.abc.MutableMapping: _mapping,
    typing.Literal: _literal, Union: _union,
}  # fmt: skip
if sys.version_info >= (3, 10):
    import types

    _GENERIC[types.UnionType] = _union

# --------------------------------------------------------------------------------------------------------- classes


def _enum(cls: Type[enum.Enum], busy: _Busy) -> Hint:
    members = [(member, _told_member(member)) for member in cls]

    def read(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        for member, told in members:
            if told == value and isinstance(told, bool) is isinstance(value, bool):
                return member
        if isinstance(value, str) and value in cls.__members__:
            return cls.__members__[value]
        raise Wrong

    values = [told for _, told in members]
    schema: Schema = {"enum": values}
    if values and all(isinstance(value, str) for value in values):
        schema["type"] = "string"
    return Hint(schema, read, "one of %s" % ", ".join(repr(value) for value in values))


def _told_member(member: enum.Enum) -> Any:
    try:
        return to_json(member)
    except TypeError:  # the name will do
        return member.name


class _Field(NamedTuple):
    name: str
    annotation: Any
    required: bool


def _fields_hint(cls: Any, fields: List[_Field], busy: _Busy, make: Callable[..., Any]) -> Hint:
    hints = {field.name: hint_of(field.annotation, busy) for field in fields}
    required = [field.name for field in fields if field.required]

    def read(value: Any) -> Any:
        if make is not dict and isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise Wrong
        missing = [name for name in required if name not in value]
        unknown = [name for name in value if name not in hints]
        if missing or unknown:
            raise Wrong("an object with %s" % ", ".join(hints))
        return make(**{name: _read_in(hints[name], item, "field %s" % name) for name, item in value.items()})

    schema = {
        "type": "object", "title": cls.__name__, "required": required, "additionalProperties": False,
        "properties": {name: hint.schema for name, hint in hints.items()},
    }  # fmt: skip
    return Hint(schema, read, "an object with %s" % ", ".join(hints))


def class_hints(cls: Any) -> Dict[str, Any]:
    """A class's resolved annotations; ``Any`` for those that cannot be resolved."""
    try:
        return typing.get_type_hints(cls)
    except Exception:  # a hint may be any expression
        return dict.fromkeys(getattr(cls, "__annotations__", {}), Any)


def _dataclass(cls: Any, busy: _Busy) -> Hint:
    annotations = class_hints(cls)
    fields = [
        _Field(f.name, annotations.get(f.name, Any), _has_no_default(f)) for f in dataclasses.fields(cls) if f.init
    ]
    return _fields_hint(cls, fields, busy, cls)


def _has_no_default(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _typed_dict(cls: Any, busy: _Busy) -> Hint:
    required = getattr(cls, "__required_keys__", frozenset(cls.__annotations__ if cls.__total__ else ()))
    fields = [_Field(name, hint, name in required) for name, hint in class_hints(cls).items()]
    return _fields_hint(cls, fields, busy, dict)


def _named_tuple(cls: Any, busy: _Busy) -> Hint:
    annotations, defaults = class_hints(cls), cls._field_defaults
    fields = [_Field(name, annotations.get(name, Any), name not in defaults) for name in cls._fields]
    by_name = _fields_hint(cls, fields, busy, cls)

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not isinstance(value, cls):
            return by_name.read(dict(zip(cls._fields, value)) if len(value) <= len(cls._fields) else value)
        return by_name.read(value)

    return by_name._replace(read=read)


def _validating_model(cls: Any, busy: _Busy) -> Hint:
    schema = {"type": "object", "title": cls.__name__}
    return Hint(schema, cls.model_validate, "an object that makes a %s" % cls.__name__)


_CLASSES: Tuple[Tuple[Callable[[Any], bool], Callable[[Any, _Busy], Hint]], ...] = (
    (lambda cls: issubclass(cls, enum.Enum), _enum),
    (dataclasses.is_dataclass, _dataclass),
    (lambda cls: hasattr(cls, "__total__") and hasattr(cls, "__annotations__"), _typed_dict),
    (lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), _named_tuple),
    (lambda cls: hasattr(cls, "model_validate"), _validating_model),
    (lambda cls: issubclass(cls, PurePath), lambda cls, busy: PLAIN[Path]._replace(read=path_of(cls))),
)
