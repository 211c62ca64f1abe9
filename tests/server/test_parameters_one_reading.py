"""The door and the run's process accept the same values, and refuse the others in the same sentence."""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import BadParameter, Field, Secret
from perfect_client.schema.signature import bind, parameters_schema
from pydantic import BaseModel, SecretStr, field_validator
from pydantic import Field as ModelField

from flows.models import Flow
from flows.parameters import Refused, clean


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass
class Point:
    x: int
    y: Annotated[float, Field(ge=0, lt=10)] = 1.5
    seen: datetime = datetime(2024, 1, 1)
    tags: set[str] = field(default_factory=set)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Order(BaseModel):
    amount: int = ModelField(ge=1, description="how many")
    colour: Color = Color.RED
    lines: list[str] = []
    inner: "Order | None" = None  # noqa: UP037  a model that contains itself


HINTS: list[Any] = [
    str,
    int,
    float,
    bool,
    None,
    date,
    datetime,
    time,
    timedelta,
    Decimal,
    UUID,
    Path,
    Color,
    Literal[1, "a", True],
    int | None,
    int | str,
    date | int,
    list[int],
    dict[str, int],
    dict[int, date],
    dict[Color, int],
    tuple[int, str],
    tuple[int, ...],
    set[int],
    frozenset[str],
    set[Any],
    Point,
    Movie,
    Pair,
    list[Point],
    Point | None,
    Any,
    Annotated[int, Field(ge=1, le=5)],
    Annotated[float, Field(gt=0, multiple_of=0.5)],
    Annotated[str, Field(min_length=2, max_length=4, pattern="^a")],
    Annotated[list[int], Field(max_length=2)],
    Annotated[date, Field(ge=date(2024, 1, 1))],
    Annotated[int | None, Field(ge=3)],
    Annotated[Decimal, Field(lt=5)],
    Secret[str],
    Secret[int],
    dict[str, Secret[str]],
    Order,
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 3000)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "1",
            " 7 ",
            "2.5",
            "yes",
            "off",
            "a",
            "ab",
            "red",
            "RED",
            "BLUE",
            "2024-01-31",
            "09:30",
            "x" * 9,
            "2024-01-31T10:00:00Z",
            "2024-W01-1",
            "20240131",
            "1e3",
            "nan",
            "1_000",
            "",
            "7" * 32,
        ]
    )
)
NAMES = st.sampled_from(
    ["x", "y", "seen", "tags", "title", "year", "left", "right", "amount", "inner", "1", "red", "2"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)


def function_of(hint: Any) -> Any:
    def fn(value: Any) -> None: ...

    fn.__annotations__ = {"value": hint}
    return fn


def door(fn: Any, value: Any) -> tuple[Any, str]:
    flow = Flow(name="F", parameters=json.loads(json.dumps(parameters_schema(fn))))
    try:
        return clean(flow, {"value": value}, "")["value"], ""
    except Refused as refused:
        return None, refused.sentence


def process(fn: Any, value: Any) -> tuple[Any, str]:
    try:
        return bind(fn, {"value": value}, {})["value"], ""
    except BadParameter as refused:
        return None, refused.sentence


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_the_door_and_the_process_agree(hint: Any) -> None:
    fn = function_of(hint)

    @settings(deadline=None, max_examples=60)
    @given(JSON)
    def check(value: Any) -> None:
        settled, at_the_door = door(fn, value)
        read, in_the_process = process(fn, value)
        assert at_the_door == in_the_process
        if not at_the_door:
            assert process(fn, settled)[0] == read  # what the door keeps reads as what was given

    check()


@pytest.mark.parametrize(
    ("hint", "value", "kept"),
    [
        (int, "1", 1),
        (float, "2.5", 2.5),
        (bool, "yes", True),
        (Color, "RED", "red"),
        (list[int], ["1", 2.0], [1, 2]),
        (set[int], [1, "1"], [1]),
        (int | str, "1", "1"),
        (date, "2024-01-31", "2024-01-31"),
    ],
)
def test_the_door_keeps_what_a_text_stands_for(hint: Any, value: Any, kept: Any) -> None:
    assert door(function_of(hint), value) == (kept, "")


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (Annotated[int, Field(ge=1, le=5)], 9, "must be a whole number of at least 1 and at most 5, not 9."),
        (Annotated[str, Field(min_length=2, max_length=4)], "x", "must be a string of 2 to 4 characters, not 'x'."),
        (
            Annotated[list[int], Field(max_length=1)],
            [1, 2],
            "must be a list of at most 1 item of which each is a whole number, not [1, 2].",
        ),
        (Annotated[str, Field(pattern="^a+$")], "b", "must be a string that matches '^a+$', not 'b'."),
        (Secret[str], 5, "must be a string; what was given is not shown."),
    ],
)
def test_both_say_the_same(hint: Any, value: Any, sentence: str) -> None:
    said = door(function_of(hint), value)[1]

    assert said == process(function_of(hint), value)[1] == f"Parameter 'value' {sentence}"


@pytest.mark.parametrize(
    ("value", "path", "given"),
    [({"amount": 0}, "amount", "0"), ({"amount": 1, "inner": {"amount": "x"}}, "inner.amount", "'x'")],
)
def test_both_say_where_in_a_model_it_is(value: Any, path: str, given: str) -> None:
    said = door(function_of(Order), value)[1]

    assert said == process(function_of(Order), value)[1]
    assert said == f"Parameter 'value.{path}' must be a whole number of at least 1, not {given}."


def test_what_only_a_class_knows_is_refused_by_the_process_alone() -> None:
    class Even(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("must be even")
            return n

    fn = function_of(Even)

    assert door(fn, {"n": 3}) == ({"n": 3}, "")
    assert process(fn, {"n": 3})[1] == "Parameter 'value' cannot be used: n: Value error, must be even."
    assert process(fn, {"n": "4"})[0] == Even(n=4)


def test_a_secret_of_pydantic_is_a_secret() -> None:
    schema = parameters_schema(function_of(SecretStr))["properties"]["value"]

    assert (schema["writeOnly"], schema["format"]) == (True, "password")
    assert process(function_of(SecretStr), "abc")[0] == SecretStr("abc")


def test_fields_of_pydantic_state_limits_and_defaults() -> None:
    def fn(n: int = ModelField(5, ge=1, description="how many"), m: int = ModelField(gt=2)) -> None: ...

    schema = parameters_schema(fn)
    assert schema["properties"]["n"] == {
        "title": "n",
        "type": "integer",
        "minimum": 1,
        "description": "how many",
        "default": 5,
    }
    assert schema["required"] == ["m"]
    assert bind(fn, {"m": "3"}, {}) == {"n": 5, "m": 3}


def test_keywords_that_a_models_author_wrote_by_hand_count_at_the_door() -> None:
    class Tagged(BaseModel):
        model_config = {"json_schema_extra": {"dependentRequired": {"a": ["b"]}}}
        a: int | None = None
        b: int | None = None

    assert "dependency" in door(function_of(Tagged), {"a": 1})[1]
    assert door(function_of(Tagged), {"a": 1, "b": 2})[1] == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, [math.nan], {"a": -math.inf}])
def test_what_is_no_finite_number_stays_outside(value: Any) -> None:
    assert "a number must be finite" in door(function_of(Any), value)[1]
    assert "must be a number" in door(function_of(float), value)[1]
