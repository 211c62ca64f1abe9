"""The numbers of the Weekly Executive Report, all read from the warehouse. Money is in cents, shares are 0–1."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from example_warehouse import connect

DAYS_SHOWN = 56
MOST_WEEKS, MOST_CUSTOMERS = 104, 15


class Week(NamedTuple):
    """Sales of Monday to Sunday; `start` is the Monday."""

    start: date
    cents: int
    purchases: int
    customers: int
    new_customers: int
    cds: int

    @property
    def basket_cents(self) -> float:
        """Average value of a purchase."""
        return self.cents / self.purchases if self.purchases else 0.0


class WeekSales(NamedTuple):
    """One bar of the chart; `start` is the Monday."""

    start: date
    cents: int
    purchases: int


class TopCustomer(NamedTuple):
    """A customer by money spent since the beginning; `week_cents` of it in the report's week."""

    customer_id: int
    first_day: str
    purchases: int
    cds: int
    cents: int
    week_cents: int


class Cohort(NamedTuple):
    """Customers who first bought in a month, and the share of them that bought in each later quarter."""

    month: str
    customers: int
    active: list[float]


class Trial(NamedTuple):
    """A model that was trained, kept or not."""

    version: int
    trained_at: str
    configuration: str
    kind: str
    auc: float
    in_use: bool
    kept: bool


class Measure(NamedTuple):
    """One reading of the latest health check, and in how many checks of the last 30 days it passed (0–1)."""

    name: str
    value: float | None
    unit: str
    limit: float
    passed: bool
    passed_share: float


@dataclass(frozen=True)
class Kpis:
    """The week of the report, the one before, and everything since the beginning."""

    week: Week
    before: Week
    purchases: int
    customers: int
    cds: int
    cents: int
    repeat_share: float
    first_day: str
    last_day: str
    lines: int
    rejected: int
    source: str
    loaded_at: str


@dataclass(frozen=True)
class Trends:
    """What the charts and tables show."""

    weeks: list[WeekSales]
    days: list[tuple[date, int]]
    top: list[TopCustomer]
    cohorts: list[Cohort]
    quarters: list[str]
    model: dict[str, Any] | None
    trials: list[Trial]
    health: list[Measure]


def monday_of(day: date) -> date:
    """The Monday of the week of that day."""
    return day - timedelta(days=day.weekday())


def choose_week(warehouse: Path, week_of: str) -> date:
    """The Monday of the week that holds `week_of` (YYYY-MM-DD), or of the last complete week in the warehouse if empty.

    Raises ValueError for a date that is none or has no sales around it.
    """
    with connect(warehouse) as db:
        span = db.execute("SELECT min(day), max(day) FROM daily_sales").fetchone()
    first, last = (date.fromisoformat(day) for day in span)
    if not week_of:
        return monday_of(last - timedelta(days=6))
    try:
        monday = monday_of(date.fromisoformat(week_of))
    except ValueError:
        raise ValueError(f"week_of is {week_of!r}: write a date as YYYY-MM-DD.") from None
    if not monday_of(first) <= monday <= last:
        raise ValueError(f"week_of is {week_of}: the warehouse has sales from {first} to {last}.")
    return monday


def read_week(db: sqlite3.Connection, monday: date) -> Week:
    """Sales of one week. Customers are counted once a week, so daily sales cannot tell them."""
    span = (monday.isoformat(), (monday + timedelta(days=6)).isoformat())
    cents, purchases, customers, cds = db.execute(
        "SELECT coalesce(sum(cents), 0), count(*), count(DISTINCT customer_id), coalesce(sum(cds), 0)"
        " FROM purchases WHERE day BETWEEN ? AND ?",
        span,
    ).fetchone()
    new = db.execute("SELECT count(*) FROM customers WHERE first_day BETWEEN ? AND ?", span).fetchone()[0]
    return Week(monday, cents, purchases, customers, new, cds)


def compute_kpis(warehouse: Path, monday: date) -> Kpis:
    """The tiles of the report for the week that starts on `monday`."""
    with connect(warehouse) as db:
        totals = db.execute(
            "SELECT sum(purchases), count(*), sum(cds), sum(cents), avg(purchases > 1), min(first_day), max(last_day)"
            " FROM customers"
        ).fetchone()
        load = db.execute("SELECT lines, rejected, source, loaded_at FROM loads ORDER BY id DESC LIMIT 1").fetchone()
        return Kpis(read_week(db, monday), read_week(db, monday - timedelta(days=7)), *totals, *load)


def compute_trends(warehouse: Path, monday: date, weeks: int, top: int) -> Trends:
    """Charts and tables: `weeks` weeks up to the report's, the `top` customers, the cohorts, the models, the health.

    Raises ValueError if the charts would not fit the page.
    """
    for name, value, most in (("weeks", weeks, MOST_WEEKS), ("top_customers", top, MOST_CUSTOMERS)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} is {value}: choose 1 to {most}.")
    first = monday - timedelta(weeks=weeks - 1)
    end = monday + timedelta(days=6)
    with connect(warehouse) as db:
        daily = {
            day: values
            for day, *values in db.execute(
                "SELECT day, cents, purchases FROM daily_sales WHERE day <= ?", (end.isoformat(),)
            )
        }
        quarters, cohorts = _cohorts(db)
        return Trends(
            weeks=[_sum_week(daily, first + timedelta(weeks=n)) for n in range(weeks)],
            days=[(day, daily.get(day.isoformat(), [0])[0]) for day in _days_until(end)],
            top=[
                TopCustomer(*row)
                for row in db.execute(
                    "SELECT c.customer_id, c.first_day, c.purchases, c.cds, c.cents, coalesce((SELECT sum(p.cents)"
                    " FROM purchases p WHERE p.customer_id = c.customer_id AND p.day BETWEEN ? AND ?), 0)"
                    " FROM (SELECT * FROM customers ORDER BY cents DESC, customer_id LIMIT ?) c",
                    (monday.isoformat(), end.isoformat(), top),
                )
            ],
            cohorts=cohorts,
            quarters=quarters,
            model=_model(db),
            trials=[
                Trial(*row)
                for row in db.execute(
                    "SELECT version, trained_at, configuration, kind, auc, in_use, file <> '' FROM models"
                    " ORDER BY version DESC LIMIT 5"
                )
            ],
            health=[
                Measure(*row)
                for row in db.execute(
                    "SELECT name, value, unit, max_value, passed,"
                    " (SELECT avg(passed) FROM health_checks h WHERE h.name = latest.name) FROM health_checks latest"
                    " WHERE run = (SELECT run FROM health_checks ORDER BY rowid DESC LIMIT 1) ORDER BY rowid"
                )
            ],
        )


def _days_until(end: date) -> list[date]:
    return [end - timedelta(days=n) for n in reversed(range(DAYS_SHOWN))]


def _sum_week(daily: dict[str, list[int]], monday: date) -> WeekSales:
    days = [daily.get((monday + timedelta(days=n)).isoformat(), [0, 0]) for n in range(7)]
    return WeekSales(monday, sum(cents for cents, _ in days), sum(purchases for _, purchases in days))


def _cohorts(db: sqlite3.Connection) -> tuple[list[str], list[Cohort]]:
    """Quarter names, and a row for each month of first purchase."""
    quarter = "substr(p.day, 1, 4) || ' Q' || ((substr(p.day, 6, 2) + 2) / 3)"
    counts: dict[str, dict[str, int]] = {}
    for month, name, customers in db.execute(
        f"SELECT substr(c.first_day, 1, 7), {quarter}, count(DISTINCT p.customer_id)"
        " FROM purchases p JOIN customers c USING (customer_id) WHERE p.day > c.first_day GROUP BY 1, 2"
    ):
        counts.setdefault(month, {})[name] = customers
    sizes = db.execute("SELECT substr(first_day, 1, 7), count(*) FROM customers GROUP BY 1 ORDER BY 1").fetchall()
    quarters = sorted({name for row in counts.values() for name in row})[:6]
    return quarters, [
        Cohort(month, size, [counts.get(month, {}).get(name, 0) / size for name in quarters])
        for month, size in sizes[:6]
    ]


def _model(db: sqlite3.Connection) -> dict[str, Any] | None:
    row = db.execute(
        "SELECT version, trained_at, kind, trained_on, configuration, metrics FROM models WHERE in_use = 1"
    ).fetchone()
    if row is None:
        return None
    model = dict(zip(("version", "trained_at", "kind", "trained_on", "configuration"), row[:5]))
    model.update(json.loads(row[5]))
    return model
