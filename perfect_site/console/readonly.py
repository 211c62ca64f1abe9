"""Records in the console: looked at, never edited. And lists that stay quick with a million rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from flows.parameters import Refused
from runs.models import Offering, Worker

COUNT_LIMIT = 10_000
ACTION_LIMIT = 1_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than ``COUNT_LIMIT``: a full count costs more than the page."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: COUNT_LIMIT + 1].count()) if isinstance(rows, QuerySet) else len(rows)


class HistoryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """All fields shown, none writable; nothing added or deleted."""

    show_full_result_count = False
    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions_on_bottom = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OfferingInline(admin.TabularInline):  # type: ignore[type-arg]
    """Which worker offers which flow, and what it says of it; below either of them."""

    model = Offering
    extra = 0
    can_delete = False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        other = "flow" if self.parent_model is Worker else "worker"
        return [other, "start", "start_reason", "problem", "notes"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("worker", "flow")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def act_on_each(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, rows: QuerySet[Any], done: str, deed: Callable[..., Any]
) -> None:
    """Call ``deed(row, now, who)`` for each row and say how many were ``done``, and why the others were refused."""
    now, who = timezone.now(), request.user.get_username()
    count, refusals = 0, []
    for row in rows.order_by("pk")[:ACTION_LIMIT]:
        try:
            deed(row, now, who)
            count += 1
        except Refused as refused:
            refusals.append(f"{row}: {refused.sentence}")
    if count:
        model_admin.message_user(request, f"{count} {done}.", messages.SUCCESS)
    if refusals:
        more = f" And {len(refusals) - 5} more." if len(refusals) > 5 else ""
        text = f"{len(refusals)} not {done}. " + " · ".join(refusals[:5]) + more
        model_admin.message_user(request, text, messages.WARNING)
