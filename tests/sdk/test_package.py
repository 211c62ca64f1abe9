"""The package itself: light to import, typed, made of the standard library alone."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any, List

import perfect_client
import pytest
from perfect_client import flow, task
from perfect_client.execution import executor
from perfect_client.wire import messages

from tests.sdk.story import python

PACKAGE = Path(perfect_client.__file__).parent
HEAVY = {"socket", "ssl", "asyncio", "subprocess", "multiprocessing", "dataclasses", "inspect", "decimal", "pathlib"}


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import perfect_client; print(*(set(sys.modules) - before))"
    loaded = python("-S", "-c", code).stdout.decode().split()

    assert not HEAVY & set(loaded)
    assert {name for name in loaded if name.startswith("perfect_client.")} <= {
        "perfect_client." + name
        for name in (
            "caching",
            "caching.remembering",
            "caching.transacting",
            "core",
            "core.context",
            "core.fast_path",
            "core.importing",
            "core.listeners",
            "core.middleware",
            "core.progress",
            "core.run_logger",
            "core.runtime",
            "core.schedules",
            "engine",
            "engine.decorated",
            "engine.decorators",
            "engine.options",
            "errors",
        )
    }


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        perfect_client.nothing


def test_the_wheel_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


TYPED = """
from perfect_client import Flow, Task, flow, task

@task
def plain(a: int) -> str:
    return str(a)

@task(weight=2)
def weighted(a: int, b: str = "") -> float:
    return 1.0

@task
async def later(a: int) -> str:
    return ""

class Steps:
    @task
    def step(self, a: int) -> bytes:
        return b""

@flow(name="F")
def whole(x: int = 1) -> str:
    reveal_type(plain(x))
    reveal_type(weighted(1, b="x"))
    reveal_type(Steps().step(1))
    plain("wrong")
    Steps().step("wrong")
    return plain(x)

async def main() -> None:
    reveal_type(await later(1))

reveal_type(whole())
whole(y=1)
task(weight="heavy")
"""


def test_decorators_keep_the_signature_for_type_checkers(tmp_path: Path) -> None:
    if shutil.which("mypy") is None and not (Path(sys.executable).parent / "mypy").exists():
        pytest.skip("mypy is not installed")
    (tmp_path / "typed.py").write_text(TYPED)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", "cache", "typed.py"],
        cwd=str(tmp_path),
        env={"MYPYPATH": str(PACKAGE.parent), "PATH": ""},
        stdout=subprocess.PIPE,
    )
    told = done.stdout.decode()

    revealed = [line.split('"')[1] for line in told.splitlines() if "Revealed type" in line]
    errors = [int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line]
    assert [name.replace("builtins.", "") for name in revealed] == ["str", "float", "bytes", "str", "str"], told
    assert [TYPED.splitlines()[line - 1].strip() for line in errors] == [
        'plain("wrong")',
        'Steps().step("wrong")',
        "whole(y=1)",
        'task(weight="heavy")',
    ], told


# ---------------------------------------------------------------------------------------------------- what calls cost


@task
def nothing() -> None: ...


def test_a_direct_call_costs_a_few_microseconds() -> None:
    seconds = min(timeit.repeat(nothing, number=2000, repeat=5)) / 2000

    assert seconds < 10e-6  # about 0.3 µs on an idle machine


def test_a_recorded_call_costs_some_tens_of_microseconds() -> None:
    taken: List[float] = []
    records: List[bytes] = []

    @flow
    def many() -> None:
        taken.append(min(timeit.repeat(nothing, number=200, repeat=5)) / 200)

    def emit(fact: Any) -> None:
        records.append(messages.encode_fact(fact))

    executor.execute(many, messages.OfferRun(1, "r", "many"), emit)

    assert taken[0] < 250e-6  # about 20 µs on an idle machine, encoding included


def test_a_recorded_call_with_options_costs_little_more() -> None:
    taken: List[float] = []
    again = nothing.with_options(retries=1)

    @flow
    def many() -> None:
        taken.append(min(timeit.repeat(again, number=200, repeat=5)) / 200)

    many()

    assert taken[0] < 250e-6  # about 23 µs on an idle machine


MAPPED = """
import resource, time
from perfect_client import flow, task
from perfect_client.execution import executor
from perfect_client.wire import messages

@task
def nothing(number): return number

@flow
def mapped():
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert len(nothing.map(range(10_000)).result()) == 10_000
    return [time.monotonic() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]

records = []
def emit(fact):
    records.append(len(messages.encode_fact(fact)))
    if type(fact) is messages.RunEnded: print(fact.result)
executor.execute(mapped, messages.OfferRun(1, "r", "mapped"), emit)
"""


def test_ten_thousand_mapped_tasks_are_quick_and_small() -> None:
    seconds, megabytes = ast.literal_eval(python("-c", MAPPED).stdout.decode())

    assert seconds < 12  # about 1.5 s on an idle machine; the promise is 3
    assert megabytes < 60  # about 9
