"""Where a running run stands is not worked out for each of those who ask at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from perfect_client.wire import messages as p

from runs.services import queries

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(worker, run):
    order = worker.take()
    worker.say(order, p.RunStarted(seconds(0)), p.TaskStarted(seconds(0), 1, "extract"))
    run.refresh_from_db()
    return run


def test_who_asks_at_once_gets_the_same_answer_without_a_query(running, django_assert_num_queries):
    first = queries.progress_and_eta(running, NOW)

    with django_assert_num_queries(0):
        assert queries.progress_and_eta(running, NOW) == first


def test_it_is_worked_out_anew_a_moment_later(running):
    before, _ = queries.progress_and_eta(running, NOW)

    after, _ = queries.progress_and_eta(running, NOW + timedelta(seconds=1))

    assert after > before


def test_it_never_says_less_than_what_was_shown(running):
    queries.progress_and_eta(running, NOW)
    running.progress = 40.0

    assert queries.progress_and_eta(running, NOW)[0] >= 40.0
