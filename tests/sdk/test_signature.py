"""Parameters: described as JSON Schema, bound back from JSON, and refused with what would be right."""

from __future__ import annotations

import enum
import json
import math
import sys
import typing
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, NewType, Optional, Sequence, Set, Tuple, Union
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import BadParameter, Field
from perfect_client.schema.encoding import to_json
from perfect_client.schema.hints import hint_of
from perfect_client.schema.signature import bind, parameters_schema, split
from perfect_client.schema.validation import Unfit, fit

if sys.version_info >= (3, 9):
    from typing import Annotated, Literal, TypedDict
else:
    from typing import Literal, TypedDict


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 10


@dataclass
class Point:
    x: int
    y: int = 0
    tags: List[str] = field(default_factory=list)
    derived: int = field(default=0, init=False)


@dataclass
class Line:
    start: Point
    end: Optional[Point] = None


@dataclass
class Tree:
    name: str
    children: List[Tree] = field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: int


class Partial(TypedDict, total=False):
    title: str


class Pair(NamedTuple):
    left: int
    right: str = "r"


UserId = NewType("UserId", int)
Number = typing.TypeVar("Number", bound=float)


def schema_of(hint: Any) -> Any:
    return hint_of(hint).schema


def read(hint: Any, value: Any) -> Any:
    """The value through ``bind``, as a run reads it."""

    def fn(value: Any) -> None: ...

    fn.__annotations__ = {"value": hint}
    return bind(fn, {"value": value}, {})["value"]


def refusal(hint: Any, value: Any) -> str:
    with pytest.raises(BadParameter) as caught:
        read(hint, value)
    assert caught.value.name == "value"
    assert str(caught.value) == caught.value.sentence
    return caught.value.sentence


# ------------------------------------------------------------------------------------------------------- the schema


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (date, {"type": "string", "format": "date"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (time, {"type": "string", "format": "time"}),
        (timedelta, {"type": "number", "format": "duration-seconds"}),
        (Decimal, {"anyOf": [{"type": "number"}, {"type": "string"}], "format": "decimal"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Path, {"type": "string", "format": "path"}),
        (PurePosixPath, {"type": "string", "format": "path"}),
        (bytes, {"type": "string"}),
        (Color, {"enum": ["red", "blue"], "type": "string", "x-enum-varnames": ["RED", "BLUE"]}),
        (Size, {"enum": [1, 10], "x-enum-varnames": ["SMALL", "LARGE"]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (List[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array", "items": {}}),
        (List, {"type": "array", "items": {}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (FrozenSet[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (Tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple, {"type": "array", "items": {}}),
        (Tuple, {"type": "array", "items": {}}),
        (
            Tuple[int, str],
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, Any], {"type": "object"}),
        (dict, {"type": "object"}),
        (Dict, {"type": "object"}),
        (UserId, {"type": "integer"}),
        (Number, {"type": "number"}),
        (Any, {}),
        (object, {}),
        (Union[int, Any], {}),
    ],
)
def test_a_hint_is_described(hint: Any, schema: Any) -> None:
    assert schema_of(hint) == schema


def test_a_dataclass_is_an_object_of_its_fields() -> None:
    assert schema_of(Point) == {
        "type": "object",
        "title": "Point",
        "required": ["x"],
        "additionalProperties": False,
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "integer", "default": 0},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
    }


def test_a_typed_dict_is_an_object_of_its_keys() -> None:
    assert schema_of(Movie)["required"] == ["title", "year"]
    assert schema_of(Partial)["required"] == []


def test_a_class_that_contains_itself_comes_to_an_end() -> None:
    assert schema_of(Tree)["properties"]["children"] == {"type": "array", "items": {}, "default": []}


def test_the_schema_of_a_function_is_in_the_order_of_its_signature() -> None:
    def fn(z: int, a: str = "x", *, when: Optional[date] = None, size: Size = Size.LARGE) -> None: ...

    assert parameters_schema(fn) == {
        "type": "object",
        "properties": {
            "z": {"title": "z", "type": "integer"},
            "a": {"title": "a", "type": "string", "default": "x"},
            "when": {
                "title": "when",
                "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
                "default": None,
            },
            "size": {"title": "size", "enum": [1, 10], "x-enum-varnames": ["SMALL", "LARGE"], "default": 10},
        },
        "required": ["z"],
        "additionalProperties": False,
    }
    assert list(parameters_schema(fn)["properties"]) == ["z", "a", "when", "size"]


def test_other_arguments_are_allowed_where_the_function_takes_them() -> None:
    def fn(a: int, *rest: int, **others: int) -> None: ...

    schema = parameters_schema(fn)

    assert schema["additionalProperties"] is True
    assert list(schema["properties"]) == ["a"]


def test_a_parameter_without_annotation_takes_anything() -> None:
    properties = parameters_schema(lambda a, b=1: None)["properties"]

    assert properties == {"a": {"title": "a"}, "b": {"title": "b", "default": 1}}


def test_none_as_default_allows_null_whatever_the_hint_says() -> None:
    def fn(a: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    (described,) = parameters_schema(fn)["properties"].values()
    assert described["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert bind(fn, {"a": None}, {}) == {"a": None}
    assert bind(fn, {"a": 5}, {}) == {"a": 5}


@pytest.mark.parametrize(
    ("default", "told"),
    [
        (date(2024, 1, 31), "2024-01-31"),
        (timedelta(minutes=1), 60.0),
        (Color.RED, "red"),
        (Decimal("1.50"), "1.50"),
        ({3, 1, 2}, [1, 2, 3]),
        ((1, 2), [1, 2]),
        (Path("a/b"), str(Path("a/b"))),
        (Point(1), {"x": 1, "y": 0, "tags": []}),
        ({1: date(2024, 1, 1)}, {"1": "2024-01-01"}),
    ],
)
def test_a_default_is_told_as_json(default: Any, told: Any) -> None:
    def fn(a: Any = default) -> None: ...

    assert parameters_schema(fn)["properties"]["a"]["default"] == told


@pytest.mark.parametrize("default", [object(), math.nan, math.inf, [object()], b"\xff", "x" * 20_000, len, int])
def test_a_default_that_json_cannot_say_is_left_out(default: Any) -> None:
    def fn(a: Any = default) -> None: ...

    schema = parameters_schema(fn)

    assert "default" not in schema["properties"]["a"]
    assert schema["required"] == []
    json.dumps(schema, allow_nan=False)


def test_a_default_that_contains_itself_is_left_out() -> None:
    endless: List[Any] = []
    endless.append(endless)

    def fn(a: Any = endless) -> None: ...

    assert "default" not in parameters_schema(fn)["properties"]["a"]


def test_hints_written_as_text_are_resolved() -> None:
    def fn(a, b=None, c=()) -> None: ...  # type: ignore[no-untyped-def]

    fn.__annotations__ = {"a": "int", "b": "Optional[Point]", "c": "list"}
    properties = parameters_schema(fn)["properties"]
    assert properties["a"]["type"] == "integer"
    assert properties["b"]["anyOf"][0]["title"] == "Point"
    assert properties["c"]["type"] == "array"


def test_todays_syntax_is_understood_by_every_python() -> None:
    def fn(a: int | None, b: list[int], c: dict[str, list[date]], d: tuple[int, ...] | str = "x") -> None: ...

    properties = parameters_schema(fn)["properties"]

    assert properties["a"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert properties["b"] == {"title": "b", "type": "array", "items": {"type": "integer"}}
    assert properties["c"]["additionalProperties"]["items"] == {"type": "string", "format": "date"}
    assert properties["d"]["anyOf"][1] == {"type": "string"}


def test_a_hint_that_cannot_be_resolved_does_not_spoil_the_others() -> None:
    def fn(a: Missing, b: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    properties = parameters_schema(fn)["properties"]

    assert properties == {"a": {"title": "a"}, "b": {"title": "b", "type": "integer"}}
    assert bind(fn, {"a": [1], "b": 2}, {}) == {"a": [1], "b": 2}


@pytest.mark.skipif(sys.version_info < (3, 9), reason="Annotated came with Python 3.9")
def test_annotated_is_what_it_annotates() -> None:
    assert schema_of(Annotated[int, "some"]) == {"type": "integer"}  # type: ignore[arg-type]


def test_a_google_docstring_describes_the_parameters() -> None:
    def fn(first: int, second: str, third: str) -> None:
        """Does things.

        Args:
            first: how many
                of them
            second (str): a name: with a colon

        Returns:
            third: nothing
        """

    properties = parameters_schema(fn)["properties"]

    assert properties["first"]["description"] == "how many of them"
    assert properties["second"]["description"] == "a name: with a colon"
    assert "description" not in properties["third"]


def test_a_sphinx_docstring_describes_the_parameters() -> None:
    def fn(first: int, second: str) -> None:
        """Does things.

        :param first: how many
            of them
        :param str second: a name
        :returns: nothing
        """

    properties = parameters_schema(fn)["properties"]

    assert (properties["first"]["description"], properties["second"]["description"]) == ("how many of them", "a name")


def test_a_callable_without_signature_takes_anything() -> None:
    assert parameters_schema(dict.fromkeys)["type"] == "object"
    assert bind(min, {}, {}) == {}


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "1", 1),
        (int, " -7 ", -7),
        (int, 2.0, 2),
        (float, 1, 1.0),
        (float, "2.5", 2.5),
        (float, math.inf, math.inf),
        (bool, "yes", True),
        (bool, 0, False),
        (bool, "Off", False),
        (date, "2024-01-01", date(2024, 1, 1)),
        (date, "2024-01-01T00:00:00", date(2024, 1, 1)),
        (datetime, "2024-01-01", datetime(2024, 1, 1)),
        (datetime, "2024-01-01T10:00:00Z", datetime(2024, 1, 1, 10, tzinfo=timezone.utc)),
        (datetime, "2024-01-01T10:00:00.5+02:00", datetime(2024, 1, 1, 10, 0, 0, 500000, timezone(timedelta(hours=2)))),
        (datetime, 0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        (time, "09:30", time(9, 30)),
        (timedelta, 90, timedelta(seconds=90)),
        (timedelta, "1.5", timedelta(seconds=1.5)),
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal, 0.1, Decimal("0.1")),
        (bytes, "é", "é".encode()),
        (UUID, "12345678123456781234567812345678", UUID(int=0x12345678123456781234567812345678)),
        (Path, "a/b", Path("a/b")),
        (PurePosixPath, "a/b", PurePosixPath("a/b")),
        (Color, "red", Color.RED),
        (Color, "BLUE", Color.BLUE),
        (Size, 10, Size.LARGE),
        (Literal[1, "a"], "a", "a"),
        (Optional[int], None, None),
        (Optional[int], "3", 3),
        (Union[int, str], "3", "3"),
        (Union[int, str], 3, 3),
        (Union[date, int], "2024-01-01", date(2024, 1, 1)),
        (Union[bool, int], 2, 2),
        (Union[int, float], 1.5, 1.5),
        (List[int], ["1", 2], [1, 2]),
        (Set[int], [1, "1"], {1}),
        (Tuple[int, str], [1, "a"], (1, "a")),
        (Tuple[int, ...], [], ()),
        (FrozenSet[str], ["a"], frozenset("a")),
        (Sequence[date], ["2024-01-01"], [date(2024, 1, 1)]),
        (Dict[int, date], {"1": "2024-01-01"}, {1: date(2024, 1, 1)}),
        (list, [1, "a"], [1, "a"]),
        (Point, {"x": "1"}, Point(1)),
        (Line, {"start": {"x": 1}, "end": {"x": 2, "y": 3}}, Line(Point(1), Point(2, 3))),
        (Movie, {"title": "t", "year": "1999"}, {"title": "t", "year": 1999}),
        (Pair, [1, "x"], Pair(1, "x")),
        (Pair, {"left": 2}, Pair(2, "r")),
        (UserId, "5", 5),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_json_value_becomes_what_the_hint_says(hint: Any, value: Any, expected: Any) -> None:
    got = read(hint, value)

    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "right"),
    [
        (str, 5, "a string"),
        (str, None, "a string"),
        (int, "many", "a whole number"),
        (int, 1.5, "a whole number"),
        (int, True, "a whole number"),
        (int, math.inf, "a whole number"),
        (int, "1" * 5000, "a whole number"),
        (float, "x", "a number"),
        (float, True, "a number"),
        (bool, "maybe", "true or false"),
        (bool, 2, "true or false"),
        (date, "2024-02-30", 'a date such as "2024-01-31"'),
        (date, "2024-01-01T10:00", "a date such as"),
        (datetime, "soon", "a time such as"),
        (datetime, 1e300, "a time such as"),
        (UUID, "x", "a UUID"),
        (timedelta, 1e300, "a number of seconds"),
        (timedelta, math.nan, "a number of seconds"),
        (Decimal, "x", "a decimal number"),
        (Color, "green", "one of 'red', 'blue'"),
        (Literal["a"], "b", "one of 'a'"),
        (Optional[int], "x", "a whole number or null"),
        (List[int], 5, "a list of which each is a whole number"),
        (List[int], "12", "a list"),
        (Path, 5, "a path"),
        (float, {"$float": "inf"}, "a number"),
        (Tuple[int, str], [1], "a list of 2 items"),
        (Dict[str, int], [], "an object"),
        (Point, 5, "an object with x, y, tags"),
        (datetime, "2024-W01-1", "a time such as"),
        (datetime, "20240101", "a time such as"),
        (float, "1_000", "a number"),
        (float, "nan", "a number"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(hint: Any, value: Any, right: str) -> None:
    assert refusal(hint, value).startswith("Parameter 'value' must be %s" % right)


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (List[int], [1, "x"], "Parameter 'value[1]' must be a whole number, not 'x'."),
        (Dict[str, int], {"a": "x"}, "Parameter 'value.a' must be a whole number, not 'x'."),
        (Dict[int, int], {"a": 1}, "Parameter 'value (its keys)' must be a whole number, not 'a'."),
        (Point, {"y": 1}, "Parameter 'value.x' is missing: it must be a whole number."),
        (Point, {"x": 1, "yy": 1}, "Parameter 'value' has no field 'yy'. Did you mean 'y'?"),
        (Point, {"x": 1, "zzz": 1}, "Parameter 'value' has no field 'zzz'. It takes x, y, tags."),
        (Line, {"start": {"x": "?"}}, "Parameter 'value.start.x' must be a whole number, not '?'."),
        (Line, {"start": {"x": 1}, "end": {}}, "Parameter 'value.end.x' is missing: it must be a whole number."),
        (Movie, {"title": "t"}, "Parameter 'value.year' is missing: it must be a whole number."),
        (Optional[List[int]], ["x"], "Parameter 'value[0]' must be a whole number, not 'x'."),
        (
            Union[int, List[int]],
            "x",
            "Parameter 'value' must be a whole number or a list of which each is a whole number, not 'x'.",
        ),
        (
            Set[Any],
            [[1]],
            "Parameter 'value' must be a list of which each is a string or a number or true or false or null, "
            "not [[1]].",
        ),
    ],
)
def test_what_is_wrong_inside_a_value_is_named_by_its_place(hint: Any, value: Any, sentence: str) -> None:
    assert refusal(hint, value) == sentence


def test_a_refusal_shows_the_value_but_not_all_of_it() -> None:
    assert len(refusal(int, "x" * 100_000)) < 200


def test_all_parameters_are_bound_in_order() -> None:
    def fn(a: int, b: str = "b", *, c: float = 1.5) -> None: ...

    assert list(bind(fn, {"c": 2, "a": "1"}, {}).items()) == [("a", 1), ("b", "b"), ("c", 2.0)]


def test_explicit_wins_over_the_configuration_and_that_over_the_default() -> None:
    def fn(a: int = 0, b: int = 0, c: int = 0) -> None: ...

    assert bind(fn, {"a": 1}, {"a": 2, "b": "2", "other": 5}) == {"a": 1, "b": 2, "c": 0}


def test_the_configuration_fills_what_is_required() -> None:
    def fn(a: int) -> None: ...

    assert bind(fn, {}, {"a": 1}) == {"a": 1}
    with pytest.raises(BadParameter, match="Parameter 'a' in the configuration must be a whole number, not 'x'"):
        bind(fn, {}, {"a": "x"})


def test_an_unknown_parameter_is_refused_with_the_nearest() -> None:
    def fn(region: str = "", limit: int = 0) -> None: ...

    with pytest.raises(BadParameter, match="There is no parameter 'regin'. Did you mean 'region'?"):
        bind(fn, {"regin": "x"}, {})
    with pytest.raises(BadParameter, match="There is no parameter 'zzz'. The flow takes region, limit."):
        bind(fn, {"zzz": "x"}, {})
    with pytest.raises(BadParameter, match="The flow takes none"):
        bind(lambda: None, {"x": 1}, {})


def test_other_arguments_reach_a_function_that_takes_them() -> None:
    def fn(a: int, **others: Any) -> None: ...

    assert bind(fn, {"a": 1, "z": 2}, {"y": 3}) == {"a": 1, "z": 2}


def test_a_default_is_passed_on_as_it_is() -> None:
    marker = object()

    def fn(a: int = marker) -> None: ...  # type: ignore[assignment]

    assert bind(fn, {}, {})["a"] is marker


def test_positional_only_parameters_are_split_off() -> None:
    space: Any = {}
    exec("def fn(a, b=2, /, c=3): pass", space)

    assert split(space["fn"], bind(space["fn"], {"a": 1}, {})) == ([1, 2], {"c": 3})


def test_a_value_of_the_right_type_stays() -> None:
    now = datetime(2024, 1, 1, 10)
    for hint, value in [(datetime, now), (date, now.date()), (Point, Point(1)), (Color, Color.RED), (Path, Path("x"))]:
        assert read(hint, value) == value


def test_a_model_that_validates_is_left_to_itself() -> None:
    class Model:
        @classmethod
        def model_validate(cls, value: Any) -> Any:
            if value != {"ok": 1}:
                raise ValueError("1 validation error")
            return cls()

    assert isinstance(read(Model, {"ok": 1}), Model)
    assert refusal(Model, {}) == "Parameter 'value' cannot be used: ValueError: 1 validation error."
    assert refusal(Model, 5) == "Parameter 'value' cannot be used: ValueError: 1 validation error."


# ------------------------------------------------------------------------------------------------------- round trips

ROUND_TRIPS = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text()),
    (bool, st.booleans()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.none() | st.just(timezone.utc))),
    (time, st.times()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Color, st.sampled_from(Color)),
    (Size, st.sampled_from(Size)),
    (timedelta, st.timedeltas(timedelta(-1000), timedelta(1000))),
    (Optional[date], st.none() | st.dates()),
    (List[date], st.lists(st.dates())),
    (Set[int], st.sets(st.integers())),
    (Dict[str, date], st.dictionaries(st.text(), st.dates())),
    (Tuple[int, str], st.tuples(st.integers(), st.text())),
    (Point, st.builds(Point, st.integers(), st.integers(), st.lists(st.text()))),
    (Dict[int, List[date]], st.dictionaries(st.integers(), st.lists(st.dates()))),
]


@pytest.mark.parametrize(("hint", "values"), ROUND_TRIPS, ids=lambda item: str(item)[:30])
def test_a_default_that_is_told_reads_back_as_itself(hint: Any, values: Any) -> None:
    @settings(deadline=None)
    @given(values)
    def check(value: Any) -> None:
        wire = json.loads(json.dumps(to_json(value), allow_nan=False))
        assert read(hint, wire) == value

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


HINTS = [hint for hint, _ in ROUND_TRIPS] + [Line, Tree, Pair, Movie, bytes, Path, Union[int, date]]


@settings(deadline=None)
@given(JSON, st.sampled_from(HINTS))
def test_any_json_value_is_read_or_refused_with_a_sentence(value: Any, hint: Any) -> None:
    try:
        read(hint, value)
    except BadParameter as refused:
        assert refused.sentence.startswith(("Parameter 'value", 'Parameter "value'))  # as repr quotes it
        assert refused.name == "value"


def test_an_enum_of_what_json_cannot_say_is_told_by_its_names() -> None:
    class Strange(enum.Enum):
        ONE = object()
        TWO = (1, 2)

    assert schema_of(Strange) == {"enum": ["ONE", [1, 2]], "x-enum-varnames": ["ONE", "TWO"]}
    assert read(Strange, "ONE") is Strange.ONE
    assert read(Strange, [1, 2]) is Strange.TWO


def test_a_literal_of_an_enum_is_told_by_its_value() -> None:
    assert schema_of(Literal[Color.RED, 1]) == {"enum": ["red", 1]}
    assert read(Literal[Color.RED, 1], "red") is Color.RED


def test_a_strange_hint_is_any_value() -> None:
    class Odd:
        @property
        def __supertype__(self) -> Any:
            raise RuntimeError

    for odd in (Odd(), 5, "1 +", [int], {}, Ellipsis):

        def fn(a: Any) -> None: ...

        fn.__annotations__ = {"a": odd}
        assert parameters_schema(fn)["properties"] == {"a": {"title": "a"}}


def test_a_numpy_docstring_describes_the_parameters() -> None:
    def fn(first: int, second: str, third: str, fourth: str) -> None:
        """Does things.

        Parameters
        ----------
        first : int
            how many
            of them
        second, third : str, optional
            names

        Returns
        -------
        fourth : str
            nothing
        """

    properties = parameters_schema(fn)["properties"]

    assert [properties[name].get("description") for name in ("first", "second", "third", "fourth")] == [
        "how many of them",
        "names",
        "names",
        None,
    ]


@pytest.mark.skipif(sys.version_info < (3, 9), reason="Annotated came with Python 3.9")
@pytest.mark.parametrize("text", ["nan", "-NaN", "sNaN"])
def test_a_decimal_that_is_no_number_is_within_no_limits(text):
    with pytest.raises(Unfit, match="'x'"):
        fit("x", hint_of(Annotated[Decimal, Field(lt=5)]).schema, text)
