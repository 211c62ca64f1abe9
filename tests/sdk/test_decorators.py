"""``@flow`` and ``@task``: the function stays a function, and nonsense is refused where it is written."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
from typing import Any

import pytest
from perfect_client import ConfigurationError, CronSchedule, Flow, IntervalSchedule, Task, flow, task
from perfect_client.errors import MAX_NAME
from perfect_client.wire import messages


@task(weight=2, estimated_time=1500, name="Add up", description="Adds.", tags=["sums"])
def add(a: int, b: int = 1) -> int:
    """Adds b to a."""
    return a + b


@flow
def hello(name: str = "you") -> str:
    """Says hello.

    Args:
        name: whom to greet
    """
    return "hello " + name


class Steps:
    factor = 3

    @task
    def times(self, number: int) -> int:
        return self.factor * number

    @task
    @classmethod
    def of_class(cls, number: int) -> int:
        return cls.factor + number

    @classmethod
    @task
    def of_class_outside(cls, number: int) -> int:
        return cls.factor + number

    @task
    @staticmethod
    def of_nobody(number: int) -> int:
        return number

    @staticmethod
    @task
    def of_nobody_outside(number: int) -> int:
        return number


# ------------------------------------------------------------------------------------------- it stays a function


def test_a_task_called_directly_returns_its_plain_value() -> None:
    assert add(2) == 3
    assert add(a=2, b=5) == 7


def test_a_flow_called_directly_returns_its_plain_value() -> None:
    assert hello("Ana") == "hello Ana"


def test_a_direct_call_raises_what_the_function_raises() -> None:
    @flow
    def bad() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        bad()


def test_it_looks_like_the_function_it_decorates() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds b to a."
    assert add.__module__ == __name__
    assert add.__wrapped__ is add.fn
    assert str(inspect.signature(add)) == "(a: 'int', b: 'int' = 1) -> 'int'"


def test_it_has_its_options() -> None:
    assert (add.name, add.description, add.tags) == ("Add up", "Adds.", ("sums",))
    assert (add.weight, add.estimated_time, add.key) == (2.0, 1500.0, "add")


def test_name_and_description_come_from_the_function() -> None:
    assert hello.name == "hello"
    assert hello.description == "Says hello."


def test_it_can_be_decorated_with_and_without_parentheses() -> None:
    def plain() -> int:
        return 1

    assert isinstance(task(plain), Task)
    assert isinstance(task()(plain), Task)
    assert isinstance(flow(plain), Flow)
    assert isinstance(flow()(plain), Flow)


def test_a_method_is_bound_to_its_instance() -> None:
    assert Steps().times(2) == 6
    assert Steps.times(Steps(), 2) == 6


@pytest.mark.parametrize("name", ["of_class", "of_class_outside"])
def test_a_class_method_is_bound_to_its_class(name: str) -> None:
    assert getattr(Steps, name)(1) == 4
    assert getattr(Steps(), name)(1) == 4


@pytest.mark.parametrize("name", ["of_nobody", "of_nobody_outside"])
def test_a_static_method_is_bound_to_nothing(name: str) -> None:
    assert getattr(Steps, name)(1) == 1
    assert getattr(Steps(), name)(1) == 1


def test_a_bound_task_still_tells_its_options() -> None:
    assert Steps().times.name == "times"
    assert Steps().times.key == "Steps.times"


def test_the_key_has_no_locals_in_it() -> None:
    @task
    def inner() -> None: ...

    assert inner.key == "test_the_key_has_no_locals_in_it.inner"


def test_a_partial_can_be_a_task() -> None:
    made = task(functools.partial(add.fn, 1), name="one more")

    assert made(4) == 5


def test_a_callable_object_can_be_a_task() -> None:
    class Doubler:
        def __call__(self, x: int) -> int:
            return 2 * x

    made = task(Doubler())

    assert made(4) == 8
    assert made.name == "Doubler"


def test_a_decorated_function_travels_by_pickle() -> None:
    assert pickle.loads(pickle.dumps(add)) is add
    assert pickle.loads(pickle.dumps(hello)) is hello


def test_a_coroutine_function_stays_one() -> None:
    @flow
    async def later(x: int) -> int:
        return x + 1

    assert asyncio.run(later(1)) == 2
    assert later.is_async
    assert asyncio.iscoroutinefunction(later) or inspect.iscoroutinefunction(later)
    assert not hello.is_async
    assert not inspect.iscoroutinefunction(hello)


# ------------------------------------------------------------------------------------------- nonsense is refused


def refused(decorate: Any) -> str:
    def somebody() -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        decorate(somebody)
    text = str(caught.value)
    assert "somebody, " in text and "test_decorators.py:" in text, text
    return text


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", True, [1]])
def test_a_weight_is_a_finite_number_above_zero(weight: Any) -> None:
    assert "weight must be a finite number above 0, not %r" % (weight,) in refused(task(weight=weight))


@pytest.mark.parametrize("estimated_time", [0, -5, float("inf"), "1s"])
def test_an_estimated_time_is_milliseconds_above_zero(estimated_time: Any) -> None:
    text = refused(task(estimated_time=estimated_time))
    assert "estimated_time must be a finite number of milliseconds above 0" in text


@pytest.mark.parametrize("name", ["", "  ", 5, "x" * 201])
def test_a_name_is_a_text_of_at_most_200_characters(name: Any) -> None:
    assert "name " in refused(flow(name=name))
    assert "name " in refused(task(name=name))


def test_a_name_of_200_characters_is_accepted() -> None:
    assert len(flow(name="x" * 200)(lambda: None).name) == 200


def test_white_space_in_a_name_is_made_plain() -> None:
    assert flow(name=" Daily \n ETL ")(lambda: None).name == "Daily ETL"


@pytest.mark.parametrize("tags", ["etl", [1], [""], 5, ["x"] * 51, ["x" * 201]])
def test_tags_are_a_list_of_texts(tags: Any) -> None:
    assert "tags" in refused(flow(tags=tags))


def test_tags_are_kept_once() -> None:
    assert flow(tags=["a", "b", "a "])(lambda: None).tags == ("a", "b")


def test_a_description_is_a_text() -> None:
    assert "description must be a string" in refused(flow(description=5))


def test_a_class_or_a_value_is_no_flow() -> None:
    for wrong in (Steps, 5, "name"):
        with pytest.raises(ConfigurationError, match="decorates a function"):
            flow(wrong)


def test_a_flow_is_not_a_task_as_well() -> None:
    with pytest.raises(ConfigurationError, match="a task cannot be made a flow as well"):
        flow(add)
    with pytest.raises(ConfigurationError, match="a flow cannot be made a task as well"):
        task(hello)


def test_an_unknown_option_is_a_type_error_that_names_the_one_that_was_meant() -> None:
    wrong: Any = {"retrys": 3}

    assert "there is no option 'retrys': did you mean 'retries'?" in refused(task(**wrong))
    assert "there is no option 'weight'" in refused(flow(**{"weight": 1}))


def test_a_configuration_error_is_a_value_error_and_a_type_error() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, TypeError)


# ------------------------------------------------------------------------------- schedules and configurations


def test_one_schedule_or_several_can_be_declared() -> None:
    one = flow(schedule=CronSchedule("@daily"))(lambda: None)
    three = [CronSchedule("@daily"), IntervalSchedule(60, name="often"), IntervalSchedule(90)]
    two = flow(schedule=three)(lambda: None)

    assert list(one.schedules) == ["default"]
    assert list(two.schedules) == ["default", "often", "default-2"]


def test_two_schedules_of_one_name_are_refused() -> None:
    both = [CronSchedule("@daily", name="x"), CronSchedule("@hourly", name="x")]
    assert "two schedules are named 'x'" in refused(flow(schedule=both))


@pytest.mark.parametrize("schedule", ["0 0 * * *", 300, [300], {"cron": "@daily"}])
def test_a_schedule_is_an_object(schedule: Any) -> None:
    assert "schedule must be a CronSchedule or an IntervalSchedule" in refused(flow(schedule=schedule))


def test_a_schedule_names_a_configuration_that_exists() -> None:
    wrong = flow(schedule=CronSchedule("@daily", configuration="prod"), configurations=["dev", "release"])
    assert "names the configuration 'prod', but there is: dev, release" in refused(wrong)


def test_configurations_are_named_sets_of_values() -> None:
    made = flow(configurations={"dev": {"size": 1}, "release": {"size": 9}})(lambda: None)

    assert made.configurations == {"dev": {"size": 1}, "release": {"size": 9}}


def test_configurations_can_be_names_alone() -> None:
    assert flow(configurations=["dev", "release"])(lambda: None).configurations == {"dev": {}, "release": {}}


@pytest.mark.parametrize(
    "configurations", ["dev", 5, {"dev": 5}, {"": {}}, {5: {}}, {"dev": {5: 1}}, {"dev": {"x": object()}}, [["dev"]]]
)
def test_configurations_of_another_form_are_refused(configurations: Any) -> None:
    assert "configuration" in refused(flow(configurations=configurations))


def test_names_are_as_long_as_the_wire_allows() -> None:
    assert MAX_NAME == messages.MAX_NAME
