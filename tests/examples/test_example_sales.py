"""Daily Sales ETL: what becomes of each line, and of the warehouse."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_sales as sales
import pytest
from example_home import DATA
from example_warehouse import connect, is_loaded
from hypothesis import given
from hypothesis import strategies as st

SOURCE = DATA / "CDNOW_master.txt.gz"
HEADER = b" customer_id  date number_of_cds  dollar_value\r\n"
GOOD = b" 00001 19970101  1   11.77\r\n"


def quiet(share: float, text: str) -> None:
    pass


def stage(source: Path, staging: Path, shown: int = 5) -> sales.Cleaning:
    sales.extract(source, staging, quiet)
    cleaning = sales.clean(staging, shown, quiet)
    sales.build_customers(staging)
    sales.build_daily_sales(staging)
    return cleaning


def publish(source: Path, staging: Path, warehouse: Path, cleaning: sales.Cleaning, **more: Any) -> sales.Totals:
    return sales.publish(
        staging, warehouse, source=source, cleaning=cleaning, run="test", now="2026-01-05", **{"report": quiet, **more}
    )


def counts(warehouse: Path) -> tuple[int, int, int]:
    with connect(warehouse) as db:
        return (
            db.execute("SELECT count(*) FROM purchases").fetchone()[0],
            db.execute("SELECT count(*) FROM customers").fetchone()[0],
            db.execute("SELECT sum(cds) FROM daily_sales").fetchone()[0],
        )


def test_the_real_file_arrives_at_its_published_totals(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.db"

    cleaning = stage(SOURCE, tmp_path / "staging.db")
    totals = publish(SOURCE, tmp_path / "staging.db", warehouse, cleaning)

    assert totals == counts(warehouse) == (69_659, 23_570, 167_881)
    assert cleaning.rejected == 0


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (b" 00004 19970118  4   59.06", sales.Purchase(4, "1997-01-18", 4, 5906)),
        (b"7 19970118 1 0.00", sales.Purchase(7, "1997-01-18", 1, 0)),
        (b"7 19970118 1 12", sales.Purchase(7, "1997-01-18", 1, 1200)),
        (b"7 19970118 1 12.5", sales.Purchase(7, "1997-01-18", 1, 1250)),
        (b"7 19970230 1 12.00", "bad date"),
        (b"7 1997-1-2 1 12.00", "bad date"),
        (b"7 00000101 1 12.00", "bad date"),
        (b"7 19970118 -2 12.00", "quantity not positive"),
        (b"7 19970118 0 12.00", "quantity not positive"),
        (b"7 19970118 two 12.00", "bad quantity"),
        (b"7 19970118 99999999999999999999 12.00", "bad quantity"),
        (b"7 19970118 1 -12.00", "negative value"),
        (b"7 19970118 1 NaN", "bad value"),
        (b"7 19970118 1 1e9", "bad value"),
        (b"7 19970118 1 12.345", "bad value"),
        (b"7 19970118 1 --1.00", "bad value"),
        (b"0 19970118 1 12.00", "bad customer id"),
        (b"x7 19970118 1 12.00", "bad customer id"),
        (b"\xff7 19970118 1 12.00", "not UTF-8"),
        (b"7 \xc3\x28 19970118 1 12.00", "not UTF-8"),
        (b"7 19970118 1\0 12.00", "NUL byte"),
        (b"7 19970118 1", "wrong number of columns"),
        (b"7 19970118 1 12.00 more", "wrong number of columns"),
        (b"   ", "empty line"),
        (b"7" * 5000, "line too long"),
    ],
)
def test_a_line_is_a_purchase_or_has_a_reason(line: bytes, outcome: Any) -> None:
    assert sales.parse_line(line) == outcome


nearly_lines = st.lists(st.text("0123456789.-x"), min_size=4, max_size=4).map(lambda f: " ".join(f).encode())


@given(st.one_of(st.binary(), nearly_lines))
def test_no_line_is_fatal(line: bytes) -> None:
    outcome = sales.parse_line(line)

    assert isinstance(outcome, str) or (outcome.cds > 0 and outcome.cents >= 0 and outcome.customer_id > 0)
    assert sales.readable(line).isprintable()


def test_bad_lines_are_counted_by_reason_and_kept_for_a_look(tmp_path: Path) -> None:
    dirty = tmp_path / "dirty.txt"
    dirty.write_bytes(
        HEADER
        + GOOD * 3
        + b"1 19971399 1 1.00\n1 19970101 -1 1.00\n1 19970101 -1 1.00\n\xff\xfe\n\n1 2\n"
        + b"1 19970101 1\0 2\n"
        + b"9" * 100_000
        + b"\n"
        + GOOD
    )

    cleaning = stage(dirty, tmp_path / "staging.db", shown=2)
    totals = publish(dirty, tmp_path / "staging.db", tmp_path / "warehouse.db", cleaning)

    assert cleaning.reasons == {
        "quantity not positive": 2,
        "bad date": 1,
        "not UTF-8": 1,
        "empty line": 1,
        "wrong number of columns": 1,
        "NUL byte": 1,
        "line too long": 1,
    }
    assert cleaning.shown == [
        "line 5: bad date: 1 19971399 1 1.00",
        "line 6: quantity not positive: 1 19970101 -1 1.00",
    ]
    assert (cleaning.lines, cleaning.rejected, totals.purchases) == (12, 8, 4)
    with connect(tmp_path / "warehouse.db") as db:
        assert db.execute("SELECT count(*) FROM rejected_lines").fetchone() == (8,)
        nul = db.execute("SELECT line FROM rejected_lines WHERE reason = 'NUL byte'").fetchone()
    assert nul == ("1 19970101 1\\x00 2",)


@pytest.mark.parametrize("content", [b"", HEADER, b"nothing\nof\nuse\n"])
def test_a_file_without_a_purchase_changes_nothing(content: bytes, warehouse: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(content)

    cleaning = stage(empty, tmp_path / "staging.db")
    with pytest.raises(ValueError, match=r"empty\.txt holds no valid purchase: the warehouse stays as it was"):
        publish(empty, tmp_path / "staging.db", warehouse, cleaning)

    assert counts(warehouse) == (69_659, 23_570, 167_881)


def test_a_cut_gzip_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(SOURCE.read_bytes()[:100_000])

    with pytest.raises(ValueError, match=r"cut\.gz is damaged after line [\d,]+"):
        sales.extract(cut, tmp_path / "staging.db", quiet)


def test_a_missing_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sales.extract(tmp_path / "nowhere.gz", tmp_path / "staging.db", quiet)


def test_loading_again_changes_nothing_but_the_list_of_loads(warehouse: Path, tmp_path: Path) -> None:
    cleaning = stage(SOURCE, tmp_path / "staging.db")

    publish(SOURCE, tmp_path / "staging.db", warehouse, cleaning)

    assert counts(warehouse) == (69_659, 23_570, 167_881)
    with connect(warehouse) as db:
        assert db.execute("SELECT count(*) FROM loads").fetchone() == (2,)


def test_each_step_can_be_run_again(tmp_path: Path) -> None:
    small = tmp_path / "small.gz"
    small.write_bytes(gzip.compress(HEADER + GOOD * 10))

    stage(small, tmp_path / "staging.db")
    sales.clean(tmp_path / "staging.db", 0, quiet)
    sales.build_customers(tmp_path / "staging.db")
    sales.build_customers(tmp_path / "staging.db")
    sales.build_daily_sales(tmp_path / "staging.db")
    assert sales.staged_totals(tmp_path / "staging.db") == (10, 1, 10)


def test_a_run_killed_in_the_middle_of_a_load_leaves_the_previous_warehouse(warehouse: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_bytes(GOOD)
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(sales.__file__).parent), str(Path(__file__).parent)]!r}
from pathlib import Path
import example_sales as sales
def die(share, text):
    if text == "customers":
        os.kill(os.getpid(), signal.SIGKILL)
quiet = lambda share, text: None
staging, source = Path({str(tmp_path / "staging.db")!r}), Path({str(small)!r})
sales.extract(source, staging, quiet)
cleaning = sales.clean(staging, 0, quiet)
sales.build_customers(staging)
sales.build_daily_sales(staging)
sales.publish(staging, Path({str(warehouse)!r}), source=source, cleaning=cleaning, run="x", now="x", report=die)
"""

    killed = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert counts(warehouse) == (69_659, 23_570, 167_881)
    with connect(warehouse) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_known_file_that_does_not_arrive_at_its_totals_is_refused() -> None:
    cleaning = sales.Cleaning(lines=69_659, accepted=69_658, reasons={"bad date": 1})

    with pytest.raises(ValueError, match=r"must arrive at Totals\(purchases=69659"):
        sales.reconcile(SOURCE, cleaning, sales.Totals(69_658, 23_570, 167_880))


def test_the_first_load_wins_when_several_flows_need_one(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.db"
    assert not is_loaded(warehouse)
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_bytes(GOOD)
    second.write_bytes(GOOD * 2)

    for source in (first, second):
        sales.load_if_missing(source, tmp_path / "staging.db", warehouse, run="r", now="n", report=quiet)

    assert is_loaded(warehouse)
    assert counts(warehouse) == (1, 1, 1)
    assert not (tmp_path / "staging.db").exists()


def test_progress_comes_about_once_a_percent_and_ends_at_one(tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    sales.extract(SOURCE, tmp_path / "staging.db", quiet)

    sales.clean(tmp_path / "staging.db", 0, lambda share, text: heard.append((share, text)))

    assert 100 <= len(heard) <= 102
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert heard[-1] == (1.0, "69,659 of 69,659 lines")


def test_only_staging_files_of_yesterday_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    for path in (old, new):
        path.touch()
    os.utime(old, (1_000_000, 1_000_000))
    os.utime(new, (1_080_000, 1_080_000))

    assert sales.sweep_staging(tmp_path, now=1_090_000) == 1

    assert not old.exists() and new.exists()
