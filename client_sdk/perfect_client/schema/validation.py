"""Whether JSON values fit a JSON Schema, what they are then, and the one sentence for when they do not.

Read by the server when a run is wished for and by the run's process before user code sees a value, so that both accept
the same and say the same. Texts that say a number are numbers (``"1"`` for an integer is 1), as users of Prefect know
it. What is read: ``$ref`` into ``$defs``, ``type``, ``format``, ``enum``, ``const``, ``anyOf``, ``oneOf``, ``allOf``,
limits, lengths, ``pattern``, ``items``, ``prefixItems``, ``uniqueItems``, ``properties``, ``required``,
``additionalProperties``, and two extensions: ``x-enum-varnames``, names that stand for the values of ``enum``, and
``x-keys``, the schema of an object's keys.
"""

from __future__ import annotations

import json
import math
import operator
import re
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from perfect_client.schema import scalars, sentences
from perfect_client.schema.masking import is_secret, mask
from perfect_client.schema.scalars import Wrong

Schema = Mapping[str, Any]
KNOWN_KEYWORDS = frozenset(
    {
        "$ref",
        "$defs",
        "type",
        "format",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "formatMinimum",
        "formatMaximum",
        "formatExclusiveMinimum",
        "formatExclusiveMaximum",
        "minLength",
        "maxLength",
        "pattern",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "properties",
        "required",
        "additionalProperties",
        "minProperties",
        "maxProperties",
        "x-enum-varnames",
        "x-keys",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "$comment",
        "contentEncoding",
        "contentMediaType",
        "definitions",
    }
)


class Unfit(ValueError):
    """A parameter does not fit. ``name`` is the parameter, ``sentence`` says what would be right.

    The sentence is made when it is read: of the alternatives that do not fit, few are told.
    """

    def __init__(self, name: str, sentence: Union[str, Callable[[], str]]) -> None:
        super().__init__(name)
        self.name, self._sentence = name, sentence

    @property
    def sentence(self) -> str:
        return self._sentence if isinstance(self._sentence, str) else self._sentence()

    def __str__(self) -> str:
        return self.sentence

    def of(self, parameter: str) -> Unfit:
        return Unfit(parameter, self._sentence)


class _Misfit(Unfit):
    """What stands here is not what its schema asks for; any other ``Unfit`` is about something in it."""


class TooCostly(Exception):
    """The check would take too long; whether the value fits is not known."""


class Effort:
    """What a check may cost. A run checks its own parameters, however long that takes; a server checks everybody's."""

    def look_at_the_clock(self) -> None:
        """Called before each value is looked at; may raise ``TooCostly``."""

    def matches(self, pattern: Any, text: str) -> Optional[bool]:
        """Whether the pattern is found in the text; None if it cannot be tried."""
        try:
            return re.search(pattern, text) is not None
        except (re.error, TypeError, RecursionError, OverflowError):  # written for another dialect: left to its library
            return None


UNBOUNDED = Effort()


class _Place(NamedTuple):
    """Where in a parameter a value stands."""

    path: str
    defs: Schema
    secret: bool = False
    where: str = ""
    effort: Effort = UNBOUNDED

    def field(self, name: str) -> _Place:
        return self._replace(path="%s.%s" % (self.path, name), secret=self.secret or is_secret(name, {}, ""))

    def item(self, index: int) -> _Place:
        return self._replace(path="%s[%d]" % (self.path, index))

    def refuse(self, schema: Schema, value: Any) -> Unfit:
        def say() -> str:
            secret = self.secret or is_secret("", schema)
            seen = value if secret else mask(value, {**schema, "$defs": self.defs})
            return sentences.must_be(self.path, sentences.describe(schema, self.defs), seen, secret, self.where)

        return _Misfit(self.path, say)


def fit(
    name: str, schema: Any, value: Any, *, defs: Optional[Schema] = None, where: str = "", effort: Effort = UNBOUNDED
) -> Any:
    """The JSON value that the parameter ``name`` has: the given one, or what it stands for. Raises ``Unfit``.

    ``where`` is added to the name in the sentence, as in " in the configuration". What takes more than ``effort``
    allows, or has no end as a schema that only refers to itself, is taken as it is.
    """
    secret = is_secret(name, schema if isinstance(schema, Mapping) else {}, value)
    try:
        return _fit(schema, value, _Place(name, defs or {}, secret, where, effort))
    except (TooCostly, RecursionError):
        return value
    except Unfit as unfit:
        raise unfit.of(name) from None


def fit_all(
    schema: Schema, given: Mapping[str, Any], elsewhere: Any = (), *, where: str = "", effort: Effort = UNBOUNDED
) -> Dict[str, Any]:
    """All given parameters by a schema of type object; ``elsewhere`` are names that get a value without them.

    Raises ``Unfit`` for an unknown name, one that is missing, and a value that does not fit.
    """
    known, defs = schema.get("properties") or {}, schema.get("$defs") or {}
    refuse_names(known, given, bool(schema.get("additionalProperties", False)))
    for name in schema.get("required") or ():
        if name not in given and name not in elsewhere:
            raise Unfit(name, partial(_missing, name, known.get(name), defs))
    return {
        name: fit(name, known.get(name, {}), value, defs=defs, where=where, effort=effort)
        for name, value in given.items()
    }


def _missing(path: str, schema: Any, defs: Schema, where: str = "") -> str:
    return sentences.missing(path, sentences.describe(schema, defs), where)


def refuse_names(known: Mapping[str, Any], given: Mapping[str, Any], is_open: bool) -> None:
    """Raise ``Unfit`` for the first given name that is not known, unless the function takes any."""
    for name in () if is_open else given:
        if name not in known:
            raise Unfit(name, partial(sentences.unknown, name, list(known)))


def _fit(schema: Any, value: Any, place: _Place) -> Any:
    place.effort.look_at_the_clock()
    if not isinstance(schema, Mapping) or not schema:
        return value
    if schema.get("$defs"):
        place = place._replace(defs={**place.defs, **schema["$defs"]})
    schema = sentences.resolved(schema, place.defs)
    for word, read in _COMPOSED:
        if word in schema:
            return read(schema, value, place)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        return _any_of({**schema, "anyOf": [{**schema, "type": one} for one in kind]}, value, place)
    if kind in _STRUCTURES:
        return _STRUCTURES[kind](schema, value, place)
    return _simple(schema, kind, value, place)


# ------------------------------------------------------------------------------------------------------ single values


def _finite(value: Any) -> float:
    found = scalars.read_number(value)
    if not math.isfinite(found):
        raise Wrong
    return found


# How a kind is read, and whether what was read, rather than what was given, is the JSON value.
_KINDS: Dict[Tuple[Any, Any], Tuple[Callable[[Any], Any], bool]] = {
    ("string", None): (scalars.read_text, False),
    ("string", "date"): (scalars.read_day, False),
    ("string", "date-time"): (scalars.read_moment, False),
    ("string", "time"): (scalars.read_time_of_day, False),
    ("string", "duration"): (scalars.read_period, False),
    ("string", "uuid"): (scalars.read_uuid, False),
    ("integer", None): (scalars.read_whole, True),
    ("number", None): (_finite, True),
    ("number", "duration-seconds"): (scalars.read_duration, False),
    ("boolean", None): (scalars.read_flag, True),
    ("null", None): (scalars.read_nothing, False),
    ("any", "decimal"): (scalars.read_decimal, False),
}


def _reader(kind: Any, schema: Schema) -> Optional[Tuple[Callable[[Any], Any], bool]]:
    return _KINDS.get((kind, schema.get("format"))) or _KINDS.get((kind, None))


def _simple(schema: Schema, kind: Any, value: Any, place: _Place) -> Any:
    reader = _reader(kind, schema)
    if reader is None:
        return value
    read, as_read = reader
    try:
        found = read(value)
    except Wrong:
        raise place.refuse(schema, value) from None
    if not _in_limits(schema, found, read, place.effort):
        raise place.refuse(schema, value)
    if as_read and not (kind == "number" and isinstance(value, int) and not isinstance(value, bool)):
        return found
    return value


# Limits are compared as what was read: of a date they are dates, which JSON Schema has no keyword for.
_COMPARED: Tuple[Tuple[Tuple[str, str], Callable[[Any, Any], bool]], ...] = (
    (("minimum", "formatMinimum"), operator.ge),
    (("maximum", "formatMaximum"), operator.le),
    (("exclusiveMinimum", "formatExclusiveMinimum"), operator.gt),
    (("exclusiveMaximum", "formatExclusiveMaximum"), operator.lt),
)


def _in_limits(schema: Schema, found: Any, read: Callable[[Any], Any], effort: Effort) -> bool:
    for names, holds in _COMPARED:
        for limit in (schema.get(name) for name in names):
            if limit is not None and not _holds(holds, found, read, limit):
                return False
    if schema.get("multipleOf") and not _is_multiple(found, schema["multipleOf"]):
        return False
    if not isinstance(found, str):
        return True
    pattern = schema.get("pattern")
    return _has_size(schema, "minLength", "maxLength", found) and (
        pattern is None or effort.matches(pattern, found) is not False
    )


def _holds(holds: Callable[[Any, Any], bool], found: Any, read: Callable[[Any], Any], limit: Any) -> bool:
    try:
        return holds(found, read(limit))
    except (ValueError, TypeError):  # times with and without a zone cannot be compared: neither is out of the limits
        return True
    except ArithmeticError:  # Decimal("NaN") is within no limits
        return False


def _is_multiple(found: Any, step: Any) -> bool:
    if isinstance(found, (int, float)) and isinstance(step, int):
        return found % step == 0
    try:
        ratio = float(found) / float(step)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return True
    return abs(ratio - round(ratio)) <= 1e-9 * max(1.0, abs(ratio))


def _has_size(schema: Schema, low: str, high: str, value: Any) -> bool:
    least, most = schema.get(low), schema.get(high)
    return (least is None or len(value) >= least) and (most is None or len(value) <= most)


# ---------------------------------------------------------------------------------------------------- choices, unions


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; ``true`` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other))
    return bool(one == other)


def _enum(schema: Schema, value: Any, place: _Place) -> Any:
    for choice in schema["enum"]:
        if same(choice, value):
            return choice
    names = schema.get("x-enum-varnames") or ()
    if isinstance(value, str) and value in names:
        return schema["enum"][list(names).index(value)]
    raise place.refuse(schema, value)


def _const(schema: Schema, value: Any, place: _Place) -> Any:
    if same(schema["const"], value):
        return value
    raise place.refuse(schema, value)


def _any_of(schema: Schema, value: Any, place: _Place) -> Any:
    if schema.get("format") == "decimal":
        return _simple(schema, "any", value, place)
    options = schema.get("anyOf") or schema.get("oneOf") or ()
    fitting, refusals = [], []
    for option in options:
        try:
            found = _fit(option, value, place)
        except Unfit as unfit:
            refusals.append((option, unfit))
            continue
        if same(found, value):
            return value  # nothing had to be converted
        fitting.append(found)
    if fitting:
        return fitting[0]
    real = [unfit for option, unfit in refusals if sentences.resolved(option, place.defs).get("type") != "null"]
    if len(real) == 1 and _is_inner(real[0], place):
        raise real[0]
    raise place.refuse(schema, value)


def _is_inner(unfit: Unfit, place: _Place) -> bool:
    """Whether the refusal is about a part of the value, not the value itself."""
    return not (isinstance(unfit, _Misfit) and unfit.name == place.path)


def _all_of(schema: Schema, value: Any, place: _Place) -> Any:
    for part in schema["allOf"]:
        value = _fit(part, value, place)
    return value


_COMPOSED: Tuple[Tuple[str, Callable[[Schema, Any, _Place], Any]], ...] = (
    ("enum", _enum),
    ("const", _const),
    ("anyOf", _any_of),
    ("oneOf", _any_of),
    ("allOf", _all_of),
)

# ------------------------------------------------------------------------------------------------- lists and objects


def _array(schema: Schema, value: Any, place: _Place) -> Any:
    if not isinstance(value, (list, tuple)) or not _has_size(schema, "minItems", "maxItems", value):
        raise place.refuse(schema, value)
    first, rest = schema.get("prefixItems") or [], schema.get("items")
    found = [
        _fit(first[index] if index < len(first) else rest, item, place.item(index)) for index, item in enumerate(value)
    ]
    return _each_once(schema, found, place) if schema.get("uniqueItems") else found


def _each_once(schema: Schema, items: List[Any], place: _Place) -> List[Any]:
    """A set: what comes twice counts once. What no Python set can hold is refused where the items may be anything."""
    if not schema.get("items") and any(isinstance(item, (list, dict)) for item in items):
        raise place.refuse({**schema, "items": {"type": ["string", "number", "boolean", "null"]}}, items)
    kept: List[Any] = []
    seen = set()
    for item in items:
        key = json.dumps(item, sort_keys=True)
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def _object(schema: Schema, value: Any, place: _Place) -> Any:
    if not isinstance(value, Mapping):
        raise place.refuse(schema, value)
    known, others = schema.get("properties") or {}, schema.get("additionalProperties", True)
    for name in schema.get("required") or ():
        if name not in value:
            path = place.field(name).path
            raise Unfit(path, partial(_missing, path, known.get(name), place.defs, place.where))
    found = {}
    for name, item in value.items():
        if name not in known and others is False:
            raise Unfit(place.path, partial(sentences.unknown_field, place.path, name, list(known), place.where))
        key = _key(schema, name, place)
        found[key] = _fit(known.get(name, others if isinstance(others, Mapping) else {}), item, place.field(str(name)))
    if not _has_size(schema, "minProperties", "maxProperties", value):
        raise place.refuse(schema, value)
    return found


def _key(schema: Schema, name: Any, place: _Place) -> Any:
    if schema.get("x-keys"):
        of_key = place._replace(path="%s (its keys)" % place.path)
        try:
            _fit(schema["x-keys"], name, of_key)
        except Unfit as unfit:
            if key_of(name) == name:
                raise unfit
            _fit(schema["x-keys"], key_of(name), of_key)
    return name


def key_of(name: Any) -> Any:
    """The value that an object's key stands for where it is a number, true or false; else the text itself."""
    try:
        found = json.loads(name) if isinstance(name, str) and len(name) <= 1000 else name
    except (ValueError, RecursionError):
        return name
    return found if isinstance(found, (bool, int, float)) else name


_STRUCTURES: Dict[Any, Callable[[Schema, Any, _Place], Any]] = {"array": _array, "object": _object}


def beyond(schema: Any) -> bool:
    """Whether the schema says something that is not read here, as a model's author may."""
    if not isinstance(schema, Mapping):
        return False
    if not KNOWN_KEYWORDS.issuperset(schema):
        return True
    inner = [*(schema.get("properties") or {}).values(), *(schema.get("$defs") or {}).values()]
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner += schema.get(word) or []
    return any(beyond(part) for part in [*inner, schema.get("items"), schema.get("additionalProperties")])
