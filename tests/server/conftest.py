"""A worker's side of the deeds, without sockets: what a real worker would say, said to the deeds directly."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection
from perfect_client.wire import messages

from flows.models import Flow
from runs import notifications
from runs.clock.steps import SWEEP, Clock
from runs.ingest import dispatch, ledger, reports
from runs.models import Run
from runs.services import history, requests

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def seconds(after: float = 0.0) -> float:
    return (NOW + timedelta(seconds=after)).timestamp()


class FakeWorker:
    """Says what a worker says; ``slots`` at a time."""

    def __init__(self, *specs: messages.FlowSpec, slots: int = 2, name: str = "w1") -> None:
        self.id, self.boot, self.name, self.slots = uuid.uuid4(), "boot-1", name, slots
        self.specs = list(specs)

    def join(self, *held: messages.Held, now: datetime = NOW) -> messages.Accept:
        accept = reports.join(
            message=messages.Joined(
                worker=str(self.id), boot=self.boot, name=self.name, slots=self.slots, held=list(held)
            ),
            now=now,
        )
        reports.announce(worker=self.id, message=messages.FlowsAnnounced(self.specs), now=now)
        return accept

    def offers(self, free: int | None = None, now: datetime = NOW) -> list[messages.OfferRun]:
        made = dispatch.offer(free={self.id: self.slots if free is None else free}, now=now)
        return [offer.order for offer in made]

    def claim(self, order: messages.OfferRun, now: datetime = NOW) -> object:
        return dispatch.claim(worker=self.id, fence=order.fence, run_id=order.run, now=now)

    def take(self, now: datetime = NOW) -> messages.OfferRun:
        """Offer and claim the next waiting run."""
        (order,) = self.offers(free=1, now=now)
        assert self.claim(order, now) == messages.StartRun(order.fence)
        return order

    def say(
        self,
        order: messages.OfferRun,
        *facts: object,
        first: int = 1,
        stream: str = messages.FACTS,
        now: datetime = NOW,
    ) -> object:
        rows = [fact if isinstance(fact, dict) else {"type": type(fact).__name__, **fact.__dict__} for fact in facts]
        message = messages.FactsRecorded(order.fence, order.run, first, rows, stream)
        return ledger.record(worker=self.id, message=message, now=now)


SPEC = messages.FlowSpec(
    "Daily Sales ETL",
    tags=["sales"],
    parameters={
        "type": "object",
        "properties": {"limit": {"type": "integer", "default": 10}, "path": {"type": "string", "default": ""}},
        "additionalProperties": False,
    },
    configurations={"development": {"limit": 5}, "release": {}},
    tasks=[
        messages.TaskSpec("extract", "extract", weight=1),
        messages.TaskSpec("load", "load", weight=3, estimated_ms=2_000),
    ],
)


def tick(clock: Clock, since: datetime, until: datetime) -> None:
    """The clock's sweeps from ``since`` to ``until``, while the monotonic clock goes along with that on the wall."""
    at = since
    while at < until:
        clock.step(at, at.timestamp())
        at += SWEEP
    clock.step(until, until.timestamp())


def only_on(database: str) -> None:
    """Skip a test of what another database does not have."""
    if connection.display_name != database:
        pytest.skip(f"the database is not {database}")


def sqlite_file() -> str:
    """The file of the database. Skip where there is none: SQLite would make one, named like PostgreSQL's database."""
    only_on("SQLite")
    return str(connection.settings_dict["NAME"])


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Another process, as far as SQLite can tell, holds the write lock."""
    other = sqlite3.connect(sqlite_file(), isolation_level=None, timeout=5, check_same_thread=False)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another database than SQLite only what uses the database is worth trying once more."""
    if connection.vendor == "sqlite":
        return
    mine = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    others = [item for item in mine if not _uses_database(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _uses_database(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or not {"db", "transactional_db"}.isdisjoint(names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """What the sockets of a test write when its event loop ends is over before the next test begins.

    They write it on a thread of their own, with a connection that waits for the lock of the test's transaction: of
    SQLite's. On PostgreSQL it waits for nothing, and must be gone when the last test drops the database.
    """
    if connection.vendor != "sqlite":
        _end_late_writes()
    yield
    _end_late_writes()


def _end_late_writes() -> None:
    SyncToAsync.single_thread_executor.submit(lambda: connection.close()).result(timeout=60)


@pytest.fixture(autouse=True)
def nothing_learned_elsewhere() -> None:
    """What a process remembers of other tests' databases is forgotten."""
    history.forget()
    dispatch.forget_all()
    ledger.ledgers.clear()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def worker(db: None) -> FakeWorker:
    """A connected worker with two slots and one flow of two tasks."""
    worker = FakeWorker(SPEC)
    worker.join()
    return worker


@pytest.fixture
def serving(db: None) -> Iterator[None]:
    """This process counts as a server that lives, also to others on PostgreSQL."""
    notifications.start(lambda topics: None)
    yield
    notifications.stop()


@pytest.fixture
def flow(worker: FakeWorker) -> Flow:
    return Flow.objects.get(name="Daily Sales ETL")


@pytest.fixture
def run(flow: Flow) -> Run:
    """A waiting run."""
    return requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
