"""Flows that write down which of their hooks were called, outside of what the worker tells."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from typing import Any, Callable, Dict

from perfect_client import flow, get_run_logger, runtime


def note(flow: Any, run: Any, state: Any) -> None:
    with open(run.parameters["path"], "a") as notes:
        notes.write("%s %s %s\n" % (flow.name, state.type, state.name))


def tell(flow: Any, run: Any, state: Any) -> None:
    note(flow, run, state)
    print("hook heard", state.name)
    get_run_logger().warning("because %s", state.message)
    print("of", run.id, run.name, runtime.flow_run.id == run.id, runtime.flow_run.ui_url)


async def tell_later(flow: Any, run: Any, state: Any) -> None:
    note(flow, run, state)


ALL = {
    name: [tell] for name in ("on_completion", "on_failure", "on_cancellation", "on_crashed")
}  # whatever the end is, it is noted


def _loop_in_c() -> None:
    sum(range(10**12))


def _wait() -> None:
    time.sleep(1000)


def _segfault() -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


HOW: Dict[str, Callable[[], Any]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": _segfault,
    "exits": lambda: os._exit(3),
    "waits": _wait,
    "loops": _loop_in_c,
    "fails": lambda: 1 // 0,
}


@flow(flow_run_name="by {how}", **ALL)
def ends(how: str, path: str) -> None:
    print("begun", flush=True)
    HOW[how]()


@flow(timeout_seconds=0.2, **ALL)
def takes_too_long(path: str) -> None:
    _loop_in_c()


@flow(on_crashed=[tell_later])
def told_later(path: str) -> None:
    os._exit(1)


def hang(flow: Any, run: Any, state: Any) -> None:
    note(flow, run, state)
    print("hanging", flush=True)
    time.sleep(1000)


def die(flow: Any, run: Any, state: Any) -> None:
    note(flow, run, state)
    os.kill(os.getpid(), signal.SIGKILL)


@flow(on_crashed=[hang, tell])
def hangs_in_its_hook(path: str) -> None:
    os._exit(1)


@flow(on_crashed=[die, tell])
def dies_in_its_hook(path: str) -> None:
    os._exit(1)


@flow(on_cancellation=[hang])
def hangs_in_its_own_hook(path: str) -> None:
    print("begun", flush=True)
    _wait()


@flow(on_completion=[die], on_crashed=[tell])
def dies_after_its_end(path: str) -> None:
    print("begun", flush=True)


@flow
def has_no_hooks(path: str) -> None:
    os._exit(1)


@flow(**ALL)
def calls_another(how: str, path: str) -> None:
    ends(how, path)


@flow(**ALL)
def calls_one_that_hangs(path: str) -> None:
    hangs_in_its_own_hook(path)
