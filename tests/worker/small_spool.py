"""Flows that print more than their spool takes, which is small here."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from perfect_client import flow
from perfect_client.journal import spool

spool.CAP_BYTES = spool.RESERVED_BYTES + 200_000

WAYS_TO_DIE = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "leaves 0": lambda: os._exit(0),
    "raises": lambda: 1 / 0,
    "returns": lambda: None,
}


@flow
def floods(lines: int, die: str) -> None:
    for number in range(lines):
        print("line", number, "x" * 200)
    WAYS_TO_DIE[die]()


@flow
def floods_until_killed(after: float) -> None:
    """Killed from outside, at no particular line."""
    if os.fork() == 0:
        time.sleep(after)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(0)
    number = 0
    while True:
        print("line", number, "x" * 500)
        number += 1
