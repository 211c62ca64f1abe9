"""Tasks for a Dask cluster: a module that its workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from perfect_client import get_run_logger, progress, task


@task
def inner(number: int) -> int:
    return number + 1


@task
def talks(number: int) -> int:
    print("printed", number)
    get_run_logger().warning("logged %d", number)
    progress(0.5, "half")
    return inner(number)


@task
def pid(number: int) -> int:
    return os.getpid()


@task
async def later(number: int) -> int:
    return number * 2


@task
def raises() -> None:
    raise ValueError("no good")


@task
def returns_a_lock() -> Any:
    import threading

    return threading.Lock()


@task
def dies(log: str) -> None:
    with open(log, "a") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)


@task(timeout_seconds=0.2)
def hangs() -> None:
    time.sleep(5)


@task(retries=2)
def fails_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        raise ValueError("the first time")
    return "again"


@task
def waits(marker: str) -> None:
    Path(marker + str(os.getpid())).touch()
    while True:
        time.sleep(0.02)
