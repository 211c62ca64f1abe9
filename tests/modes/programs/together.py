"""Programs in which things happen at the same time, or inside one another."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Dict, List

from perfect_client import allow_failure, flow, get_run_logger, progress, runtime, task, unmapped
from perfect_client.futures import as_completed, wait
from perfect_client.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from saying import halt, says


@task
def double(number: int, more: int = 0) -> int:
    return number * 2 + more


@task
def fails(text: str = "no good") -> None:
    raise ValueError(text)


@says(
    "[1, 3, 5]",
    "2 done, 0 not done",
    "[2, 4]",
    tasks=["double"] * 5,
    result="12",
)
@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def threads() -> int:
    mapped = double.map(range(3), more=unmapped(1))
    print(mapped.result())
    halt(1)
    futures = [double.submit(1), double.submit(2)]
    done, not_done = wait(futures)
    print("%d done, %d not done" % (len(done), len(not_done)))
    halt(2)
    values = sorted(future.result() for future in as_completed(futures))
    print(values)
    return sum(values) + 6


@task
def far_away(number: int) -> int:
    print("far", number)
    progress(0.5, "half of %d" % number)
    get_run_logger().warning("away %d", number)
    return double(number)


@says(
    "[far_away] far 4",
    "[far_away] WARNING away 4",
    "[far_away] far 5",
    "[far_away] WARNING away 5",
    tasks=["far_away", "double", "far_away", "double", ("fails", "FAILED")],
    result="[8, 10, 'ValueError']",
    plain=False,  # what other processes print is not for this one's terminal alone
)
@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def processes() -> Any:
    first = far_away.submit(4)
    first.wait()
    halt(1)
    second = far_away.submit(5)
    second.wait()
    halt(2)
    wrong = fails.submit()
    return [first.result(), second.result(), type(wrong.result(raise_on_failure=False)).__name__]


@task
def tidies(given: Any) -> str:
    return type(given).__name__


@says(
    "NotReady NotReady Completed",
    tasks=[("fails", "FAILED"), ("double", "SKIPPED"), ("double", "SKIPPED"), "tidies"],
    result="'ValueError'",
)
@flow
def what_waits_for_a_failure() -> str:
    wrong = fails.submit()
    wrong.wait()
    halt(1)
    by_argument, by_wait = double.submit(wrong), double.submit(1, wait_for=[wrong])
    wait([by_argument, by_wait])
    anyhow = tidies.submit(allow_failure(wrong))
    anyhow.wait()
    halt(2)
    print(by_argument.state.name, by_wait.state.name, anyhow.state.name)
    return anyhow.result()


@says(tasks=[("fails", "FAILED")], error="ValueError: no good")
@flow
def failure_asked_for() -> None:
    future = fails.submit()
    future.wait()
    halt(1)
    halt(2)
    future.result()


@task(crucial=False)
def optional() -> int:
    raise ValueError("no matter")


@says(
    "None None [None, 4]",
    tasks=[("optional", "FAILED"), ("optional", "FAILED"), "double"],
    result="'went on'",
)
@flow
def not_crucial() -> str:
    halt(1)
    called, submitted = optional(), optional.submit()
    halt(2)
    print(called, submitted.result(), [submitted.result(), double.submit(2).result()])
    return "went on"


@flow
def inner(number: int) -> int:
    print("inner", number, runtime.flow_run.flow_name)
    return double(number)


@flow(name="inner that fails")
def inner_failing() -> None:
    double(1)
    raise LookupError("inside")


@flow
async def inner_later(number: int) -> int:
    await asyncio.sleep(0)
    return double(number)


@says(
    "[inner] inner 1 inner",
    "Failed LookupError: inside",
    "6",
    tasks=["inner", "double", ("inner that fails", "FAILED"), "double", "inner_later", "double"],
    result="2",
)
@flow
async def sub_flows() -> int:
    first = inner(1)
    halt(1)
    state: Any = inner_failing(return_state=True)
    print(state.name, state.message)
    halt(2)
    print(await inner_later(3))
    return first


@says(
    tasks=[("inner that fails", "FAILED"), "double"],
    error="LookupError: inside",
)
@flow
def sub_flow_fails_it() -> None:
    halt(1)
    halt(2)
    inner_failing()


@task
def from_a_thread(found: List[int]) -> None:
    print("in a thread")
    found.append(double(5))


@says("[from_a_thread] in a thread", "[10]", tasks=["from_a_thread", "double"])
@flow
def own_threads() -> None:
    found: List[int] = []
    halt(1)
    thread = threading.Thread(target=from_a_thread, args=(found,))
    thread.start()
    thread.join()
    halt(2)
    print(found)


@says(tasks=["double"] * 60, result="{'sum': 3540}")
@flow
def many() -> Dict[str, int]:
    first = double.map(range(30)).result()
    halt(1)
    second = [double(number) for number in range(30, 60)]
    halt(2)
    return {"sum": sum(first) + sum(second)}
