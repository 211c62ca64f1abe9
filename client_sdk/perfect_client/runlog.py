"""``get_run_logger()``."""

from __future__ import annotations

import logging
import sys
from typing import Optional

from perfect_client import context


class _OutsideHandler(logging.Handler):
    """The run logger outside a run: to standard error, unless the program has set up logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if context.active is None and not logging.getLogger().handlers and sys.stderr is not None:
            sys.stderr.write(self.format(record) + "\n")


_logger: Optional[logging.Logger] = None


def get_run_logger() -> logging.Logger:
    """The logger of the run: its records are lines of the run with their level and task.

    Outside a run it writes to standard error.
    """
    global _logger
    if _logger is None:
        logger = logging.getLogger("perfect_client.run")
        handler = _OutsideHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        _logger = logger
    return _logger
