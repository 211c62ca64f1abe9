"""What must not be shown: which parameters are secret, by their schema or by their name, and values with it masked.

Pure, and the same on both sides: the server masks what it shows, a run's process what it writes. A secret by schema
(``writeOnly`` or ``format: password``) is one whatever its value; a secret by name is a string, a list or an object
under a name such as ``db_password``, and a number too, unless the name only speaks of tokens, as ``max_tokens`` does.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set

MASK = "***"
SECRET_WORDS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "api_key",
    "apikey",
    "private_key",
    "privatekey",
    "access_key",
    "accesskey",
    "credential",
    "authorization",
)
AMBIGUOUS_WORDS = ("token",)  # a token, or how many of them
MAX_LOOKED_AT = 20_000  # schemas, for one value

Schema = Mapping[str, Any]


def is_secret(name: str, schema: Schema, value: Any = None) -> bool:
    """Whether what stands under ``name`` must not be shown; without a value, whether it could be secret."""
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        return True
    said = name.lower().replace("-", "_").replace(" ", "_")
    kinds = _kinds(schema) if value is None else {_kind_of(value)}
    if kinds <= {"boolean", "null"}:
        return False
    counted = kinds <= {"integer", "number", "boolean", "null"}
    return any(word in said for word in SECRET_WORDS) or (not counted and any(word in said for word in AMBIGUOUS_WORDS))


def _kind_of(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "other"


def _kinds(schema: Schema) -> Set[str]:
    kinds, options = schema.get("type"), schema.get("anyOf")
    if kinds is None and isinstance(options, list):
        return {str(option.get("type")) for option in options if isinstance(option, Mapping)}
    return {str(kind) for kind in kinds} if isinstance(kinds, list) else {str(kinds)}


class _Under:
    """The schemas that a value may stand under, and what follows for it and for what is in it."""

    __slots__ = ("first", "inner", "names", "schemas", "secret")

    def __init__(self, schemas: List[Schema], secret: bool = False) -> None:
        self.schemas = schemas
        self.secret = secret or any(is_secret("", schema) for schema in schemas)
        self.names = {name for schema in schemas for name in schema.get("properties") or ()}
        self.first = max([len(schema.get("prefixItems") or ()) for schema in schemas], default=0)
        self.inner: Dict[Any, _Under] = {}  # by an object's field or a list's index; None for all others


class Rules:
    """What one JSON Schema says of the values in it; a reference is looked up in its ``$defs``.

    A value's schemas are itself, what it refers to, and each of its alternatives. They are looked up once for all
    values that stand under the same ones. A schema that refers to itself in more and more ways has a limit; what it
    says beyond that is not known, so all under it is secret.
    """

    def __init__(self, schema: Schema) -> None:
        self._defs: Dict[str, Any] = dict(schema.get("$defs") or {})
        self._left = MAX_LOOKED_AT
        self.root = self._under([schema])

    def _under(self, schemas: Iterable[Any]) -> _Under:
        found: Dict[int, Schema] = {}
        to_see = list(schemas)[::-1]
        while to_see:
            schema = to_see.pop()
            if not isinstance(schema, Mapping) or id(schema) in found:
                continue
            self._left -= 1
            if self._left < 0:
                return _Under([], secret=True)
            found[id(schema)] = schema
            reference = schema.get("$ref")
            if isinstance(reference, str):
                to_see.append(self._defs.get(reference.rsplit("/", 1)[-1]))
            for word in ("anyOf", "oneOf", "allOf"):
                to_see += schema.get(word) or ()
        return _Under(list(found.values()))

    def field(self, under: _Under, name: str) -> _Under:
        """What an object's field stands under."""
        key = name if name in under.names else None
        if key not in under.inner:
            under.inner[key] = self._under(
                (schema.get("properties") or {}).get(name, schema.get("additionalProperties"))
                for schema in under.schemas
            )
        return under.inner[key]

    def item(self, under: _Under, index: int) -> _Under:
        """What a list's item stands under."""
        key = index if index < under.first else -1
        if key not in under.inner:
            firsts = [(schema.get("prefixItems") or (), schema) for schema in under.schemas]
            under.inner[key] = self._under(
                first[index] if index < len(first) else schema.get("items") for first, schema in firsts
            )
        return under.inner[key]

    def masked(self, value: Any, under: _Under) -> Any:
        if under.secret:
            return MASK
        if isinstance(value, Mapping):
            return {name: self._field(str(name), item, under) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.masked(item, self.item(under, index)) for index, item in enumerate(value)]
        return value

    def _field(self, name: str, value: Any, under: _Under) -> Any:
        inside = self.field(under, name)
        if value is None and not inside.secret:
            return None  # that nothing was given is no secret
        return MASK if inside.secret or is_secret(name, {}, value) else self.masked(value, inside)

    def restored(self, value: Any, before: Any, under: _Under) -> Any:
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            return {name: self._entry(str(name), item, before.get(name), under) for name, item in value.items()}
        if isinstance(value, list) and isinstance(before, list):
            pairs = zip(value, [*before, *[None] * len(value)])
            return [self._item(item, old, self.item(under, index)) for index, (item, old) in enumerate(pairs)]
        return value

    def _entry(self, name: str, value: Any, before: Any, under: _Under) -> Any:
        secret = value == MASK and before is not None and self._field(name, before, under) == MASK
        return before if secret else self.restored(value, before, self.field(under, name))

    def _item(self, value: Any, before: Any, under: _Under) -> Any:
        secret = value == MASK and before is not None and under.secret
        return before if secret else self.restored(value, before, under)

    def secrets(self, value: Any, under: _Under) -> Iterator[Any]:
        if under.secret:
            yield from leaves(value)
            return
        value = unwrap(value)
        if isinstance(value, Mapping):
            for name, item in value.items():
                inside = self.field(under, str(name))
                secret = inside.secret or is_secret(str(name), {}, item)
                yield from leaves(item) if secret else self.secrets(item, inside)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                yield from self.secrets(item, self.item(under, index))


def leaves(value: Any) -> Iterator[Any]:
    """What a value holds, however deep; nothing for null and booleans."""
    value = unwrap(value)
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield value


def unwrap(value: Any) -> Any:
    """What stands in an object that is no JSON value: a secret's value, an enum's, the fields of a dataclass or model
    by name. Anything else is the value itself."""
    if value is None or isinstance(value, (str, int, float, bytes, Mapping, list, tuple, type)):
        return value.value if isinstance(value, Enum) else value
    if callable(getattr(value, "get_secret_value", None)):
        return value.get_secret_value()
    if isinstance(value, Enum):
        return value.value
    described = any(hasattr(type(value), mark) for mark in _DESCRIBED)
    return dict(getattr(value, "__dict__", {})) or _slots(value) if described else value


_DESCRIBED = ("__dataclass_fields__", "model_fields", "__fields__", "__attrs_attrs__")  # pydantic 2 warns of the third


def _slots(value: Any) -> Dict[str, Any]:
    return {name: getattr(value, name) for name in getattr(value, "__dataclass_fields__", {}) if hasattr(value, name)}


def mask(value: Any, schema: Optional[Schema] = None) -> Any:
    """The JSON value that ``schema`` describes, with what is secret as ``***``."""
    rules = Rules(schema or {})
    return rules.masked(value, rules.root)


def restore(value: Any, before: Any, schema: Optional[Schema] = None) -> Any:
    """The value with each ``***`` that stands for a secret of ``before`` put back: who edits what was shown to him."""
    rules = Rules(schema or {})
    return rules.restored(value, before, rules.root)


def secrets_in(value: Any, schema: Optional[Schema] = None) -> List[Any]:
    """The secret texts and numbers in a JSON value."""
    rules = Rules(schema or {})
    return list(rules.secrets(value, rules.root))


def mask_schema(schema: Any, name: str = "") -> Any:
    """The schema without the defaults and examples of what is secret."""
    if not isinstance(schema, Mapping):
        return schema
    shown = {word: _masked_inside(word, inner) for word, inner in schema.items()}
    for word in ("default", "examples", "const", "enum"):
        if word in shown and (is_secret("", schema) or (word != "enum" and is_secret(name, schema))):
            shown[word] = [MASK] if isinstance(shown[word], list) else MASK
    if "default" in shown and shown["default"] != MASK:
        shown["default"] = mask(shown["default"], schema)
    return shown


def _masked_inside(word: str, inner: Any) -> Any:
    if word in ("properties", "$defs", "definitions") and isinstance(inner, Mapping):
        return {key: mask_schema(item, key if word == "properties" else "") for key, item in inner.items()}
    if word in ("items", "additionalProperties"):
        return mask_schema(inner)
    if word in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(inner, list):
        return [mask_schema(item) for item in inner]
    return inner
