"""What programs written for Prefect import from ``prefect.testing.utilities``."""

from __future__ import annotations

from perfect_client.testing import prefect_test_harness

__all__ = ["exceptions_equal", "prefect_test_harness"]


def exceptions_equal(one: BaseException, other: BaseException) -> bool:
    """Whether two exceptions are of one class and say the same."""
    return one is other or (type(one) is type(other) and one.args == other.args)
