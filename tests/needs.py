"""What a test cannot do without and the machine may not have."""

from __future__ import annotations

import os

import pytest


def missing(reason: str) -> None:
    """Skip the test and say why; with CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
