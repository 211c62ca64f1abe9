"""Which tasks have hooks for transactions; what runs them is loaded for these only."""

from __future__ import annotations

from typing import Any, Optional

from perfect_client.core import middleware


def make_middleware(task: Any) -> Optional[middleware.Middleware]:
    """The part of a task that has ``on_commit`` or ``on_rollback`` hooks."""
    if "on_commit" not in task.hooks and "on_rollback" not in task.hooks:
        return None
    from perfect_client.caching import transactions  # heavy: few tasks take part in transactions by hooks

    return transactions.Staging(task)
