"""One attempt's page in the ledger: facts are applied to rows in memory, and written together once a batch.

The shelf keeps the books of running attempts between batches, so that a batch costs what it says and not what the
run has said so far. A batch is written only if the attempt still stands where its book does; a book whose
transaction fails is never put back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from perfect_client import protocol
from perfect_client.protocol import FACTS, clean_text

from runs import answers, history, live
from runs.album import Album
from runs.closing import end
from runs.models import Attempt, LogLine, Run, TaskRun
from runs.statements import insert, insert_values, swap
from runs.states import FINAL, LEFT_OPEN, TASK_FINAL, RunState, TaskState

BOOKS_KEPT = 256
WARNING, ERROR = 30, 40
LINE = ("seq", "time", "level", "task", "message", "dropped")
ONE_CALL = ("run_id", "attempt", "key", "call")  # what a task run is known by
MANY, REST_EACH = 500, timedelta(milliseconds=0.1)  # the bar of so many task runs rests so long for each of them


def moment(seconds: float) -> datetime:
    """Aware UTC time of epoch seconds; what no calendar holds raises ``ValueError``."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as wrong:
        raise ValueError(f"{seconds} is not a time") from wrong


def counted(number: int) -> int:
    """A count that fits the column on every database; raises ``ValueError``."""
    if not 0 <= number < 2**31:
        raise ValueError(f"{number} is not a count")
    return number


class Outdated(Exception):
    """The rows have moved on since the book was opened: open it anew and apply the batch again."""


class Book:
    """The rows of one attempt, in memory."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.run = attempt.run
        said = attempt.facts_seq > 0  # before its first fact an attempt has no task runs
        rows = list(TaskRun.objects.filter(run_id=self.run.pk, attempt=attempt.number)) if said else []
        self.by_call = {(row.key, row.call): row for row in rows}
        self.by_number = {row.number: row for row in rows if row.number is not None}
        self.has_rows = said  # or may have
        self.shown_at: datetime | None = None
        self.album: Album | None = None  # once the attempt shows something
        self.forget_changes()

    def forget_changes(self) -> None:
        self.changed: dict[int, TaskRun] = {}
        self.lines: list[tuple[Any, ...]] = []  # values of LINE
        self.counts = [0, 0]
        self.ending: tuple[RunState, str, dict[str, Any]] | None = None
        self.told: list[answers.Told] = []
        self.progressed = False

    def belongs_to(self, worker: UUID, run: str) -> bool:
        return (
            self.attempt.worker_id == worker
            and str(self.run.pk) == run
            and self.attempt.revoked_at is None
            and self.run.fence == self.attempt.pk
        )

    def last(self, stream: str) -> int:
        return self.attempt.facts_seq if stream == FACTS else self.attempt.output_seq

    # ------------------------------------------------------------------------------------------------------ applying

    def apply(self, fact: object, now: datetime) -> None:
        """Take one fact in. After the run's end only log lines count: what is final does not change."""
        if isinstance(fact, protocol.Logged):
            return self._logged(fact)
        if self.run.state in FINAL or self.ending is not None:
            return
        if isinstance(fact, protocol.ArtifactWritten):
            return self._artifact_written(fact)
        handler = _HANDLERS.get(type(fact))
        if handler is not None:
            if not self.progressed:  # what time alone has moved stays shown, whatever this batch says
                self._show(now)
            self.progressed = True
            handler(self, fact)

    def _show(self, now: datetime, *, at_once: bool = False) -> None:
        """Work out the run's progress. It reads all tasks, so with thousands of them a few times a second is enough."""
        rest = REST_EACH * len(self.by_call) if len(self.by_call) >= MANY else timedelta()
        due = self.shown_at is None or not timedelta() <= now - self.shown_at < rest
        if self.by_call and (at_once or due):
            self.run.progress, self.shown_at = history.shown(self.run, self.by_call.values(), now), now

    def _run_started(self, fact: protocol.RunStarted) -> None:
        self.run.pid = counted(fact.pid)
        if not self.by_call:
            self._plan()

    def _plan(self) -> None:
        """Freeze what is expected: the calls found in the code, corrected by what recent runs really did."""
        for row in history.plan_of(self.run):
            self._add(row)

    def _add(self, row: TaskRun) -> TaskRun:
        row.run_id, row.attempt = self.run.pk, self.attempt.number
        self.by_call[row.key, row.call] = row
        self._touch(row)
        return row

    def _touch(self, row: TaskRun) -> None:
        self.changed[id(row)] = row

    def _task_started(self, fact: protocol.TaskStarted) -> None:
        at, number, call = moment(fact.time), counted(fact.task), counted(fact.call)
        if number in self.by_number:
            raise ValueError(f"task run {fact.task} has started before")
        key = clean_text(fact.key, 200)
        row = self.by_call.get((key, call))
        if row is not None and row.number is not None:
            raise ValueError(f"call {call} of {key} has started before")
        if row is None:
            row = self._add(history.unexpected(self.run, key, call, self.by_call.get((key, 0)), len(self.by_call)))
        row.name = clean_text(fact.name, 200) or row.name
        row.number, row.parent = number, fact.parent and counted(fact.parent)
        row.weight = fact.weight if fact.weight is not None else row.weight
        row.estimated_ms = fact.estimated_ms if fact.estimated_ms is not None else row.estimated_ms
        row.state, row.started_at = TaskState.RUNNING, at
        self.by_number[number] = row
        self._touch(row)

    def _open_task(self, number: int) -> TaskRun:
        row = self.by_number.get(number)
        if row is None:
            raise ValueError(f"task run {number} has not started")
        if row.state in TASK_FINAL:
            raise ValueError(f"task run {number} has ended as {row.state}")
        return row

    def _task_retrying(self, fact: protocol.TaskRetrying) -> None:
        """An attempt failed and another follows: what it had reported counts no more, what was shown stays."""
        row = self._open_task(fact.task)
        row.state, row.share, row.tries = TaskState.RETRYING, None, counted(fact.tries)
        row.error, row.traceback = clean_text(fact.error, 4_000), clean_text(fact.traceback)
        self._touch(row)

    def _task_restarted(self, fact: protocol.TaskRestarted) -> None:
        """The duration that counts is that of the attempt that comes to the end."""
        row = self._open_task(fact.task)
        row.state, row.started_at, row.tries = TaskState.RUNNING, moment(fact.time), counted(fact.tries)
        self._touch(row)

    def _task_progressed(self, fact: protocol.TaskProgressed) -> None:
        row = self._open_task(fact.task)
        row.share, row.note = min(1.0, max(row.share or 0.0, fact.share)), clean_text(fact.text, 500)
        self._touch(row)

    def _task_ended(self, fact: protocol.TaskEnded) -> None:
        if fact.outcome not in TASK_FINAL:
            raise ValueError(f"a task cannot end as {fact.outcome!r}")
        row, at = self._open_task(fact.task), moment(fact.time)
        # Two clocks are read by one process, yet a step back in between must not make a duration negative.
        row.state, row.finished_at = TaskState(fact.outcome), max(at, row.started_at or at)
        row.error, row.traceback = clean_text(fact.error, 4_000), clean_text(fact.traceback)
        self._touch(row)

    def _logged(self, fact: protocol.Logged) -> None:
        level = min(max(fact.level, 0), 100)
        seq = self.run.log_count + len(self.lines) + 1
        task = fact.task and counted(fact.task)
        self.lines.append((seq, moment(fact.time), level, task, clean_text(fact.message), counted(fact.dropped)))
        self.counts[0] += WARNING <= level < ERROR
        self.counts[1] += level >= ERROR

    def _asks(self, fact: answers.Told) -> None:
        counted(fact.ask)
        self.told.append(fact)

    def _artifact_written(self, fact: protocol.ArtifactWritten) -> None:
        if self.album is None:
            self.album = Album(self.run.pk, self.attempt.number)
        self.album.write(fact, moment(fact.time))

    def _run_ended(self, fact: protocol.RunEnded) -> None:
        if fact.outcome not in _OUTCOMES:
            raise ValueError(f"a run cannot end as {fact.outcome!r}")
        to, why = _OUTCOMES[fact.outcome], fact.reason or fact.error
        if to is not RunState.COMPLETED and self._cancel_wanted():
            to, why = RunState.CANCELLED, self._cancel_reason(fact.reason)
        details = {"error": fact.error, "traceback": fact.traceback, "result": fact.result}
        self._end(to, why, moment(fact.time), details)

    def _process_exited(self, fact: protocol.ProcessExited) -> None:
        cancelled = self._cancel_wanted() or fact.cancelled  # asked first: it also tells by whom
        to = RunState.CANCELLED if cancelled else RunState.FAILED if fact.timed_out else RunState.CRASHED
        why = self._cancel_reason(fact.reason) if cancelled else fact.reason
        details = (
            {"traceback": fact.last_output} if cancelled else {"error": fact.reason, "traceback": fact.last_output}
        )
        self._end(to, why, moment(fact.time), details)

    def _cancel_wanted(self) -> bool:
        """The wish may have come from another process since the book was opened, so the row is asked."""
        row = Run.objects.filter(pk=self.run.pk).values_list("cancel_requested_at", "cancel_requested_by").first()
        self.run.cancel_requested_at, self.run.cancel_requested_by = row or (None, "")
        return self.run.cancel_requested_at is not None

    def _cancel_reason(self, how: str) -> str:
        who = self.run.cancel_requested_by
        return (f"cancelled by {who}" if who else "cancelled") + (f"; {how}" if how else "")

    def _end(self, to: RunState, why: str, at: datetime, details: dict[str, str]) -> None:
        values: dict[str, Any] = {name: clean_text(text) for name, text in details.items()}
        # A worker's clock may be behind; a run does not end before it starts.
        values["finished_at"] = max(at, self.run.started_at or at)
        if to is RunState.COMPLETED:
            values["progress"] = 100.0
        self.ending = (to, clean_text(why, 2_000), values)

    # -------------------------------------------------------------------------------------------------------- writing

    def save(self, stream: str, seq: int, now: datetime) -> None:
        """Write what the batch changed, and how far the stream has come; raises ``Outdated``."""
        column = f"{stream}_seq"
        mine = {"id": self.attempt.pk, "revoked_at": None, column: getattr(self.attempt, column)}
        if not swap(Attempt, mine, {column: seq, **({"asks": True} if self.told else {})}):
            raise Outdated
        setattr(self.attempt, column, seq)
        self.attempt.asks = self.attempt.asks or bool(self.told)
        if self.ending is not None:
            self._close_tasks(self.ending[0], self.ending[2]["finished_at"])
        if self.changed:
            insert(list(self.changed.values()), replacing=ONE_CALL)
            self.has_rows = True
        insert_values(LogLine, LINE, self.lines, run_id=self.run.pk, attempt=self.attempt.number)
        shown = self.album.save() if self.album is not None else 0
        if self.told:
            answers.take(self.run, self.attempt, self.told, now)
        self._save_run(now, shown)
        if self.ending is not None and self.attempt.asks:
            answers.forget(run=self.run, now=now)
        live.touch(live.run_topic(self.run.pk), *([live.log_topic(self.run.pk)] if self.lines else []))
        if self.progressed and self.ending is None:
            live.touch(live.OVERVIEW)
        self.forget_changes()

    def _close_tasks(self, to: RunState, at: datetime) -> None:
        """No task run stays open in a final run; what was expected and never came is dropped from a completed one."""
        started, never_started = LEFT_OPEN[to]
        unseen = [key for key, row in self.by_call.items() if row.state == TaskState.PENDING]
        if to is RunState.COMPLETED:
            for key in unseen:
                self.changed.pop(id(self.by_call.pop(key)), None)
            if unseen and self.has_rows:
                TaskRun.objects.filter(run_id=self.run.pk, attempt=self.attempt.number, number=None).delete()
        for row in self.by_call.values():
            if row.state not in TASK_FINAL:
                row.state, row.finished_at = (
                    (never_started, None)
                    if row.state == TaskState.PENDING
                    else (started, max(at, row.started_at or at))
                )
                self._touch(row)

    def _save_run(self, now: datetime, artifacts: int) -> None:
        run = self.run
        run.log_count += len(self.lines)
        values: dict[str, Any] = {}
        grow = {"warning_count": self.counts[0], "error_count": self.counts[1]} if self.lines else {}
        if artifacts:
            grow["artifact_writes"] = artifacts
        if self.lines:
            values["log_count"] = run.log_count
        if self.progressed:
            values["pid"] = run.pid
            if self.ending is None or self.ending[0] is not RunState.COMPLETED:
                self._show(now, at_once=self.ending is not None)
                values["progress"] = run.progress
        if self.ending is None:
            swap(Run, {"id": run.pk}, values, grow={"version": 1, **grow})
            return
        to, why, details = self.ending
        if not end(run, to, now=now, who="worker", why=why, grow=grow, **values, **details):
            raise Outdated


_OUTCOMES = {state.value: state for state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)}
_HANDLERS: dict[type, Callable[[Book, Any], None]] = {
    protocol.RunStarted: Book._run_started,
    protocol.TaskStarted: Book._task_started,
    protocol.TaskRetrying: Book._task_retrying,
    protocol.TaskRestarted: Book._task_restarted,
    protocol.TaskProgressed: Book._task_progressed,
    protocol.TaskEnded: Book._task_ended,
    protocol.Asked: Book._asks,
    protocol.Released: Book._asks,
    protocol.RunEnded: Book._run_ended,
    protocol.ProcessExited: Book._process_exited,
}


class Shelf:
    """The books of the attempts that report to this process, least recently used last. One thread: the writer's."""

    def __init__(self) -> None:
        self._books: OrderedDict[int, Book] = OrderedDict()

    def clear(self) -> None:
        self._books.clear()

    def take(self, fence: int) -> Book | None:
        """The attempt's book, from the shelf or else from the rows; None if there is no attempt.

        A book from the shelf may be outdated; ``Book.save`` finds out, by compare-and-swap.
        """
        book = self._books.pop(fence, None)
        return book if book is not None else self.open(fence)

    def open(self, fence: int) -> Book | None:
        """The attempt's book as the rows stand now."""
        self._books.pop(fence, None)
        attempt = Attempt.objects.select_related("run__flow").filter(pk=fence).first()
        return Book(attempt) if attempt is not None else None

    def put_back(self, book: Book) -> None:
        """Keep the book if the transaction commits and the run goes on."""
        transaction.on_commit(partial(self._keep, book))

    def _keep(self, book: Book) -> None:
        if book.run.state in FINAL:
            return
        self._books[book.attempt.pk] = book
        while len(self._books) > BOOKS_KEPT:
            self._books.popitem(last=False)


shelf = Shelf()
