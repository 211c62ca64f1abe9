"""Two servers on one PostgreSQL, as processes: A and B, each with a home of its own, and two clocks."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.house import ROOT, House
from tests.needs import missing

try:
    import psycopg
except ImportError:
    psycopg = None

SECRET_KEY = "only-for-tests-" + "x" * 40


@pytest.fixture(scope="session")
def postgres() -> str:
    """The address of a PostgreSQL server, without a database's name."""
    url = os.environ.get("TESTS_POSTGRES_URL") or f"postgres://{getpass.getuser()}@127.0.0.1:5432/postgres"
    if psycopg is None:
        missing("no driver for PostgreSQL here: pip install -r requirements-postgres.txt")
    base = url.rpartition("/")[0]
    try:
        psycopg.connect(f"{base}/postgres", connect_timeout=5).close()
    except psycopg.OperationalError as error:
        missing(f"no PostgreSQL here, give TESTS_POSTGRES_URL=postgres://…: {str(error).splitlines()[0]}")
    return base


class Pair:
    """Servers A and B of one database. Their workers write into one ledger."""

    def __init__(self, folder: Path, base: str, name: str) -> None:
        self.url = f"{base}/{name}"
        self.a, self.b = (self._house(folder / letter, folder) for letter in "ab")
        self.houses = [self.a, self.b]
        token = self.a.manage("createtoken", "journey", "--scope", "admin", check=True).stdout.split()[-1]
        for house in self.houses:
            house._token = token

    def _house(self, home: Path, folder: Path) -> House:
        home.mkdir()
        house = House(home, prepared=False)
        house.ledger, house.gate = folder / "ledger", folder / "gate"
        house.env.update(
            PERFECT_DATABASE_URL=self.url,
            PERFECT_SECRET_KEY=SECRET_KEY,
            PERFECT_ENCRYPTION_KEY=SECRET_KEY,
            JOURNEY_LEDGER=str(house.ledger),
            JOURNEY_GATE=str(house.gate),
        )
        return house

    def start(self) -> None:
        for house in self.houses:
            house.start_server("--no-clock")
            house._spawn("clock", [sys.executable, str(ROOT / "manage.py"), "runclock"])

    def stop(self) -> None:
        for house in self.houses:
            house.stop()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def cut(self, query: str = "%") -> int:
        """End the database connections whose last statement was like ``query``; how many there were."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s",
                query,
            )
        )


@contextlib.contextmanager
def opened(folder: Path, base: str) -> Iterator[Pair]:
    name = "perfect_" + re.sub(r"\W", "", secrets.token_hex(6))
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            pair = Pair(folder, base, name)
            try:
                pair.start()
                yield pair
            finally:
                pair.stop()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Pair]:
    """Two servers; the only worker is connected to B."""
    with opened(tmp_path_factory.mktemp("pair"), postgres) as pair:
        pair.b.start_worker(name="w2")
        pair.b.ready("steady")
        yield pair
