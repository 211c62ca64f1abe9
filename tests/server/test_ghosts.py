"""Who is gone is gone: a worker whose socket has ended, in whatever way, or that does not answer, gets no runs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.db import connection
from django.utils import timezone
from perfect_client.wire import messages as p

from flows.models import Flow
from perfect_site.sockets import workers
from perfect_site.sockets.workers import WorkerConsumer, fleet
from runs import events
from runs.db import threads
from runs.ingest import dispatch, reports
from runs.models import Run, Worker
from runs.rules.states import OFFER_LASTS
from runs.services import queries, requests

from .conftest import locked, only_on

pytestmark = pytest.mark.django_db(transaction=True)


class Peer:
    """A worker's end of its socket, by hand."""

    def __init__(self, token: str, name: str, slots: int = 1) -> None:
        headers = [(b"authorization", b"Bearer " + token.encode())]
        self.id, self.name, self.slots = uuid.uuid4(), name, slots
        self.wire = WebsocketCommunicator(WorkerConsumer.as_asgi(), "/ws/worker/", headers=headers)

    async def join(self) -> Peer:
        assert (await self.wire.connect(timeout=20))[0]
        await self.say(p.Joined(str(self.id), "b-1", name=self.name, slots=self.slots))
        assert isinstance(await self.hear(), p.Accept)
        await self.say(p.FlowsAnnounced([p.FlowSpec("Plain")]), p.SlotsFreed(self.slots))
        return self

    async def say(self, *messages: object) -> None:
        for message in messages:
            await self.wire.send_to(text_data=p.encode(message))

    async def hear(self, kind: type = object) -> Any:
        """The next message of that kind, or the code that it was sent away with."""
        while True:
            event = await self.wire.receive_output(timeout=20)
            found = event["code"] if event["type"] == "websocket.close" else p.decode(event["text"])
            if isinstance(found, (kind, int)):
                return found

    async def is_silent(self) -> bool:
        return await self.wire.receive_nothing(timeout=0.1)


@pytest.fixture
def token(make_token: Callable[..., str]) -> Iterator[str]:
    threads.start()
    stop = events.subscribe(fleet.notice, early=True)
    yield make_token("worker")
    stop()
    threads.stop()
    fleet.workers.clear()
    fleet.draining.clear()


def tell(story: Callable[[], Awaitable[None]]) -> None:
    async def told() -> None:
        fleet.begin(asyncio.get_running_loop())
        await story()

    async_to_sync(told)()


async def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := await threads.read(look)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


def trigger() -> Run:
    return requests.trigger(flow=Flow.objects.get(), now=timezone.now(), trigger="page", who="ana")


def connected() -> dict[str, bool]:
    return dict(Worker.objects.values_list("name", "connected"))


def test_a_worker_that_goes_while_the_database_is_locked_is_no_ghost(token: str) -> None:
    async def story() -> None:
        ghost = await Peer(token, "ghost", slots=8).join()
        with locked():
            await ghost.say(p.FlowsAnnounced([p.FlowSpec("Plain")]))  # its consumer waits for the database
            await asyncio.sleep(0)
            ghost.wire.future.cancel()  # as Daphne does ten seconds after the socket has ended
            await asyncio.wait([ghost.wire.future])
            assert not fleet.anyone
        idle = await Peer(token, "idle").join()
        await until(lambda: connected() == {"ghost": False, "idle": True})
        run = await threads.write(trigger)

        assert (await idle.hear(p.OfferRun)).run == str(run.pk)
        await idle.wire.disconnect()

    tell(story)


def test_that_a_worker_has_left_is_written_though_the_database_fails_meanwhile(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_on("SQLite")
    monkeypatch.setattr(threads, "RETRY_EVERY", 0.05)

    def busy_for(milliseconds: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")

    async def story() -> None:
        gone = await Peer(token, "gone").join()
        await threads.write(busy_for, 50)
        with locked():
            await gone.wire.disconnect(timeout=20)
            with pytest.raises(Exception, match="locked"):
                await threads.write(lambda: None)
        await until(lambda: connected() == {"gone": False})

    tell(story)


def test_what_a_connection_writes_of_its_end_harms_no_later_one(token: str) -> None:
    async def story() -> None:
        peer = await Peer(token, "w").join()
        await until(lambda: connected() == {"w": True})
        joined = timezone.now()
        message = p.Joined(str(peer.id), "b-1", name="w")
        token_id = await threads.read(Worker.objects.values_list("token", flat=True).get)
        await threads.write(reports.join, message=message, now=joined, token=token_id)
        await peer.wire.disconnect(timeout=20)  # the older connection: it may notice its end late
        await threads.write(lambda: None)

        assert await threads.read(connected) == {"w": True}

    tell(story)


def test_a_socket_is_one_worker(token: str) -> None:
    async def story() -> None:
        peer = await Peer(token, "first").join()
        await peer.say(p.Joined(str(uuid.uuid4()), "b-2", name="second"))

        assert (await peer.hear(p.Refuse)).code == p.MALFORMED
        assert await peer.hear() == p.MALFORMED
        await until(lambda: connected() == {"first": False})
        assert not fleet.anyone

    tell(story)


def test_a_worker_that_has_joined_another_server_is_sent_away_here(token: str) -> None:
    """Its connection to this one may be gone without a word, and would be offered runs until that is noticed."""

    async def story() -> None:
        gone, other = await Peer(token, "gone").join(), await Peer(token, "other").join()

        fleet.hear(frozenset({events.joined_topic(gone.id, "b-1")}))

        assert await gone.hear(int) == p.RESTARTING
        assert list(fleet.workers) == [other.id]

    tell(story)


def test_who_is_not_heard_gets_no_run(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        silent = await Peer(token, "silent", slots=8).join()
        await silent.say(p.Beaten())
        await silent.hear(p.Echo)
        monkeypatch.setattr(workers, "SILENCE_S", -1.0)
        run = await threads.write(trigger)
        assert await silent.is_silent()

        monkeypatch.setattr(workers, "SILENCE_S", 30.0)
        await silent.say(p.SlotsFreed(9))
        assert (await silent.hear(p.OfferRun)).run == str(run.pk)
        await silent.wire.disconnect()

    tell(story)


@pytest.mark.parametrize("answer", [p.OfferClaimed, p.OfferDeclined, p.SlotsFreed])
def test_a_run_is_not_offered_again_to_a_worker_that_did_not_answer(token: str, answer: Any) -> None:
    """It goes to another, although the deaf one has more slots; and to the deaf one as soon as it is heard again."""

    async def story() -> None:
        deaf = await Peer(token, "deaf", slots=8).join()
        await deaf.say(p.Beaten())
        await deaf.hear(p.Echo)
        run = await threads.write(trigger)
        offer = await deaf.hear(p.OfferRun)
        later = age_offers(OFFER_LASTS.total_seconds())
        await threads.write(dispatch.expire, fences=[offer.fence], now=later)
        assert await deaf.is_silent()
        reason = await threads.read(lambda: queries.waiting_reason(Run.objects.select_related("flow").get()))
        assert reason == "no answer to an offer from deaf, asked again after a minute"

        other = await Peer(token, "other").join()
        assert (await other.hear(p.OfferRun)).run == str(run.pk)
        second = await threads.write(trigger)
        assert await deaf.is_silent()
        await deaf.say(answer(8) if answer is p.SlotsFreed else answer(offer.fence, offer.run))
        assert (await deaf.hear(p.OfferRun)).run == str(second.pk)
        await deaf.wire.disconnect()
        await other.wire.disconnect()

    tell(story)


def test_a_worker_that_did_not_answer_is_tried_again_after_a_while(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WATCH_EVERY", 0.05)

    async def story() -> None:
        deaf = await Peer(token, "deaf").join()
        await deaf.say(p.Beaten())
        await deaf.hear(p.Echo)
        run = await threads.write(trigger)
        offer = await deaf.hear(p.OfferRun)
        later = age_offers(workers.PASSED_OVER_S)
        await threads.write(dispatch.expire, fences=[offer.fence], now=later)

        assert (await deaf.hear(p.OfferRun)).run == str(run.pk)
        await deaf.wire.disconnect()

    tell(story)


def age_offers(seconds: float) -> Any:
    """The offers that are out become older by so much; the time by which they are."""
    for consumer in fleet.everyone():
        for fence in consumer.offered:
            consumer.offered[fence] -= seconds
    return timezone.now() + timedelta(seconds=seconds)
