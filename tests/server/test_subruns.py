"""A flow called inside a run is a run of its own: it belongs to the attempt of the run around it, and ends with it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test import TestCase
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire import messages as p

from flows.models import Flow
from flows.parameters import Conflict
from perfect_site.api import pagination, serializers
from perfect_site.dashboard import overview
from runs.clock.steps import Clock
from runs.ingest import dispatch, ledger, reports
from runs.models import Event, LogLine, Quarantine, Run, TaskRun, uuid7
from runs.rules.states import FINAL, HELD, RunState
from runs.services import closing, history, queries, requests, subruns
from runs.services.announcements import announce
from runs.services.retention import prune

from .conftest import NOW, SPEC, FakeWorker, seconds, tick

pytestmark = pytest.mark.django_db

CHILD = p.FlowSpec(
    "Child",
    parameters={"type": "object", "properties": {"day": {"type": "string"}, "key": {"writeOnly": True}}},
    tasks=[p.TaskSpec("fetch", "fetch", weight=1), p.TaskSpec("store", "store", weight=1)],
)


class Kept(FakeWorker):
    """What follows a commit happens here too: the open book goes back to its shelf."""

    def say(self, *args: Any, **options: Any) -> object:
        with TestCase.captureOnCommitCallbacks(execute=True):
            return super().say(*args, **options)


@pytest.fixture
def worker(db: None) -> FakeWorker:
    worker = Kept(SPEC, CHILD)
    worker.join()
    return worker


def calls(
    number: int,
    pk: object,
    *inside: object,
    flow: str = "Child",
    parent: int | None = None,
    call: int = 0,
    at: float = 0.0,
    ends: str = "COMPLETED",
    error: str = "",
    **more: Any,
) -> list[object]:
    """A sub-flow as the SDK tells it; ``ends`` is empty for one that goes on."""
    end = [p.TaskEnded(seconds(at + 2), number, ends, error, "Traceback…" if error else "", "'done'")] if ends else []
    return [
        p.TaskStarted(seconds(at), number, "child", flow, call, parent, kind="flow"),
        p.SubRunStarted(seconds(at), str(pk), number, flow, **more),
        *inside,
        *end,
    ]


def task(number: int, key: str, parent: int, call: int = 0, at: float = 0.0, ends: str = "COMPLETED") -> list[object]:
    end = [p.TaskEnded(seconds(at + 1), number, ends)] if ends else []
    return [p.TaskStarted(seconds(at), number, key, key, call, parent), *end]


BEGIN, END = p.RunStarted(seconds(), pid=7), p.RunEnded(seconds(9), "COMPLETED")


def test_a_sub_flow_has_a_run_with_its_own_tasks_state_and_result(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(
        order,
        BEGIN,
        *calls(1, pk, *task(2, "fetch", 1), *task(3, "store", 1), parameters={"day": "2026-01-31"}, tags=["nightly"]),
        END,
    )

    sub = Run.objects.get(pk=pk)
    assert (sub.parent_id, sub.root_id, sub.flow.name, sub.trigger) == (run.pk, run.pk, "Child", "flow")
    assert (sub.state, sub.progress, sub.result, sub.parameters) == ("COMPLETED", 100, "'done'", {"day": "2026-01-31"})
    assert (sub.tags, sub.attempt, sub.fence, sub.worker_id) == (["nightly"], 1, None, None)
    assert (sub.started_at, sub.finished_at) == (NOW, NOW + timedelta(seconds=2))
    assert list(sub.task_runs.values_list("key", "state", "number", "parent")) == [
        ("fetch", "COMPLETED", 2, None),
        ("store", "COMPLETED", 3, None),
    ]
    assert [(e.before, e.after, e.why) for e in sub.events.all()] == [
        ("", "RUNNING", f"called by run {run.pk}"),
        ("RUNNING", "COMPLETED", ""),
    ]
    called = run.task_runs.get(number=1)
    assert (called.key, called.subrun, called.state) == ("child", pk, "COMPLETED")
    assert not run.task_runs.filter(number__gt=1).exists()


def test_calls_of_the_same_task_in_several_sub_runs_are_each_runs_first(worker, run):
    order, pks = worker.take(), [uuid7() for _ in range(3)]
    facts: list[object] = [BEGIN]
    for index, pk in enumerate(pks):
        number = 1 + 2 * index
        facts += calls(number, pk, *task(number + 1, "fetch", number, call=index), call=index)

    worker.say(order, *facts, END)

    assert not Quarantine.objects.exists()
    assert [(r.run_id, r.call) for r in TaskRun.objects.filter(key="fetch").order_by("pk")] == [(pk, 0) for pk in pks]


def test_sub_runs_in_sub_runs_know_who_called_them_and_whose_they_are(worker, run):
    order, outer, inner = worker.take(), uuid7(), uuid7()

    worker.say(order, BEGIN, *calls(1, outer, *calls(2, inner, *task(3, "fetch", 2), parent=1, call=1)), END)

    assert Run.objects.get(pk=inner).parent_id == outer
    assert Run.objects.get(pk=inner).root_id == run.pk
    assert Run.objects.get(pk=outer).task_runs.get(number=2).subrun == inner
    assert TaskRun.objects.get(number=3).run_id == inner


def test_a_sub_flow_that_fails_is_failed_with_its_error_while_its_caller_goes_on(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(order, BEGIN, *calls(1, pk, *task(2, "fetch", 1, ends=""), ends="FAILED", error="ValueError: no"))

    sub, run = Run.objects.get(pk=pk), Run.objects.get(pk=run.pk)
    assert (sub.state, sub.error, sub.traceback, sub.state_reason) == (
        "FAILED",
        "ValueError: no",
        "Traceback…",
        "ValueError: no",
    )
    assert sub.task_runs.get(key="fetch").state == "FAILED"
    assert run.state == "RUNNING"


def test_its_progress_is_the_share_of_its_call_and_counts_in_its_caller(worker, run):
    order, pk = worker.take(), uuid7()
    facts = [BEGIN, p.TaskStarted(seconds(0), 9, "extract", "extract"), p.TaskEnded(seconds(1), 9, "COMPLETED")]

    worker.say(order, *facts, *calls(1, pk, *task(2, "fetch", 1), ends=""))

    sub, run = Run.objects.get(pk=pk), Run.objects.get(pk=run.pk)
    assert sub.progress == pytest.approx(50)
    assert run.task_runs.get(number=1).share == pytest.approx(0.5)
    # extract (1) is done, load (3) is to come, the call (1) is half done
    assert run.progress == pytest.approx(100 * 1.5 / 5)


def test_between_reports_the_call_moves_as_its_run_does(worker, run):
    order, outer, inner = worker.take(), uuid7(), uuid7()
    worker.say(
        order, BEGIN, *calls(1, outer, *calls(2, inner, *task(3, "fetch", 2, ends=""), parent=1, ends=""), ends="")
    )
    run.refresh_from_db()

    rows = subruns.rows_with_live_subruns(run, queries.task_runs_of(run), NOW + timedelta(seconds=1))

    # fetch (1 of 2 units of inner) is half done by its usual second; inner is 1 of 3 of outer
    share = next(row.share for row in rows if row.subrun == outer)
    assert share == pytest.approx(0.25 / 3)


def test_a_sub_flow_without_tasks_moves_by_its_learned_time(worker, run):
    order, pk = worker.take(), uuid7()
    worker.say(order, BEGIN, *calls(1, pk, flow="Made Here", ends=""))
    run.refresh_from_db()

    (row,) = [row for row in subruns.rows_with_live_subruns(run, queries.task_runs_of(run), NOW) if row.subrun]

    assert row.share is None


def test_a_sub_flow_whose_tasks_have_not_begun_has_done_nothing(worker, run):
    order, pk = worker.take(), uuid7()
    quick = [p.TaskStarted(seconds(0), 9, "extract"), p.TaskEnded(seconds(0.001), 9, "COMPLETED")]
    worker.say(order, BEGIN, *quick, *calls(1, pk, *task(2, "fetch", 1, ends=""), ends=""))
    worker.say(order, p.Logged(seconds(1), "x"), p.TaskProgressed(seconds(1), 2, 0.0), first=7)
    run.refresh_from_db()

    (row,) = [row for row in subruns.rows_with_live_subruns(run, queries.task_runs_of(run), NOW) if row.subrun]

    assert row.share == 0
    assert run.progress == pytest.approx(100 / 5)


def test_what_its_own_body_reports_is_its_progress(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(order, BEGIN, *calls(1, pk, p.TaskProgressed(seconds(1), 1, 0.4, "on its way"), flow="Bare", ends=""))

    assert Run.objects.get(pk=pk).progress == pytest.approx(40)


def test_lines_stay_in_the_log_of_the_outermost_run_and_are_marked(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(
        order,
        BEGIN,
        p.Logged(seconds(0), "before"),
        *calls(
            1,
            pk,
            p.Logged(seconds(0), "in its body", 40, task=1),
            *task(2, "fetch", 1, ends=""),
            p.Logged(seconds(0), "in its task", task=2),
        ),
        p.Logged(seconds(3), "after"),
    )

    run, sub = Run.objects.get(pk=run.pk), Run.objects.get(pk=pk)
    told = [(line["seq"], line["task"], line["message"]) for line in pagination.log_lines(run)[0]]
    assert told == [(1, None, "before"), (2, "Child", "in its body"), (3, "fetch", "in its task"), (4, None, "after")]
    assert [line["message"] for line in pagination.log_lines(sub)[0]] == ["in its body", "in its task"]
    assert (run.log_count, run.error_count, sub.log_count, sub.error_count) == (4, 1, 2, 1)


def test_a_flow_that_no_worker_announced_is_kept_out_of_the_library(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(order, BEGIN, *calls(1, pk, flow="Daily Sales  ETL"), END)

    made = Run.objects.get(pk=pk).flow
    assert made.archived
    assert made.slug.startswith("daily-sales-etl-")
    flows, problems = announce(specs=[p.FlowSpec("Daily Sales  ETL 2")], now=NOW)
    assert not problems and flows


def test_once_announced_it_has_its_own_address(worker, run):
    order = worker.take()
    worker.say(order, BEGIN, *calls(1, uuid7(), flow="Made Here"), END)

    announce(specs=[p.FlowSpec("Made Here")], now=NOW)

    assert [(f.slug, f.archived) for f in Flow.objects.filter(name="Made Here")] == [("made-here", False)]


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"run": "no id"}, "badly formed"),
        ({"run": str(uuid.uuid4())}, "must be a UUIDv7"),
        ({"task": 5}, "has not started"),
        ({"flow": " "}, "must have a name"),
        ({"parameters": {"x": "y" * 300_000}}, "more than 262,144 bytes"),
    ],
)
def test_a_fact_that_makes_no_sense_is_set_aside_and_the_call_counts_as_before(worker, run, wrong, because):
    order = worker.take()
    begin = {**p.SubRunStarted(seconds(0), str(uuid7()), 1, "Child").__dict__, **wrong}

    worker.say(
        order,
        BEGIN,
        p.TaskStarted(seconds(0), 1, "child", "Child", kind="flow"),
        {"type": "SubRunStarted", **begin},
        *task(2, "fetch", 1),
        p.TaskEnded(seconds(2), 1, "COMPLETED"),
        END,
    )

    (aside,) = Quarantine.objects.all()
    assert because in aside.reason
    assert Run.objects.get(pk=run.pk).state == "COMPLETED"
    assert run.task_runs.get(number=2).parent == 1


def test_an_id_that_is_taken_is_refused(worker, run):
    order, pk = worker.take(), uuid7()

    worker.say(order, BEGIN, *calls(1, pk), *calls(2, pk, call=1), *calls(3, run.pk, call=2), END)

    assert [q.reason for q in Quarantine.objects.order_by("pk")] == [
        f"there is a run {pk} already",
        f"there is a run {run.pk} already",
    ]
    assert Run.objects.get(pk=run.pk).parent_id is None


# ------------------------------------------------------------------------------------------------- closing, all sides


def going_on(worker: FakeWorker) -> tuple[p.OfferRun, uuid.UUID, uuid.UUID]:
    """A run with a sub-run in a sub-run, and a task in that."""
    order, outer, inner = worker.take(), uuid7(), uuid7()
    inside = calls(2, inner, *task(3, "fetch", 2, ends=""), parent=1, ends="")
    worker.say(order, BEGIN, *calls(1, outer, *inside, ends=""))
    return order, outer, inner


def nothing_open(run: Run) -> bool:
    family = Run.objects.filter(pk=run.pk).with_subruns()
    return (
        not family.filter(state__in=HELD).exists()
        and not TaskRun.objects.filter(run__in=family, state__in=["RUNNING", "PENDING", "RETRYING"]).exists()
    )


@pytest.mark.parametrize("on_the_shelf", [True, False], ids=["same process", "after a restart"])
@pytest.mark.parametrize(
    ("last", "state"),
    [
        (p.RunEnded(seconds(5), "COMPLETED"), "COMPLETED"),
        (p.RunEnded(seconds(5), "FAILED", error="ValueError: x"), "FAILED"),
        (p.RunEnded(seconds(5), "CANCELLED", by_code=True), "CANCELLED"),
        (p.ProcessExited(seconds(5), "killed by signal 9", signal=9), "CRASHED"),
        (p.ProcessExited(seconds(5), "too long", timed_out=True), "FAILED"),
    ],
)
def test_whatever_ends_the_run_ends_what_it_has_called(worker, run, last, state, on_the_shelf):
    order, outer, inner = going_on(worker)
    if not on_the_shelf:
        ledger.ledgers.clear()

    worker.say(order, last, first=7)

    run.refresh_from_db()
    assert [Run.objects.get(pk=pk).state for pk in (run.pk, outer, inner)] == [state] * 3
    assert nothing_open(run)
    sub = Run.objects.get(pk=inner)
    assert sub.state_reason.startswith(f"the run around it is {state.lower()}") or state == "COMPLETED"
    assert sub.state_reason.count("around") <= 1


def test_a_sub_flow_that_ends_ends_what_it_has_called(worker, run):
    order, outer, inner = going_on(worker)

    worker.say(order, p.TaskEnded(seconds(4), 1, "FAILED", "ValueError: x"), first=7)

    assert [Run.objects.get(pk=pk).state for pk in (run.pk, outer, inner)] == ["RUNNING", "FAILED", "FAILED"]
    worker.say(order, END, first=8)
    assert nothing_open(run)
    assert not Quarantine.objects.exists()


def test_a_worker_that_comes_back_without_the_run_has_crashed_all_of_it(worker, run):
    _, outer, inner = going_on(worker)

    worker.join(now=NOW + timedelta(seconds=60))

    assert {Run.objects.get(pk=pk).state for pk in (run.pk, outer, inner)} == {"CRASHED"}
    assert nothing_open(run)


def test_a_worker_that_still_holds_the_run_keeps_all_of_it(worker, run):
    order, outer, inner = going_on(worker)

    worker.join(p.Held(order.fence, order.run, 6, started=True))

    assert {Run.objects.get(pk=pk).state for pk in (run.pk, outer, inner)} == {"RUNNING"}


def test_lost_and_back_and_at_last_crashed_is_one_for_all(worker, run):
    order, outer, inner = going_on(worker)
    clock, family = Clock(), (run.pk, outer, inner)

    tick(clock, NOW, NOW + timedelta(seconds=61))
    assert {Run.objects.get(pk=pk).state for pk in family} == {"LOST"}
    reports.beat(worker=worker.id, now=NOW + timedelta(seconds=62))
    assert {Run.objects.get(pk=pk).state for pk in family} == {"RUNNING"}
    tick(clock, NOW + timedelta(seconds=65), NOW + timedelta(seconds=200))
    worker.say(order, p.TaskEnded(seconds(201), 3, "COMPLETED"), p.TaskEnded(seconds(201), 2, "COMPLETED"), first=7)
    assert [Run.objects.get(pk=pk).state for pk in family] == ["LOST", "LOST", "COMPLETED"]
    tick(clock, NOW + timedelta(seconds=205), NOW + timedelta(seconds=600))

    assert [Run.objects.get(pk=pk).state for pk in family] == ["CRASHED", "CRASHED", "COMPLETED"]
    assert nothing_open(run)


def test_given_up_by_a_person_is_one_for_all(worker, run):
    _, outer, inner = going_on(worker)
    tick(Clock(), NOW, NOW + timedelta(seconds=61))

    requests.give_up(run_id=run.pk, now=NOW, who="ana")

    assert {Run.objects.get(pk=pk).state for pk in (run.pk, outer, inner)} == {"CRASHED"}
    assert nothing_open(run)


def test_a_sub_run_alone_can_neither_be_cancelled_nor_repeated_and_the_sentence_names_the_run(worker, run):
    _, _, inner = going_on(worker)
    for wish in (requests.cancel, requests.give_up):
        with pytest.raises(Conflict, match=f"part of run {run.pk} of Daily Sales ETL"):
            wish(run_id=inner, now=NOW, who="ana")
    requests.cancel(run_id=run.pk, now=NOW, who="ana")
    closing.close(Run.objects.select_related("flow").get(pk=run.pk), RunState.CANCELLED, now=NOW, who="x", why="")

    for wish in (requests.retry, requests.resume):
        with pytest.raises(Conflict, match=f"part of run {run.pk}"):
            wish(run_id=inner, now=NOW, who="ana", trigger="page")


# ----------------------------------------------------------------------------- no slot, no worker, no place in line


def test_it_holds_no_slot_and_waits_for_nobody(worker, run):
    going_on(worker)

    assert serializers.taken_slots() == {worker.id: 1}
    assert overview.tiles(NOW).running == overview.tiles(NOW).used == 1
    assert [shown.used for shown in overview.workers(NOW)] == [1]
    assert [shown.run.pk for shown in overview.running(NOW).runs] == [run.pk]
    assert worker.offers(free=5) == []
    assert dispatch.cancels(workers=[worker.id]) == []
    requests.cancel(run_id=run.pk, now=NOW, who="ana")
    assert len(dispatch.cancels(workers=[worker.id])) == 1


def test_retention_takes_the_called_with_their_caller_and_before_it(worker, run):
    order, _, _ = going_on(worker)
    worker.say(order, END, first=7)
    again = requests.retry(run_id=run.pk, now=NOW, who="ana", trigger="page")
    Run.objects.filter(pk=again.pk).update(resume_of=run)
    later = timezone.now() + timedelta(days=60)  # ids tell the time at which they were made

    assert prune(now=later, keep=timedelta(days=30))
    assert set(Run.objects.values_list("pk", flat=True)) == {run.pk, again.pk}
    assert not prune(now=later, keep=timedelta(days=30))
    assert set(Run.objects.values_list("pk", flat=True)) == {again.pk}

    again.refresh_from_db()
    assert (again.rerun_of_id, again.resume_of_id) == (None, None)
    connection.check_constraints()


def test_a_flow_learns_from_its_sub_runs_too(worker, run):
    order = worker.take()
    facts: list[object] = [BEGIN]
    for index in range(3):
        number = 1 + 2 * index
        facts += calls(number, uuid7(), *task(number + 1, "fetch", number, call=index), call=index)
    worker.say(order, *facts, END)

    direct = requests.trigger(flow=Flow.objects.get(name="Child"), now=NOW, trigger="page", who="ana")

    lessons = history.learn_for(direct)
    assert (lessons.runs, lessons.calls["fetch"].ms) == (3, 1000)
    again = requests.trigger(flow=run.flow, now=NOW, trigger="page", who="ana")
    assert history.learn_for(again).calls["child"].calls == 3


# --------------------------------------------------------------------------------- split anywhere, repeated, restarted


def story(outer: uuid.UUID, inner: uuid.UUID, other: uuid.UUID) -> list[object]:
    return [
        BEGIN,
        *task(1, "extract", 0),
        p.Logged(seconds(0), "a line"),
        *calls(
            2,
            outer,
            *task(3, "fetch", 2),
            p.Logged(seconds(1), "of outer", task=3),
            *calls(
                4,
                inner,
                *task(5, "fetch", 4, call=1),
                p.Logged(seconds(1), "of inner", 30, task=4),
                parent=2,
                call=1,
                ends="FAILED",
                error="ValueError: no",
            ),
            *task(6, "fetch", 2, call=2),
        ),
        p.TaskStarted(seconds(3), 7, "child", "Child", 2, kind="flow"),
        p.SubRunStarted(seconds(3), str(other), 7, "Made Here"),
        *task(8, "fetch", 7, call=3, ends=""),
        p.RunEnded(seconds(9), "CANCELLED", by_code=True),
    ]


def picture(run: Run, names: dict[uuid.UUID, str]) -> object:
    """All that is known of a run and of what it called; ids as names, progress only where it does not hang on when
    somebody looked."""
    family = Run.objects.filter(pk=run.pk).with_subruns().order_by("pk")
    return [
        (
            names[one.pk],
            names.get(one.parent_id),
            one.flow.name,
            one.state,
            one.state_reason,
            one.error,
            one.result,
            one.started_at == NOW,
            one.finished_at,
            one.log_count,
            one.warning_count,
            one.progress == 100,
            [(e.before, e.after) for e in one.events.all()],
            list(
                one.task_runs.order_by("number", "position").values_list(
                    "key", "call", "number", "parent", "state", "started_at", "finished_at", "position"
                )
            ),
            [names.get(row.subrun) for row in one.task_runs.order_by("number", "position")],
            [(line["seq"], line["task"], line["message"]) for line in pagination.log_lines(one)[0]],
        )
        for one in family
    ]


@given(cuts=st.lists(st.integers(1, 40)), repeats=st.sets(st.integers(0, 20)), restarts=st.sets(st.integers(0, 20)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_the_facts_arrive_the_rows_say_the_same(worker, run, cuts, repeats, restarts):
    history.forget()

    def told(cuts: list[int]) -> object:
        made = requests.trigger(flow=run.flow, now=NOW, trigger="page", who="ana")
        Run.objects.filter(state="PENDING").exclude(pk=made.pk).update(state="SKIPPED", finished_at=NOW)
        order = worker.take()
        assert order.run == str(made.pk)
        pks = [uuid7() for _ in range(3)]
        names = {made.pk: "run", **dict(zip(pks, ("outer", "inner", "other"), strict=True))}
        facts = story(*pks)
        edges = sorted({0, len(facts), *(cut for cut in cuts if cut < len(facts))})
        for index, (start, end) in enumerate(pairwise(edges)):
            for _ in range(1 + (index in repeats)):
                worker.say(order, *facts[start:end], first=start + 1)
            if index in restarts:
                ledger.ledgers.clear()
        found = picture(made, names)
        Run.objects.filter(state="COMPLETED").delete()  # nothing is to be learned for the next one
        return found

    assert told(cuts) == told([])
    assert not Quarantine.objects.exists()


def test_five_hundred_calls_in_a_loop_are_five_hundred_runs(worker, run):
    order, seq = worker.take(), 1
    facts: list[object] = [BEGIN]
    for index in range(500):
        number = 1 + 2 * index
        facts += calls(number, uuid7(), *task(number + 1, "fetch", number, call=index), call=index)
    facts.append(END)
    for start in range(0, len(facts), 500):
        worker.say(order, *facts[start : start + 500], first=seq)
        seq += len(facts[start : start + 500])

    assert Run.objects.filter(parent=run, state="COMPLETED", progress=100).count() == 500
    assert Event.objects.filter(run__parent=run).count() == 1000
    assert not Quarantine.objects.exists()
    assert nothing_open(run)


def test_many_at_once_end_together(worker, run):
    order, pks = worker.take(), [uuid7() for _ in range(120)]
    facts: list[object] = [BEGIN]
    for index, pk in enumerate(pks):
        facts += calls(1 + index, pk, call=index, ends="")
    worker.say(order, *facts)
    ledger.ledgers.clear()

    worker.say(order, p.ProcessExited(seconds(5), "killed", signal=9), first=len(facts) + 1)

    assert Run.objects.filter(parent=run, state="CRASHED").count() == 120
    assert {run.state for run in Run.objects.all()} <= FINAL
    assert LogLine.objects.count() == 0
