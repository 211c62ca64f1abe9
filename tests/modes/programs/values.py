"""Programs about what calls give and what decides their states."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Dict, Iterator, List, Optional

from perfect_client import BadParameter, flow, quote, runtime, task
from perfect_client.states import Cancelled, Completed, Crashed, Failed
from saying import halt, says


@task
def double(number: int) -> int:
    return number * 2


@task
def fails(text: str = "no good") -> None:
    raise ValueError(text)


@task
def around(number: int) -> int:
    print("around", number)
    return double(number) + 1


@says("begin", "[around] around 3", "end 7", tasks=["around", "double", "double"], result="{'sum': 27}")
@flow
def plain_calls() -> Dict[str, int]:
    print("begin")
    halt(1)
    inner = around(3)
    halt(2)
    print("end", inner)
    return {"sum": inner + double(10)}


@task
async def later(number: int) -> int:
    await asyncio.sleep(0)
    print("later", number)
    return number + 1


@says("[later] later 1", "[later] later 2", "[later] later 3", tasks=["later"] * 3 + ["double"], result="[[3, 4], 4]")
@flow
async def async_calls() -> Any:
    first = await later(1)
    halt(1)
    both = await asyncio.gather(later(first), later(3))
    halt(2)
    return [both, double(2)]


class Steps:
    factor = 3

    @task
    def times(self, number: int) -> int:
        return number * self.factor

    @task
    async def times_later(self, number: int) -> int:
        return number * self.factor

    @classmethod
    @task
    def of_class(cls, number: int) -> int:
        return number + cls.factor

    @staticmethod
    @task
    def of_nobody(number: int) -> int:
        return -number


@says(
    tasks=["times", "times", "times", "times", "times_later", "of_class", "of_nobody", "renamed"],
    result="[6, 6, [3, 6], 9, 4, -1, 12]",
)
@flow
def methods() -> Any:
    steps = Steps()
    one, two = steps.times(2), steps.times.submit(2).result()
    halt(1)
    mapped = steps.times.map([1, 2]).result()
    halt(2)
    rest = [steps.times_later.submit(3).result(), Steps.of_class(1), Steps.of_nobody(1)]
    return [one, two, mapped, *rest, steps.times.with_options(name="renamed")(4)]


@task
def counts(most: int) -> Iterator[int]:
    for number in range(most):
        print("give", number)
        yield number


@says(
    "[counts] give 0",
    "got 0",
    "[counts] give 1",
    "got 1",
    "[counts] give 0",
    "[counts] give 1",
    "[counts] give 2",
    "enough",
    "[counts] give 0",
    tasks=["counts", "counts", "counts"],
    result="[0, 1, 2]",
)
@flow
def generators() -> List[int]:
    for number in counts(2):
        print("got", number)
        halt(number + 1)
    listed = counts.submit(3).result()
    print("enough")
    for _ in counts(9):
        break
    return listed


@says(tasks=["double", "double"], result="[2, 4]", plain=False)
@flow
def yields() -> Iterator[int]:
    halt(1)
    yield double(1)
    halt(2)
    yield double(2)


@task
def skips() -> Any:
    return Completed(name="Skipped", message="nothing to do", data=5)


@task
def gives_up() -> Any:
    return Failed(message="enough")


@says(
    "Skipped nothing to do 5",
    "Failed enough",
    tasks=["skips", ("gives_up", "FAILED")],
    result="'done'",
)
@flow
def states_by_hand() -> str:
    state: Any = skips(return_state=True)
    print(state.name, state.message, state.result())
    halt(1)
    state = gives_up(return_state=True)
    print(state.name, state.message)
    halt(2)
    return "done"


@says(result="1", reason="all is well")
@flow
def completed_by_its_word() -> Any:
    halt(1)
    halt(2)
    return Completed(name="Fine", message="all is well", data=1)


@says(error="FailedRun: half of it is missing", reason="half of it is missing")
@flow
def failed_by_its_word() -> Any:
    halt(1)
    halt(2)
    return Failed(message="half of it is missing")


@says(outcome="CANCELLED", error="CancelledRun: not today", reason="not today")
@flow
def cancelled_by_its_word() -> Any:
    halt(1)
    halt(2)
    return Cancelled(message="not today")


@says("heard Crashed", error="CrashedRun: it fell over", reason="it fell over")
@flow(on_crashed=[lambda flow, run, state: print("heard", state.name)])
def crashed_by_its_word() -> Any:
    halt(1)
    halt(2)
    return Crashed(message="it fell over")


@says(tasks=["double", ("fails", "FAILED")], error="ValueError: no good", reason="1/2 states failed.")
@flow
def futures_returned() -> Any:
    halt(1)
    futures = [double.submit(1), fails.submit()]
    halt(2)
    return futures


@says(
    tasks=["double", "double"],
    reason="All states completed.",
    result="[Completed(type=COMPLETED), Completed(type=COMPLETED)]",
)
@flow
def good_futures_returned() -> Any:
    halt(1)
    halt(2)
    return double.map([1, 2])


@says(tasks=[("fails", "FAILED")], result="'careless'")
@flow
def failure_nobody_asks_for() -> str:
    fails.submit()
    halt(1)
    halt(2)
    return "careless"


@dataclass
class Pair:
    left: Any
    right: Any


@task
def total(given: Any) -> int:
    print(type(given["pair"]).__name__, given["list"], type(given["quoted"]).__name__)
    return sum(given["list"]) + given["pair"].left + given["pair"].right["deep"][0]


@says("[total] Pair [2, 4] PrefectFuture", tasks=["double"] * 4 + ["total"], result="26")
@flow
def futures_in_structures() -> int:
    one, two, three, four = (double.submit(number) for number in (1, 2, 4, 6))
    halt(1)
    given = {"list": [one, two], "pair": Pair(three, {"deep": (four,)})}
    halt(2)
    return total({**given, "quoted": quote(one)})


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.5


@says(
    "3 red Point(x=1, y=0.5) 2026-03-01 0:01:30 None True",
    given={
        "count": "3",
        "colour": "red",
        "point": {"x": "1"},
        "day": "2026-03-01",
        "wait": 90,
        "flag": "yes",
    },
    result="{'count': 3, 'extra': [1, 2]}",
    plain=False,
)
@flow
def parameters_coerced(
    count: int,
    colour: Colour,
    point: Point,
    day: date,
    wait: timedelta,
    flag: bool,
    nothing: Optional[str] = None,
    extra: Any = (1, 2),
) -> Dict[str, Any]:
    halt(1)
    print(count, colour.value, point, day.isoformat(), wait, nothing, flag)
    halt(2)
    return {"count": runtime.flow_run.parameters["count"], "extra": list(extra)}


@says("fast 5 2", configuration="quick", result="'quick'", plain=False)
@flow(configurations={"slow": {"limit": 10}, "quick": {"limit": 5}})
def configured(limit: int = 1, times: int = 2) -> Any:
    halt(1)
    print("fast", limit, times)
    halt(2)
    return runtime.flow_run.configuration.name


@says("slow 10", result="'slow'", plain=False)
@flow(configurations={"slow": {"limit": 10}, "quick": {"limit": 5}})
def first_configuration(limit: int = 1) -> Any:
    halt(1)
    print("slow", limit)
    halt(2)
    return runtime.flow_run.configuration.name


@says(refused="Parameter 'count' must be a whole number, not 'many'.", given={"count": "many"}, plain=False)
@flow
def parameter_refused(count: int) -> None:
    print("never")


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        halt(1)
        halt(2)
        if self.number % 2:
            raise BadParameter("number", "'number' must be even, not %d" % self.number)


@says(
    given={"even": {"number": 3}},
    plain=False,
    error="BadParameter: Parameter 'even' cannot be used: BadParameter: 'number' must be even, not 3.",
    reason="Parameter 'even' cannot be used: BadParameter: 'number' must be even, not 3.",
)
@flow
def parameter_refused_by_its_class(even: Even) -> None:
    print("never")


@task(task_run_name="double of {number}")
def named(number: int) -> str:
    return str(runtime.task_run.name)


@task(task_run_name=lambda parameters: "from %s" % sorted(parameters))
def named_by_function(first: int, second: int = 2) -> str:
    return str(runtime.task_run.name)


@says(
    "walk 7 ['double of 7', \"from ['first', 'second']\", 'tells_its_name-0']",
    tasks=["double of 7", "from ['first', 'second']", "double", "tells_its_name"],
    given={"number": 7},
    result="7",
)
@flow(flow_run_name="walk {number}")
def names(number: int) -> int:
    halt(1)
    found = [named(number), named_by_function(1)]
    double(1)
    found.append(tells_its_name())
    halt(2)
    print(runtime.flow_run.name, found)
    return number


@task
def tells_its_name() -> str:
    return str(runtime.task_run.name)
