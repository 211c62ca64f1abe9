"""Fixtures of the SDK's tests."""

from __future__ import annotations

from typing import Callable

import pytest

from tests.sdk.story import Story, execute_flow


@pytest.fixture
def execute() -> Callable[..., Story]:
    """``execute(flow, parameters)``: run it in this process; the ``Story`` of its facts."""
    return execute_flow
