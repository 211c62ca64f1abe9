"""The workers' socket tells a worker what the server could not take of its flows, and nothing if it took all."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from perfect_client.wire import messages as p

from perfect_site.sockets.workers import WorkerConsumer

BAD = p.FlowSpec("Late", schedules=[p.ScheduleSpec("cron", "61 * * * *")])


def told(secret: str, *specs: p.FlowSpec) -> list[Any]:
    """What the server says to an announcement, up to its answer to the heartbeat behind it."""

    async def story() -> list[Any]:
        headers = [(b"authorization", f"Bearer {secret}".encode())]
        wire = WebsocketCommunicator(WorkerConsumer.as_asgi(), "/ws/worker/", headers=headers)
        assert (await wire.connect())[0]
        found: list[Any] = []
        for said in (p.Joined(str(uuid.uuid4()), "b-1", name="w1"), p.FlowsAnnounced(list(specs)), p.Beaten()):
            await wire.send_to(text_data=p.encode(said))
        while not found or not isinstance(found[-1], p.Echo):
            found.append(p.decode(await wire.receive_from(timeout=10)))
        await wire.disconnect()
        return [message for message in found if not isinstance(message, (p.Accept, p.Echo))]

    return async_to_sync(story)()


@pytest.mark.parametrize(
    ("specs", "sentences"),
    [
        ([p.FlowSpec("Sales EU"), p.FlowSpec("sales-eu"), p.FlowSpec("💼")], []),
        ([p.FlowSpec(" ", file="etl.py", line=3)], ["flow '' (etl.py:3) is not served"]),
        ([BAD], ["schedule 'default' of flow 'Late' does not fire: "]),
    ],
)
def test_what_the_server_refuses_is_told_to_the_worker(make_token: Any, specs: Any, sentences: list[str]) -> None:
    orders = told(make_token("worker"), *specs)

    problems = [problem for order in orders if isinstance(order, p.FlowsRefused) for problem in order.problems]
    assert len(problems) == len(sentences)
    assert all(problem.startswith(sentence) for problem, sentence in zip(problems, sentences, strict=True))


def test_a_worker_that_announces_the_same_again_is_told_again(make_token: Any) -> None:
    secret = make_token("worker")

    assert told(secret, BAD) == told(secret, BAD) != []
