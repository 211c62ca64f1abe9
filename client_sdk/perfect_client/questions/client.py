"""Questions from inside a run to the server: they travel as facts, and the answers come back to the run's process.

A question is asked once and answered once, also over a restart of the server: it stands in the spool, then in a row.
Where no server is, ``offline`` answers. What a question may be is known by whoever asks it and whoever answers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as _Late
from functools import partial
from typing import Any, Callable, Dict, Optional, Set, TypeVar

from perfect_client.core import context
from perfect_client.core.deadlines import waits
from perfect_client.core.runs import Run
from perfect_client.errors import MissingContextError, Unanswered
from perfect_client.questions import offline
from perfect_client.questions.question import Body, Question
from perfect_client.wire.messages import Asked, Released

V = TypeVar("V")


class Line:
    """A run's line to its server: questions go out as facts, answers come in through the pipe ``incoming``."""

    def __init__(self, run: Run, incoming: int) -> None:
        self._run, self._incoming = run, incoming
        self._numbers = itertools.count(1)
        self._waiting: Dict[int, "Future[Body]"] = {}
        self._open: Set[int] = set()
        self._lock = threading.RLock()
        self._reader: Optional[threading.Thread] = None

    def attach(self, run: Run) -> Line:
        """The line for another run of the same process, which a run that is over has left."""
        self._run = run
        return self

    def ask(self, kind: str, body: Body) -> Question:
        """Ask, and go on: the answer comes when it comes."""
        current = context.current_task()
        with self._lock:
            number = next(self._numbers)
            answer: Future[Body] = Future()
            self._waiting[number] = answer
            self._open.add(number)
            heard = min(self._waiting) - 1
            if self._reader is None:
                self._reader = threading.Thread(target=self._listen, name="perfect-answers", daemon=True)
                self._reader.start()
        task = current.number if current is not None and current.run.root is self._run else None
        self._run.tell(Asked(self._run.clock(), number, kind, body, task, heard))
        return Question(answer, partial(self._release, number))

    def _release(self, number: int, reason: str) -> None:
        with self._lock:
            known = number in self._open
            self._open.discard(number)
            self._waiting.pop(number, None)
        if known:
            self._run.tell(Released(self._run.clock(), number, reason))

    def _listen(self) -> None:
        with contextlib.suppress(OSError), os.fdopen(self._incoming, "rb") as lines:
            for line in lines:
                number, body = json.loads(line)
                with self._lock:
                    waiting = self._waiting.pop(number, None)
                if waiting is not None and waiting.set_running_or_notify_cancel():
                    waiting.set_result(body)


class NoLine:
    """For code that no answer can reach."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def ask(self, kind: str, body: Body) -> Question:
        raise MissingContextError(self._sentence)


_lines = threading.Lock()


def current_line() -> Any:
    """Where the calling code can ask: its run's line to the server, or ``offline`` where there is no server."""
    run = context.current_run()
    if run is None or run.root.answers is None:
        return offline
    root = run.root
    with _lines:
        if isinstance(root.answers, int):  # the pipe on which they come in
            root.answers = Line(root, root.answers)
    return root.answers


def ask(kind: str, body: Body, finish: Callable[[Body], V], *, later: Optional[bool] = None) -> Any:
    """Ask, and ``finish`` with the answer: at once in synchronous code, as an awaitable in asynchronous code.

    ``later`` says which, where the caller knows. Raises ``Unanswered`` with the server's sentence.
    """
    wants_later = in_coroutine() if later is None else later
    return _ask_later(kind, body, finish) if wants_later else finish(wait(current_line().ask(kind, body)))


async def _ask_later(kind: str, body: Body, finish: Callable[[Body], V]) -> V:
    return finish(await wait_later(current_line().ask(kind, body)))


def in_coroutine() -> bool:
    """Whether the caller can await: its thread runs a loop, and its task or flow is a coroutine (or there is none)."""
    if "asyncio" not in sys.modules or sys.modules["asyncio"]._get_running_loop() is None:
        return False
    inside = context.current_task() or context.current_run()
    owner = getattr(inside, "task", None) or getattr(inside, "flow", None)
    return bool(getattr(owner, "is_async", True))


@waits
def wait(question: Question, timeout: Optional[float] = None) -> Body:
    """The answer's body. Raises ``Unanswered``, and ``TimeoutError`` after ``timeout`` seconds; then, and when the
    wait is interrupted, the question is withdrawn."""
    try:
        return _checked(question.answer.result(timeout))
    except BaseException as error:
        question.release(_why(error))
        if type(error) is _Late:  # before Python 3.11 not yet the built-in error
            raise TimeoutError("no answer within %g s" % (timeout or 0)) from None
        raise


async def wait_later(question: Question, timeout: Optional[float] = None) -> Body:
    """``wait`` in a coroutine."""
    import asyncio  # heavy: only where a loop runs already

    try:
        return _checked(await asyncio.wait_for(asyncio.wrap_future(question.answer), timeout))
    except BaseException as error:
        question.release(_why(error))
        if isinstance(error, asyncio.TimeoutError):
            raise TimeoutError("no answer within %g s" % (timeout or 0)) from None
        raise


def _checked(body: Body) -> Body:
    if "error" in body:
        raise Unanswered(str(body["error"]))
    return body


def _why(error: BaseException) -> str:
    late = isinstance(error, (_Late, TimeoutError)) or type(error).__name__ == "TimeoutError"
    return "there was no answer in time" if late else "the code waits no more"
