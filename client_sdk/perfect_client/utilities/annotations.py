"""What programs written for Prefect import from ``prefect.utilities.annotations``; its home is ``annotations``."""

from __future__ import annotations

from perfect_client.core.annotations import BaseAnnotation, allow_failure, opaque, quote, unmapped

__all__ = ["BaseAnnotation", "allow_failure", "opaque", "quote", "unmapped"]
