"""``Field``: limits and words for a parameter, written into its hint: ``Annotated[int, Field(ge=1)]``.

The same names are understood in the objects of ``annotated_types`` and of pydantic, by what they look like: neither is
imported.
"""

from __future__ import annotations

import math
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from perfect_client.errors import ConfigurationError

_LIMITS = ("ge", "gt", "le", "lt", "multiple_of")
_SIZES = ("min_length", "max_length")


class Field:
    """What a parameter must keep to, and what is said of it. Raises ``ConfigurationError`` for what cannot be kept.

    ``ge``, ``gt``, ``le``, ``lt``: at least, above, at most, below; numbers, dates, times, durations in seconds.
    ``min_length``, ``max_length``: characters of a string, items of a list. ``pattern`` is searched for in the text.
    """

    __slots__ = (
        "description",
        "examples",
        "ge",
        "gt",
        "le",
        "lt",
        "max_length",
        "min_length",
        "multiple_of",
        "pattern",
    )

    def __init__(
        self,
        *,
        ge: Any = None,
        gt: Any = None,
        le: Any = None,
        lt: Any = None,
        multiple_of: Optional[float] = None,
        min_length: Optional[int] = None,
        max_length: Optional[int] = None,
        pattern: Optional[str] = None,
        description: str = "",
        examples: Iterable[Any] = (),
    ) -> None:
        self.ge, self.gt, self.le, self.lt, self.multiple_of = ge, gt, le, lt, multiple_of
        self.min_length, self.max_length, self.pattern = min_length, max_length, pattern
        self.description, self.examples = description, list(examples)
        for name in _SIZES:
            size = getattr(self, name)
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
                raise ConfigurationError("Field: %s must be a whole number of 0 or more, not %r" % (name, size))
        if multiple_of is not None and not (isinstance(multiple_of, (int, float)) and multiple_of > 0):
            raise ConfigurationError("Field: multiple_of must be a number above 0, not %r" % (multiple_of,))
        if not isinstance(description, str):
            raise ConfigurationError("Field: description must be a string, not %r" % (description,))
        self._check_pattern()
        self._check_room()

    def _check_pattern(self) -> None:
        try:
            if self.pattern is not None:
                re.compile(self.pattern)
        except (re.error, TypeError) as wrong:
            raise ConfigurationError("Field: pattern %r is no regular expression: %s" % (self.pattern, wrong)) from None

    def _check_room(self) -> None:
        for low, high in (("ge", "le"), ("gt", "lt"), ("min_length", "max_length")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigurationError(
                    "Field: nothing fits %s=%r and %s=%r: the first is the larger" % (low, least, high, most)
                )

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in self.__slots__)
        return "Field(%s)" % ", ".join("%s=%r" % (name, value) for name, value in given if value not in (None, "", []))


# ------------------------------------------------------------------------------------- limits found in a hint's words

_WORDS: Mapping[str, Tuple[str, str]] = {
    # A limit's name: the keyword for numbers, and the one for what JSON writes as text, as a date.
    "ge": ("minimum", "formatMinimum"),
    "gt": ("exclusiveMinimum", "formatExclusiveMinimum"),
    "le": ("maximum", "formatMaximum"),
    "lt": ("exclusiveMaximum", "formatExclusiveMaximum"),
    "multiple_of": ("multipleOf", "multipleOf"),
}
_OF_KIND = {
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern", "regex": "pattern"},
    "array": {"min_length": "minItems", "max_length": "maxItems", "min_items": "minItems", "max_items": "maxItems"},
    "object": {"min_length": "minProperties", "max_length": "maxProperties"},
}
_NAMES = frozenset([*_WORDS, "min_length", "max_length", "pattern", "regex", "min_items", "max_items"])


def limits_in(metadata: Iterable[Any], depth: int = 3) -> Dict[str, Any]:
    """The limits that the objects in ``Annotated[…]`` state, by name; the last word on each counts."""
    found: Dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, (str, bytes, type)) or item is None:
            continue
        for name in _NAMES:
            value = getattr(item, name, None)
            if value is not None and not callable(value):
                found[name] = getattr(value, "pattern", value) if name == "pattern" else value
        inner = getattr(item, "metadata", None)  # pydantic's FieldInfo has them inside
        if depth and isinstance(inner, (list, tuple)):
            found.update(limits_in(inner, depth - 1))
    return found


def descriptions_in(metadata: Iterable[Any]) -> Dict[str, Any]:
    """``description`` and ``examples`` that the objects in ``Annotated[…]`` carry."""
    found: Dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, (str, bytes, type)):
            continue
        text = getattr(item, "description", None) or getattr(item, "documentation", None)
        if isinstance(text, str) and text:
            found["description"] = " ".join(text.split())
        examples = getattr(item, "examples", None)
        if isinstance(examples, (list, tuple)) and examples:
            found["examples"] = list(examples)
    return found


def apply_limits(schema: Mapping[str, Any], limits: Mapping[str, Any]) -> Dict[str, Any]:
    """The schema with the limits as its keywords, each where it can apply: of ``X | None`` at X."""
    if "anyOf" in schema and schema.get("format") != "decimal":
        return {**schema, "anyOf": [apply_limits(option, limits) for option in schema["anyOf"]]}
    kind = "number" if schema.get("format") == "decimal" else schema.get("type")
    if "enum" in schema or not isinstance(kind, str):
        return dict(schema)
    found = dict(schema)
    for name, value in limits.items():
        keyword = _keyword(kind, schema, name)
        if keyword and _sayable(value):
            found[keyword] = value
    return found


def _keyword(kind: str, schema: Mapping[str, Any], name: str) -> Optional[str]:
    if name in _WORDS and kind in ("integer", "number"):
        return _WORDS[name][0]
    if name in _WORDS and kind == "string" and schema.get("format") in ("date", "date-time", "time"):
        return _WORDS[name][1]
    if kind == "string" and schema.get("format") not in (None, "password", "path"):
        return None  # the length of a date says nothing
    return _OF_KIND.get(kind, {}).get(name)


def _sayable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def is_default_of_a_field(default: Any) -> bool:
    """Whether a parameter's default is pydantic's ``Field(…)``, which stands for another one."""
    return type(default).__name__ == "FieldInfo" and hasattr(default, "default_factory")


def default_of_field(info: Any, empty: Any) -> Any:
    """The default that pydantic's ``Field(…)`` stands for; ``empty`` when it is required."""
    if info.default_factory is not None:
        return info.default_factory()
    unset: List[Any] = [...]
    if type(info.default).__name__ in ("PydanticUndefinedType", "UndefinedType") or info.default in unset:
        return empty
    return info.default
