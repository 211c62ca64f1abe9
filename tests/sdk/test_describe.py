"""A flow as its worker describes it."""

from __future__ import annotations

from typing import Any

import pytest
from perfect_client import CronSchedule, IntervalSchedule, flow, task
from perfect_client.analysis import describe
from perfect_client.wire import messages


@task(weight=2)
def step() -> None: ...


@flow(
    name="Described",
    description="What it does.",
    tags=["a"],
    configurations={"dev": {"n": 1}},
    schedule=[CronSchedule("@daily", "Asia/Tokyo", parameters={"n": 5}), IntervalSchedule(60, configuration="dev")],
)
def described(n: int = 3) -> None:
    step()


def test_everything_is_told() -> None:
    spec = describe.flow_spec(described)

    assert (spec.name, spec.description, spec.tags) == ("Described", "What it does.", ["a"])
    assert spec.parameters["properties"]["n"] == {"title": "n", "type": "integer", "default": 3}
    assert spec.configurations == {"dev": {"n": 1}}
    assert spec.schedules == [
        messages.ScheduleSpec("cron", "@daily", "Asia/Tokyo", "default", "", {"n": 5}),
        messages.ScheduleSpec("interval", "60", "UTC", "default-2", "dev"),
    ]
    assert [item.key for item in spec.tasks] == ["step"]
    assert spec.file == __file__
    assert spec.line == described.fn.__code__.co_firstlineno


def test_it_travels() -> None:
    announced = messages.FlowsAnnounced([describe.flow_spec(described)])

    assert messages.decode(messages.encode(announced)) == announced


def test_the_fingerprint_is_the_same_for_the_same_code() -> None:
    assert describe.flow_spec(described).fingerprint == describe.flow_spec(described).fingerprint


def test_the_fingerprint_changes_with_the_description_and_the_code() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    made = [flow(name="x", description=text)(fn) for text in ("a", "b") for fn in (one, two)]

    assert len({describe.flow_spec(one_of_four).fingerprint for one_of_four in made}) == 4


def test_what_no_database_can_carry_is_made_harmless() -> None:
    strange = flow(name="a\x00b\ud800", tags=["\x00"], configurations={"dev": {"x": float("nan")}})(lambda: None)

    spec = describe.flow_spec(strange)

    assert spec.name == "a\u2400b\\ud800"
    assert spec.configurations == {"dev": {"x": {"$float": "nan"}}}
    messages.encode(messages.FlowsAnnounced([spec])).encode()


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"x": deep}

    with pytest.raises(messages.ProtocolError, match="nested deeper"):
        describe.flow_spec(flow(name="deep", configurations={"dev": deep})(lambda: None))


def test_a_function_without_source_is_described() -> None:
    space: Any = {}
    exec("def made(a: int): pass", space)

    spec = describe.flow_spec(flow(space["made"]))

    assert spec.parameters["required"] == ["a"]
    assert spec.tasks == []
