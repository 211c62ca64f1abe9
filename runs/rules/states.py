"""The life of a run and of a task run: states, the allowed moves with one sentence each, which are final.

Pure: no database, no clock. ``runs.models`` is the only writer of a state and asks this table.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class RunState(StrEnum):
    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    OFFERED = "OFFERED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    LOST = "LOST"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


class TaskState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    CACHED = "CACHED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"


S = RunState

MOVES: dict[tuple[RunState, RunState], str] = {
    (S.SCHEDULED, S.PENDING): "Its time has come.",
    (S.SCHEDULED, S.CANCELLED): "Cancelled before its time.",
    (S.SCHEDULED, S.SKIPPED): "A rule of its schedule says not to run it.",
    (S.PENDING, S.OFFERED): "Offered to a worker with a free slot.",
    (S.PENDING, S.CANCELLED): "Cancelled while it waited.",
    (S.PENDING, S.SKIPPED): "A rule of its schedule says not to run it.",
    (S.OFFERED, S.PENDING): "Nobody claimed the offer; no attempt was used up.",
    (S.OFFERED, S.RUNNING): "A worker claimed it, and the claim is on disk.",
    (S.OFFERED, S.CANCELLED): "Cancelled before a worker claimed it.",
    (S.RUNNING, S.LOST): "No word from its worker; the work may well go on.",
    (S.LOST, S.RUNNING): "Its worker is back with the same attempt.",
    (S.RUNNING, S.PAUSED): "It waits for a person.",
    (S.PAUSED, S.RUNNING): "A person let it go on.",
    (S.PAUSED, S.LOST): "No word from its worker; the run may well be there, and waits.",
    (S.LOST, S.PAUSED): "Its worker is back with the same attempt, which still waits for a person.",
    (S.RUNNING, S.RETRYING): "The attempt failed and another is allowed.",
    (S.LOST, S.RETRYING): "The attempt is given up and another is allowed.",
    (S.RETRYING, S.PENDING): "The delay before the next attempt is over.",
    (S.RETRYING, S.CANCELLED): "Cancelled between two attempts.",
    (S.RUNNING, S.COMPLETED): "The flow returned.",
    (S.LOST, S.COMPLETED): "The flow returned, as its worker reports late.",
    (S.PAUSED, S.COMPLETED): "The flow returned.",
    (S.RUNNING, S.FAILED): "The flow raised, or ran out of time.",
    (S.LOST, S.FAILED): "The flow raised, as its worker reports late.",
    (S.PAUSED, S.FAILED): "The flow raised, or ran out of time.",
    (S.RUNNING, S.CRASHED): "The process ended without an outcome.",
    (S.LOST, S.CRASHED): "The process or its worker is gone for good.",
    (S.PAUSED, S.CRASHED): "The process ended without an outcome.",
    (S.RUNNING, S.CANCELLED): "Stopped on request.",
    (S.LOST, S.CANCELLED): "Stopped on request, as its worker reports late.",
    (S.PAUSED, S.CANCELLED): "Stopped on request.",
}

FINAL = frozenset({S.COMPLETED, S.FAILED, S.CRASHED, S.CANCELLED, S.SKIPPED})
RESUMABLE = frozenset({S.FAILED, S.CRASHED, S.CANCELLED})  # ended before their end
WAITING = frozenset({S.SCHEDULED, S.PENDING, S.OFFERED, S.RETRYING})
HELD = frozenset({S.RUNNING, S.LOST, S.PAUSED})  # owned by an attempt, occupying a slot
LIVE = frozenset(S) - FINAL

OFFER_LASTS = timedelta(seconds=20)  # then an offer that nobody claimed is taken back

TASK_FINAL = frozenset(
    {
        TaskState.COMPLETED,
        TaskState.CACHED,
        TaskState.FAILED,
        TaskState.SKIPPED,
        TaskState.CANCELLED,
        TaskState.CRASHED,
    }
)
TASK_DONE = frozenset({TaskState.COMPLETED, TaskState.CACHED, TaskState.SKIPPED})

# What becomes of a task run that is open when its run ends: (was it started?) -> state, per run outcome.
LEFT_OPEN: dict[RunState, tuple[TaskState, TaskState]] = {
    S.COMPLETED: (TaskState.COMPLETED, TaskState.SKIPPED),
    S.FAILED: (TaskState.FAILED, TaskState.SKIPPED),
    S.CRASHED: (TaskState.CRASHED, TaskState.SKIPPED),
    S.CANCELLED: (TaskState.CANCELLED, TaskState.SKIPPED),
    S.SKIPPED: (TaskState.SKIPPED, TaskState.SKIPPED),
}

# What a sub-run comes to when the call that it is ends so.
SUB_RUN_ENDS: dict[str, RunState] = {
    TaskState.COMPLETED: S.COMPLETED,
    TaskState.CACHED: S.COMPLETED,
    TaskState.FAILED: S.FAILED,
    TaskState.CRASHED: S.CRASHED,
    TaskState.CANCELLED: S.CANCELLED,
    TaskState.SKIPPED: S.CANCELLED,
}

# Glyph and word: a state is never told by colour alone. OFFERED is an inner step that people see as Pending.
SHOWN: dict[str, tuple[str, str]] = {
    "SCHEDULED": ("◷", "Scheduled"),
    "PENDING": ("◷", "Pending"),
    "OFFERED": ("◷", "Pending"),
    "RUNNING": ("▶", "Running"),
    "PAUSED": ("❙❙", "Paused"),
    "LOST": ("◌", "Lost"),
    "RETRYING": ("↻", "Retrying"),
    "COMPLETED": ("✔", "Completed"),
    "CACHED": ("≡", "Cached"),
    "FAILED": ("✖", "Failed"),
    "CRASHED": ("▲", "Crashed"),
    "CANCELLED": ("◼", "Cancelled"),
    "SKIPPED": ("»", "Skipped"),
}


def left_open(to: RunState) -> RunState:
    """What becomes of a sub-run that goes on when the run around it ends as ``to``."""
    return SUB_RUN_ENDS[LEFT_OPEN[to][0]]


def sources(to: RunState) -> frozenset[RunState]:
    """The states from which a run may move to ``to``."""
    return frozenset(before for before, after in MOVES if after == to)


def seen(state: str) -> str:
    """The state as users and the API see it: OFFERED is PENDING."""
    return "PENDING" if state == RunState.OFFERED else str(state)
