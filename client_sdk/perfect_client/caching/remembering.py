"""Which tasks say what is to become of their results; what keeps them is loaded for these only."""

from __future__ import annotations

from typing import Any, Optional

from perfect_client.core import middleware
from perfect_client.engine.options import OF_RESULTS


def make_middleware(task: Any) -> Optional[middleware.Middleware]:
    """The part that a task asks for by one of ``OF_RESULTS``. Raises ``ConfigurationError``."""
    if all(getattr(task, name, None) is None for name in OF_RESULTS):
        return None
    from perfect_client.caching import caching  # heavy: most tasks say nothing about their results

    return caching.make_middleware(task)
