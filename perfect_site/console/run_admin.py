"""The console's view of what happened: runs, their parts, workers, tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from perfect_client.wire.messages import clean_text

from flows.models import Flow
from flows.parameters import Refused, masked
from perfect_site.api.pagination import FLOWS_LOOKED_AT
from perfect_site.console.readonly import HistoryAdmin, OfferingInline, act_on_each
from runs import events
from runs.access import Token
from runs.models import Artifact, Event, Limit, LogLine, Quarantine, Run, TaskRun, Variable, Worker
from runs.rules import progress
from runs.rules.states import HELD, SHOWN, RunState, TaskState
from runs.services import limits, offerings, queries, requests

PARTS = {"taskrun": "task runs", "event": "events", "logline": "log", "artifact": "artifacts"}


def state_badge(state: str) -> str:
    """Glyph, word and class: a state is never told by colour alone."""
    glyph, word = SHOWN[state]
    return format_html('<span class="state {}">{} {}</span>', state, glyph, word)


class SeenStateFilter(admin.SimpleListFilter):
    """States as people see them: OFFERED counts as PENDING."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        states = TaskState if model_admin.model is TaskRun else RunState
        return [(state, SHOWN[state][1]) for state in states if state != "OFFERED"]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        wanted = ["PENDING", "OFFERED"] if value == "PENDING" else [value]
        return queryset.filter(state__in=wanted) if value in SHOWN else queryset


class FlowFilter(admin.SimpleListFilter):
    """From the flows' own rows: asking the runs which flows they are of would read them all."""

    title = "flow"
    parameter_name = "flow"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Flow.objects.values_list("slug", "name")[:FLOWS_LOOKED_AT])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(flow__slug=self.value()) if self.value() else queryset


class WindowFilter(admin.SimpleListFilter):
    """Fixed windows in place of ``date_hierarchy``, which takes seconds at a million rows."""

    title = "triggered in the last"
    parameter_name = "window"
    WINDOWS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1h", "hour"), ("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        window = self.WINDOWS.get(self.value() or "")
        if window is None:
            return queryset
        since = timezone.now() - window
        first = UUID(int=int((since - timedelta(hours=1)).timestamp() * 1000) << 80)  # ids begin with their time
        return queryset.filter(created_at__gte=since, pk__gte=first)


class CalledFilter(admin.SimpleListFilter):
    """Sub-runs only when they are asked for: one run may call thousands."""

    title = "sub-flows"
    parameter_name = "called"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "also"), ("only", "only")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        first, *others = super().choices(changelist)
        yield {**first, "display": "left out"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"1": queryset, "only": queryset.exclude(parent=None)}
        return wanted.get(self.value() or "", queryset.filter(parent=None))


@admin.register(Run)
class RunAdmin(HistoryAdmin):
    list_display = ("short", "flow", "shown_state", "shown_progress", "trigger", "triggered_by", "created_at", "took")
    list_display_links = ("short",)
    list_filter = (SeenStateFilter, WindowFilter, "trigger", FlowFilter, CalledFilter)
    list_select_related = ("flow",)
    sortable_by = ()
    search_fields = ("flow__name",)
    search_help_text = "A run's id (whole, or its last eight characters), or a flow's name"
    actions = ("cancel_runs", "run_again", "resume_runs")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return super().get_queryset(request).select_related("flow", "worker")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        names = [field.name for field in Run._meta.fields]
        return ["given" if name == "parameters" else name for name in names] + ["parts"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "parts", "given"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        text = search_term.strip()
        try:
            return queryset.filter(pk=UUID(text)), False
        except ValueError:
            pass
        if len(text) == 8 and all(letter in "0123456789abcdefABCDEF" for letter in text):
            found = Run.objects.annotate(_id=Cast("id", TextField())).filter(_id__iendswith=text).order_by()
            return queryset.filter(pk__in=list(found.values_list("pk", flat=True)[:50])), False  # one scan, not three
        if not text:
            return queryset, False
        flows = Flow.objects.filter(name__icontains=text).values_list("pk", flat=True)[:FLOWS_LOOKED_AT]
        return queryset.filter(flow__in=list(flows)), False

    @admin.display(description="run")
    def short(self, run: Run) -> str:
        return run.short_id

    @admin.display(description="state")
    def shown_state(self, run: Run) -> str:
        return state_badge(run.state)

    @admin.display(description="progress")
    def shown_progress(self, run: Run) -> str:
        percent = run.progress
        if run.state in HELD:  # a few at most, as many as there are slots
            percent, _ = queries.progress_and_eta(run, timezone.now())
        return format_html(
            '<progress max="100" value="{}"></progress> {} %', round(percent, 2), progress.whole_percent(percent)
        )

    @admin.display(description="took")
    def took(self, run: Run) -> str:
        duration = run.duration(timezone.now())
        return "-" if duration is None else f"{duration.total_seconds():.1f} s"

    @admin.display(description="parameters")
    def given(self, run: Run) -> str:
        return json.dumps(masked(run.flow, run.parameters), indent=1, ensure_ascii=False)

    @admin.display(description="parts")
    def parts(self, run: Run) -> str:
        query = urlencode({"run__id__exact": str(run.pk)})
        rows = [(reverse(f"admin:runs_{model}_changelist"), query, name) for model, name in PARTS.items()]
        return format_html_join(" · ", '<a href="{}?{}">{}</a>', rows)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runs.cancel_run")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runs.retry_run")

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel_runs(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        def deed(run: Run, now: datetime, who: str) -> None:
            requests.cancel(run_id=run.pk, now=now, who=who)

        act_on_each(self, request, rows, "asked to cancel", deed)

    @admin.action(description="Run again", permissions=["retry"])
    def run_again(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        def deed(run: Run, now: datetime, who: str) -> None:
            requests.retry(run_id=run.pk, now=now, trigger=Run.Trigger.CONSOLE, who=who)

        act_on_each(self, request, rows, "run again", deed)

    @admin.action(description="Resume from failure", permissions=["retry"])
    def resume_runs(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        def deed(run: Run, now: datetime, who: str) -> None:
            requests.resume(run_id=run.pk, now=now, trigger=Run.Trigger.CONSOLE, who=who)

        act_on_each(self, request, rows, "resumed", deed)


class PartAdmin(HistoryAdmin):
    """Rows of one run, reached from it: listed for a run, never all of them."""

    sortable_by = ()
    list_per_page = 200
    lookups = ("run__id__exact",)  # as the run's page in the console links to them

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("run__flow")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(TaskRun)
class TaskRunAdmin(PartAdmin):
    list_display = ("name", "run", "attempt", "position", "shown_state", "tries", "started_at", "finished_at")
    list_filter = (SeenStateFilter,)

    @admin.display(description="state")
    def shown_state(self, row: TaskRun) -> str:
        return state_badge(row.state)


@admin.register(Event)
class EventAdmin(PartAdmin):
    list_display = ("time", "run", "before", "after", "who", "why")


@admin.register(LogLine)
class LogLineAdmin(PartAdmin):
    list_display = ("seq", "time", "level", "task", "message", "dropped")


@admin.register(Artifact)
class ArtifactAdmin(PartAdmin):
    """What they hold is on the run's page; here it would be megabytes of text."""

    list_display = ("created_at", "run", "attempt", "kind", "key", "description", "size", "updated_at")
    exclude = ("data",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("data", "content")


@admin.register(Quarantine)
class QuarantineAdmin(HistoryAdmin):
    list_display = ("time", "attempt", "stream", "seq", "reason")
    sortable_by = ()


@admin.register(Worker)
class WorkerAdmin(HistoryAdmin):
    list_display = ("name", "connected", "host", "slots", "python", "sdk", "last_seen_at", "left_reason")
    exclude = ("boot", "draining")  # a boot is the worker's own secret: ``ingest.join`` takes it for a proof
    search_fields = ("name", "host")
    list_filter = ("connected",)
    actions = ("forget",)
    inlines = (OfferingInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).filter(forgotten_at=None)

    def has_forget_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runs.delete_worker")

    @admin.action(description="Forget", permissions=["forget"])
    def forget(self, request: HttpRequest, rows: QuerySet[Worker]) -> None:
        def deed(worker: Worker, now: datetime, who: str) -> None:
            offerings.forget_worker(worker_id=worker.pk, now=now, who=who)

        act_on_each(self, request, rows, "forgotten", deed)


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]
    days = forms.FloatField(
        required=False, min_value=0.01, max_value=3650, label="Expires in days", help_text="Empty: never"
    )

    class Meta:
        model = Token
        fields = ("name", "scope")


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Added and revoked, never edited or deleted: what a token did must stay traceable to it."""

    form = TokenForm
    list_display = ("name", "scope", "prefix", "user", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("scope",)
    list_select_related = ("user",)
    search_fields = ("name", "prefix")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        seen = ("name", "scope", "prefix", "user", "created_at", "expires_at", "last_used_at", "revoked_at")
        return seen if obj else ("name", "scope", "days")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runs.change_token")

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        row, secret = Token.objects.issue(
            name=obj.name,
            scope=obj.scope,
            now=timezone.now(),
            days=form.cleaned_data["days"],
            user=request.user if isinstance(request.user, User) else None,
        )
        obj.__dict__.update(row.__dict__)
        obj._state.adding = False
        text = format_html("This is the token. It is shown this once: <code>{}</code>", secret)
        self.message_user(request, text, messages.WARNING)

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: str | None = None) -> HttpResponse:
        response: HttpResponse = self.response_post_save_add(request, obj)
        response.headers["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, rows: QuerySet[Token]) -> None:
        count = rows.filter(revoked_at=None).update(revoked_at=timezone.now())
        events.publish(events.WORKERS)
        self.message_user(request, f"{count} revoked.", messages.SUCCESS)


class SharedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What people keep here and running code shares: written as everybody writes it."""

    show_full_result_count = False
    actions_on_bottom = False


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_per_second(self) -> float | None:
        try:
            return limits.checked_rate(self.cleaned_data["per_second"])
        except Refused as refused:
            raise ValidationError(refused.sentence) from None


@admin.register(Limit)
class LimitAdmin(SharedAdmin):
    form = LimitForm
    list_display = ("name", "slots", "taken", "per_second", "waiting")
    search_fields = ("name",)
    readonly_fields = ("holders",)

    @admin.display(description="taken")
    def taken(self, limit: Limit) -> int:
        return limits.held_of(limit)

    @admin.display(description="held by")
    def holders(self, limit: Limit) -> str:
        rows = limit.holdings.select_related("question__attempt__run__flow")[:50] if limit.pk else []
        return (
            format_html_join(
                mark_safe("<br>"),
                '<a href="{}">{}</a>: {} since {}',
                (
                    (run.get_absolute_url(), run, row.slots, row.since)
                    for row in rows
                    for run in [row.question.attempt.run]
                ),
            )
            or "nobody"
        )

    @admin.display(description="waiting")
    def waiting(self, limit: Limit) -> int:
        return sum(limit.name in question.body["names"] for question in limits.waiting())

    def get_queryset(self, request: HttpRequest) -> QuerySet[Limit]:
        return limits.limits().order_by("name")

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        limits.settle(now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        limits.remove_limit(name=obj.name, now=timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            self.delete_model(request, limit)


class VariableForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Variable
        fields = ("name", "value", "tags")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        try:
            limits.checked_value(values.get("name", ""), values.get("value"))
        except Refused as refused:
            raise ValidationError({"value": refused.sentence}) from None
        return values


@admin.register(Variable)
class VariableAdmin(SharedAdmin):
    form = VariableForm
    list_display = ("name", "shown_value", "changed_by", "changed_at")
    search_fields = ("name",)
    readonly_fields = ("changed_by", "changed_at")

    @admin.display(description="value")
    def shown_value(self, row: Variable) -> str:
        return clean_text(json.dumps(row.value, ensure_ascii=False), 200)

    def save_model(self, request: HttpRequest, obj: Variable, form: Any, change: bool) -> None:
        obj.changed_by, obj.changed_at = request.user.get_username(), timezone.now()
        super().save_model(request, obj, form, change)
