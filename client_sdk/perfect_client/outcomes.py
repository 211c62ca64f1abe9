"""What a call came to: from what its function returned or raised, to what is told and to what its caller gets."""

from __future__ import annotations

from types import GeneratorType
from typing import Any, Optional

from perfect_client import states
from perfect_client.failures import error_text, preview, safe_preview, traceback_text
from perfect_client.protocol import MAX_NAME, clean_text
from perfect_client.recorder import TaskRun
from perfect_client.states import State, StateType

MAX_MESSAGE_BYTES = 1024

# How a state is told on the wire, where only what is final can end a task.
OUTCOMES = {
    StateType.COMPLETED: "COMPLETED",
    StateType.CANCELLED: "CANCELLED",
    StateType.CRASHED: "CRASHED",
}


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


def tell(current: TaskRun, state: State) -> None:
    """The task's end, as a fact."""
    error = state.data if isinstance(state.data, BaseException) else None
    good = state.is_completed()
    current.run.end(
        current, outcome_of(state), error_of(state), traceback_of(error),
        result=result_of(current, state.data) if good else "", state=clean_text(state.own_name, MAX_NAME),
        message=clean_text(state.message or "", MAX_MESSAGE_BYTES) if good else "",
    )  # fmt: skip


def result_of(current: TaskRun, value: Any) -> str:
    """What a call returned, as its fact tells it; empty for None, and where nobody hears it."""
    if value is None or not current.run.is_told:
        return ""
    return preview(value) if current.task.kind == "flow" else safe_preview(value)


def settled(current: Optional[TaskRun], value: Any) -> Any:
    """The value of a call that returned more than a value: a generator is consumed, a bad state raises.

    ``current`` ends here if its state is not simply COMPLETED.
    """
    if isinstance(value, GeneratorType):
        return list(value)
    state = states.of_value(value)
    if current is not None and (isinstance(value, State) or not state.is_completed()):
        tell(current, state)
    return state.value() if isinstance(value, State) or not state.is_completed() else value
