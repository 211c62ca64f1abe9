"""What programs written for Prefect import from ``prefect.task_runners``."""

from __future__ import annotations

from typing import Any

from perfect_client.engine.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

__all__ = ["ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]


def __getattr__(name: str) -> Any:
    from perfect_client.engine import task_runners  # heavy: with Dask, where it is asked for

    return getattr(task_runners, name)
