"""What a JSON Schema asks for, in words: the one wording of every sentence that refuses a parameter."""

from __future__ import annotations

import reprlib
from difflib import get_close_matches
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

Schema = Mapping[str, Any]
MAX_SHOWN = 80  # characters of a value in a sentence
MAX_CHOICES = 20
MAX_DEPTH = 6  # schemas within schemas
MAX_PLACES = 300  # schemas that one sentence reads: those that refer to themselves have no end
MAX_COMPARED = 100  # names that are compared with a wrong one, if they are not longer than
MAX_COMPARED_NAME = 60  # characters

_FORMATS: Dict[Tuple[str, Any], str] = {
    ("string", None): "a string",
    ("string", "date"): 'a date such as "2024-01-31"',
    ("string", "date-time"): 'a time such as "2024-01-31T09:00:00+00:00"',
    ("string", "time"): 'a time of day such as "09:00:00"',
    ("string", "duration"): 'a duration such as "PT30M", or a number of seconds',
    ("string", "uuid"): "a UUID",
    ("string", "path"): "a path",
    ("number", "duration-seconds"): "a number of seconds",
    ("integer", None): "a whole number",
    ("number", None): "a number",
    ("boolean", None): "true or false",
    ("null", None): "null",
    ("array", None): "a list",
    ("object", None): "an object",
}
_BOUNDS = (
    (("minimum", "formatMinimum"), "of at least"),
    (("exclusiveMinimum", "formatExclusiveMinimum"), "above"),
    (("maximum", "formatMaximum"), "at most"),
    (("exclusiveMaximum", "formatExclusiveMaximum"), "below"),
)
_SIZES = (
    ("minLength", "maxLength", "character"),
    ("minItems", "maxItems", "item"),
    ("minProperties", "maxProperties", "entry"),
)


def resolved(schema: Any, defs: Schema) -> Schema:
    """The schema that a ``$ref`` stands for, or the schema itself; ``{}`` for what cannot be found."""
    seen = 0
    while isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str) and seen < 8:
        schema, seen = defs.get(schema["$ref"].rsplit("/", 1)[-1]), seen + 1
    return schema if isinstance(schema, Mapping) else {}


class _Within(NamedTuple):
    """What a schema stands in: the definitions, how deep, and how many more may be read, in a list of one."""

    defs: Schema
    depth: int
    left: List[int]


def describe(schema: Any, defs: Optional[Schema] = None) -> str:
    """``a whole number of at least 1``: what fits, to stand after "must be"."""
    return _words(schema, _Within(defs or {}, 0, [MAX_PLACES]))


def _words(schema: Any, within: _Within) -> str:
    if isinstance(schema, Mapping) and schema.get("$defs"):
        within = within._replace(defs={**within.defs, **schema["$defs"]})
    schema = resolved(schema, within.defs)
    within.left[0] -= 1
    if within.depth > MAX_DEPTH or within.left[0] < 0:
        return "an object"
    inner = within._replace(depth=within.depth + 1)
    for word, say in _COMPOSED:
        if word in schema:
            return say(schema, inner)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        return _either([{**schema, "type": one} for one in kind], inner)
    if kind is None:
        return "any value"
    said = _STRUCTURES[kind](schema, inner) if kind in _STRUCTURES else _simple(kind, schema)
    return said + _limits(schema)


def _simple(kind: Any, schema: Schema) -> str:
    return _FORMATS.get((kind, schema.get("format"))) or _FORMATS.get((kind, None)) or str(kind)


def _either(options: Iterable[Any], within: _Within) -> str:
    return " or ".join(dict.fromkeys(_each(options, within)))


def _each(schemas: Iterable[Any], within: _Within) -> Iterator[str]:
    for schema in schemas:
        if within.left[0] <= 0:
            return
        yield _words(schema, within)


def _any_of(schema: Schema, within: _Within) -> str:
    if schema.get("format") == "decimal":
        return "a decimal number" + _limits(schema)
    return _either(schema.get("anyOf") or schema.get("oneOf") or (), within) + _limits(schema)


def _all_of(schema: Schema, within: _Within) -> str:
    return " and ".join(dict.fromkeys(_each(schema["allOf"], within))) or "any value"


def _enum(schema: Schema, within: _Within) -> str:
    choices = list(schema["enum"])
    more = ", …" if len(choices) > MAX_CHOICES else ""
    return "one of %s%s" % (", ".join(repr(choice) for choice in choices[:MAX_CHOICES]), more)


def _array(schema: Schema, within: _Within) -> str:
    if "prefixItems" in schema:
        low, high = schema.get("minItems", 0), schema.get("maxItems", len(schema["prefixItems"]))
        return "a list of %s items" % (high if low == high else "%s to %s" % (low, high))
    inner = schema.get("items")
    size = _size(schema, "minItems", "maxItems", "item")
    each = " of which each is %s" % _words(inner, within) if inner else ""
    return "a list" + size + each


def _object(schema: Schema, within: _Within) -> str:
    names = list(schema.get("properties") or ())
    return "an object with %s" % ", ".join(names[:MAX_CHOICES]) if names else "an object"


_COMPOSED: Tuple[Tuple[str, Callable[[Schema, _Within], str]], ...] = (
    ("enum", _enum),
    ("const", lambda schema, within: repr(schema["const"])),
    ("anyOf", _any_of),
    ("oneOf", _any_of),
    ("allOf", _all_of),
)
_STRUCTURES: Dict[Any, Callable[[Schema, _Within], str]] = {"array": _array, "object": _object}


def _limits(schema: Schema) -> str:
    low_high = [
        "%s %s" % (say, schema[name]) for names, say in _BOUNDS for name in names if schema.get(name) is not None
    ]
    said = " " + " and ".join(low_high) if low_high else ""
    if said.startswith(" at most"):
        said = " of" + said
    if schema.get("multipleOf") is not None:
        said += " that is a multiple of %s" % schema["multipleOf"]
    for low, high, unit in _SIZES:
        if low != "minItems":  # a list's own words have them already
            said += _size(schema, low, high, unit)
    return said + (" that matches %r" % schema["pattern"] if schema.get("pattern") is not None else "")


def _size(schema: Schema, low: str, high: str, unit: str) -> str:
    least, most = schema.get(low), schema.get(high)
    if least is None and most is None:
        return ""
    if most is None:
        count = "at least %s" % least
    elif not least:
        count = "at most %s" % most
    else:
        count = "%s" % most if least == most else "%s to %s" % (least, most)
    last = least if most is None else most
    plural = unit if last == 1 else "entries" if unit == "entry" else unit + "s"
    return " of %s %s" % (count, plural)


# ------------------------------------------------------------------------------------------------------- sentences


class _Shown(reprlib.Repr):
    """``repr`` of a value for a sentence: never long, never failing."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = MAX_SHOWN


_SHOWN = _Shown()


def preview_value(value: Any) -> str:
    """The value in a sentence, at most 80 characters of it."""
    try:
        text = _SHOWN.repr(value)
    except Exception:
        text = "<%s>" % type(value).__qualname__
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\u2400")
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def must_be(path: str, right: str, value: Any, secret: bool = False, where: str = "") -> str:
    got = "; what was given is not shown" if secret else ", not %s" % preview_value(value)
    return "Parameter %r%s must be %s%s." % (path, where, right, got)


def missing(path: str, right: str, where: str = "") -> str:
    return "Parameter %r%s is missing: it must be %s." % (path, where, right)


def unknown(name: str, known: List[str]) -> str:
    """There is no parameter of this name."""
    return "There is no parameter %s. %s" % (preview_value(name), _instead(name, known, "The flow takes"))


def unknown_field(path: str, name: str, known: List[str], where: str = "") -> str:
    return "Parameter %r%s has no field %s. %s" % (path, where, preview_value(name), _instead(name, known, "It takes"))


def unusable(path: str, reason: str, where: str = "") -> str:
    """A class that checks its own values has refused this one."""
    return "Parameter %r%s cannot be used: %s" % (path, where, reason if reason.endswith(".") else reason + ".")


def _instead(name: str, known: List[str], takes: str) -> str:
    short = [each for each in known[:MAX_COMPARED] if len(each) <= MAX_COMPARED_NAME]
    near = get_close_matches(name[:MAX_COMPARED_NAME], short, 1)
    if near:
        return "Did you mean %r?" % near[0]
    more = ", …" if len(known) > MAX_CHOICES else ""
    return "%s %s%s." % (takes, ", ".join(known[:MAX_CHOICES]) or "none", more)
