"""The workers' socket: wire in, deeds, wire out. No rule and no row is touched here.

The consumer's own ``dispatch`` avoids the hop through the one thread that Channels shares among all sockets; the
database is reached through ``runs.lanes`` only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any
from uuid import UUID

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError, DataError, IntegrityError, transaction
from django.utils import timezone
from perfect_client import protocol

from runs import answers, dispatch, ingest, lanes, live
from runs.access import Token

HEARTBEAT_S = 10.0
SILENCE_S = 30.0
NEWS = frozenset({live.CANCELS, live.HOLDS, live.ANSWERS})  # for workers, beside work
RETRY_PAUSE = 1.0  # seconds before a worker is asked to send again what the database could not take

logger = logging.getLogger(__name__)


class Fleet:
    """The workers connected to this process, and how orders come to them.

    Orders are made on the writer's thread: what a wish leads to is on disk with the wish, in one commit, and leaves
    before the wish is answered.
    """

    def __init__(self) -> None:
        self.workers: dict[UUID, WorkerConsumer] = {}  # the newest process of each
        self.draining: dict[UUID, list[WorkerConsumer]] = {}  # processes that take no new run
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False
        self._news: set[str] = set()  # beside work
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def anyone(self) -> bool:
        return bool(self.workers or self.draining)

    def processes(self, worker: UUID) -> list[WorkerConsumer]:
        """All processes of the worker that are connected here."""
        newest = self.workers.get(worker)
        return [*([newest] if newest is not None else []), *self.draining.get(worker, ())]

    def everyone(self) -> list[WorkerConsumer]:
        return [*self.workers.values(), *(each for some in list(self.draining.values()) for each in some)]

    def drains(self, consumer: WorkerConsumer) -> None:
        """The process takes no new run; its place as the newest one is free."""
        assert consumer.worker is not None
        if self.workers.get(consumer.worker) is consumer:
            del self.workers[consumer.worker]
        known = self.draining.get(consumer.worker, [])
        if consumer not in known:
            self.draining[consumer.worker] = [*known, consumer]

    def remove(self, consumer: WorkerConsumer) -> bool:
        """The process is not connected any more; False if another connection of it has taken its place."""
        worker = consumer.worker
        if worker is None or consumer not in self.processes(worker):
            return False
        if self.workers.get(worker) is consumer:
            del self.workers[worker]
        left = [each for each in self.draining.pop(worker, []) if each is not consumer]
        if left:
            self.draining[worker] = left
        return True

    def notice(self, topics: frozenset[str]) -> None:
        """Within the transaction that changes something: hand out orders before it is committed."""
        if self.anyone and (live.WORK in topics or not topics.isdisjoint(NEWS)):
            self._news.update(NEWS & topics)
            lanes.before_commit(self._hand_out)

    def wake(self, everything: bool = False) -> None:
        """Hand out orders soon, or whatever is there for the workers; from any thread."""
        if everything:
            self._news.update(NEWS)
        if self.anyone and not self._asked:
            self._asked = True
            lanes.write_soon(self._hand_out).add_done_callback(_log_failure)

    def _hand_out(self) -> None:
        self._asked = False
        workers = {pk: worker for pk, worker in list(self.workers.items()) if worker.accepted}
        orders: list[tuple[UUID, Any]] = []
        free = {pk: worker.free for pk, worker in workers.items()}
        if any(free.values()):
            for offer in dispatch.offer(free=free, now=timezone.now()):
                workers[offer.worker].offered[offer.order.fence] = time.monotonic()
                orders.append((offer.worker, offer.order))
        news, self._news = self._news, set()
        orders += self._told(news) if news else []
        if orders and self._loop is not None:
            transaction.on_commit(partial(self._loop.call_soon_threadsafe, self._send, orders))

    def _told(self, news: set[str]) -> list[tuple[UUID, Any]]:
        """What there is to say to the processes that are connected here."""
        newest = {pk: worker for pk, worker in list(self.workers.items()) if worker.accepted}
        draining = [each for some in list(self.draining.values()) for each in some if each.accepted]
        besides = {fence for each in draining for fence in each.fences}
        without = {fence for worker in newest.values() for fence in worker.beside} - besides
        orders: list[tuple[UUID, Any]] = []
        if live.CANCELS in news:
            orders += dispatch.cancels(workers=[*newest, *(each.worker for each in draining if each.worker)])
        if live.HOLDS in news:
            orders += dispatch.holds(workers=list(newest), without=without, besides=besides)
        if live.ANSWERS in news:
            orders += answers.due(workers=list(newest), now=timezone.now(), without=without, besides=besides)
        return orders

    def _send(self, orders: list[tuple[UUID, Any]]) -> None:
        """Who has gone meanwhile needs no word: its end gives its offers back. A process ignores what is said about
        an attempt that another process of its worker holds."""
        for pk, order in orders:
            for worker in self.processes(pk):
                if isinstance(order, protocol.OfferRun) and worker is not self.workers.get(pk):
                    continue
                task = asyncio.ensure_future(worker.order(order))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)


def _log_failure(job: Future[None]) -> None:
    if not job.cancelled() and job.exception() is not None:
        logger.error("handing out orders failed", exc_info=job.exception())


fleet = Fleet()


async def close_all(code: int = protocol.RESTARTING) -> None:
    """Close every worker's socket; the workers come back by themselves."""
    await asyncio.gather(*[worker.close(code=code) for worker in fleet.everyone()], return_exceptions=True)


class WorkerConsumer(AsyncWebsocketConsumer):
    """One worker's connection. Messages are handled one after another, so facts stay in order."""

    worker: UUID | None = None
    boot = ""
    accepted = False
    _free = 0
    _heard = 0.0
    _watch: asyncio.Task[None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offered: dict[int, float] = {}  # when offers were sent that are neither claimed nor declined yet
        self.cancelled: set[int] = set()
        self.fences: frozenset[int] = frozenset()  # what a draining process holds
        self.beside: frozenset[int] = frozenset()  # what draining processes beside this one hold

    @property
    def free(self) -> int:
        """Slots left. What the worker said was said before it saw the offers that it has not answered."""
        recent = time.monotonic() - dispatch.OFFER_LASTS.total_seconds()
        return max(0, self._free - sum(sent > recent for sent in list(self.offered.values())))

    async def dispatch(self, message: dict[str, Any]) -> None:
        await getattr(self, get_handler_name(message))(message)

    # -------------------------------------------------------------------------------------------------- the connection

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        await self.accept()
        if b"origin" in headers:  # a browser; workers send none
            return await self.refuse("this socket is for workers; browsers are not let in", protocol.FORBIDDEN)
        secret = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ").strip()
        token = await lanes.read(Token.objects.valid, secret, timezone.now())
        if token is None:
            sentence = "the server does not know this token (unknown, expired or revoked);"
            hint = " make one with: manage.py createtoken NAME --scope worker"
            return await self.refuse(sentence + hint, protocol.UNAUTHORISED)
        if not token.allows(Token.Scope.WORKER):
            return await self.refuse(
                f"token {token.name!r} has the scope {token.scope}; a worker needs one with the scope worker",
                protocol.FORBIDDEN,
            )
        self._token = token.pk
        self._heard = time.monotonic()
        self._watch = asyncio.get_running_loop().create_task(self._watch_silence())

    async def refuse(self, reason: str, code: int) -> None:
        await self.send(text_data=protocol.encode(protocol.Refuse(reason, code)))
        await self.close(code=code)

    async def _watch_silence(self) -> None:
        """Close a connection that says nothing; end one whose token was revoked."""
        while True:
            await asyncio.sleep(5)
            if time.monotonic() - self._heard > SILENCE_S:
                return await self.close(code=protocol.RESTARTING)
            if not await lanes.read(_token_lives, self._token):
                return await self.refuse("the token was revoked or has expired", protocol.UNAUTHORISED)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self.worker is not None and fleet.remove(self):
            code = message.get("code")
            why = self._left or f"the connection ended (code {code})"
            await lanes.write(ingest.leave, worker=self.worker, boot=self.boot, now=timezone.now(), why=why)
        raise StopConsumer

    _left = ""

    # ------------------------------------------------------------------------------------------------------- messages

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self._heard = time.monotonic()
        try:
            message = protocol.decode(text_data if text_data is not None else bytes_data or b"")
        except protocol.ProtocolError as wrong:
            return await self.refuse(f"a malformed message: {wrong}", protocol.MALFORMED)
        handler = _HANDLERS.get(type(message))
        if handler is None or (self.worker is None and not isinstance(message, protocol.Joined)):
            if isinstance(message, protocol.Unknown):  # a newer worker's; the rules allow it
                return
            return await self.refuse(f"{type(message).__name__} is not expected now", protocol.MALFORMED)
        try:
            await handler(self, message)
        except DatabaseError:
            logger.exception("the database could not take %s", type(message).__name__)
            await self.close(code=protocol.OVERLOADED)

    async def order(self, message: object) -> None:
        if isinstance(message, protocol.CancelRun):
            if message.fence in self.cancelled:
                return
            self.cancelled.add(message.fence)
        await self.send(text_data=protocol.encode(message))

    async def _joined(self, message: protocol.Joined) -> None:
        try:
            accept = await lanes.write(ingest.join, message=message, now=timezone.now())
        except ingest.WorkerRefused as refused:
            return await self.refuse(str(refused), refused.code)
        self.worker, self.boot = UUID(message.worker), message.boot
        await self._take_place(message)
        self.accepted = True
        await self.order(accept)
        fleet.wake(everything=True)

    async def _take_place(self, message: protocol.Joined) -> None:
        """Among the processes of the worker: an older connection of this process ends, and so does another process,
        unless it drains."""
        assert self.worker is not None
        others = fleet.processes(self.worker)
        if message.draining:
            self.fences = frozenset(held.fence for held in message.held)
            fleet.drains(self)
        else:
            self.beside = frozenset(message.beside)
            fleet.workers[self.worker] = self
        for other in others:
            if other.boot == self.boot:
                fleet.remove(other)
                await other.close(code=protocol.RESTARTING)
            elif other.boot in message.older:
                other.fences = other.fences or self.beside
                fleet.drains(other)
            elif not message.draining and other not in fleet.draining.get(self.worker, ()):
                await other.close(code=protocol.REPLACED)

    async def _drains(self, message: protocol.Draining) -> None:
        assert self.worker is not None
        self._free, self.fences = 0, frozenset(message.running)
        fleet.drains(self)
        await lanes.write(
            ingest.drains, worker=self.worker, boot=self.boot, running=len(self.fences), now=timezone.now()
        )  # fmt: skip

    async def _flows_announced(self, message: protocol.FlowsAnnounced) -> None:
        assert self.worker is not None
        if self in fleet.draining.get(self.worker, ()):  # the process that takes new runs says what there is
            return
        refused = await lanes.write(ingest.announce, worker=self.worker, message=message, now=timezone.now())
        if refused:
            await self.order(protocol.FlowsRefused(refused))
        fleet.wake()

    async def _slots_freed(self, message: protocol.SlotsFreed) -> None:
        before = self.free
        self._free = max(0, min(message.free, 10_000))
        if self.free > before:
            fleet.wake()

    async def _claimed(self, message: protocol.OfferClaimed) -> None:
        assert self.worker is not None
        answer = await lanes.write(
            dispatch.claim, worker=self.worker, fence=message.fence, run_id=message.run, now=timezone.now()
        )
        if message.fence in self.offered:  # in this order: the writer's thread may look at any moment
            self._free -= 1
            del self.offered[message.fence]
        await self.order(answer)

    async def _declined(self, message: protocol.OfferDeclined) -> None:
        assert self.worker is not None
        self.offered.pop(message.fence, None)
        why = protocol.clean_text(message.reason, 500) or "the worker declined it"
        await lanes.write(
            dispatch.release, worker=self.worker, now=timezone.now(), why=why, fences=[message.fence]
        )  # fmt: skip

    async def _recorded(self, message: protocol.FactsRecorded) -> None:
        assert self.worker is not None
        now = timezone.now()
        try:
            answer: object = await lanes.write(ingest.record, worker=self.worker, message=message, now=now)
        except (DataError, IntegrityError) as wrong:
            if len(message.facts) == 1:
                answer = await lanes.write(
                    ingest.set_aside, worker=self.worker, message=message, now=now, why=str(wrong)
                )
            else:
                logger.exception("a batch of %d facts could not be applied", len(message.facts))
                answer = protocol.Resend(message.fence, message.first, message.stream)
        except DatabaseError:
            logger.exception("the database could not take a batch; it will be sent again")
            await asyncio.sleep(RETRY_PAUSE)
            answer = protocol.Resend(message.fence, message.first, message.stream)
        await self.order(answer)

    async def _beaten(self, message: protocol.Beaten) -> None:
        assert self.worker is not None
        now = timezone.now()
        boot = "" if fleet.workers.get(self.worker) is self else self.boot
        await lanes.write(ingest.beat, worker=self.worker, now=now, boot=boot)
        await self.order(protocol.Echo(now.timestamp()))

    async def _lines_open(self, message: protocol.LinesOpen) -> None:
        assert self.worker is not None
        await lanes.write(ingest.show_open, worker=self.worker, message=message)

    async def _said_goodbye(self, message: protocol.Left) -> None:
        self._left = protocol.clean_text(message.reason, 500) or "it was stopped"
        self._free = 0


_HANDLERS: dict[type, Callable[[WorkerConsumer, Any], Awaitable[None]]] = {
    protocol.Joined: WorkerConsumer._joined,
    protocol.FlowsAnnounced: WorkerConsumer._flows_announced,
    protocol.SlotsFreed: WorkerConsumer._slots_freed,
    protocol.Draining: WorkerConsumer._drains,
    protocol.OfferClaimed: WorkerConsumer._claimed,
    protocol.OfferDeclined: WorkerConsumer._declined,
    protocol.FactsRecorded: WorkerConsumer._recorded,
    protocol.Beaten: WorkerConsumer._beaten,
    protocol.LinesOpen: WorkerConsumer._lines_open,
    protocol.Left: WorkerConsumer._said_goodbye,
}


def _token_lives(pk: int) -> bool:
    token = Token.objects.filter(pk=pk).first()
    return (
        token is not None and token.revoked_at is None and (not token.expires_at or token.expires_at > timezone.now())
    )
