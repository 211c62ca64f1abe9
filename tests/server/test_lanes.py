"""The writer shares one commit among the jobs that wait, and no job harms another."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, OperationalError, connection, transaction

from flows.models import Flow
from runs.db import maintenance, outages, threads

from .conftest import NOW, locked, only_on, sqlite_file
from .test_serving import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def foreign():
    """Set when another process has written."""
    heard = threading.Event()
    threads.start(on_foreign_commit=heard.set)
    yield heard
    threads.stop()


@contextlib.contextmanager
def full(spare: int = 0) -> Iterator[None]:
    """The database may grow by ``spare`` pages and no more, as far as the writer can tell: SQLite's own full disk."""
    with contextlib.closing(sqlite3.connect(sqlite_file())) as other:
        other.execute("VACUUM")  # what earlier tests have used is no room
    ask = partial(threads.write_and_wait, pragma)
    before = ask("max_page_count")
    ask(f"max_page_count = {ask('page_count') + spare}")
    try:
        yield
    finally:
        ask(f"max_page_count = {before}")


def pragma(text: str) -> int:
    with connection.cursor() as cursor:
        return cursor.execute(f"PRAGMA {text}").fetchone()[0]


def make_large(name: str) -> Flow:
    return Flow.objects.create(name=name, slug=name, description="x" * 100_000, created_at=NOW, updated_at=NOW)


def make(name: str) -> Flow:
    return Flow.objects.create(name=name, slug=name, created_at=NOW, updated_at=NOW)


def fail(name: str) -> None:
    make(name)
    raise LookupError(name)


def test_a_job_is_on_disk_when_its_future_is_done(foreign):
    only_on("SQLite")
    threads.write_soon(make, "a").result(5)

    with sqlite3.connect(sqlite_file()) as other:
        assert other.execute("SELECT name FROM flows_flow").fetchall() == [("a",)]


def test_a_failing_job_is_rolled_back_alone(foreign):
    gate = threading.Event()
    threads.write_soon(gate.wait, 5)
    jobs = [threads.write_soon(fail if n == 2 else make, f"f{n}") for n in range(5)]
    gate.set()

    wait(jobs, timeout=5)

    assert isinstance(jobs[2].exception(), LookupError)
    assert sorted(Flow.objects.values_list("name", flat=True)) == ["f0", "f1", "f3", "f4"]


def test_a_failing_job_on_its_own_is_rolled_back_too(foreign):
    job = threads.write_soon(fail, "alone")

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
    threads.write_soon(gate.wait, 5)
    jobs = [threads.write_soon(ring, "good", False), threads.write_soon(ring, "bad", True)]
    gate.set()
    wait(jobs, timeout=5)

    assert rung == [("good", True)]


def test_waiting_jobs_share_one_commit(foreign):
    gate = threading.Event()
    threads.write_soon(gate.wait, 5)
    seen: list[int] = []
    jobs = [threads.write_soon(lambda: seen.append(len(connection.savepoint_ids))) for _ in range(10)]
    gate.set()

    wait(jobs, timeout=5)

    assert seen == [1] * 10  # each in a savepoint of one shared transaction


def test_a_commit_of_another_process_is_noticed(foreign):
    only_on("SQLite")
    threads.write_soon(make, "mine").result(5)
    assert not foreign.is_set()

    with sqlite3.connect(sqlite_file(), timeout=5) as other:
        other.execute("UPDATE flows_flow SET description = 'theirs'")

    assert foreign.wait(5)


def test_the_log_is_moved_into_the_database_while_commits_go_on(foreign):
    only_on("SQLite")
    for n in range(20):
        threads.write_soon(make, f"f{n}").result(5)

    from runs.db.maintenance import Upkeep

    def checkpoint() -> None:
        keeper = Upkeep()
        keeper.checkpoint()
        keeper.close()

    worker = threading.Thread(target=lambda: (checkpoint(), connection.close()))
    worker.start()
    worker.join(10)

    with sqlite3.connect(sqlite_file()) as other:
        _, pages, moved = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert pages == moved
    assert Flow.objects.count() == 20


def test_stop_writes_what_waits_first():
    threads.start()
    jobs = [threads.write_soon(make, f"f{n}") for n in range(50)]

    threads.stop()

    assert all(job.done() for job in jobs)
    assert Flow.objects.count() == 50


def test_what_follows_from_a_group_joins_its_commit_once(foreign):
    seen = []

    def follow() -> None:
        seen.append(Flow.objects.count())

    def make_and_ask(name: str) -> None:
        make(name)
        threads.before_commit(follow)

    gate = threading.Event()
    threads.write_soon(gate.wait, 5)
    jobs = [threads.write_soon(make_and_ask, f"f{n}") for n in range(3)]
    gate.set()
    for job in jobs:
        job.result(5)

    assert seen == [3]


def test_what_follows_may_fail_without_harm_to_the_group(foreign, caplog):
    def make_and_ask() -> None:
        make("kept")
        threads.before_commit(partial(fail, "gone"))

    threads.write_soon(make_and_ask).result(5)

    assert list(Flow.objects.values_list("name", flat=True)) == ["kept"]
    assert "what was to follow" in caplog.text


def test_nothing_follows_from_a_job_that_failed(foreign):
    seen = []

    def ask_and_fail() -> None:
        threads.before_commit(lambda: seen.append(1))
        fail("gone")

    with pytest.raises(LookupError):
        threads.write_soon(ask_and_fail).result(5)
    threads.write_soon(lambda: None).result(5)

    assert seen == []


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_a_write_that_cannot_begin_in_time_is_left_out_and_its_caller_told(foreign, monkeypatch, way):
    monkeypatch.setattr(threads, "WRITE_WITHIN", 0.2)
    ask = threads.write_and_wait if way == "thread" else async_to_sync(threads.write)

    with locked(), pytest.raises(outages.NotWritten) as refused:
        ask(make, "given up")
    threads.write_soon(make, "later").result(20)

    assert refused.value.outage is outages.WAITED
    assert list(Flow.objects.values_list("name", flat=True)) == ["later"]


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_a_write_that_has_begun_is_waited_for(foreign, monkeypatch, way):
    monkeypatch.setattr(threads, "WRITE_WITHIN", 0.05)
    ask = threads.write_and_wait if way == "thread" else async_to_sync(threads.write)
    gate = threading.Event()

    def slow() -> Flow:
        threading.Timer(0.2, gate.set).start()
        gate.wait(5)
        return make("slow")

    assert ask(slow).name == "slow"


def test_a_caller_that_gives_up_in_the_moment_of_being_given_up_makes_no_noise(foreign, monkeypatch):
    monkeypatch.setattr(threads, "WRITE_WITHIN", 0.05)
    gate, running, noise = threading.Event(), threading.Event(), []
    threads.write_soon(lambda: (running.set(), gate.wait(20)))
    assert running.wait(20)

    async def ask_and_leave() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: noise.append(context))
        asked = asyncio.create_task(threads.write(make, "never"))
        loop.call_later(0.05, asked.cancel)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.1)  # both are due in one turn now
        await asyncio.wait([asked])
        return asked.cancelled()

    assert asyncio.run(ask_and_leave())
    gate.set()
    threads.write_soon(make, "later").result(20)
    assert (noise, list(Flow.objects.values_list("name", flat=True))) == ([], ["later"])


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_nobody_waits_for_ever_for_a_write_that_has_begun(foreign, monkeypatch, way):
    monkeypatch.setattr(threads, "WRITE_WITHIN", 0.05)
    monkeypatch.setattr(threads, "FINISH_WITHIN", 0.05)
    ask = threads.write_and_wait if way == "thread" else async_to_sync(threads.write)
    gate = threading.Event()

    with pytest.raises(outages.NotWritten) as refused:
        ask(gate.wait, 20)
    gate.set()

    assert refused.value.outage is outages.UNSURE


def test_while_another_process_holds_the_lock_it_is_said_and_reads_go_on(foreign, monkeypatch):
    monkeypatch.setattr(threads, "PROBE_EVERY", 0.0)
    assert threads.trouble() == ""
    monkeypatch.setattr(threads, "PROBE_WITHIN", 0.2)

    with locked():
        assert "do not come back" in threads.trouble()
        assert async_to_sync(threads.read)(Flow.objects.count) == 0
    threads.write_soon(make, "later").result(20)

    monkeypatch.setattr(threads, "PROBE_WITHIN", 20.0)
    assert threads.trouble() == ""


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(foreign, caplog, monkeypatch):
    monkeypatch.setattr(threads, "RETRY_EVERY", 60.0)
    with full():
        with pytest.raises(OperationalError) as refused:
            threads.write_and_wait(make_large, "large")
        assert outages.of(refused.value) is outages.FULL
        assert threads.trouble() == outages.FULL.sentence
        assert async_to_sync(threads.read)(Flow.objects.count) == 0
        monkeypatch.setattr(threads, "RETRY_EVERY", 0.0)
        with pytest.raises(OperationalError):
            threads.write_and_wait(make_large, "large")
    threads.write_and_wait(make_large, "large")

    until(lambda: threads.trouble() == "")
    assert "Traceback" not in caplog.text


def test_what_must_be_written_is_written_when_there_is_room(foreign, monkeypatch):
    monkeypatch.setattr(threads, "RETRY_EVERY", 0.05)
    with full():
        job = threads.write_surely(make_large, "surely")
        with pytest.raises(OperationalError):
            threads.write_and_wait(make_large, "given up")
        assert not job.done()

    assert job.result(20).name == "surely"
    assert list(Flow.objects.values_list("name", flat=True)) == ["surely"]


def swallow(name: str) -> None:
    """As the clock does, which goes on with its next part."""
    with contextlib.suppress(DatabaseError), transaction.atomic():
        make_large(name)


@pytest.mark.parametrize("spare", [0, 1, 30, 60])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("fill", [make_large, swallow])
def test_what_is_called_written_on_a_full_disk_is_written(foreign, fill, place, spare):
    """The n-th write of a group meets the full disk, for each n, at the first page or a later one."""
    with full(spare):
        gate = threading.Event()
        threads.write_soon(gate.wait, 5)
        jobs = [threads.write_soon(fill if n == place else make, f"f{n}") for n in range(4)]
        gate.set()
        wait(jobs, timeout=20)

    there = set(Flow.objects.values_list("name", flat=True))
    called = {f"f{n}" for n, job in enumerate(jobs) if job.exception() is None}
    assert there == called - ({f"f{place}"} if fill is swallow and f"f{place}" not in there else set())


def test_a_checkpoint_that_fails_does_not_end_the_thread(foreign, monkeypatch):
    only_on("SQLite")
    monkeypatch.setattr(maintenance, "CHECKPOINT_AFTER_WRITES", 1)
    threads.write_and_wait(pragma, "busy_timeout = 50")
    with contextlib.ExitStack() as stack:

        def make_and_lock() -> None:
            make("a")
            transaction.on_commit(lambda: stack.enter_context(locked()))

        threads.write_and_wait(make_and_lock)
        waiting = threads.write_soon(make, "b")
        assert waiting.exception(20) is None or outages.of(waiting.exception()) is outages.LOCKED

    threads.write_and_wait(make, "c")
    assert {"a", "c"} <= set(Flow.objects.values_list("name", flat=True))


def test_a_checkpoint_on_a_full_disk_is_known_as_one():
    only_on("SQLite")

    class FullDisk:
        def execute(self, statement: str) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    keeper = maintenance.Upkeep()
    keeper._second = FullDisk()

    with pytest.raises(OperationalError) as failed:
        keeper.checkpoint()

    assert outages.of(failed.value) is outages.FULL


def test_an_error_of_the_system_while_connecting_anew_is_the_outage_before_it():
    wrong = OSError(22, "Invalid argument")
    assert outages.of(wrong) is None

    wrong.__context__ = OperationalError("terminating connection due to administrator command")

    assert outages.of(wrong) is outages.AWAY


def test_what_depends_on_a_lost_group_is_undone(foreign):
    undone = []

    def ask_and_fill() -> None:
        threads.if_lost(lambda: undone.append(1))
        make("a")
        transaction.set_rollback(True)

    with pytest.raises(outages.NotWritten):
        threads.write_and_wait(ask_and_fill)
    threads.write_and_wait(lambda: threads.if_lost(lambda: undone.append(2)))

    assert undone == [1]


def test_what_was_committed_is_called_written_whatever_follows_it(foreign, caplog):
    def make_and_fail_later() -> Flow:
        transaction.on_commit(lambda: fail("follows"))
        return make("kept")

    assert threads.write_and_wait(make_and_fail_later).name == "kept"
    assert "what was to follow a commit failed" in caplog.text
