"""What running code asks is answered once, in order; what it holds ends with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.wire import messages as p

from flows.parameters import Conflict, Refused
from perfect_site.dashboard.presenters import Reader
from runs import events
from runs.clock import steps
from runs.ingest import dispatch, ledger
from runs.models import Attempt, Holding, Limit, Question, Run, Variable
from runs.rules.states import RunState
from runs.services import limits, questions, requests
from runs.services.closing import close

from .conftest import NOW, FakeWorker, seconds, tick

pytestmark = pytest.mark.django_db
FORM = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "why": {"type": "string", "default": ""}},
    "required": ["ok"],
    "additionalProperties": False,
}


class Code:
    """A running attempt's code, as the server hears it."""

    def __init__(self, worker: FakeWorker, flow) -> None:
        self.worker, self.seq, self.number = worker, 0, 0
        self.run = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
        self.order = worker.take()
        self.say(p.RunStarted(seconds(), 77))

    def say(self, *facts, now=NOW):
        self.worker.say(self.order, *facts, first=self.seq + 1, now=now)
        self.seq += len(facts)
        self.run.refresh_from_db()

    def ask(self, kind, now=NOW, heard=0, **body) -> int:
        self.number += 1
        self.say(p.Asked(seconds(), self.number, kind, body, None, heard), now=now)
        return self.number

    def slots(self, *names, occupy=1, now=NOW, strict=False, kind="concurrency") -> int:
        return self.ask(kind, now=now, names=list(names), occupy=occupy, strict=strict)

    def release(self, number, now=NOW):
        self.say(p.Released(seconds(), number), now=now)

    def answer(self, number):
        return Question.objects.get(attempt=self.order.fence, number=number).answer


@pytest.fixture
def codes(flow, worker):
    """Several runs at a time."""
    worker.slots = 50
    return lambda count: [Code(worker, flow) for _ in range(count)]


@pytest.fixture
def code(codes) -> Code:
    return codes(1)[0]


@pytest.fixture
def db_limit() -> Limit:
    return Limit.objects.create(name="db", slots=2)


# ----------------------------------------------------------------------------------------------------------- answers


def test_an_answer_goes_to_its_worker_once(code, worker):
    number = code.ask("variable.get", name="x")

    assert questions.due(workers=[worker.id], now=NOW) == [(worker.id, p.Answer(code.order.fence, number, {}))]
    assert questions.due(workers=[worker.id], now=NOW) == []


def test_a_worker_that_comes_back_gets_what_may_not_have_arrived(code, worker):
    code.ask("variable.get", name="x")
    questions.due(workers=[worker.id], now=NOW)

    worker.join(p.Held(code.order.fence, code.order.run, facts=code.seq, started=True))

    assert len(questions.due(workers=[worker.id], now=NOW)) == 1


def test_what_was_heard_is_forgotten(code, worker):
    code.ask("variable.get", name="x")
    code.ask("variable.get", name="y", heard=1)

    assert list(Question.objects.values_list("number", flat=True)) == [2]


def test_a_question_that_no_server_knows_gets_a_sentence(code):
    assert "knows no question 'dance'" in code.answer(code.ask("dance"))["error"]


def test_the_same_question_twice_is_asked_once(code, db_limit):
    code.slots("db")
    ledger.ledgers.clear()
    fact = p.Asked(seconds(), 1, "concurrency", {"names": ["db"], "occupy": 1, "strict": False})

    code.say(fact)

    assert Holding.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"names": "db", "occupy": 1},
        {"names": [], "occupy": 1},
        {"names": [1], "occupy": 1},
        {"names": ["db"], "occupy": 0},
        {"names": ["db"], "occupy": True},
        {"names": ["db"] * 21, "occupy": 1},
        {"names": ["db"], "occupy": 10**9},
    ],
)
def test_a_question_that_makes_no_sense_gets_a_sentence(code, db_limit, body):
    assert code.answer(code.ask("concurrency", **body))["error"]


# ------------------------------------------------------------------------------------------------------------ limits


def test_slots_are_held_until_they_are_given_back(codes, db_limit):
    first, second, third = codes(3)
    one, two = first.slots("db"), second.slots("db")
    three = third.slots("db")
    assert (first.answer(one), second.answer(two), third.answer(three)) == ({}, {}, None)

    first.release(one)

    assert third.answer(three) == {}


def test_a_name_without_a_limit_does_not_limit_unless_strict(code):
    assert code.answer(code.slots("nobody")) == {}
    assert "no limit 'nobody'" in code.answer(code.slots("nobody", strict=True))["error"]


def test_more_than_there_can_ever_be_is_refused(code, db_limit):
    assert "2 slots" in code.answer(code.slots("db", occupy=3))["error"]


def test_a_limit_of_nothing_lets_nobody_pass_until_it_is_raised(code):
    limits.create_limit(name="closed", slots=0, per_second=None, now=NOW)
    number = code.slots("closed", occupy=5)
    assert code.answer(number) is None

    limits.change_limit(name="closed", values={"slots": 5}, now=NOW)

    assert code.answer(number) == {}


def test_who_waits_for_much_is_not_overtaken(codes, db_limit):
    first, second, third = codes(3)
    first.slots("db")
    both = second.slots("db", occupy=2)

    late = third.slots("db")

    assert (second.answer(both), third.answer(late)) == (None, None)


def test_all_of_several_limits_or_none(codes, db_limit):
    limits.create_limit(name="api", slots=1, per_second=None, now=NOW)
    first, second, third = codes(3)
    api = first.slots("api")
    both = second.slots("db", "api")
    assert second.answer(both) is None and not Holding.objects.filter(question__number=both, limit=db_limit).exists()

    first.release(api)

    assert second.answer(both) == {}
    assert third.answer(third.slots("api")) is None


def _completed(code: Code) -> None:
    code.say(p.RunEnded(seconds(1), "COMPLETED"))


def _crashed(code: Code) -> None:
    code.say(p.ProcessExited(seconds(1), "killed", signal=9))


def _given_up(code: Code) -> None:
    run = code.run
    run.move(RunState.LOST, now=NOW, who="clock")
    requests.give_up(run_id=run.pk, now=NOW, who="ana")


def _missing(code: Code) -> None:
    code.worker.join()


def _closed(code: Code) -> None:
    close(code.run, RunState.CANCELLED, now=NOW, who="ana", why="")


@pytest.mark.parametrize("end", [_completed, _crashed, _given_up, _missing, _closed])
def test_what_a_run_holds_is_free_with_its_end_whatever_the_end(codes, db_limit, end):
    first, second = codes(2)
    first.slots("db", occupy=2)
    waiting = second.slots("db")
    if end is _missing:
        second_holds = p.Held(second.order.fence, second.order.run, facts=second.seq, started=True)
        second.worker.join(second_holds)
    else:
        end(first)

    assert second.answer(waiting) == {}
    assert not Question.objects.filter(attempt__run=first.run).exists()


def test_the_run_says_what_it_waits_for(codes, db_limit):
    first, second = codes(2)
    first.slots("db", occupy=2)

    second.slots("db")

    assert questions.waiting([second.order.fence]) == {second.order.fence: "waits for the limit db (2 of 2 taken)"}


def test_a_limit_that_goes_lets_pass_who_waited(codes, db_limit):
    first, second = codes(2)
    first.slots("db", occupy=2)
    waiting = second.slots("db")

    limits.remove_limit(name="db", now=NOW)

    assert second.answer(waiting) == {}


def test_slots_of_a_rate_come_back_with_time(code):
    limits.create_limit(name="api", slots=2, per_second=0.5, now=NOW)
    one, two, three = (code.slots("api", kind="rate_limit") for _ in range(3))
    assert (code.answer(one), code.answer(two), code.answer(three)) == ({}, {}, None)
    ticking = steps.Clock()

    assert ticking.step(NOW + timedelta(seconds=1)) == NOW + timedelta(seconds=2)
    assert code.answer(three) is None
    ticking.step(NOW + timedelta(seconds=2))

    assert code.answer(three) == {}


def test_the_clock_is_told_of_a_wait_for_a_rate_by_others_alone(code, django_capture_on_commit_callbacks):
    """Else each of its steps, and those of other clocks, would call for the next one at once."""
    limits.create_limit(name="api", slots=1, per_second=0.01, now=NOW)
    heard = []
    stop = events.subscribe(lambda topics: heard.append(events.RATES in topics))
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(2):
            code.slots("api", kind="rate_limit")
    asked = any(heard)
    heard.clear()
    with django_capture_on_commit_callbacks(execute=True):
        steps.Clock().step(NOW)
    stop()

    assert asked and not any(heard)


def test_a_limit_without_a_rate_is_no_rate_limit(code, db_limit):
    assert "use concurrency('db')" in code.answer(code.slots("db", kind="rate_limit"))["error"]


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 3)), min_size=1, max_size=20))
def test_a_rate_never_lets_more_pass_than_its_slots_and_its_time(asks):
    """In any stretch of time at most ``slots + per_second × seconds`` are granted (token bucket)."""
    limit = Limit(name="api", slots=3, per_second=2.0)
    now, granted = NOW, []
    for slots, pause in asks:
        now += timedelta(seconds=pause)
        if limit.taken_by_rate(now) + slots <= limit.slots:
            limit.level, limit.level_at = limit.taken_by_rate(now) + slots, now
            granted.append((now, slots))
    for index, (start, _) in enumerate(granted):
        for end, _ in granted[index:]:
            total = sum(slots for at, slots in granted if start <= at <= end)
            assert total <= 3 + 2.0 * (end - start).total_seconds() + 1e-6


# --------------------------------------------------------------------------------------------------------- variables


def test_a_variable_is_set_read_and_unset(code):
    assert code.answer(code.ask("variable.get", name="x")) == {}
    assert code.answer(code.ask("variable.set", name="x", value={"a": [1, None]}, tags=["t"], overwrite=False)) == {}
    assert code.answer(code.ask("variable.get", name="x")) == {"value": {"a": [1, None]}}
    assert "set already" in code.answer(code.ask("variable.set", name="x", value=2, overwrite=False))["error"]
    assert code.answer(code.ask("variable.set", name="x", value=None, overwrite=True)) == {}
    assert code.answer(code.ask("variable.get", name="x")) == {"value": None}
    assert code.answer(code.ask("variable.unset", name="x")) == {"unset": True}
    assert code.answer(code.ask("variable.unset", name="x")) == {"unset": False}


def test_a_variable_tells_who_changed_it(code):
    code.ask("variable.set", name="x", value=1, overwrite=False)

    assert Variable.objects.get(name="x").changed_by == f"run {code.run.short_id} of Daily Sales ETL"


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "a" * 201}, {"name": 5}, {"name": "x", "value": "y" * 70_000}]
)
def test_a_variable_that_cannot_be_is_refused(code, body):
    assert code.answer(code.ask("variable.set", **{"value": 1, "overwrite": True, **body}))["error"]
    assert not Variable.objects.exists()


# ------------------------------------------------------------------------------------------------------------ pauses


def test_a_pause_waits_for_a_person_who_fills_in_its_form(code, worker):
    number = code.ask("pause", schema=FORM, description="Ship it?", key="ship", timeout=60)
    assert (code.run.state, code.run.state_reason) == ("PAUSED", "waits for a person: Ship it?")

    requests.go_on(run_id=code.run.pk, given={"ok": "true"}, now=NOW, who="ana")

    code.run.refresh_from_db()
    assert (code.run.state, code.run.state_reason) == ("RUNNING", "let go on by ana")
    assert questions.due(workers=[worker.id], now=NOW)[-1][1] == p.Answer(
        code.order.fence, number, {"input": {"ok": True}}
    )
    code.say(p.RunEnded(seconds(1), "COMPLETED"))
    assert code.run.state == "COMPLETED"


def test_input_that_does_not_fit_is_refused_and_the_run_waits_on(code):
    code.ask("pause", schema=FORM)

    for given_, field in (({}, "ok"), ({"ok": "perhaps"}, "ok"), ({"ok": True, "x": 1}, "x")):
        with pytest.raises(Refused) as refused:
            requests.go_on(run_id=code.run.pk, given=given_, now=NOW, who="ana")
        assert refused.value.field == field

    code.run.refresh_from_db()
    assert code.run.state == "PAUSED"


def test_a_run_that_does_not_wait_cannot_go_on(code):
    with pytest.raises(Conflict, match="RUNNING and waits for nobody"):
        requests.go_on(run_id=code.run.pk, given=None, now=NOW, who="ana")


def test_the_second_of_two_pauses_keeps_the_run_paused(code):
    code.ask("pause", schema=FORM)
    code.ask("pause", schema=FORM)

    requests.go_on(run_id=code.run.pk, given={"ok": True}, now=NOW, who="ana")
    code.run.refresh_from_db()
    assert code.run.state == "PAUSED"
    requests.go_on(run_id=code.run.pk, given={"ok": False}, now=NOW, who="ana")

    code.run.refresh_from_db()
    assert code.run.state == "RUNNING"
    assert [code.answer(n)["input"]["ok"] for n in (1, 2)] == [True, False]


def test_a_pause_after_a_pause_pauses_again(code):
    for _ in range(2):
        code.ask("pause", schema=FORM)
        assert code.run.state == "PAUSED"
        requests.go_on(run_id=code.run.pk, given={"ok": True}, now=NOW, who="ana")


def test_code_that_waits_no_more_runs_again(code):
    number = code.ask("pause", schema=FORM)

    code.say(p.Released(seconds(5), number, "there was no answer in time"))

    assert (code.run.state, code.run.state_reason) == ("RUNNING", "there was no answer in time")


def test_a_paused_run_whose_worker_is_silent_is_lost_and_comes_back_paused(code, worker):
    code.ask("pause", schema=FORM)
    tick(steps.Clock(), NOW, NOW + timedelta(seconds=90))
    code.run.refresh_from_db()
    assert code.run.state == "LOST"

    worker.join(p.Held(code.order.fence, code.order.run, facts=code.seq, started=True), now=NOW + timedelta(seconds=91))

    code.run.refresh_from_db()
    assert code.run.state == "PAUSED"


def test_a_run_can_let_another_one_go_on(codes):
    first, second = codes(2)
    number = first.ask("pause", schema=FORM)

    assert second.answer(second.ask("resume", run=str(first.run.pk), input={"ok": True})) == {}

    assert first.answer(number) == {"input": {"ok": True}}
    again = second.answer(second.ask("resume", run=str(first.run.pk), input={}))
    assert "is not paused" in again["not_paused"]
    assert "no run" in second.answer(second.ask("resume", run="nonsense"))["error"]


# --------------------------------------------------------------------------------------------------- paused by a person


def test_a_running_run_is_paused_and_goes_on(code, worker):
    requests.pause(run_id=code.run.pk, now=NOW, who="ana")
    code.run.refresh_from_db()
    assert (code.run.state, code.run.state_reason) == ("PAUSED", "paused by ana")
    assert dispatch.holds(workers=[worker.id]) == [(worker.id, p.HoldRun(code.order.fence))]
    assert dispatch.holds(workers=[worker.id]) == []

    requests.go_on(run_id=code.run.pk, given=None, now=NOW, who="bo")

    code.run.refresh_from_db()
    assert (code.run.state, code.run.state_reason) == ("RUNNING", "let go on by bo")
    assert dispatch.holds(workers=[worker.id]) == [(worker.id, p.HoldRun(code.order.fence, False))]


@pytest.mark.parametrize("on", [True, False])
def test_a_worker_that_comes_back_hears_again_who_is_to_stand_still(code, worker, on):
    requests.pause(run_id=code.run.pk, now=NOW, who="ana")
    dispatch.holds(workers=[worker.id])
    if not on:
        requests.go_on(run_id=code.run.pk, given=None, now=NOW, who="ana")
        dispatch.holds(workers=[worker.id])

    worker.join(p.Held(code.order.fence, code.order.run, facts=code.seq, started=True))

    assert dispatch.holds(workers=[worker.id]) == [(worker.id, p.HoldRun(code.order.fence, on))]


def test_the_bar_of_a_paused_run_stands(code):
    code.say(p.TaskStarted(seconds(0), 1, "extract"))
    requests.pause(run_id=code.run.pk, now=NOW + timedelta(seconds=0.5), who="ana")
    code.run.refresh_from_db()

    shown = [
        (run.percent, run.tasks[0].share, run.segments[0].filled)
        for run in (Reader(NOW + timedelta(seconds=at)).shown([code.run])[0] for at in (1, 100))
    ]

    assert shown[0] == shown[1] and shown[0][0] > 0


def test_a_run_that_nobody_paused_is_never_told(code, worker):
    worker.join(p.Held(code.order.fence, code.order.run, facts=code.seq, started=True))

    assert dispatch.holds(workers=[worker.id]) == []


def test_only_a_running_run_can_be_paused(code):
    requests.pause(run_id=code.run.pk, now=NOW, who="ana")
    with pytest.raises(Conflict, match="this one is PAUSED"):
        requests.pause(run_id=code.run.pk, now=NOW, who="ana")
    requests.go_on(run_id=code.run.pk, given=None, now=NOW, who="ana")
    requests.cancel(run_id=code.run.pk, now=NOW, who="ana")
    with pytest.raises(Conflict, match="to be cancelled"):
        requests.pause(run_id=code.run.pk, now=NOW, who="ana")


def test_a_paused_run_that_was_lost_comes_back_paused(code, worker):
    requests.pause(run_id=code.run.pk, now=NOW, who="ana")
    code.run.refresh_from_db()
    code.run.move(RunState.LOST, now=NOW, who="clock")

    worker.join(p.Held(code.order.fence, code.order.run, facts=code.seq, started=True))

    code.run.refresh_from_db()
    assert code.run.state == "PAUSED"


def test_a_question_goes_with_its_run(code):
    code.ask("pause", schema=FORM)

    Run.objects.filter(pk=code.run.pk).delete()

    assert not Question.objects.exists() and not Attempt.objects.exists()
