"""A task that asks for a cache is answered from it: by which key, how long, from which store, and what never fails."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from perfect_client import flow, task
from perfect_client.caching import caching, remembering
from perfect_client.core import middleware
from perfect_client.errors import ConfigurationError
from perfect_client.storage import results
from perfect_client.storage.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    Inputs,
)
from perfect_client.tasks import task_input_hash

from tests.sdk.story import Story, python

Execute = Callable[..., Story]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path))
    return tmp_path / "results"


@pytest.fixture
def noted(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    with caplog.at_level(logging.DEBUG, logger="perfect_client.results"):
        yield lambda: caplog.text


def outcomes(story: Story) -> List[str]:
    return [fact.outcome for fact in story.task_ends]


def calling(called: Any, *each: Any) -> Any:
    """A flow that calls a task once for each argument; it returns what came back."""

    @flow
    def calls() -> Any:
        return [called(argument) for argument in each]

    return calls


def counted(seen: List[Any], **options: Any) -> Any:
    @task(**options)
    def work(x: Any) -> Any:
        seen.append(x)
        return [x]

    return work


# ------------------------------------------------------------------------------------------------------ when it answers


def test_a_call_with_the_same_inputs_is_answered_in_a_later_run(execute: Execute) -> None:
    seen: List[Any] = []
    work = counted(seen, cache_policy=INPUTS)

    first, second = execute(calling(work, 1, 2)), execute(calling(work, 2, 3))

    assert outcomes(first) == ["COMPLETED", "COMPLETED"]
    assert outcomes(second) == ["CACHED", "COMPLETED"]
    assert (seen, second.ended.result) == ([1, 2, 3], "[[2], [3]]")


def test_a_task_that_asks_for_nothing_runs_each_time(execute: Execute, home: Path) -> None:
    seen: List[Any] = []

    assert outcomes(execute(calling(counted(seen), 1, 1))) == ["COMPLETED", "COMPLETED"]
    assert seen == [1, 1]
    assert not home.exists()


@pytest.mark.parametrize("options", [{"persist_result": True}, {"result_serializer": "json"}])
def test_a_task_that_keeps_its_results_is_answered_within_its_run(execute: Execute, options: Dict[str, Any]) -> None:
    seen: List[Any] = []

    assert outcomes(execute(calling(counted(seen, **options), 1, 1, 2))) == ["COMPLETED", "CACHED", "COMPLETED"]


@pytest.mark.parametrize("policy", [NO_CACHE, NONE])
def test_no_cache_means_none(execute: Execute, policy: CachePolicy) -> None:
    seen: List[Any] = []

    execute(calling(counted(seen, cache_policy=policy, persist_result=True), 1, 1))

    assert seen == [1, 1]


def test_results_that_are_not_to_be_kept_are_not_kept(execute: Execute, home: Path) -> None:
    execute(calling(counted([], cache_policy=INPUTS, persist_result=False), 1))

    assert not home.exists()


def test_coroutines_are_answered_as_well(execute: Execute) -> None:
    seen: List[int] = []

    @task(cache_policy=INPUTS)
    async def work(x: int) -> int:
        seen.append(x)
        return x + 1

    @flow
    async def calls() -> List[int]:
        return [await work(1), await work(1)]

    story = execute(calls)

    assert (outcomes(story), story.ended.result, seen) == (["COMPLETED", "CACHED"], "[2, 2]", [1])


def test_a_task_that_failed_runs_again(execute: Execute) -> None:
    seen: List[int] = []

    @task(cache_policy=INPUTS)
    def work(x: int) -> int:
        seen.append(x)
        if len(seen) == 1:
            raise ValueError("not yet")
        return x

    execute(calling(work, 1))

    assert outcomes(execute(calling(work, 1))) == ["COMPLETED"]


def test_none_is_a_result_too(execute: Execute) -> None:
    seen: List[int] = []

    @task(cache_policy=INPUTS)
    def work(x: int) -> None:
        seen.append(x)

    assert outcomes(execute(calling(work, 1, 1))) == ["COMPLETED", "CACHED"]


def test_what_a_caller_does_to_an_answer_does_not_change_the_next_one(execute: Execute) -> None:
    work = counted([], cache_policy=INPUTS)

    @flow
    def calls() -> Any:
        work(1).append("spoilt")
        work(1).append("spoilt")
        return work(1)

    assert execute(calls).ended.result == "[1]"


def test_the_key_is_that_of_the_inputs_as_they_were_before_the_call(execute: Execute) -> None:
    seen: List[Any] = []

    @task(cache_policy=INPUTS)
    def work(rows: List[int]) -> int:
        seen.append(list(rows))
        rows.append(99)
        return len(rows)

    execute(calling(work, [1], [1]))

    assert seen == [[1]]


# ------------------------------------------------------------------------------------------------------------- the keys


def key_of(policy: CachePolicy, inputs: Dict[str, Any], run: str = "r", parameters: Any = None, of: Any = task) -> Any:
    class Context:
        task = of
        run: Any

    Context.run = type("Run", (), {"id": run})
    return policy.compute_key(Context, inputs, parameters or {})


@task
def adds(a: int, b: int = 0) -> int:
    return a + b


@task
def subtracts(a: int, b: int = 0) -> int:
    return a - b


def test_policies_say_what_the_same_is() -> None:
    a, b = {"a": 1, "b": 1}, {"a": 1, "b": 2}

    assert key_of(INPUTS, a, of=adds) != key_of(INPUTS, b, of=adds)
    assert key_of(INPUTS - "b", a, of=adds) == key_of(Inputs(exclude=["b"]), b, of=adds)
    assert key_of(TASK_SOURCE, a, of=adds) != key_of(TASK_SOURCE, a, of=subtracts)
    assert key_of(RUN_ID, a, run="r") == key_of(RUN_ID, b, run="r") != key_of(RUN_ID, a, run="s")
    assert key_of(FLOW_PARAMETERS, a) is None
    assert key_of(FLOW_PARAMETERS, a, parameters={"x": 1}) != key_of(FLOW_PARAMETERS, a, parameters={"x": 2})


def test_policies_are_joined_and_leave_out_what_is_subtracted() -> None:
    a, b = {"a": 1, "b": 1}, {"a": 1, "b": 2}
    joined = INPUTS + RUN_ID

    assert key_of(joined, a, run="r", of=adds) != key_of(joined, a, run="s", of=adds)
    assert key_of(joined - "b", a, of=adds) == key_of(joined - "b", b, of=adds)
    assert key_of(DEFAULT - "b", a, of=adds) == key_of(INPUTS - "b" + TASK_SOURCE + RUN_ID, b, of=adds)
    assert NONE + INPUTS is INPUTS and INPUTS + NONE is INPUTS
    assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"


def test_two_tasks_with_the_same_inputs_do_not_share_results(execute: Execute) -> None:
    @task(cache_policy=INPUTS)
    def one(x: int) -> str:
        return "one"

    @task(cache_policy=INPUTS)
    def other(x: int) -> str:
        return "other"

    @flow
    def calls() -> Any:
        return one(1), other(1)

    assert execute(calls).ended.result == "('one', 'other')"


@pytest.mark.parametrize("policy", [INPUTS, INPUTS + TASK_SOURCE, DEFAULT])
def test_the_tasks_of_one_factory_do_not_share_results(execute: Execute, policy: CachePolicy) -> None:
    def maker(factor: int) -> Any:
        @task(cache_policy=policy)
        def scaled(n: int) -> int:
            return n * factor

        return scaled

    @flow
    def scales() -> List[int]:
        return [maker(2)(5), maker(3)(5), maker(2)(5)]

    story = execute(scales)

    assert story.ended.result == "[10, 15, 10]"
    assert outcomes(story) == ["COMPLETED", "COMPLETED", "CACHED"]


@pytest.mark.parametrize(("policy", "third"), [(INPUTS, "10"), (INPUTS + TASK_SOURCE, "15")])
def test_a_global_counts_where_the_source_does(execute: Execute, policy: CachePolicy, third: str) -> None:
    def program(factor: int) -> Any:
        space: Dict[str, Any] = {"task": task, "policy": policy, "__name__": "factors"}
        exec("FACTOR = %d\n@task(cache_policy=policy)\ndef scaled(n):\n    return n * FACTOR" % factor, space)
        return flow(name="factors")(lambda: space["scaled"](5))

    results = [execute(program(factor)).ended.result for factor in (2, 2, 3)]

    assert results == ["10", "10", third]


def test_a_method_is_cached_by_what_its_object_holds(execute: Execute) -> None:
    @flow
    def prices() -> List[int]:
        return [Shop(1).price(5), Shop(2).price(5), Shop(1).price(5)]

    story = execute(prices)

    assert story.ended.result == "[6, 7, 6]"
    assert outcomes(story) == ["COMPLETED", "COMPLETED", "CACHED"]


class Shop:
    def __init__(self, fee: int) -> None:
        self.fee = fee

    @task(cache_policy=INPUTS + TASK_SOURCE)
    def price(self, n: int) -> int:
        return n + self.fee


def test_an_argument_that_does_not_count_may_differ(execute: Execute) -> None:
    seen: List[Any] = []

    @task(cache_policy=INPUTS - "lock")
    def work(x: int, lock: Any = None) -> int:
        seen.append(x)
        return x

    @flow
    def calls() -> None:
        work(1, threading.Lock())
        work(1, lock=threading.Lock())

    assert outcomes(execute(calls)) == ["COMPLETED", "CACHED"]


def test_leaving_out_what_is_not_there_is_an_error_that_names_it(execute: Execute) -> None:
    story = execute(calling(counted([], cache_policy=INPUTS - "y"), 1))

    assert "leaves out the argument 'y', but the task 'work' has: x" in story.ended.error


def test_an_argument_without_a_digest_is_an_error_that_names_it_where_a_cache_was_asked_for(execute: Execute) -> None:
    story = execute(calling(counted([], cache_policy=INPUTS), threading.Lock()))

    assert "its argument 'x', a _thread.lock, has no digest" in story.ended.error
    assert "cache_policy=NO_CACHE" in story.ended.error


def test_a_key_function_decides_alone(execute: Execute) -> None:
    keys: List[Any] = []
    seen: List[Any] = []

    def key(context: Any, parameters: Dict[str, Any]) -> Optional[str]:
        keys.append((context.task.name, context.run.flow_name, dict(parameters)))
        return "even" if parameters["x"] % 2 == 0 else None

    work = counted(seen, cache_key_fn=key)

    assert outcomes(execute(calling(work, 2, 4, 1, 1))) == ["COMPLETED", "CACHED", "COMPLETED", "COMPLETED"]
    assert keys[0] == ("work", "calls", {"x": 2})


def test_a_key_that_is_no_text_is_an_error_that_names_the_task(execute: Execute) -> None:
    story = execute(calling(counted([], cache_key_fn=lambda context, parameters: 5), 1))

    assert "the cache_key_fn of task 'work' must return a string or None, not 5" in story.ended.error


def test_the_key_function_that_people_know(execute: Execute) -> None:
    seen: List[Any] = []
    work = counted(seen, cache_key_fn=task_input_hash)
    execute(calling(work, {"b": 1, "a": {1, 2}}))

    assert outcomes(execute(calling(work, {"a": {2, 1}, "b": 1}, 5))) == ["CACHED", "COMPLETED"]


def test_a_policy_of_ones_own(execute: Execute) -> None:
    class ByFirstLetter(CachePolicy):
        def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> Optional[str]:
            return "letter-" + inputs["x"][0]

    assert outcomes(execute(calling(counted([], cache_policy=ByFirstLetter()), "ann", "ada", "bob"))) == [
        "COMPLETED",
        "CACHED",
        "COMPLETED",
    ]
    assert isinstance(CachePolicy.from_cache_key_fn(task_input_hash), CacheKeyFnPolicy)


# ------------------------------------------------------------------------------------------------- how long, and where


def test_a_result_expires(execute: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: List[Any] = []
    work = counted(seen, cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    now = 1_000_000.0
    monkeypatch.setattr(caching.time, "time", lambda: now)
    execute(calling(work, 1))

    now += 3599
    assert outcomes(execute(calling(work, 1))) == ["CACHED"]
    now += 2
    assert outcomes(execute(calling(work, 1))) == ["COMPLETED"]


def test_refreshing_runs_anew_and_keeps_the_new_result(execute: Execute) -> None:
    seen: List[Any] = []
    work = counted(seen, cache_policy=INPUTS, refresh_cache=True)
    execute(calling(work, 1))

    assert outcomes(execute(calling(work, 1))) == ["COMPLETED"]
    work = work.with_options(refresh_cache=False)
    assert outcomes(execute(calling(work, 1))) == ["CACHED"]


def test_a_result_lies_where_its_key_says(execute: Execute, tmp_path: Path) -> None:
    @task(
        result_storage=tmp_path / "mine",
        result_storage_key="day-{parameters[day]}-{flow_run.flow_name}.json",
        result_serializer="json",
    )
    def work(day: str) -> Any:
        return {"day": day}

    story = execute(calling(work, "mon", "mon"))

    assert outcomes(story) == ["COMPLETED", "CACHED"]
    assert (tmp_path / "mine" / "day-mon-calls.json").read_bytes().endswith(b'{"day":"mon"}')


def test_a_key_that_cannot_be_filled_in_says_what_it_may_name(execute: Execute) -> None:
    story = execute(calling(counted([], result_storage_key="{parameters[y]}"), 1))

    assert "result_storage_key '{parameters[y]}' cannot be filled in: KeyError: 'y'" in story.ended.error


class Memory:
    def __init__(self) -> None:
        self.kept: Dict[str, bytes] = {}

    def read(self, key: str) -> Optional[bytes]:
        return self.kept.get(key)

    def write(self, key: str, data: bytes) -> None:
        self.kept[key] = data

    def exists(self, key: str) -> bool:
        return key in self.kept

    def remove(self, key: str) -> None:
        self.kept.pop(key, None)


def test_any_store_with_four_methods_will_do(execute: Execute, home: Path) -> None:
    mine, keys = Memory(), Memory()

    assert outcomes(execute(calling(counted([], cache_policy=INPUTS, result_storage=mine), 1, 1)))[1] == "CACHED"
    execute(calling(counted([], cache_policy=INPUTS.configure(key_storage=keys)), 1))

    assert (len(mine.kept), len(keys.kept), home.exists()) == (1, 1, False)
    assert INPUTS.key_storage is None


# ------------------------------------------------------------------------------------------------- what never fails


def test_a_store_that_fails_is_a_note_and_the_task_runs(execute: Execute, noted: Callable[[], str]) -> None:
    class Broken(Memory):
        def read(self, key: str) -> Optional[bytes]:
            raise ConnectionError("no route")

        def write(self, key: str, data: bytes) -> None:
            raise ConnectionError("no route")

    story = execute(calling(counted([], cache_policy=INPUTS, result_storage=Broken()), 1, 1))

    assert (story.outcome, outcomes(story)) == ("COMPLETED", ["COMPLETED", "COMPLETED"])
    assert noted().count("its result cannot be kept: ConnectionError: no route") == 1


def test_a_result_that_cannot_be_pickled_is_one_note(execute: Execute, noted: Callable[[], str]) -> None:
    @task(cache_policy=INPUTS)
    def work(x: int) -> Any:
        return threading.Lock()

    story = execute(calling(work, 1, 1))

    assert (story.outcome, outcomes(story)) == ("COMPLETED", ["COMPLETED", "COMPLETED"])
    assert noted().count("its result cannot be written: TypeError") == 1


def test_a_torn_or_foreign_file_is_not_there(execute: Execute, home: Path) -> None:
    work = counted([], cache_policy=INPUTS)
    for content in (b"", b"perfect-result 1\n{", b"\x80\x04N.", None):
        execute(calling(work, 1))
        (file,) = (path for path in home.iterdir() if path.is_file() and path.name != ".swept")
        file.write_bytes(file.read_bytes()[:-3] if content is None else content)

        assert outcomes(execute(calling(work, 1))) == ["COMPLETED"], content


def test_a_result_whose_class_is_gone_is_not_there(execute: Execute) -> None:
    @task(cache_policy=INPUTS)
    def work(x: int) -> Any:
        return Left()

    module = sys.modules[__name__]

    class Left:
        pass

    Left.__qualname__ = "Left"
    module.Left = Left  # type: ignore[attr-defined]
    execute(calling(work, 1))
    del module.Left  # type: ignore[attr-defined]

    assert outcomes(execute(calling(work, 1))) == ["COMPLETED"]


def test_a_folder_that_cannot_be_made_hurts_nobody(execute: Execute, home: Path) -> None:
    home.write_bytes(b"a file stands in the way")

    story = execute(calling(counted([], cache_policy=INPUTS), 1))

    assert story.outcome == "COMPLETED"


# ------------------------------------------------------------------------------------------------------------ wrong use


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cache_policy": "INPUTS"}, "cache_policy is a policy of perfect_client.cache_policies, not 'INPUTS'"),
        ({"cache_key_fn": "key"}, "cache_key_fn must be a function, not 'key'"),
        ({"cache_expiration": 60}, "cache_expiration is a timedelta above 0, not 60"),
        ({"cache_expiration": timedelta(0)}, "cache_expiration is a timedelta above 0"),
        ({"result_serializer": "yaml"}, "a result serializer is 'pickle', 'json'"),
        ({"result_storage": 5}, "a result storage is a folder's path or an object"),
        ({"result_storage_key": ""}, "result_storage_key is a string like"),
    ],
)
def test_wrong_use_is_one_sentence_with_the_function_and_its_line(options: Dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        counted([], **options)

    assert sentence in str(told.value)
    assert "test_caching.py:%d" % (counted.__code__.co_firstlineno + 1) in str(told.value)


@pytest.mark.parametrize("wrong", [lambda: INPUTS - 5, lambda: Inputs(exclude="x"), lambda: RUN_ID - None])
def test_a_policy_leaves_out_arguments_by_name(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        wrong()


def test_a_policy_is_joined_with_policies_only() -> None:
    with pytest.raises(TypeError):
        INPUTS + "x"


def test_a_program_that_imports_nothing_else_has_its_cache(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        os.environ["PERFECT_HOME"] = sys.argv[1]
        from perfect_client import flow, task
        from perfect_client.storage.cache_policies import INPUTS
        ran = []
        @task(cache_policy=INPUTS)
        def once(number): ran.append(number)
        @flow
        def twice(): once(1); once(1)
        twice()
        print(ran)
    """
    assert python("-c", code, str(tmp_path)).stdout == b"[1]\n"


def test_the_engine_asks_the_factory_and_knows_no_more() -> None:
    assert remembering.make_middleware in middleware.FACTORIES
    assert not counted([]).parts
    assert [type(part) for part in counted([], cache_policy=INPUTS).parts] == [caching.Keeping]
    assert results.home({"PERFECT_HOME": "/srv"}) == "/srv/results"
