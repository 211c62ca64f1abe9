"""What the log says of requests that anybody can make: one line without a traceback, and not one for each."""

from __future__ import annotations

import logging
from collections import defaultdict

from runs.db.outages import Sparing

ABOUT = "django.security."  # a bad Host header, a form with too many fields, …


class SeldomSuspicious(logging.Filter):
    """For the handler: who sends suspicious requests cannot fill the disk, nor hide other lines among its own."""

    def __init__(self) -> None:
        super().__init__()
        self._sparing: defaultdict[str, Sparing] = defaultdict(Sparing)  # by kind

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(ABOUT):
            return True
        more = self._sparing[record.name].ask()
        if more is None:
            return False
        record.msg = record.getMessage()[:300] + more
        record.args, record.exc_info, record.exc_text = (), None, None
        return True
