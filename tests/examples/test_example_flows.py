"""The four flows as a user has them: called directly, and all at once on an empty home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_flows as flows
import example_health as health
import pytest
from example_warehouse import connect

from .small_server import server

WORKFLOWS = Path(flows.__file__).parent


def test_the_etl_called_directly_arrives_at_the_totals(home: Path) -> None:
    result = flows.daily_sales_etl()

    assert (result["purchases"], result["customers"], result["cds"], result["rejected"]) == (69_659, 23_570, 167_881, 0)
    assert (home / "warehouse.db").exists()
    assert list((home / "staging").iterdir()) == []


def test_the_etl_takes_another_file_and_survives_its_bad_lines(tmp_path: Path) -> None:
    dirty = tmp_path / "dirty.txt"
    dirty.write_bytes(b"1 19970101 1 1.00\nrubbish\n2 19970101 -1 1.00\n")

    result = flows.daily_sales_etl(source=str(dirty))

    assert (result["purchases"], result["rejected"]) == (1, 2)
    assert result["reasons"] == {"wrong number of columns": 1, "quantity not positive": 1}


def test_churn_and_report_load_the_sales_themselves(sklearn: Any, reportlab: Any, home: Path) -> None:
    churned = flows.churn_model_retraining(kinds="logistic", sample_customers=400, folds=2)
    reported = flows.weekly_executive_report()

    assert churned["kept"] and churned["version"] == 1
    assert Path(reported["pdf"]).read_bytes().startswith(b"%PDF-")
    assert reported["delivered"].endswith("weekly-report-1998-06-22.eml")
    with connect(home / "warehouse.db") as db:
        assert db.execute("SELECT count(*) FROM loads").fetchone() == (1,)


def test_a_healthy_system_passes_all_six_checks() -> None:
    with server(200) as url:
        values = flows.infrastructure_health_check(
            url=url,
            max_latency_ms=60_000,
            max_disk_percent=100,
            max_memory_percent=100,
            max_load_per_core=10_000,
            max_write_ms=60_000,
        )

    assert len(values) == 6


def test_crossed_limits_fail_the_run_after_all_checks_and_name_them_all(home: Path) -> None:
    with server(200) as url, pytest.raises(health.HealthCheckFailed) as failure:
        flows.infrastructure_health_check(url=url, max_latency_ms=0.0, max_disk_percent=0.0)

    assert "server latency at" in str(failure.value) and "(limit 0); disk" in str(failure.value)
    with connect(home / "warehouse.db") as db:
        assert db.execute("SELECT count(*) FROM health_checks").fetchone() == (6,)


def test_the_report_refuses_recipients_before_the_work(home: Path) -> None:
    with pytest.raises(ValueError, match="recipients: 'nobody' is no address"):
        flows.weekly_executive_report(recipients="nobody")

    assert not (home / "warehouse.db").exists()


def test_all_four_succeed_when_started_at_once_on_an_empty_home(sklearn: Any, reportlab: Any, home: Path) -> None:
    calls = (
        "daily_sales_etl()",
        "churn_model_retraining(kinds='logistic', sample_customers=400, folds=2)",
        "weekly_executive_report()",
        "weekly_executive_report(week_of='1997-05-08')",
    )
    path = os.pathsep.join([str(WORKFLOWS), *(entry for entry in sys.path if entry)])

    running = [
        subprocess.Popen(
            [sys.executable, "-c", f"import example_flows; example_flows.{call}"],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for call in calls
    ]
    told = [process.communicate(timeout=120)[1] for process in running]

    assert [process.returncode for process in running] == [0, 0, 0, 0], "\n".join(told)
    with connect(home / "warehouse.db") as db:
        assert db.execute("SELECT count(*), sum(cds) FROM purchases").fetchone() == (69_659, 167_881)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("heavy", ["sklearn", "numpy", "reportlab", "ssl", "smtplib"])
def test_an_idle_worker_does_not_carry_heavy_packages(heavy: str) -> None:
    program = (
        "import sys, perfect_client; before = set(sys.modules); import example_flows;"
        f" sys.exit({heavy!r} in set(sys.modules) - before)"
    )
    path = os.pathsep.join([str(WORKFLOWS), *(entry for entry in sys.path if entry)])

    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=False)

    assert done.returncode == 0
