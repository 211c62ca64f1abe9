"""What must not be shown: which parameters are secret, by their schema or by their name, and values with it masked.

Pure, and the same on both sides: the server masks what it shows, a run's process what it writes. A secret by schema
(``writeOnly`` or ``format: password``) is one whatever its value; a secret by name is a text, a list or an object
under a name such as ``db_password``, and a number too, unless the name only speaks of tokens, as ``max_tokens`` does.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

MASK = "***"
SECRET_WORDS = (
    "password", "passwd", "passphrase", "secret", "api_key", "apikey", "private_key", "privatekey", "access_key",
    "accesskey", "credential", "authorization",
)  # fmt: skip
AMBIGUOUS_WORDS = ("token",)  # a token, or how many of them

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


class Rules:
    """What one JSON Schema says of the values in it; a reference is looked up in its ``$defs``."""

    def __init__(self, schema: Schema) -> None:
        self._defs: Dict[str, Any] = dict(schema.get("$defs") or {})

    def branches(self, schema: Any, depth: int = 8) -> List[Schema]:
        """The schemas that a value may stand under: itself, what it refers to, each of its alternatives."""
        if not isinstance(schema, Mapping) or depth < 0:
            return []
        found: List[Schema] = [schema]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            found += self.branches(self._defs.get(reference.rsplit("/", 1)[-1]), depth - 1)
        for word in ("anyOf", "oneOf", "allOf"):
            for option in schema.get(word) or ():
                found += self.branches(option, depth - 1)
        return found

    def secret(self, name: str, schemas: List[Schema], value: Any) -> bool:
        return is_secret(name, {}, value) or any(is_secret("", schema, value) for schema in schemas)

    def under(self, schemas: List[Schema], name: str) -> List[Schema]:
        """The schemas of an object's field."""
        found: List[Schema] = []
        for schema in schemas:
            properties = schema.get("properties") or {}
            found += self.branches(properties.get(name, schema.get("additionalProperties")))
        return found

    def at(self, schemas: List[Schema], index: int) -> List[Schema]:
        """The schemas of a list's item."""
        found: List[Schema] = []
        for schema in schemas:
            first = schema.get("prefixItems") or []
            found += self.branches(first[index] if index < len(first) else schema.get("items"))
        return found

    def masked(self, value: Any, schemas: List[Schema]) -> Any:
        if any(is_secret("", schema, value) for schema in schemas):
            return MASK
        if isinstance(value, Mapping):
            return {name: self._field(str(name), item, schemas) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.masked(item, self.at(schemas, index)) for index, item in enumerate(value)]
        return value

    def _field(self, name: str, value: Any, schemas: List[Schema]) -> Any:
        inside = self.under(schemas, name)
        if value is None and not any(is_secret("", schema) for schema in inside):
            return None  # that nothing was given is no secret
        return MASK if self.secret(name, inside, value) else self.masked(value, inside)

    def restored(self, value: Any, before: Any, schemas: List[Schema]) -> Any:
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            return {name: self._entry(str(name), item, before.get(name), schemas) for name, item in value.items()}
        if isinstance(value, list) and isinstance(before, list):
            pairs = zip(value, [*before, *[None] * len(value)])
            return [self._item(item, old, self.at(schemas, index)) for index, (item, old) in enumerate(pairs)]
        return value

    def _entry(self, name: str, value: Any, before: Any, schemas: List[Schema]) -> Any:
        secret = value == MASK and before is not None and self._field(name, before, schemas) == MASK
        return before if secret else self.restored(value, before, self.under(schemas, name))

    def _item(self, value: Any, before: Any, schemas: List[Schema]) -> Any:
        secret = value == MASK and before is not None and any(is_secret("", schema) for schema in schemas)
        return before if secret else self.restored(value, before, schemas)

    def secrets(self, value: Any, schemas: List[Schema]) -> Iterator[Any]:
        if any(is_secret("", schema, value) for schema in schemas):
            yield from leaves(value)
            return
        value = opened(value)
        if isinstance(value, Mapping):
            for name, item in value.items():
                inside = self.under(schemas, str(name))
                secret = self.secret(str(name), inside, item)
                yield from leaves(item) if secret else self.secrets(item, inside)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                yield from self.secrets(item, self.at(schemas, index))


def leaves(value: Any) -> Iterator[Any]:
    """What a value holds, however deep; nothing for null and booleans."""
    value = opened(value)
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield value


def opened(value: Any) -> Any:
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


def masked(value: Any, schema: Optional[Schema] = None) -> Any:
    """The JSON value that ``schema`` describes, with what is secret as ``***``."""
    rules = Rules(schema or {})
    return rules.masked(value, rules.branches(schema or {}))


def restored(value: Any, before: Any, schema: Optional[Schema] = None) -> Any:
    """The value with each ``***`` that stands for a secret of ``before`` put back: who edits what was shown to him."""
    rules = Rules(schema or {})
    return rules.restored(value, before, rules.branches(schema or {}))


def secrets_in(value: Any, schema: Optional[Schema] = None) -> List[Any]:
    """The secret texts and numbers in a JSON value."""
    rules = Rules(schema or {})
    return list(rules.secrets(value, rules.branches(schema or {})))


def masked_schema(schema: Any, name: str = "") -> Any:
    """The schema without the defaults and examples of what is secret."""
    if not isinstance(schema, Mapping):
        return schema
    shown = {word: _masked_inside(word, inner) for word, inner in schema.items()}
    for word in ("default", "examples", "const", "enum"):
        if word in shown and (is_secret("", schema) or (word != "enum" and is_secret(name, schema))):
            shown[word] = [MASK] if isinstance(shown[word], list) else MASK
    if "default" in shown and shown["default"] != MASK:
        shown["default"] = masked(shown["default"], schema)
    return shown


def _masked_inside(word: str, inner: Any) -> Any:
    if word in ("properties", "$defs", "definitions") and isinstance(inner, Mapping):
        return {key: masked_schema(item, key if word == "properties" else "") for key, item in inner.items()}
    if word in ("items", "additionalProperties"):
        return masked_schema(inner)
    if word in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(inner, list):
        return [masked_schema(item) for item in inner]
    return inner
