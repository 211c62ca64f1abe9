"""The ledger of an attempt: check a batch of facts, apply it to rows in memory, and write it in one go.

The cache keeps the ledgers of running attempts between batches, so that a batch costs what it says and not what the
run has said so far. A batch is written only if the attempt still stands where its ledger does; a ledger whose
transaction fails is never put back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from perfect_client.schema import masking
from perfect_client.wire import messages
from perfect_client.wire.messages import (
    FACTS,
    MAX_NAME,
    MAX_PARAMETERS_BYTES,
    Acknowledge,
    DropRun,
    FactsRecorded,
    Resend,
    clean_text,
    dumps,
)

from flows.services import flow_called
from flows.statements import find, insert, insert_values, swap
from runs import events
from runs.ingest.artifact_parts import ArtifactParts
from runs.ingest.run_rows import RunRows
from runs.models import Attempt, LogLine, Quarantine, Run, TaskRun
from runs.rules.states import FINAL, SUB_RUN_ENDS, TASK_FINAL, RunState, TaskState, left_open
from runs.services import questions
from runs.services.closing import CANCELLED, around, cancel_reasons, end

LEDGERS_KEPT = 256
TAG_LIMIT = 50
PREVIEW_BYTES = 1_024
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


def check_count(number: int) -> int:
    """A count that fits the column on every database; raises ``ValueError``."""
    if not 0 <= number < 2**31:
        raise ValueError(f"{number} is not a count")
    return number


Answer = Acknowledge | Resend | DropRun


class Outdated(Exception):
    """The rows have moved on since the ledger was opened: open it anew and apply the batch again."""


class Ledger:
    """The rows of one attempt, in memory: those of its run, and of each sub-run that goes on."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.run = attempt.run
        self.by_number: dict[int, tuple[RunRows, TaskRun]] = {}
        self.subs: dict[UUID, RunRows] = {}  # by run, in the order of their starts
        self._ended: list[RunRows] = []  # sub-runs that this batch ends
        self._lines = 0  # of this batch, in all sheets
        self._named = False  # whether this batch gives the run a name
        said = attempt.facts_seq > 0  # before its first fact an attempt has no task runs
        self.sheet = self._opened(self.run, self._rows([self.run.pk]) if said else [])
        self.sheet.has_rows = said
        self.shown_at: datetime | None = None
        self.album: ArtifactParts | None = None  # once the attempt shows something
        self.told: list[questions.Told] = []
        if said:
            self._open_sub_runs()

    def _rows(self, runs: list[UUID]) -> list[TaskRun]:
        return list(TaskRun.objects.filter(run_id__in=runs, attempt=self.attempt.number))

    def _open_sub_runs(self) -> None:
        """What goes on below the run, as the rows have it; ids are made in order, so callers come before the called."""
        runs = Run.objects.held().select_related("flow").filter(root_id=self.run.pk, attempt=self.attempt.number)
        found = list(runs.order_by("pk"))
        rows: dict[UUID, list[TaskRun]] = {run.pk: [] for run in found}
        for row in self._rows(list(rows)) if found else []:
            rows[row.run_id].append(row)
        for run in found:
            above = self.subs.get(run.parent_id or self.run.pk, self.sheet)
            call = next((row for row in above.by_call.values() if row.subrun == run.pk), None)
            self.subs[run.pk] = self._opened(run, rows[run.pk], above, call)

    def _opened(
        self, run: Run, rows: list[TaskRun], above: RunRows | None = None, call: TaskRun | None = None
    ) -> RunRows:
        sheet = RunRows(run, self.attempt.number, rows, above, call)
        self.by_number.update((row.number, (sheet, row)) for row in rows if row.number is not None)
        return sheet

    def forget_changes(self) -> None:
        for sheet in (self.sheet, *self.subs.values()):
            sheet.is_new = False
            sheet.forget_changes()
        self._ended, self._lines, self._named, self.told = [], 0, False, []

    def belongs_to(self, worker: UUID, run: str) -> bool:
        return (
            self.attempt.worker_id == worker
            and str(self.run.pk) == run
            and self.attempt.revoked_at is None
            and self.run.fence == self.attempt.pk
        )

    def last(self, stream: str) -> int:
        return self.attempt.facts_seq if stream == FACTS else self.attempt.output_seq

    # ----------------------------------------------------------------------------------------------------- recording

    def record(self, worker: UUID, message: FactsRecorded, now: datetime) -> Answer:
        """Apply what is new of one batch and write it. Raises ``Outdated``."""
        if not self.belongs_to(worker, message.run) or self.attempt.claimed_at is None:
            return DropRun(message.fence, "the run is no longer this attempt's")
        last = self.last(message.stream)
        if message.first > last + 1:
            return Resend(message.fence, last + 1, message.stream)
        fresh = message.facts[last + 1 - message.first :]
        for seq, data in enumerate(fresh, start=last + 1):
            self._apply_or_set_aside(message.stream, seq, data, now)
        if fresh:
            self.save(message.stream, last + len(fresh), now)
        ledgers.put_back(self)
        return Acknowledge(message.fence, last + len(fresh), message.stream)

    def set_aside(self, worker: UUID, message: FactsRecorded, now: datetime, why: str) -> Answer:
        """Quarantine the one fact of ``message``. Raises ``Outdated``."""
        if not self.belongs_to(worker, message.run):
            return DropRun(message.fence, "the run is no longer this attempt's")
        if message.first != self.last(message.stream) + 1:
            return Resend(message.fence, self.last(message.stream) + 1, message.stream)
        self._quarantine(message.stream, message.first, message.facts[0], why, now)
        self.save(message.stream, message.first, now)
        return Acknowledge(message.fence, message.first, message.stream)

    def _apply_or_set_aside(self, stream: str, seq: int, data: object, now: datetime) -> None:
        """One fact that cannot be applied is set aside with its reason; the stream goes on."""
        try:
            self.apply(messages.decode_fact(data), now)
        except (ValueError, TypeError) as wrong:  # a ProtocolError is a ValueError
            self._quarantine(stream, seq, data, str(wrong), now)

    def _quarantine(self, stream: str, seq: int, data: object, why: str, now: datetime) -> None:
        if isinstance(data, dict) and "body" in data:  # what the code asked; a variable or a form's input may be secret
            data = {**data, "body": masking.MASK}
        Quarantine.objects.create(
            attempt_id=self.attempt.pk,
            stream=stream,
            seq=seq,
            time=now,
            fact=clean_text(repr(data), 4_000),
            reason=clean_text(why, 1_000),
        )

    # ------------------------------------------------------------------------------------------------------ applying

    def apply(self, fact: object, now: datetime) -> None:
        """Take one fact in. After the run's end only log lines count: what is final does not change."""
        if isinstance(fact, messages.Logged):
            return self._logged(fact)
        if self.run.state in FINAL or self.sheet.ending is not None:
            return
        if isinstance(fact, messages.ArtifactWritten):
            return self._artifact_written(fact)
        handler = _HANDLERS.get(type(fact))
        if handler is not None:
            if not self.sheet.progressed:  # what time alone has moved stays shown, whatever this batch says
                self._show(now)
            self.sheet.progressed = True
            handler(self, fact)

    def _show(self, now: datetime, *, at_once: bool = False) -> None:
        """Work out the run's progress. It reads all tasks, so with thousands of them a few times a second is enough."""
        count = len(self.sheet.by_call) + sum(len(sub.by_call) for sub in self.subs.values())
        rest = REST_EACH * count if count >= MANY else timedelta()
        due = self.shown_at is None or not timedelta() <= now - self.shown_at < rest
        if count and (at_once or due):
            for sheet in (*reversed(self.subs.values()), self.sheet):  # the called before their callers
                sheet.show(now)
            self.shown_at = now

    def _run_started(self, fact: messages.RunStarted) -> None:
        self.run.pid = check_count(fact.pid)
        if not self.sheet.by_call:
            self.sheet.plan()

    def _run_named(self, fact: messages.RunNamed) -> None:
        self.run.name = clean_text(fact.name, MAX_NAME)
        self._named = True

    def _task_started(self, fact: messages.TaskStarted) -> None:
        at, number, call = moment(fact.time), check_count(fact.task), check_count(fact.call)
        if number in self.by_number:
            raise ValueError(f"task run {fact.task} has started before")
        sheet, parent = self._below(check_count(fact.parent)) if fact.parent else (self.sheet, None)
        row = sheet.called(clean_text(fact.key, 200), call)
        row.name = clean_text(fact.name, 200) or row.name
        row.number, row.parent = number, parent
        row.weight = fact.weight if fact.weight is not None else row.weight
        row.estimated_ms = fact.estimated_ms if fact.estimated_ms is not None else row.estimated_ms
        row.state, row.started_at, row.crucial = TaskState.RUNNING, at, fact.crucial
        self.by_number[number] = sheet, row
        sheet.touch(row)

    def _below(self, number: int) -> tuple[RunRows, int | None]:
        """Where a call stands that task run ``number`` makes: its sheet, and the number of the caller in that."""
        sheet, row = self.by_number.get(number, (self.sheet, None))
        sub = self._sub_run_of(row)
        return (sheet, number) if sub is None else (sub, None)

    def _sub_run_of(self, row: TaskRun | None) -> RunRows | None:
        return self.subs.get(row.subrun) if row is not None and row.subrun is not None else None

    def _open_task(self, number: int) -> tuple[RunRows, TaskRun]:
        found = self.by_number.get(number)
        if found is None:
            raise ValueError(f"task run {number} has not started")
        if found[1].state in TASK_FINAL:
            raise ValueError(f"task run {number} has ended as {found[1].state}")
        return found

    def _task_retrying(self, fact: messages.TaskRetrying) -> None:
        """An attempt failed and another follows: what it had reported counts no more, what was shown stays."""
        sheet, row = self._open_task(fact.task)
        row.state, row.share, row.tries = TaskState.RETRYING, None, check_count(fact.tries)
        row.error, row.traceback = clean_text(fact.error, 4_000), clean_text(fact.traceback)
        sheet.touch(row)

    def _task_restarted(self, fact: messages.TaskRestarted) -> None:
        """The duration that counts is that of the attempt that comes to the end."""
        sheet, row = self._open_task(fact.task)
        row.state, row.started_at, row.tries = TaskState.RUNNING, moment(fact.time), check_count(fact.tries)
        sheet.touch(row)

    def _task_progressed(self, fact: messages.TaskProgressed) -> None:
        sheet, row = self._open_task(fact.task)
        row.share, row.note = min(1.0, max(row.share or 0.0, fact.share)), clean_text(fact.text, 500)
        sheet.touch(row)
        if row.subrun is not None and (sub := self._sub_run_of(row)) is not None:
            sub.progressed = True

    def _task_ended(self, fact: messages.TaskEnded) -> None:
        if fact.outcome not in TASK_FINAL:
            raise ValueError(f"a task cannot end as {fact.outcome!r}")
        (sheet, row), at = self._open_task(fact.task), moment(fact.time)
        # Two clocks are read by one process, yet a step back in between must not make a duration negative.
        row.state, row.finished_at = TaskState(fact.outcome), max(at, row.started_at or at)
        row.error, row.traceback = clean_text(fact.error, 4_000), clean_text(fact.traceback)
        if fact.result or fact.state or fact.message:
            row.result, row.message = clean_text(fact.result, PREVIEW_BYTES), clean_text(fact.message, PREVIEW_BYTES)
            row.state_name = clean_text(fact.state, MAX_NAME)
        sheet.touch(row)
        if row.subrun is not None and (sub := self._sub_run_of(row)) is not None:
            details = {"error": fact.error, "traceback": fact.traceback, "result": fact.result}
            details["state_name"] = row.state_name
            self._end_sub_run(sub, SUB_RUN_ENDS[row.state], fact.error or fact.message, at, details)

    # ------------------------------------------------------------------------------------------------------ sub-runs

    def _sub_run_started(self, fact: messages.SubRunStarted) -> None:
        (sheet, row), at, pk = self._open_task(fact.task), moment(fact.time), UUID(fact.run)
        if row.subrun is not None:
            raise ValueError(f"task run {fact.task} is run {row.subrun} already")
        if pk.version != 7:
            raise ValueError(f"the id of a sub-run must be a UUIDv7, not {pk}")
        if len(dumps(fact.parameters)) > MAX_PARAMETERS_BYTES:
            raise ValueError(f"the parameters take more than {MAX_PARAMETERS_BYTES:,} bytes as JSON")
        if pk in self.subs or any(pk == ended.run.pk for ended in self._ended) or find(Run, id=pk) is not None:
            raise ValueError(f"there is a run {pk} already")
        run = Run(
            pk=pk,
            flow=flow_called(name=fact.flow, now=at),
            state=RunState.RUNNING,
            parameters=fact.parameters,
            configuration=clean_text(fact.configuration, MAX_NAME),
            tags=[clean_text(tag, MAX_NAME) for tag in fact.tags[:TAG_LIMIT]],
            trigger=Run.Trigger.FLOW,
            triggered_by=sheet.run.flow.name,
            parent=sheet.run,
            root=self.run,
            created_at=at,
            started_at=at,
            attempt=self.attempt.number,
            name=clean_text(fact.name, MAX_NAME),
        )
        self.subs[pk] = made = RunRows(run, self.attempt.number, above=sheet, call=row, is_new=True)
        made.plan()
        row.subrun = pk
        sheet.touch(row)

    def _end_sub_run(
        self, sub: RunRows, to: RunState, why: str, at: datetime, details: dict[str, str], inner: str = ""
    ) -> None:
        """``inner``: why what is still open below it ends. A flow tells that itself, unless it is cut short."""
        for below in list(sub.below.values()):
            told = inner or around(to, why)
            self._end_sub_run(below, left_open(to), told, at, {}, told)
        sub.end(to, why, at, details)
        self._ended.append(sub)
        del self.subs[sub.run.pk]
        if sub.above is not None:
            del sub.above.below[sub.run.pk]
        for row in sub.by_call.values():
            if row.number is not None:
                self.by_number.pop(row.number, None)

    # ----------------------------------------------------------------------------------------------- lines and the end

    def _logged(self, fact: messages.Logged) -> None:
        """The run's log has all lines; a sub-run's are marked as its."""
        level = min(max(fact.level, 0), 100)
        task = fact.task and check_count(fact.task)
        seq = self.run.log_count + self._lines + 1
        line = (seq, moment(fact.time), level, task, clean_text(fact.message), check_count(fact.dropped))
        self._lines += 1
        sheet = self._told_by(task) if task and self.subs else self.sheet
        sheet.lines.append(line)
        for counts in [self.sheet.counts] if sheet is self.sheet else [self.sheet.counts, sheet.counts]:
            counts[0] += WARNING <= level < ERROR
            counts[1] += level >= ERROR

    def _told_by(self, task: int) -> RunRows:
        sheet, row = self.by_number.get(task, (self.sheet, None))
        return self._sub_run_of(row) or sheet

    def _asks(self, fact: questions.Told) -> None:
        check_count(fact.ask)
        self.told.append(fact)

    def _artifact_written(self, fact: messages.ArtifactWritten) -> None:
        if self.album is None:
            self.album = ArtifactParts(self.run.pk, self.attempt.number)
        sheet = self._told_by(check_count(fact.task)) if fact.task and self.subs else self.sheet
        self.album.write(fact, moment(fact.time), sheet.run.pk if sheet is not self.sheet else None)

    def _run_ended(self, fact: messages.RunEnded) -> None:
        if fact.outcome not in _OUTCOMES:
            raise ValueError(f"a run cannot end as {fact.outcome!r}")
        to, why = _OUTCOMES[fact.outcome], fact.reason or fact.error
        if to is not RunState.COMPLETED and self._cancel_wanted():
            to, why = RunState.CANCELLED, self._cancel_reason(fact.reason)
        details = {"error": fact.error, "traceback": fact.traceback, "result": fact.result}
        details["state_name"] = clean_text(fact.state, MAX_NAME)
        self.sheet.end(to, why, moment(fact.time), details)

    def _process_exited(self, fact: messages.ProcessExited) -> None:
        cancelled = self._cancel_wanted() or fact.cancelled  # asked first: it also tells by whom
        to = RunState.CANCELLED if cancelled else RunState.FAILED if fact.timed_out else RunState.CRASHED
        why = self._cancel_reason(fact.reason) if cancelled else fact.reason
        details = (
            {"traceback": fact.last_output} if cancelled else {"error": fact.reason, "traceback": fact.last_output}
        )
        self.sheet.end(to, why, moment(fact.time), details)

    def _cancel_wanted(self) -> bool:
        """The wish may have come from another process since the ledger was opened, so the row is asked."""
        row = Run.objects.filter(pk=self.run.pk).values_list("cancel_requested_at", "cancel_requested_by").first()
        self.run.cancel_requested_at, self.run.cancel_requested_by = row or (None, "")
        return self.run.cancel_requested_at is not None

    def _cancel_reason(self, how: str) -> str:
        """What its worker says of the end, unless it only repeats the order."""
        who = self.run.cancel_requested_by
        asked = cancel_reasons([self.run.pk]).get(self.run.pk, f"{CANCELLED} by {who}" if who else CANCELLED)
        repeated = asked.startswith(how) or how.startswith(f"{CANCELLED} by ")
        return asked if repeated else f"{asked}; {how}"

    # -------------------------------------------------------------------------------------------------------- writing

    def save(self, stream: str, seq: int, now: datetime) -> None:
        """Write what the batch changed, and how far the stream has come; raises ``Outdated``."""
        column = f"{stream}_seq"
        mine = {"id": self.attempt.pk, "revoked_at": None, column: getattr(self.attempt, column)}
        if not swap(Attempt, mine, {column: seq, **({"asks": True} if self.told else {})}):
            raise Outdated
        setattr(self.attempt, column, seq)
        self.attempt.asks = self.attempt.asks or bool(self.told)
        root = self.sheet
        if root.ending is not None:
            self._end_all(*root.ending)
        subs = [*self._ended, *reversed(self.subs.values())]  # the called before their callers
        for sub in subs:
            sub.settle(now)
        if root.progressed and (root.ending is None or root.ending[0] is not RunState.COMPLETED):
            self._show(now, at_once=root.ending is not None)
        if self.told:
            questions.take(self.run, self.attempt, self.told, now)
        self._write(subs, now)
        if root.ending is not None and self.attempt.asks:
            questions.forget(run=self.run, now=now)
        events.publish(events.run_topic(self.run.pk), *([events.log_topic(self.run.pk)] if self._lines else []))
        if root.progressed and root.ending is None:
            events.publish(events.OVERVIEW)
        self.forget_changes()

    def _end_all(self, to: RunState, why: str, values: dict[str, Any]) -> None:
        for sub in list(self.sheet.below.values()):
            told = around(to, why)
            self._end_sub_run(sub, left_open(to), told, values["finished_at"], {}, told)
        self.sheet.close_tasks()

    def _write(self, subs: list[RunRows], now: datetime) -> None:
        for sub in subs:
            if sub.is_new:
                why = f"called by run {sub.run.parent_id}"
                Run.objects.admit([sub.run], now=now, who="worker", why=why)
                events.publish(events.flow_topic(sub.run.flow.slug))
        changed = [row for sheet in (self.sheet, *subs) for row in sheet.changed.values()]
        if changed:
            insert(changed, replacing=ONE_CALL)
        mine = {"run_id": self.run.pk, "attempt": self.attempt.number}
        insert_values(LogLine, LINE, self.sheet.lines, **mine)
        shown = self.album.save() if self.album is not None else Counter[UUID]()
        for sub in subs:
            insert_values(LogLine, LINE, sub.lines, **mine, subrun=sub.run.pk)
            if sub.progressed or sub.lines or sub.ending or sub.run.pk in shown:
                self._save_run(sub, len(sub.lines), shown[sub.run.pk], now, {})
        named = {"name": self.run.name} if self._named else {}
        self._save_run(self.sheet, self._lines, shown[self.run.pk], now, named)

    def _save_run(self, sheet: RunRows, lines: int, shown: int, now: datetime, values: dict[str, Any]) -> None:
        run = sheet.run
        sheet.has_rows = sheet.has_rows or bool(sheet.changed)
        run.log_count += lines
        if lines:
            values["log_count"] = run.log_count
        grow = {"warning_count": sheet.counts[0], "error_count": sheet.counts[1]} if lines else {}
        if shown:
            grow["artifact_writes"] = shown
        if sheet.progressed:
            values["pid"] = run.pid
            if sheet.ending is None or sheet.ending[0] is not RunState.COMPLETED:
                values["progress"] = run.progress
        if sheet.ending is None:
            swap(Run, {"id": run.pk}, values, grow={"version": 1, **grow})
        else:
            to, why, details = sheet.ending
            if not end(run, to, now=now, who="worker", why=why, grow=grow, **values, **details):
                raise Outdated
        if sheet is not self.sheet:
            events.publish(events.run_topic(run.pk), *([events.log_topic(run.pk)] if lines else []))


_OUTCOMES = {state.value: state for state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)}
_HANDLERS: dict[type, Callable[[Ledger, Any], None]] = {
    messages.RunStarted: Ledger._run_started,
    messages.RunNamed: Ledger._run_named,
    messages.TaskStarted: Ledger._task_started,
    messages.TaskRetrying: Ledger._task_retrying,
    messages.TaskRestarted: Ledger._task_restarted,
    messages.TaskProgressed: Ledger._task_progressed,
    messages.TaskEnded: Ledger._task_ended,
    messages.Asked: Ledger._asks,
    messages.Released: Ledger._asks,
    messages.SubRunStarted: Ledger._sub_run_started,
    messages.RunEnded: Ledger._run_ended,
    messages.ProcessExited: Ledger._process_exited,
}


class LedgerCache:
    """The ledgers of the attempts that report to this process, least recently used last. One thread: the writer's."""

    def __init__(self) -> None:
        self._ledgers: OrderedDict[int, Ledger] = OrderedDict()

    def clear(self) -> None:
        self._ledgers.clear()

    def take(self, fence: int) -> Ledger | None:
        """The attempt's ledger, from the cache or else from the rows; None if there is no attempt.

        A ledger from the cache may be outdated; ``Ledger.save`` finds out, by compare-and-swap.
        """
        ledger = self._ledgers.pop(fence, None)
        return ledger if ledger is not None else self.open(fence)

    def open(self, fence: int) -> Ledger | None:
        """The attempt's ledger as the rows stand now."""
        self._ledgers.pop(fence, None)
        attempt = Attempt.objects.select_related("run__flow").filter(pk=fence).first()
        return Ledger(attempt) if attempt is not None else None

    def put_back(self, ledger: Ledger) -> None:
        """Keep the ledger if the transaction commits and the run goes on."""
        transaction.on_commit(partial(self._keep, ledger))

    def _keep(self, ledger: Ledger) -> None:
        if ledger.run.state in FINAL:
            return
        self._ledgers[ledger.attempt.pk] = ledger
        while len(self._ledgers) > LEDGERS_KEPT:
            self._ledgers.popitem(last=False)


ledgers = LedgerCache()


def record(*, worker: UUID, message: FactsRecorded, now: datetime) -> Answer:
    """Apply one batch of one stream of one attempt; the answer is to be sent after the commit."""
    if message.stream not in messages.STREAMS:
        return DropRun(message.fence, f"there is no stream {message.stream!r}")
    try:
        with transaction.atomic():
            return _record(ledgers.take(message.fence), worker, message, now)
    except Outdated:
        return _record(ledgers.open(message.fence), worker, message, now)


def _record(ledger: Ledger | None, worker: UUID, message: FactsRecorded, now: datetime) -> Answer:
    if ledger is None:
        return DropRun(message.fence, "the server does not know this attempt")
    return ledger.record(worker, message, now)


def set_aside(*, worker: UUID, message: FactsRecorded, now: datetime, why: str) -> Answer:
    """Quarantine the one fact of ``message``, which the database refuses however often it is sent."""
    ledger = ledgers.take(message.fence)
    if ledger is None:
        return DropRun(message.fence, "the run is no longer this attempt's")
    return ledger.set_aside(worker, message, now, why)
