"""Wishes: trigger, cancel, run again, resume, give up. Whoever wishes, through whatever door, it becomes a row here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils.crypto import constant_time_compare, salted_hmac
from perfect_client.wire.messages import MAX_NAME, clean_text

from flows.models import Flow, Schedule
from flows.parameters import Conflict, Missing, Refused, clean, configuration_of, nearest
from runs import events
from runs.models import Attempt, Event, Run, TaskRun
from runs.rules.states import FINAL, HELD, RESUMABLE, RunState
from runs.services import questions, queue
from runs.services.closing import CANCELLED, close, request_of

BULK_LIMIT = 1_000
TAG_LIMIT = 50


@dataclass(frozen=True)
class RunRequest:
    """One run to be; what is None is the flow's default. ``due_at`` is a schedule's nominal time."""

    flow: Flow
    parameters: Mapping[str, Any] | None = None
    configuration: str | None = None
    run_at: datetime | None = None
    idempotency_key: str | None = None
    tags: Sequence[str] = field(default_factory=tuple)
    rerun_of: Run | None = None
    before: Mapping[str, Any] | None = None  # what a masked secret stands for
    resume_of: Run | None = None
    resume_from: TaskRun | None = None  # the outermost task run of resume_of that is to run again
    schedule: Schedule | None = None
    due_at: datetime | None = None


def trigger(
    *,
    flow: Flow,
    now: datetime,
    trigger: str,
    who: str,
    parameters: Mapping[str, Any] | None = None,
    configuration: str | None = None,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    tags: Sequence[str] = (),
    before: Mapping[str, Any] | None = None,
) -> Run:
    """Queue one run. The same request with the same ``idempotency_key`` gives the same run again. Raises ``Refused``.

    A secret that is still masked in ``parameters`` is the one in ``before``.
    """
    wish = RunRequest(flow, parameters, configuration, run_at, idempotency_key, tags, before=before)
    return trigger_many(items=[wish], now=now, trigger=trigger, who=who)[0]


def trigger_many(*, items: Sequence[RunRequest], now: datetime, trigger: str, who: str, why: str = "") -> list[Run]:
    """Queue all of them or, if one is refused, none; in one transaction. Raises ``Refused``."""
    if len(items) > BULK_LIMIT:
        raise Refused("items", f"{len(items):,} runs at once are too many; {BULK_LIMIT:,} are allowed")
    known = _known([_checked_key(item.idempotency_key) for item in items if item.idempotency_key is not None])
    runs: list[Run] = []
    fresh: list[Run] = []
    for item in items:
        run = known.get(item.idempotency_key or "")
        if run is None or not _is_repeated(item, run):
            new = _build(item, now, trigger, who)  # what is wrong with the request itself is said first
            if run is not None:
                sentence = f"this idempotency key was used for another request (flow {run.flow.slug}, run {run.pk})"
                raise Refused("idempotency_key", sentence)
            run = new
            fresh.append(run)
            if item.idempotency_key:
                known[item.idempotency_key] = run
        runs.append(run)
    if fresh:
        Run.objects.admit(fresh, now=now, who=who, why=why or f"triggered {Run.Trigger(trigger).label}")
        queue.remember(fresh)
        slugs = {run.flow.slug for run in fresh}
        later = [events.SCHEDULES] if any(run.state == RunState.SCHEDULED for run in fresh) else []
        events.publish(events.WORK, events.OVERVIEW, *later, *[events.flow_topic(slug) for slug in slugs])
    return runs


def trigger_all(*, now: datetime, trigger: str, who: str, configuration: str | None = None) -> list[Run]:
    """One run of each flow of the library that needs no parameters; in ``configuration`` where a flow has it."""
    items = []
    for flow in Flow.objects.filter(archived=False):
        chosen = configuration if configuration in flow.configurations else None
        try:
            clean(flow, {}, configuration_of(flow, chosen))
        except Refused:
            continue
        items.append(RunRequest(flow, configuration=chosen))
    return trigger_many(items=items, now=now, trigger=trigger, who=who)


def _known(keys: Sequence[str]) -> dict[str, Run]:
    if not keys:
        return {}
    return {
        str(run.idempotency_key): run for run in Run.objects.select_related("flow").filter(idempotency_key__in=keys)
    }


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_NAME or key != clean_text(key):
        raise Refused("idempotency_key", f"idempotency_key must be a string of 1 to {MAX_NAME} characters, without NUL")
    return key


def _is_repeated(wish: RunRequest, run: Run) -> bool:
    """Whether the run was made for this very request; of a run without a digest its flow alone is known."""
    if not run.request_digest:
        return run.flow_id == wish.flow.pk
    try:
        return constant_time_compare(run.request_digest, _digest_of(wish))
    except (TypeError, ValueError, RecursionError):  # no JSON, so no run was ever made for it
        return False


def _digest_of(wish: RunRequest) -> str:
    """The request as it was given, without what the flow's code fills in: that may change before it is repeated.

    Keyed, since a plain digest would let who reads a backup try out what a secret parameter might be.
    """
    at = wish.run_at.astimezone(UTC).isoformat() if wish.run_at else None
    given = [wish.flow.pk, wish.parameters or {}, wish.configuration or "", at, list(wish.tags)]
    return salted_hmac(
        "runs.services.requests.request", json.dumps(given, sort_keys=True), algorithm="sha256"
    ).hexdigest()


def _build(wish: RunRequest, now: datetime, trigger: str, who: str) -> Run:
    configuration = configuration_of(wish.flow, wish.configuration)
    later = wish.run_at is not None and wish.run_at > now
    return Run(
        flow=wish.flow,
        state=RunState.SCHEDULED if later else RunState.PENDING,
        parameters=clean(wish.flow, wish.parameters, configuration, wish.before),
        configuration=configuration,
        tags=_tags([*wish.flow.tags, *wish.tags]),
        trigger=trigger,
        triggered_by=clean_text(who, MAX_NAME),
        scheduled_for=wish.run_at if later else wish.due_at,
        idempotency_key=wish.idempotency_key,
        request_digest=_digest_of(wish) if wish.idempotency_key else "",
        rerun_of=wish.rerun_of,
        resume_of=wish.resume_of,
        resume_from=wish.resume_from.key if wish.resume_from else "",
        resume_before=(wish.resume_from.number or 0) if wish.resume_from else 0,
        schedule=wish.schedule,
        due_at=wish.due_at,
        created_at=now,
    )


def _tags(tags: Sequence[Any]) -> list[str]:
    for tag in tags:
        if not isinstance(tag, str) or not tag.strip() or len(tag) > MAX_NAME:
            raise Refused("tags", f"a tag must be a string of 1 to {MAX_NAME} characters, not {str(tag)[:80]!r}")
    if len(tags) > TAG_LIMIT:
        raise Refused("tags", f"{len(tags)} tags are too many; {TAG_LIMIT} are allowed")
    return list(dict.fromkeys(clean_text(tag.strip()) for tag in tags))


def cancel(*, run_id: UUID, now: datetime, who: str, why: str = "") -> Run:
    """End a run that waits; ask the worker to end one that runs. Raises ``Conflict`` if the run is final.

    A second cancel of a running run changes nothing, but asks its worker again.
    """
    run = _run(run_id, changing=True)
    if run.state in FINAL:
        raise Conflict("state", f"the run is {run.state} already, so there is nothing to cancel")
    _refuse_sub_run(run, "cancel")
    reason = f"{CANCELLED} by {who}" + (f": {clean_text(why, 500)}" if why else "")
    if run.state not in HELD:
        close(run, RunState.CANCELLED, now=now, who=who, why=reason)
        return _run(run_id)
    if run.cancel_requested_at is None:
        Run.objects.filter(pk=run.pk).update(
            cancel_requested_at=now, cancel_requested_by=clean_text(who, MAX_NAME), version=run.version + 1
        )
        Event.objects.create(run=run, time=now, who=who, why=request_of(reason))
        events.publish(events.OVERVIEW, events.run_topic(run.pk))
    events.publish(events.CANCELS)
    return _run(run_id)


def retry(
    *,
    run_id: UUID,
    now: datetime,
    trigger: str,
    who: str,
    parameters: Mapping[str, Any] | None = None,
    configuration: str | None = None,
) -> Run:
    """A new run like this one, or edited. The old run stays as it is. Raises ``Conflict`` while it is not final."""
    run = _run(run_id)
    _refuse_sub_run(run, "repeat")
    if run.state not in FINAL:
        raise Conflict("state", f"the run is {run.seen_state} still; cancel it first, or trigger the flow anew")
    wish = RunRequest(
        run.flow,
        run.parameters if parameters is None else parameters,
        run.configuration if configuration is None else configuration,
        tags=[tag for tag in run.tags if tag not in run.flow.tags],
        rerun_of=run,
        before=run.parameters,
    )
    return trigger_many(items=[wish], now=now, trigger=trigger, who=who)[0]


def resume(*, run_id: UUID, now: datetime, trigger: str, who: str, from_task: str | None = None, call: int = 0) -> Run:
    """A new run like this one, in which completed tasks with the same inputs are answered by their results.

    With ``from_task``, a task's key or name, its ``call``-th call (from 0) and all that started later run again.
    The old run stays as it is. Raises ``Conflict`` for a run that cannot be resumed, ``Refused`` for an unknown task.
    """
    run = _run(run_id)
    _refuse_sub_run(run, "resume")
    if run.state not in FINAL:
        raise Conflict("state", f"the run is {run.seen_state} still; cancel it first, then resume it")
    first = _task_of(run, from_task, call) if from_task is not None else None
    if first is None and run.state not in RESUMABLE:
        raise Conflict("state", f"the run is {run.state}: there is nothing to resume; name a task, or run it again")
    tags = [tag for tag in run.tags if tag not in run.flow.tags]
    wish = RunRequest(run.flow, run.parameters, run.configuration, tags=tags, resume_of=run, resume_from=first)
    again = f" and runs again from {first.name}" if first else ""
    why = f"resumes run {run.pk}{again}, triggered {Run.Trigger(trigger).label}"
    return trigger_many(items=[wish], now=now, trigger=trigger, who=who, why=why)[0]


def _task_of(run: Run, key: str, call: int) -> TaskRun:
    """The call of a task that was started in the run's last attempt; if another task made it, the outermost one."""
    rows = TaskRun.objects.filter(run=run, attempt=run.attempt, number__isnull=False)
    found = rows.filter(key=key, call=call).first() or rows.filter(name=key, call=call).order_by("number").first()
    if found is None:
        known = list(rows.values_list("key", flat=True).distinct()[:5_000])
        hint = nearest(key, known) if known else " No task was called in it."
        raise Refused("from_task", f"the run made no call {call} of a task {key[:MAX_NAME]!r}.{hint}")
    while found.parent is not None:
        found = rows.get(number=found.parent)
    return found


def pause(*, run_id: UUID, now: datetime, who: str) -> Run:
    """Have a running run stand still, all its processes, until somebody lets it go on. Its time limits go on.

    Raises ``Conflict`` for a run that does not run.
    """
    run = _run(run_id, changing=True)
    _refuse_sub_run(run, "pause")
    if run.state != RunState.RUNNING or run.cancel_requested_at is not None:
        told = "is to be cancelled" if run.state == RunState.RUNNING else f"is {run.seen_state}"
        raise Conflict("state", f"only a running run can be paused; this one {told}")
    Attempt.objects.filter(pk=run.fence or 0).update(hold=True)
    run.move(RunState.PAUSED, now=now, who=who, why=f"paused by {who}", paused_at=now)
    events.publish(events.HOLDS, events.OVERVIEW, events.run_topic(run.pk))
    return _run(run_id)


def go_on(*, run_id: UUID, given: Mapping[str, Any] | None, now: datetime, who: str) -> Run:
    """Let a paused run go on, with what its form asks for. Raises ``Conflict`` if it does not wait for a person,
    ``Refused`` for input that does not fit."""
    run = _run(run_id, changing=True)
    _refuse_sub_run(run, "let go on")
    if run.state == RunState.PAUSED and Attempt.objects.filter(pk=run.fence or 0, hold=True).update(hold=False):
        run.move(questions.state_of_held(run), now=now, who=who, why=f"let go on by {who}")
        events.publish(events.HOLDS, events.OVERVIEW, events.run_topic(run.pk))
        return _run(run_id)
    if not questions.fill_in(run, given, now=now, who=who, why=f"let go on by {who}"):
        raise Conflict("state", f"the run is {run.seen_state} and waits for nobody")
    return _run(run_id)


def give_up(*, run_id: UUID, now: datetime, who: str, why: str = "") -> Run:
    """The operator's word on a run whose worker is out of contact: it counts as crashed, its attempt as stale."""
    run = _run(run_id, changing=True)
    _refuse_sub_run(run, "give up")
    if run.state != RunState.LOST:
        raise Conflict("state", f"only a lost run can be given up; this one is {run.seen_state}")
    Attempt.objects.filter(run=run, revoked_at=None).update(revoked_at=now)
    close(run, RunState.CRASHED, now=now, who=who, why=why or f"given up by {who} while its worker was out of contact")
    return _run(run_id)


def _refuse_sub_run(run: Run, verb: str) -> None:
    """A flow that was called by another is a part of that one's process, and its arguments are known there alone."""
    if run.root is not None:
        raise Conflict(
            "parent",
            f"the run is a part of run {run.root_id} of {run.root.flow.name}, which called it: {verb} that one",
        )


def _run(run_id: UUID, *, changing: bool = False) -> Run:
    """``changing``: what is decided by its state stays true until the commit, whatever other servers do."""
    rows = Run.objects.select_related("flow", "root__flow")
    if changing:
        rows = rows.select_for_update(of=("self",), no_key=True)
    run = rows.filter(pk=run_id).first()
    if run is None:
        raise Missing("run", f"there is no run {run_id}")
    return run
