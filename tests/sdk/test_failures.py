"""What exceptions and results look like in a fact: short, clean, and never the cause of another failure."""

from __future__ import annotations

import sqlite3
import sys
from collections import OrderedDict, deque
from typing import Any

import pytest
from perfect_client.core.previews import error_text, is_interruption, preview, traceback_text


def caught(raiser: Any) -> BaseException:
    try:
        raiser()
    except BaseException as error:
        return error
    raise AssertionError


def chained() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (sqlite3.OperationalError("locked"), "OperationalError: locked"),
        (SystemExit(2), "SystemExit: the code called sys.exit(2)"),
        (ValueError("a\x00b\ud800"), "ValueError: a\u2400b\\ud800"),
    ],
)
def test_an_error_is_its_type_and_message(error: BaseException, text: str) -> None:
    assert error_text(error) == text


def test_a_long_message_is_cut() -> None:
    assert len(error_text(ValueError("é" * 10_000)).encode()) <= 2048


def test_a_chain_of_errors_is_told() -> None:
    told = traceback_text(caught(chained))

    assert told.index("KeyError: 'first'") < told.index("direct cause") < told.index("ValueError: second")


def test_a_long_traceback_keeps_both_ends() -> None:
    def long() -> None:
        raise ValueError("start " + "x" * 100_000 + " end")

    told = traceback_text(caught(long))

    assert len(told.encode()) <= 16 * 1024
    assert told.startswith("Traceback (most recent call last):") and told.endswith(" end\n")
    assert "bytes left out" in told


def test_errors_that_refer_to_each_other_come_to_an_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    assert "one" in traceback_text(one)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_a_group_of_errors_is_told() -> None:
    group = eval("ExceptionGroup('both', [ValueError('a'), KeyError('b')])")

    told = traceback_text(group)

    assert "ValueError: a" in told and "KeyError: 'b'" in told


def test_interruptions_are_told_from_failures() -> None:
    import asyncio

    assert is_interruption(KeyboardInterrupt()) and is_interruption(asyncio.CancelledError())
    assert not is_interruption(ValueError()) and not is_interruption(SystemExit())


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), ("a", "'a'"), ([1, {"a": None}], "[1, {'a': None}]"), (b"x", "b'x'"), (None, "None"), ((1,), "(1,)")],
)
def test_a_small_value_is_its_repr(value: Any, text: str) -> None:
    assert preview(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        b"x" * 10**6,
        list(range(10**5)),
        {n: n for n in range(10**5)},
        set(range(10**5)),
        10**5000,
        [["x" * 1000] * 100] * 100,
        deque(range(10**5)),
        OrderedDict.fromkeys(range(10**4)),
        bytearray(10**6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_large_value_is_cut(value: Any) -> None:
    assert 3 <= len(preview(value)) <= 500


def test_a_value_that_contains_itself_comes_to_an_end() -> None:
    endless: Any = []
    endless.append(endless)

    assert len(preview(endless)) <= 500


def test_a_value_that_cannot_be_shown_is_named() -> None:
    class Nasty:
        def __repr__(self) -> str:
            raise RuntimeError

    class Lying:
        def __repr__(self) -> Any:
            return 5

    assert preview(Nasty()).endswith("Nasty>")
    assert preview(Lying()).endswith("Lying>")
    assert "Nasty>" in preview([Nasty()])


def test_a_preview_is_clean() -> None:
    class Dirty:
        def __repr__(self) -> str:
            return "a\x00b\ud800"

    assert preview(Dirty()) == "a\u2400b\\ud800"
