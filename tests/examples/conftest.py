"""The examples are plain modules in a folder that a worker puts on its path; so do these tests."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "examples" / "workflows"
sys.path.insert(0, str(WORKFLOWS))
sys.path.append(str(ROOT / "client_sdk"))

import example_sales as sales  # noqa: E402  (needs the path)
from example_home import DATA  # noqa: E402

SOURCE = DATA / "CDNOW_master.txt.gz"


def need(package: str) -> Any:
    """An extra package of the examples. Missing, it skips the test with the reason; with CI=true that is a failure."""
    try:
        return importlib.import_module(package)
    except ImportError:
        reason = f"{package} is not installed: python -m pip install -r examples/requirements.txt"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def sklearn() -> Any:
    return need("sklearn")


@pytest.fixture
def reportlab() -> Any:
    return need("reportlab")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the examples and of Perfect, and no mail server."""
    monkeypatch.setenv("EXAMPLES_HOME", str(tmp_path / "examples"))
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path / "perfect"))
    monkeypatch.delenv("EXAMPLES_SMTP_URL", raising=False)
    return tmp_path / "examples"


@pytest.fixture(scope="session")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warehouse")
    load(SOURCE, folder / "warehouse.db", folder / "staging.db")
    return folder / "warehouse.db"


@pytest.fixture
def warehouse(loaded_once: Path, tmp_path: Path) -> Path:
    """A warehouse of its own with the real sales."""
    return Path(shutil.copy(loaded_once, tmp_path / "warehouse.db"))


def load(source: Path, warehouse: Path, staging: Path) -> sales.Totals:
    """All steps of the ETL."""
    return sales.load_if_missing(
        source, staging, warehouse, run="test", now="2026-01-05T00:00:00+00:00", report=lambda share, text: None
    )
