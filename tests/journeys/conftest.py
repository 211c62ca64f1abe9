from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .checker import faults
from .house import POSTGRES, House, opened


@pytest.fixture(autouse=True)
def _on_its_database(request: pytest.FixtureRequest) -> None:
    if POSTGRES and request.node.get_closest_marker("sqlite"):
        pytest.skip("it runs with SQLite alone")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server and a worker; afterwards every invariant must hold."""
    with opened(tmp_path) as house:
        yield house
        assert faults(house.database, house.ledger) == []


@pytest.fixture(scope="module")
def calm_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for the journeys that break nothing."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house
        assert faults(house.database, house.ledger) == []
