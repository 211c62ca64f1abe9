"""The invariants that every journey must leave behind, read from the database alone (SQLite's file, PostgreSQL's URL).

The ground truth of what user code did stands outside Perfect: journeys' flows append to a ledger file, one line per
start and per printed line, and the checker compares.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any
from uuid import UUID

Database = Path | str
Row = Any  # a row by the names of its columns

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED", "SKIPPED"}
TASK_FINAL = {"COMPLETED", "CACHED", "FAILED", "SKIPPED", "CANCELLED", "CRASHED"}
MOVES = {
    ("", "PENDING"),
    ("", "SCHEDULED"),
    ("SCHEDULED", "PENDING"),
    ("PENDING", "OFFERED"),
    ("OFFERED", "PENDING"),
    ("OFFERED", "RUNNING"),
    ("RUNNING", "LOST"),
    ("LOST", "RUNNING"),
    ("RUNNING", "PAUSED"),
    ("PAUSED", "RUNNING"),
    ("PAUSED", "LOST"),
    ("LOST", "PAUSED"),
    *(
        (before, after)
        for before in ("RUNNING", "LOST", "PAUSED")
        for after in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    ),
    *((before, "CANCELLED") for before in ("SCHEDULED", "PENDING", "OFFERED")),
    ("", "RUNNING"),  # a sub-run, and it alone
    *((before, "SKIPPED") for before in ("SCHEDULED", "PENDING")),
}


def rows(database: Database, sql: str) -> list[Row]:
    if isinstance(database, str):
        return _rows_of_postgres(database, sql)
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _rows_of_postgres(url: str, sql: str) -> list[Row]:
    """With UUIDs as SQLite keeps them: 32 digits."""
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url, row_factory=dict_row) as connection:
        found = connection.execute(sql.encode()).fetchall()
    return [{name: v.hex if isinstance(v, UUID) else v for name, v in row.items()} for row in found]


def faults(database: Database, ledger: Path | None = None, *, settled: bool = True) -> list[str]:
    """Everything that is wrong, a sentence each; ``settled``: every run should be final by now."""
    found = []
    if isinstance(database, Path):
        found += [f"integrity_check: {row[0]}" for row in rows(database, "PRAGMA integrity_check") if row[0] != "ok"]
        found += [f"foreign key without its row: {tuple(row)}" for row in rows(database, "PRAGMA foreign_key_check")]
    runs = {row["id"]: row for row in rows(database, "SELECT * FROM runs_run")}
    for run in runs.values():
        found += _run_faults(run, settled)
        found += _family_faults(run, runs)
    found += _event_faults(database, runs)
    found += _task_faults(database, runs)
    found += _line_faults(database, runs)
    found += [
        f"attempt {row['id']}: {row['n']} facts were set aside: {row['reason']}"
        for row in rows(
            database, "SELECT attempt_id AS id, count(*) AS n, min(reason) AS reason FROM runs_quarantine GROUP BY 1"
        )
    ]
    found += [
        f"schedule {row['schedule_id']} fired {row['n']} times for {row['due_at']}"
        for row in rows(
            database,
            "SELECT schedule_id, due_at, count(*) AS n FROM runs_run WHERE due_at IS NOT NULL"
            " GROUP BY 1, 2 HAVING count(*) > 1",
        )
    ]
    found += [
        f"question {row['id']} of attempt {row['attempt_id']} outlives its run"
        for row in rows(
            database,
            "SELECT q.id, q.attempt_id FROM runs_question q JOIN runs_attempt a ON a.id = q.attempt_id"
            " JOIN runs_run r ON r.id = a.run_id WHERE r.finished_at IS NOT NULL",
        )
    ]
    if ledger is not None:
        found += _ledger_faults(database, ledger, runs)
    return found


def _run_faults(run: Row, settled: bool) -> list[str]:
    found = []
    if settled and run["state"] not in FINAL:
        found.append(f"run {run['id']} is {run['state']} still: {run['state_reason']}")
    if (run["state"] in FINAL) != (run["finished_at"] is not None):
        found.append(f"run {run['id']} is {run['state']} with end {run['finished_at']}")
    if not 0 <= run["progress"] <= 100 or (run["progress"] == 100) != (run["state"] == "COMPLETED"):
        found.append(f"run {run['id']} is {run['state']} at {run['progress']} %")
    return found


def _family_faults(run: Row, runs: dict[str, Row]) -> list[str]:
    """A sub-run belongs to a root that is none, through a parent of the same root, and does not outlive them."""
    if run["parent_id"] is None:
        return []
    parent, root = runs[run["parent_id"]], runs[run["root_id"]]
    found = []
    if root["parent_id"] is not None or (parent["root_id"] or parent["id"]) != root["id"]:
        found.append(f"sub-run {run['id']} has lost its family")
    if run["state"] not in FINAL and (parent["state"] in FINAL or root["state"] in FINAL):
        found.append(f"sub-run {run['id']} is {run['state']}, the run around it {parent['state']}")
    return found


def _event_faults(database: Database, runs: dict[str, Row]) -> list[str]:
    found = []
    last: dict[str, str] = {}
    for event in rows(database, "SELECT * FROM runs_event WHERE after != '' ORDER BY id"):
        run, before, after = event["run_id"], event["before"], event["after"]
        born = before == "" and (after == "RUNNING") != (runs[run]["parent_id"] is not None)
        if last.get(run, "") != before or (before, after) not in MOVES or born:
            found.append(f"run {run} moved {before or '(new)'} → {after} after {last.get(run, '(nothing)')}")
        last[run] = after
    found += [
        f"run {pk} is {run['state']}, its last event says {last.get(pk)}"
        for pk, run in runs.items()
        if last.get(pk) != run["state"]
    ]
    return found


def _task_faults(database: Database, runs: dict[str, Row]) -> list[str]:
    return [
        f"task run {row['name']} of the final run {row['run_id']} is {row['state']}"
        for row in rows(database, "SELECT run_id, name, state FROM runs_taskrun")
        if runs[row["run_id"]]["state"] in FINAL and row["state"] not in TASK_FINAL
    ]


def _line_faults(database: Database, runs: dict[str, Row]) -> list[str]:
    found = []
    sql = "SELECT run_id, count(*) AS n, min(seq) AS first, max(seq) AS last FROM runs_logline GROUP BY run_id"
    counted = {row["run_id"]: row for row in rows(database, sql)}
    sql = "SELECT subrun, count(*) AS n FROM runs_logline WHERE subrun IS NOT NULL GROUP BY subrun"
    of_subs = {row["subrun"]: row["n"] for row in rows(database, sql)}
    for pk, run in runs.items():
        row = counted.get(pk)
        n = row["n"] if row else of_subs.get(pk, 0)
        if n != run["log_count"] or (row and (row["first"], row["last"]) != (1, n)):
            found.append(f"run {pk} counts {run['log_count']} lines, has {n}")
    return found


def _ledger_faults(database: Database, ledger: Path, runs: dict[str, Row]) -> list[str]:
    """The ledger's lines are JSON: a run's id with ``start``, ``step`` (a number), ``line`` (a string) or ``end``."""
    found = []
    entries = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    begun: dict[tuple[str, str], int] = {}
    printed: dict[str, list[str]] = {}
    ended: set[str] = set()
    for entry in entries:
        run = entry["run"].replace("-", "")
        begins = "the code" if entry.get("start") else f"step {entry['step']}" if "step" in entry else ""
        if begins:
            begun[run, begins] = begun.get((run, begins), 0) + 1
        if "line" in entry:
            printed.setdefault(run, []).append(entry["line"])
        if entry.get("end"):
            ended.add(run)
    stored: dict[str, list[str]] = {}
    dropped: dict[str, int] = {}
    for row in rows(
        database,
        "SELECT coalesce(subrun, run_id) AS run, message, dropped FROM runs_logline"
        " WHERE message LIKE 'ledger %' OR dropped > 0 ORDER BY run_id, seq",
    ):
        if row["dropped"]:
            dropped[row["run"]] = dropped.get(row["run"], 0) + row["dropped"]
        else:
            stored.setdefault(row["run"], []).append(row["message"])
    for (pk, what), times in begun.items():
        if pk not in runs:
            found.append(f"run {pk}: {what} started, and no row knows of the run")
        elif times > runs[pk]["attempt"]:
            found.append(f"run {pk}: {what} started {times} times in {runs[pk]['attempt']} attempts")
    for pk, run in runs.items():
        if run["state"] == "COMPLETED" and (pk, "the code") in begun and pk not in ended:
            found.append(f"run {pk} is COMPLETED, but its code did not reach its end")
        told, kept = printed.get(pk, []), stored.get(pk, [])
        # A line is told to the ledger just before it is printed: a kill in between may leave the last one untold.
        short = run["state"] in {"CRASHED", "CANCELLED"}
        if not any(_kept_as_told(kept, lines, dropped.get(pk, 0)) for lines in (told, told[:-1])[: 1 + short]):
            at = next((n for n, (one, other) in enumerate(zip(told, kept, strict=False)) if one != other), -1)
            where = f": from {kept[at]!r} on, instead of {told[at]!r}" if at >= 0 else ""
            found.append(f"run {pk} ({run['state']}) printed {len(told)} lines, {len(kept)} are kept{where}")
    return found


def _kept_as_told(kept: list[str], told: list[str], dropped: int) -> bool:
    """In order and all of them, but for as many as the log's own markers say were dropped."""
    rest = iter(told)
    return all(line in rest for line in kept) and 0 <= len(told) - len(kept) <= dropped
