"""A fixed seed of the chaos: whatever is killed, stopped, cut, filled or set wrong, every promise holds after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .chaos import unleash

SEED = 7  # within so many seconds it has every kind of fault


@pytest.mark.journey
def test_every_promise_holds_after_a_minute_of_chaos(tmp_path: Path) -> None:
    said: list[str] = []

    found = unleash(tmp_path, seconds=40, seed=SEED, rate=1.5, say=said.append)

    assert found == [], "\n".join(said)
