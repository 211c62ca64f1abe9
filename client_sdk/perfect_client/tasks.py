"""What tasks are cached by, as functions for ``@task(cache_key_fn=…)``."""

from __future__ import annotations

from typing import Any, Mapping

from perfect_client import hashing


def task_input_hash(context: Any, arguments: Mapping[str, Any]) -> str:
    """A key that calls of the same task, with the same code and equal arguments, share; over all runs.

    Raises ``HashError`` for an argument that has no digest.
    """
    inputs = hashing.of_inputs(arguments, context.task.name)
    return hashing.digest((context.task.key, hashing.of_code(context.task.code), inputs)).hex()
