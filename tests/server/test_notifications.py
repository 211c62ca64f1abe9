"""What one process commits the others hear of, on PostgreSQL; and two servers do not take each other's runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from flows.models import Flow
from runs import events, notifications
from runs.ingest import dispatch, reports
from runs.models import Run, Worker
from runs.notifications import Notifier
from runs.services import requests

from .conftest import NOW, SPEC, FakeWorker, only_on

TOPICS = st.frozensets(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), max_size=400)


@given(TOPICS)
def test_topics_come_through_or_stand_for_everything(topics: frozenset[str]) -> None:
    text = events.encode(topics)
    assert len(text.encode()) < 8000
    assert events.decode(text) == (topics if text else events.EVERYTHING)


def test_a_repeated_cancel_is_told_again(worker: FakeWorker, run: Run, django_capture_on_commit_callbacks) -> None:
    worker.take()
    heard: list[frozenset[str]] = []
    stop = events.subscribe(heard.append)
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            requests.cancel(run_id=run.pk, now=NOW, who="ana")
    stop()
    assert sum(events.CANCELS in topics for topics in heard) == 2


class Process:
    """As much of another server process as hears and tells: a connection of its own, and a thread."""

    def __init__(self) -> None:
        self.heard: queue.Queue[frozenset[str]] = queue.Queue()
        self.notifier = Notifier(self.heard.put, serves=True)
        self.notifier.start()
        assert self.heard.get(timeout=10) == events.EVERYTHING  # what came before it listened

    def hears(self, *topics: str) -> None:
        """What it hears until all of the topics have come."""
        missing = set(topics)
        while missing:
            missing -= self.heard.get(timeout=10)


@pytest.fixture
def processes(transactional_db: None) -> Iterator[tuple[Process, Process]]:
    only_on("PostgreSQL")
    both = Process(), Process()
    yield both
    for process in both:
        process.notifier.stop()


def test_processes_hear_each_other_and_not_themselves(processes: tuple[Process, Process]) -> None:
    one, other = processes
    one.notifier.tell(frozenset({events.WORK}))
    other.hears(events.WORK)
    other.notifier.tell(frozenset({"run:x"}))
    one.hears("run:x")
    assert one.heard.empty() and other.heard.empty()


def test_a_command_tells_after_its_commit(processes: tuple[Process, Process]) -> None:
    with transaction.atomic():
        events.publish(events.CANCELS)
        assert processes[0].heard.empty()
    for process in processes:
        process.hears(events.CANCELS)


def test_what_changes_meanwhile_is_told_together(processes: tuple[Process, Process]) -> None:
    one, other = processes
    for number in range(500):
        one.notifier.tell(frozenset({f"run:{number}"}))
    other.hears("run:499")
    assert other.heard.qsize() <= 3


def test_a_connection_that_is_cut_costs_no_topic(processes: tuple[Process, Process]) -> None:
    one, other = processes
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    one.notifier.tell(frozenset({events.HOLDS}))
    for process in processes:
        assert events.HOLDS in process.heard.get(timeout=10)  # in everything, once it listens again
    one.notifier.tell(frozenset({"run:y"}))
    other.hears("run:y")


def test_two_servers_offer_different_runs(processes: tuple[Process, Process]) -> None:
    workers = [FakeWorker(SPEC, name=name) for name in ("w1", "w2")]
    for worker in workers:
        worker.join()
    for _ in range(4):
        requests.trigger(flow=Flow.objects.get(), now=NOW, trigger="page", who="ana")
    offered: dict[UUID, set[str]] = {}
    first_has_offered, second_is_done = threading.Event(), threading.Event()

    def second() -> None:
        first_has_offered.wait(10)
        with transaction.atomic():
            offered[workers[1].id] = {order.run for order in workers[1].offers()}
        connection.close()
        second_is_done.set()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction.atomic():  # not committed while the second one looks
        offered[workers[0].id] = {order.run for order in workers[0].offers()}
        first_has_offered.set()
        assert second_is_done.wait(10)
    thread.join()

    assert [len(runs) for runs in offered.values()] == [2, 2]
    assert len(set().union(*offered.values())) == 4


@pytest.fixture
def left_behind(processes: tuple[Process, Process]) -> FakeWorker:
    """A worker that counts as connected to a server that is gone; another one is connected to this one."""
    here, elsewhere = FakeWorker(SPEC, name="here"), FakeWorker(SPEC, name="elsewhere")
    for worker in (here, elsewhere):
        worker.join()
    Worker.objects.filter(pk=elsewhere.id).update(server=notifications.SERVER + 1)
    return elsewhere


def connected() -> set[str]:
    return set(Worker.objects.filter(connected=True).values_list("name", flat=True))


def test_a_sweep_finds_the_workers_of_a_server_that_is_gone(left_behind: FakeWorker) -> None:
    reports.sweep()
    assert connected() == {"here", "elsewhere"}  # one look is not enough
    reports.sweep()
    assert connected() == {"here"}


def test_a_server_that_begins_finds_them_at_once(left_behind: FakeWorker) -> None:
    reports.begin()
    assert connected() == {"here"}


def test_a_worker_that_was_killed_with_its_server_is_let_in_by_another(left_behind: FakeWorker) -> None:
    left_behind.boot = "boot-2"
    left_behind.join()
    assert connected() == {"here", "elsewhere"}


def test_what_no_room_was_left_for_is_told_to_the_others(processes: tuple[Process, Process]) -> None:
    """A server locks as many runs as it has slots, but they may be of flows whose workers have none left."""
    full, idle = FakeWorker(SPEC), FakeWorker(name="w2")
    for worker in (full, idle):
        worker.join()
    for _ in range(3):
        requests.trigger(flow=Flow.objects.get(), now=NOW, trigger="page", who="ana")
    with transaction.atomic():
        made = dispatch.offer(free={full.id: 1, idle.id: 2}, now=NOW)
        while not processes[0].heard.empty():
            processes[0].heard.get()
    assert len(made) == 1
    processes[0].hears(events.WORK)
