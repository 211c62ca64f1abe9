"""What programs written for Prefect import from ``prefect.logging``."""

from __future__ import annotations

from perfect_client.core.run_logger import disable_run_logger, get_run_logger
from perfect_client.logging.loggers import get_logger

__all__ = ["disable_run_logger", "get_logger", "get_run_logger"]
