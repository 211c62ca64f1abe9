"""A process that runs tasks for its parent: what it prints, logs and reports becomes facts of the parent's run."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from typing import Any, Callable, Dict, List, Optional, Tuple

from perfect_client.core import context
from perfect_client.core.deadlines import Limit
from perfect_client.core.previews import rebuild_error, traceback_text, unpickled_error
from perfect_client.core.runs import Run, TaskRun
from perfect_client.engine.steps import Call
from perfect_client.errors import CrashedRun
from perfect_client.journal import unfinished_lines
from perfect_client.journal.unfinished_lines import OpenLine, OpenLines
from perfect_client.output import capture
from perfect_client.questions import client
from perfect_client.questions.question import Question
from perfect_client.schema import secrets
from perfect_client.wire.messages import Asked, Logged, Released, TaskEnded

__tracebackhide__ = True  # pytest does not show our frames

_LOOK_S = 1.0  # how often a process looks whether its parent is still there
_METHOD = "fork" if sys.platform.startswith("linux") else "spawn"  # elsewhere fork is not safe beside threads


class Child:
    """The parent's side: one process, and one call in it at a time."""

    def __init__(self, initializer: Optional[Callable[..., Any]], initargs: Tuple[Any, ...], captured: bool) -> None:
        ways = multiprocessing.get_context(_METHOD)
        self._pipe, other = ways.Pipe()
        incoming, self._answers = ways.Pipe(duplex=False)
        self._open_lines = unfinished_lines.in_memory() if captured and _METHOD == "fork" else None
        self._told_at = 0.0  # the time of the last line that came from there
        self._process: Any = ways.Process(  # type: ignore[attr-defined]
            target=serve,
            name="perfect-task",
            args=(other, incoming, os.getpid(), initializer, initargs, captured, self._open_lines),
        )
        with warnings.catch_warnings():  # Python 3.12 warns of threads; the child uses none of their locks
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        other.close()
        incoming.close()

    def call(self, call: Call, task: Any, current: TaskRun) -> Any:
        """Have a call of a task performed there. Raises what it raises, and ``CrashedRun`` if the process dies."""
        try:
            run = current.run
            order = pickle.dumps((task, call.args, call.kwargs, (run.id, run.flow_name, run.attempt, run.tags)))
        except Exception as wrong:
            raise TypeError(
                "a task in another process, and its arguments, must be picklable (a task at the top of a module is): %s"
                % wrong
            ) from wrong
        numbers = {1: current.number}
        asked: Dict[int, Question] = {}
        try:
            self._pipe.send_bytes(order)
            kind, said = self._until_done(call.limit, current.run, numbers, asked)
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self._tell_last_words(current.run, numbers)
            how = "signal %d" % -code if code is not None and code < 0 else "exit code %s" % code
            raise CrashedRun("The process of the task ended with %s." % how) from None
        finally:
            for question in asked.values():
                question.release("the task that asked has ended")
            for number in list(numbers.values())[1:]:
                current.run.tell(TaskEnded(current.run.clock(), number, "CANCELLED", "The task around it ended."))
        if kind == "error":
            raise rebuild_error(*said)
        return said

    def _until_done(
        self, limit: Optional[Limit], run: Run, numbers: Dict[int, int], asked: Dict[int, Question]
    ) -> Tuple[str, Any]:
        until = None if limit is None else time.monotonic() + limit.seconds
        while True:
            if until is not None and not self._pipe.poll(max(0.0, until - time.monotonic())):
                self._tell_last_words(run, numbers)
                self.kill()
                return "error", (limit.missed() if limit is not None else None, "")
            kind, said = pickle.loads(self._pipe.recv_bytes())
            if kind == "secrets":
                secrets.hide(said)
                continue
            if kind != "fact":
                return kind, said
            if isinstance(said, Logged):
                self._told_at = said.time
            if isinstance(said, (Asked, Released)):
                self._pass_on(said, asked)
            else:
                run.retell(said, numbers)

    def _tell_last_words(self, run: Run, numbers: Dict[int, int]) -> None:
        """The process is at its end: what it had written of lines that have not ended."""
        lines: List[OpenLine] = []
        with contextlib.suppress(ValueError):  # it was stopped, and nobody asks
            lines = self._open_lines.lines() if self._open_lines is not None else []
        for line in lines:
            if not (line.being_told and line.time == self._told_at):
                run.tell(Logged(line.time, line.text, line.level, numbers.get(line.task or 1)))

    def _pass_on(self, fact: Any, asked: Dict[int, Question]) -> None:
        """A question of the task is asked here, in its name."""
        question = asked.pop(fact.ask, None)
        if question is not None:
            question.release(fact.reason)
        elif isinstance(fact, Asked):
            asked[fact.ask] = question = client.current_line().ask(fact.kind, fact.body)
            question.answer.add_done_callback(lambda answer: self._answer(fact.ask, answer.result()))

    def _answer(self, ask: int, body: Any) -> None:
        with contextlib.suppress(OSError):  # who asked is gone
            os.write(self._answers.fileno(), json.dumps([ask, body]).encode() + b"\n")

    @property
    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def kill(self) -> None:
        """End it at once; nothing in it is worth keeping."""
        with contextlib.suppress(Exception):
            self._process.kill()
            self._process.join(5)
        self._pipe.close()
        self._answers.close()
        if self._open_lines is not None:
            self._open_lines.close()


# ------------------------------------------------------------------------------------------------------ in the child


_line: Any = None  # to the parent's run, from the first question on


def serve(
    pipe: Any,
    incoming: Any,
    parent: int,
    initializer: Any,
    initargs: Tuple[Any, ...],
    captured: bool,
    open_lines: Optional[OpenLines] = None,
) -> None:
    """The child's life: perform calls until the parent is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the parent, which decides
    lock, me = threading.RLock(), os.getpid()

    def say(kind: str, said: Any) -> None:
        with lock:
            pipe.send_bytes(pickle.dumps((kind, said)))

    def confide(learned: List[Any]) -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            if os.getpid() == me:  # not in what the task forks
                say("secrets", learned)

    with contextlib.suppress(EOFError, OSError):
        secrets.tell_new_secrets(confide, known=False)  # the parent has those
        if initializer is not None:
            initializer(*initargs)
        while os.getppid() == parent:
            if pipe.poll(_LOOK_S):
                _perform(say, pipe.recv_bytes(), incoming, captured, open_lines)


def _perform(
    say: Callable[[str, Any], None], order: bytes, incoming: Any, captured: bool, open_lines: Optional[OpenLines]
) -> None:
    global _line

    try:
        task, args, kwargs, (run_id, flow_name, attempt, tags) = pickle.loads(order)
        run = Run(id=run_id, flow_name=flow_name, attempt=attempt, tags=tags, emit=lambda fact: say("fact", fact))
        run.answers = incoming.fileno() if _line is None else _line.attach(run)
        context.activate(run)
        try:
            with capture.Capture(run, 0, open_lines) if captured else contextlib.nullcontext():
                value = call_in_child(run, task, args, kwargs)
        finally:
            run.settle()
            run.closed = True
            context.deactivate()
            _line = run.answers if isinstance(run.answers, client.Line) else _line
        answer: Tuple[str, Any] = ("value", value)
    except BaseException as error:
        answer = ("error", (unpickled_error(error), traceback_text(error)))
    try:
        say(*answer)
    except OSError:
        raise
    except Exception as wrong:  # what cannot be pickled cannot be handed back
        say("error", (TypeError("%s of a task in another process cannot be pickled: %s" % (answer[0], wrong)), ""))


def call_in_child(
    run: Run, task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any], limit: Optional[Limit] = None
) -> Any:
    """Call a task's function as the first task of ``run``, which is its parent's run over there."""
    current = run.start(task, None)
    context.task.set(current)
    try:
        return Call(task.fn, args, kwargs, task.is_async, limit).now()
    finally:
        context.task.set(None)
