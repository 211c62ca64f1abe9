"""Whatever a flow's schema says and whatever is given for it, the server's check of it ends soon."""

from __future__ import annotations

import json
import socket
import time
from functools import reduce
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.schema import masking, sentences, validation
from perfect_client.schema.validation import Effort

from flows import effort, handwritten, parameters
from flows.models import Flow

SOON = 15.0  # seconds, on a loaded machine, for about one; without limits each of these takes hours
EVIL_PATTERNS = {
    "^(a+)+$": "a" * 5_000 + "!",
    "(a|a)*$": "a" * 5_000 + "!",
    "^(([a-z])+.)+[A-Z]([a-z])+$": "a" * 5_000,
    "(x{1,1000}){1,1000}y": "x" * 9_000,
    r"(\w+\s*)+:$": "a b " * 2_000 + ":!",
    r"\s+$": " " * 50_000 + "x",
}
ORDINARY_PATTERNS = (
    "^[a-z]+(-[a-z0-9]+)*$",
    r"^\d{4}-\d{2}$",
    "x",
    "^$",
    "(?i)^ab?c",
    r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
    "^(?!a)b*",
    r"\bzz",
    "a|b$",
    "é",
    "^.$",
    r"^\w+$",
    r"^\S*\Z",
    "(?P<n>a)(?P=n)",
    "[a]]",
    "[a-",
)


def flow_of(schema: Any, **defs: Any) -> Flow:
    properties = {"type": "object", "properties": {"x": schema}, "additionalProperties": False, "$defs": defs}
    return Flow(name="Plain", slug="plain", parameters=properties, configurations={})


def said_of(schema: Any, value: Any, **defs: Any) -> str:
    """The sentence that refuses the value; empty if it is taken."""
    began = time.monotonic()
    try:
        assert parameters.clean(flow_of(schema, **defs), {"x": value}, "") == {"x": value}
        return ""
    except parameters.Refused as refused:
        return refused.sentence
    finally:
        assert time.monotonic() - began < SOON


@pytest.fixture(autouse=True)
def nothing_is_known_to_be_slow() -> None:
    effort._slow.clear()


# ------------------------------------------------------------------------------------------------------------ patterns


@pytest.mark.parametrize("pattern", EVIL_PATTERNS)
def test_a_pattern_that_would_take_hours_is_left_to_the_run(pattern: str) -> None:
    assert said_of({"type": "string", "pattern": pattern}, EVIL_PATTERNS[pattern]) == ""
    assert said_of({"not": {"pattern": pattern}}, EVIL_PATTERNS[pattern]) == ""
    assert said_of({"not": {"const": 1}, "pattern": pattern}, EVIL_PATTERNS[pattern]) == ""


def test_many_slow_patterns_take_no_longer_than_a_few() -> None:
    bounded = effort.Bounded()
    for letter in "abcdefghijklmnopqrstuvwxyz":
        assert bounded.matches(f"^({letter}+)+$", letter * 5_000 + "!") is None
    assert len(effort._slow) < 15  # the others were not tried at all
    assert bounded.matches("^b", "a") is None


def test_a_pattern_that_was_slow_is_not_tried_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "^(a+)+$"
    assert effort.Bounded().matches(slow, "a" * 5_000 + "!") is None
    assert effort.Bounded().matches(slow, "b") is None  # left to the run, though it would be quick
    monkeypatch.setattr(effort, "_slow", {slow: time.monotonic() - 0.001})
    assert effort.Bounded().matches(slow, "b") is False


@pytest.mark.parametrize("pattern", ["x" * 20_000, "(" * 900 + "x" + ")" * 900, "(a" * 300, None, 3, ["a"]])
def test_what_is_no_pattern_or_none_that_can_be_tried_refuses_nothing(pattern: Any) -> None:
    assert effort.Bounded().matches(pattern, "x") is None


@given(st.sampled_from(ORDINARY_PATTERNS), st.text(alphabet="abcxz019-@. é\n", max_size=8))
def test_an_ordinary_pattern_is_read_as_the_run_reads_it(pattern: str, text: str) -> None:
    assert effort.Bounded().matches(pattern, text) == Effort().matches(pattern, text)


def test_an_ordinary_pattern_refuses_at_the_door_with_the_sentence_of_the_run() -> None:
    schema = {"type": "string", "pattern": "^[a-z]+(-[a-z0-9]+)*$"}
    assert said_of(schema, "daily-sales-2") == ""
    with pytest.raises(validation.Unfit) as unfit:
        validation.fit("x", schema, "Daily Sales")
    assert (
        said_of(schema, "Daily Sales")
        == str(unfit.value)
        == ("Parameter 'x' must be a string that matches '^[a-z]+(-[a-z0-9]+)*$', not 'Daily Sales'.")
    )


def test_the_clock_is_looked_at_before_each_value_and_each_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take long by itself: a message holds the whole value."""
    monkeypatch.setattr(effort, "CHECKED_WITHIN", -1.0)
    assert validation.fit("x", {"type": "integer"}, "one", effort=effort.Bounded()) == "one"
    assert handwritten.first_error({"const": 1}, 2, effort.Bounded()) is None


# -------------------------------------------------------------------------------------------------- schemas without end

NODES = [
    {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}, "required": ["next", f"k{n}"]} for n in range(12)
]
DEEP = reduce(lambda inner, _: {"next": inner, **{f"k{n}": 1 for n in range(12)}}, range(40), {"wrong": 1})


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ({"anyOf": NODES}, DEEP),
        ({"allOf": [{"$ref": "#/$defs/N"}]}, 1),
        ({"anyOf": [{"$ref": "#/$defs/N"}] * 3}, 1),
        ({"not": {"not": {"$ref": "#/$defs/N"}}}, 1),
        ({"$ref": "#/$defs/N"}, 1),
        ({"not": {"anyOf": [{"not": part} for part in NODES]}}, DEEP),
        ({"type": ["integer", "null"] * 5_000}, "x"),
        ({"enum": list(range(20_000))}, "x"),
    ],
)
def test_a_schema_that_has_no_end_is_read_for_a_moment(definition: Any, value: Any) -> None:
    said_of({"$ref": "#/$defs/N"}, value, N=definition)
    said_of({"type": "array", "items": {"$ref": "#/$defs/N"}}, [value] * 500, N=definition)


def test_no_depth_of_the_stack_lets_a_schema_without_end_end_the_thread() -> None:
    """Below jsonschema a library in Rust panics where Python's own limit is met in it."""

    def deeper(steps: int) -> str:
        return (
            deeper(steps - 1) if steps else said_of({"$ref": "#/$defs/N"}, 1, N={"not": {"not": {"$ref": "#/$defs/N"}}})
        )

    assert [deeper(steps) for steps in range(0, 160, 8)] == [""] * 20


MESH = {f"N{n}": {"anyOf": [{"$ref": f"#/$defs/N{m}"} for m in range(60)]} for n in range(60)}
FAN = {"N": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/N"}} for _ in range(30)]}}


@pytest.mark.parametrize(("defs", "first"), [(MESH, "N0"), (FAN, "N")])
def test_words_and_masks_of_a_schema_without_end_are_made_in_a_moment(defs: Any, first: str) -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": f"#/$defs/{first}"}}, "$defs": defs}
    value = {"x": reduce(lambda inner, _: [inner], range(60), {"password": "hunter-2"}), "y": 1}
    began = time.monotonic()

    assert len(sentences.describe(schema["properties"]["x"], schema["$defs"])) < 2_000
    assert "hunter-2" not in json.dumps(masking.mask(value, schema))
    assert "hunter-2" in masking.secrets_in(value, schema)
    assert masking.restore(masking.mask(value, schema), value, schema) == value

    assert time.monotonic() - began < SOON


def test_what_refers_to_itself_is_looked_at_once() -> None:
    schema = {"properties": {"x": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"anyOf": [{"$ref": "#/$defs/N"}, {}]}}}
    assert masking.mask({"x": [1]}, schema) == {"x": [1]}


def test_what_stands_under_more_schemas_than_can_be_looked_at_is_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masking, "MAX_LOOKED_AT", 50)
    schema = {"properties": {"x": {"anyOf": [{"const": n} for n in range(100)]}, "y": {}}}
    assert masking.mask({"x": 1}, schema) == {"x": masking.MASK}
    assert masking.mask({"y": 1}, schema) == {"y": 1}


def test_a_wrong_name_among_thousands_is_told_in_a_moment() -> None:
    mixed = Random(1)
    names = ["".join(mixed.sample("ab" * 95, 190)) for _ in range(3_000)]
    began = time.monotonic()
    assert "There is no parameter" in sentences.unknown("ab" * 95, names)
    assert "Did you mean 'limit'?" in sentences.unknown("limt", ["limit", *names])
    assert time.monotonic() - began < SOON


# ------------------------------------------------------------------------------------------- keywords written by hand


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "array", "contains": {"const": 3}}, [1, 2], "[1, 2] does not contain items matching"),
        ({"type": "object", "patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": "b"}, "'x.n_a'"),
        (
            {"type": "object", "properties": {"a": {"patternProperties": {"^n_": {}}, "additionalProperties": False}}},
            {"a": {"m": 1}},
            "Additional properties are not allowed ('m' was unexpected)",
        ),
        ({"if": {"const": 1}, "then": {"const": 2}}, 1, "2 was expected"),
        ({"not": {"const": "x"}}, "x", "should not be valid under"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"a": 1}, "'b' is a dependency of 'a'"),
        ({"propertyNames": {"pattern": "^a"}}, {"b": 1}, "'b' does not match '^a'"),
        ({"contains": {"uniqueItems": True, "type": "array"}}, [[1, 1]], "does not contain items matching"),
    ],
)
def test_what_is_written_by_hand_still_refuses_at_the_door(schema: Any, value: Any, words: str) -> None:
    assert words in said_of(schema, value)


@pytest.mark.parametrize("word", ["$schema", "$id"])
def test_a_schema_with_an_address_of_its_own_is_left_to_the_run(word: str) -> None:
    inner = {word: "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}
    assert said_of({"not": inner}, "a" * 3_000 + "!") == ""


def test_nothing_that_a_schema_refers_to_is_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/schema"
        assert said_of({"$ref": address, "not": {"$ref": address}}, 1) == ""
        assert said_of({"not": {"$ref": address}}, 1) == ""
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"contains": {"type": "object"}, "uniqueItems": True}, [{"a": n} for n in range(15_000)]),
        (
            {"type": "object", "patternProperties": {f"{n}$": {} for n in range(3_000)}},
            {f"k{n}": 1 for n in range(9_000)},
        ),
        ({"type": "object", "patternProperties": {"^(a+)+$": {"type": "integer"}}}, {"a" * 700 + "!": 1}),
        ({"contains": {"anyOf": [{"const": -n} for n in range(1, 2_000)]}}, list(range(9_000))),
    ],
)
def test_what_is_written_by_hand_takes_no_longer_than_the_rest(schema: Any, value: Any) -> None:
    said_of(schema, value)


VALUES = st.recursive(
    st.sampled_from([None, True, 0, 1, "a", "ab", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "ab", "b"]), inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [{}, {"type": "integer"}, {"const": "a"}, {"pattern": "^a"}, {"uniqueItems": True}, {"minLength": 2}]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "not": inner,
            "contains": inner,
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
            "additionalProperties": inner | st.just(False),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "propertyNames": inner,
        },
    ),
    max_leaves=5,
)


@given(SCHEMAS, VALUES)
def test_every_keyword_says_what_its_library_says(schema: Any, value: Any) -> None:
    found = handwritten.first_error(schema, value, effort.Bounded())
    assert (found is None) == jsonschema.Draft202012Validator(schema).is_valid(value)
