"""Flows that keep a ledger outside Perfect: what they really did, to hold against what the database says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from perfect_client import flow, get_run_logger, progress, runtime, task

LEDGER = Path(os.environ.get("JOURNEY_LEDGER", "/dev/null"))
GATE = Path(os.environ.get("JOURNEY_GATE", "/nonexistent"))


def tell(**entry: object) -> None:
    """One line, one write: concurrent runs do not mix."""
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps({"run": runtime.flow_run.id, **entry}) + "\n")


def say(text: str) -> None:
    tell(line=text)
    print(text)


def wait_for_gate(gate: Path = GATE) -> None:
    """Until the journey opens the gate; it watches, and it gives up after a minute."""
    end = time.monotonic() + 60
    while not gate.exists() and time.monotonic() < end:
        time.sleep(0.01)


@task(weight=1)
def talk(lines: int) -> None:
    for number in progress.track(range(lines)):
        say(f"ledger {number}")


@task(weight=3)
def hold() -> None:
    say("ledger at the gate")
    wait_for_gate()


@flow(name="Steady")
def steady(lines: int = 20) -> int:
    tell(start=True)
    talk(lines)
    tell(end=True)
    return lines


@flow(name="Gated")
def gated(lines: int = 20) -> str:
    tell(start=True)
    talk(lines)
    hold()
    talk(lines)
    tell(end=True)
    return "through"


@task(weight=2)
def climb(steps: int, gate: str) -> None:
    """Step by step, each behind a gate of its own: the journey sees every value before the next one comes."""
    for number in range(steps):
        progress(number / steps)
        say(f"ledger step {number}")
        wait_for_gate(GATE.with_name(f"{gate}-{number}"))


@flow(name="Climb", configurations={"short": {"steps": 3}, "long": {"steps": 5}})
def climbing(steps: int = 4, gate: str = "climb") -> int:
    """A slow walk up, which a person follows with their eyes."""
    tell(start=True)
    climb(steps, gate)
    tell(end=True)
    return steps


@flow(name="Expedition")
def expedition(gate: str = "expedition") -> int:
    """A walk, and then a climb that is a flow of its own."""
    tell(start=True)
    talk(3)
    found = climbing(4, gate)
    tell(end=True)
    return found


@task
def nothing(number: int) -> int:
    return number


@flow(name="Thousand")
def thousand(tasks: int = 1000) -> int:
    return sum(nothing(number) for number in range(tasks))


@flow(name="One task")
def one_task() -> int:
    return nothing(1)


@task
def shout(lines: int) -> None:
    for number in range(lines):
        print(f"line {number}")


@flow(name="Chatter")
def chatter(lines: int = 10_000) -> None:
    shout(lines)


@task
def spin() -> None:
    tell(start=True, pid=os.getpid())
    sum(range(10**13))


@flow(name="C loop")
def c_loop() -> None:
    spin()


@flow(name="Grandchild")
def grandchild() -> None:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    tell(start=True, pid=child.pid)
    child.wait()


@flow(name="Raises")
def raises(text: str = "no such table") -> None:
    get_run_logger().error("about to raise")
    raise LookupError(text)


@flow(name="Vanishes")
def vanishes(code: int = 0) -> None:
    print("last words", flush=True)
    os.write(1, b"raw last words\n")
    os._exit(code)


@flow(name="Strange output")
def strange() -> None:
    print("nul \x00, lone \ud800, \x1b[31mred\x1b[0m, \U0001f642, " + "x" * 40_000)
    sys.stdout.buffer.write(b"\xff\xfe raw\n")
    os.write(1, b"\xff\xfe rawer\n")


@flow(name="Inner")
def inner(lines: int = 3, gated: bool = False) -> int:
    tell(start=True, above=runtime.flow_run.parent_flow_run_id, root=runtime.flow_run.root_flow_run_id)
    talk(lines)
    if gated:
        hold()
    tell(end=True)
    return lines


@flow(name="Middle")
def middle(lines: int = 3, gated: bool = False) -> int:
    tell(start=True, above=runtime.flow_run.parent_flow_run_id)
    say("ledger middle")
    found = inner(lines, gated)
    tell(end=True)
    return found


@flow(name="Outer")
def outer(times: int = 3, gated: bool = False) -> int:
    """Calls one flow again and again, and at last one that calls another."""
    tell(start=True)
    found = sum(inner(number) for number in range(times))
    say("ledger outer")
    found += middle(2, gated)
    tell(end=True)
    return found


@flow(name="Typed")
def typed(count: int, factor: float = 1.5, label: str = "a", mode: str = "fast") -> str:
    return f"{count} {factor} {label} {mode}"


@flow(name="Stamp")
def stamp(path: str) -> None:
    """Its first line of user code says when it began: the measure of a start."""
    Path(path).write_text(repr(time.time()))
