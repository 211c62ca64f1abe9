"""Execute a flow in this process and look at the facts it leaves; or start another Python that knows the SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Mapping, Optional

import perfect_client
from perfect_client import Flow
from perfect_client.execution import executor
from perfect_client.wire import messages


class Story:
    """The facts of one run, and the questions that tests ask of them."""

    def __init__(self, outcome: str, facts: List[Any]) -> None:
        self.outcome, self.facts = outcome, facts

    def of(self, kind: type) -> List[Any]:
        return [fact for fact in self.facts if type(fact) is kind]

    @property
    def ended(self) -> messages.RunEnded:
        (only,) = self.of(messages.RunEnded)
        return only

    @property
    def started(self) -> List[messages.TaskStarted]:
        return self.of(messages.TaskStarted)

    @property
    def task_ends(self) -> List[messages.TaskEnded]:
        return self.of(messages.TaskEnded)

    @property
    def progress(self) -> List[messages.TaskProgressed]:
        return self.of(messages.TaskProgressed)

    @property
    def logged(self) -> List[messages.Logged]:
        return self.of(messages.Logged)

    @property
    def lines(self) -> List[str]:
        return [fact.message for fact in self.logged]


def execute_flow(
    flow: Flow[Any, Any], parameters: Optional[Mapping[str, Any]] = None, *, configuration: str = "", attempt: int = 1
) -> Story:
    order = messages.OfferRun(
        fence=7,
        run="0123456789abcdef",
        flow=flow.name,
        parameters=dict(parameters or {}),
        configuration=configuration,
        tags=["from-order"],
        attempt=attempt,
    )
    facts: List[Any] = []
    outcome = executor.execute(flow, order, facts.append)
    for fact in facts:
        assert messages.decode(messages.encode_fact(fact)) == fact
    return Story(outcome, facts)


def python(*arguments: str, typed_in: str = "") -> subprocess.CompletedProcess[bytes]:
    """A fresh interpreter of this version, which must end well."""
    environment = {**os.environ, "PYTHONPATH": str(Path(perfect_client.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *arguments],
        input=typed_in.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        check=True,
    )
