"""What programs written for Prefect import from ``prefect.concurrency``."""

from perfect_client.questions.limits import concurrency, rate_limit

__all__ = ["concurrency", "rate_limit"]
