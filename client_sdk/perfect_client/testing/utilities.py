"""``prefect_test_harness`` under the name that programs written for Prefect import it from."""

from __future__ import annotations

from perfect_client.testing import prefect_test_harness

__all__ = ["prefect_test_harness"]
