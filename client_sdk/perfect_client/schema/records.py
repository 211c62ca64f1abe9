"""Hints that name their fields: dataclasses, ``TypedDict`` and ``NamedTuple``."""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Set

from perfect_client.schema.encoding import to_json
from perfect_client.schema.masking import is_secret, secrets_in
from perfect_client.schema.scalars import Hint, Schema, Wrong
from perfect_client.schema.secrets import of_this_process
from perfect_client.wire.messages import dumps

MAX_DEFAULT_BYTES = 16 * 1024
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")
_NOTHING = object()

HintOf = Callable[[Any], Hint]


class _Field(NamedTuple):
    name: str
    annotation: Any
    required: bool
    default: Any = _NOTHING


def json_default(name: str, schema: Schema, value: Any) -> Dict[str, Any]:
    """The default as ``default``; nothing when it is none that JSON can say, as an object or a very long one, and
    when a secret is in it: the server need not have it."""
    try:
        told = to_json(value)
        if len(dumps(told)) > MAX_DEFAULT_BYTES or _holds_a_secret(name, schema, told):
            return {}
        return {"default": told}
    except (TypeError, ValueError, RecursionError):
        return {}


def _holds_a_secret(name: str, schema: Schema, value: Any) -> bool:
    secrets = secrets_in({name: value}, {"properties": {name: schema}, "$defs": schema.get("$defs") or {}})
    return any(secrets) or is_secret(name, schema, value) or of_this_process.clean(value) != value


def class_hints(cls: Any) -> Dict[str, Any]:
    """A class's resolved annotations with their limits; ``Any`` for those that cannot be resolved."""
    extras: Any = {"include_extras": True} if sys.version_info >= (3, 9) else {}
    try:
        return typing.get_type_hints(cls, **extras)
    except Exception:  # a hint may be any expression
        return dict.fromkeys(getattr(cls, "__annotations__", {}), Any)


def _hint(cls: Any, fields: List[_Field], of: HintOf, make: Callable[..., Any]) -> Hint:
    hints = {field.name: of(field.annotation) for field in fields}

    def read(value: Any) -> Any:
        if make is not dict and isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise Wrong
        if any(name not in hints for name in value) or any(f.required and f.name not in value for f in fields):
            raise Wrong
        return _made(make, {name: hints[name].read(item) for name, item in value.items()})

    properties = {field.name: {**hints[field.name].schema, **_default(field, hints[field.name])} for field in fields}
    schema: Schema = {
        "type": "object",
        "title": cls.__name__,
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
        "properties": properties,
    }
    return Hint(schema, read)


def _default(field: _Field, hint: Hint) -> Dict[str, Any]:
    return {} if field.default is _NOTHING else json_default(field.name, hint.schema, field.default)


def _made(make: Callable[..., Any], values: Dict[str, Any]) -> Any:
    """The object; what its own checks say of the values is the reason."""
    try:
        return make(**values)
    except Wrong:
        raise
    except (ValueError, TypeError, AssertionError) as error:
        raise Wrong("%s: %s" % (type(error).__name__, error) if str(error) else type(error).__name__) from None


def dataclass_hint(cls: Any, of: HintOf) -> Hint:
    annotations = class_hints(cls)
    fields = [
        _Field(field.name, annotations.get(field.name, Any), *_dataclass_default(field))
        for field in dataclasses.fields(cls)
        if field.init
    ]
    return _hint(cls, fields, of, cls)


def _dataclass_default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return False, field.default
    if field.default_factory is dataclasses.MISSING:
        return True, _NOTHING
    try:
        return False, field.default_factory()
    except Exception:  # it may ask for what is only there in a run
        return False, _NOTHING


def typed_dict_hint(cls: Any, of: HintOf) -> Hint:
    required = getattr(cls, "__required_keys__", frozenset(cls.__annotations__ if cls.__total__ else ()))
    fields = []
    for name, annotation in class_hints(cls).items():
        qualifiers, inner = _unqualified(annotation)
        needed = "Required" in qualifiers or (name in required and "NotRequired" not in qualifiers)
        fields.append(_Field(name, inner, needed))
    return _hint(cls, fields, of, dict)


def _unqualified(annotation: Any) -> Any:
    """``NotRequired[int]`` → its qualifiers and ``int``; of ``typing`` and of ``typing_extensions`` alike."""
    found: Set[str] = set()
    while True:
        name = getattr(getattr(annotation, "__origin__", None), "_name", None)
        if name not in _QUALIFIERS:
            return found, annotation
        found.add(name)
        annotation = annotation.__args__[0]


def named_tuple_hint(cls: Any, of: HintOf) -> Hint:
    """An object of its fields, or a list of them in order."""
    annotations, defaults = class_hints(cls), cls._field_defaults
    fields = [
        _Field(name, annotations.get(name, Any), name not in defaults, defaults.get(name, _NOTHING))
        for name in cls._fields
    ]
    by_name = _hint(cls, fields, of, cls)
    listed: Schema = {
        "type": "array",
        "prefixItems": [of(field.annotation).schema for field in fields],
        "minItems": sum(field.required for field in fields),
        "maxItems": len(fields),
    }

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not isinstance(value, cls):
            if len(value) > len(cls._fields):
                raise Wrong
            return by_name.read(dict(zip(cls._fields, value)))
        return by_name.read(value)

    return Hint({"title": cls.__name__, "anyOf": [by_name.schema, listed]}, read)
