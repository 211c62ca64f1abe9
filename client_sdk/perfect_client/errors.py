"""Every error of the SDK that user code may meet."""

from __future__ import annotations

import os
import sys
from typing import Any

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep  # the SDK's own files begin so
MAX_NAME = 200  # characters; the same as protocol.MAX_NAME, which is too heavy for a program that only defines flows


class PrefectException(Exception):
    """What the errors have in common that programs written for Prefect know."""


class ConfigurationError(ValueError, TypeError):
    """A decorator or schedule was given something that cannot work; one sentence, with the function and its place."""


class BadParameter(PrefectException, ValueError):
    """A parameter cannot be used. ``name`` is the parameter, ``sentence`` says what would be right."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name, sentence)
        self.name, self.sentence = name, sentence

    def __str__(self) -> str:
        return self.sentence


class HashError(ValueError):
    """A task is cached by its inputs, and one of them has no digest; the text names it and says what would be right."""


class MissingContextError(PrefectException, RuntimeError):
    """What was asked for exists only inside a run."""


class Cancelled(KeyboardInterrupt):
    """Raised in the main thread of a run that is to stop, and in the threads of its task runners.

    A ``KeyboardInterrupt``, because asyncio, thread pools and careful user code already let that one through.
    """

    def __init__(self, reason: str = "the run was stopped") -> None:
        super().__init__(reason)


# ----------------------------------------------------------------------------------------------- results and states


class FailedRun(PrefectException):
    """The run has failed without an exception of its own."""


class CrashedRun(PrefectException):
    """The run has crashed without an exception of its own."""


class CancelledRun(PrefectException):
    """The run was cancelled."""


class UnfinishedRun(PrefectException):
    """The run has no result, since it did not come to its end."""


class PausedRun(UnfinishedRun):
    """The run is paused and has no result yet."""


class MissingResult(PrefectException):
    """The run completed, but its result was not kept."""


class UpstreamTaskError(UnfinishedRun):
    """A task was not run because one that it waits for did not complete."""


class Unanswered(PrefectException, ValueError):
    """The server refused what the code asked for; the text is its sentence."""


class NotPausedError(PrefectException):
    """A run is to go on that is not paused."""


class FlowPauseTimeout(PrefectException, TimeoutError):
    """A paused run was not let go on in time."""


class MappingLengthMismatch(PrefectException, ValueError):
    """``map`` was given iterables of different lengths."""


class MappingMissingIterable(PrefectException, ValueError):
    """``map`` was given nothing to iterate over."""


# ------------------------------------------------------------------------------------------------------------- time


class TimedOut(TimeoutError):
    """The code ran longer than ``timeout_seconds``. ``underway``: it has yet to reach whose deadline it is."""

    underway = False


class TaskRunTimeoutError(TimedOut):
    """A task ran longer than its ``timeout_seconds``."""


class FlowRunTimeoutError(TimedOut):
    """A flow ran longer than its ``timeout_seconds``."""


def function_place(fn: Any) -> str:
    """``name, file:line`` of a function for error messages; only the name where there is no source."""
    fn = getattr(fn, "__func__", fn)
    name = getattr(fn, "__qualname__", None) or repr(fn)
    code = getattr(getattr(fn, "__wrapped__", fn), "__code__", None)
    return "%s, %s:%d" % (name, code.co_filename, code.co_firstlineno) if code is not None else str(name)


def caller_place() -> str:
    """``file:line`` of the code that called into the SDK."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return "%s:%d" % (frame.f_code.co_filename, frame.f_lineno)
