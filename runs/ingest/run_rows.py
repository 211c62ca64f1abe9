"""A run's rows in memory, while a ledger is open: its task runs, how far along it is, its lines, its end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from perfect_client.wire.messages import clean_text

from runs.models import Run, TaskRun
from runs.rules import progress
from runs.rules.states import LEFT_OPEN, TASK_FINAL, RunState, TaskState
from runs.services import history


class RunRows:
    """What a ledger knows of one run: the attempt's own, or a sub-run, which is the ``call`` in the sheet ``above``."""

    def __init__(
        self,
        run: Run,
        attempt: int,
        rows: Iterable[TaskRun] = (),
        above: RunRows | None = None,
        call: TaskRun | None = None,
        is_new: bool = False,
    ) -> None:
        self.run, self.attempt, self.above, self.call, self.is_new = run, attempt, above, call, is_new
        self.by_call = {(row.key, row.call): row for row in rows}
        self.has_rows = bool(self.by_call)  # or may have
        self.below: dict[UUID, RunRows] = {}  # the sub-runs that it has called and that go on
        self._calls: dict[str, int] = {}  # of a sub-run, by key
        for row in self.by_call.values():
            if row.number is not None:
                self._calls[row.key] = max(self._calls.get(row.key, 0), row.call + 1)
        if above is not None:
            above.below[run.pk] = self
        self.forget_changes()

    def forget_changes(self) -> None:
        self.changed: dict[int, TaskRun] = {}
        self.lines: list[tuple[Any, ...]] = []
        self.counts = [0, 0]
        self.ending: tuple[RunState, str, dict[str, Any]] | None = None
        self.progressed = False

    def add(self, row: TaskRun) -> TaskRun:
        """A row that is new to the run; whoever adds it touches it."""
        row.run_id, row.attempt = self.run.pk, self.attempt
        self.by_call[row.key, row.call] = row
        return row

    def touch(self, row: TaskRun) -> None:
        self.changed[id(row)] = row
        self.progressed = True

    def plan(self) -> None:
        """Freeze what is expected: the calls found in the code, corrected by what recent runs really did."""
        for row in history.plan_of(self.run):
            self.touch(self.add(row))

    def called(self, key: str, call: int) -> TaskRun:
        """The row of a call that starts now. Calls are told as counted by the outermost run; a sub-run counts its own.

        Raises ``ValueError`` if it has started before.
        """
        if self.above is not None:
            call = self._calls.get(key, 0)
            self._calls[key] = call + 1
        row = self.by_call.get((key, call))
        if row is not None and row.number is not None:
            raise ValueError(f"call {call} of {key} has started before")
        if row is None:
            row = self.add(history.unexpected(self.run, key, call, self.by_call.get((key, 0)), len(self.by_call)))
        return row

    def show(self, now: datetime) -> None:
        """Work out the run's progress; a sub-run's is the share of its call, and what that reports is its progress."""
        if self.by_call:
            self.run.progress = history.progress_of(self.run, self.by_call.values(), now)
        if self.call is not None:
            self.run.progress = max(self.run.progress, min((self.call.share or 0.0) * 100, progress.RUN_CAP))
            if self.by_call:  # without tasks it says nothing: the time that its call usually takes says more
                self.call.share = self.run.progress / 100

    def end(self, to: RunState, why: str, at: datetime, details: dict[str, str]) -> None:
        values: dict[str, Any] = {name: clean_text(text) for name, text in details.items()}
        # A worker's clock may be behind; a run does not end before it starts.
        values["finished_at"] = max(at, self.run.started_at or at)
        if to is RunState.COMPLETED:
            values["progress"] = 100.0
        self.ending = (to, clean_text(why, 2_000), values)

    def close_tasks(self) -> None:
        """No task run stays open in a final run; what was expected and never came is dropped from a completed one."""
        if self.ending is None:
            return
        to, at = self.ending[0], self.ending[2]["finished_at"]
        started, never_started = LEFT_OPEN[to]
        unseen = [key for key, row in self.by_call.items() if row.state == TaskState.PENDING]
        if to is RunState.COMPLETED:
            for key in unseen:
                self.changed.pop(id(self.by_call.pop(key)), None)
            if unseen and self.has_rows:
                TaskRun.objects.filter(run_id=self.run.pk, attempt=self.attempt, number=None).delete()
        for row in self.by_call.values():
            if row.state not in TASK_FINAL:
                row.state, row.finished_at = (
                    (never_started, None)
                    if row.state == TaskState.PENDING
                    else (started, max(at, row.started_at or at))
                )
                self.touch(row)

    def settle(self, now: datetime) -> None:
        """Before a sub-run is written: its end closes its tasks, and what changed in it has changed its call."""
        if self.ending is not None:
            self.close_tasks()
            if self.ending[0] is not RunState.COMPLETED:
                self.show(now)
        if self.progressed and self.above is not None and self.call is not None:
            self.above.touch(self.call)
