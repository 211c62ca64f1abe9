"""Infrastructure Health Check: a crossed limit is a failed check with a named reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import example_health as health
import pytest
from example_warehouse import connect

from .small_server import server

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def quiet(share: float, text: str) -> None:
    pass


def test_the_latency_of_a_server_that_answers_is_measured() -> None:
    with server(200) as url:
        reading = health.server_latency(url, 5000, 3, quiet)

    assert reading.passed and reading.value and 0 < reading.value < 5000
    assert reading.detail.startswith("median of 3")


def test_a_server_that_is_ill_or_silent_fails_the_check() -> None:
    with server(503) as url:
        ill = health.server_latency(url, 5000, 3, quiet)
    silent = health.server_latency(url, 5000, 3, quiet)

    assert not ill.passed and str(ill) == f"server {url}/healthz answers 503 Service Unavailable"
    assert not silent.passed and str(silent).startswith(f"server {url}/healthz does not answer")


@pytest.mark.parametrize("url", ["http://127.0.0.1:notaport", "nonsense", "http://"])
def test_a_url_that_is_none_fails_the_check(url: str) -> None:
    assert not health.server_latency(url, 5000, 1, quiet).passed


def test_every_measure_is_real_and_can_cross_its_limit(tmp_path: Path) -> None:
    (tmp_path / "flows.db").write_bytes(b"x" * 2_000_000)
    (tmp_path / "flows.db-wal").write_bytes(b"x" * 1_000_000)
    crossed = [
        health.disk_used(tmp_path, 0.0),
        health.database_size([tmp_path / "flows.db"], 1.0),
        health.write_latency(tmp_path, 0.0, 3, quiet),
    ]

    assert not any(reading.passed for reading in crossed)
    assert str(crossed[1]) == "database size at 2.861 MB (limit 1)"
    assert health.write_latency(tmp_path, 60_000, 3, quiet).passed
    assert [path.name for path in tmp_path.glob("write-probe*")] == []


def test_memory_is_read_from_the_system(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 80 kB\n")

    assert str(health.memory_used(90, meminfo)) == "memory at 92 % (limit 90)"
    assert not health.memory_used(90, meminfo).passed
    assert health.memory_used(95, meminfo).passed


def test_what_a_system_cannot_tell_passes_and_says_so(tmp_path: Path) -> None:
    reading = health.memory_used(90, tmp_path / "nowhere")

    assert reading.passed and str(reading) == "memory: this system has no /proc/meminfo"


def test_a_failed_check_does_not_keep_the_next_ones_from_being_made() -> None:
    board = health.Board()
    bad, good = health.Reading("disk", 91, "%", 90), health.Reading("load", 1, "a core", 4)

    with board.check():
        raise health.CheckFailed(bad)
    with board.check() as add:
        add(good)

    assert board.readings == [bad, good]


def test_readings_are_kept_for_thirty_days(tmp_path: Path) -> None:
    reading = health.Reading("disk", 91, "%", 90)
    health.record(tmp_path / "w.db", [reading], "old", NOW - timedelta(days=31))

    health.record(tmp_path / "w.db", [reading], "new", NOW)

    with connect(tmp_path / "w.db") as db:
        assert db.execute("SELECT run, passed FROM health_checks").fetchall() == [("new", 0)]
