"""The bar is honest: over replayed runs it stays close to the clock (the whole table: ``tests/bench/progress.py``)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SEEDS = range(100, 104)  # others than those of the table


def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "bench" / "progress.py"
    spec = importlib.util.spec_from_file_location("bench_of_progress", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("earlier", "goal"), [(0, 12.0), (5, 5.0)])
def test_the_bar_stays_close_to_the_share_of_time_that_passed(earlier: int, goal: float) -> None:
    replay = bench()

    ours, *simpler = replay.means(earlier, SEEDS)

    assert ours <= goal
    assert all(ours < mean / 1.5 for mean in simpler)
