"""Tasks and flows that yield: iterated over, they run while somebody iterates; submitted, they give a list."""

from __future__ import annotations

from typing import Any, AsyncIterator, Callable, Dict, Generator, Tuple

from perfect_client.core import context, outcomes, states
from perfect_client.core.previews import is_clean_exit
from perfect_client.core.runs import Run, SubRun, TaskRun
from perfect_client.engine import arguments, flow_calls, task_calls
from perfect_client.engine.steps import drive
from perfect_client.output import log_prints

__tracebackhide__ = True  # pytest does not show our frames


class _Activation:
    """Context manager: the code inside is of this run and task. Between two items it is not."""

    def __init__(self, run: Run, task: Any) -> None:
        self._run, self._task = run, task

    def __enter__(self) -> None:
        self._before = context.innermost.get(), context.task.get()
        context.innermost.set(self._run)
        context.task.set(self._task)
        self._prints = log_prints.begin(self._run if self._task is None else self._task)

    def __exit__(self, *exc: object) -> None:
        if self._prints:
            log_prints.end()
        context.innermost.set(self._before[0])
        context.task.set(self._before[1])


End = Callable[[Any], None]


def generate_task(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """An iterator over what the task yields; the call begins with the first item and ends with the last."""
    call = task_calls.make_call(task, args, kwargs)
    if call.return_state:
        return drive(task_calls.call_steps(call, context.task.get()))

    def begin() -> Tuple[Any, Run, TaskRun, End]:
        given, named = arguments.resolve_futures(call.args, call.kwargs, call.wait_for)
        current = call.run.start(task, context.task.get())
        return task.fn(*given, **named), call.run, current, lambda error: _end(current, error)

    return _iterate_later(begin) if task.is_async else _iterate(begin)


def generate_flow(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """An iterator over what the flow yields; the run begins with the first item and ends with the last."""
    if kwargs.pop("return_state", False):
        return flow_calls.call_flow(flow, args, {**kwargs, "return_state": True})
    wait_for = kwargs.pop("wait_for", None)

    def begin() -> Tuple[Any, Run, Any, End]:
        untouched = flow_calls.annotated_names(flow, args, kwargs)
        given, named = arguments.resolve_futures(args, kwargs, wait_for)
        given, named, parameters = flow_calls.read_arguments(flow, given, named, untouched)
        run, call = flow_calls.make_run(flow)
        run.parameters = parameters
        if isinstance(run, SubRun) and call is not None:
            call.run.begin(call, run.flow_name)
            flow_calls.tell_start(run)
        generator = flow.fn(*given, **named)
        return generator, run, call or context.task.get(), lambda error: _end_flow(run, call, error)

    return _iterate_later(begin) if flow.is_async else _iterate(begin)


def _end(current: TaskRun, error: Any) -> None:
    if error is None:
        current.run.end(current)
    else:
        current.run.fail(current, error)


def _end_flow(run: Run, call: Any, error: Any) -> None:
    if run.runner is not None:
        if error is None:
            run.runner.wait_for_all().now()
        run.runner.stop()
        run.runner.shut()
    if call is not None:
        run.end_open(flow_calls.LEFT_OPEN)
        _end(call, error)
    elif run.heard:
        state = None if error is None else outcomes.failed_outcome(run, error)
        flow_calls.end_direct_call(run, state or outcomes.outcome_of_state(run, states.Completed()))


def _iterate(begin: Callable[[], Tuple[Any, Run, Any, End]]) -> Generator[Any, Any, Any]:
    generator, run, task, end = begin()
    sent: Any = None
    try:
        while True:
            with _Activation(run, task):
                item = generator.send(sent)
            sent = yield item
    except StopIteration as done:
        end(None)
        return done.value
    except GeneratorExit:  # nobody wants more: that is no failure
        with _Activation(run, task):
            generator.close()
        end(None)
        raise
    except BaseException as error:
        well = is_clean_exit(error)
        end(None if well else error)
        if not well:
            raise


async def _iterate_later(begin: Callable[[], Tuple[Any, Run, Any, End]]) -> AsyncIterator[Any]:
    generator, run, task, end = begin()
    try:
        while True:
            with _Activation(run, task):
                item = await generator.__anext__()
            yield item
    except StopAsyncIteration:
        end(None)
    except GeneratorExit:
        end(None)
        raise
    except BaseException as error:
        well = is_clean_exit(error)
        end(None if well else error)
        if not well:
            raise
