"""What doors show of a run: its JSON, where it stands now, why it waits. Reads only."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from flows import sealing, versions
from flows.models import Flow, Version
from flows.parameters import masked, masked_schema
from runs.models import Attempt, LogLine, Offering, Run, TaskRun, Worker
from runs.rules import progress
from runs.rules.states import HELD, OFFER_LASTS, SHOWN, WAITING, RunState
from runs.services import history, questions, subruns

Eta = tuple[float, float]  # seconds left, low and high
REST, MOST_REST = 10, timedelta(seconds=0.3)  # times what working it out took
STANDING_KEPT = 200
SOON = "about to be offered to a worker"


class OpenLine(NamedTuple):
    """A line that has begun and not ended, as far as it is."""

    time: datetime
    level: str
    task: str | None
    message: str


def iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def milliseconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds() * 1000, 3) if start and end else None


def task_runs_of(run: Run) -> list[TaskRun]:
    """The task runs of the run's last attempt, in order."""
    return list(TaskRun.objects.filter(run_id=run.pk, attempt=max(run.attempt, 1)).order_by("position", "pk"))


def what_moves(run: Run) -> list[Any]:
    """Of the task runs of the run's last attempt only what progress is made of: a run may have thousands."""
    rows = TaskRun.objects.filter(run_id=run.pk, attempt=max(run.attempt, 1), parent=None).order_by("position", "pk")
    return list(rows.values_list(*history.MOVING, named=True))


def progress_now(run: Run, task_runs: Iterable[Any], now: datetime) -> tuple[float, Eta | None]:
    """Progress in 0–100 as it stands at ``now``, and the seconds left as a range where something is known."""
    if run.state not in HELD:
        return run.progress, None
    items, at = history.items_of(run, task_runs), run.clock(now).timestamp()
    return progress.run_progress(items, at, floor=run.progress), progress.remaining(
        items, at, history.lessons_for(run).spread
    )


_standing: OrderedDict[UUID, tuple[datetime, timedelta, tuple[float, Eta | None]]] = OrderedDict()


def progress_and_eta(run: Run, now: datetime) -> tuple[float, Eta | None]:
    """``progress_now`` of a running run, worked out anew so seldom that it takes a tenth of the time: a run may have
    thousands of task runs, and somebody may ask without a pause."""
    at, rest, found = _standing.get(run.pk, (now, timedelta(), (0.0, None)))
    if not timedelta() <= now - at < rest or found[0] < run.progress:
        began = time.perf_counter()
        found = progress_now(run, subruns.rows_with_live_subruns(run, what_moves(run), now), now)
        _standing[run.pk] = now, min(MOST_REST, REST * timedelta(seconds=time.perf_counter() - began)), found
        while len(_standing) > STANDING_KEPT:
            _standing.popitem(last=False)
    return found


def run_json(run: Run, now: datetime, *, exact: bool = True) -> dict[str, Any]:
    """The run as doors show it, secrets masked.

    ``exact`` asks also where it stands and why it waits (a few more queries), and tells its traceback: the last output
    of a run that crashed.
    """
    percent, eta = run.progress, None
    worker = (run.root or run).worker
    if exact and run.state in HELD:
        percent, eta = progress_and_eta(run, now)
    return {
        "id": str(run.pk),
        "flow": run.flow.slug,
        "name": run.title,
        "state": run.seen_state,
        "state_name": run.state_name or SHOWN[run.seen_state][1],
        "state_reason": rest_of(run) or run.state_reason or (waiting_reason(run) if exact else ""),
        "code_problem": code_problem(run) if exact else None,
        "progress": round(percent, 2),
        "eta_seconds": round(sum(eta) / 2, 1) if eta else None,
        "attempt": run.attempt,
        "parameters": masked(run.flow, run.parameters),
        "configuration": run.configuration,
        "tags": run.tags,
        "trigger": run.trigger,
        "triggered_by": run.triggered_by,
        "scheduled_for": iso(run.scheduled_for),
        "created_at": iso(run.created_at),
        "started_at": iso(run.started_at),
        "finished_at": iso(run.finished_at),
        "duration_ms": milliseconds(run.started_at, run.finished_at),
        "error": run.error,
        **({"traceback": run.traceback} if exact else {}),
        "result": run.result,
        "worker": worker.name if worker else None,
        "parent": str(run.parent_id) if run.parent_id else None,
        "rerun_of": str(run.rerun_of_id) if run.rerun_of_id else None,
        "resume_of": str(run.resume_of_id) if run.resume_of_id else None,
        "resume_from": run.resume_from or None,
        "cancel_requested_at": iso(run.cancel_requested_at),
        "pause": pause_json(run) if exact and run.state == RunState.PAUSED else None,
        "url": f"/runs/{run.pk}/",
    }


def pause_json(run: Run) -> dict[str, Any] | None:
    """What a paused run waits for: ``schema`` is the JSON Schema of its form."""
    question = questions.open_pause(run)
    if question is None:
        return None
    body = question.body
    return {
        "key": body.get("key") or None,
        "description": body.get("description") or "",
        "schema": masked_schema(questions.form_of(question, run)),
        "since": iso(question.asked_at),
        "until": iso(questions.ends_at(question)),
    }


def task_json(row: TaskRun, now: datetime) -> dict[str, Any]:
    """A task run as the API shows it; progress in 0–100."""
    return {
        "key": row.key,
        "name": row.name,
        "subrun": str(row.subrun) if row.subrun else None,
        "index": row.position,
        "call": row.call,
        "state": row.state,
        "progress": round(progress.share(history.item_of(row), now.timestamp()) * 100, 2),
        "note": row.note,
        "weight": progress.weight_of(history.item_of(row)),
        "estimated_ms": progress.expected_ms(history.item_of(row)),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "duration_ms": milliseconds(row.started_at, row.finished_at),
        "attempt": row.tries,
        "error": row.error,
        "traceback": row.traceback,
        "state_name": row.state_name or SHOWN[row.state][1],
        "message": row.message,
        "result": row.result,
        "crucial": row.crucial,
    }


def level_name(level: int) -> str:
    return logging.getLevelName(level) if level in (10, 20, 30, 40, 50) else f"LEVEL {level}"


def log_of(run: Run) -> QuerySet[LogLine]:
    """The run's lines: those of all that was called in it, too; of a sub-run those that it told itself."""
    if run.root_id is None:
        return LogLine.objects.filter(run_id=run.pk)
    return LogLine.objects.filter(run_id=run.root_id, subrun=run.pk)


def task_names(run: Run, wanted: set[int]) -> dict[tuple[int, int], str]:
    """The names of the task runs with these numbers, by (attempt, number); also of those in its sub-runs."""
    names = _names(TaskRun.objects.filter(run_id=run.pk), wanted)
    others = wanted - {number for _, number in names}
    if others and run.root_id is None and run.subruns.exists():
        names |= _names(TaskRun.objects.filter(run__root_id=run.pk), others)
    return names


def _names(rows: QuerySet[TaskRun], wanted: set[int]) -> dict[tuple[int, int], str]:
    rows = rows.filter(number__in=wanted) if len(wanted) <= 500 else rows.filter(number__isnull=False)
    found = rows.values_list("attempt", "number", "name") if wanted else []
    return {(attempt, number): name for attempt, number, name in found if number is not None}


def log_json(line: LogLine, names: dict[tuple[int, int], str]) -> dict[str, Any]:
    return {
        "seq": line.seq,
        "time": iso(line.time),
        "level": level_name(line.level),
        "task": names.get((line.attempt, line.task)) if line.task is not None else None,
        "message": line.message,
        **({"dropped": line.dropped} if line.dropped else {}),
    }


def rest_of(run: Run) -> str:
    """Why a waiting run cannot start: no worker has its flow. Empty if one has, connected or not. Asks no database."""
    waits = run.flow.rest if run.state in WAITING else ""
    return f"{waits}; the run starts when one announces it" if waits else ""


def code_problem(run: Run) -> str | None:
    """Why the run's last attempt was made with its worker's last good code and not the newest; None if it was not."""
    if not run.attempt:
        return None
    claimed = Attempt.objects.filter(run_id=run.owner_id, claimed_at__isnull=False).order_by("-pk")
    return claimed.values_list("problem", flat=True).first() or None


def open_lines(run: Run) -> list[OpenLine]:
    """What a running run has written of lines that have not ended: they are no lines of its log yet."""
    if run.state not in HELD or run.root_id is not None or run.fence is None:
        return []
    found = Attempt.objects.filter(pk=run.fence).values_list("number", "open_lines").first()
    number, lines = found or (0, [])
    names = task_names(run, {task for _, _, task, _ in lines if task is not None})
    return [
        OpenLine(datetime.fromtimestamp(at, UTC), level_name(level), names.get((number, task)), message)
        for at, level, task, message in lines
    ]


def open_line_json(line: OpenLine) -> dict[str, Any]:
    return {"time": iso(line.time), "level": line.level, "task": line.task, "message": line.message}


def waiting_reason(run: Run) -> str:
    """Why the run does not run yet, or what its code waits for, in one sentence; else empty."""
    if rest_of(run):
        return rest_of(run)
    if run.state == RunState.SCHEDULED:
        return f"waits for its time, {iso(run.scheduled_for)}"
    if run.state == RunState.OFFERED:
        return "offered to a worker"
    if run.state == RunState.RUNNING:
        return questions.waiting([run.fence]).get(run.fence or 0, "")
    if run.state != RunState.PENDING:
        return ""
    if sealing.unreadable(run.parameters):
        return f"a secret parameter of it cannot be read: {sealing.NO_KEY}"
    reason = flow_waits_for(run.flow)
    return _waits_for_version(run) or reason if reason == SOON else reason


def _waits_for_version(run: Run) -> str:
    """That of the workers which are free none has a version of the flow that takes the run's parameters; else empty."""
    offers = list(
        Offering.objects.filter(flow=run.flow, worker__connected=True).select_related("version", "worker")[:50]
    )
    if any(_suits(row.version, run) for row in offers):
        return ""
    names = ", ".join(sorted(row.worker.name for row in offers[:5]))
    return f"its parameters are for another version of the flow than the connected workers have: {names}"


def _suits(version: Version | None, run: Run) -> bool:
    """Whether a worker with this version can be given the run; of an unknown one nothing else is assumed."""
    return (
        version is None
        or version.fingerprint == run.flow.fingerprint
        or versions.takes(version.spec, run.parameters, run.configuration)
    )


def flow_waits_for(flow: Flow) -> str:
    """What stands between a waiting run of this flow and its start."""
    workers = list(Worker.objects.filter(flows=flow, connected=True))
    if not workers:
        known = Worker.objects.filter(flows=flow).order_by("-last_seen_at").first()
        last = f"; {known.name} had it, last seen {iso(known.last_seen_at)}" if known else ""
        return f"no connected worker has this flow{last}"
    draining = [worker.name for worker in workers if not worker.takes_runs]
    workers = [worker for worker in workers if worker.takes_runs]
    if not workers:
        return f"every worker with this flow is draining and takes no new run: {', '.join(draining[:5])}"
    taken = {worker: _in_use(worker) for worker in workers}
    full = [f"{used} of {worker.slots} on {worker.name}" for worker, used in taken.items() if used >= worker.slots]
    deaf = [worker.name for worker, used in taken.items() if used < worker.slots and _let_its_last_offer_expire(worker)]
    if len(full) + len(deaf) < len(workers):
        return SOON
    unanswered = f"no answer to an offer from {', '.join(deaf[:5])}, asked again after a minute" if deaf else ""
    return "; ".join(part for part in ("slots full: " + ", ".join(full[:5]) if full else "", unanswered) if part)


def _let_its_last_offer_expire(worker: Worker) -> bool:
    last = Attempt.objects.filter(worker=worker).order_by("-pk").values_list("claimed_at", "offered_at", "revoked_at")
    claimed, offered, revoked = last.first() or (None, None, None)
    return not claimed and offered is not None and revoked is not None and revoked - offered >= OFFER_LASTS


def _in_use(worker: Worker) -> int:
    """Slots of its newest process that are taken: what a draining process holds is not counted."""
    held = Run.objects.filter(worker=worker, state__in=[*HELD, RunState.OFFERED]).count()
    return max(0, held - worker.draining_runs)
