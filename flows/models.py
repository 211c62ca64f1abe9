"""What can be run: flows, their tasks as found in the code, and their schedules."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from urllib.parse import quote

from django.db import models
from django.utils.text import slugify

from flows import schedules
from flows.fields import OrderedJSONField, SealedJSONField


def slug_of(name: str) -> str:
    """The flow's address: ``Daily Sales ETL`` → ``daily-sales-etl``; empty if the name has no letter or digit."""
    return slugify(name, allow_unicode=True)[:200]


class Flow(models.Model):
    """A function that workers offer to run. Its row is written by ``flows.services.announce`` alone."""

    name = models.CharField(max_length=200, unique=True)
    slug = models.CharField(max_length=200, unique=True)
    description = models.TextField(blank=True)
    tags = models.JSONField(default=list, blank=True)
    parameters = OrderedJSONField(default=dict, blank=True, help_text="JSON Schema of the flow's parameters")
    configurations = OrderedJSONField(default=dict, blank=True, help_text="Named sets of values; the first is default")
    file = models.CharField(max_length=1000, blank=True)
    line = models.PositiveIntegerField(default=0)
    fingerprint = models.CharField(max_length=64, blank=True)
    archived = models.BooleanField(default=False, help_text="Hidden from the library; its history stays")
    archived_by = models.CharField(
        max_length=200,
        blank=True,
        help_text="Who archived it; empty: only calls inside other flows are known of it",
    )
    archived_at = models.DateTimeField(null=True, blank=True)
    resting_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when no worker offers it; its schedules rest until one does"
    )
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        ordering = ("name",)
        permissions = [("trigger_flow", "Can run a flow")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """Percent-encoded: a slug keeps letters of every script."""
        return f"/flows/{quote(self.slug)}/"

    @property
    def rest(self) -> str:
        """Why no run of it could start, in a few words; empty if a worker has it, connected or not."""
        since = self.resting_since
        return f"no worker has this flow since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if since else ""

    @property
    def is_codeless(self) -> bool:
        """Whether only calls inside other flows are known of it; an announcement puts it into the library."""
        return self.archived and not self.archived_by

    @property
    def configuration_names(self) -> list[str]:
        return list(self.configurations)

    @property
    def default_configuration(self) -> str:
        return next(iter(self.configurations), "")

    @property
    def properties(self) -> dict[str, Any]:
        """The parameters' schemas by name, in the signature's order."""
        found: dict[str, Any] = self.parameters.get("properties", {})
        return found


def _secrets_of_spec(version: Version) -> dict[str, Any]:
    """Of an announcement the parameters of its schedules may be secret, as the flow's own are."""
    schema = version.spec.get("parameters") or {}
    schedule = {"properties": {"parameters": schema}}
    return {"properties": {"schedules": {"items": schedule}}, "$defs": schema.get("$defs") or {}}


class Version(models.Model):
    """What one version of the code says of its flow, as a worker first announced it. Written by ``flows.versions``."""

    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="versions")
    fingerprint = models.CharField(max_length=64)
    source_at = models.DateTimeField(null=True, blank=True, help_text="When its source changed, as was first told")
    seen_at = models.DateTimeField(help_text="When it was first announced")
    spec = SealedJSONField(schema=_secrets_of_spec)

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["flow", "fingerprint"], name="version_once")]


class Change(models.Model):
    """Who changed what a flow takes, and when. Never edited."""

    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="changes")
    time = models.DateTimeField()
    who = models.CharField(max_length=450, help_text="The worker, and its token")
    what = models.TextField()

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.what


class Task(models.Model):
    """A task call found in a flow's code: one node of its plan."""

    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="tasks")
    key = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    position = models.PositiveIntegerField()
    weight = models.FloatField(null=True, blank=True)
    estimated_ms = models.FloatField(null=True, blank=True)
    in_loop = models.BooleanField(default=False)
    description = models.TextField(blank=True)

    class Meta:
        ordering = ("flow", "position")
        constraints = [models.UniqueConstraint(fields=["flow", "key"], name="task_key_once_per_flow")]

    def __str__(self) -> str:
        return self.name


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def firing(self) -> ScheduleQuerySet:
        """Those that fire when they are due: not paused, and of a flow that is in the library and on a worker."""
        return self.filter(next_at__isnull=False, paused_at=None, flow__archived=False, flow__resting_since=None)


class Schedule(models.Model):
    """When a flow runs by itself. The law of due times lives in ``flows.schedules``."""

    class Kind(models.TextChoices):
        CRON = "cron"
        INTERVAL = "interval"
        ONCE = "once"

    class CatchUp(models.TextChoices):
        SKIP = "skip"
        LATEST = "latest"
        ALL = "all"

    class Overlap(models.TextChoices):
        ALLOW = "allow"
        SKIP = "skip"
        QUEUE = "queue"
        CANCEL_RUNNING = "cancel_running"

    class Source(models.TextChoices):
        CODE = "code"
        CONSOLE = "console"

    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="schedules")
    name = models.CharField(max_length=200, default="default")
    kind = models.CharField(max_length=10, choices=Kind)
    expression = models.CharField(max_length=128)
    timezone = models.CharField(max_length=64, default="UTC")
    parameters = SealedJSONField(default=dict, blank=True, schema=lambda row: row.flow.parameters)
    configuration = models.CharField(max_length=200, blank=True)
    catch_up = models.CharField(max_length=10, choices=CatchUp, default=CatchUp.LATEST)
    overlap = models.CharField(max_length=20, choices=Overlap, default=Overlap.SKIP)
    source = models.CharField(max_length=10, choices=Source, default=Source.CONSOLE)
    edited_by = models.CharField(max_length=200, blank=True, help_text="Who overrode what the code declares")
    paused_by = models.CharField(max_length=200, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    next_at = models.DateTimeField(null=True, blank=True, db_index=True)
    last_at = models.DateTimeField(null=True, blank=True)
    problem = models.TextField(blank=True, help_text="Why the schedule does not fire, if it cannot")

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ("flow", "name")
        permissions = [("pause_schedule", "Can pause and resume a schedule")]
        constraints = [models.UniqueConstraint(fields=["flow", "name"], name="schedule_name_once_per_flow")]

    def __str__(self) -> str:
        return f"{self.flow.name}: {self.words}"

    @property
    def rests(self) -> str:
        """Why it does not fire although nobody paused it, in one sentence; else empty."""
        if self.flow.archived_at is not None:
            return f"rests: {self.flow.archived_by} archived the flow"
        return f"rests: {self.flow.rest}" if self.flow.rest else ""

    @property
    def timing(self) -> schedules.Timing:
        """Raises ``schedules.BadSchedule`` if the row holds what the law refuses."""
        return schedules.parse(self.kind, self.expression, self.timezone)

    @property
    def words(self) -> str:
        try:
            return schedules.in_words(self.timing)
        except schedules.BadSchedule as bad:
            return str(bad)
