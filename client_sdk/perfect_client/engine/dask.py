"""``DaskTaskRunner``: submitted tasks run on a Dask cluster, told as if they ran here. Needs ``distributed``.

The call of a task is one call for Dask; retries, hooks and results are kept by this process. What happens there comes
home as events of Dask, numbered, and the answer says how many there were.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
import time
from contextvars import Context, copy_context
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from perfect_client.core import context
from perfect_client.core.previews import rebuild_error, traceback_text, unpickled_error
from perfect_client.core.runs import Run, TaskRun, new_id
from perfect_client.engine import process_pool
from perfect_client.engine.pickling import dumps
from perfect_client.engine.steps import Call
from perfect_client.engine.task_runners import ElsewhereTaskRunner, Job
from perfect_client.errors import Cancelled, ConfigurationError, CrashedRun
from perfect_client.output.tee import tee_output
from perfect_client.questions.client import NoLine
from perfect_client.wire.messages import Logged, TaskEnded

__tracebackhide__ = True  # pytest does not show our frames

TOPIC = "perfect"  # of events; one for all, since a scheduler remembers its topics for ever
AT_A_TIME = 256  # calls that are with Dask, or twice the cluster's threads if that is more
EVENTS_S = 5.0  # from an answer to the last event that came before it
CLOSE_S = 10.0
NO_QUESTIONS = "a task on a Dask worker cannot ask the server (limits, variables, pauses): ask in the flow around it"

_here: Dict[str, Callable[[], None]] = {}  # calls of this process, for workers that are threads of it
_open: Dict[str, _Open] = {}


class DaskTaskRunner(ElsewhereTaskRunner):
    """Runs tasks on a Dask cluster: the one at ``address``, else one that is made for each run of the flow.

    ``cluster_class`` (a class, a function or a dotted name; by default ``distributed.LocalCluster``) is called with
    ``cluster_kwargs``, then ``adapt`` with ``adapt_kwargs``; ``client_kwargs`` are for ``distributed.Client``. A worker
    that dies fails its task as crashed; on a cluster at an ``address`` Dask first tries it on other workers, as often
    as ``distributed.scheduler.allowed-failures`` there says. Raises ``ConfigurationError``.
    """

    def __init__(
        self,
        address: Optional[str] = None,
        cluster_class: Any = None,
        cluster_kwargs: Optional[Mapping[str, Any]] = None,
        adapt_kwargs: Optional[Mapping[str, Any]] = None,
        client_kwargs: Optional[Mapping[str, Any]] = None,
    ) -> None:
        super().__init__(AT_A_TIME)
        if find_spec("distributed") is None:
            raise ConfigurationError("DaskTaskRunner needs Dask: pip install 'perfect-client[dask]'")
        if address is not None and (cluster_class or cluster_kwargs or adapt_kwargs):
            raise ConfigurationError("DaskTaskRunner takes an address, or what a cluster is to be made of, not both")
        self._options = (address, cluster_class, cluster_kwargs, adapt_kwargs, client_kwargs)
        self._connecting = threading.Lock()
        self._client: Any = None
        self._cluster: Any = None
        self._logger, self._hushed = logging.getLogger("distributed"), False
        self._futures: Dict[str, Any] = {}

    def duplicate(self) -> DaskTaskRunner:
        return type(self)(*self._options)

    # -------------------------------------------------------------------------------------------------------- cluster

    def _connected(self) -> Any:
        """The client; made when something runs first."""
        with self._connecting:
            if self._client is None:
                Context().run(self._connect)  # what Dask logs about it is not this task's
            return self._client

    def _connect(self) -> None:
        import distributed  # heavy: only for whoever uses Dask

        client: Any = distributed.Client
        if self._logger.level == logging.INFO:  # Dask's own choice; each of its steps is not what a run has to tell
            self._logger.setLevel(logging.WARNING)
            self._hushed = True
        address, _, _, _, kwargs = self._options
        if address is None:
            self._cluster = self._made_cluster()
        self._client = client(self._cluster or address, set_as_default=False, **(kwargs or {}))
        self._client.subscribe_topic(TOPIC, _take_event)
        threads = sum(self._client.nthreads().values())
        with self._lock:
            self._most = max(self._most, 2 * threads)

    def _made_cluster(self) -> Any:
        from dask import config  # heavy, as above

        _, cluster_class, cluster_kwargs, adapt_kwargs, _ = self._options
        with config.set({"distributed.scheduler.allowed-failures": 0}):  # code must not start twice unasked
            cluster = _class_of(cluster_class)(**(cluster_kwargs or {}))
        if adapt_kwargs:
            cluster.adapt(**adapt_kwargs)
        return cluster

    def shut(self) -> None:
        super().shut()
        with self._connecting:
            client, self._client = self._client, None
            cluster, self._cluster = self._cluster, None
        with contextlib.suppress(Exception):  # what cannot be given back any more is gone
            if client is not None:
                if self._futures:
                    client.cancel(list(self._futures.values()), force=True)
                client.close(timeout=CLOSE_S)
        with contextlib.suppress(Exception):
            if cluster is not None:
                cluster.close(timeout=CLOSE_S)
        if self._hushed:
            self._logger.setLevel(logging.INFO)
            self._hushed = False

    # ---------------------------------------------------------------------------------------------------------- calls

    def call(self, step: Call, job: Job) -> Any:
        order = _ordered(job.call.task, step)
        opened = _Open(job.future.task_run)
        token = new_id()
        inside = copy_context()
        _open[token], _here[token] = opened, lambda: opened.perform(inside.run, step)
        try:
            answer = self._answer(token, order)
        finally:
            _here.pop(token, None)
            self._futures.pop(token, None)
            _open.pop(token, None)
            opened.close()
        return opened.value() if answer is None else opened.received(*answer)

    def _answer(self, token: str, order: bytes) -> Any:
        from distributed import KilledWorker  # heavy, as above

        client = self._connected()
        silent = self._cluster is not None and context.active is not None  # its output is the run's, where it is told
        future = client.submit(perform, order, token, silent, key="perfect-" + token, pure=False, retries=0)
        self._futures[token] = future
        if self._closed:  # it came after the others had been cancelled
            future.cancel()
        try:
            return future.result()
        except KilledWorker as killed:
            worker = getattr(getattr(killed, "last_worker", None), "address", "")
            raise CrashedRun("The Dask worker of the task died (%s)." % (worker or "its address is unknown")) from None
        except Exception as wrong:
            if type(wrong).__name__ not in ("CancelledError", "FutureCancelledError"):
                raise
            if self._closed:
                raise Cancelled("The flow ended before this task.") from None
            raise CrashedRun("Dask gave the task up: %s" % wrong) from None


def _class_of(given: Any) -> Callable[..., Any]:
    if isinstance(given, str):
        module, _, name = given.rpartition(".")
        given = getattr(import_module(module), name)
    if given is None:
        from distributed import LocalCluster  # heavy, as above

        given = LocalCluster
    made: Callable[..., Any] = given
    return made


class _Open:
    """A call that is with Dask: what is known of it here."""

    def __init__(self, current: TaskRun) -> None:
        self._current = current
        self._numbers = {1: current.number}
        self._changed = threading.Condition()
        self._seen = 0
        self._outcome: Optional[Tuple[str, Any]] = None

    def perform(self, within: Callable[..., Any], step: Call) -> None:
        """In a worker that is a thread of this process: the call itself, as if no Dask were there."""
        try:
            self._outcome = "value", within(step.now)
        except BaseException as error:
            self._outcome = "error", (error, "")

    def value(self) -> Any:
        """What ``perform`` came to."""
        return _unwrapped(self._outcome or ("error", (CrashedRun("The Dask worker gave no answer."), "")))

    def take(self, fact: Any) -> None:
        """A fact of the call."""
        with self._changed:
            self._seen += 1
            self._current.run.retell(fact, self._numbers)
            self._changed.notify_all()

    def received(self, answer: bytes, count: int) -> Any:
        """The answer, and how many facts came before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen >= count, EVENTS_S)
            missing = count - self._seen
        if missing > 0:
            lost = "%d facts of a task on Dask did not arrive" % missing
            self._current.run.tell(Logged(time.time(), lost, 30, self._current.number, dropped=missing))
        return _unwrapped(pickle.loads(answer))

    def close(self) -> None:
        for number in list(self._numbers.values())[1:]:
            run = self._current.run
            run.tell(TaskEnded(run.clock(), number, "CANCELLED", "The task around it ended."))


def _unwrapped(outcome: Tuple[str, Any]) -> Any:
    kind, said = outcome
    if kind == "error":
        raise rebuild_error(*said)
    return said


def _take_event(event: Any) -> None:
    """Of every run that uses the cluster; called in the client's loop."""
    token, fact = event[1]
    opened = _open.get(token)
    if opened is not None:
        opened.take(pickle.loads(fact))


# --------------------------------------------------------------------------------------------------------- on a worker


def perform(order: bytes, token: str, silent: bool = False) -> Optional[Tuple[bytes, int]]:
    """On a worker: perform the call; its answer and the number of facts that were told before."""
    here = _here.get(token)
    if here is not None:
        here()
        return None
    from distributed import get_worker  # heavy, as above

    worker, lock, told = get_worker(), threading.Lock(), [0]

    def emit(fact: Any) -> None:
        with lock:
            told[0] += 1
            worker.log_event(TOPIC, (token, pickle.dumps(fact)))

    run = Run(id=new_id(), flow_name="", emit=emit)
    run.hear(emit)
    run.answers = NoLine(NO_QUESTIONS)
    try:
        with tee_output(run if silent else None):
            answer = "value", copy_context().run(_called, run, order)
    except BaseException as error:
        answer = "error", (unpickled_error(error, dumps), traceback_text(error))
    run.closed = True
    return _packed(answer), told[0]


def _called(run: Run, order: bytes) -> Any:
    task, args, kwargs, limit = pickle.loads(order)
    context.innermost.set(run)
    return process_pool.call_in_child(run, task, args, kwargs, limit)


def _ordered(task: Any, step: Call) -> bytes:
    limit = step.limit._replace(guard=None) if step.limit is not None else None
    try:
        return dumps((task, step.args, step.kwargs, limit))
    except Exception as wrong:
        raise TypeError("a task on Dask, and its arguments, must be picklable: %s" % wrong) from wrong


def _packed(answer: Tuple[str, Any]) -> bytes:
    try:
        return dumps(answer)
    except Exception as wrong:  # what cannot be pickled cannot be handed back
        return dumps(("error", (TypeError("%s of a task on Dask cannot be pickled: %s" % (answer[0], wrong)), "")))
