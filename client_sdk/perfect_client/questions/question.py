"""A question to the server, from the side of the code that asks: its answer is a future."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Callable, Dict

Body = Dict[str, Any]


class Question:
    """``answer`` is a future of the answer's body: what was asked for, or ``{"error": sentence}``."""

    __slots__ = ("_close", "answer")

    def __init__(self, answer: "Future[Body]", close: Callable[[str], None]) -> None:
        self.answer, self._close = answer, close

    def release(self, reason: str = "") -> None:
        """The code waits no more, or gives back what it was granted. Once is enough, more does no harm."""
        self._close(reason)
