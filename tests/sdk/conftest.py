"""Fixtures of the SDK's tests."""

from __future__ import annotations

from typing import Callable

import pytest
from hypothesis import HealthCheck, settings

from tests.sdk.story import Story, execute_flow

# A busy machine is no bug. ``--hypothesis-profile=few``: where another interpreter has tried many examples already.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("calm", calm)
settings.register_profile("few", calm, max_examples=10)
settings.register_profile("many", calm, max_examples=2000)  # by hand, to look for what the tests of each day miss
settings.load_profile("calm")


@pytest.fixture
def execute() -> Callable[..., Story]:
    """``execute(flow, parameters)``: run it in this process; the ``Story`` of its facts."""
    return execute_flow
