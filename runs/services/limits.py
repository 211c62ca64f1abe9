"""What runs share: limits, which hold them back, and variables, which they read and set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet, Sum
from perfect_client.wire import messages
from perfect_client.wire.messages import MAX_LIMITS_AT_ONCE, MAX_SLOTS, MAX_VARIABLE_BYTES, clean_text

from flows.parameters import Conflict, Missing, Refused, nearest
from runs import events
from runs.models import Holding, Limit, Question, Variable

CONCURRENCY, RATE = "concurrency", "rate_limit"
WAITERS = (CONCURRENCY, RATE)
MOST_LIMITS = 1_000
MOST_VARIABLES = 10_000
LEAST_RATE, MOST_RATE = 1e-6, 1e9  # slots a second: one in twelve days; more than a server could count
CLOCK_SET_BACK = timedelta(minutes=1)  # by less than this two servers' clocks may differ

_NEVER = datetime.max.replace(tzinfo=UTC)  # only when somebody gives back


# ----------------------------------------------------------------------------------------------------------- limits


def settle(*, now: datetime, by_clock: bool = False) -> datetime | None:
    """Grant what can be granted, in the order in which it was asked for; when a rate lets the next one pass, if any.

    Who waits for several limits keeps all of them from those behind it, so that nobody is overtaken for ever. To be
    called whenever slots came free, a limit changed, or time went on: by the clock, which comes back in time by
    itself, and is told by whoever else finds that something waits.
    """
    questions = list(waiting())
    if not questions:
        return None
    limits = _Limits(now)
    soonest: datetime | None = None
    answered = False
    for question in questions:
        try:
            again = limits.grant(question)
        except Refused as refused:
            question.answer = {"error": refused.sentence}
        else:
            if again is not None:
                soonest = min(soonest or again, again)
                continue
            question.answer = {}
        question.save(update_fields=["answer"])
        answered = True
    if answered:
        events.publish(events.ANSWERS)
    if soonest is None or soonest == _NEVER:
        return None
    if not by_clock:
        events.publish(events.RATES)
    return soonest


def waiting() -> QuerySet[Question]:
    """The questions that wait for limits, in the order in which they were asked."""
    return Question.objects.filter(kind__in=WAITERS, answer__isnull=True).order_by("pk")


class _Limits:
    """The limits as they stand while questions are settled."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        rows = Limit.objects.select_for_update()  # on PostgreSQL another server may settle at the same time
        self._all = {limit.name: limit for limit in rows}
        for limit in rows:
            if limit.level_at is not None and limit.level_at > now + CLOCK_SET_BACK:
                limit.level_at = now  # else nothing would come back before the clock is there again
                limit.save(update_fields=["level_at"])
        self._held: dict[int, int] = dict(Holding.objects.order_by().values_list("limit").annotate(Sum("slots")))
        self._blocked: set[str] = set()

    def grant(self, question: Question) -> datetime | None:
        """None: granted. Else when it may be. Raises ``Refused`` for what can never be."""
        slots, by_rate = question.body["occupy"], question.kind == RATE
        wanted = [self._all[name] for name in question.body["names"] if name in self._all]
        for limit in wanted:
            _refuse_impossible(question, limit)
        waits = [self._rate_wait(limit, slots) if by_rate else self._wait(limit, slots) for limit in wanted]
        if any(waits) or any(limit.name in self._blocked for limit in wanted):
            self._blocked.update(limit.name for limit in wanted)
            return max((at for at in waits if at), default=_NEVER)
        for limit in wanted:
            self._take(limit, question, slots)
        return None

    def _take(self, limit: Limit, question: Question, slots: int) -> None:
        if question.kind == RATE:
            limit.level, limit.level_at = limit.taken_by_rate(self.now) + slots, self.now
            limit.save(update_fields=["level", "level_at"])
        else:
            self._held[limit.pk] = self._held.get(limit.pk, 0) + slots
            Holding.objects.create(limit=limit, question=question, slots=slots, since=self.now)

    def _wait(self, limit: Limit, slots: int) -> datetime | None:
        return _NEVER if self._held.get(limit.pk, 0) + slots > limit.slots else None

    def _rate_wait(self, limit: Limit, slots: int) -> datetime | None:
        over = limit.taken_by_rate(self.now) + slots - limit.slots
        if over <= 1e-9:
            return None
        return self.now + timedelta(seconds=over / limit.per_second) if limit.per_second and limit.slots else _NEVER


def _refuse_impossible(question: Question, limit: Limit) -> None:
    slots = question.body["occupy"]
    if 0 < limit.slots < slots:
        sentence = f"the limit {limit.name!r} has {limit.slots} slots; {slots} of them can never be had"
        raise Refused("occupy", sentence)
    if question.kind == RATE and limit.per_second is None:
        sentence = f"the limit {limit.name!r} has no rate at which slots come back: use concurrency({limit.name!r})"
        raise Refused("names", sentence)


def check_wanted(body: Mapping[str, Any]) -> bool:
    """Whether there is a limit of one of these names. Raises ``Refused`` for a question that makes no sense."""
    names, occupy = body.get("names"), body.get("occupy")
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= MAX_LIMITS_AT_ONCE
        or not all(isinstance(n, str) for n in names)
    ):
        raise Refused("names", f"names of limits must be a list of 1 to {MAX_LIMITS_AT_ONCE} strings")
    if type(occupy) is not int or not 1 <= occupy <= MAX_SLOTS:
        raise Refused("occupy", f"occupy must be a whole number of slots from 1 to {MAX_SLOTS:,}")
    known = set(Limit.objects.filter(name__in=names).values_list("name", flat=True))
    missing = [name for name in names if name not in known]
    if missing and body.get("strict"):
        raise Refused("names", f"there is no limit {missing[0][:200]!r}; make it in the console, under Limits")
    return bool(known)


def waits_for(question: Question, known: Mapping[str, Limit]) -> str:
    """What a question for limits waits for, as the end of a sentence. ``known`` are ``limits`` by their names."""
    told = [
        f"{name} ({held_of(known[name])} of {known[name].slots} taken)" if question.kind == CONCURRENCY else name
        for name in sorted(question.body["names"])
        if name in known
    ]
    return "waits for the limit " + ", ".join(told) if told else ""


def limits() -> QuerySet[Limit]:
    """All limits, each with what ``held_of`` tells."""
    return Limit.objects.annotate(held=Sum("holdings__slots"))


def held_of(limit: Limit) -> int:
    """How many slots of a limit that was read by ``limits`` are held."""
    return limit.held or 0  # type: ignore[attr-defined,no-any-return]


def find_limit(name: str) -> Limit:
    row = limits().filter(name=name).first()
    if row is None:
        known = Limit.objects.values_list("name", flat=True)[:MOST_LIMITS]
        raise Missing("limit", f"There is no limit {name[:200]!r}.{nearest(name, known)}")
    return row


def checked_rate(per_second: float | None) -> float | None:
    """The rate, if slots can come back at it; None is no rate. Raises ``Refused``."""
    if per_second is not None and not LEAST_RATE <= per_second <= MOST_RATE:
        raise Refused("per_second", f"per_second must be a number from {LEAST_RATE:f} to {MOST_RATE:,.0f}")
    return per_second


def create_limit(*, name: str, slots: int, per_second: float | None, now: datetime) -> Limit:
    """Raises ``Conflict`` if there is one of that name."""
    if name != clean_text(name, 800):
        raise Refused("name", "a limit's name must be a string without control characters")
    if Limit.objects.count() >= MOST_LIMITS:
        raise Conflict("limits", f"there are {MOST_LIMITS:,} limits already")
    try:
        with transaction.atomic():
            Limit.objects.create(name=name, slots=slots, per_second=checked_rate(per_second))
    except IntegrityError:
        raise Conflict("name", f"there is a limit {name!r} already") from None
    return find_limit(name)


def change_limit(*, name: str, values: Mapping[str, Any], now: datetime) -> Limit:
    """Whoever waits may pass at once; who holds slots keeps them, also beyond a smaller number."""
    row = find_limit(name)
    checked_rate(values.get("per_second"))
    Limit.objects.filter(pk=row.pk).update(
        **{key: value for key, value in values.items() if key != "slots" or value is not None}
    )
    settle(now=now)
    return find_limit(name)


def remove_limit(*, name: str, now: datetime) -> None:
    """What waited for it goes on, unlimited."""
    find_limit(name).delete()
    settle(now=now)


# -------------------------------------------------------------------------------------------------------- variables


def variable_name(name: Any) -> str:
    """The name, if it is one."""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or name != clean_text(name, 800):
        raise Refused("name", "a variable's name must be a string of 1 to 200 characters")
    return name


def find_variable(name: str) -> Variable:
    row = Variable.objects.filter(name=name).first()
    if row is None:
        known = Variable.objects.values_list("name", flat=True)[:MOST_VARIABLES]
        raise Missing("variable", f"There is no variable {name[:200]!r}.{nearest(name, known)}")
    return row


def set_variable(
    *, name: str, value: Any, tags: Sequence[Any] = (), now: datetime, who: str, overwrite: bool = True
) -> Variable:
    """Keep a value under a name. Raises ``Refused``."""
    known = Variable.objects.filter(name=variable_name(name)).exists()
    if known and not overwrite:
        raise Conflict("name", f"Variable {name!r} is set already; overwrite=True replaces it.")
    if not known and Variable.objects.count() >= MOST_VARIABLES:
        raise Conflict("variables", f"there are {MOST_VARIABLES:,} variables already")
    defaults = {
        "value": checked_value(name, value),
        "changed_at": now,
        "changed_by": clean_text(who, 200),
        "tags": [clean_text(tag, 200) for tag in list(tags)[:50] if isinstance(tag, str)],
    }
    row, _ = Variable.objects.update_or_create(name=name, defaults=defaults)
    return row


def checked_value(name: str, value: Any) -> Any:
    """The value as JSON that every database keeps. Raises ``Refused``."""
    try:
        kept = messages.clean_json(value)
        size = len(messages.dumps(kept).encode("utf-8", "backslashreplace"))
    except (ValueError, RecursionError) as wrong:  # a ProtocolError is a ValueError
        raise Refused("value", f"variable {name!r} cannot hold this value: {wrong}") from None
    if size > MAX_VARIABLE_BYTES:
        raise Refused("value", f"variable {name!r} takes {size:,} bytes as JSON; {MAX_VARIABLE_BYTES:,} are allowed")
    return kept


def remove_variable(*, name: str) -> None:
    find_variable(name).delete()
