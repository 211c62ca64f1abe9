"""Where submitted tasks run: ``ThreadPoolTaskRunner``, ``ProcessPoolTaskRunner``, and what every task runner shares."""

from __future__ import annotations

import os
import threading
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Callable, Dict, List, Optional, Tuple

from perfect_client.core import context, listeners, states
from perfect_client.core.middleware import TaskCall
from perfect_client.core.previews import is_interruption
from perfect_client.core.runs import TaskRun
from perfect_client.core.states import State
from perfect_client.engine import arguments
from perfect_client.engine.futures import PrefectFuture, _worker
from perfect_client.engine.steps import Call, Wait, drive, drive_later
from perfect_client.engine.task_calls import call_steps
from perfect_client.errors import Cancelled, ConfigurationError

__tracebackhide__ = True  # pytest does not show our frames

DEFAULT_THREADS = 64


class Job:
    """A submitted call on its way: the call, the context that it was submitted in, and its future."""

    __slots__ = ("above", "call", "context", "future", "is_async")

    def __init__(self, call: TaskCall, above: Optional[TaskRun]) -> None:
        self.call, self.above = call, above
        self.context: Context = copy_context()
        self.future: PrefectFuture[Any] = PrefectFuture(call.run.open(call.task, above))
        self.future.task_run.details = call
        self.is_async = call.task.is_async

    def run(self, perform: Any = None) -> None:
        """Run it to its end, in this thread. Never raises."""
        self.context.run(self._run, perform)

    def _run(self, perform: Any) -> None:
        try:
            state = drive(call_steps(self.call, self.above, self.future.task_run), perform)
        except BaseException as error:
            state = _state_of(error)
        self.finish(state)

    async def run_later(self) -> None:
        """Run it to its end, in the running loop. Never raises."""
        try:
            state = await drive_later(call_steps(self.call, self.above, self.future.task_run))
        except BaseException as error:
            state = _state_of(error)
        self.finish(state)

    def finish(self, state: State) -> None:
        """The call came to this state; what is kept is the state alone."""
        state.task_run_id = self.future.task_run_id
        self.future.finish(state)

    def drop(self) -> None:
        """It will not be run any more."""
        self.finish(states.Cancelled(message="The flow ended before this task."))


def _state_of(error: BaseException) -> State:
    """A task in a pool that ended by what is no failure of its own."""
    if is_interruption(error):
        return states.Cancelled(message=str(error) or "The task was stopped.", data=error)
    return State(states.S.FAILED, None, "%s: %s" % (type(error).__name__, error), error)


class TaskRunner:
    """What runs submitted tasks. One object is made a flow run, by ``duplicate``.

    A subclass starts jobs in ``start`` and stops in ``shut``; everything else is here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unfinished: Dict[int, Job] = {}
        self._closed = False

    @property
    def name(self) -> str:
        return type(self).__name__

    def duplicate(self) -> TaskRunner:
        """A fresh runner of the same kind and options."""
        raise NotImplementedError

    def start(self, job: Job) -> None:
        """Have ``job.run()`` called in a place of its own; returns at once."""
        raise NotImplementedError

    def shut(self) -> None:
        """Give back threads and processes; nothing is running."""

    def __enter__(self) -> TaskRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()

    def submit(self, job: Job) -> PrefectFuture[Any]:
        """Start the job as soon as the futures among its arguments have ended."""
        future, key = job.future, id(job)
        with self._lock:
            if self._closed:
                raise RuntimeError("task %r was submitted after its flow had ended" % job.call.task.name)
            self._unfinished[key] = job
        future.add_done_callback(lambda _: self._forget(key))
        call = job.call
        waiting = arguments.futures_in(*call.args, *call.kwargs.values(), call.wait_for)
        if not waiting:
            self.start(job)
            return future
        left = [len(waiting)]

        def one_ended(_: Any) -> None:
            with self._lock:
                left[0] -= 1
                ready = left[0] == 0 and not self._closed
            if ready:
                self.start(job)

        for upstream in waiting:
            upstream.add_done_callback(one_ended)
        return future

    def _forget(self, key: int) -> None:
        self._unfinished.pop(key, None)

    def unfinished(self) -> List[PrefectFuture[Any]]:
        """The futures of what has not ended yet."""
        return [job.future for job in list(self._unfinished.values())]

    def stop(self) -> None:
        """Nothing that has not begun is to begin any more."""
        with self._lock:
            self._closed = True
        for job in list(self._unfinished.values()):
            if job.future.task_run.state is None:
                job.drop()

    def interrupt(self) -> List[Tuple[int, Job]]:
        """The run is to stop: end what can be ended. The threads, by their identity, in which a job is to hear of it.

        Asked again until nothing is unfinished.
        """
        return []

    def wait_for_all(self) -> Wait:
        """The step that waits for what is running or waiting."""
        return Wait(self.unfinished())


def _checked_workers(owner: Any, max_workers: Optional[int]) -> Optional[int]:
    wrong = max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1)
    if wrong or isinstance(max_workers, bool):
        name = type(owner).__name__
        raise ConfigurationError("%s takes max_workers as a whole number above 0, not %r" % (name, max_workers))
    return max_workers


class ThreadPoolTaskRunner(TaskRunner):
    """Runs tasks in threads of this process, asynchronous ones in one thread with a loop.

    At most ``max_workers`` tasks run at a time; by default 64 in threads and any number in the loop. A task that waits
    for another task does not count.
    """

    def __init__(self, max_workers: Optional[int] = None) -> None:
        super().__init__()
        self.max_workers = _checked_workers(self, max_workers)
        self._most = max_workers or DEFAULT_THREADS
        self._threads = 0
        self._busy: Dict[int, Job] = {}  # by the thread that runs it
        self._jobs: SimpleQueue[Optional[Job]] = SimpleQueue()
        self._loop: Optional[_Loop] = None

    def duplicate(self) -> ThreadPoolTaskRunner:
        return type(self)(self.max_workers)

    def start(self, job: Job) -> None:
        if job.is_async:
            with self._lock:
                self._loop = self._loop or _Loop(self.max_workers)
            self._loop.start(job)
            return
        self._jobs.put(job)
        self._help()

    def _help(self) -> None:
        """One more thread, if there is work that nobody has taken."""
        with self._lock:
            wanted = self._threads < self._most and not self._jobs.empty()
            self._threads += wanted
        if wanted:
            self._spawn()

    def _spawn(self) -> None:
        try:
            threading.Thread(target=self._work, name="perfect-task", daemon=True).start()
        except RuntimeError:  # no more threads can be had: those that are there will do it
            with self._lock:
                self._threads -= 1
                none = self._threads == 0
            if none:
                raise

    def _work(self) -> None:
        _worker.pool = self
        try:
            while True:
                job = self._jobs.get()
                if job is None:
                    return
                self._run(job)
                with self._lock:
                    if self._threads > self._most:  # one that stood in for a thread that waited
                        self._threads -= 1
                        return
        except Cancelled:  # it came when the job had just ended, and the pool is closed
            pass

    def _run(self, job: Job) -> None:
        me = threading.get_ident()
        self._busy[me] = job
        try:
            self.perform(job)
        except BaseException as error:  # a stop, between two steps
            job.finish(_state_of(error))
        finally:
            self._busy.pop(me, None)

    def interrupt(self) -> List[Tuple[int, Job]]:
        if self._loop is not None:
            self._loop.cancel()
        return list(self._busy.items())

    def perform(self, job: Job) -> None:
        """Run one job in a thread of the pool."""
        if not job.future.done:
            job.run()

    def blocked(self, change: int) -> None:
        """A thread of the pool begins (1) or ends (-1) to wait for other tasks."""
        with self._lock:
            self._most += change
        self._help()

    def shut(self) -> None:
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, 0
        for _ in range(threads):
            self._jobs.put(None)
        if self._loop is not None:
            self._loop.shut()


class ElsewhereTaskRunner(ThreadPoolTaskRunner):
    """Runs the function of a task in another process, and everything around it in a thread of this one."""

    def start(self, job: Job) -> None:
        self._jobs.put(job)
        self._help()

    def perform(self, job: Job) -> None:
        if not job.future.done:
            job.run(lambda step: self.call(step, job) if type(step) is Call else step.now())

    def call(self, step: Any, job: Job) -> Any:
        """What the function of the task returns. Raises what it raises, and ``CrashedRun`` if its process dies."""
        raise NotImplementedError


class ProcessPoolTaskRunner(ElsewhereTaskRunner):
    """Runs tasks in processes: ``max_workers`` at a time, by default one for each processor.

    A task must stand at the top of its module, and its arguments and result must be picklable. Retries, hooks and
    deadlines are kept by this process; a task that overruns its deadline is killed. Each process calls
    ``initializer(*initargs)`` first.
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Tuple[Any, ...] = (),
    ) -> None:
        super().__init__(max_workers or os.cpu_count() or 1)
        _checked_workers(self, max_workers)
        self._initializer, self._initargs = initializer, initargs
        self._children: Dict[int, Any] = {}

    def duplicate(self) -> ProcessPoolTaskRunner:
        return type(self)(self.max_workers, self._initializer, self._initargs)

    def call(self, step: Any, job: Job) -> Any:
        me = threading.get_ident()
        child = self._children.get(me)
        if child is None or not child.alive:
            from perfect_client.engine.process_pool import Child  # heavy: only for whoever wants processes

            captured = context.active is not None or listeners.listener is not None
            child = self._children[me] = Child(self._initializer, self._initargs, captured)
        return child.call(step, job.call.task, job.future.task_run)

    def interrupt(self) -> List[Tuple[int, Job]]:
        self._kill()  # the threads that wait for them hear of it by that
        return []

    def shut(self) -> None:
        super().shut()
        self._kill()

    def _kill(self) -> None:
        children, self._children = self._children, {}
        for child in children.values():
            child.kill()


class _Loop:
    """One thread with an event loop, for all asynchronous tasks of a runner."""

    def __init__(self, most: Optional[int]) -> None:
        import asyncio  # heavy: only for whoever submits coroutines

        self._asyncio = asyncio
        self._loop = asyncio.new_event_loop()
        self._most: Any = most  # becomes a semaphore in the loop, to which it belongs before Python 3.10
        self._running: Any = set()
        threading.Thread(target=self._run, name="perfect-loop", daemon=True).start()

    def _run(self) -> None:
        _worker.loop = True
        self._asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def start(self, job: Job) -> None:
        self._loop.call_soon_threadsafe(job.context.run, self._begin, job)

    def _begin(self, job: Job) -> None:
        task = self._loop.create_task(self._one(job))
        self._running.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._running.discard)

    async def _one(self, job: Job) -> None:
        if self._most is None:
            return await job.run_later()
        if isinstance(self._most, int):
            self._most = self._asyncio.Semaphore(self._most)
        async with self._most:
            await job.run_later()

    def cancel(self) -> None:
        """Cancel what runs, once."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        running, self._running = self._running, set()
        for task in running:
            task.cancel()

    def shut(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


def __getattr__(name: str) -> Any:
    if name != "DaskTaskRunner":
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from importlib import import_module  # heavy: with the module that it loads

    return import_module("perfect_client.engine.dask").DaskTaskRunner
