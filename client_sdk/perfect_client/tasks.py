"""What programs written for Prefect import from ``prefect.tasks``."""

from __future__ import annotations

from typing import Any, Mapping

from perfect_client.engine.decorators import Task, task
from perfect_client.engine.retries import exponential_backoff
from perfect_client.fingerprints import fingerprints
from perfect_client.storage import hashing

__all__ = ["Task", "exponential_backoff", "task", "task_input_hash"]


def task_input_hash(context: Any, arguments: Mapping[str, Any]) -> str:
    """For ``@task(cache_key_fn=…)``: a key that calls of the same task, with the same code and equal arguments, share;
    over all runs.

    Raises ``HashError`` for an argument that has no digest.
    """
    inputs = hashing.digest_inputs(arguments, context.task.name)
    return hashing.digest((context.task.key, fingerprints.fingerprint_of(context.task).digest, inputs)).hex()
