"""The workers' socket with two processes of one worker: who stays connected, and who hears what."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from perfect_client.wire import messages as p

from perfect_site.sockets.workers import WorkerConsumer, fleet
from runs.ingest import dispatch
from runs.models import Worker

WORKER = str(uuid.uuid4())


class Process:
    """One process of the worker, by hand."""

    def __init__(self, token: str, boot: str) -> None:
        headers = [(b"authorization", b"Bearer " + token.encode())]
        self.boot, self.wire = boot, WebsocketCommunicator(WorkerConsumer.as_asgi(), "/ws/worker/", headers=headers)

    async def join(self, **more: Any) -> Process:
        assert (await self.wire.connect())[0]
        await self.say(p.Joined(WORKER, self.boot, name="w1", **more))
        assert isinstance(await self.hear(), p.Accept)
        return self

    async def say(self, message: object) -> None:
        await self.wire.send_to(text_data=p.encode(message))

    async def hear(self) -> Any:
        """The next message, or the code that it was sent away with."""
        event = await self.wire.receive_output(timeout=5)
        return event["code"] if event["type"] == "websocket.close" else p.decode(event["text"])

    async def is_connected(self) -> bool:
        await self.say(p.Beaten())
        return isinstance(await self.hear(), p.Echo)


@pytest.fixture
def token(make_token: Callable[..., str]) -> Iterator[str]:
    yield make_token("worker")
    fleet.workers.clear()
    fleet.draining.clear()


def tell(story: Callable[[], Awaitable[None]]) -> None:
    async_to_sync(story)()


def test_a_new_connection_of_a_process_ends_its_old_one(token: str) -> None:
    async def story() -> None:
        old = await Process(token, "b1").join()
        new = await Process(token, "b1").join()

        assert await old.hear() == p.RESTARTING
        await old.wire.disconnect()
        assert await new.is_connected()

    tell(story)


def test_the_connection_of_a_dead_process_ends_when_the_next_one_joins(token: str) -> None:
    async def story() -> None:
        draining = await Process(token, "b1").join()
        await draining.say(p.Draining([7]))
        assert await draining.is_connected()
        old = await Process(token, "b2").join(older=["b1"], beside=[7])

        new = await Process(token, "b3").join(dead=["b2", "b1"])

        assert [await old.hear(), await draining.hear()] == [p.RESTARTING, p.RESTARTING]
        await old.wire.disconnect()
        await draining.wire.disconnect()
        assert await new.is_connected()
        assert fleet.everyone() == [fleet.workers[uuid.UUID(WORKER)]]
        row = await Worker.objects.aget()
        assert (row.boot, row.connected, row.draining) == ("b3", True, {})
        await new.wire.disconnect()

    tell(story)


@pytest.mark.usefixtures("serving")
def test_who_names_another_dead_process_than_the_connected_one_is_refused(token: str) -> None:
    async def story() -> None:
        old = await Process(token, "b2").join()
        new = Process(token, "b3")
        assert (await new.wire.connect())[0]

        await new.say(p.Joined(WORKER, "b3", dead=["b1"]))

        refused = await new.hear()
        assert isinstance(refused, p.Refuse) and "is connected already" in refused.reason
        assert await old.is_connected()
        await new.wire.disconnect()  # what it writes at its end is written before the next test begins
        await old.wire.disconnect()

    tell(story)


@pytest.mark.parametrize("told", ["before", "after"])
def test_the_older_one_stays_whether_it_said_before_or_after_that_it_drains(token: str, told: str) -> None:
    async def story() -> None:
        old = await Process(token, "b1").join()
        if told == "before":
            await old.say(p.Draining([7]))
            assert await old.is_connected()
        new = await Process(token, "b2").join(older=["b1"], beside=[7])
        if told == "after":
            await old.say(p.Draining([7]))

        assert await old.is_connected()
        assert await new.is_connected()
        (draining,) = fleet.draining[uuid.UUID(WORKER)]
        assert (draining.boot, draining.fences, draining.free) == ("b1", {7}, 0)
        assert fleet.workers[uuid.UUID(WORKER)].boot == "b2"
        assert fleet.workers[uuid.UUID(WORKER)].beside == {7}

    tell(story)


def test_an_offer_goes_to_the_newest_process_and_every_other_order_to_all(token: str) -> None:
    async def story() -> None:
        old = await Process(token, "b1").join()
        new = await Process(token, "b2").join(older=["b1"], beside=[7])
        offer, cancel = p.OfferRun(9, "r", "f"), p.CancelRun(7, "cancelled by ana")

        fleet._send([(uuid.UUID(WORKER), offer), (uuid.UUID(WORKER), cancel)])

        assert await old.hear() == cancel
        assert [await new.hear(), await new.hear()] == [offer, cancel]

    tell(story)


def test_the_draining_one_may_come_back_in_any_order(token: str) -> None:
    async def story() -> None:
        old = await Process(token, "b1").join()
        await old.say(p.Draining([7]))
        assert await old.is_connected()
        new = await Process(token, "b2").join(older=["b1"], beside=[7])
        back = await Process(token, "b1").join(draining=True, held=[p.Held(7, "r", started=True)])

        assert await old.hear() == p.RESTARTING
        assert await back.is_connected() and await new.is_connected()
        (draining,) = fleet.draining[uuid.UUID(WORKER)]
        assert draining.fences == {7}
        await back.wire.disconnect()
        assert not fleet.draining
        assert await new.is_connected()

    tell(story)


def test_what_the_draining_one_says_of_flows_does_not_count(token: str) -> None:
    async def story() -> None:
        old = await Process(token, "b1").join()
        await old.say(p.Draining([7]))
        new = await Process(token, "b2").join(older=["b1"], beside=[7])
        await new.say(p.FlowsAnnounced([p.FlowSpec("Newest")]))
        assert await new.is_connected()

        await old.say(p.FlowsAnnounced([p.FlowSpec("Oldest")]))
        assert await old.is_connected()

    tell(story)
    assert [flow.name for flow in Worker.objects.get(pk=WORKER).flows.all()] == ["Newest"]


def test_what_a_process_here_cannot_hear_is_left_to_the_server_that_can_tell_it(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(dispatch, "holds", lambda **reach: asked.append(reach) or [])

    async def story() -> None:
        new = await Process(token, "b2").join(older=["b1"], beside=[7, 8])
        fleet._told({"holds"})
        old = await Process(token, "b1").join(draining=True, held=[p.Held(7, "r", started=True)])
        fleet._told({"holds"})
        assert await new.is_connected() and await old.is_connected()

    tell(story)
    assert [(reach["without"], reach["besides"]) for reach in asked] == [({7, 8}, set()), ({8}, {7})]
