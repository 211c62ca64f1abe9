"""Programs about what code asks of others: variables, limits, a person's word; and about transactions and tags.

Between their gates, where the suite takes the server away, they hold what they were granted and ask for nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Dict, List

from perfect_client import (
    RunInput,
    Variable,
    create_markdown_artifact,
    flow,
    pause_flow_run,
    resume_flow_run,
    runtime,
    tags,
    task,
)
from perfect_client.concurrency import concurrency, rate_limit
from perfect_client.errors import NotPausedError
from perfect_client.transactions import transaction
from saying import halt, says


@says("1 2 None", "set already", result="3")
@flow
def variables_shared() -> int:
    Variable.set("modes", 1, overwrite=True)
    halt(1)
    halt(2)
    first = Variable.get("modes")
    Variable.set("modes", first + 1, overwrite=True)
    print(first, Variable.get("modes"), Variable.get("nobody-set-this"))
    try:
        Variable.set("modes", 5)
    except ValueError as refused:
        print(str(refused)[20:31])
    return first + Variable.get("modes")


@task
async def limited(n: int) -> int:
    async with concurrency(["nobody limits", "this"], occupy=2):
        await rate_limit("nor this")
        return n


@says(tasks=["limited"] * 3, result="[0, 1, 2]")
@flow
async def limits_that_nobody_set() -> List[int]:
    with concurrency("nobody limits"):
        halt(1)
    halt(2)
    return list(await asyncio.gather(*[limited(n) for n in range(3)]))


class Answer(RunInput):
    ok: bool
    why: str = "because"


@task
def answers(run_id: str, **given: Any) -> None:
    """As a person would, as soon as the run waits."""
    while True:
        try:
            return resume_flow_run(run_id, given)
        except NotPausedError:
            continue


@says(
    "Answer(ok=True, why='because')",
    "Answer(ok=False, why='no')",
    tasks=[("answers", "COMPLETED"), ("answers", "COMPLETED")],
    result="'heard'",
)
@flow
def asks_for_a_word() -> str:
    asks({"ok": True})
    halt(1)
    halt(2)
    asks({"ok": "false", "why": "no"})
    return "heard"


def asks(given: Dict[str, Any]) -> None:
    answered = answers.submit(runtime.flow_run.id, **given)
    print(pause_flow_run(wait_for_input=Answer, timeout=60))
    answered.result()


@says(error="FlowPauseTimeout: nobody let the run go on within 0.05 s")
@flow
def nobody_answers() -> None:
    halt(1)
    halt(2)
    pause_flow_run(timeout=0.05)


@task
def writes(name: str) -> str:
    return name


@writes.on_rollback
def unwrites(changes: Any) -> None:
    print("taken back")


@writes.on_commit
def keeps(changes: Any) -> None:
    print("kept")


@says("kept", "taken back", tasks=["writes", "writes"], error="ValueError: after all")
@flow
def all_or_nothing() -> None:
    halt(1)
    with transaction():
        writes("a")
    halt(2)
    with transaction():
        writes("b")
        raise ValueError("after all")


@task(tags=["own"])
def tagged() -> None:
    print(runtime.task_run.tags)


@says("[tagged] ['own', 'around']", tasks=["tagged"])
@flow
def tags_around() -> None:
    halt(1)
    with tags("around"):
        tagged()
    halt(2)
    create_markdown_artifact("# shown in every mode", key="shown")
