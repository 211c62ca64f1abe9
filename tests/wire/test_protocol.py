"""Every message of the wire: what was ever written decodes for ever, and what is malformed is refused by name."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire import messages
from perfect_client.wire.messages import (
    TYPES,
    CancelRun,
    FactsRecorded,
    Logged,
    OfferRun,
    ProtocolError,
    StartRun,
    TaskProgressed,
    Unknown,
    clean_json,
    clean_text,
    decode,
    decode_fact,
    encode,
    encode_batch,
    encode_fact,
)

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no bug

GOLDEN: list[str] = [
    line
    for path in sorted((Path(__file__).parent / "v1").glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
NESTED = (
    messages.TaskSpec,
    messages.ScheduleSpec,
    messages.FlowSpec,
    messages.Held,
    messages.Verdict,
    messages.Ancestor,
    messages.LineOpen,
)


def contains(whole: Any, part: Any) -> bool:
    """Whether `whole` says all that `part` says; fields may have been added since."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part) and type(whole) is type(part)


# -------------------------------------------------------------------------------------------------- golden transcripts


@pytest.mark.parametrize("line", GOLDEN, ids=lambda line: str(json.loads(line)["type"]))
def test_what_version_1_wrote_decodes_for_ever_and_says_the_same_again(line: str) -> None:
    message = decode(line)

    assert not isinstance(message, Unknown)
    assert contains(json.loads(encode(message)), json.loads(line))
    assert decode(encode(message)) == message


def test_the_golden_transcripts_hold_every_message_type() -> None:
    assert {json.loads(line)["type"] for line in GOLDEN} == set(TYPES)


def test_a_golden_message_names_every_field_of_its_type() -> None:
    named: dict[str, set[str]] = {}
    for line in GOLDEN:
        said = json.loads(line)
        named.setdefault(said["type"], set()).update(said)

    missing = {kind: {f.name for f in fields(cls)} - named[kind] for kind, cls in TYPES.items()}

    assert not {kind: names for kind, names in missing.items() if names}


# ------------------------------------------------------------------------------------------------------ laws of change


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_unknown_fields_are_ignored(kind: str) -> None:
    said = json.loads(next(line for line in GOLDEN if json.loads(line)["type"] == kind))

    assert decode(json.dumps({**said, "since_version_9": {"any": ["thing"]}})) == decode(json.dumps(said))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_fields_with_a_default_may_be_left_out(kind: str) -> None:
    said = json.loads(next(line for line in GOLDEN if json.loads(line)["type"] == kind))
    needed = {f.name for f in fields(TYPES[kind]) if f.default is MISSING and f.default_factory is MISSING}

    message = decode(json.dumps({"type": kind, **{name: said[name] for name in needed}}))

    assert isinstance(message, TYPES[kind])


def test_a_message_of_an_unknown_type_is_unknown_and_no_error() -> None:
    assert decode('{"type":"TeaServed","cups":2}') == Unknown("TeaServed")
    assert decode('{"type":"%s"}' % ("x" * 100_000)).type.startswith("xxx")
    assert len(decode('{"type":"%s"}' % ("x" * 100_000)).type) <= messages.MAX_NAME + 40


# --------------------------------------------------------------------------------------------------- malformed messages

WRONG: dict[str, list[Any]] = {
    "str": [1, None, ["x"], {}, True],
    "int": ["1", 1.0, None, True, 2**60, -(2**60)],
    "float": ["1", None, True, [], 10**400],
    "bool": [0, 1, "true", None],
    "List[str]": ["x", [1], None, {}],
    "List[Any]": ["x", None, {}, 3],
    "Dict[str, Any]": [[], "x", None, 3],
    "Optional[int]": ["1", 1.5, True],
    "Optional[float]": ["1", True, [], 10**400],
}


def malformed() -> list[tuple[str, str, Any]]:
    cases = []
    for kind, cls in sorted(TYPES.items()):
        for f in fields(cls):
            wrong = WRONG.get(str(f.type), ["x", None, {}])
            cases += [(kind, f.name, value) for value in wrong]
    return cases


@pytest.mark.parametrize(("kind", "field", "value"), malformed())
def test_a_malformed_field_is_refused_by_message_and_field(kind: str, field: str, value: Any) -> None:
    said = json.loads(next(line for line in GOLDEN if json.loads(line)["type"] == kind))

    with pytest.raises(ProtocolError) as refused:
        decode(json.dumps({**said, field: value}))

    assert str(refused.value).startswith(kind + "." + field)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_missing_field_is_refused_by_message_and_field(kind: str) -> None:
    said = json.loads(next(line for line in GOLDEN if json.loads(line)["type"] == kind))
    for f in fields(TYPES[kind]):
        if f.default is MISSING and f.default_factory is MISSING:
            rest = {name: value for name, value in said.items() if name != f.name}
            with pytest.raises(ProtocolError, match=rf"{kind}\.{f.name} is missing"):
                decode(json.dumps(rest))


def test_a_malformed_noun_inside_a_message_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"Held\.fence is missing"):
        decode('{"type":"Joined","worker":"w","boot":"b","held":[{"run":"r"}]}')
    with pytest.raises(ProtocolError, match="Verdict must be an object"):
        decode('{"type":"Accept","server_time":1,"attempts":[7]}')


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "x",
        "[]",
        "null",
        "3",
        '"StartRun"',
        "{}",
        "{",
        '{"type":null}',
        '{"type":3}',
        '{"type":["StartRun"]}',
        b"\xff\xfe",
        b'{"type":"\xff"}',
        '{"type":"StartRun","fence":1}x',
    ],
)
def test_what_is_no_json_object_with_a_type_is_refused(frame: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"type": 3}])
def test_a_fact_that_is_no_object_with_a_type_is_refused(data: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_fact(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    with pytest.raises(ProtocolError):
        decode('{"type":"TaskProgressed","time":1,"task":1,"share":' + number + "}")


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match=r"Out of range"):
        encode(TaskProgressed(1.0, 1, math.nan))


@pytest.mark.parametrize("open_, close", [("[", "]"), ('{"a":', "}")])
def test_parameters_nested_too_deep_are_refused_by_name(open_: str, close: str) -> None:
    deep = '{"type":"OfferRun","fence":1,"run":"r","flow":"f","parameters":{"p":%s1%s}}'

    assert isinstance(decode(deep % (open_ * 62, close * 62)), OfferRun)
    with pytest.raises(ProtocolError, match=r"OfferRun\.parameters .*deeper than 64"):
        decode(deep % (open_ * 64, close * 64))


@pytest.mark.parametrize("start", ["", '{"type":"OfferRun","parameters":'])
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_a_bomb_of_brackets_is_refused_like_any_other_frame(start: str, bracket: str) -> None:
    with pytest.raises(ProtocolError):
        decode(start + bracket * 100_000)


# ------------------------------------------------------------------------------------------------------------- cleaning


def test_lone_surrogates_and_nul_become_text_that_every_database_takes() -> None:
    message = decode('{"type":"CancelRun","fence":1,"reason":"a\\ud800b\\u0000c"}')

    assert message == CancelRun(1, "a\\ud800b\u2400c")
    assert message.reason.encode("utf-8")


def test_keys_of_parameters_are_cleaned_too() -> None:
    said = '{"type":"OfferRun","fence":1,"run":"r","flow":"f","parameters":{"a\\u0000":{"\\udfff":"\\udfff"}}}'

    message = decode(said)

    assert message.parameters == {"a\u2400": {"\\udfff": "\\udfff"}}


any_text = st.text(st.characters(), max_size=300)
any_text |= st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@steady
@given(any_text, st.integers(64, 400))
def test_clean_text_is_clean_short_and_clean_again(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert "\x00" not in cleaned
    assert len(cleaned.encode("utf-8")) <= limit
    assert clean_text(cleaned, limit) == cleaned


def test_clean_text_says_exactly_how_much_it_cut() -> None:
    cleaned = clean_text("x" * 1000, 100)
    kept, _, said = cleaned.partition("…")

    assert set(kept) == {"x"}
    assert said == f" ({1000 - len(kept)} bytes more)"


def test_clean_json_keeps_what_json_can_say_and_refuses_the_rest() -> None:
    value = {1: (1, 2.5, None, True), "nan": math.nan, "inf": [-math.inf]}

    assert clean_json(value) == {"1": [1, 2.5, None, True], "nan": {"$float": "nan"}, "inf": [{"$float": "-inf"}]}
    with pytest.raises(ProtocolError, match="type set"):
        clean_json({"a": {1, 2}})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ProtocolError, match="deeper"):
        clean_json(loop)


# ---------------------------------------------------------------------------------------------------------- round trips

texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=30)
whole = st.integers(-(2**53), 2**53)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | whole | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "str": texts,
    "int": whole,
    "float": numbers,
    "bool": st.booleans(),
    "List[str]": st.lists(texts, max_size=3),
    "List[int]": st.lists(whole, max_size=3),
    "List[Any]": st.lists(values, max_size=3),
    "Dict[str, Any]": st.dictionaries(texts, values, max_size=3),
    "Optional[int]": st.none() | whole,
    "Optional[float]": st.none() | numbers,
}
for noun in NESTED:
    built: Any = st.builds(noun, **{f.name: BY_ANNOTATION[str(f.type)] for f in fields(noun)})
    BY_ANNOTATION[f"List[{noun.__name__}]"] = st.lists(built, max_size=2)
MESSAGES: st.SearchStrategy[Any] = st.sampled_from(sorted(TYPES)).flatmap(
    lambda kind: st.builds(TYPES[kind], **{f.name: BY_ANNOTATION[str(f.type)] for f in fields(TYPES[kind])})
)
FACT_TYPES = (messages.RunStarted, messages.TaskStarted, TaskProgressed, messages.TaskEnded, Logged, messages.RunEnded)
FACTS: st.SearchStrategy[Any] = st.one_of(
    *[st.builds(cls, **{f.name: BY_ANNOTATION[str(f.type)] for f in fields(cls)}) for cls in FACT_TYPES]
)


@settings(steady, max_examples=4 * settings.default.max_examples)
@given(MESSAGES)
def test_every_message_survives_the_wire(message: Any) -> None:
    assert decode(encode(message)) == message
    assert decode(encode(message).encode()) == message


@steady
@given(st.lists(FACTS, max_size=5), whole, texts, st.sampled_from(messages.STREAMS))
def test_a_batch_of_spooled_facts_reads_like_the_message_made_at_once(
    facts: list[Any], first: int, run: str, stream: str
) -> None:
    frame = encode_batch(7, run, stream, first, [encode_fact(fact) for fact in facts])

    message = decode(frame)

    assert message == decode(encode(FactsRecorded(7, run, first, [json.loads(encode_fact(f)) for f in facts], stream)))
    assert [decode_fact(data) for data in message.facts] == facts


def test_a_fact_with_a_lone_surrogate_is_spooled_as_valid_json() -> None:
    record = encode_fact(Logged(1.0, "caf\udce9"))

    assert decode(record) == Logged(1.0, "caf\\udce9")


@steady
@given(st.binary(max_size=60) | st.text(max_size=60) | values.map(json.dumps))
def test_no_frame_brings_anything_but_a_message_or_a_protocol_error(frame: Any) -> None:
    try:
        decode(frame)
    except ProtocolError as refused:
        assert str(refused)


def test_messages_are_values() -> None:
    assert StartRun(1) == StartRun(1)
    with pytest.raises(AttributeError):
        StartRun(1).fence = 2  # type: ignore[misc]
