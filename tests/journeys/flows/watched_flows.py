"""A flow that wants to be told of its end, and writes into the journey's ledger that it was."""

from __future__ import annotations

from typing import Any

from perfect_client import flow, task

from tests.journeys.flows.ledger_flows import say, tell, wait_for_gate


def told(flow: Any, run: Any, state: Any) -> None:
    tell(told=state.type.value, message=state.message)
    say("ledger told: %s" % state.message)


@task
def hold() -> None:
    say("ledger at the gate")
    wait_for_gate()


@flow(name="Watched", on_crashed=[told], on_cancellation=[told])
def watched() -> None:
    tell(start=True)
    hold()
    tell(end=True)
