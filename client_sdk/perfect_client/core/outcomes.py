"""What a call came to: from what its function returned or raised, to what is told and to what its caller gets."""

from __future__ import annotations

from types import GeneratorType
from typing import Any, Optional

from perfect_client.core import states
from perfect_client.core.previews import error_text, is_interruption, preview, safe_preview, traceback_text
from perfect_client.core.runs import Run, TaskRun
from perfect_client.core.states import State, StateType
from perfect_client.errors import TimedOut
from perfect_client.wire.messages import MAX_NAME, RunEnded, clean_text

__tracebackhide__ = True  # pytest does not show our frames
MAX_MESSAGE_BYTES = 1024

# How a state is told on the wire, where only what is final can end a task.
OUTCOMES = {
    StateType.COMPLETED: "COMPLETED",
    StateType.CANCELLED: "CANCELLED",
    StateType.CRASHED: "CRASHED",
}

_OF_RUNS = {StateType.COMPLETED: "COMPLETED", StateType.CANCELLED: "CANCELLED"}
_WITH_EXCEPTION = frozenset({StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})


def outcome_of(state: State) -> str:
    """The outcome that a fact tells: what is neither completed nor stopped has failed."""
    return "SKIPPED" if state.name == "NotReady" else OUTCOMES.get(state.type, "FAILED")


def error_of(state: State) -> str:
    """One line of what went wrong; empty for a completed state."""
    if state.is_completed():
        return ""
    return error_text(state.data) if isinstance(state.data, BaseException) else state.message or repr(state)


def traceback_of(error: Optional[BaseException]) -> str:
    """The traceback as facts carry it; empty without an exception."""
    return traceback_text(error) if error is not None else ""


def emit_task_end(current: TaskRun, state: State) -> None:
    """The task's end, as a fact."""
    error = state.data if isinstance(state.data, BaseException) else None
    good = state.is_completed()
    outcome, told, traceback = outcome_of(state), error_of(state), traceback_of(error)
    if outcome in ("FAILED", "CRASHED"):
        current.run.log_failure(current, error, told, traceback)
    current.run.end(
        current,
        outcome,
        told,
        traceback,
        result=preview_result(current, state.data) if good else "",
        state=clean_text(state.own_name, MAX_NAME),
        message=clean_text(state.message or "", MAX_MESSAGE_BYTES) if good else "",
    )


def preview_result(current: TaskRun, value: Any) -> str:
    """What a call returned, as its fact tells it; empty for None, and where nobody hears it."""
    if value is None or not current.run.is_told:
        return ""
    return preview(value) if current.task.kind == "flow" else safe_preview(value)


def failed_outcome(run: Run, error: BaseException) -> RunEnded:
    """The end of a run that an exception left: an interruption makes it CANCELLED, everything else FAILED."""
    if is_interruption(error):
        by_code = not isinstance(error, KeyboardInterrupt)  # which may come from outside; a coroutine cancels itself
        reason = str(error) or ("The flow ended with %s." % type(error).__name__ if by_code else "The run was stopped.")
        return RunEnded(run.clock(), "CANCELLED", reason=reason, by_code=by_code)
    told, traceback = error_text(error), traceback_text(error)
    run.log_failure(None, error, told, traceback)
    return RunEnded(run.clock(), "FAILED", error=told, traceback=traceback)


def outcome_of_state(run: Run, state: State) -> RunEnded:
    """The outcome by the flow's final state: what it returned, or the exception that it raised."""
    outcome, message = _OF_RUNS.get(state.type, "FAILED"), state.message or ""
    if outcome == "COMPLETED":
        result = "" if state.data is None else preview(state.data)
        return RunEnded(run.clock(), outcome, reason=message, result=result, state=state.own_name)
    error = states.exception_of(state) if state.type in _WITH_EXCEPTION else None
    told = traceback_of(error) if error is state.data or (error and error.__traceback__) else ""
    reason = "timed_out: %s" % error if isinstance(error, TimedOut) else "" if error is state.data else message
    wrong = error_text(error) if error else error_of(state)
    if outcome == "FAILED":
        run.log_failure(None, error, wrong, told)
    return RunEnded(
        run.clock(), outcome, reason=reason, error=wrong, traceback=told, by_code=True, state=state.own_name
    )


def resolve_value(current: Optional[TaskRun], value: Any) -> Any:
    """The value of a call that returned more than a value: a generator is consumed, a bad state raises.

    ``current`` ends here if its state is not simply COMPLETED.
    """
    if isinstance(value, GeneratorType):
        return list(value)
    state = states.of_value(value)
    if current is not None and (isinstance(value, State) or not state.is_completed()):
        emit_task_end(current, state)
    return state.value() if isinstance(value, State) or not state.is_completed() else value
