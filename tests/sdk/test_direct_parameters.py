"""Parameters of direct calls: read and checked by the hints as at the door; what is right already is not touched."""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import BadParameter, Field, Secret, allow_failure, flow, quote, task, unmapped
from perfect_client.core.states import Completed
from perfect_client.exceptions import ParameterTypeError, PrefectException

from tests.sdk.story import Story, python

Execute = Callable[..., Story]


DAY = date(2024, 1, 31)


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Frame:
    """Stands for a DataFrame: it has no JSON form, and refuses to be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("The truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


def hinted(hint: Any, **options: Any) -> Any:
    def takes(value: Any) -> Any:
        return [value]

    takes.__annotations__ = {"value": hint}
    return flow(**options)(takes)


def arrives(hint: Any, value: Any) -> Any:
    return hinted(hint)(value)[0]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "1", 1),
        (float, "1.5", 1.5),
        (float, 2, 2.0),
        (bool, "yes", True),
        (date, "2024-01-31", DAY),
        (Color, "red", Color.RED),
        (List[int], ["1", 2], [1, 2]),
        (Point, {"x": "3"}, Point(3)),
        (Optional[int], "7", 7),
        (Dict[str, int], {"a": "1"}, {"a": 1}),
        (Path, "/tmp", Path("/tmp")),
        (Secret, "hush-hush", Secret("hush-hush")),
        (Set[int], ["1"], {1}),
        (Tuple[int, str], ["1", "a"], (1, "a")),
    ],
)
def test_a_value_becomes_what_its_hint_says(hint: Any, value: Any, expected: Any) -> None:
    found = arrives(hint, value)

    assert (found, type(found)) == (expected, type(expected))


ITERATOR = iter([1, 2])
RIGHT: List[Tuple[Any, Any]] = [
    (int, 1),
    (int, True),
    (float, 1.5),
    (float, float("nan")),
    (float, Decimal("1.5")),
    (float, Fraction(1, 2)),
    (str, "x"),
    (date, date(2024, 1, 1)),
    (Color, Color.RED),
    (Point, Point("not checked")),  # type: ignore[arg-type]
    (Frame, Frame()),
    (Any, Frame()),
    (List[Frame], [Frame()]),
    (Dict[str, Frame], {"a": Frame()}),
    (list, [1, "x"]),
    (List[int], [1, 2]),
    (Dict[str, List[int]], {"a": [1]}),
    (dict, OrderedDict(a=1)),
    (Optional[Frame], None),
    (Dict[str, int], defaultdict(int, a=1)),
    (Sequence[int], (1, 2)),
    (Mapping[str, int], OrderedDict(a=1)),
    (Iterable[int], ITERATOR),
    (List[int], ITERATOR),
    (Set[int], {1, 2}),
    (Tuple[int, ...], (1, 2)),
    (Union[int, str], "1"),
    (Callable[[], int], len),
    (Iterator[int], ITERATOR),
    (object, Frame()),
    (Secret, Secret("hush")),
    ("unknown.Name", 5),
    (List[Point], [Point(1)]),
    (Optional[List[Color]], [Color.RED]),
]


@pytest.mark.parametrize(("hint", "value"), RIGHT, ids=[str(number) for number in range(len(RIGHT))])
def test_what_is_right_already_is_not_touched(hint: Any, value: Any) -> None:
    assert arrives(hint, value) is value


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(PLAIN, st.sampled_from([int, str, List[int], Dict[str, int], Optional[float], Union[int, date], Point, Color]))
def test_any_value_is_taken_changed_or_refused_in_a_sentence_and_what_was_read_stays(value: Any, hint: Any) -> None:
    try:
        found = arrives(hint, value)
    except BadParameter as wrong:
        assert str(wrong).startswith(("Parameter 'value", 'Parameter "value')) and " of the flow 'takes'" in str(wrong)
    else:
        assert arrives(hint, found) is found


def test_a_wrong_value_is_refused_with_the_function_and_what_would_be_right() -> None:
    ran: List[int] = []

    @flow
    def daily(limit: int, names: Sequence[str] = ()) -> None:
        ran.append(limit)

    with pytest.raises(BadParameter) as refused:
        daily("many")  # type: ignore[arg-type]
    sentence = "Parameter 'limit' of the flow 'daily' must be a whole number, not 'many'."
    assert (refused.value.sentence, refused.value.name) == (sentence, "limit")
    assert ran == []
    for kind in (ParameterTypeError, PrefectException, ValueError):
        assert isinstance(refused.value, kind)
    state: Any = daily("many", return_state=True)  # type: ignore[call-arg, arg-type]
    assert state.is_failed() and state.message == sentence


def test_limits_count() -> None:
    @flow
    def limited(count: int) -> int:
        return count

    limited.fn.__annotations__["count"] = "Annotated[int, Field(ge=1)]"
    limited.fn.__globals__.update(Annotated=_annotated(), Field=Field)

    assert limited(1) == 1
    with pytest.raises(BadParameter, match="must be a whole number"):
        limited(0)


def _annotated() -> Any:
    import typing

    if not hasattr(typing, "Annotated"):
        pytest.skip("Python has Annotated since 3.9")
    return typing.Annotated


def test_without_validation_everything_arrives_as_it_is() -> None:
    assert hinted(int, validate_parameters=False)("many") == ["many"]


def test_a_bad_call_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        hinted(int)()


def test_a_sub_flow_an_async_flow_and_a_generator_read_theirs_too(execute: Execute) -> None:
    @flow
    async def later(a: int) -> int:
        return a

    @flow
    def yields(a: int) -> Iterator[int]:
        yield a

    @flow
    def above() -> List[Any]:
        return [hinted(int)("1")[0], list(yields("2"))]  # type: ignore[arg-type]

    assert execute(above).ended.result == "[1, [2]]"
    assert asyncio.run(later("3")) == 3  # type: ignore[arg-type]
    with pytest.raises(BadParameter, match="of the flow 'yields'"):
        list(yields("x"))  # type: ignore[arg-type]


def test_other_parameters_than_those_with_hints_are_left_alone() -> None:
    class Shop:
        @flow
        def sells(self, what: int, *more: int, **others: int) -> Any:
            return what, more, others

    assert Shop().sells("1", "2", x="3") == (1, ("2",), {"x": "3"})  # type: ignore[arg-type]


def test_futures_and_states_are_resolved_first_and_what_is_quoted_is_not_looked_at() -> None:
    @task
    def one() -> str:
        return "1"

    @task
    def fails() -> None:
        raise KeyError("upstream")

    @flow
    def outer() -> Any:
        takes = hinted(int)
        failed = fails.submit()
        failed.wait()
        return [
            takes(one.submit())[0],
            takes(Completed(data="2"))[0],
            takes(quote("3"))[0],
            takes(unmapped("4"))[0],
            type(takes(allow_failure(failed))[0]).__name__,
        ]

    assert outer() == [1, 2, "3", "4", "KeyError"]


def test_numbers_of_other_kinds_stay_what_they_are() -> None:
    numpy = pytest.importorskip("numpy")

    for hint, value in ((int, numpy.int64(5)), (Optional[int], numpy.int64(5)), (float, numpy.float32(0.5))):
        assert arrives(hint, value) is value
    array = numpy.arange(3)
    assert arrives(numpy.ndarray, array) is array
    with pytest.raises(BadParameter, match="must be a whole number"):
        arrives(int, array)


def test_a_moment_is_no_day() -> None:
    with pytest.raises(BadParameter, match="must be a date"):
        arrives(date, datetime(2024, 1, 1, 12))


def test_a_flow_without_hints_loads_nothing_for_it() -> None:
    code = """if True:
        import sys
        from perfect_client import flow
        @flow
        def bare(a, b=1): return a
        assert bare("x") == "x"
        print("perfect_client.schema.signature" in sys.modules, bare.__dict__["_reader"])
    """
    assert python("-c", code).stdout == b"False None\n"
