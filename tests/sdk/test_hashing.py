"""Equal values have one digest, in every process; what cannot have one is named."""

from __future__ import annotations

import datetime
import enum
import threading
import uuid
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.errors import HashError
from perfect_client.storage import hashing

from tests.sdk.story import python

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@dataclass
class Order:
    number: int
    lines: list  # type: ignore[type-arg]


class Colour(enum.Enum):
    RED = 1


def test_the_order_in_which_a_dict_was_filled_does_not_count() -> None:
    assert hashing.digest({"a": 1, "b": [2]}) == hashing.digest({"b": [2], "a": 1})
    assert hashing.digest({1: "x", "1": "y"}) == hashing.digest({"1": "y", 1: "x"})
    assert hashing.digest(defaultdict(int, a=1, b=2)) == hashing.digest(defaultdict(int, b=2, a=1))


@given(st.dictionaries(st.text() | st.integers() | st.binary(), PLAIN))
def test_a_dict_in_reverse_order_is_the_same_dict(value: Any) -> None:
    assert hashing.digest(value) == hashing.digest(dict(reversed(list(value.items()))))


@given(st.sets(st.text() | st.integers() | st.tuples(st.text(), st.integers())))
def test_a_set_filled_in_another_order_is_the_same_set(value: Any) -> None:
    backwards = list(value)[::-1]

    assert hashing.digest(value) == hashing.digest(set(backwards))


@given(PLAIN, PLAIN)
def test_two_values_of_one_digest_look_alike(one: Any, other: Any) -> None:
    same = hashing.digest(one) == hashing.digest(other)

    assert not same or one == other


@given(PLAIN)
def test_what_was_pickled_and_read_again_is_the_same(value: Any) -> None:
    import pickle

    assert hashing.digest(pickle.loads(pickle.dumps(value))) == hashing.digest(value)


def test_it_does_not_matter_whether_equal_texts_are_one_object() -> None:
    one, other = "".join(["ab", "c"]), "".join(["a", "bc"])

    assert one is not other
    assert hashing.digest([one, one]) == hashing.digest([one, other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        ([1], (1,)),
        ({"a"}, ["a"]),
        ({"a"}, frozenset("a")),
        (b"a", "a"),
        ({}, []),
        ({"a": 1}, ("dict", ["a", 1])),
        (Path("a"), "a"),
        (OrderedDict(a=1), {"a": 1}),
        (Order(1, []), Order(2, [])),
        (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)),
        (lambda: 1, lambda: 2),
    ],
)
def test_values_that_differ_have_digests_that_differ(one: Any, other: Any) -> None:
    assert hashing.digest(one) != hashing.digest(other)


def test_a_function_is_its_code_and_what_it_closes_over() -> None:
    def adding(amount: int) -> Any:
        return lambda number: number + amount

    assert hashing.digest(adding(1)) == hashing.digest(adding(1))
    assert hashing.digest(adding(1)) != hashing.digest(adding(2))


VALUES = """
import datetime, decimal, enum, pathlib, uuid
from dataclasses import dataclass, field
from perfect_client.storage import hashing

@dataclass
class Order:
    names: set
    where: pathlib.Path

value = {
    "set": {"alpha", "beta", "gamma", "delta", 5, (1, "x")}, "order": Order({"x", "y", "z", "w"}, pathlib.Path("a/b")),
    "nested": {frozenset("abcdef"): [datetime.timedelta(1)]},
    "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "money": decimal.Decimal("1.50"), "id": uuid.UUID(int=5), "check": lambda x: x in {"p", "q", "r"},
}
print(hashing.digest(value).hex())
"""


def test_every_process_finds_the_same_digest() -> None:
    """Each process orders its sets of texts anew (PYTHONHASHSEED)."""
    assert len({python("-c", VALUES).stdout for _ in range(4)}) == 1


def test_values_of_the_standard_library_have_digests() -> None:
    for value in (
        Colour.RED,
        Decimal("1.5"),
        uuid.UUID(int=1),
        datetime.timedelta(1),
        range(3),
        slice(1, 2),
        Order,
        Path("x"),
        datetime.timezone.utc,
        float("nan"),
        ...,
        NotImplemented,
        len,
        "x".upper,
    ):
        assert len(hashing.digest(value)) == hashing.SIZE


def test_the_argument_that_has_no_digest_is_named_with_what_would_be_right() -> None:
    with pytest.raises(HashError) as told:
        hashing.digest_inputs({"day": "today", "lock": threading.Lock()}, "load")

    for words in ("the task 'load'", "its argument 'lock', a _thread.lock", "cache_policy=NO_CACHE", "INPUTS - 'lock'"):
        assert words in str(told.value)


def test_a_class_that_fails_when_it_is_pickled_has_no_digest() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("odd")

    with pytest.raises(HashError, match="ZeroDivisionError: odd"):
        hashing.digest(Odd())


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans()))
def test_arguments_count_by_name_and_value_and_not_by_order(inputs: Any) -> None:
    backwards = dict(reversed(list(inputs.items())))

    assert hashing.digest_inputs(inputs, "t") == hashing.digest_inputs(backwards, "t")
    assert hashing.digest_inputs({**inputs, "more": None}, "t") != hashing.digest_inputs({**inputs, "more": False}, "t")
    with pytest.raises(hashing.TooLarge):
        hashing.digest_inputs({**inputs, "more": "x" * 1000}, "t", limit=1000)


def test_a_cycle_ends() -> None:
    ring: Any = []
    ring.append(ring)
    knot: Any = {}
    knot["knot"] = knot

    assert len(hashing.digest(ring)) == hashing.SIZE
    with pytest.raises(HashError):
        hashing.digest(knot)


def test_a_value_above_the_limit_is_noticed() -> None:
    with pytest.raises(hashing.TooLarge):
        hashing.digest(b"x" * 1000, limit=999)
    assert hashing.digest(b"x" * 1000, limit=2000) == hashing.digest(b"x" * 1000)
