"""What the log says of requests that anybody can make: one line without a traceback, and not one for each."""

from __future__ import annotations

import logging
import time

EVERY = 10.0  # seconds between two lines of one kind
ABOUT = "django.security."  # a bad Host header, a form with too many fields, …


class SeldomSuspicious(logging.Filter):
    """For the handler: who sends suspicious requests cannot fill the disk, nor hide other lines among its own."""

    def __init__(self) -> None:
        super().__init__()
        self._until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(ABOUT):
            return True
        now = time.monotonic()
        if now < self._until.get(record.name, 0.0):
            self._left_out[record.name] = self._left_out.get(record.name, 0) + 1
            return False
        self._until[record.name] = now + EVERY
        left_out = self._left_out.pop(record.name, 0)
        text = record.getMessage()[:300]
        record.msg = f"{text} (and {left_out} more of its kind)" if left_out else text
        record.args, record.exc_info, record.exc_text = (), None, None
        return True
