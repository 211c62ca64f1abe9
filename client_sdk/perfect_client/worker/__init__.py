"""A worker: the supervisor of runs, its connection to the server, what becomes of the runs it had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfect_client.worker.main import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name != "serve":
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from perfect_client.worker.main import serve  # heavy: what only defines flows starts no worker

    return serve
