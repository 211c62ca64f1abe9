"""What happens while a worker imports flow files: a flow that is called is not run, and ``serve`` only takes notes."""

from __future__ import annotations

import sys
from typing import Any, Iterable, Iterator, List, Optional

from perfect_client.errors import PACKAGE


class Served(BaseException):
    """A script has come to its call of ``serve``: a worker executes no more of it."""


class Import:
    """One import of flow files. ``skipped`` has a sentence for each flow that was called, ``served`` what a file hands
    to ``serve``."""

    def __init__(self) -> None:
        self.skipped: List[str] = []
        self.served: List[Any] = []

    def skip(self, flow: Any) -> Any:
        """Take note of a call instead of making it; returns what lets the file go on: nothing, in the call's shape."""
        sentence = (
            "%s calls the flow %r while a worker imports the file: it was not run. "
            'Put the call under `if __name__ == "__main__":`.' % (_caller(), flow.name)
        )
        if sentence not in self.skipped:
            self.skipped.append(sentence)
        if flow.is_generator:
            return _nothing_later() if flow.is_async else iter(())
        return _none() if flow.is_async else None

    def serve(self, targets: Iterable[Any]) -> None:
        """Take note of what is handed to ``serve``. Raises ``Served`` in a script, which ``serve`` never returns to."""
        self.served.extend(targets)
        if sys._getframe(2).f_globals.get("__name__") == "__main__":
            raise Served

    def take_served(self) -> List[Any]:
        served, self.served = self.served, []
        return served


def _caller() -> str:
    """``file:line`` of the user's code that made the call."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return "%s:%d" % (frame.f_code.co_filename, frame.f_lineno)


async def _none() -> None:
    """What a skipped call of a coroutine flow comes to."""


async def _nothing_later() -> Any:
    for item in _no_items():
        yield item


def _no_items() -> Iterator[Any]:
    return iter(())


current: Optional[Import] = None  # set while a worker imports flow files
