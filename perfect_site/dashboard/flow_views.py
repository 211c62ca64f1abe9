"""Pages about flows and schedules, and the wishes that start there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from perfect_client.wire.messages import clean_text

from flows import schedules, services
from flows.models import Flow, Schedule
from flows.parameters import Refused, configuration_of, masked
from perfect_site.dashboard import forms, overview
from perfect_site.dashboard.decorators import action, asked_id, came_from, page, say, status_of, who, wish
from perfect_site.dashboard.flow_filters import FlowFilter
from perfect_site.dashboard.presenters import Reader, as_id
from runs.models import Run
from runs.services import requests as runs_services
from runs.services.queries import rest_of

FLOWS_SHOWN = 200
CHANGES_SHOWN = 10
HISTORY_SHOWN = 15


@page("flows.view_flow", *FlowFilter.base_filters)
def flows(request: HttpRequest) -> HttpResponse:
    found = FlowFilter(request.GET, queryset=Flow.objects.all())
    rows = list(found.qs.prefetch_related("tasks", "schedules")[:FLOWS_SHOWN])
    context = {"cards": overview.library(rows), "filter": found, "narrowed": any(request.GET.values())}
    return render(request, "flows/flows.html", context)


def _flow(slug: str) -> Flow:
    return get_object_or_404(Flow.objects.prefetch_related("tasks", "schedules"), slug=clean_text(slug))


def history_of(flow: Flow, now: datetime) -> dict[str, Any]:
    """What changes on a flow's page: its last runs and what runs now. Also drawn for the socket."""
    runs = Run.objects.filter(flow=flow).select_related("flow", "schedule", "worker").defer("traceback", "result")
    return {
        "flow": flow,
        "card": overview.library([flow])[0],
        "configurations": {
            name: masked(flow, values) for name, values in flow.configurations.items() if isinstance(values, dict)
        },
        "running": overview.running(now, flow),
        "runs": Reader(now).shown(runs[:HISTORY_SHOWN], tasks=False),
        "now": now,
    }


def _origin(flow: Flow, run: UUID | None) -> Run | None:
    """The run that a form was filled from; it may have been removed since."""
    return Run.objects.filter(pk=run, flow=flow).first() if run else None


def _prefill(request: HttpRequest, flow: Flow) -> tuple[dict[str, Any], str, Run | None]:
    """Parameters, configuration and the run that they come from: ``?from=`` a run."""
    origin, wanted = _origin(flow, asked_id(request, "from")), request.GET.get("configuration", "")
    if origin is None:
        return {}, configuration_of(flow, wanted), None
    return origin.parameters, origin.configuration or flow.default_configuration, origin


@page("flows.view_flow", "from", "configuration")
def flow(request: HttpRequest, slug: str) -> HttpResponse:
    found = _flow(slug)
    values, configuration, origin = _prefill(request, found)
    last = Run.objects.filter(flow=found).only("pk").first()
    context = {
        **history_of(found, timezone.now()),
        "fields": forms.fields(found, values, configuration),
        "configuration": configuration,
        "origin": origin,
        "last": last,
        "changes": found.changes.all()[:CHANGES_SHOWN],
    }
    return render(request, "flows/flow.html", context)


@page("flows.view_flow")
def history(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "flows/_history.html", history_of(_flow(slug), timezone.now()))


@page("flows.view_flow")
def notices(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "flows/_notices.html", _standing_of(_flow(slug)))


@page("flows.view_flow")
def offers(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "flows/_offers.html", _standing_of(_flow(slug)))


def _standing_of(flow: Flow) -> dict[str, Any]:
    return {"flow": flow, "card": overview.library([flow])[0]}


@action("flows.change_flow")
def archive(request: HttpRequest, slug: str) -> HttpResponse:
    row = wish(services.archive, flow_id=_flow(slug).pk, now=timezone.now(), who=who(request))
    return _shown_anew(request, row, f"{row.name} is archived: its schedules rest, its history stays.")


@action("flows.change_flow")
def unarchive(request: HttpRequest, slug: str) -> HttpResponse:
    row = wish(services.unarchive, flow_id=_flow(slug).pk, now=timezone.now(), who=who(request))
    return _shown_anew(request, row, f"{row.name} is in the library again.")


def _shown_anew(request: HttpRequest, row: Flow, sentence: str) -> HttpResponse:
    """The whole page: what may be done there has changed."""
    if not request.htmx:  # type: ignore[attr-defined]
        return say(request, sentence, to=row.get_absolute_url())
    messages.success(request, sentence)
    return HttpResponse(status=204, headers={"HX-Redirect": row.get_absolute_url()})


@page("flows.view_flow")
def flow_bars(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "flows/_bars.html", {"card": overview.library([_flow(slug)])[0]})


@action("flows.trigger_flow")
def run(request: HttpRequest, slug: str) -> HttpResponse:
    """Run a flow: from a card with a configuration alone, from the flow's page with parameters too."""
    found = _flow(slug)
    origin = _origin(found, as_id(request.POST.get("again", "")))
    before = origin.parameters if origin else {}
    try:
        made = wish(
            runs_services.trigger,
            flow=found,
            now=timezone.now(),
            trigger=Run.Trigger.PAGE,
            who=who(request),
            parameters=forms.kept(found, forms.read(found, request.POST), before),
            before=before,
            configuration=request.POST.get("configuration") or None,
            run_at=_later(request.POST.get("run_at", "")),
            tags=_tags(request.POST.get("tags", "")),
        )
    except Refused as refused:
        if "form" not in request.POST or request.htmx:  # type: ignore[attr-defined]
            form = f"{found.get_absolute_url()}#run-form" if refused.field in found.properties else ""
            return say(
                request,
                refused.sentence,
                bad=True,
                status=status_of(refused),
                to=form or came_from(request),
                link=form,
                link_text="Fill it in",
            )
        return _again(request, found, refused, origin)
    if "form" in request.POST:
        return HttpResponseRedirect(made.get_absolute_url())
    sentence = f"{found.name} is queued{': ' if rest_of(made) else ''}{rest_of(made)}."
    return say(request, sentence, to=came_from(request), link=made.get_absolute_url(), link_text="Watch it")


def _again(request: HttpRequest, found: Flow, refused: Refused, origin: Run | None) -> HttpResponse:
    """The page once more, with what was sent and what is wrong with it."""
    made = forms.sent(found, request.POST, refused)
    context = {
        **history_of(found, timezone.now()),
        "fields": made,
        "configuration": request.POST.get("configuration", ""),
        "origin": origin,
        "sentence": "" if any(field.error for field in made) else refused.sentence,
        "run_at": request.POST.get("run_at", ""),
        "tags": request.POST.get("tags", ""),
    }
    return render(request, "flows/flow.html", context, status=status_of(refused))


def _later(text: str) -> datetime | None:
    """A time in UTC, as the form's field says; None if it is empty."""
    if not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Refused("run_at", f"{text[:40]!r} is not a date and time, such as 2026-01-31T06:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


@action("flows.trigger_flow")
def run_all(request: HttpRequest) -> HttpResponse:
    made = wish(
        runs_services.trigger_all,
        now=timezone.now(),
        trigger=Run.Trigger.PAGE,
        who=who(request),
        configuration=request.POST.get("configuration") or None,
    )
    count = f"{len(made)} run{'s' if len(made) != 1 else ''} queued, one of each flow that needs no parameters."
    return say(request, count if made else "No flow can run without parameters.", to=came_from(request))


def schedules_shown(now: datetime) -> list[dict[str, Any]]:
    rows = Schedule.objects.select_related("flow").filter(flow__archived=False).order_by("flow__name", "name")
    return [{"row": row, "next": [] if row.rests else _upcoming(row, now, 5)} for row in rows[:500]]


def _upcoming(row: Schedule, now: datetime, count: int) -> list[datetime]:
    try:
        return schedules.upcoming(row.timing, now, count)
    except schedules.BadSchedule:
        return []


@page("flows.view_schedule")
def schedule_list(request: HttpRequest) -> HttpResponse:
    return render(request, "flows/schedules.html", {"schedules": schedules_shown(timezone.now())})


@page("flows.view_schedule")
def schedule_rows(request: HttpRequest) -> HttpResponse:
    return render(request, "flows/_schedules.html", {"schedules": schedules_shown(timezone.now())})


@page("flows.view_schedule")
def schedule(request: HttpRequest, pk: int) -> HttpResponse:
    now = timezone.now()
    runs = Run.objects.select_related("flow", "schedule", "worker").defer("traceback", "result")
    row = get_object_or_404(Schedule.objects.select_related("flow"), pk=pk)
    context = {
        "schedule": row,
        "next": [] if row.rests else _upcoming(row, now, 20),
        "runs": Reader(now).shown(runs.filter(schedule=row)[:HISTORY_SHOWN], tasks=False),
    }
    return render(request, "flows/schedule.html", context)


@action("flows.pause_schedule")
def pause(request: HttpRequest, pk: int) -> HttpResponse:
    row = wish(services.pause, schedule_id=pk, now=timezone.now(), who=who(request))
    return say(request, f"The schedule of {row.flow.name} is paused.", to=came_from(request))


@action("flows.pause_schedule")
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    row = wish(services.resume, schedule_id=pk, now=timezone.now(), who=who(request))
    return say(request, f"The schedule of {row.flow.name} goes on.", to=came_from(request))
