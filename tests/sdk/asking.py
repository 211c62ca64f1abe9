"""Tasks that ask for something about their results."""

from __future__ import annotations

from typing import Any, Callable

from perfect_client import Task, task


def asking(**options: Any) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    """``@asking(cache_policy=INPUTS)``: a task with these options."""

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        made = task(function)
        for name, value in options.items():
            setattr(made, name, value)
        return made

    return decorate
