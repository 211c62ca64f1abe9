"""The REST API at ``/api/``. Every view reads or writes on the database lanes and answers JSON or a problem."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from functools import wraps
from typing import Annotated, Any
from uuid import UUID

import msgspec
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from pydantic import Field

from flows import addresses, timetable
from flows import services as flow_services
from flows.models import Flow, Schedule
from flows.parameters import Missing
from perfect_site.api import answers, pagination
from perfect_site.api.auth import Gate, caller_of
from perfect_site.api.bodies import (
    CancelIn,
    FlowChange,
    LimitChange,
    LimitIn,
    Moment,
    Name,
    ResumeIn,
    RetryIn,
    RunAllIn,
    RunIn,
    RunsIn,
    ScheduleChange,
    ScheduleIn,
    VariableIn,
)
from perfect_site.api.error_handlers import answer_errors
from perfect_site.api.problems import Problem, problem
from perfect_site.api.serializers import (
    flow_detail_json,
    flow_json,
    limit_json,
    schedule_json,
    taken_slots,
    variable_json,
    worker_json,
)
from perfect_site.dashboard import artifact_presenters
from runs.db import threads
from runs.models import Run, Variable, Worker
from runs.rules.states import RunState
from runs.services import limits, offerings, requests, subruns
from runs.services.queries import open_line_json, open_lines, rest_of, run_json, task_json, task_runs_of

logger = logging.getLogger(__name__)

FLOWS_LIMIT = 5_000
READ, RUN, ADMIN = "read", "run", "admin"
VIEW_RUNS = ("runs.view_run",)

View = Callable[..., Coroutine[Any, Any, HttpResponse]]
Count = Annotated[int, Field(ge=1)]

read_gate = Gate(READ, "flows.view_flow")


def documentation(view: Callable[..., Any]) -> Any:
    """The documentation is for those who may read, too: the short way for tokens passes no middleware."""

    @wraps(view)
    async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            await read_gate(request)
        except Problem as refusal:
            return refusal.response()
        if request.method not in ("GET", "HEAD"):
            return problem(405, headers={"Allow": "GET"})
        return await threads.read(view, request, *args, **kwargs)

    return guarded


api = answers.DescribedAPI(
    title="Perfect",
    version="1",
    description="Errors are RFC 9457 problem documents; every list is {items, next_cursor}.",
    urls_namespace="api",
    docs_url="/docs",
    openapi_url="/openapi.json",
    docs_decorator=documentation,
)
answer_errors(api)


def answer(value: Any, status: int = 200) -> HttpResponse:
    try:
        body = msgspec.json.encode(value)
    except OverflowError:  # an integer beyond 64 bits, which JSON allows and Python has
        body = json.dumps(value).encode()
    return HttpResponse(body, status=status, content_type="application/json")


def items(values: list[Any], next_cursor: str | None = None, status: int = 200, **more: Any) -> HttpResponse:
    return answer({"items": values, "next_cursor": next_cursor, **more}, status)


def created(run: Run) -> dict[str, Any]:
    """What a door answers; ``state_reason`` says if there is no worker that could ever start it."""
    return {"id": str(run.pk), "state": run.seen_state, "state_reason": rest_of(run), "url": f"/runs/{run.pk}/"}


def uuid_of(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(404, f"{text[:80]!r} is not the id of a {what}.") from None


def find_run(run_id: UUID) -> Run:
    run = Run.objects.select_related("flow", "worker").filter(pk=run_id).first()
    if run is None:
        raise Missing("run", f"There is no run {run_id}.")
    return run


# Flows


@api.get(
    "/flows",
    auth=Gate(READ, "flows.view_flow", query=("archived",)),
    tags=["flows"],
    response=answers.Page[answers.FlowListed],
)
async def list_flows(request: HttpRequest, archived: bool = False) -> HttpResponse:
    """The library, by name."""
    return items(
        await threads.read(lambda: [flow_json(f) for f in Flow.objects.filter(archived=archived)[:FLOWS_LIMIT]])
    )


@api.post(
    "/flows/run-all",
    auth=Gate(RUN, "flows.trigger_flow"),
    tags=["flows"],
    response={201: answers.Page[answers.Created]},
)
async def run_all(request: HttpRequest, wish: RunAllIn | None = None) -> HttpResponse:
    """One run of each flow that can start without parameters."""
    runs = await threads.write(
        requests.trigger_all,
        now=timezone.now(),
        trigger=Run.Trigger.API,
        who=caller_of(request),
        configuration=wish.configuration if wish else None,
    )
    return items([created(run) for run in runs], status=201)


@api.get("/flows/{slug}", auth=Gate(READ, "flows.view_flow"), tags=["flows"], response=answers.Flow)
async def get_flow(request: HttpRequest, slug: Name) -> HttpResponse:
    return answer(await threads.read(lambda: flow_detail_json(addresses.at(slug))))


@api.patch("/flows/{slug}", auth=Gate(ADMIN, "flows.change_flow"), tags=["flows"], response=answers.FlowListed)
async def change_flow(request: HttpRequest, slug: Name, wish: FlowChange) -> HttpResponse:
    """``archived``: out of the library, its schedules rest, its history stays; or back into it."""
    now, who = timezone.now(), caller_of(request)
    deed = flow_services.archive if wish.archived else flow_services.unarchive
    return answer(await threads.write(lambda: flow_json(deed(flow_id=addresses.at(slug).pk, now=now, who=who))))


@api.post("/flows/{slug}/runs", auth=Gate(RUN, "flows.trigger_flow"), tags=["flows"], response={201: answers.Created})
async def trigger(request: HttpRequest, slug: Name, wish: RunIn | None = None) -> HttpResponse:
    """Queue a run. The same request with the same ``idempotency_key`` gives the same run; another one is refused."""
    wish, now, who = wish or RunIn(), timezone.now(), caller_of(request)

    def deed() -> Run:
        return requests.trigger(flow=addresses.at(slug), now=now, trigger=Run.Trigger.API, who=who, **dict(wish))

    return answer(created(await _write_once(deed)), 201)


# Runs


@api.post("/runs", auth=Gate(RUN, "flows.trigger_flow"), tags=["runs"], response={201: answers.Page[answers.Created]})
async def trigger_many(request: HttpRequest, wishes: RunsIn) -> HttpResponse:
    """Queue up to 1,000 runs, all or none."""
    now, who = timezone.now(), caller_of(request)
    if len(wishes.items) > requests.BULK_LIMIT:
        raise Problem(422, f"{len(wishes.items):,} runs at once are too many; 1,000 are allowed.", field="items")

    def deed() -> list[Run]:
        flows = {slug: addresses.at(slug) for slug in {item.flow for item in wishes.items}}
        wanted = [requests.RunRequest(**{**dict(item), "flow": flows[item.flow]}) for item in wishes.items]
        return requests.trigger_many(items=wanted, now=now, trigger=Run.Trigger.API, who=who)

    return items([created(run) for run in await _write_once(deed)], status=201)


@api.get(
    "/runs",
    auth=Gate(READ, *VIEW_RUNS, query=pagination.QUERY),
    tags=["runs"],
    response=answers.Page[answers.RunListed],
)
async def list_runs(
    request: HttpRequest,
    state: Name = "",
    flow: Name = "",
    q: Name = "",
    since: Moment | None = None,
    until: Moment | None = None,
    tag: Name = "",
    parent: Name = "",
    cursor: Name = "",
    limit: Annotated[int, Field(ge=1, le=pagination.LIMIT)] = 50,
) -> HttpResponse:
    """Newest first. ``state`` takes several with commas; ``q`` looks in flow names and ids.

    Runs that were called inside another are listed with ``parent``: the id of the run that called them, or ``any``.
    """
    wanted = pagination.Wanted(
        states=pagination.states_of(state),
        flow=flow,
        q=q,
        since=since,
        until=until,
        tag=tag,
        parent=pagination.parent_of(parent),
        cursor=pagination.cursor_of(cursor),
        limit=limit,
    )
    now = timezone.now()

    def page() -> HttpResponse:
        slug = addresses.at(wanted.flow).slug if wanted.flow else ""
        runs, next_cursor = pagination.page(replace(wanted, flow=slug))
        return items([run_json(run, now, exact=False) for run in runs], next_cursor)

    return await threads.read(page)


@api.get("/runs/{run_id}", auth=Gate(READ, *VIEW_RUNS), tags=["runs"], response=answers.Run)
async def get_run(request: HttpRequest, run_id: str) -> HttpResponse:
    pk, now = uuid_of(run_id, "run"), timezone.now()
    return answer(await threads.read(lambda: run_json(find_run(pk), now)))


@api.get("/runs/{run_id}/tasks", auth=Gate(READ, *VIEW_RUNS), tags=["runs"], response=answers.Page[answers.TaskRun])
async def list_tasks(request: HttpRequest, run_id: str) -> HttpResponse:
    """The task runs of the last attempt, in order."""
    pk, now = uuid_of(run_id, "run"), timezone.now()

    def rows() -> list[dict[str, Any]]:
        run = find_run(pk)
        at = run.clock(now)
        return [task_json(row, at) for row in subruns.rows_with_live_subruns(run, task_runs_of(run), at)]

    return items(await threads.read(rows))


@api.get(
    "/runs/{run_id}/logs",
    auth=Gate(READ, *VIEW_RUNS, query=("after", "level", "q", "limit")),
    tags=["runs"],
    response=answers.Log,
)
async def list_logs(
    request: HttpRequest,
    run_id: str,
    after: Annotated[int, Field(ge=0, lt=1 << 31)] = 0,
    level: Name = "",
    q: Name = "",
    limit: Annotated[int, Field(ge=1, le=pagination.LOG_LIMIT)] = 1_000,
) -> HttpResponse:
    """Lines after the sequence number ``after``, of ``level`` or above; ``next_cursor`` is the next ``after``.

    ``open`` has what a running run has written of lines that have not ended: they get their number when they end.
    """
    pk, least = uuid_of(run_id, "run"), pagination.level_of(level)

    def page() -> HttpResponse:
        run = find_run(pk)
        unfinished = [open_line_json(line) for line in open_lines(run)]  # first: what ends meanwhile is told once more
        lines, last = pagination.log_lines(run, after=after, level=least, q=q, limit=limit)
        return items(lines, str(last) if last else None, open=unfinished)

    return await threads.read(page)


@api.get(
    "/runs/{run_id}/artifacts",
    auth=Gate(READ, *VIEW_RUNS, query=("key", "cursor", "limit")),
    tags=["runs"],
    response=answers.Page[answers.Artifact],
)
async def list_artifacts(
    request: HttpRequest,
    run_id: str,
    key: Name = "",
    cursor: Annotated[int, Field(ge=0, lt=1 << 63)] = 0,
    limit: Annotated[int, Field(ge=1, le=pagination.LIMIT)] = 50,
) -> HttpResponse:
    """In the order in which they were made. ``data`` is text, ``{link, text}``, ``{columns, rows}``, a progress 0–100,
    or of a picture an address (``data:`` where its bytes are kept)."""
    pk = uuid_of(run_id, "run")

    def page() -> HttpResponse:
        found, last = artifact_presenters.list_artifacts(find_run(pk), key=key, after=cursor, limit=limit)
        return items(found, str(last) if last else None)

    return await threads.read(page)


@api.post("/runs/{run_id}/cancel", auth=Gate(RUN, "runs.cancel_run"), tags=["runs"], response=answers.RunListed)
async def cancel(request: HttpRequest, run_id: str, wish: CancelIn | None = None) -> HttpResponse:
    """End a run that waits; ask the worker to end one that runs."""
    pk, now, who = uuid_of(run_id, "run"), timezone.now(), caller_of(request)
    why = wish.reason if wish else ""
    return answer(
        await threads.write(lambda: run_json(requests.cancel(run_id=pk, now=now, who=who, why=why), now, exact=False))
    )


@api.post("/runs/{run_id}/retry", auth=Gate(RUN, "runs.retry_run"), tags=["runs"], response={201: answers.Created})
async def retry(request: HttpRequest, run_id: str, wish: RetryIn | None = None) -> HttpResponse:
    """A new run like this one; the old one stays as it is."""
    pk, now, who = uuid_of(run_id, "run"), timezone.now(), caller_of(request)
    changes = dict(wish) if wish else {}

    def deed() -> Run:
        return requests.retry(run_id=pk, now=now, trigger=Run.Trigger.API, who=who, **changes)

    return answer(created(await threads.write(deed)), 201)


@api.post(
    "/runs/{run_id}/resume",
    auth=Gate(RUN, "runs.retry_run"),
    tags=["runs"],
    response={200: answers.Run, 201: answers.Created},
)
async def resume(request: HttpRequest, run_id: str, wish: ResumeIn | None = None) -> HttpResponse:
    """Let a paused run go on, with the ``input`` that its form asks for. Of a run that has ended: a new run like it, in
    which completed tasks are answered by their results; the old one stays as it is.

    With ``from_task``, that task's ``call``-th call (from 0) and all that started later run again.
    """
    pk, now, who = uuid_of(run_id, "run"), timezone.now(), caller_of(request)
    options = wish.model_dump(exclude={"input"}) if wish else {}
    given = wish.input if wish else None

    def deed() -> tuple[dict[str, Any], int]:
        if given is not None or find_run(pk).state == RunState.PAUSED:
            return run_json(requests.go_on(run_id=pk, given=given, now=now, who=who), now), 200
        return created(requests.resume(run_id=pk, now=now, trigger=Run.Trigger.API, who=who, **options)), 201

    return answer(*await threads.write(deed))


@api.post("/runs/{run_id}/pause", auth=Gate(RUN, "runs.cancel_run"), tags=["runs"], response=answers.RunListed)
async def pause(request: HttpRequest, run_id: str) -> HttpResponse:
    """Have a running run stand still, all its processes, until it is resumed; its time limits go on."""
    pk, now, who = uuid_of(run_id, "run"), timezone.now(), caller_of(request)
    return answer(await threads.write(lambda: run_json(requests.pause(run_id=pk, now=now, who=who), now, exact=False)))


# Schedules


@api.get(
    "/schedules",
    auth=Gate(READ, "flows.view_schedule", query=("flow",)),
    tags=["schedules"],
    response=answers.Page[answers.Schedule],
)
async def list_schedules(request: HttpRequest, flow: Name = "") -> HttpResponse:
    def rows() -> list[dict[str, Any]]:
        found = Schedule.objects.select_related("flow")
        found = found.filter(flow=addresses.at(flow)) if flow else found
        return [schedule_json(row) for row in found[:FLOWS_LIMIT]]

    return items(await threads.read(rows))


@api.post("/schedules", auth=Gate(ADMIN, "flows.add_schedule"), tags=["schedules"], response={201: answers.Schedule})
async def create_schedule(request: HttpRequest, wish: ScheduleIn) -> HttpResponse:
    now, who = timezone.now(), caller_of(request)

    def deed() -> dict[str, Any]:
        row = timetable.create(flow=addresses.at(wish.flow), values=_given(wish), now=now, who=who)
        return schedule_json(_pause_or_resume(row, wish.paused, now, who))

    return answer(await threads.write(deed), 201)


@api.patch(
    "/schedules/{int:schedule_id}",
    auth=Gate(ADMIN, "flows.change_schedule"),
    tags=["schedules"],
    response=answers.Schedule,
)
async def change_schedule(request: HttpRequest, schedule_id: int, wish: ScheduleChange) -> HttpResponse:
    """What a person changed wins over what the flow's code declares, and says who changed it."""
    now, who, values = timezone.now(), caller_of(request), _given(wish)

    def deed() -> dict[str, Any]:
        row = timetable.find(schedule_id)
        if values:
            row = timetable.change(schedule_id=schedule_id, values=values, now=now, who=who)
        return schedule_json(_pause_or_resume(row, wish.paused, now, who))

    return answer(await threads.write(deed))


@api.delete(
    "/schedules/{int:schedule_id}", auth=Gate(ADMIN, "flows.delete_schedule"), tags=["schedules"], response={204: None}
)
async def delete_schedule(request: HttpRequest, schedule_id: int) -> HttpResponse:
    await threads.write(timetable.remove, schedule_id=schedule_id, now=timezone.now(), who=caller_of(request))
    return HttpResponse(status=204)


def _given(wish: ScheduleChange) -> dict[str, Any]:
    values = wish.model_dump(exclude_unset=True, exclude={"flow", "paused"})
    return {name: value for name, value in values.items() if value is not None}


def _pause_or_resume(row: Schedule, paused: bool | None, now: datetime, who: str) -> Schedule:
    if paused is None:
        return row
    deed = flow_services.pause if paused else flow_services.resume
    return deed(schedule_id=row.pk, now=now, who=who)


# Limits and variables


@api.get("/limits", auth=Gate(READ, "runs.view_limit"), tags=["limits"], response=answers.Page[answers.Limit])
async def list_limits(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    return items(await threads.read(lambda: [limit_json(row, now) for row in limits.limits()[: limits.MOST_LIMITS]]))


@api.post("/limits", auth=Gate(ADMIN, "runs.add_limit"), tags=["limits"], response={201: answers.Limit})
async def create_limit(request: HttpRequest, wish: LimitIn) -> HttpResponse:
    """A limit that flows share: ``concurrency(name)`` holds slots, ``rate_limit(name)`` wants ``per_second``."""
    now = timezone.now()

    def deed() -> dict[str, Any]:
        return limit_json(limits.create_limit(**wish.model_dump(), now=now), now)

    return answer(await threads.write(deed), 201)


@api.patch("/limits/{str:name}", auth=Gate(ADMIN, "runs.change_limit"), tags=["limits"], response=answers.Limit)
async def change_limit(request: HttpRequest, name: Name, wish: LimitChange) -> HttpResponse:
    now, values = timezone.now(), wish.model_dump(exclude_unset=True)
    return answer(await threads.write(lambda: limit_json(limits.change_limit(name=name, values=values, now=now), now)))


@api.delete("/limits/{str:name}", auth=Gate(ADMIN, "runs.delete_limit"), tags=["limits"], response={204: None})
async def delete_limit(request: HttpRequest, name: Name) -> HttpResponse:
    """What waited for it goes on, unlimited."""
    await threads.write(limits.remove_limit, name=name, now=timezone.now())
    return HttpResponse(status=204)


@api.get(
    "/variables", auth=Gate(READ, "runs.view_variable"), tags=["variables"], response=answers.Page[answers.Variable]
)
async def list_variables(request: HttpRequest) -> HttpResponse:
    return items(await threads.read(lambda: [variable_json(row) for row in Variable.objects.all()]))


@api.get("/variables/{str:name}", auth=Gate(READ, "runs.view_variable"), tags=["variables"], response=answers.Variable)
async def get_variable(request: HttpRequest, name: Name) -> HttpResponse:
    return answer(await threads.read(lambda: variable_json(limits.find_variable(name))))


@api.put(
    "/variables/{str:name}", auth=Gate(ADMIN, "runs.change_variable"), tags=["variables"], response=answers.Variable
)
async def set_variable(request: HttpRequest, name: Name, wish: VariableIn) -> HttpResponse:
    now, who = timezone.now(), caller_of(request)

    def deed() -> dict[str, Any]:
        return variable_json(limits.set_variable(name=name, value=wish.value, tags=wish.tags, now=now, who=who))

    return answer(await threads.write(deed))


@api.delete("/variables/{str:name}", auth=Gate(ADMIN, "runs.delete_variable"), tags=["variables"], response={204: None})
async def delete_variable(request: HttpRequest, name: Name) -> HttpResponse:
    await threads.write(limits.remove_variable, name=name)
    return HttpResponse(status=204)


# Workers


@api.get("/workers", auth=Gate(READ, "runs.view_worker"), tags=["workers"], response=answers.Page[answers.Worker])
async def list_workers(request: HttpRequest) -> HttpResponse:
    now = timezone.now()

    def rows() -> list[dict[str, Any]]:
        taken, workers = taken_slots(), Worker.objects.known().prefetch_related("offerings__flow")[:FLOWS_LIMIT]
        return [worker_json(worker, taken.get(worker.pk, 0), now) for worker in workers]

    return items(await threads.read(rows))


@api.delete("/workers/{worker_id}", auth=Gate(ADMIN, "runs.delete_worker"), tags=["workers"], response={204: None})
async def forget_worker(request: HttpRequest, worker_id: str) -> HttpResponse:
    """Forget a worker that does not come back. The history of its runs keeps its name."""
    pk = uuid_of(worker_id, "worker")
    await threads.write(offerings.forget_worker, worker_id=pk, now=timezone.now(), who=caller_of(request))
    return HttpResponse(status=204)


# Helpers


async def _write_once(deed: Callable[[], Any]) -> Any:
    """Two doors may race with one idempotency key: who comes second finds the first one's run."""
    try:
        return await threads.write(deed)
    except IntegrityError:
        return await threads.write(deed)
