"""Flows that behave, and flows that do what a worker must survive."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

from perfect_client import flow, task


@task
def double(number: int) -> int:
    return number * 2


@flow
def hello(name: str = "world") -> str:
    print("hello", name)
    return str(double(21))


@flow
def fails() -> None:
    raise ValueError("no such luck")


@flow
def segfaults() -> None:
    os.write(2, b"about to fall\n")
    ctypes.string_at(0)


@flow
def leaves(code: int) -> None:
    os._exit(code)


@flow
def exits(code: int) -> None:
    sys.exit(code)


@flow
def spins() -> None:
    print("spinning", flush=True)
    while True:
        pass


@flow
def tidies() -> None:
    try:
        print("working", flush=True)
        time.sleep(1000)
    finally:
        print("tidied")


@flow
def ignores_stop() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    while True:
        time.sleep(1000)


@flow
def counts_in_c() -> None:
    print("counting", flush=True)
    sum(range(10**12))


@flow
def has_grandchildren(path: str) -> None:
    """A plain child, one in a session of its own, one that only forked and left the session."""
    subprocess.Popen(["sleep", "1000"])
    away = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    forked = os.fork()
    if forked == 0:
        os.setsid()
        time.sleep(1000)
        os._exit(0)
    with open(path, "w") as file:
        file.write(f"{os.getpid()} {away.pid} {forked}")
    print("family", flush=True)
    time.sleep(1000)


@flow
def leaves_a_daemon(path: str) -> None:
    """Returns while something it started goes on with its stdout open."""
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(path, "w") as file:
        file.write(str(daemon.pid))


@flow
def writes_past_python(megabytes: int) -> None:
    line = b"x" * 99 + b"\n"
    for _ in range(megabytes):
        os.write(1, line * 10_000)
        # what remains of a short write is the kernel's business: the pipe is blocking, so there is none


@flow
def prints(lines: int) -> None:
    for number in range(lines):
        print("line", number)


@flow
def waits_for(path: str, before: int = 3, after: int = 3) -> str:
    """Prints, waits for a file, prints again."""
    for number in range(before):
        print("before", number)
    print("waiting", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    for number in range(after):
        print("after", number)
    return "done"


@flow
def hangs_at_exit() -> None:
    threading.Thread(target=time.sleep, args=(1000,)).start()


@flow
def shows_itself() -> str:
    return f"{os.environ['PERFECT_RUN']} {os.getpid() == os.getsid(0)} {len(os.read(0, 1))}"


@flow(timeout_seconds=0.3)
def takes_too_long(how: str) -> None:
    print("busy", flush=True)
    WAYS[how]()


@task(timeout_seconds=0.3)
def too_slow(how: str) -> None:
    WAYS[how]()


@flow
def has_a_slow_task(how: str) -> None:
    print("busy", flush=True)
    too_slow(how)


@flow
def has_a_slow_task_in_a_thread(how: str) -> None:
    print("busy", flush=True)
    future = too_slow.submit(how)
    future.wait()
    print("after it", future.state.name, flush=True)
    time.sleep(1000)


@flow(timeout_seconds=0.3)
async def blocks_its_loop() -> None:
    print("busy", flush=True)
    time.sleep(1000)


@flow
def hears_of_its_end() -> None:
    print("working", flush=True)
    time.sleep(1000)


@hears_of_its_end.on_cancellation
def say_so(flow: object, flow_run: object, state: object) -> None:
    print("hook", getattr(state, "name", ""))


def _swallow() -> None:
    while True:
        try:
            time.sleep(1000)
        except Exception:
            print("never mind", flush=True)


def _with_a_child() -> None:
    subprocess.run(["sleep", "1000"])


def _count_in_c() -> None:
    sum(range(10**12))


def _sleep() -> None:
    time.sleep(1e6)


def _loop() -> None:
    while True:
        pass


def _ignore_stop() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _swallow()


@task
def sleeps_long() -> None:
    time.sleep(1e6)


@flow
def sleeps_below() -> None:
    sleeps_long()


@flow
def calls_one_that_sleeps() -> None:
    print("working", flush=True)
    sleeps_below()


def _in_a_pool_thread() -> None:
    sleeps_long.submit().wait()


def _with_a_grandchild() -> None:
    subprocess.Popen(["sh", "-c", "setsid sleep 1000 & wait"], start_new_session=True).wait()


WAYS = {
    "sleeps": _sleep,
    "swallows": _swallow,
    "counts_in_c": _count_in_c,
    "waits_for_a_child": _with_a_child,
    "loops": _loop,
    "ignores_stop": _ignore_stop,
    "in_a_pool_thread": _in_a_pool_thread,
    "waits_for_a_grandchild": _with_a_grandchild,
}


@flow
def does(how: str) -> None:
    print("busy", flush=True)
    WAYS[how]()


@task
def reads(path: str) -> str:
    print("reading", path)
    return "content"


@task
def checks(content: str, path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError("not there yet")
    return content.upper()


@task
def hangs_until(path: str) -> None:
    print("hanging", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)


@flow
def resumable(path: str) -> str:
    return checks(reads("source"), path)


@flow
def killable(path: str) -> str:
    content = reads("source")
    hangs_until(path)
    return content


def _spin() -> None:
    while True:
        pass


def _nap() -> None:
    while True:
        time.sleep(0.05)


def _wait_for_another() -> None:
    tidies_in_a_pool.submit("naps").result()


def _in_a_sub_flow() -> None:
    pooled_below()


def _print() -> None:
    while True:
        print("noise")
        time.sleep(0.001)


@task
def tidies_in_a_pool(how: str) -> None:
    try:
        print("busy", how, flush=True)
        POOLED[how]()
    finally:
        print("tidied", how)


@task(timeout_seconds=1000)
def tidies_with_a_deadline(how: str) -> None:
    try:
        print("busy with a deadline", flush=True)
        POOLED[how]()
    finally:
        print("tidied with a deadline")


@task
async def tidies_in_a_loop() -> None:
    try:
        print("busy in a loop", flush=True)
        await asyncio.sleep(1000)
    finally:
        print("tidied in a loop")


@flow
def pooled_below() -> None:
    tidies_in_a_pool.submit("spins").result()


@flow
def pooled() -> None:
    """Tasks in threads that can be told, in each way that they may stand."""
    for how in ("spins", "naps", "prints", "waits", "sub-flow"):
        tidies_in_a_pool.submit(how)
    tidies_with_a_deadline.submit("spins")
    tidies_in_a_loop.submit()


@pooled.on_cancellation
def pooled_hears(flow: object, flow_run: object, state: object) -> None:
    print("hook", getattr(state, "name", ""))


@flow
def pooled_in_c() -> None:
    tidies_in_a_pool.submit("naps")
    tidies_in_a_pool.submit("c")


POOLED = {
    "spins": _spin,
    "naps": _nap,
    "prints": _print,
    "waits": _wait_for_another,
    "sub-flow": _in_a_sub_flow,
    "c": _sleep,
}


@flow(timeout_seconds=1.5)
def outlives_its_time_with_a_family() -> None:
    print("busy", flush=True)
    _with_a_grandchild()
