"""For servers with libfaketime: its sleep fails now and then when the clock has just jumped, which no real one does."""

import errno
import time

_sleep = time.sleep


def _sleep_on(seconds: float) -> None:
    try:
        _sleep(seconds)
    except OSError as wrong:
        if wrong.errno != errno.EINVAL:
            raise


time.sleep = _sleep_on
