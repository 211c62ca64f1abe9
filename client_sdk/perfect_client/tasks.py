"""What programs written for Prefect import from ``prefect.tasks``."""

from __future__ import annotations

from perfect_client.decorators import Task, task
from perfect_client.retrying import exponential_backoff

__all__ = ["Task", "exponential_backoff", "task"]
