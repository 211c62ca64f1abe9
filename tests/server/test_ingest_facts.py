"""Facts are applied once, in order, and only from the attempt that owns the run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from perfect_client.wire import messages as p

from runs.models import LogLine, Quarantine, Run, TaskRun
from runs.services import queries

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db


def started(*more: object) -> list[object]:
    return [p.RunStarted(seconds(), pid=77), *more]


def a_whole_run() -> list[object]:
    return started(
        p.TaskStarted(seconds(0), 1, "extract"),
        p.Logged(seconds(0.1), "reading", task=1),
        p.TaskEnded(seconds(1), 1, "COMPLETED"),
        p.TaskStarted(seconds(1), 2, "load"),
        p.TaskEnded(seconds(3), 2, "COMPLETED"),
        p.RunEnded(seconds(3), "COMPLETED", result="42"),
    )


def test_a_whole_run_in_one_batch_is_completed_at_a_hundred(worker, run):
    order = worker.take()

    answer = worker.say(order, *a_whole_run())

    run.refresh_from_db()
    assert answer == p.Acknowledge(order.fence, 7)
    assert (run.state, run.progress, run.result, run.log_count, run.pid) == ("COMPLETED", 100, "42", 1, 77)
    assert list(run.task_runs.values_list("key", "state", "number")) == [
        ("extract", "COMPLETED", 1),
        ("load", "COMPLETED", 2),
    ]
    assert [e.after for e in run.events.all()] == ["PENDING", "OFFERED", "RUNNING", "COMPLETED"]


def test_the_same_batch_again_changes_nothing_and_is_acknowledged(worker, run):
    order = worker.take()
    worker.say(order, *a_whole_run())

    answer = worker.say(order, *a_whole_run())

    assert answer == p.Acknowledge(order.fence, 7)
    assert LogLine.objects.count() == 1


def test_each_fact_alone_arrives_where_the_batch_does(worker, run):
    order = worker.take()

    for seq, fact in enumerate(a_whole_run(), start=1):
        assert worker.say(order, fact, first=seq) == p.Acknowledge(order.fence, seq)

    run.refresh_from_db()
    assert (run.state, run.progress, run.log_count) == ("COMPLETED", 100, 1)


def test_an_overlapping_batch_applies_only_what_is_new(worker, run):
    order = worker.take()
    facts = [p.Logged(seconds(), f"line {n}") for n in range(10)]
    worker.say(order, *facts[:6])

    worker.say(order, *facts[3:], first=4)

    assert list(run.log_lines.values_list("seq", "message")) == [(n + 1, f"line {n}") for n in range(10)]


def test_a_gap_is_asked_for_again(worker, run):
    order = worker.take()

    answer = worker.say(order, p.Logged(seconds(), "late"), first=5)

    assert answer == p.Resend(order.fence, 1)
    assert not LogLine.objects.exists()


def test_a_claim_freezes_the_plan_as_pending_task_runs(worker, run):
    order = worker.take()

    worker.say(order, *started())

    assert list(run.task_runs.values_list("key", "state", "weight")) == [
        ("extract", "PENDING", 1),
        ("load", "PENDING", 3),
    ]


def test_progress_follows_the_declared_weights(worker, run):
    order = worker.take()

    worker.say(order, *started(p.TaskStarted(seconds(), 1, "extract"), p.TaskEnded(seconds(1), 1, "COMPLETED")))

    run.refresh_from_db()
    assert run.progress == pytest.approx(25)


def test_a_call_that_was_not_expected_joins_the_plan_and_progress_does_not_fall(worker, run):
    order = worker.take()
    worker.say(order, *started(p.TaskStarted(seconds(), 1, "extract"), p.TaskEnded(seconds(1), 1, "COMPLETED")))

    worker.say(order, p.TaskStarted(seconds(1), 2, "surprise", weight=100), first=4)

    run.refresh_from_db()
    assert run.progress >= 25
    assert run.task_runs.count() == 3


def test_what_was_expected_and_never_came_is_gone_when_the_run_completes(worker, run):
    order = worker.take()

    worker.say(order, *started(p.RunEnded(seconds(1), "COMPLETED")))

    assert not run.task_runs.exists()


def test_a_failed_run_keeps_its_progress_and_closes_its_open_tasks(worker, run):
    order = worker.take()

    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(), 1, "extract"),
            p.TaskEnded(seconds(1), 1, "COMPLETED"),
            p.TaskStarted(seconds(1), 2, "load"),
        ),
    )
    worker.say(order, p.RunEnded(seconds(2), "FAILED", error="ValueError: no"), first=5)

    run.refresh_from_db()
    assert (run.state, run.error, run.state_reason) == ("FAILED", "ValueError: no", "ValueError: no")
    assert 25 <= run.progress < 100
    assert list(run.task_runs.values_list("state", flat=True)) == ["COMPLETED", "FAILED"]


def test_a_process_that_is_gone_without_an_outcome_has_crashed(worker, run):
    order = worker.take()

    worker.say(order, *started(p.ProcessExited(seconds(1), "killed by signal 11", signal=11, last_output="Segfault")))

    run.refresh_from_db()
    assert (run.state, run.state_reason, run.traceback) == ("CRASHED", "killed by signal 11", "Segfault")


def test_a_final_run_never_changes(worker, run):
    order = worker.take()
    worker.say(order, *started(p.RunEnded(seconds(1), "COMPLETED")))
    before = Run.objects.values().get(pk=run.pk)

    worker.say(
        order,
        p.TaskStarted(seconds(2), 9, "late"),
        p.RunEnded(seconds(2), "FAILED"),
        p.ProcessExited(seconds(3), "x"),
        first=3,
    )

    after = Run.objects.values().get(pk=run.pk)
    before.pop("version"), after.pop("version")
    assert after == before
    assert not TaskRun.objects.exists()


def test_lines_printed_at_the_very_end_are_kept(worker, run):
    order = worker.take()
    worker.say(order, *started(p.RunEnded(seconds(1), "COMPLETED")))

    worker.say(order, p.Logged(seconds(2), "from atexit"), first=1, stream=p.OUTPUT)

    assert run.log_lines.get().message == "from atexit"


def test_another_workers_word_is_not_heard(worker, run):
    order = worker.take()
    worker.id = __import__("uuid").uuid4()

    answer = worker.say(order, *started())

    assert isinstance(answer, p.DropRun)
    assert not TaskRun.objects.exists()


def test_facts_before_the_claim_are_refused(worker, run):
    (order,) = worker.offers()

    assert isinstance(worker.say(order, *started()), p.DropRun)


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "TaskStarted", "time": 1.0},
        {"type": "TaskEnded", "time": 1.0, "task": 5, "outcome": "COMPLETED"},
        {"type": "TaskEnded", "time": 1.0, "task": 1, "outcome": "EXPLODED"},
        {"type": "TaskStarted", "time": 1e300, "task": 9, "key": "x"},
        {"type": "TaskStarted", "time": 1.0, "task": 2**40, "key": "x"},
        {"type": "TaskStarted", "time": 1.0, "task": -1, "key": "x"},
        {"type": "TaskStarted", "time": 1.0, "task": 1, "key": "extract"},
        {"type": "Logged", "time": "soon", "message": "x"},
        {"type": "Logged", "time": 1.0, "message": 5},
        {"type": "RunEnded", "time": 1.0, "outcome": "MAYBE"},
        {"no": "type"},
        "text",
        None,
        [1],
    ],
)
def test_one_malformed_fact_is_set_aside_and_the_stream_goes_on(worker, run, bad):
    order = worker.take()
    worker.say(order, *started(p.TaskStarted(seconds(), 1, "extract")))
    message = p.FactsRecorded(
        order.fence, order.run, 3, [bad, {"type": "Logged", "time": seconds(1), "message": "still here"}]
    )
    from runs.ingest import ledger

    answer = ledger.record(worker=worker.id, message=message, now=NOW)

    assert answer == p.Acknowledge(order.fence, 4)
    assert Quarantine.objects.get().seq == 3
    assert run.log_lines.get().message == "still here"


def test_an_unknown_kind_of_fact_of_a_newer_worker_is_passed_over(worker, run):
    order = worker.take()

    answer = worker.say(order, {"type": "ArtifactSaved", "time": 1.0})

    assert answer == p.Acknowledge(order.fence, 1)
    assert not Quarantine.objects.exists()


@pytest.mark.parametrize("text", ["nul \x00 here", "lone \ud800 surrogate", "\x1b[31mred", "🙂" * 10, "x" * 100_000])
def test_any_text_can_be_logged(worker, run, text):
    order = worker.take()

    worker.say(order, p.Logged(seconds(), text))

    kept = run.log_lines.get().message
    assert "\x00" not in kept and len(kept.encode()) < 17_000


def test_log_lines_count_warnings_and_errors(worker, run):
    order = worker.take()

    worker.say(order, *[p.Logged(seconds(), "x", level=level) for level in (10, 20, 30, 30, 40, 50)])

    run.refresh_from_db()
    assert (run.log_count, run.warning_count, run.error_count) == (6, 2, 2)


def test_what_a_person_said_to_a_cancel_is_said_once_and_before_how_it_ended(worker, run):
    from runs.ingest import dispatch
    from runs.services import requests

    order = worker.take()
    worker.say(order, *started())
    requests.cancel(run_id=run.pk, now=NOW, who="ana", why="wrong day")
    requests.cancel(run_id=run.pk, now=NOW, who="bo", why="me too")

    ((_, cancel),) = dispatch.cancels(workers=[worker.id])
    worker.say(order, p.ProcessExited(seconds(2), "killed after the grace of 10 s", signal=9, cancelled=True), first=2)

    run.refresh_from_db()
    assert cancel.reason == "cancelled by ana: wrong day"
    assert run.state_reason == "cancelled by ana: wrong day; killed after the grace of 10 s"


@pytest.mark.parametrize("first", ["", "wrong day"])
@pytest.mark.parametrize("told", ["cancelled by ana", "cancelled by ana: wrong day", "cancelled by bo: me too"])
def test_the_reason_of_a_run_that_was_cancelled_twice_is_said_once(worker, run, first, told):
    from runs.services import requests

    order = worker.take()
    worker.say(order, *started())
    requests.cancel(run_id=run.pk, now=NOW, who="ana", why=first)

    worker.say(order, p.RunEnded(seconds(2), "CANCELLED", told), first=2)

    run.refresh_from_db()
    assert run.state_reason == ("cancelled by ana: wrong day" if first else "cancelled by ana")


@pytest.mark.parametrize("told", [True, False])
def test_a_cancel_request_makes_a_stopped_run_cancelled(worker, run, told):
    from runs.services import requests

    order = worker.take()
    worker.say(order, *started(p.TaskStarted(seconds(), 1, "extract")))
    requests.cancel(run_id=run.pk, now=NOW, who="ana")

    worker.say(order, p.ProcessExited(seconds(2), "killed after the grace of 10 s", signal=9, cancelled=told), first=3)

    run.refresh_from_db()
    assert (run.state, run.state_reason) == ("CANCELLED", "cancelled by ana; killed after the grace of 10 s")
    assert run.task_runs.get(key="extract").state == "CANCELLED"


def test_a_run_that_completes_in_spite_of_a_cancel_is_completed(worker, run):
    from runs.services import requests

    order = worker.take()
    requests.cancel(run_id=run.pk, now=NOW, who="ana")

    worker.say(order, *started(p.RunEnded(seconds(2), "COMPLETED")))

    run.refresh_from_db()
    assert run.state == "COMPLETED"


def test_history_teaches_how_often_a_task_is_called(worker, flow):
    from runs.services import requests

    for _ in range(3):
        requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
        order = worker.take()
        facts = started()
        for n in range(4):
            facts += [
                p.TaskStarted(seconds(n), n + 1, "extract", call=n),
                p.TaskEnded(seconds(n + 1), n + 1, "COMPLETED"),
            ]
        worker.say(order, *facts, p.RunEnded(seconds(5), "COMPLETED"))
    last = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")

    worker.say(worker.take(), *started())

    assert list(last.task_runs.filter(key="extract").values_list("call", flat=True)) == [0, 1, 2, 3]
    assert last.task_runs.filter(key="extract").first().learned_ms == pytest.approx(1000)


def test_the_task_that_ends_a_run_does_not_count_as_done(worker, run):
    order = worker.take()

    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(), 1, "extract"),
            p.TaskEnded(seconds(1), 1, "COMPLETED"),
            p.TaskStarted(seconds(1), 2, "load"),
            p.TaskProgressed(seconds(2), 2, 0.5),
            p.TaskEnded(seconds(3), 2, "FAILED", error="no"),
        ),
    )
    worker.say(order, p.RunEnded(seconds(3), "FAILED", error="no"), first=7)

    run.refresh_from_db()
    assert run.progress == pytest.approx(25 + 75 / 2)


def halfway(worker) -> p.OfferRun:
    """A run that said nothing since its second task began at 1 s; that task is estimated to take 2 s."""
    order = worker.take()
    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(), 1, "extract"),
            p.TaskEnded(seconds(1), 1, "COMPLETED"),
            p.TaskStarted(seconds(1), 2, "load"),
        ),
        now=NOW + timedelta(seconds=1),
    )
    return order


@pytest.mark.parametrize(
    "end",
    [
        [p.TaskEnded(seconds(2), 2, "FAILED", error="no"), p.RunEnded(seconds(2), "FAILED", error="no")],
        [p.TaskEnded(seconds(2), 2, "CANCELLED"), p.RunEnded(seconds(2), "CANCELLED")],
        [p.ProcessExited(seconds(2), "killed by signal 11", signal=11)],
    ],
    ids=["failed", "cancelled", "crashed"],
)
def test_a_bad_end_takes_nothing_back_of_what_time_alone_had_moved(worker, run, end):
    order, at = halfway(worker), NOW + timedelta(seconds=2)
    run.refresh_from_db()
    shown, _ = queries.progress_now(run, queries.task_runs_of(run), at)
    assert run.progress == pytest.approx(25) and shown == pytest.approx(25 + 75 / 2)

    worker.say(order, *end, first=5, now=at)

    run.refresh_from_db()
    assert run.progress == pytest.approx(shown)


def test_the_servers_own_end_of_a_run_takes_nothing_back_either(worker, run):
    halfway(worker)

    worker.join(now=NOW + timedelta(seconds=2))  # the worker came back without the run

    run.refresh_from_db()
    assert (run.state, run.progress) == ("CRASHED", pytest.approx(25 + 75 / 2))


def test_a_failed_call_that_the_flow_survives_counts_as_done(worker, run):
    order = worker.take()

    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(), 1, "load"),
            p.TaskEnded(seconds(1), 1, "FAILED", error="no"),
            p.TaskStarted(seconds(1), 2, "extract"),
        ),
    )

    run.refresh_from_db()
    assert run.progress >= 75


def test_a_task_that_is_tried_again_is_retrying_in_between_and_says_how_often(worker, run):
    order = worker.take()
    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(0), 1, "shaky"),
            p.TaskProgressed(seconds(1), 1, 0.5, "half"),
            p.TaskRetrying(seconds(2), 1, 1, 5.0, "ValueError: not yet"),
        ),
    )
    row = run.task_runs.get(key="shaky")
    assert (row.state, row.tries, row.share, row.error) == ("RETRYING", 1, None, "ValueError: not yet")

    worker.say(order, p.TaskRestarted(seconds(7), 1, 2), p.TaskEnded(seconds(9), 1, "COMPLETED"), first=5)

    row.refresh_from_db()
    assert (row.state, row.tries, row.error) == ("COMPLETED", 2, "")
    assert (row.finished_at - row.started_at).total_seconds() == 2


def test_a_run_that_was_ended_for_its_deadline_has_failed_and_not_crashed(worker, run):
    order = worker.take()

    worker.say(order, *started(p.ProcessExited(seconds(9), "timed_out: too long", signal=9, timed_out=True)))

    run.refresh_from_db()
    assert (run.state, run.state_reason) == ("FAILED", "timed_out: too long")


def test_a_flow_called_inside_a_run_is_one_of_its_calls(worker, run):
    order = worker.take()

    worker.say(
        order,
        *started(
            p.TaskStarted(seconds(0), 1, "inner", "Inner", kind="flow"),
            p.TaskStarted(seconds(0), 2, "step", parent=1),
            p.TaskEnded(seconds(1), 2, "COMPLETED"),
            p.TaskEnded(seconds(1), 1, "COMPLETED"),
        ),
    )

    assert list(run.task_runs.filter(key__in=["inner", "step"]).values_list("key", "state", "parent")) == [
        ("inner", "COMPLETED", None),
        ("step", "COMPLETED", 1),
    ]
