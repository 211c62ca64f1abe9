"""What programs written for Prefect import from ``prefect.logging``; its home is ``runlog``."""

from __future__ import annotations

from perfect_client.logging.loggers import get_logger
from perfect_client.runlog import disable_run_logger, get_run_logger

__all__ = ["disable_run_logger", "get_logger", "get_run_logger"]
