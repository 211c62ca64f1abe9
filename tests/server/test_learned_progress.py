"""What a flow's completed runs teach the next one, from rows to the number that is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire import messages as p

from perfect_site.dashboard.presenters import Reader
from runs.models import Run, TaskRun
from runs.services import history, queries, requests

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db


def wish(flow, **given) -> Run:
    return requests.trigger(flow=flow, now=NOW, trigger="page", who="ana", **given)


def complete(worker, flow, extract: float, load: float, **given) -> None:
    """A whole run with one call of each task, so many seconds long."""
    wish(flow, **given)
    end = extract + load
    worker.say(
        worker.take(),
        p.RunStarted(seconds()),
        p.TaskStarted(seconds(), 1, "extract"),
        p.TaskEnded(seconds(extract), 1, "COMPLETED"),
        p.TaskStarted(seconds(extract), 2, "load"),
        p.TaskEnded(seconds(end), 2, "COMPLETED"),
        p.RunEnded(seconds(end), "COMPLETED"),
        now=NOW + timedelta(seconds=end),
    )
    history.forget()


def extents(run: Run) -> dict[str, float | None]:
    return dict(run.task_runs.values_list("key", "extent_ms"))


def begun(worker, flow, *facts, **given) -> tuple[Run, object]:
    run = wish(flow, **given)
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()), *facts)
    run.refresh_from_db()
    return run, order


def test_three_runs_outvote_declared_weights(worker, flow):
    """The code declares weights 1 and 3; the tasks take 9 s and 1 s."""
    for _ in range(2):
        complete(worker, flow, 9, 1)
    second, _ = begun(worker, flow)
    assert set(extents(second).values()) == {None}
    complete(worker, flow, 9, 1)

    run, _ = begun(worker, flow, p.TaskStarted(seconds(), 1, "extract"), p.TaskEnded(seconds(9), 1, "COMPLETED"))

    assert extents(run) == pytest.approx({"extract": 9_000, "load": 1_000})
    assert run.progress == pytest.approx(90)


def test_runs_with_the_same_configuration_teach_more_than_others(worker, flow):
    for _ in range(3):
        complete(worker, flow, 1, 1, configuration="development")
    for _ in range(3):
        complete(worker, flow, 50, 50, configuration="release")

    run, _ = begun(worker, flow, configuration="development")

    assert extents(run) == pytest.approx({"extract": 1_000, "load": 1_000})


def test_runs_with_the_same_parameters_teach_most(worker, flow):
    for _ in range(3):
        complete(worker, flow, 1, 1, parameters={"limit": 1})
    for _ in range(3):
        complete(worker, flow, 50, 50, parameters={"limit": 99})

    run, _ = begun(worker, flow, parameters={"limit": 1})

    assert extents(run) == pytest.approx({"extract": 1_000, "load": 1_000})


def test_an_unexpected_task_takes_back_nothing_that_time_alone_had_moved(worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()), p.TaskStarted(seconds(), 1, "load"))
    at = NOW + timedelta(seconds=1)
    run.refresh_from_db()
    before, _ = queries.progress_now(run, queries.task_runs_of(run), at)

    worker.say(order, p.TaskStarted(seconds(1), 2, "repair", weight=100), first=3, now=at)

    run.refresh_from_db()
    after, _ = queries.progress_now(run, queries.task_runs_of(run), at)
    assert before == pytest.approx(50) and after >= before


def test_what_a_run_started_with_is_not_read_again(worker, flow, django_assert_num_queries):
    for _ in range(3):
        complete(worker, flow, 9, 1)
    run, _ = begun(worker, flow)
    rows = queries.task_runs_of(run)
    run.flow  # as every door has it

    with django_assert_num_queries(0):
        queries.progress_now(run, rows, NOW)


def test_the_bar_is_filled_as_far_as_the_number_says(worker, flow):
    for _ in range(3):
        complete(worker, flow, 9, 1)
    run, _ = begun(worker, flow, p.TaskStarted(seconds(), 1, "extract"))

    (shown,) = Reader(NOW + timedelta(seconds=4.5)).shown([Run.objects.select_related("flow").get(pk=run.pk)])

    assert shown.percent == pytest.approx(45)
    assert sum(segment.filled for segment in shown.segments) == pytest.approx(45)
    assert shown.segments[0].width == pytest.approx(90)


def test_a_run_that_takes_longer_than_usual_says_so(worker, flow, client, viewer):
    for _ in range(3):
        complete(worker, flow, 9, 1)
    run, _ = begun(worker, flow, p.TaskStarted(seconds(), 1, "extract"))
    run = Run.objects.select_related("flow").get(pk=run.pk)

    in_time, late = (Reader(NOW + timedelta(seconds=at)).shown([run])[0] for at in (10, 12))

    assert (in_time.usual, in_time.is_longer, late.is_longer) == (pytest.approx(10), False, True)
    client.force_login(viewer)
    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(minutes=1))
    assert "longer than usual (10.0 s)" in client.get(f"/runs/{run.pk}/").content.decode()


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
    st.timedeltas(timedelta(), timedelta(days=3)),
    st.sampled_from((0, 0, 1)),
    st.booleans(),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_measures_a_duration_to_the_microsecond(worker, flow, began, took, micro, whole):
    began = began.replace(tzinfo=UTC, microsecond=micro if whole else began.microsecond)
    run = Run.objects.filter(flow=flow).first() or wish(flow)
    values = {"started_at": began, "finished_at": began + took, "name": "x", "position": 0, "state": "COMPLETED"}
    TaskRun.objects.update_or_create(run=run, attempt=1, key="x", call=0, defaults=values)

    found = run.task_runs.aggregate(took=Sum(history._Milliseconds("finished_at", "started_at")))["took"]

    assert abs(found - took / timedelta(milliseconds=1)) < 1e-3
