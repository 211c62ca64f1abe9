"""The server's own database threads: one writer that groups commits, two readers, each with a connection it keeps.

Why not Django's per-request connections: opening one costs more than most statements, all sockets of a process share
one thread by default, and a commit that reaches the disk (``synchronous=FULL``) is shared by every job that waits for
it. An acknowledgement is sent only after the commit, so grouping loses nothing.

Where the lanes are not started (commands, tests) the same calls run on the caller's side.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from runs import upkeep

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

GROUP_LIMIT = 64  # jobs in one transaction: bounds how long a reader of the lock elsewhere waits
LOOK_EVERY = 0.1  # seconds between looks for commits of other processes
STOP = object()


class _Job:
    __slots__ = ("call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()


class Writer(threading.Thread):
    """One thread that runs jobs in the order they came, as many as wait in one transaction, each in a savepoint.

    A job that raises is rolled back alone; its caller gets the exception. If the commit itself fails, every job of
    the group gets the database's error and nothing of the group is there.
    """

    def __init__(self, on_foreign_commit: Callable[[], None]) -> None:
        super().__init__(name="perfect-writer", daemon=True)
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._on_foreign_commit = on_foreign_commit
        self._upkeep = upkeep.Upkeep()
        self.last: dict[Callable[[], Any], None] = {}  # what is to run once at the end of the group; a set in order

    def submit(self, call: Callable[[], T]) -> Future[T]:
        job = _Job(call)
        self._jobs.put(job)
        return job.future

    def stop(self) -> None:
        self._jobs.put(STOP)
        self.join(timeout=10)

    def run(self) -> None:
        going = True
        self._idle()  # from here on, what others commit is news
        while going:
            try:
                first = self._jobs.get(timeout=LOOK_EVERY)
            except queue.Empty:
                self._idle()
                continue
            group, going = self._group(first)
            if group:
                self._commit(group)
                self._upkeep.step(time.monotonic())
        self._upkeep.close()
        connection.close()

    def _group(self, first: Any) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        item = first
        while item is not STOP:
            group.append(item)
            if len(group) >= GROUP_LIMIT:
                return group, True
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Job]) -> None:
        # Who no longer waits is left out; from here on nobody can cancel, so each result finds its future open.
        group = [job for job in group if job.future.set_running_or_notify_cancel()]
        if not group:
            return
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            with transaction.atomic():
                for job in group:
                    outcomes.append((job, *_attempt(job.call, alone=len(group) == 1)))
                if len(group) == 1 and outcomes[0][2] is not None:
                    transaction.set_rollback(True)
                else:
                    self._run_last()
        except Exception as failure:
            logger.exception("a group of %d writes could not be committed", len(group))
            connection.close()
            outcomes = [(job, None, failure) for job in group]
        for job, value, error in outcomes:
            if error is None:
                job.future.set_result(value)
            else:
                job.future.set_exception(error)
        self.last.clear()
        self._upkeep.wrote()

    def _run_last(self) -> None:
        for call in list(self.last):
            _, error = _attempt(call, alone=False)
            if error is not None:
                logger.error("what was to follow from a group of writes failed", exc_info=error)

    def _idle(self) -> None:
        try:
            if self._upkeep.others_committed():
                self._on_foreign_commit()
            self._upkeep.step(time.monotonic())
        except (DatabaseError, InterfaceError):
            logger.exception("looking after the database failed; the connection is opened anew")
            connection.close()


def _attempt(call: Callable[[], Any], *, alone: bool) -> tuple[Any, BaseException | None]:
    """Run one job; alone in its transaction it needs no savepoint of its own."""
    try:
        if alone:
            return call(), None
        with transaction.atomic():
            return call(), None
    except Exception as error:
        return None, error


_writer: Writer | None = None
_readers: ThreadPoolExecutor | None = None


def start(on_foreign_commit: Callable[[], None] = lambda: None) -> None:
    """Start the threads; ``on_foreign_commit`` is called when another process has written."""
    global _writer, _readers
    if _writer is None:
        _writer = Writer(on_foreign_commit)
        _writer.start()
        _readers = ThreadPoolExecutor(2, thread_name_prefix="perfect-reader")


def stop() -> None:
    """Let the waiting jobs finish, then end the threads and close their connections."""
    global _writer, _readers
    writer, readers, _writer, _readers = _writer, _readers, None, None
    if writer is not None:
        writer.stop()
    if readers is not None:
        readers.shutdown(wait=True)


def write_soon(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Queue ``fn`` for the writer and go on; without lanes it runs now, in a transaction."""
    call = partial(fn, *args, **kwargs)
    if _writer is not None:
        return _writer.submit(call)
    done: Future[T] = Future()
    try:
        with transaction.atomic():
            result = call()
        done.set_result(result)
    except Exception as error:
        done.set_exception(error)
    return done


def before_commit(call: Callable[[], Any]) -> None:
    """Run ``call`` once at the end of the writer's group of jobs, in their transaction, however often it is asked for.

    Outside the writer's thread it becomes a job of its own, after the commit.
    """
    if _writer is not None and threading.current_thread() is _writer:
        _writer.last[call] = None
    else:
        transaction.on_commit(partial(write_soon, call))


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``fn`` in a transaction on the writer's thread; returns after the commit."""
    call = partial(fn, *args, **kwargs)
    if _writer is None:
        return await sync_to_async(_in_transaction, thread_sensitive=True)(call)
    return await asyncio.wrap_future(_writer.submit(call))


async def read(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``fn`` on a reader's thread; the function must not write."""
    call = partial(fn, *args, **kwargs)
    if _readers is None:
        return await sync_to_async(call, thread_sensitive=True)()
    return await asyncio.wrap_future(_readers.submit(_with_one_more_try, call))


def _in_transaction(call: Callable[[], T]) -> T:
    with transaction.atomic():
        return call()


def _with_one_more_try(call: Callable[[], T]) -> T:
    """A kept connection may have died with its server since the last use: open a new one, once."""
    try:
        return call()
    except (InterfaceError, OperationalError):
        connection.close()
        return call()
