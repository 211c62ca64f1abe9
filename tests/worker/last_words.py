"""Flows whose process dies in every way, after it wrote its last text in every way."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time

from perfect_client import flow, task


def _flushed(text: str) -> None:
    print(text, end="", flush=True)


def _written(text: str) -> None:
    sys.stdout.write(text)


def _in_pieces(text: str) -> None:
    for letter in text:
        print(letter, end="")
    sys.stdout.flush()


def _redrawn(text: str) -> None:
    for number in range(5):
        sys.stdout.write("\r%d of 5" % number)
        sys.stdout.flush()
    sys.stdout.write("\r" + text)


def _bytes(text: str) -> None:
    sys.stdout.buffer.write(text.encode())


def _raw(text: str) -> None:
    os.write(1, text.encode())


def _by_a_child(text: str) -> None:
    subprocess.run(["printf", "%s", text], check=True)


def _whole(text: str) -> None:
    print(text)


WAYS_TO_WRITE = {
    "flushed": _flushed,
    "written": _written,
    "in pieces": _in_pieces,
    "redrawn": _redrawn,
    "bytes": _bytes,
    "raw": _raw,
    "by a child": _by_a_child,
    "whole": _whole,
}


def _too_much() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    bytearray(1 << 31)


def _sleep() -> None:
    time.sleep(1000)


def _raise() -> None:
    raise ValueError("the end")


WAYS_TO_DIE = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "leaves 0": lambda: os._exit(0),
    "leaves 3": lambda: os._exit(3),
    "raises": _raise,
    "exits": lambda: sys.exit(3),
    "exits well": sys.exit,
    "returns": lambda: None,
    "too much": _too_much,
    "sleeps": _sleep,
}


@flow
def last_words(write: str, die: str, text: str) -> None:
    print("first")
    WAYS_TO_WRITE[write](text)
    WAYS_TO_DIE[die]()


@flow(timeout_seconds=0.5)
def last_words_in_time(write: str, text: str) -> None:
    print("first")
    WAYS_TO_WRITE[write](text)
    time.sleep(1000)


@task
def speak_and_die(write: str, die: str, text: str) -> None:
    WAYS_TO_WRITE[write](text)
    WAYS_TO_DIE[die]()


@flow
def last_words_of_a_task(write: str, die: str, text: str) -> None:
    speak_and_die(write, die, text)


@flow
def says_then_waits(write: str, text: str, path: str, rest: str = "done\n") -> None:
    print("first")
    WAYS_TO_WRITE[write](text)
    while not os.path.exists(path):
        time.sleep(0.01)
    if write in ("raw", "by a child"):
        os.write(1, rest.encode())
    else:
        sys.stdout.write(rest)


@flow
def floods_raw(path: str, lines: int, rest: str = "") -> None:
    """As many lines as there are written by turns to stdout and stderr; each is counted in the file before."""
    with open(path, "ab", buffering=0) as ledger:
        for number in range(lines):
            ledger.write(b"%d\n" % number)
            os.write(1 + number % 2, b"raw %d\n" % number)
        for fd in (1, 2) if rest else ():
            os.write(fd, rest.encode())
        ledger.write(b"all\n")
        time.sleep(1000)


@flow
def bar(path: str, refreshes: int) -> None:
    for number in range(refreshes):
        sys.stderr.write("\r%3d%%|" % number)
        sys.stderr.flush()
    while not os.path.exists(path):
        time.sleep(0.01)
    sys.stderr.write("\r100%|\n")


@flow
def in_turns(times: int, how: str) -> None:
    for number in range(times):
        print("told", number)
        if how == "raw":
            os.write(1 + number % 2, b"raw %d\n" % number)
        else:
            subprocess.run(["echo", "raw", str(number)], check=True)
    print("end")


def _count(name: str, lines: int) -> None:
    for number in range(lines):
        print(name, "line", number)


def _count_long(name: str, lines: int) -> None:
    for number in range(lines):
        print(name, number, name * 9000)


@flow
def children_print(lines: int, long: bool = False) -> None:
    import multiprocessing

    ways = multiprocessing.get_context("fork")
    target = _count_long if long else _count
    children = [ways.Process(target=target, args=("abcd"[n], lines)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
