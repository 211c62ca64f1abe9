"""What programs written for Prefect import from ``prefect.annotations``."""

from perfect_client.core.annotations import allow_failure, opaque, quote, unmapped

__all__ = ["allow_failure", "opaque", "quote", "unmapped"]
