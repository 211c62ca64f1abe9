"""Flows that keep a ledger outside Perfect: what they really did, to hold against what the database says."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from perfect_client import RunInput, Secret, Variable, flow, get_run_logger, pause_flow_run, progress, runtime, task
from perfect_client.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_plot_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from perfect_client.concurrency import concurrency, rate_limit
from perfect_client.task_runners import ProcessPoolTaskRunner

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


@flow(name="Mapped")
def mapped(tasks: int = 10_000) -> float:
    """How many MiB the run has grown by."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(nothing.map(range(tasks)).result()) == sum(range(tasks))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@flow(name="Asks often")
def asks_often(times: int = 50) -> float:
    """How many milliseconds a question and its answer take."""
    begun = time.perf_counter()
    for _ in range(times):
        Variable.get("nobody-set-this")
    return (time.perf_counter() - begun) / times * 1000


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


class Approval(RunInput):
    ok: bool
    why: str = "because"


@flow(name="Asks a person")
def asks_a_person() -> str:
    tell(start=True)
    answer = pause_flow_run(wait_for_input=Approval.with_initial_data(description="Ship it?"), timeout=60)
    say(f"ledger {answer.ok} {answer.why}")
    pause_flow_run(timeout=60, key="again")
    tell(end=True)
    return str(answer.ok)


@flow(name="Holds a slot")
def holds_a_slot(gate: str = "slot") -> None:
    tell(start=True)
    with concurrency("db"):
        say("ledger holds")
        wait_for_gate(GATE.with_name(gate))
    tell(end=True)


@flow(name="Shares a variable")
def shares_a_variable(number: int = 1) -> int:
    tell(start=True)
    before = Variable.get("journey", default=0)
    Variable.set("journey", before + number, overwrite=True)
    tell(end=True)
    return before + number


@task
def in_a_process(number: int) -> int:
    with concurrency("db"):
        rate_limit("api")
        return Variable.get("journey", default=0) + number


@flow(name="Asks from processes", task_runner=ProcessPoolTaskRunner(max_workers=2))
def asks_from_processes() -> int:
    tell(start=True)
    found = sum(in_a_process.map([1, 2, 3]).result())
    tell(end=True)
    return found


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


def noise(size: int) -> bytes:
    """A picture to the eye of whoever looks at its first bytes; the same in every process."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(number.to_bytes(4, "big") for number in range(size // 4))


PASSWORD = Secret("hunter-two-and-more")
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 120" width="320" height="120">
<script>document.documentElement.id = "hacked"</script><rect width="320" height="120" fill="#fff"/>
<polyline points="10,100 80,60 150,75 220,30 310,15" fill="none" stroke="#0a7" stroke-width="4"/></svg>"""
REPORT = """# Sales of the week

Revenue rose by **12 %**; see [the data](https://example.org/data) and ![the logo](https://example.org/logo.png).

| region | revenue | growth |
|:-------|--------:|:------:|
| North  |  1,200  |  4 %   |
| South  |    980  | 21 %   |

- the best day was *Tuesday*
- `returns` were few

> No customer was lost. <script>alert(1)</script>
"""


@task
def bars(gate: str) -> None:
    made = create_progress_artifact(0, key="rows", description="Rows of the warehouse that are checked")
    for percent in range(100):
        update_progress_artifact(made, percent / 2)
    say("ledger bars")
    wait_for_gate(GATE.with_name(gate))
    update_progress_artifact(made, 87.5)


@flow(name="Shows")
def shows(gate: str = "shows") -> str:
    """An artifact of each kind: before a gate, and behind it."""
    tell(start=True)
    create_markdown_artifact(REPORT, key="report", description="What the week brought")
    names = ["customer", "city", "orders", "revenue", "first_order", "last_order", "returns", "open", "score", "note"]
    rows = [
        [f"customer {n}", "Springfield", n, n * 12.5, "2026-01-02", None, 0, n % 2 == 0, n / 7, "a note " * 4]
        for n in range(5_000)
    ]
    create_table_artifact([dict(zip(names, row)) for row in rows], key="worst-customers")
    bars(gate)
    create_link_artifact("https://example.org/dashboard", "The dashboard", description="For those who want more")
    create_plot_artifact(SVG, key="curve", description="Revenue by day")
    create_plot_artifact(noise(1_500_000), key="noise")
    create_image_artifact("https://example.org/picture.png", key="elsewhere")
    create_markdown_artifact(
        "x" * (96 * 1024 - 9) + PASSWORD.get() + " is said on the border of two parts", key="border"
    )
    tell(end=True)
    return "shown"


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


@flow(name="Stamp fresh", start="fresh")
def stamp_fresh(path: str) -> None:
    """The same in a process that imports this file itself."""
    Path(path).write_text(repr(time.time()))


@flow
def hesitates(path: str) -> None:
    """Half a line, then nothing until there is a file; raw output between two prints."""
    print("a")
    os.write(1, b"b\n")
    print("c")
    subprocess.run(["echo", "d"], check=True)
    print("loading model... ", end="", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    print("done")
