"""The warehouse: one SQLite file, its tables, and the one way to change it.

Rollback journal, not WAL: the flows write seldom and in short transactions, a single file is easy to copy, and any
number of processes may open it for the first time at once. A reader waits at most for one commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_SECONDS = 60.0  # A load holds the lock for well under a second; a minute covers a very slow disk.

SALES_TABLES = """
CREATE TABLE IF NOT EXISTS {schema}.purchases (
    customer_id INTEGER NOT NULL, day TEXT NOT NULL, cds INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.customers (
    customer_id INTEGER PRIMARY KEY, first_day TEXT NOT NULL, last_day TEXT NOT NULL,
    purchases INTEGER NOT NULL, cds INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.daily_sales (
    day TEXT PRIMARY KEY, purchases INTEGER NOT NULL, customers INTEGER NOT NULL,
    new_customers INTEGER NOT NULL, cds INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.rejected_lines (
    line_no INTEGER PRIMARY KEY, reason TEXT NOT NULL, line TEXT NOT NULL);
"""
SALES_TABLE_NAMES = ("purchases", "customers", "daily_sales", "rejected_lines")

HISTORY_TABLES = """
CREATE TABLE IF NOT EXISTS loads (
    id INTEGER PRIMARY KEY, loaded_at TEXT NOT NULL, run TEXT NOT NULL, source TEXT NOT NULL, sha256 TEXT NOT NULL,
    lines INTEGER NOT NULL, purchases INTEGER NOT NULL, customers INTEGER NOT NULL, cds INTEGER NOT NULL,
    rejected INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS churn_features (
    customer_id INTEGER PRIMARY KEY, held_out INTEGER NOT NULL, bought_again INTEGER NOT NULL, features TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    version INTEGER PRIMARY KEY, trained_at TEXT NOT NULL, run TEXT NOT NULL, configuration TEXT NOT NULL,
    kind TEXT NOT NULL, trained_on INTEGER NOT NULL, auc REAL NOT NULL, metrics TEXT NOT NULL,
    file TEXT NOT NULL, in_use INTEGER NOT NULL, verdict TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_model_in_use ON models (in_use) WHERE in_use = 1;
CREATE TABLE IF NOT EXISTS health_checks (
    checked_at TEXT NOT NULL, run TEXT NOT NULL, name TEXT NOT NULL, value REAL, unit TEXT NOT NULL,
    max_value REAL, passed INTEGER NOT NULL, detail TEXT NOT NULL);
"""


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode; `transaction` is how anything is written. Closed at the end."""
    with closing(sqlite3.connect(str(path), timeout=BUSY_SECONDS, isolation_level=None)) as db:
        yield db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing. IMMEDIATE, so that two writers queue at the start and cannot deadlock in the middle."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.rollback()
        raise
    db.commit()


def create_tables(db: sqlite3.Connection) -> None:
    """Creates the tables that are missing; call it inside a transaction."""
    for statement in (SALES_TABLES.format(schema="main") + HISTORY_TABLES).split(";"):
        db.execute(statement)


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on the warehouse, which is created when missing."""
    with connect(path) as db, transaction(db):
        create_tables(db)
        yield db


def is_loaded(path: Path) -> bool:
    """True when a load of sales has ever been published in this warehouse."""
    if not path.exists():
        return False
    with connect(path) as db:
        return has_load(db)


def has_load(db: sqlite3.Connection) -> bool:
    """The same question on an open connection."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'loads'").fetchone():
        return False
    return db.execute("SELECT 1 FROM loads LIMIT 1").fetchone() is not None
