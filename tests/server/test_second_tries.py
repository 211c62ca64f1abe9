"""On PostgreSQL a write that was cut off, or that two servers made each other wait for, is done all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from flows.models import Flow
from runs.db import threads

from .conftest import NOW, only_on

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    only_on("PostgreSQL")
    threads.start()
    yield
    threads.stop()


def make(name: str) -> Flow:
    return Flow.objects.create(name=name, slug=name, created_at=NOW, updated_at=NOW)


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


CUT = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize("others", [0, 3])
def test_a_connection_that_is_cut_in_the_middle_costs_a_second_try(others: int) -> None:
    gate, tries = threading.Event(), []

    def cut_at_first() -> None:
        make("kept")
        tries.append(1)
        if len(tries) == 1:
            sql(CUT)

    threads.write_soon(gate.wait, 10)  # so that the others are one group
    jobs = [threads.write_soon(make, f"other {n}") for n in range(others)]
    jobs.append(threads.write_soon(cut_at_first))
    gate.set()
    for job in jobs:
        job.result(20)

    assert len(tries) == 2
    assert Flow.objects.count() == others + 1


def test_a_connection_that_is_cut_again_and_again_fails() -> None:
    with pytest.raises(OperationalError):
        threads.write_soon(sql, CUT).result(20)
    threads.write_soon(make, "after").result(20)


def test_a_connection_that_is_cut_while_it_rests_costs_nothing() -> None:
    def pid() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])

    before = threads.write_soon(pid).result(20)
    sql("SELECT pg_terminate_backend(%s)", before)
    assert threads.write_soon(pid).result(20) != before


def until_somebody_waits() -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 60
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees its first look again
            cursor.execute(waits)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)


def test_jobs_that_wait_for_each_other_are_both_done() -> None:
    for name in ("a", "b"):
        make(name)
    tries, has_b = [], threading.Event()

    def touch(name: str) -> None:
        Flow.objects.filter(name=name).update(description="touched")

    def b_then_a() -> None:
        tries.append(1)
        touch("b")
        has_b.set()
        if len(tries) == 1:
            until_somebody_waits()
        touch("a")

    with transaction.atomic():
        sql("SET LOCAL deadlock_timeout = '600s'")  # the other one notices
        touch("a")
        job = threads.write_soon(b_then_a)
        assert has_b.wait(60)
        touch("b")
    job.result(60)

    assert len(tries) == 2
