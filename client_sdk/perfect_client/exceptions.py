"""The errors under the name that programs written for Prefect import them from; their home is ``errors``."""

from __future__ import annotations

from perfect_client.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    FlowRunTimeoutError,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingResult,
    PausedRun,
    PrefectException,
    TaskRunTimeoutError,
    UnfinishedRun,
    UpstreamTaskError,
)

__all__ = [
    "CancelledRun", "CrashedRun", "FailedRun", "FlowRunTimeoutError", "MappingLengthMismatch",
    "MappingMissingIterable", "MissingResult", "PausedRun", "PrefectException", "TaskRunTimeoutError",
    "UnfinishedRun", "UpstreamTaskError",
]  # fmt: skip
