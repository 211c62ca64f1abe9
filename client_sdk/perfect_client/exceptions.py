"""The errors under the name that programs written for Prefect import them from; their home is ``errors``."""

from __future__ import annotations

from perfect_client.errors import (
    BadParameter,
    CancelledRun,
    ConfigurationError,
    CrashedRun,
    FailedRun,
    FlowPauseTimeout,
    FlowRunTimeoutError,
    HashError,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    MissingResult,
    NotPausedError,
    PausedRun,
    PrefectException,
    TaskRunTimeoutError,
    UnfinishedRun,
    UpstreamTaskError,
)

ParameterTypeError = BadParameter
ReservedArgumentError = InvalidNameError = ConfigurationError
ParameterBindError = SignatureMismatchError = TypeError  # Python's own, of a call that a signature has no place for

__all__ = [
    "BadParameter",
    "CancelledRun",
    "ConfigurationError",
    "CrashedRun",
    "FailedRun",
    "FlowPauseTimeout",
    "FlowRunTimeoutError",
    "HashError",
    "InvalidNameError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingResult",
    "NotPausedError",
    "ParameterBindError",
    "ParameterTypeError",
    "PausedRun",
    "PrefectException",
    "ReservedArgumentError",
    "SignatureMismatchError",
    "TaskRunTimeoutError",
    "UnfinishedRun",
    "UpstreamTaskError",
]
