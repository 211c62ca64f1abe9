"""Flows that write an outside ledger: an append-only file, one line for each start, step, printed line and end."""

from __future__ import annotations

import json
import os
import signal
import time

from perfect_client import flow, get_run_logger, runtime, task

LEDGER = os.environ.get("CHAOS_LEDGER", os.devnull)


def tell(**entry: object) -> None:
    """One line by one write: O_APPEND keeps the lines of concurrent runs whole. ``at`` is the machine's monotonic time,
    in seconds, which no jump of the wall clock moves."""
    line = json.dumps({"run": runtime.flow_run.id, "at": time.monotonic(), "pid": os.getpid(), **entry}) + "\n"
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


def say(text: str) -> None:
    tell(line=text)
    print(text)


@task
def step(number: int, lines: int, pause: float) -> None:
    tell(step=number)
    for line in range(lines):
        if line == lines // 2:
            tell(raw="raw %d" % number)
            os.write(1, b"raw %d\n" % number)
        if line % 50 == 49:
            get_run_logger().info("logged")
        say("ledger %d.%d" % (number, line))
    time.sleep(pause)


@task
def beside(number: int, pause: float) -> int:
    tell(step=number)
    time.sleep(pause)
    return number


@flow(name="Work")
def work(steps: int = 3, lines: int = 10, pause: float = 0.1, end: str = "return") -> int:
    """Say lines, step by step, and end as ``end`` says: return, raise, exit, vanish or die."""
    tell(start=True)
    for number in range(steps):
        step(number, lines, pause)
    tell(end=True, how=end)
    if end == "raise":
        raise LookupError("as was asked")
    if end == "exit":
        os._exit(3)
    if end == "vanish":
        os._exit(0)
    if end == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    return steps * lines


@flow(name="Family")
def family(steps: int = 2, lines: int = 5, pause: float = 0.1) -> int:
    """Call a flow twice, each call a sub-run, and tasks beside each other."""
    tell(start=True)
    found = work(steps, lines, pause) + work(steps, lines, pause)
    futures = [beside.submit(number, pause) for number in range(100, 100 + steps)]
    found += sum(future.result() for future in futures)
    tell(end=True, how="return")
    return found


@flow(name="Tick")
def tick() -> None:
    """What the schedule fires."""
    tell(start=True)
    say("ledger tick")
    tell(end=True, how="return")


@flow(name="Quick")
def quick() -> int:
    """What the soak runs: a task, a line, a number."""
    step(0, 2, 0.0)
    return 1
