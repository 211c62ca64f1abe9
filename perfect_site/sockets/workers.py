"""The workers' socket: wire in, deeds, wire out. No rule and no row is touched here.

The consumer's own ``dispatch`` avoids the hop through the one thread that Channels shares among all sockets; the
database is reached through ``runs.db.threads`` only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DataError, Error, IntegrityError, transaction
from django.utils import timezone
from perfect_client.wire import messages

from runs import events
from runs.access import Token
from runs.db import threads
from runs.db.outages import log_failure
from runs.ingest import dispatch, ledger, reports
from runs.rules.states import OFFER_LASTS
from runs.services import questions

HEARTBEAT_S = 10.0
SILENCE_S = 30.0
WATCH_EVERY = 5.0  # seconds
# Seconds until an unanswered offer tells against its worker: shorter than the offer lasts, so that the worker is
# passed over when the clock takes the offer back. And for how long, unless it is heard to answer.
UNANSWERED_S = OFFER_LASTS.total_seconds() - 1.0
PASSED_OVER_S = OFFER_LASTS.total_seconds() + 60.0
NEWS = frozenset({events.CANCELS, events.HOLDS, events.ANSWERS})  # for workers, beside work
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
        if self.anyone and (events.WORK in topics or not topics.isdisjoint(NEWS)):
            self._news.update(NEWS & topics)
            threads.before_commit(self._hand_out)

    def hear(self, topics: frozenset[str]) -> None:
        """Another process has changed something: hand out what may have come of it; from any thread."""
        if events.WORK in topics or not topics.isdisjoint(NEWS):
            self.wake(topics & NEWS)
        for worker in self.everyone():
            if self._loop is not None and events.joined_topic(worker.worker, worker.boot) in topics:
                self._loop.call_soon_threadsafe(self._do, worker.close(code=messages.RESTARTING))

    def wake(self, news: frozenset[str] = frozenset()) -> None:
        """Hand out orders soon, and what ``news`` there is for the workers; from any thread."""
        if self.anyone:
            self._news.update(news)
            if not self._asked:
                self._asked = True
                threads.write_soon(self._hand_out).add_done_callback(self._handed_out)

    def _handed_out(self, job: Future[None]) -> None:
        error = None if job.cancelled() else job.exception()
        if error is not None:
            self._asked = False  # it may not have come to run at all
            log_failure(logger, "handing out orders failed; it is tried again soon", error)

    def _hand_out(self) -> None:
        self._asked = False
        workers = {pk: worker for pk, worker in list(self.workers.items()) if worker.present}
        free = {pk: worker.free for pk, worker in workers.items()}
        offers = dispatch.offer(free=free, now=timezone.now()) if any(free.values()) else []
        orders: list[tuple[UUID, Any]] = [(offer.worker, offer.order) for offer in offers]
        news = set(self._news)
        self._news -= news  # in place: other threads may add to it
        try:
            orders += self._told(news) if news else []
        except Error:
            self._news.update(news)
            raise
        for offer in offers:
            workers[offer.worker].offered[offer.order.fence] = time.monotonic()
        threads.if_lost(partial(self._take_back, workers, offers, news))
        if orders and self._loop is not None:
            transaction.on_commit(partial(self._loop.call_soon_threadsafe, self._send, orders))

    def _take_back(self, workers: Mapping[UUID, WorkerConsumer], offers: list[dispatch.Offer], news: set[str]) -> None:
        """Nothing of what was handed out is on disk, so nothing of it was sent. A sweep hands it out again."""
        for offer in offers:
            workers[offer.worker].offered.pop(offer.order.fence, None)
        self._news.update(news)

    def _told(self, news: set[str]) -> list[tuple[UUID, Any]]:
        """What there is to say to the processes that are connected here."""
        newest = {pk: worker for pk, worker in list(self.workers.items()) if worker.present}
        draining = [each for some in list(self.draining.values()) for each in some if each.present]
        besides = {fence for each in draining for fence in each.fences}
        without = {fence for worker in newest.values() for fence in worker.beside} - besides
        orders: list[tuple[UUID, Any]] = []
        if events.CANCELS in news:
            orders += dispatch.cancels(workers=[*newest, *(each.worker for each in draining if each.worker)])
        if events.HOLDS in news:
            orders += dispatch.holds(workers=list(newest), without=without, besides=besides)
        if events.ANSWERS in news:
            orders += questions.due(workers=list(newest), now=timezone.now(), without=without, besides=besides)
        return orders

    def _send(self, orders: list[tuple[UUID, Any]]) -> None:
        """Who has gone meanwhile needs no word: its end gives its offers back. A process ignores what is said about
        an attempt that another process of its worker holds."""
        for pk, order in orders:
            for worker in self.processes(pk):
                if isinstance(order, messages.OfferRun) and worker is not self.workers.get(pk):
                    continue
                self._do(worker.order(order))

    def _do(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


fleet = Fleet()


async def close_all(code: int = messages.RESTARTING) -> None:
    """Close every worker's socket; the workers come back by themselves."""
    await asyncio.gather(*[worker.close(code=code) for worker in fleet.everyone()], return_exceptions=True)


class WorkerConsumer(AsyncWebsocketConsumer):
    """One worker's connection. Messages are handled one after another, so facts stay in order."""

    worker: UUID | None = None
    boot = ""
    accepted = False
    _admitted = False  # from its token's acceptance to its end: nothing else of it is read or answered
    _joining: tuple[UUID, str, datetime] | None = None  # identity, boot and moment of its ``Joined``
    _busy = False
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
        """Slots left. What the worker said was said before it saw the offers that it has not answered; one that let
        an offer expire gets no other for a while."""
        now = time.monotonic()
        ages = [now - sent for sent in list(self.offered.values())]
        return 0 if any(age >= UNANSWERED_S for age in ages) else max(0, self._free - len(ages))

    def _forgive(self, after: float = UNANSWERED_S) -> None:
        """Offers that went unanswered for ``after`` seconds do not tell against it any more."""
        now = time.monotonic()
        old = [fence for fence, sent in list(self.offered.items()) if now - sent >= after]
        for fence in old:
            self.offered.pop(fence, None)
        if old:
            fleet.wake()

    @property
    def present(self) -> bool:
        """Whether it may be given orders: it was let in, and was heard lately or is being answered right now."""
        return self.accepted and self._admitted and (self._busy or time.monotonic() - self._heard <= SILENCE_S)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Whatever ends this, also a cancellation by Daphne while it waits for the database, ends its membership."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end(self._left or "the connection ended")

    async def dispatch(self, message: dict[str, Any]) -> None:
        await getattr(self, get_handler_name(message))(message)

    # -------------------------------------------------------------------------------------------------- the connection

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        await self.accept()
        if b"origin" in headers:  # a browser; workers send none
            return await self.refuse("this socket is for workers; browsers are not let in", messages.FORBIDDEN)
        secret = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ").strip()
        try:
            token = await threads.read(Token.objects.valid, secret, timezone.now())
        except Error as error:
            log_failure(logger, "a worker's token could not be looked up", error)
            return await self.close(code=messages.OVERLOADED)
        if token is None:
            sentence = "the server does not know this token (unknown, expired or revoked);"
            hint = " make one with: manage.py createtoken NAME --scope worker"
            return await self.refuse(sentence + hint, messages.UNAUTHORISED)
        if not token.allows(Token.Scope.WORKER):
            return await self.refuse(
                f"token {token.name!r} has the scope {token.scope}; a worker needs one with the scope worker",
                messages.FORBIDDEN,
            )
        self._token, self._admitted = token.pk, True
        self._heard = time.monotonic()
        self._watch = asyncio.get_running_loop().create_task(self._watch_silence())

    async def refuse(self, reason: str, code: int) -> None:
        await self.send(text_data=messages.encode(messages.Refuse(reason, code)))
        await self.close(code=code)

    async def _watch_silence(self) -> None:
        """Close a connection that says nothing; end one whose token was revoked."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self._forgive(PASSED_OVER_S)
            if not self._busy and time.monotonic() - self._heard > SILENCE_S:
                return await self.close(code=messages.RESTARTING)
            try:
                lives = await threads.read(_token_lives, self._token)
            except Error as error:  # asked again in five seconds
                log_failure(logger, "a worker's token could not be looked up", error)
                continue
            if not lives:
                return await self.refuse("the token was revoked or has expired", messages.UNAUTHORISED)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        self._end(self._left or f"the connection ended (code {message.get('code')})")
        raise StopConsumer

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        self._end(self._left or f"the server closed the connection (code {code})")
        await super().close(code, reason)

    def _end(self, why: str) -> None:
        """Out of the fleet at once; that it has left is written as soon as anything can be."""
        self._admitted = False
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
        joining, self._joining = self._joining, None
        if joining is not None and (fleet.remove(self) or self.worker is None):
            worker, boot, joined = joining
            threads.write_surely(reports.leave, worker=worker, boot=boot, joined=joined, now=timezone.now(), why=why)

    _left = ""

    # ------------------------------------------------------------------------------------------------------- messages

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if not self._admitted:  # what a socket said before it was let in, or after it was sent away
            return
        self._heard = time.monotonic()
        self._busy = True
        try:
            await self._handle(text_data, bytes_data)
        finally:
            self._busy = False

    async def _handle(self, text_data: str | None, bytes_data: bytes | None) -> None:
        try:
            message = messages.decode(text_data if text_data is not None else bytes_data or b"")
        except messages.ProtocolError as wrong:
            return await self.refuse(f"a malformed message: {wrong}", messages.MALFORMED)
        handler = _HANDLERS.get(type(message))
        if handler is None or (self.worker is None) != isinstance(message, messages.Joined):  # once, and first
            if isinstance(message, messages.Unknown):  # a newer worker's; the rules allow it
                return
            return await self.refuse(f"{type(message).__name__} is not expected now", messages.MALFORMED)
        try:
            await handler(self, message)
        except Error as error:
            log_failure(logger, f"the database could not take {type(message).__name__}", error)
            await self.close(code=messages.OVERLOADED)

    async def order(self, message: object) -> None:
        if isinstance(message, messages.CancelRun):
            if message.fence in self.cancelled:
                return
            self.cancelled.add(message.fence)
        if self._admitted:
            await self.send(text_data=messages.encode(message))

    async def _joined(self, message: messages.Joined) -> None:
        now = timezone.now()
        try:
            self._joining = (reports.identity_of(message), message.boot, now)
            accept = await threads.write(reports.join, message=message, now=now, token=self._token)
        except reports.WorkerRefused as refused:
            self._joining = None
            return await self.refuse(str(refused), refused.code)
        self.worker, self.boot, _ = self._joining
        await self._take_place(message)
        self.accepted = True
        await self.order(accept)
        fleet.wake(NEWS)

    async def _take_place(self, message: messages.Joined) -> None:
        """Among the processes of the worker: an older connection of this process ends, one of a dead process too, and
        so does another process, unless it drains."""
        assert self.worker is not None
        others = fleet.processes(self.worker)
        if message.draining:
            self.fences = frozenset(held.fence for held in message.held)
            fleet.drains(self)
        else:
            self.beside = frozenset(message.beside)
            fleet.workers[self.worker] = self
        for other in others:
            if other.boot == self.boot or other.boot in message.dead:
                fleet.remove(other)
                await other.close(code=messages.RESTARTING)
            elif other.boot in message.older:
                other.fences = other.fences or self.beside
                fleet.drains(other)
            elif not message.draining and other not in fleet.draining.get(self.worker, ()):
                await other.close(code=messages.REPLACED)

    async def _drains(self, message: messages.Draining) -> None:
        assert self.worker is not None
        self._free, self.fences = 0, frozenset(message.running)
        fleet.drains(self)
        await threads.write(
            reports.drains, worker=self.worker, boot=self.boot, running=len(self.fences), now=timezone.now()
        )

    async def _flows_announced(self, message: messages.FlowsAnnounced) -> None:
        assert self.worker is not None
        if self in fleet.draining.get(self.worker, ()):  # the process that takes new runs says what there is
            return
        refused = await threads.write(reports.announce, worker=self.worker, message=message, now=timezone.now())
        if refused:
            await self.order(messages.FlowsRefused(refused))
        fleet.wake()

    async def _slots_freed(self, message: messages.SlotsFreed) -> None:
        before = self.free
        self._forgive()
        self._free = max(0, min(message.free, 10_000))
        if self.free > before:
            fleet.wake()

    async def _claimed(self, message: messages.OfferClaimed) -> None:
        assert self.worker is not None
        self._forgive()
        answer = await threads.write(
            dispatch.claim, worker=self.worker, fence=message.fence, run_id=message.run, now=timezone.now()
        )
        if message.fence in self.offered:  # in this order: the writer's thread may look at any moment
            self._free -= 1
            del self.offered[message.fence]
        await self.order(answer)

    async def _declined(self, message: messages.OfferDeclined) -> None:
        assert self.worker is not None
        self._forgive()
        self.offered.pop(message.fence, None)
        why = messages.clean_text(message.reason, 500) or "the worker declined it"
        await threads.write(dispatch.release, worker=self.worker, now=timezone.now(), why=why, fences=[message.fence])

    async def _recorded(self, message: messages.FactsRecorded) -> None:
        assert self.worker is not None
        now = timezone.now()
        try:
            answer: object = await threads.write(ledger.record, worker=self.worker, message=message, now=now)
        except (DataError, IntegrityError) as wrong:
            if len(message.facts) == 1:
                answer = await threads.write(
                    ledger.set_aside, worker=self.worker, message=message, now=now, why=str(wrong)
                )
            else:
                logger.exception("a batch of %d facts could not be applied", len(message.facts))
                answer = messages.Resend(message.fence, message.first, message.stream)
        except Error as error:
            log_failure(logger, "the database could not take a batch; it will be sent again", error)
            await asyncio.sleep(RETRY_PAUSE)
            answer = messages.Resend(message.fence, message.first, message.stream)
        await self.order(answer)

    async def _beaten(self, message: messages.Beaten) -> None:
        assert self.worker is not None
        now = timezone.now()
        boot = "" if fleet.workers.get(self.worker) is self else self.boot
        # Not waited for: a database that is slow does not make the server silent.
        threads.write_soon(reports.beat, worker=self.worker, now=now, boot=boot)
        await self.order(messages.Echo(now.timestamp()))

    async def _lines_open(self, message: messages.LinesOpen) -> None:
        assert self.worker is not None
        await threads.write(reports.show_open, worker=self.worker, message=message)

    async def _said_goodbye(self, message: messages.Left) -> None:
        self._left = messages.clean_text(message.reason, 500) or "it was stopped"
        self._free = 0


_HANDLERS: dict[type, Callable[[WorkerConsumer, Any], Awaitable[None]]] = {
    messages.Joined: WorkerConsumer._joined,
    messages.FlowsAnnounced: WorkerConsumer._flows_announced,
    messages.SlotsFreed: WorkerConsumer._slots_freed,
    messages.Draining: WorkerConsumer._drains,
    messages.OfferClaimed: WorkerConsumer._claimed,
    messages.OfferDeclined: WorkerConsumer._declined,
    messages.FactsRecorded: WorkerConsumer._recorded,
    messages.Beaten: WorkerConsumer._beaten,
    messages.LinesOpen: WorkerConsumer._lines_open,
    messages.Left: WorkerConsumer._said_goodbye,
}


def _token_lives(pk: int) -> bool:
    token = Token.objects.filter(pk=pk).first()
    return token is not None and token.lives(timezone.now())
