"""Limits in coroutines, as ``prefect.concurrency.asyncio`` has them."""

from __future__ import annotations

from typing import Optional

from perfect_client.questions import limits
from perfect_client.questions.limits import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
)

__all__ = ["AcquireConcurrencySlotTimeoutError", "ConcurrencySlotAcquisitionError", "concurrency", "rate_limit"]


async def rate_limit(
    names: limits.Names, occupy: int = 1, timeout_seconds: Optional[float] = None, strict: bool = False
) -> None:
    """``limits.rate_limit`` that is always awaited."""
    await limits.rate_limited_later(limits.body(names, occupy, strict), timeout_seconds)
