"""Overview, history, a run with its log, workers; and the wishes about runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone

from flows.models import Flow
from flows.parameters import Conflict, Refused, masked, nearest
from perfect_site.dashboard import artifact_presenters, attention, forms, logs, overview
from perfect_site.dashboard.decorators import action, asked_id, came_from, page, say, status_of, who, wish
from perfect_site.dashboard.presenters import Reader, RunPresenter, as_id, choose_drawn, first_error, in_words
from perfect_site.dashboard.run_filters import RunFilter, page_of, without
from runs.models import Attempt, Run
from runs.rules.states import RESUMABLE, RunState
from runs.services import offerings, queries, questions, requests

TABS = ("timeline", "events", "parameters")
EVENTS_SHOWN = 300
RESUMES_SHOWN = 5
HISTORY_ASKS = (*RunFilter.base_filters, "before", "after")
LOG_ASKS = ("level", "find", "before", "after", "line")
HELD = {"pk": "held"}  # stands where a question stands: a person has the run stand still


# ------------------------------------------------------------------------------------------------------- the overview


def _tiles(now: datetime) -> dict[str, Any]:
    return {"tiles": overview.tiles(now)}


def _running(now: datetime) -> dict[str, Any]:
    return {"running": overview.running(now)}


def _attention(now: datetime) -> dict[str, Any]:
    cards = overview.library(overview.flows_of_the_library())
    return {"troubles": attention.troubles(now, cards)[: attention.SHOWN]}


def _next(now: datetime) -> dict[str, Any]:
    return {"coming": overview.coming()}


def _workers(now: datetime) -> dict[str, Any]:
    return {"workers": overview.workers(now)}


PARTS: dict[str, Callable[[datetime], dict[str, Any]]] = {
    "tiles": _tiles,
    "running": _running,
    "attention": _attention,
    "next": _next,
    "workers": _workers,
}


@page("runs.view_run")
def home(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    cards = overview.library(overview.flows_of_the_library())
    shown = cards[: overview.CARDS_SHOWN]
    parts = {key: value for part in ("tiles", "running", "next", "workers") for key, value in PARTS[part](now).items()}
    configurations = sorted({name for card in cards for name in card.flow.configurations})
    context = {
        **parts,
        "cards": shown,
        "more": len(cards) > len(shown),
        "configurations": configurations,
        "troubles": attention.troubles(now, cards)[: attention.SHOWN],
        "origin": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "runs/overview.html", context)


@page("runs.view_run")
def part(request: HttpRequest, name: str) -> HttpResponse:
    if name not in PARTS:
        raise Http404
    return render(request, f"runs/_{name}.html", PARTS[name](timezone.now()))


# -------------------------------------------------------------------------------------------------------- the history


def _history(request: HttpRequest) -> dict[str, Any]:
    found = RunFilter(request.GET, queryset=Run.objects.all())
    if not found.form.is_valid():
        return {"filter": found, "runs": [], "problem": "The filter holds something that cannot be looked for."}
    before = asked_id(request, "before")
    ids, newer, older = page_of(found.qs, found.states, before=before, after=asked_id(request, "after"))
    rows = Run.objects.select_related("flow", "schedule", "worker").defer("traceback", "result").filter(pk__in=ids)
    names = ("state", "flow", "q", "tag", "since", "until")
    return {
        "filter": found,
        "runs": Reader(timezone.now()).shown(rows.order_by("-pk"), tasks=False),
        "query": without(request.GET, "before", "after"),
        "after": ids[0] if ids and newer else None,
        "before": ids[-1] if ids and older else None,
        "narrowed": any(request.GET.get(name) for name in names),
        "full": request.GET.urlencode(),
        "first": before is None,
    }


@page("runs.view_run", *HISTORY_ASKS)
def history(request: HttpRequest) -> HttpResponse:
    exact = as_id(request.GET.get("q", ""))
    if exact is not None and Run.objects.filter(pk=exact).exists():
        return HttpResponseRedirect(f"/runs/{exact}/")
    return render(request, "runs/history.html", _history(request))


@page("runs.view_run", *HISTORY_ASKS, "push")
def history_list(request: HttpRequest) -> HttpResponse:
    """The list alone, for filters that change without a new page; the address bar gets the page's own address."""
    response = render(request, "runs/_list.html", _history(request))
    if request.GET.get("push"):
        response.headers["HX-Push-Url"] = f"/runs/?{without(request.GET, 'push')}"
    return response


# ------------------------------------------------------------------------------------------------------------ one run


def page_rows() -> QuerySet[Run]:
    """Runs with all that their pages show of others."""
    rows = Run.objects.select_related(
        "flow", "schedule__flow", "worker", "rerun_of__flow", "resume_of__flow", "parent__flow", "root__worker"
    )
    return rows.prefetch_related("flow__tasks")


def _run(pk: UUID) -> Run:
    return get_object_or_404(page_rows(), pk=pk)


def hero_of(shown: RunPresenter) -> dict[str, Any]:
    run = shown.run
    parameters = masked(run.flow, run.parameters)
    return {
        "shown": shown,
        "run": run,
        "error": first_error(run.error) or (run.state_reason if run.state in {"FAILED", "CRASHED"} else ""),
        "parameters": {name: in_words(value) for name, value in parameters.items()},
        "command": _as_shell(run, parameters),
        "resumed_by": _resumes_of(run),
        "can_resume": run.state in RESUMABLE,
        "worker": (run.root or run).worker,
        "code_problem": queries.code_problem(run),
        "json": in_words({"parameters": parameters, "configuration": run.configuration or None}),
    }


def _resumes_of(run: Run) -> list[Run]:
    """The newest runs that resume this one; only what is final can have any."""
    return list(run.resumes.select_related("flow").order_by("-pk")[:RESUMES_SHOWN]) if run.is_final else []


def _as_shell(run: Run, parameters: dict[str, Any]) -> str:
    given = [f"-p {_quoted(f'{name}={in_words(value)}')}" for name, value in parameters.items()]
    configured = [f"--config {_quoted(run.configuration)}"] if run.configuration else []
    return " ".join(["python manage.py triggerflow", _quoted(run.flow.name), *given, *configured])


def _quoted(text: str) -> str:
    """For a POSIX shell (2.2.2, single quotes)."""
    return "'" + text.replace("'", "'\\''") + "'"


def pause_of(run: Run) -> dict[str, Any]:
    """The form that a paused run waits for, if it does."""
    if run.state == RunState.PAUSED and questions.is_held(run):
        return {"run": run, "pause": HELD}
    question = questions.open_pause(run) if run.state == RunState.PAUSED else None
    if question is None:
        return {"run": run, "pause": None}
    fields = forms.fields(questions.form_of(question, run))
    return {"run": run, "pause": question, "until": questions.ends_at(question), "fields": fields}


def timeline_of(shown: RunPresenter) -> dict[str, Any]:
    tasks, left_out = choose_drawn(shown.tasks)
    return {"shown": shown, "run": shown.run, "tasks": tasks, "left_out": left_out}


def _events(shown: RunPresenter) -> dict[str, Any]:
    run = shown.run
    attempts = Attempt.objects.filter(run=run).select_related("worker")
    return {"run": run, "events": run.events.order_by("pk")[:EVENTS_SHOWN], "attempts": attempts}


def _parameters(shown: RunPresenter) -> dict[str, Any]:
    run = shown.run
    configured = run.flow.configurations.get(run.configuration) or {}
    values = masked(run.flow, configured) if isinstance(configured, dict) else {}
    return {"run": run, "parameters": masked(run.flow, run.parameters), "configured": values}


_TABS: dict[str, Callable[[RunPresenter], dict[str, Any]]] = {
    "timeline": timeline_of,
    "events": _events,
    "parameters": _parameters,
}


@page("runs.view_run", "tab", *LOG_ASKS)
def run(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "runs/run.html", _page(request, _run(pk)))


def _page(request: HttpRequest, found: Run) -> dict[str, Any]:
    shown = Reader(timezone.now()).shown([found])[0]
    tab = _one_of(request, "tab", TABS) or "timeline"
    return {
        **hero_of(shown),
        **pause_of(shown.run),
        **_TABS[tab](shown),
        **_log(request, shown.run),
        "wall": artifact_presenters.panel_of(shown.run),
        "tab": tab,
        "tabs": TABS,
        "origin": request.build_absolute_uri("/").rstrip("/"),
        "traceback": shown.run.traceback,
    }


@page("runs.view_run")
def hero(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "runs/_hero.html", hero_of(Reader(timezone.now()).shown([_run(pk)])[0]))


@page("runs.view_run")
def pause(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "runs/_pause.html", pause_of(_run(pk)))


@page("runs.view_run")
def timeline(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "runs/_timeline.html", timeline_of(Reader(timezone.now()).shown([_run(pk)])[0]))


def _number(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    if text and not (text.isdecimal() and len(text) < 10):
        raise Refused(name, f"{name} must be the number of a line.")
    return int(text) if text else None


def _one_of(request: HttpRequest, name: str, known: Collection[str]) -> str:
    """Empty where nothing is asked for."""
    text = request.GET.get(name, "")
    if text and text not in known:
        raise Refused(name, f"There is no {name} {text[:100]!r}.{nearest(text, known)}")
    return text


def _log(request: HttpRequest, run: Run) -> dict[str, Any]:
    level = _one_of(request, "level", logs.LEVELS)
    q = request.GET.get("find", "")[:200]
    window = logs.window(
        run,
        before=_number(request, "before"),
        after=_number(request, "after"),
        around=_number(request, "line"),
        level=level,
        q=q,
    )
    plain = run.log_count - run.warning_count - run.error_count
    chips = [
        ("", "all", run.log_count),
        ("info", "info", plain),
        ("warning", "warning", run.warning_count),
        ("error", "error", run.error_count),
    ]
    shown = {"run": run, "window": window, "level": level, "find": q, "chips": chips}
    return {**shown, "unfinished": logs.unfinished(run) if not q else []}


@page("runs.view_run", "rows", *LOG_ASKS)
def log(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The log panel, or with ``rows`` only a window of lines."""
    context = _log(request, _run(pk))
    return render(request, "runs/_log_rows.html" if request.GET.get("rows") else "runs/_log.html", context)


@page("runs.view_run")
def download(request: HttpRequest, pk: UUID, form: str) -> StreamingHttpResponse:
    found = _run(pk)
    kind = {"log": "text/plain; charset=utf-8", "jsonl": "application/x-ndjson"}[form]
    response = StreamingHttpResponse(logs.download(found, form), content_type=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{found.short_id}.{form}"'
    return response


@action("runs.cancel_run")
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    made = wish(requests.cancel, run_id=pk, now=timezone.now(), who=who(request))
    words = "is cancelled." if made.is_final else "is asked to stop; what does not stop by itself is killed."
    return say(request, f"{made.flow.name} {words}", to=made.get_absolute_url())


@action("runs.retry_run")
def retry(request: HttpRequest, pk: UUID) -> HttpResponse:
    made = wish(requests.retry, run_id=pk, now=timezone.now(), trigger=Run.Trigger.PAGE, who=who(request))
    return _to_the_new_one(request, made)


@action("runs.retry_run")
def resume(request: HttpRequest, pk: UUID) -> HttpResponse:
    """From its failure on; with ``from_task`` and ``call`` from that call of a task."""
    call = request.POST.get("call", "0")
    made = wish(
        requests.resume,
        run_id=pk,
        now=timezone.now(),
        trigger=Run.Trigger.PAGE,
        who=who(request),
        from_task=request.POST.get("from_task"),
        call=int(call) if call.isdecimal() and len(call) < 10 else 0,
    )
    return _to_the_new_one(request, made)


@action("runs.cancel_run")
def hold(request: HttpRequest, pk: UUID) -> HttpResponse:
    made = wish(requests.pause, run_id=pk, now=timezone.now(), who=who(request))
    return say(request, f"{made.flow.name} stands still; its time limits go on.", to=made.get_absolute_url())


@action("runs.retry_run")
def go_on(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Let a paused run go on, with what its form asks for; a form of an earlier pause answers no later one."""
    found = _run(pk)
    if request.POST.get("question") == HELD["pk"] and questions.is_held(found):
        made = wish(requests.go_on, run_id=pk, given=None, now=timezone.now(), who=who(request))
        return _gone_on(request, made)
    question = questions.open_pause(found)
    if question is None or str(question.pk) != request.POST.get("question"):
        raise Conflict("state", "The run does not wait for this any more; look at what it waits for now.")
    form = questions.form_of(question, found)
    try:
        given = forms.read(form, request.POST)
        made = wish(requests.go_on, run_id=pk, given=given, now=timezone.now(), who=who(request))
    except Refused as refused:
        return _not_yet(request, found, form, refused)
    return _gone_on(request, made)


def _gone_on(request: HttpRequest, made: Run) -> HttpResponse:
    if not request.htmx:  # type: ignore[attr-defined]
        return say(request, f"{made.flow.name} goes on.", to=made.get_absolute_url())
    return render(request, "runs/_pause.html", pause_of(made))


def _not_yet(request: HttpRequest, found: Run, form: Flow, refused: Refused) -> HttpResponse:
    """The form once more, with what was sent and what is wrong with it."""
    fields = forms.sent(form, request.POST, refused)
    said = "" if any(field.error for field in fields) else refused.sentence
    changed = {**pause_of(found), "fields": fields, "sentence": said}
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "runs/run.html", {**_page(request, found), **changed}, status=status_of(refused))
    response = render(request, "runs/_pause.html", changed, status=status_of(refused))
    response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#run-pause", "outerHTML"
    return response


def _to_the_new_one(request: HttpRequest, made: Run) -> HttpResponse:
    if request.htmx:  # type: ignore[attr-defined]
        return HttpResponse(status=204, headers={"HX-Redirect": made.get_absolute_url()})
    return HttpResponseRedirect(made.get_absolute_url())


@action("runs.cancel_run")
def give_up(request: HttpRequest, pk: UUID) -> HttpResponse:
    made = wish(requests.give_up, run_id=pk, now=timezone.now(), who=who(request))
    return say(request, f"{made.flow.name} counts as crashed.", to=came_from(request))


# ------------------------------------------------------------------------------------------------------------ workers


@page("runs.view_worker")
def workers(request: HttpRequest) -> HttpResponse:
    context = {
        "workers": overview.workers(timezone.now(), everyone=True),
        "origin": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "runs/workers.html", context)


@action("runs.delete_worker")
def forget_worker(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = wish(offerings.forget_worker, worker_id=pk, now=timezone.now(), who=who(request))
    return say(request, f"Worker {row.name} is forgotten; its runs keep its name.", to="/workers/")


@page("runs.view_worker")
def worker_rows(request: HttpRequest) -> HttpResponse:
    return render(request, "runs/_worker_rows.html", {"workers": overview.workers(timezone.now(), everyone=True)})
