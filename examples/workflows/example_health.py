"""Infrastructure Health Check: measures that a person would take by hand, each against its limit."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from example_warehouse import writing

Report = Callable[[float, str], Any]
MEGABYTE = 1024 * 1024
TIMEOUT_SECONDS = 5.0
KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Reading:
    """One measured value and its limit. Without a `value` there is a `problem`, or `detail` says why this system cannot
    tell it; then it passes."""

    name: str
    value: float | None
    unit: str
    limit: float
    detail: str = ""
    problem: str = ""

    @property
    def passed(self) -> bool:
        """False when the limit is crossed, or when there was a problem in measuring."""
        return not self.problem and (self.value is None or self.value <= self.limit)

    def __str__(self) -> str:
        if self.value is None:
            return self.problem or f"{self.name}: {self.detail}"
        return f"{self.name} at {self.value:.4g} {self.unit} (limit {self.limit:g})"


def as_row(reading: Reading) -> dict[str, Any]:
    """The reading as a row of a table."""
    return {
        "check": reading.name,
        "measured": reading.value,
        "limit": reading.limit,
        "unit": reading.unit,
        "outcome": "passed" if reading.passed else "failed",
        "words": reading.problem or reading.detail,
    }


class CheckFailed(RuntimeError):
    """A check crossed its limit or could not be made; its reading says which."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(str(reading))
        self.reading = reading


class HealthCheckFailed(RuntimeError):
    """The flow's outcome when any check failed; the message lists them all."""


class Board:
    """Collects the readings of a run: a failed check does not keep the next ones from being made."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    @contextmanager
    def check(self) -> Iterator[Callable[[Reading], None]]:
        """`with board.check() as add: add(some_check())`."""
        try:
            yield self.readings.append
        except CheckFailed as failure:
            self.readings.append(failure.reading)


def middle(times: Sequence[float]) -> float:
    """The median, the upper one of two."""
    return sorted(times)[len(times) // 2]


# --- measures -------------------------------------------------------------------------------------------------------


class _NoAnswer(Exception):
    pass


def server_latency(url: str, limit_ms: float, requests: int, report: Report) -> Reading:
    """The median time in ms of GET `url`/healthz, connecting anew for each request; any answer but 200 is a problem."""
    times: list[float] = []
    try:
        for number in range(1, requests + 1):
            times.append(_get_ms(url))
            report(number / requests, f"request {number}: {times[-1]:.1f} ms")
    except _NoAnswer as problem:
        return Reading("server latency", None, "ms", limit_ms, problem=f"server {url}/healthz {problem}")
    detail = f"median of {requests}, slowest {max(times):.1f} ms"
    return Reading("server latency", round(middle(times), 2), "ms", limit_ms, detail)


def _get_ms(url: str) -> float:
    # Loaded here: http.client with ssl and email adds 7 MB that an idle worker should not carry.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    started = time.perf_counter()
    try:
        with closing(connect(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("GET", f"{parts.path.rstrip('/')}/healthz")
            answer = connection.getresponse()
            answer.read()
    except (OSError, HTTPException, ValueError) as error:
        raise _NoAnswer(f"does not answer: {error or type(error).__name__}") from error
    if answer.status != 200:
        raise _NoAnswer(f"answers {answer.status} {answer.reason}")
    return (time.perf_counter() - started) * 1000


def disk_used(folder: Path, limit_percent: float) -> Reading:
    """How full the disk of that folder is, as `df` counts it (0–100)."""
    usage = shutil.disk_usage(folder)
    percent = 100 * usage.used / (usage.used + usage.free)
    return Reading(f"disk {folder}", round(percent, 1), "%", limit_percent, f"{usage.free // MEGABYTE:,} MB free")


def memory_used(limit_percent: float, meminfo: Path = Path("/proc/meminfo")) -> Reading:
    """Memory that is not available to new programs, 0–100 (Linux)."""
    try:
        kilobytes = {
            key: int(rest.split()[0])
            for key, _, rest in (line.partition(":") for line in meminfo.read_text().splitlines())
        }
        total, available = kilobytes["MemTotal"], kilobytes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return Reading("memory", None, "%", limit_percent, "this system has no /proc/meminfo")
    percent = 100 * (total - available) / total
    return Reading("memory", round(percent, 1), "%", limit_percent, f"{available // 1024:,} MB available")


def load_average(limit_per_core: float) -> Reading:
    """The load of the last minute for each core: 1 means that every core had just enough to do."""
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return Reading("load", None, "a core", limit_per_core, "this system has no load average")
    return Reading("load", round(load / cores, 2), "a core", limit_per_core, f"{load:.2f} on {cores} cores")


def database_size(files: Sequence[Path], limit_mb: float) -> Reading:
    """The size in MB of database files with their journals. They are not opened: that is their owners' business."""
    beside = [file.with_name(file.name + suffix) for file in files for suffix in ("", "-wal", "-journal")]
    sizes = {path.name: path.stat().st_size for path in beside if path.exists()}
    detail = ", ".join(f"{name} {size / MEGABYTE:.1f} MB" for name, size in sizes.items()) or "no database yet"
    return Reading("database size", round(sum(sizes.values()) / MEGABYTE, 3), "MB", limit_mb, detail)


def write_latency(folder: Path, limit_ms: float, writes: int, report: Report) -> Reading:
    """The median time in ms of a committed (synced) one-row transaction on the disk of that folder."""
    probe = folder / f"write-probe-{uuid.uuid4().hex}.db"
    times: list[float] = []
    try:
        with closing(sqlite3.connect(str(probe), isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE probe (at REAL, text TEXT)")
            for number in range(1, writes + 1):
                started = time.perf_counter()
                db.execute("INSERT INTO probe VALUES (?, ?)", (started, "x" * 200))
                times.append((time.perf_counter() - started) * 1000)
                report(number / writes, f"write {number}: {times[-1]:.1f} ms")
    finally:
        for leftover in folder.glob(f"{probe.name}*"):
            leftover.unlink()
    detail = f"median of {writes}, slowest {max(times):.1f} ms"
    return Reading("write latency", round(middle(times), 2), "ms", limit_ms, detail)


def record(warehouse: Path, readings: Sequence[Reading], run: str, now: datetime) -> None:
    """Adds the readings to the table `health_checks` and drops those that are older than KEPT."""
    rows = [(now.isoformat(), run, r.name, r.value, r.unit, r.limit, r.passed, r.problem or r.detail) for r in readings]
    with writing(warehouse) as db:
        db.execute("DELETE FROM health_checks WHERE checked_at < ?", ((now - KEPT).isoformat(),))
        db.executemany("INSERT INTO health_checks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
