"""Statements of the hot path say what Django would have said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.statements import insert, insert_one, insert_values, swap
from runs.models import Attempt, LogLine, Run, TaskRun

from .conftest import NOW

pytestmark = pytest.mark.django_db


def task_run(run, **values):
    return TaskRun(run=run, attempt=1, key="load", name="load", position=0, state="RUNNING", **values)


def test_a_row_comes_back_as_it_was_written(run):
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    insert([task_run(run, number=3, weight=2.5, started_at=at, error="naïve 🙂")])

    row = TaskRun.objects.get()
    assert (row.run_id, row.number, row.weight, row.started_at, row.error, row.finished_at) == (
        run.pk,
        3,
        2.5,
        at,
        "naïve 🙂",
        None,
    )


def test_a_row_that_is_there_already_takes_the_new_values(run):
    one_call = ("run_id", "attempt", "key", "call")
    insert([task_run(run, number=1)], replacing=one_call)
    before = TaskRun.objects.get().pk

    insert([task_run(run, number=1, share=0.5), task_run(run, number=2, call=1)], replacing=one_call)

    assert sorted(TaskRun.objects.values_list("call", "share")) == [(0, 0.5), (1, None)]
    assert TaskRun.objects.get(call=0).pk == before


def test_nothing_to_insert_is_no_statement(django_assert_num_queries):
    with django_assert_num_queries(0):
        insert([])


def test_a_single_row_learns_its_key(run):
    attempt = Attempt(run=run, number=1, offered_at=NOW)

    insert_one(attempt)

    assert attempt.pk == Attempt.objects.get().pk


@pytest.mark.parametrize(
    "where", [{"state": "RUNNING"}, {"cancel_requested_at": NOW}, {"worker_id": None, "state": "OFFERED"}]
)
def test_nothing_is_swapped_where_one_condition_does_not_hold(run, where):
    assert not swap(Run, {"id": run.pk, **where}, {"result": "no"})
    assert Run.objects.get().result == ""


def test_a_swap_compares_with_null_and_adds_to_columns(run):
    later = NOW + timedelta(seconds=1)

    assert swap(
        Run,
        {"id": run.pk, "worker_id": None, "state": "PENDING"},
        {"started_at": later, "tags": ["a"]},
        grow={"version": 2, "error_count": 3},
    )

    row = Run.objects.get()
    assert (row.started_at, row.tags, row.version, row.error_count) == (later, ["a"], run.version + 2, 3)


def test_a_line_with_every_kind_of_text_is_kept(run):
    texts = ["", "%s %d {} '\"; --", "a" * 16_000, "\u2400 \x1b[31mred\x1b[0m \U0001f600"]

    insert_values(
        LogLine,
        ("seq", "message", "time"),
        [(n, text, NOW) for n, text in enumerate(texts, 1)],
        run_id=run.pk,
        attempt=1,
        level=20,
        dropped=0,
    )

    assert list(LogLine.objects.values_list("message", flat=True)) == texts
    assert {(line.run_id, line.time, line.level, line.task) for line in LogLine.objects.all()} == {
        (run.pk, NOW, 20, None)
    }
