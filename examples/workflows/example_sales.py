"""Daily Sales ETL: from a file of purchases to the sales tables of the warehouse.

The steps work in a staging file of their own (one a run); only `publish` touches the warehouse, in one transaction.
A run killed anywhere leaves the warehouse as it was, and its staging file is swept a day later.
"""

from __future__ import annotations

import gzip
import hashlib
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from example_warehouse import SALES_TABLE_NAMES, SALES_TABLES, connect, has_load, transaction, writing

Report = Callable[[float, str], Any]
HEADER = [b"customer_id", b"date", b"number_of_cds", b"dollar_value"]
MAX_LINE = 4096  # bytes; what is longer is cut and rejected, so that a file without line ends cannot fill the memory
STALE_STAGING_SECONDS = 24 * 3600


class Purchase(NamedTuple):
    """One valid line. `day` is YYYY-MM-DD; money is whole cents, so that sums are exact."""

    customer_id: int
    day: str
    cds: int
    cents: int


class Totals(NamedTuple):
    """What a load arrives at."""

    purchases: int
    customers: int
    cds: int


# The published totals of files that we know by their SHA-256; a load of such a file must arrive at them.
KNOWN_TOTALS = {
    "ce9d3785b68a7d9d27120947dd510aec663c667b96ac0314988cbecbf2459436": Totals(69_659, 23_570, 167_881),
}


@dataclass(frozen=True)
class Cleaning:
    """The outcome of `clean`: counts, the reasons of rejected lines, and the first few of them to show."""

    lines: int
    accepted: int
    reasons: dict[str, int]
    shown: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """Lines that were no purchase."""
        return self.lines - self.accepted

    @property
    def rejected_percent(self) -> float:
        """0–100."""
        return 100.0 * self.rejected / self.lines if self.lines else 0.0


# --- rules: one line in, one purchase or one reason out -------------------------------------------------------------


@lru_cache(maxsize=4096)
def _day(text: bytes) -> str:
    if len(text) != 8 or not text.isdigit():
        return ""
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])).isoformat()
    except ValueError:
        return ""


@lru_cache(maxsize=65536)
def _cents(text: bytes) -> int | None:
    """Whole cents; None for what is no amount with at most two decimals."""
    dollars, _, decimals = text[text.startswith(b"-") :].partition(b".")
    if not dollars.isdigit() or len(dollars) > 9 or len(decimals) > 2 or not (decimals or b"0").isdigit():
        return None
    cents = int(dollars) * 100 + int(decimals.ljust(2, b"0"))
    return -cents if text.startswith(b"-") else cents


def _whole_number(text: bytes) -> int | None:
    digits = text[text.startswith(b"-") :]
    return int(text) if digits.isdigit() and len(digits) <= 9 else None


def parse_line(line: bytes) -> Purchase | str:
    """The purchase in a line, or the reason why there is none. Free CDs (a value of 0.00) are purchases."""
    if len(line) > MAX_LINE:
        return "line too long"
    if b"\0" in line:
        return "NUL byte"
    fields = line.split()
    if len(fields) != 4:
        return _why_not_four(fields, line)
    customer, day, cds, cents = _whole_number(fields[0]), _day(fields[1]), _whole_number(fields[2]), _cents(fields[3])
    if customer is None or customer <= 0:
        return "bad customer id" if _is_utf8(line) else "not UTF-8"
    if not day:
        return "bad date"
    if cds is None or cents is None:
        return "bad quantity" if cds is None else "bad value"
    if cds <= 0 or cents < 0:
        return "quantity not positive" if cds <= 0 else "negative value"
    return Purchase(customer, day, cds, cents)


def _why_not_four(fields: list[bytes], line: bytes) -> str:
    if not fields:
        return "empty line"
    return "wrong number of columns" if _is_utf8(line) else "not UTF-8"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- steps ----------------------------------------------------------------------------------------------------------


@contextmanager
def _staging(path: Path) -> Iterator[sqlite3.Connection]:
    """Journalled, so that a killed step can be run again; not synced, so a power cut costs it, and a new run is due."""
    with connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        yield db


def sweep_staging(directory: Path, now: float) -> int:
    """Removes the staging files that killed runs left more than a day before `now` (Unix seconds); returns how many."""
    stale = [path for path in directory.glob("*.db") if now - path.stat().st_mtime > STALE_STAGING_SECONDS]
    for path in stale:
        path.unlink()
    return len(stale)


def _numbered_lines(stream: Any) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        line = stream.readline(MAX_LINE + 1)
        if not line:
            return
        number += 1
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):  # skip the tail of an endless line
            rest = stream.readline(MAX_LINE + 1)
        if number > 1 or line.split() != HEADER:
            yield number, line.rstrip(b"\r\n")


def extract(source: Path, staging: Path, report: Report) -> int:
    """Unpacks `source` (gzip or plain text) line by line into the staging file; returns the number of data lines.

    The header line is not a data line. Raises FileNotFoundError, and ValueError for a damaged gzip file.
    """
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source} to read purchases from.")
    staging.unlink(missing_ok=True)
    size, lines = max(1, source.stat().st_size), 0
    with source.open("rb") as raw, _staging(staging) as db:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        db.execute("CREATE TABLE raw_lines (line_no INTEGER PRIMARY KEY, line BLOB NOT NULL)")
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            for batch in _batches(_numbered_lines(stream), 1000):
                db.execute("BEGIN")
                db.executemany("INSERT INTO raw_lines VALUES (?, ?)", batch)
                db.execute("COMMIT")
                lines += len(batch)
                report(min(1.0, raw.tell() / size), f"{lines:,} lines")
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{source.name} is damaged after line {lines:,}: {error}") from error
    return lines


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def clean(staging: Path, shown: int, report: Report) -> Cleaning:
    """Sorts the staged lines into purchases and rejected lines with their reason; reports about every percent."""
    reasons: Counter[str] = Counter()
    samples: list[str] = []
    accepted = done = 0
    with _staging(staging) as db:
        db.executescript("".join(f"DROP TABLE IF EXISTS {name};" for name in SALES_TABLE_NAMES))
        db.executescript(SALES_TABLES.format(schema="main"))
        lines = db.execute("SELECT count(*) FROM raw_lines").fetchone()[0]
        rows = db.execute("SELECT line_no, line FROM raw_lines ORDER BY line_no")
        db.execute("BEGIN")
        for batch in _batches(rows, max(1, lines // 100)):
            purchases, rejected = _sort_batch(batch)
            db.executemany("INSERT INTO purchases VALUES (?, ?, ?, ?)", purchases)
            db.executemany("INSERT INTO rejected_lines VALUES (?, ?, ?)", rejected)
            reasons.update(reason for _, reason, _ in rejected)
            samples += [f"line {number}: {reason}: {text}" for number, reason, text in rejected[: shown - len(samples)]]
            accepted, done = accepted + len(purchases), done + len(batch)
            report(done / lines, f"{done:,} of {lines:,} lines")
        db.execute("COMMIT")
    return Cleaning(lines=lines, accepted=accepted, reasons=dict(reasons.most_common()), shown=samples)


def _sort_batch(batch: list[tuple[int, bytes]]) -> tuple[list[Purchase], list[tuple[int, str, str]]]:
    purchases: list[Purchase] = []
    rejected: list[tuple[int, str, str]] = []
    for number, line in batch:
        outcome = parse_line(line)
        if isinstance(outcome, Purchase):
            purchases.append(outcome)
        else:
            rejected.append((number, outcome, readable(line)))
    return purchases, rejected


def readable(line: bytes) -> str:
    """The start of a line as text that is safe to show: what is not printable is escaped."""
    text = line[:120].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def build_customers(staging: Path) -> int:
    """One row a customer: first and last day, purchases, CDs, money. Returns the number of customers."""
    return _rebuild(
        staging,
        "customers",
        """
        SELECT customer_id, min(day), max(day), count(*), sum(cds), sum(cents) FROM purchases GROUP BY customer_id""",
    )


def build_daily_sales(staging: Path) -> int:
    """One row a day with purchases, buyers, first-time buyers, CDs and money. Returns the number of days."""
    return _rebuild(
        staging,
        "daily_sales",
        """
        SELECT p.day, count(*), count(DISTINCT p.customer_id),
               (SELECT count(*) FROM customers c WHERE c.first_day = p.day), sum(p.cds), sum(p.cents)
        FROM purchases p GROUP BY p.day""",
    )


def _rebuild(staging: Path, table: str, query: str) -> int:
    with _staging(staging) as db:
        db.execute("CREATE INDEX IF NOT EXISTS customers_first_day ON customers (first_day)")
        db.execute(f"DELETE FROM {table}")
        return db.execute(f"INSERT INTO {table} {query}").rowcount


def staged_totals(staging: Path) -> Totals:
    """What the staging file holds, counted from the tables that will be published."""
    with connect(staging) as db:
        customers, purchases, cds = db.execute("SELECT count(*), sum(purchases), sum(cds) FROM customers").fetchone()
        sold = db.execute("SELECT coalesce(sum(cds), 0), count(*) FROM purchases").fetchone()
        daily = db.execute("SELECT coalesce(sum(cds), 0), coalesce(sum(purchases), 0) FROM daily_sales").fetchone()
    if not (sold == daily == (cds or 0, purchases or 0)):
        raise ValueError(f"The tables disagree: purchases {sold}, daily sales {daily}, customers {(cds, purchases)}.")
    return Totals(purchases or 0, customers, cds or 0)


def reconcile(source: Path, cleaning: Cleaning, totals: Totals) -> str:
    """Checks a load before it is published; returns the SHA-256 of the source. Raises ValueError with the reason."""
    if not totals.purchases:
        raise ValueError(f"{source.name} holds no valid purchase: the warehouse stays as it was.")
    if totals.purchases != cleaning.accepted:
        raise ValueError(f"{cleaning.accepted:,} lines were accepted, but {totals.purchases:,} arrived.")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    expected = KNOWN_TOTALS.get(sha256, totals)
    if totals != expected:
        raise ValueError(f"{source.name} must arrive at {expected}, not at {totals}.")
    return sha256


def publish(
    staging: Path,
    warehouse: Path,
    *,
    source: Path,
    cleaning: Cleaning,
    run: str,
    now: str,
    report: Report,
    only_if_empty: bool = False,
) -> Totals:
    """Replaces the sales tables of the warehouse by the staged ones, in one transaction. Returns the totals.

    With `only_if_empty` a load that somebody else published meanwhile is left alone. `now` is ISO 8601.
    """
    totals = staged_totals(staging)
    sha256 = reconcile(source, cleaning, totals)
    with writing(warehouse):
        pass  # the tables must exist before the staging file can be attached, which no transaction allows
    with connect(warehouse) as db:
        db.execute("ATTACH ? AS staged", (str(staging),))
        with transaction(db):
            if only_if_empty and has_load(db):
                return totals
            for step, table in enumerate(SALES_TABLE_NAMES, start=1):
                db.execute(f"DELETE FROM main.{table}")
                db.execute(f"INSERT INTO main.{table} SELECT * FROM staged.{table}")
                report(step / 5, table)
            db.execute(
                "INSERT INTO loads (loaded_at, run, source, sha256, lines, purchases, customers, cds, rejected)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (now, run, source.name, sha256, cleaning.lines, *totals, cleaning.rejected),
            )
    report(1.0, "committed")
    return totals


def load_if_missing(source: Path, staging: Path, warehouse: Path, *, run: str, now: str, report: Report) -> Totals:
    """All steps at once, for a flow that needs sales before the ETL ever ran. Safe when several do it together."""
    try:
        extract(source, staging, lambda share, text: report(share * 0.3, text))
        cleaning = clean(staging, 0, lambda share, text: report(0.3 + share * 0.4, text))
        build_customers(staging)
        build_daily_sales(staging)
        return publish(
            staging,
            warehouse,
            source=source,
            cleaning=cleaning,
            run=run,
            now=now,
            only_if_empty=True,
            report=lambda share, text: report(0.7 + share * 0.3, text),
        )
    finally:
        staging.unlink(missing_ok=True)
