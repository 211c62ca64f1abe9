"""The server's own database threads: one writer that groups commits, two readers, each with a connection it keeps.

Why not Django's per-request connections: opening one costs more than most statements, all sockets of a process share
one thread by default, and a commit that reaches the disk (``synchronous=FULL``) is shared by every job that waits for
it. An acknowledgement is sent only after the commit, so grouping loses nothing.

Nobody waits for ever: what has not begun within ``WRITE_WITHIN`` is left out, and its caller told so. The writer
outlives a full disk and a lock of another process; while writes do not come back, ``trouble`` says why.

Where the lanes are not started (commands, tests) the same calls run on the caller's side.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from runs.db import maintenance, outages
from runs.db.outages import NotWritten, log_failure

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

GROUP_LIMIT = 64  # jobs in one transaction: bounds how long a reader of the lock elsewhere waits
READERS = 2
LOOK_EVERY = 0.1  # seconds between looks for commits of other processes
WRITE_WITHIN = 10.0  # seconds that a caller waits for its write to begin
FINISH_WITHIN = 20.0  # seconds more for one that has begun, which nobody can take back
RETRY_EVERY = 1.0  # seconds, while writes fail
PROBE_EVERY = 5.0  # seconds, if somebody asks whether writes come back
PROBE_WITHIN = 5.0  # seconds
STOP = object()


class _Job:
    __slots__ = ("call", "future", "surely")

    def __init__(self, call: Callable[[], Any], surely: bool = False) -> None:
        self.call, self.surely = call, surely
        self.future: Future[Any] = Future()

    def begin(self) -> bool:
        """False if its caller does not wait any more; from here on nobody can cancel it."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        try:
            self.future.set_exception(error)
        except InvalidStateError:  # cancelled meanwhile
            pass


class Writer(threading.Thread):
    """One thread that runs jobs in the order they came, as many as wait in one transaction, each in a savepoint.

    A job that raises is rolled back alone; its caller gets the exception. If the commit itself fails, every job of
    the group gets the database's error and nothing of the group is there. Jobs that must be done are then tried again,
    and so is a small write, until the database takes it.
    """

    def __init__(self, on_foreign_commit: Callable[[], None]) -> None:
        super().__init__(name="perfect-writer", daemon=True)
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._on_foreign_commit = on_foreign_commit
        self._upkeep = maintenance.Upkeep()
        self.last: dict[Callable[[], Any], None] = {}  # what is to run once at the end of the group; a set in order
        self.lost: list[Callable[[], None]] = []  # what is to run if the group is not committed
        self._again: list[_Job] = []
        self._try_at = 0.0
        self._failing = ""  # why the last write failed that met an outage; until a probe is committed
        self._probed_at = time.monotonic()
        self._probing: Future[None] | None = None

    def submit(self, call: Callable[[], T], surely: bool = False) -> Future[T]:
        job = _Job(call, surely)
        self._jobs.put(job)
        return job.future

    def trouble(self) -> str:
        """Why writes do not come back, in a sentence; empty while they do. Waits for a small one, at most
        ``PROBE_WITHIN``, if none was asked for lately."""
        if not self.is_alive():
            return "The thread that writes to the database has ended. Restart the server; its log says why."
        if not self._failing and time.monotonic() - self._probed_at > PROBE_EVERY:
            if self._probing is None or self._probing.done():
                self._probing = self.submit(self._probe)
            if wait([self._probing], PROBE_WITHIN).not_done:
                return "Writes to the database do not come back: it is locked, or its disk is slow."
        return self._failing

    def _probe(self) -> None:
        """Write, and change nothing."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_migrations SET app = app WHERE id = (SELECT MIN(id) FROM django_migrations)")
        transaction.on_commit(self._probed)

    def _probed(self) -> None:
        self._failing, self._probed_at = "", time.monotonic()

    def stop(self) -> None:
        self._jobs.put(STOP)
        self.join(timeout=10)

    def run(self) -> None:
        going = True
        self._guarded(self._idle)  # from here on, what others commit is news
        while going:
            try:
                first = self._jobs.get(timeout=LOOK_EVERY)
            except queue.Empty:
                self._guarded(self._idle)
                continue
            group, going = self._group(first)
            self._commit([*self._due(), *group])
            self._guarded(self._look_after)
        self._upkeep.close()
        connection.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        """This thread must not end: without it nothing is ever written."""
        try:
            step()
        except Exception as error:
            log_failure(logger, "looking after the database failed", error)
            _close_if_broken()

    def _due(self) -> list[_Job]:
        """After a failure: what must be done in spite of it, and a small write that tells whether it is over."""
        if not (self._failing or self._again) or time.monotonic() < self._try_at:
            return []
        self._try_at = time.monotonic() + RETRY_EVERY
        again, self._again = self._again, []
        return [*again, _Job(self._probe)]

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

    def _commit(self, group: list[_Job], *, once_more: bool = True) -> None:
        if not group:
            return
        all_done = failed = False
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        committed: list[bool] = []
        try:
            with transaction.atomic():  # waits for the lock here: until then, who no longer waits may be left out
                transaction.on_commit(partial(committed.append, True))
                begun = [job for job in group if job.begin()]
                for job in begun:
                    outcomes.append((job, *_attempt(job.call, alone=len(begun) == 1)))
                    _refuse_if_rolled_back(outcomes[-1][2])
                if len(begun) == 1 and outcomes[0][2] is not None:
                    transaction.set_rollback(True)
                else:
                    self._run_last()
                all_done = True  # from here on the database alone knows whether it is committed
        except Exception as failure:
            if committed:
                logger.exception("what was to follow a commit failed")
            else:
                log_failure(logger, f"a group of {len(group)} writes could not be committed", failure)
                _close_if_broken()
                for undo in self.lost:
                    self._guarded(undo)
                if once_more and not all_done and _may_pass(failure):
                    self.last.clear()
                    self.lost.clear()
                    return self._commit(group, once_more=False)
                outcomes, failed = [(job, None, failure) for job in group], True
        self._upkeep.wrote()
        self.last.clear()
        self.lost.clear()
        for job, value, error in outcomes:
            if once_more and not failed and error is not None and _may_pass(error):
                self._commit([job], once_more=False)
            else:
                self._tell(job, value, error)

    def _tell(self, job: _Job, value: Any, error: BaseException | None) -> None:
        outage = outages.of(error) if error is not None else None
        if outage is not None:
            self._failing, self._try_at = outage.sentence, time.monotonic() + RETRY_EVERY
        if error is None:
            job.future.set_result(value)
        elif outage is not None and job.surely:
            self._again.append(job)
        else:
            job.fail(error)

    def _run_last(self) -> None:
        for call in list(self.last):
            _, error = _attempt(call, alone=False)
            _refuse_if_rolled_back(error)
            if error is not None:
                logger.error("what was to follow from a group of writes failed", exc_info=error)

    def _idle(self) -> None:
        if due := self._due():
            self._commit(due)
        if self._upkeep.others_committed():
            self._on_foreign_commit()
        self._look_after()

    def _look_after(self) -> None:
        self._upkeep.step(time.monotonic())


def _attempt(call: Callable[[], Any], *, alone: bool) -> tuple[Any, BaseException | None]:
    """Run one job; alone in its transaction it needs no savepoint of its own."""
    try:
        if alone:
            return call(), None
        with transaction.atomic():
            return call(), None
    except Exception as error:
        return None, error


def _may_pass(error: BaseException) -> bool:
    """Whether what was rolled back with ``error`` may do better at once: PostgreSQL ends one of two servers' jobs that
    wait for each other, and a connection that was cut is opened anew."""
    return connection.vendor == "postgresql" and outages.of(error) in (outages.AWAY, outages.LOCKED)


def _refuse_if_rolled_back(error: BaseException | None) -> None:
    """Raise if the transaction is gone: SQLite may end it by itself on a full disk (sqlite.org/lang_transaction.html),
    and what follows would be committed piece by piece, or not at all, and be called written."""
    gone = connection.vendor == "sqlite" and not connection.connection.in_transaction
    if connection.needs_rollback or gone:
        raise error if isinstance(error, DatabaseError) else NotWritten(outages.ROLLED_BACK)


def _close_if_broken() -> None:
    if not connection.is_usable():
        connection.close()


_writer: Writer | None = None
_readers: ThreadPoolExecutor | None = None


def start(on_foreign_commit: Callable[[], None] = lambda: None) -> None:
    """Start the threads; ``on_foreign_commit`` is called when another process has written."""
    global _writer, _readers
    if _writer is None:
        _writer = Writer(on_foreign_commit)
        _writer.start()
        _readers = ThreadPoolExecutor(READERS, thread_name_prefix="perfect-reader")


def stop() -> None:
    """Let the waiting jobs finish, then end the threads and close their connections."""
    global _writer, _readers
    writer, readers, _writer, _readers = _writer, _readers, None, None
    if writer is not None:
        writer.stop()
    if readers is not None:
        met = threading.Barrier(READERS)  # so that each thread closes its own connection
        for _ in range(READERS):
            readers.submit(_close_reader, met)
        readers.shutdown(wait=True)


def _close_reader(met: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):
        met.wait(timeout=5)
    connection.close()


def trouble() -> str:
    """Why writes of this process do not come back, in a sentence; empty while they do."""
    return _writer.trouble() if _writer is not None else ""


def write_soon(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Queue ``fn`` for the writer and go on; without lanes it runs now, in a transaction."""
    return _submit(partial(fn, *args, **kwargs), surely=False)


def write_surely(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """As ``write_soon``; and while the database cannot take it, ``fn`` is tried again, perhaps after later writes."""
    job = _submit(partial(fn, *args, **kwargs), surely=True)
    job.add_done_callback(_log)
    return job


def _submit(call: Callable[[], T], *, surely: bool) -> Future[T]:
    if _writer is not None:
        return _writer.submit(call, surely)
    done: Future[T] = Future()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _settle(done, call)
    else:
        task = asyncio.ensure_future(sync_to_async(_settle, thread_sensitive=True)(done, call))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    return done


_tasks: set[asyncio.Future[None]] = set()  # while they run, so that they are not collected


def _settle(done: Future[T], call: Callable[[], T]) -> None:
    try:
        done.set_result(_in_transaction(call))
    except Exception as error:
        done.set_exception(error)


def _log(job: Future[Any]) -> None:
    error = None if job.cancelled() else job.exception()
    if error is not None:
        log_failure(logger, "a write that nobody waits for failed", error)


def if_lost(call: Callable[[], None]) -> None:
    """Run ``call`` on the writer's thread if the transaction of the running job is not committed after all."""
    if _writer is not None and threading.current_thread() is _writer:
        _writer.lost.append(call)


def before_commit(call: Callable[[], Any]) -> None:
    """Run ``call`` once at the end of the writer's group of jobs, in their transaction, however often it is asked for.

    Outside the writer's thread it becomes a job of its own, after the commit.
    """
    if _writer is not None and threading.current_thread() is _writer:
        _writer.last[call] = None
    else:
        transaction.on_commit(partial(write_soon, call))


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``fn`` in a transaction on the writer's thread; returns after the commit.

    Raises ``NotWritten`` if its turn does not come in time, and what the database raises.
    """
    call = partial(fn, *args, **kwargs)
    if _writer is None:
        return await sync_to_async(_in_transaction, thread_sensitive=True)(call)
    job, loop = _writer.submit(call), asyncio.get_running_loop()
    waiting: asyncio.Future[T] = loop.create_future()

    def tell(job: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_pass_on, job, waiting)

    job.add_done_callback(tell)
    late = loop.call_later(WRITE_WITHIN, _give_up, job, waiting)
    try:
        return await waiting
    except asyncio.CancelledError:
        job.cancel()
        raise
    finally:
        late.cancel()


def _pass_on(job: Future[T], waiting: asyncio.Future[T]) -> None:
    """Not ``asyncio.wrap_future`` in ``asyncio.wait``: on the way of each write, that is one turn of the loop more."""
    if waiting.done() or job.cancelled():
        return
    error = job.exception()
    if error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(job.result())


def _give_up(job: Future[T], waiting: asyncio.Future[T]) -> None:
    """Nobody waits for ever: neither for the turn of a write, nor for one that has begun and cannot be taken back."""
    if waiting.done():  # the caller was cancelled this very moment, and cancels the job
        return
    if job.cancel():
        waiting.set_exception(NotWritten(outages.WAITED))
    else:
        waiting.get_loop().call_later(FINISH_WITHIN, _leave_alone, waiting)


def _leave_alone(waiting: asyncio.Future[T]) -> None:
    if not waiting.done():
        waiting.set_exception(NotWritten(outages.UNSURE))


def write_and_wait(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``write``, for threads that may wait."""
    job = write_soon(fn, *args, **kwargs)
    try:
        return job.result(WRITE_WITHIN)
    except TimeoutError:
        if job.done():  # the deed's own
            raise
        if job.cancel():
            raise NotWritten(outages.WAITED) from None
    try:
        return job.result(FINISH_WITHIN)
    except TimeoutError:
        if job.done():
            raise
        raise NotWritten(outages.UNSURE) from None


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
