"""The console's view of what can be run: flows and their schedules."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from flows import services, timetable
from flows.models import Change, Flow, Schedule
from flows.parameters import Refused, masked, masked_schema
from perfect_site.console.readonly import HistoryAdmin, OfferingInline, act_on_each
from runs.models import Run
from runs.services import requests as run_services


class ChangeInline(admin.TabularInline):  # type: ignore[type-arg]
    """What has changed of the parameters and configurations that the flow takes, and who brought it."""

    model = Change
    extra = 0
    can_delete = False
    fields = readonly_fields = ("time", "what", "who")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("flows.view_flow")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Flow)
class FlowAdmin(HistoryAdmin):
    """Written by the workers that announce them; run from here."""

    list_display = ("name", "slug", "tags", "file", "archived_by", "resting_since", "updated_at")
    exclude = ("configurations", "parameters")  # may hold secrets: the flow's page, and ``takes``, mask them
    readonly_fields = ("takes",)
    list_filter = ("archived",)
    search_fields = ("name", "slug")
    actions = ("run_now", "archive", "unarchive")
    inlines = (OfferingInline, ChangeInline)

    @admin.display(description="parameters")
    def takes(self, flow: Flow) -> str:
        return json.dumps(masked_schema(flow), indent=1, ensure_ascii=False)

    def has_trigger_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("flows.trigger_flow")

    @admin.action(description="Run now", permissions=["trigger"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Flow]) -> None:
        def deed(flow: Flow, now: datetime, who: str) -> None:
            run_services.trigger(flow=flow, now=now, trigger=Run.Trigger.CONSOLE, who=who)

        act_on_each(self, request, rows, "triggered", deed)

    def has_archive_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("flows.change_flow")

    @admin.action(description="Archive", permissions=["archive"])
    def archive(self, request: HttpRequest, rows: QuerySet[Flow]) -> None:
        def deed(flow: Flow, now: datetime, who: str) -> None:
            services.archive(flow_id=flow.pk, now=now, who=who)

        act_on_each(self, request, rows, "archived", deed)

    @admin.action(description="Unarchive", permissions=["archive"])
    def unarchive(self, request: HttpRequest, rows: QuerySet[Flow]) -> None:
        def deed(flow: Flow, now: datetime, who: str) -> None:
            services.unarchive(flow_id=flow.pk, now=now, who=who)

        act_on_each(self, request, rows, "unarchived", deed)


def _parameters_of(schedule_id: int | None) -> dict[str, Any]:
    """What a masked secret in the form stands for."""
    row = Schedule.objects.filter(pk=schedule_id).first() if schedule_id else None
    return row.parameters if row else {}


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Schedule
        fields = ("flow", *timetable.EDITABLE)

    def clean(self) -> dict[str, Any]:
        """The law of schedules, its sentences at the fields they name."""
        values: dict[str, Any] = super().clean() or {}
        if self.errors or not (values.get("flow") or self.instance.flow_id):
            return values
        row = Schedule(pk=self.instance.pk, flow=values.get("flow") or self.instance.flow)
        for name in timetable.EDITABLE:
            setattr(row, name, values[name])
        try:
            timetable.check(row, _parameters_of(row.pk))
        except Refused as refused:
            field = refused.field if refused.field in self.fields else "parameters"
            raise ValidationError({field: refused.sentence}) from None
        return values


@admin.register(Schedule)
class ScheduleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = ScheduleForm
    list_display = (
        "name",
        "flow",
        "words",
        "timezone",
        "next_at",
        "paused_by",
        "rests",
        "source",
        "edited_by",
        "problem",
    )
    list_filter = ("kind", "source", ("flow", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("flow",)
    search_fields = ("flow__name", "name")
    autocomplete_fields = ("flow",)
    actions = ("pause", "resume")
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        told = ("source", "edited_by", "paused_by", "paused_at", "next_at", "last_at", "problem")
        return ("flow", *told) if obj else ()

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Schedule | None:
        """With its secrets masked, whether it is read or edited; who saves the mask keeps the secret."""
        row: Schedule | None = super().get_object(request, object_id, from_field)
        if row is not None:
            row.parameters = masked(row.flow, row.parameters)
        return row

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*ScheduleForm.Meta.fields, *self.get_readonly_fields(request, obj)[1:]]

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("flows.pause_schedule")

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)  # what code declares is not deleted here, and each says so by itself
        return actions

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.source != Schedule.Source.CODE)

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        now, who = timezone.now(), request.user.get_username()
        values = {name: form.cleaned_data[name] for name in timetable.EDITABLE}
        row = (
            timetable.change(schedule_id=obj.pk, values=values, now=now, who=who)
            if change
            else timetable.create(flow=obj.flow, values=values, now=now, who=who)
        )
        obj.__dict__.update(row.__dict__)
        obj._state.adding = False

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        timetable.remove(schedule_id=obj.pk, now=timezone.now(), who=request.user.get_username())

    @admin.action(description="Pause", permissions=["pause"])
    def pause(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        def deed(row: Schedule, now: datetime, who: str) -> None:
            services.pause(schedule_id=row.pk, now=now, who=who)

        act_on_each(self, request, rows, "paused", deed)

    @admin.action(description="Resume", permissions=["pause"])
    def resume(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        def deed(row: Schedule, now: datetime, who: str) -> None:
            services.resume(schedule_id=row.pk, now=now, who=who)

        act_on_each(self, request, rows, "resumed", deed)
