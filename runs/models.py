"""What happens: workers, runs, attempts, task runs, log lines, and the event row that explains each move."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import F, Q
from django.urls import reverse
from perfect_client.schema.masking import Schema, is_secret

from flows.fields import OrderedJSONField, SealedJSONField
from flows.models import Flow, Schedule, Version
from flows.sealing import ALL
from flows.statements import insert, swap
from runs.access import SignInLink, Token
from runs.rules.states import FINAL, HELD, LIVE, MOVES, RunState, TaskState, seen, sources

__all__ = [
    "Artifact",
    "Attempt",
    "Event",
    "Holding",
    "Limit",
    "LogLine",
    "Offering",
    "Quarantine",
    "Question",
    "Run",
    "SignInLink",
    "TaskRun",
    "Token",
    "Variable",
    "Worker",
]


_uuid7_lock = threading.Lock()
_uuid7_last = 0


def uuid7() -> uuid.UUID:
    """RFC 9562 §5.7 with a counter (§6.2, method 1): milliseconds, 12 bits that count on within one, random bits.

    Ordered by creation within a process, so ``-pk`` is newest first and runs of one call keep their order.
    """
    global _uuid7_last
    with _uuid7_lock:
        _uuid7_last = max((time.time_ns() // 1_000_000) << 12, _uuid7_last + 1)
        ticks = _uuid7_last
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return uuid.UUID(int=(ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0x2 << 62 | random)


class WorkerQuerySet(models.QuerySet["Worker"]):
    def known(self) -> WorkerQuerySet:
        """Without those that a person has forgotten."""
        return self.filter(forgotten_at=None)


class Worker(models.Model):
    """A worker as it last introduced itself. ``id`` is its identity on its own disk; ``name`` is only a label.

    Of a forgotten worker only the name is kept, for the history of its runs; it is known again when it joins.
    """

    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=200)
    boot = models.CharField(max_length=64)
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(default=0)
    python = models.CharField(max_length=32, blank=True)
    sdk = models.CharField(max_length=32, blank=True)
    slots = models.PositiveIntegerField(default=1)
    pools = models.JSONField(default=list, blank=True)
    problems = models.JSONField(default=list, blank=True)
    connected = models.BooleanField(default=False)
    server = models.IntegerField(
        default=0, db_default=0, help_text="The server process that it is, or was last, connected to"
    )
    joined_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    left_reason = models.CharField(max_length=500, blank=True)
    forgotten_at = models.DateTimeField(null=True, blank=True)
    token = models.ForeignKey(
        Token,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="workers",
        help_text="With which it joined: its identity is this token's while that is valid",
    )
    draining = models.JSONField(
        default=dict, blank=True, help_text="Connected processes of it that take no new run: boot → runs they wait for"
    )
    flows: models.ManyToManyField[Flow, Any] = models.ManyToManyField(
        Flow, through="Offering", related_name="workers", blank=True
    )

    SHOWN_SILENT_AFTER: ClassVar[timedelta] = timedelta(seconds=30)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering = ("-connected", "name")

    def __str__(self) -> str:
        return self.name

    @property
    def takes_runs(self) -> bool:
        """Whether the newest process of it is connected and does not drain."""
        return self.connected and self.boot not in self.draining

    @property
    def draining_runs(self) -> int:
        """How many runs its draining processes wait for."""
        return sum(self.draining.values())

    def silent_for(self, now: datetime) -> timedelta | None:
        """How long there has been no word, once it is worth saying; None while all is well."""
        quiet = now - self.last_seen_at
        return quiet if not self.connected or quiet > self.SHOWN_SILENT_AFTER else None


class Offering(models.Model):
    """A flow that a worker offers to run, and what it says of the flow's code there."""

    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="offerings")
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="offerings")
    version = models.ForeignKey(
        Version, null=True, on_delete=models.SET_NULL, related_name="offerings", help_text="Of its code there"
    )
    start = models.CharField(max_length=20, blank=True, help_text="How a run's process begins: fork or fresh")
    start_reason = models.TextField(blank=True, help_text="Why not by a fork")
    problem = models.TextField(blank=True, help_text="Why the newest code of its file is not used")
    notes = models.JSONField(default=list, blank=True, help_text="Remarks about its code")

    class Meta:
        ordering = ("pk",)
        unique_together = (("worker", "flow"),)  # as the table had it before it had columns of its own

    def __str__(self) -> str:
        return f"{self.flow.name} on {self.worker.name}"


class RunQuerySet(models.QuerySet["Run"]):
    def live(self) -> RunQuerySet:
        return self.filter(state__in=LIVE)

    def final(self) -> RunQuerySet:
        return self.filter(state__in=FINAL)

    def held(self) -> RunQuerySet:
        return self.filter(state__in=HELD)

    def asked_for(self) -> RunQuerySet:
        """Without the sub-runs, which came of other runs."""
        return self.filter(parent=None)

    def with_subruns(self) -> RunQuerySet:
        """These runs, and all that was called in them."""
        ids = list(self.values_list("pk", flat=True))
        return Run.objects.filter(Q(pk__in=ids) | Q(root_id__in=ids))

    def admit(self, runs: Sequence[Run], *, now: datetime, who: str, why: str) -> None:
        """Insert new runs, each with its first event."""
        with transaction.atomic(savepoint=False):
            insert(runs)
            insert(
                [Event(run_id=run.pk, time=now, after=run.state, who=who, why=run.state_reason or why) for run in runs]
            )

    def move(self, to: RunState, *, now: datetime, who: str, why: str = "", **values: Any) -> int:
        """Move the runs of this query set to ``to`` where the table of moves allows it; returns how many moved."""
        found = self.filter(state__in=sources(to)).values_list("pk", "state")
        return sum(Run(pk=pk, state=state).move(to, now=now, who=who, why=why, **values) for pk, state in found)


class Run(models.Model):
    """One execution that somebody or something wished for; or a sub-run, which another run has called.

    A sub-run has no attempt, no worker and no fence of its own: it belongs to the attempt of its ``root``, whose
    facts tell of it and whose end ends it. So it never waits, and holds no slot.
    """

    class Trigger(models.TextChoices):
        PAGE = "page", "from the page"
        API = "api", "by API"
        SHELL = "shell", "from the shell"
        CONSOLE = "console", "from the console"
        SCHEDULE = "schedule", "by schedule"
        FLOW = "flow", "by a flow"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="runs")
    state = models.CharField(max_length=10, choices=[(s.value, s.value.title()) for s in RunState])
    state_reason = models.TextField(blank=True)
    state_name = models.CharField(max_length=200, blank=True, help_text="What the code calls the state it ended in")
    name = models.CharField(max_length=200, blank=True, help_text="From flow_run_name; empty: the flow's")
    parameters = SealedJSONField(default=dict, schema=lambda row: row.flow.parameters)
    configuration = models.CharField(max_length=200, blank=True)
    tags = models.JSONField(default=list)
    trigger = models.CharField(max_length=10, choices=Trigger)
    triggered_by = models.CharField(max_length=200, blank=True)
    schedule = models.ForeignKey(Schedule, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    due_at = models.DateTimeField(null=True, blank=True, help_text="The schedule's nominal time")
    scheduled_for = models.DateTimeField(null=True, blank=True, help_text="Not to start before")
    idempotency_key = models.CharField(max_length=200, null=True, blank=True, unique=True)
    request_digest = models.CharField(max_length=64, blank=True, help_text="Of the request that the key was used for")
    rerun_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="reruns")
    resume_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="resumes")
    resume_from = models.CharField(max_length=200, blank=True, help_text="Key of the task from which all run again")
    resume_before = models.PositiveIntegerField(default=0, help_text="Its number in resume_of; 0: all may be answered")
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="subruns",
        db_index=False,
        help_text="The run that called it",
    )
    root = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="family",
        db_index=False,
        help_text="The outermost run around it",
    )
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(
        null=True, blank=True, help_text="The bar of a paused run stands where it stood then"
    )
    progress = models.FloatField(default=0.0, help_text="0–100, never falls, 100 only when completed")
    fence = models.BigIntegerField(null=True, blank=True, help_text="The attempt that owns the run now")
    attempt = models.PositiveIntegerField(default=0)
    worker = models.ForeignKey(Worker, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    pid = models.PositiveIntegerField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_by = models.CharField(max_length=200, blank=True)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    result = models.TextField(blank=True, help_text="A bounded preview")
    log_count = models.PositiveIntegerField(default=0)
    warning_count = models.PositiveIntegerField(default=0)
    error_count = models.PositiveIntegerField(default=0)
    artifact_writes = models.PositiveIntegerField(default=0, help_text="How often artifacts were written; 0: has none")
    version = models.PositiveBigIntegerField(default=0, help_text="Grows with every change; live pages compare it")

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ("-pk",)
        permissions = [("cancel_run", "Can cancel a run"), ("retry_run", "Can run a run again")]
        indexes = [
            # With the parent in it, runs that are no sub-runs are told from the index alone.
            models.Index(fields=["state", "-id", "parent"], name="run_by_state"),
            models.Index(fields=["flow", "-id"], name="run_by_flow"),
            models.Index(fields=["parent", "-id"], name="run_by_parent"),
            models.Index(fields=["root"], condition=Q(root__isnull=False), name="run_by_root"),
            models.Index(fields=["flow", "state", "-id"], name="run_by_flow_state"),
            models.Index(fields=["scheduled_for"], condition=Q(state="SCHEDULED"), name="run_waiting_for_time"),
            models.Index(fields=["id"], condition=Q(state__in=sorted(LIVE)), name="run_live"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=sorted(RunState)), name="run_state_is_known"),
            models.CheckConstraint(
                condition=Q(state__in=sorted(FINAL), finished_at__isnull=False)
                | Q(state__in=sorted(LIVE), finished_at__isnull=True),
                name="run_final_has_its_end",
            ),
            models.CheckConstraint(
                condition=Q(progress__gte=0, progress__lt=100) | Q(progress=100, state="COMPLETED"),
                name="run_hundred_only_completed",
            ),
            models.CheckConstraint(
                condition=Q(parent=None, root=None) | Q(parent__isnull=False, root__isnull=False, fence=None),
                name="run_sub_run_is_its_roots",
            ),
            models.UniqueConstraint(fields=["schedule", "due_at"], name="run_once_per_due_time"),
        ]

    def __str__(self) -> str:
        return f"{self.flow.name} {self.short_id}"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    def move(
        self,
        to: RunState,
        *,
        now: datetime,
        who: str,
        why: str = "",
        where: Mapping[str, Any] | None = None,
        grow: Mapping[str, int] | None = None,
        **values: Any,
    ) -> bool:
        """The only writer of a state: compare-and-swap, with the event that explains it, in one transaction.

        False if the row is no longer in the state that this instance knows, if ``where`` does not hold, or if the
        table of moves does not know the move; then nothing is changed. ``grow`` adds to columns.
        """
        before = self.state
        if (before, to) not in MOVES:
            return False
        if to in FINAL:
            values.setdefault("finished_at", now)
        with transaction.atomic(savepoint=False):
            values = {**values, "state": str(to), "state_reason": why}
            changed = swap(
                Run, {"id": self.pk, "state": before, **(where or {})}, values, grow={"version": 1, **(grow or {})}
            )
            if changed:
                insert([Event(run_id=self.pk, time=now, before=before, after=to, who=who, why=why)])
                for name, value in values.items():
                    setattr(self, name, value)
        return changed

    def clock(self, now: datetime) -> datetime:
        """The time by which its progress is told: it stands while the run is paused."""
        return self.paused_at if self.state == RunState.PAUSED and self.paused_at else now

    @property
    def short_id(self) -> str:
        """The random end of the id: its start is the time and alike for all runs of an hour."""
        return self.id.hex[-8:]

    @property
    def title(self) -> str:
        """What the run is called: by its ``flow_run_name``, else as its flow."""
        return self.name or self.flow.name

    @property
    def owner_id(self) -> uuid.UUID:
        """The run whose attempt reports of it, and to which its log lines belong: itself, or its root."""
        return self.root_id or self.pk

    @property
    def seen_state(self) -> str:
        return seen(self.state)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    def duration(self, now: datetime) -> timedelta | None:
        """How long it has run, or ran; None before the start."""
        return (self.finished_at or now) - self.started_at if self.started_at else None


class Attempt(models.Model):
    """One try to run a run on one worker. Its key is the fence: a number that only grows."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts")
    worker = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="attempts")
    number = models.PositiveIntegerField()
    offered_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, help_text="When the server took the run away from it")
    facts_seq = models.BigIntegerField(default=0, help_text="The last applied record of the facts stream")
    output_seq = models.BigIntegerField(default=0, help_text="The last applied record of the output stream")
    hold = models.BooleanField(default=False, help_text="Whether a person wants its processes to stand still")
    hold_sent = models.BooleanField(null=True, blank=True, help_text="What its worker was told of that last")
    asks = models.BooleanField(default=False, help_text="Whether its code has asked the server anything")
    problem = models.TextField(blank=True, help_text="Why it runs its worker's last good code and not the newest")
    open_lines = models.JSONField(
        default=list, blank=True, help_text="[time, level, task, message] of each line that has begun and not ended"
    )

    class Meta:
        ordering = ("pk",)


class TaskRun(models.Model):
    """An expected or seen call of a task in one attempt. ``number`` is None until the code calls it."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="task_runs")
    attempt = models.PositiveIntegerField()
    key = models.CharField(max_length=200)
    call = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=200)
    position = models.PositiveIntegerField()
    number = models.PositiveIntegerField(null=True, blank=True)
    parent = models.PositiveIntegerField(null=True, blank=True, help_text="Number of the task run that called it")
    subrun = models.UUIDField(null=True, blank=True, help_text="The run that this call of a flow is")
    state = models.CharField(max_length=10, choices=[(s.value, s.value.title()) for s in TaskState])
    weight = models.FloatField(null=True, blank=True)
    estimated_ms = models.FloatField(null=True, blank=True)
    learned_ms = models.FloatField(null=True, blank=True)
    extent_ms = models.FloatField(null=True, blank=True, help_text="Learned: elapsed time of the run that it takes up")
    share = models.FloatField(null=True, blank=True, help_text="0–1 as reported by progress()")
    note = models.CharField(max_length=500, blank=True)
    tries = models.PositiveIntegerField(default=1)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    result = models.TextField(blank=True, help_text="A bounded preview")
    state_name = models.CharField(max_length=200, blank=True, help_text="What the code calls the state it ended in")
    message = models.TextField(blank=True, help_text="What the code said with that state")
    crucial = models.BooleanField(default=True, help_text="Its failure fails the run")

    class Meta:
        ordering = ("position", "pk")
        constraints = [
            models.UniqueConstraint(fields=["run", "attempt", "key", "call"], name="task_run_once_per_call"),
            models.UniqueConstraint(fields=["run", "attempt", "number"], name="task_run_once_per_number"),
            models.CheckConstraint(condition=Q(state__in=sorted(TaskState)), name="task_run_state_is_known"),
        ]

    def __str__(self) -> str:
        return self.name

    def duration(self, now: datetime) -> timedelta | None:
        return (self.finished_at or now) - self.started_at if self.started_at else None


class LogLine(models.Model):
    """One printed or logged line; ``seq`` counts a run's lines from 1 without gaps."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="log_lines")
    seq = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    time = models.DateTimeField()
    level = models.PositiveSmallIntegerField(help_text="As in logging: 20 is INFO")
    task = models.PositiveIntegerField(null=True, blank=True, help_text="Number of the task run in its attempt")
    message = models.TextField()
    dropped = models.PositiveIntegerField(default=0, help_text="This many lines were not kept, in this one's place")
    subrun = models.UUIDField(null=True, blank=True, help_text="The sub-run that told it; its root has all lines")

    class Meta:
        ordering = ("run", "seq")
        indexes = [
            models.Index(fields=["subrun", "seq"], condition=Q(subrun__isnull=False), name="log_line_by_subrun"),
        ]
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="log_line_once")]


class ArtifactQuerySet(models.QuerySet["Artifact"]):
    def whole(self) -> ArtifactQuerySet:
        """Those of which all parts have come; what a killed process left half-written is never shown."""
        return self.filter(parts_seen=F("parts"))


class Artifact(models.Model):
    """What a run's code shows. ``uid`` is the id that the code knows it by; parts are put together as they come."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="artifacts")
    attempt = models.PositiveIntegerField()
    uid = models.UUIDField()
    kind = models.CharField(max_length=10)
    key = models.CharField(max_length=200, blank=True)
    description = models.TextField(blank=True)
    task = models.PositiveIntegerField(null=True, blank=True, help_text="Number of the task run in its attempt")
    subrun = models.UUIDField(null=True, blank=True, help_text="The sub-run that shows it; its root has all")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    parts = models.PositiveIntegerField(default=1)
    parts_seen = models.PositiveIntegerField(default=0)
    size = models.PositiveIntegerField(default=0, help_text="Bytes, as it came")
    data = models.TextField(blank=True, help_text="Text, or JSON of a link or table; what has come if not all has")
    content = models.BinaryField(null=True, help_text="The bytes of a picture")
    media_type = models.CharField(max_length=50, blank=True, help_text="What the bytes are, by what is in them")
    head = models.TextField(blank=True, help_text="As much of the data as the run's page shows")
    rows = models.PositiveIntegerField(default=0, help_text="Of a table")

    objects = ArtifactQuerySet.as_manager()

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["run", "attempt", "uid"], name="artifact_once")]

    def __str__(self) -> str:
        return self.key or f"{self.kind} {str(self.uid)[:8]}"


class Event(models.Model):
    """Why a run is where it is: each move and each wish, with who, when, from where and why. Never edited."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    time = models.DateTimeField()
    before = models.CharField(max_length=10, blank=True)
    after = models.CharField(max_length=10, blank=True)
    who = models.CharField(max_length=200)
    why = models.TextField(blank=True)

    class Meta:
        ordering = ("pk",)


class Limit(models.Model):
    """What all runs share: so many may hold a slot at a time, or slots that are taken come back at a rate."""

    name = models.CharField(max_length=200, unique=True, help_text="As in concurrency(name) and rate_limit(name)")
    slots = models.PositiveIntegerField(help_text="How many can be taken at a time; 0 lets nobody pass")
    per_second = models.FloatField(
        null=True, blank=True, help_text="For rate_limit(): how many slots come back each second; empty: no rate limit"
    )
    level = models.FloatField(default=0.0, editable=False, help_text="Slots of the rate that were taken, at level_at")
    level_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(condition=Q(per_second=None) | Q(per_second__gt=0), name="limit_rate_is_positive"),
        ]

    def __str__(self) -> str:
        return self.name

    def taken_by_rate(self, now: datetime) -> float:
        """How many of the slots have not come back yet."""
        if self.level_at is None or not self.per_second:
            return 0.0
        return max(0.0, self.level - (now - self.level_at).total_seconds() * self.per_second)


def _schema_under(name: Any) -> Schema:
    """Of any value under this name: it is secret as a whole if the name says so."""
    return ALL if is_secret(str(name), {}, "text") else {}


def _schema_of_answer(question: Question) -> Schema:
    """What a person filled into a form, or the value of a variable."""
    form = question.body.get("schema")
    if isinstance(form, dict):
        return {"properties": {"input": form}, "$defs": form.get("$defs") or {}}
    return {"properties": {"value": _schema_under(question.body.get("name"))}}


class Variable(models.Model):
    """A named JSON value that people and flows share."""

    name = models.CharField(max_length=200, unique=True)
    value = SealedJSONField(
        null=True, blank=True, schema=lambda row: _schema_under(row.name), help_text="Any JSON; empty: null"
    )
    tags = models.JSONField(default=list, blank=True)
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=200)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Question(models.Model):
    """What the code of an attempt asked the server and still needs: it waits for the answer, or holds what it was
    granted. ``answer`` is None until there is one."""

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="questions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    body = OrderedJSONField()
    task = models.PositiveIntegerField(null=True, blank=True, help_text="Number of the task run that asked")
    asked_at = models.DateTimeField()
    answer = SealedJSONField(null=True, blank=True, schema=lambda row: _schema_of_answer(row))
    sent_at = models.DateTimeField(null=True, blank=True, help_text="When the answer went to the worker that is there")

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["attempt", "number"], name="question_once")]


class Holding(models.Model):
    """Slots of a limit that the code of an attempt holds."""

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="holdings")
    question = models.ForeignKey(Question, on_delete=models.CASCADE, related_name="holdings")
    slots = models.PositiveIntegerField()
    since = models.DateTimeField()

    class Meta:
        ordering = ("pk",)


class Quarantine(models.Model):
    """A fact that could not be applied, kept for the operator; the stream went on."""

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="quarantined")
    stream = models.CharField(max_length=10)
    seq = models.BigIntegerField()
    time = models.DateTimeField()
    fact = models.TextField()
    reason = models.TextField()

    class Meta:
        ordering = ("pk",)
