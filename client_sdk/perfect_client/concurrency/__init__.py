"""Where programs written for Prefect look for ``concurrency`` and ``rate_limit``; their home is ``limits``."""

from perfect_client.limits import concurrency, rate_limit

__all__ = ["concurrency", "rate_limit"]
