"""The same with two servers on one PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from .chaos import unleash

SEED = 5


@pytest.mark.journey
def test_every_promise_holds_with_two_servers(tmp_path: Path, postgres: str) -> None:
    said: list[str] = []

    found = unleash(tmp_path, seconds=25, seed=SEED, postgres=True, rate=1.5, say=said.append)

    assert found == [], "\n".join(said)
