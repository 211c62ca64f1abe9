"""The writer shares one commit among the jobs that wait, and no job harms another."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import wait
from functools import partial

import pytest
from django.db import connection, transaction

from flows.models import Flow
from runs import lanes

from .conftest import NOW

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def foreign():
    """Set when another process has written."""
    heard = threading.Event()
    lanes.start(on_foreign_commit=heard.set)
    yield heard
    lanes.stop()


def only_on_sqlite() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the database is not SQLite")


def make(name: str) -> Flow:
    return Flow.objects.create(name=name, slug=name, created_at=NOW, updated_at=NOW)


def fail(name: str) -> None:
    make(name)
    raise LookupError(name)


def test_a_job_is_on_disk_when_its_future_is_done(foreign):
    only_on_sqlite()
    lanes.write_soon(make, "a").result(5)

    path = connection.settings_dict["NAME"]
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM flows_flow").fetchall() == [("a",)]


def test_a_failing_job_is_rolled_back_alone(foreign):
    gate = threading.Event()
    lanes.write_soon(gate.wait, 5)
    jobs = [lanes.write_soon(fail if n == 2 else make, f"f{n}") for n in range(5)]
    gate.set()

    wait(jobs, timeout=5)

    assert isinstance(jobs[2].exception(), LookupError)
    assert sorted(Flow.objects.values_list("name", flat=True)) == ["f0", "f1", "f3", "f4"]


def test_a_failing_job_on_its_own_is_rolled_back_too(foreign):
    job = lanes.write_soon(fail, "alone")

    assert isinstance(job.exception(5), LookupError)
    assert not Flow.objects.exists()


def test_bells_ring_after_the_commit_and_not_for_what_was_rolled_back(foreign):
    rung: list[tuple[str, bool]] = []

    def ring(name: str, then_fail: bool) -> None:
        make(name)
        transaction.on_commit(lambda: rung.append((name, Flow.objects.filter(name=name).exists())))
        if then_fail:
            raise LookupError

    gate = threading.Event()
    lanes.write_soon(gate.wait, 5)
    jobs = [lanes.write_soon(ring, "good", False), lanes.write_soon(ring, "bad", True)]
    gate.set()
    wait(jobs, timeout=5)

    assert rung == [("good", True)]


def test_waiting_jobs_share_one_commit(foreign):
    gate = threading.Event()
    lanes.write_soon(gate.wait, 5)
    seen: list[int] = []
    jobs = [lanes.write_soon(lambda: seen.append(len(connection.savepoint_ids))) for _ in range(10)]
    gate.set()

    wait(jobs, timeout=5)

    assert seen == [1] * 10  # each in a savepoint of one shared transaction


def test_a_commit_of_another_process_is_noticed(foreign):
    only_on_sqlite()
    lanes.write_soon(make, "mine").result(5)
    assert not foreign.is_set()

    path = connection.settings_dict["NAME"]
    with sqlite3.connect(path, timeout=5) as other:
        other.execute("UPDATE flows_flow SET description = 'theirs'")

    assert foreign.wait(5)


def test_the_log_is_moved_into_the_database_while_commits_go_on(foreign):
    only_on_sqlite()
    for n in range(20):
        lanes.write_soon(make, f"f{n}").result(5)

    from runs.upkeep import Upkeep

    def checkpoint() -> None:
        keeper = Upkeep()
        keeper.checkpoint()
        keeper.close()

    worker = threading.Thread(target=lambda: (checkpoint(), connection.close()))
    worker.start()
    worker.join(10)

    path = connection.settings_dict["NAME"]
    with sqlite3.connect(path) as other:
        _, pages, moved = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert pages == moved
    assert Flow.objects.count() == 20


def test_stop_writes_what_waits_first():
    lanes.start()
    jobs = [lanes.write_soon(make, f"f{n}") for n in range(50)]

    lanes.stop()

    assert all(job.done() for job in jobs)
    assert Flow.objects.count() == 50


def test_what_follows_from_a_group_joins_its_commit_once(foreign):
    seen = []

    def follow() -> None:
        seen.append(Flow.objects.count())

    def make_and_ask(name: str) -> None:
        make(name)
        lanes.before_commit(follow)

    gate = threading.Event()
    lanes.write_soon(gate.wait, 5)
    jobs = [lanes.write_soon(make_and_ask, f"f{n}") for n in range(3)]
    gate.set()
    for job in jobs:
        job.result(5)

    assert seen == [3]


def test_what_follows_may_fail_without_harm_to_the_group(foreign, caplog):
    def make_and_ask() -> None:
        make("kept")
        lanes.before_commit(partial(fail, "gone"))

    lanes.write_soon(make_and_ask).result(5)

    assert list(Flow.objects.values_list("name", flat=True)) == ["kept"]
    assert "what was to follow" in caplog.text


def test_nothing_follows_from_a_job_that_failed(foreign):
    seen = []

    def ask_and_fail() -> None:
        lanes.before_commit(lambda: seen.append(1))
        fail("gone")

    with pytest.raises(LookupError):
        lanes.write_soon(ask_and_fail).result(5)
    lanes.write_soon(lambda: None).result(5)

    assert seen == []
