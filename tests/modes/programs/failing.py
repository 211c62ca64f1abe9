"""Programs that fail, try again, take too long or are heard of by hooks."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Dict, List

from perfect_client import flow, task
from saying import halt, says


class Sour(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Fundamental(BaseException):
    pass


@says("before", error="ValueError: wrong")
@flow
def raises() -> None:
    print("before")
    halt(1)
    halt(2)
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("wrong") from error


@task
def breaks(kind: str) -> None:
    raise KINDS[kind]


KINDS: Dict[str, BaseException] = {
    "sour": Sour(),
    "base": Fundamental("deep"),
    "exit": SystemExit(3),
    "generator": GeneratorExit(),
    "keyboard": KeyboardInterrupt(),
    "cancelled": asyncio.CancelledError(),
    "recursion": RecursionError("too deep"),
    "stop": StopIteration(1),
    "memory": MemoryError(),
    "lines": ValueError("one\ntwo \x00 \ud800"),
}


@says(tasks=[("breaks", "FAILED")], error="Sour: <its message cannot be shown>")
@flow
def sour() -> None:
    halt(1)
    halt(2)
    breaks("sour")


@says(tasks=[("breaks", "FAILED")], error="Fundamental: deep", plain=False)
@flow
def fundamental() -> None:
    halt(1)
    halt(2)
    breaks("base")


@says(tasks=[("breaks", "FAILED")], error="SystemExit: the code called sys.exit(3)", plain=False)
@flow
def task_exits() -> None:
    halt(1)
    halt(2)
    breaks("exit")


@says("leaving", error="SystemExit: the code called sys.exit('enough')", plain=False)
@flow
def flow_exits() -> None:
    print("leaving")
    halt(1)
    halt(2)
    sys.exit("enough")


@says()
@flow
def exits_with_zero() -> None:
    halt(1)
    halt(2)
    sys.exit(0)


@says(tasks=[("breaks", "FAILED")], result="'SystemExit'")
@flow
def exits_in_a_thread() -> str:
    halt(1)
    halt(2)
    return type(breaks.submit("exit").result(raise_on_failure=False)).__name__


@says(tasks=[("breaks", "CANCELLED")], result="'Cancelled'")
@flow
def interrupted_in_a_thread() -> str:
    halt(1)
    future = breaks.submit("keyboard")
    future.wait()
    halt(2)
    return future.state.name


@says(outcome="CRASHED", plain=False, error="the flow ended with KeyboardInterrupt")
@flow
def interrupts_itself() -> None:
    halt(1)
    halt(2)
    raise KeyboardInterrupt


@says(outcome="CANCELLED", plain=False, reason="The flow ended with CancelledError.")
@flow
def cancels_itself() -> None:
    halt(1)
    halt(2)
    raise asyncio.CancelledError


@says(
    outcome="CRASHED",
    plain=False,
    tasks=[("breaks", "CANCELLED")],
    error="the flow ended with KeyboardInterrupt",
)
@flow
def task_interrupts() -> None:
    halt(1)
    halt(2)
    breaks("keyboard")


@says(
    tasks=[("breaks", "CANCELLED")],
    outcome="CANCELLED",
    plain=False,
    reason="The flow ended with GeneratorExit.",
)
@flow
def generator_exit() -> None:
    halt(1)
    halt(2)
    breaks("generator")


@says(tasks=[("breaks", "FAILED")], error="StopIteration: 1")
@flow
def stops_iterating() -> None:
    halt(1)
    halt(2)
    breaks("stop")


@says(tasks=[("breaks", "FAILED")], error="RecursionError: too deep")
@flow
def too_deep() -> None:
    halt(1)
    halt(2)
    breaks("recursion")


@says(tasks=[("breaks", "FAILED")], error="MemoryError")
@flow
def out_of_memory() -> None:
    halt(1)
    halt(2)
    breaks("memory")


@says(tasks=[("breaks", "FAILED")], error="ValueError: one\ntwo \u2400 \\ud800")
@flow
def strange_words() -> None:
    halt(1)
    halt(2)
    breaks("lines")


tried: List[Any] = []


@task(retries=3, retry_delay_seconds=[0.01, 0.02, 0.03])
def shaky(until: int) -> int:
    tried.append(until)
    print("try", len(tried))
    if len(tried) < until:
        raise ValueError("again")
    return len(tried)


@says(
    "[shaky] try 1",
    "[shaky] WARNING Task 'shaky' failed (ValueError: again); retry 1 of 3 in 0.01 s",
    "[shaky] try 2",
    "[shaky] WARNING Task 'shaky' failed (ValueError: again); retry 2 of 3 in 0.02 s",
    "[shaky] try 3",
    tasks=[("shaky", "COMPLETED", 3)],
    result="3",
)
@flow
def retries() -> int:
    tried.clear()
    halt(1)
    value = shaky(3)
    halt(2)
    return value


def only_values(task: Any, run: Any, state: Any) -> bool:
    print("asked", run.run_count, state.name, type(state.data).__name__)
    return isinstance(state.data, ValueError)


@task(retries=5, retry_condition_fn=only_values)
def fails_differently(seen: List[int]) -> None:
    seen.append(1)
    raise ValueError("once") if len(seen) == 1 else KeyError("twice")


@says(
    "[fails_differently] asked 1 Failed ValueError",
    "[fails_differently] WARNING Task 'fails_differently' failed (ValueError: once); retry 1 of 5 now",
    "[fails_differently] asked 2 Failed KeyError",
    tasks=[("fails_differently", "FAILED", 2)],
    error="KeyError: 'twice'",
)
@flow
def retries_by_condition() -> None:
    halt(1)
    halt(2)
    fails_differently([])


@says(
    "run 1",
    "WARNING Flow 'flow_retries' failed (ValueError: first); retry 1 of 1 now",
    "run 2",
    tasks=["step", "step"],
    result="2",
)
@flow(retries=1)
def flow_retries() -> int:
    tried.append(0)
    if len(tried) > 2 or not isinstance(tried[0], int):
        tried[:] = [0]
    print("run", len(tried))
    step()
    halt(len(tried))
    if len(tried) == 1:
        raise ValueError("first")
    return len(tried)


@task
def step() -> None:
    pass


@task(timeout_seconds=0.1)
def slow() -> None:
    time.sleep(1000)


@task(timeout_seconds=0.1)
async def slow_later() -> None:
    await asyncio.sleep(1000)


@says(
    "TimedOut TimedOut",
    tasks=[("slow", "FAILED"), ("slow_later", "FAILED"), ("slow", "FAILED")],
    error="TaskRunTimeoutError: Task 'slow' exceeded its timeout of 0.1 second(s)",
    reason="timed_out: Task 'slow' exceeded its timeout of 0.1 second(s)",
)
@flow
async def task_timeouts() -> None:
    first: Any = slow(return_state=True)
    halt(1)
    second: Any = await slow_later(return_state=True)
    print(first.name, second.name)
    halt(2)
    slow()


def halts(*numbers: int) -> Any:
    def hook(owner: Any, run: Any, state: Any) -> None:
        print("hook", state.name)
        for number in numbers:
            halt(number)

    return hook


@says(
    "hook Running",
    "hook TimedOut",
    tasks=[("slow_enough", "FAILED")],
    error="FlowRunTimeoutError: Flow 'flow_times_out' exceeded its timeout of 0.2 second(s)",
    reason="timed_out: Flow 'flow_times_out' exceeded its timeout of 0.2 second(s)",
)
@flow(timeout_seconds=0.2, on_running=[halts(1)], on_failure=[halts(2)])
def flow_times_out() -> None:
    slow_enough()


@task
def slow_enough() -> None:
    time.sleep(1000)


def tells(name: str) -> Any:
    def hook(owner: Any, run: Any, state: Any) -> None:
        print(name, owner.name, run.name if "with" not in owner.name else "", state.name, state.message or "")

    return hook


async def tells_later(owner: Any, run: Any, state: Any) -> None:
    await asyncio.sleep(0)
    print("later", state.name)


def hook_fails(owner: Any, run: Any, state: Any) -> None:
    raise LookupError("in the hook")


@task(on_running=[tells("running")], on_completion=[tells("completion"), hook_fails, tells_later])
def heard() -> int:
    return 1


@task(retries=1, on_running=[tells("running")], on_failure=[tells("failure")])
def heard_failing() -> None:
    raise ValueError("no good")


@task(on_cancellation=[tells("cancellation")], on_crashed=[tells("crashed")])
def heard_otherwise(which: str) -> Any:
    from perfect_client.states import Cancelled, Crashed

    return Cancelled(message="by hand") if which == "cancelled" else Crashed(message="by hand")


@says(
    "flow running Running",
    "[heard] running heard heard-0 Running ",
    "[heard] completion heard heard-0 Completed ",
    "[heard] ERROR Hook 'hook_fails' of task 'heard' failed",
    "[heard] later Completed",
    "[heard_failing] running heard_failing heard_failing-0 Running ",
    "[heard_failing] WARNING Task 'heard_failing' failed (ValueError: no good); retry 1 of 1 now",
    "[heard_failing] failure heard_failing heard_failing-0 Failed ValueError: no good",
    "[heard_otherwise] cancellation heard_otherwise heard_otherwise-0 Cancelled by hand",
    "[heard_otherwise] crashed heard_otherwise heard_otherwise-1 Crashed by hand",
    "flow completion Completed 9",
    tasks=["heard", ("heard_failing", "FAILED", 2), ("heard_otherwise", "CANCELLED"), ("heard_otherwise", "CRASHED")],
    result="9",
)
@flow(
    on_running=[lambda flow, run, state: print("flow running", state.name)],
    on_completion=[lambda flow, run, state: print("flow completion", state.name, state.result())],
)
def hooks() -> int:
    heard()
    halt(1)
    heard_failing(return_state=True)
    heard_otherwise("cancelled", return_state=True)
    halt(2)
    heard_otherwise("crashed", return_state=True)
    return 9


@says("failure ValueError: gone", error="ValueError: gone")
@flow(on_failure=[lambda flow, run, state: print("failure", state.message)])
def failing_with_a_hook() -> None:
    halt(1)
    halt(2)
    raise ValueError("gone")
