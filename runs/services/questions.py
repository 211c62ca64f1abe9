"""Questions of running code and their answers. Each is a row until the code needs it no more.

A question is answered in the transaction that brings it where that is possible; else when what it waits for happens.
An answer is sent again to a worker that comes back, until the code has said that it heard it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from perfect_client.wire.messages import Answer, Asked, Released, clean_text

from flows import sealing
from flows.models import Flow
from flows.parameters import Refused, clean
from runs import events
from runs.models import Attempt, Question, Run, Variable
from runs.rules.states import FINAL, RunState
from runs.services import limits
from runs.services.limits import WAITERS
from runs.services.reach import within

PAUSE = "pause"
MOST_OPEN = 10_000  # questions of one attempt whose answers it neither heard nor gave back
MOST_TOLD = 200

Body = dict[str, Any]
Told = Asked | Released
Answering = Callable[[Run, Question, datetime], Body | None]


def take(run: Run, attempt: Attempt, told: Sequence[Told], now: datetime) -> None:
    """What the attempt's code asks and gives back, in order; what can be answered at once is."""
    run.refresh_from_db(fields=["state"])  # a person may have let it go on
    limited = [
        _release(run, attempt, fact, now) if isinstance(fact, Released) else _ask(run, attempt, fact, now)
        for fact in told
    ]
    if any(limited):
        limits.settle(now=now)
    events.publish(events.ANSWERS)


def _ask(run: Run, attempt: Attempt, fact: Asked, now: datetime) -> bool:
    """Whether it may be for ``sharing.settle`` to answer."""
    own = Question.objects.filter(attempt=attempt)
    own.filter(number__lte=fact.heard, answer__isnull=False, holdings=None).delete()
    if own.filter(number=fact.ask).exists():
        return False
    question = Question(
        attempt=attempt,
        number=fact.ask,
        kind=clean_text(fact.kind, 64)[:20],
        body=fact.body,
        task=fact.task,
        asked_at=now,
    )
    try:
        if own.count() >= MOST_OPEN:
            raise Refused("ask", f"the code keeps {MOST_OPEN:,} questions open")
        question.answer = _answering(fact.kind)(run, question, now)
    except Refused as refused:
        question.answer = {"error": refused.sentence}
    question.save(force_insert=True)
    return question.answer is None and question.kind in WAITERS


def _release(run: Run, attempt: Attempt, fact: Released, now: datetime) -> bool:
    """Whether a limit may have come free."""
    question = Question.objects.filter(attempt=attempt, number=fact.ask).first()
    if question is None:
        return False
    if question.kind == PAUSE and question.answer is None:
        _go_on(run, now, who="worker", why=clean_text(fact.reason, 500))
    question.delete()
    return question.kind in WAITERS


def due(
    *, workers: Collection[UUID], now: datetime, without: Collection[int] = (), besides: Collection[int] = ()
) -> list[tuple[UUID, Answer]]:
    """Answers that were not sent yet, for these workers; they count as sent from here on.

    ``without`` and ``besides`` as in ``reach``.
    """
    mine = within(workers, without, besides, worker="attempt__worker", fence="attempt")
    rows = Question.objects.filter(mine, answer__isnull=False, sent_at=None)
    found = list(rows.select_related("attempt").order_by("pk"))
    Question.objects.filter(pk__in=[row.pk for row in found]).update(sent_at=now)
    return [
        (row.attempt.worker_id, Answer(row.attempt_id, row.number, _readable(row.answer or {})))
        for row in found
        if row.attempt.worker_id is not None
    ]


def _readable(answer: Body) -> Body:
    return {"error": f"the answer cannot be read: {sealing.NO_KEY}"} if sealing.unreadable(answer) else answer


def send_again(*, worker: UUID) -> None:
    """The worker is back: what it was sent before may not have arrived."""
    Question.objects.filter(attempt__worker=worker, answer__isnull=False).update(sent_at=None)


def forget(*, run: Run, now: datetime) -> None:
    """The run has ended: nothing of it is waited for or held any more."""
    gone, _ = Question.objects.filter(attempt__run=run).delete()
    if gone:
        limits.settle(now=now)


def waiting(fences: Iterable[int | None]) -> dict[int, str]:
    """What the code of these attempts waits for, in a sentence each, as far as it waits for a limit."""
    wanted = [fence for fence in fences if fence is not None]
    if not wanted:
        return {}
    rows = list(limits.waiting().filter(attempt__in=wanted).reverse()[:MOST_TOLD])
    names = {name for row in rows for name in row.body["names"]}
    known = {limit.name: limit for limit in limits.limits().filter(name__in=names)} if rows else {}
    return {row.attempt_id: limits.waits_for(row, known) for row in rows}


# ----------------------------------------------------------------------------------------------------------- pauses


def open_pause(run: Run) -> Question | None:
    """The pause of the run that waits the longest."""
    return None if run.fence is None or run.state in FINAL else _open_pauses(run).order_by("pk").first()


def _open_pauses(run: Run) -> QuerySet[Question]:
    return Question.objects.filter(attempt=run.fence, kind=PAUSE, answer__isnull=True)


def state_of_held(run: Run) -> RunState:
    """What a run is whose worker is back: it runs, or still waits for a person."""
    waits = is_held(run) or open_pause(run) is not None
    return RunState.PAUSED if waits else RunState.RUNNING


def is_held(run: Run) -> bool:
    """Whether a person has it stand still."""
    return Attempt.objects.filter(pk=run.fence or 0, hold=True).exists()


def ends_at(question: Question) -> datetime | None:
    """When the code waits no more, by its own word."""
    timeout = question.body.get("timeout")
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 <= timeout < 10**9:
        return None
    return question.asked_at + timedelta(seconds=timeout)


def form_of(question: Question, run: Run) -> Flow:
    """The form of a pause, as what forms are made of: a flow with these parameters, that is in no table."""
    return Flow(name=run.flow.name, slug=run.flow.slug, parameters=question.body["schema"], configurations={})


def fill_in(run: Run, given: Mapping[str, Any] | None, *, now: datetime, who: str, why: str) -> bool:
    """Answer the run's open pause; False if it has none. Raises ``Refused`` for input that does not fit its form."""
    question = open_pause(run)
    if question is None:
        return False
    answer = {"input": clean(form_of(question, run), given, "")}
    _go_on(run, now, who=who, why=why)
    question.answer = answer
    question.save(update_fields=["answer"])
    events.publish(events.ANSWERS, events.run_topic(run.pk))
    return True


def _go_on(run: Run, now: datetime, *, who: str, why: str) -> None:
    """The run goes on, unless another pause of it still waits."""
    if run.state == RunState.PAUSED and _open_pauses(run).count() <= 1:
        run.move(RunState.RUNNING, now=now, who=who, why=why)
        events.publish(events.OVERVIEW, events.run_topic(run.pk))


# ------------------------------------------------------------------------------------------------ kinds of questions


def _answering(kind: str) -> Answering:
    if kind not in _KINDS:
        raise Refused("kind", f"this server knows no question {kind[:40]!r}: it is older than the worker")
    return _KINDS[kind]


def _wait_for_slots(run: Run, question: Question, now: datetime) -> Body | None:
    """In the row, for ``sharing.settle``, if there is any such limit."""
    return None if limits.check_wanted(question.body) else {}


def _get_variable(run: Run, question: Question, now: datetime) -> Body:
    row = Variable.objects.filter(name=limits.variable_name(question.body.get("name"))).first()
    if row is not None and sealing.unreadable(row.value):
        raise Refused("name", f"variable {row.name!r} cannot be read: {sealing.NO_KEY}")
    return {"value": row.value} if row is not None else {}


def _set_variable(run: Run, question: Question, now: datetime) -> Body:
    body, question.body = question.body, {"name": question.body.get("name")}
    limits.set_variable(
        name=body.get("name"),
        value=body.get("value"),
        tags=body.get("tags") or [],
        now=now,
        who=_called(run),
        overwrite=bool(body.get("overwrite")),
    )
    return {}


def _unset_variable(run: Run, question: Question, now: datetime) -> Body:
    gone, _ = Variable.objects.filter(name=limits.variable_name(question.body.get("name"))).delete()
    return {"unset": bool(gone)}


def _pause(run: Run, question: Question, now: datetime) -> None:
    """The run waits for a person."""
    body = question.body
    if not isinstance(body.get("schema"), dict):
        raise Refused("schema", "a pause needs the schema of its form")
    if run.state == RunState.RUNNING:
        told = clean_text(body.get("description") or body.get("key") or "", 500)
        why = f"waits for a person{': ' if told else ''}{told}"
        run.move(RunState.PAUSED, now=now, who="worker", why=why, paused_at=now)
        events.publish(events.OVERVIEW)


def _let_go_on(run: Run, question: Question, now: datetime) -> Body:
    wanted = str(question.body.get("run"))
    try:
        other = Run.objects.select_related("flow").filter(pk=UUID(wanted)).first()
    except ValueError:
        other = None
    if other is None:
        raise Refused("run", f"there is no run {wanted[:80]!r}")
    given, who = question.body.get("input"), _called(run)
    question.body = {"run": str(other.pk)}
    if not fill_in(other, given, now=now, who=who, why=f"let go on by {who}"):
        return {"not_paused": f"run {other.pk} is not paused; it is {other.seen_state}"}
    return {}


def _called(run: Run) -> str:
    return f"run {run.short_id} of {run.flow.name}"


_KINDS: dict[str, Answering] = {
    "concurrency": _wait_for_slots,
    "rate_limit": _wait_for_slots,
    "variable.get": _get_variable,
    "variable.set": _set_variable,
    "variable.unset": _unset_variable,
    "pause": _pause,
    "resume": _let_go_on,
}
