"""A worker's identity is its token's: who has read its id and has another token does not take its place."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.utils import timezone
from perfect_client.wire import messages as p

from perfect_site.sockets.workers import WorkerConsumer
from runs.ingest import reports
from runs.models import Run, Token, Worker
from runs.services import offerings

from .conftest import NOW, FakeWorker
from .test_security_matrix import client_of

pytestmark = pytest.mark.django_db
ID = str(uuid.uuid4())


class Socket:
    """A worker's connection, spoken to word by word."""

    def __init__(self, secret: str) -> None:
        headers = [(b"authorization", f"Bearer {secret}".encode())]
        self.wire = WebsocketCommunicator(WorkerConsumer.as_asgi(), "/ws/worker/", headers=headers)

    async def __aenter__(self) -> Socket:
        assert (await self.wire.connect(timeout=10))[0]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.wire.disconnect(timeout=10)

    async def say(self, message: Any) -> None:
        await self.wire.send_to(text_data=p.encode(message))

    async def hear(self, kind: type) -> Any:
        """What comes, up to the first message of this kind."""
        while True:
            message = p.decode(await self.wire.receive_from(timeout=10))
            if isinstance(message, (kind, p.Refuse)):
                return message

    async def join(self, boot: str = "b-1", worker: str = ID, name: str = "w1", **more: Any) -> Any:
        await self.say(p.Joined(worker, boot, name=name, **more))
        return await self.hear(p.Accept)

    async def announce(self, *specs: p.FlowSpec) -> None:
        """Until the server has taken it."""
        await self.say(p.FlowsAnnounced(list(specs)))
        await self.say(p.Beaten())
        await self.hear(p.Echo)


def joins(secret: str, boot: str, **more: Any) -> Any:
    async def story() -> Any:
        async with Socket(secret) as socket:
            return await socket.join(boot, **more)

    answer = async_to_sync(story)()
    # What the server's own database thread does in its own time.
    reports.leave(worker=uuid.UUID(ID), boot=boot, now=timezone.now(), why="the connection ended")
    return answer


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("words", [{}, {"draining": True}, {"beside": [1]}, {"older": ["guessed"]}, {"dead": ["b-1"]}])
def test_another_token_does_not_take_a_workers_place(make_token: Any, connected: bool, words: dict[str, Any]) -> None:
    own, other = make_token("worker"), make_token("worker")

    async def story() -> Any:
        async with Socket(own) as first:
            assert isinstance(await first.join("b-1"), p.Accept)
            if connected:
                async with Socket(other) as second:
                    return await second.join("b-2", **words)
        async with Socket(other) as second:
            return await second.join("b-1", **words)

    answer = async_to_sync(story)()

    assert isinstance(answer, p.Refuse) and answer.code == p.FORBIDDEN
    assert "is still valid, and this is another one; revoke that token, or forget the worker" in answer.reason
    row = Worker.objects.get()
    assert (row.boot, row.token) == ("b-1", Token.objects.order_by("pk").first())


def test_the_same_token_comes_back(make_token: Any) -> None:
    own = make_token("worker")

    assert isinstance(joins(own, "b-1"), p.Accept) and isinstance(joins(own, "b-2"), p.Accept)


def test_a_token_that_was_revoked_makes_room_for_the_next_one(make_token: Any) -> None:
    own, next_one = make_token("worker"), make_token("worker")
    joins(own, "b-1")
    Token.objects.filter(pk=Token.objects.order_by("pk").first().pk).update(revoked_at=timezone.now())

    assert isinstance(joins(next_one, "b-2"), p.Accept)
    assert Worker.objects.get().token == Token.objects.order_by("pk").last()


def test_the_next_process_of_a_worker_that_drains_may_bring_a_new_token(make_token: Any) -> None:
    joins(make_token("worker"), "b-1")

    assert isinstance(joins(make_token("worker"), "b-2", older=["b-1"]), p.Accept)


def test_a_forgotten_worker_is_anybodys_again(make_token: Any) -> None:
    joins(make_token("worker"), "b-1")
    offerings.forget_worker(worker_id=uuid.UUID(ID), now=timezone.now(), who="ana")

    assert isinstance(joins(make_token("worker"), "b-2"), p.Accept)


def test_nobody_reads_a_boot_which_proves_who_a_process_is(make_token: Any) -> None:
    joins(make_token("worker"), "b-a-secret")

    client = client_of("admin")
    for path in (f"/admin/runs/worker/{ID}/change/", "/api/workers", "/workers/"):
        answer = client.get(path, follow=True)
        assert answer.status_code == 200 and "b-a-secret" not in answer.content.decode(), path


def test_a_socket_records_for_no_other_worker(make_token: Any, worker: FakeWorker, run: Run) -> None:
    order, other = worker.take(NOW), make_token("worker")

    async def story() -> list[Any]:
        async with Socket(other) as socket:
            await socket.join(worker=str(uuid.uuid4()))
            await socket.say(p.OfferClaimed(order.fence, order.run))
            claimed = await socket.hear(p.DropRun)
            ended = {"type": "RunEnded", "time": NOW.timestamp(), "outcome": "COMPLETED"}
            await socket.say(p.FactsRecorded(order.fence, order.run, 1, [ended]))
            recorded = await socket.hear(p.DropRun)
            return [claimed, recorded]

    assert all(isinstance(answer, p.DropRun) for answer in async_to_sync(story)())
    assert Run.objects.get(pk=run.pk).state == "RUNNING"
